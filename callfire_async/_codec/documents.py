"""
Convert bytes to plain mappings and back: XML, JSON, SOAP and form fields, with limits for hostile input.

A document is read as the local name of its root and a dict of the root's content: attributes as ``@name``, text beside
them as ``#text``, repeated elements as lists, without prefixes and ``xmlns``. Anything else is an
`InvalidDocumentError`, whose message quotes nothing of the document.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeAlias
from urllib.parse import parse_qsl, urlencode
from xml.parsers import expat

import xmltodict

from callfire_async._codec.scalars import format_scalar, normalize

# A node of a document: a scalar, or a mapping or list of nodes.
Tree: TypeAlias = Any

DATA = "http://api.callfire.com/data"
NOTIFICATION = "http://api.callfire.com/notification/xsd"
RESOURCE = "http://api.callfire.com/resource"
SOAP_11 = "http://schemas.xmlsoap.org/soap/envelope/"
SOAP_12 = "http://www.w3.org/2003/05/soap-envelope"

# A real notification has about forty elements; plain xmltodict needs a second and 65 MB for a megabyte of them.
MAX_ELEMENTS = 10_000
# An unknown name in a namespace costs a second parse; a real document has none.
MAX_UNKNOWN_NAMES = 1_000
# CallFire's namespaces have about forty characters.
MAX_NAMESPACE_LENGTH = 256
# Expat copies the namespace into every name. The copies cannot exceed the product of a document's length and its number
# of names; the length of its namespaces is checked first if that product is above this limit. A notification's product
# is a tenth of it.
_MAX_JOINED_BYTES = 8_000_000
# The deepest known document has eight levels. Comparing or printing a value hits the recursion limit far above this.
MAX_DEPTH = 64

_WHITE_SPACE = " \t\r\n"
_ENCODINGS = frozenset(["utf-8", "utf-16", "utf-16le", "utf-16be", "iso-8859-1", "us-ascii", "windows-1252", "cp1252"])
_SINGLE_BYTE_ENCODINGS = frozenset(["iso-8859-1", "latin-1", "windows-1252", "cp1252"])
_CHARSET = re.compile(r"charset=[\"']?([\w-]+)", re.IGNORECASE)


class InvalidDocumentError(ValueError):
    """Raised inside the package for bytes that are neither XML nor JSON, or that exceed a limit."""


class UnexpectedDocumentError(InvalidDocumentError):
    """Raised inside the package for well-formed bytes that are not one named object."""


# --- reading ----------------------------------------------------------------------------------------------


def read(
    body: bytes | str, content_type: str | None = None, *, max_elements: int = MAX_ELEMENTS
) -> tuple[str, dict[str, Any]]:
    """
    Read an XML, JSON or SOAP document; the format is detected from the body.

    Args:
        body: The document. If it is text, an encoding in its XML declaration is ignored.
        content_type: Its charset is used only for a single-byte body that declares no encoding.
        max_elements: The maximum number of tags in XML, and of objects and lists in JSON. Twice as many attributes or
            commas are allowed.

    Returns:
        The local name of the root, and the root's content.

    Raises:
        InvalidDocumentError: The body is neither XML nor JSON, or exceeds a limit.
        UnexpectedDocumentError: The body is well-formed, but not one named object, or it is an HTML page.
    """
    source = _strip_bom_and_decode(body, content_type)
    return _read_xml(source, max_elements) if _is_xml(source) else _read_json(source, max_elements)


def _strip_bom_and_decode(body: bytes | str, content_type: str | None) -> bytes | str:
    """Strip a byte order mark and leading white space; decode what the XML parser cannot decode by itself."""
    if isinstance(body, str):
        return body.lstrip("\ufeff" + _WHITE_SPACE)
    if body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return _decode(body, "utf-16").lstrip()
    body = body.removeprefix(codecs.BOM_UTF8).lstrip(_WHITE_SPACE.encode())
    if content_type is None or body.startswith(b"<?xml"):
        return body
    charset = _CHARSET.search(content_type)
    if charset and charset[1].lower() in _SINGLE_BYTE_ENCODINGS and not _is_utf_8(body):
        return _decode(body, charset[1])
    return body


def _is_utf_8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _decode(body: bytes, encoding: str) -> str:
    try:
        return body.decode(encoding)
    except UnicodeDecodeError:
        raise InvalidDocumentError(f"not valid {encoding.upper()}") from None


def _is_xml(source: bytes | str) -> bool:
    return source.startswith("<") if isinstance(source, str) else source.startswith((b"<", b"\0<"))


# --- XML --------------------------------------------------------------------------------------------------

# The names of API 1.1. A document with any other name in a namespace is parsed twice.
_WORDS = """
    Resource ResourceList ResourceReference ResourceException Id Location HttpStatus Message
    TextNotification TextSent TextReceived TextFinished CallFinished BroadcastNotification BroadcastStarted
    BroadcastStopped BroadcastFinished CampaignStarted CampaignStopped CampaignFinished SubscriptionId subscriptionId
    Subscription Enabled Endpoint NonStrictSsl NotificationFormat TriggerEvent SubscriptionFilter BroadcastId BatchId
    FromNumber ToNumber Inbound Text Call State ContactId Created Modified FinalResult Label Name TextRecord CallRecord
    AgentCall Result FinishTime BilledAmount QuestionResponse Question Response SwitchId CallerName OriginateTime
    AnswerTime Duration RecordingMeta LengthInSeconds Link Broadcast Status LastModified Type VoiceBroadcastConfig
    TextBroadcastConfig IvrBroadcastConfig LocalTimeZoneRestriction BeginTime EndTime RetryConfig MaxAttempts
    MinutesBetweenAttempts RetryResults RetryPhoneTypes BigMessageStrategy DialplanXml
"""
_LOCAL_NAMES = {f"{namespace} {word}": word for namespace in (DATA, NOTIFICATION, RESOURCE) for word in _WORDS.split()}
_LOCAL_NAMES |= {f"{soap} {word}": word for soap in (SOAP_11, SOAP_12) for word in ("Envelope", "Header", "Body")}
# Attributes have no namespace. Expat adds each name that is not in the table, so that a longer table shows that a
# document has unknown names.
_LOCAL_NAMES |= {attribute: attribute for attribute in ("id", "totalResults", "ClientData")}


class _GuardedExpat:
    """
    A replacement for the ``expat`` module that xmltodict uses, which creates parsers with guards only.

    Expat joins a namespace and a name by a space. Its table of interned names then maps the result to the local name at
    no cost; xmltodict's own mapping of namespaces takes a third of the parse.
    """

    # xmltodict sets both. Attributes are always passed as a dict: with a list of them xmltodict takes a tenth longer.
    ordered_attributes = buffer_text = True

    def __init__(self, local_names: dict[str, str], *, trust_declaration: bool) -> None:
        self._local_names = local_names
        self._trust_declaration = trust_declaration

    StartElementHandler: Callable[..., None]
    EndElementHandler: Callable[..., None]
    CharacterDataHandler: Callable[..., None]

    def ParserCreate(self, encoding: str | None, _: str | None) -> _GuardedExpat:  # noqa: N802  # expat's own name
        self._encoding = encoding
        return self

    def Parse(self, document: bytes, final: bool) -> None:  # noqa: N802, FBT001  # expat's own signature
        parser = expat.ParserCreate(self._encoding, " ", self._local_names)
        _add_guards(parser, trust_declaration=self._trust_declaration)
        parser.buffer_text = self.buffer_text
        parser.StartElementHandler = self.StartElementHandler
        parser.EndElementHandler = self.EndElementHandler
        parser.CharacterDataHandler = self.CharacterDataHandler
        parser.Parse(document, final)


def _add_guards(parser: expat.XMLParserType, *, trust_declaration: bool) -> None:
    parser.StartDoctypeDeclHandler = _reject_doctype
    if trust_declaration:
        parser.XmlDeclHandler = _check_encoding


def _reject_doctype(*_: object) -> NoReturn:
    raise InvalidDocumentError("XML with a DOCTYPE is not accepted")


def _check_encoding(_: str, encoding: str | None, __: int) -> None:
    # Expat calls this before it looks the encoding up, so that no codec is searched for by a name from the document.
    if encoding and encoding.lower() not in _ENCODINGS:
        raise InvalidDocumentError("the encoding in the XML declaration is not supported")


def _check_namespaces(_: str, attributes: dict[str, str]) -> None:
    for name, value in attributes.items():
        if len(value) > MAX_NAMESPACE_LENGTH and name.startswith("xmlns"):
            raise InvalidDocumentError("the XML document has a namespace that is too long")


def _read_xml(source: bytes | str, max_elements: int) -> tuple[str, dict[str, Any]]:
    try:
        document = source if isinstance(source, bytes) else source.encode()
        ((root, content),) = _parse_xml(document, max_elements, trust_declaration=document is source).items()
    except expat.ExpatError as error:
        reason = expat.errors.messages[error.code]
        raise InvalidDocumentError(f"invalid XML: {reason} at line {error.lineno}, column {error.offset + 1}") from None
    except UnicodeEncodeError:
        raise InvalidDocumentError("invalid XML: lone surrogate") from None
    return _unwrap_soap(root, content)


def _parse_xml(document: bytes, max_elements: int, *, trust_declaration: bool) -> dict[str, Tree]:
    elements, attributes = document.count(b"<"), document.count(b"=")
    if elements > max_elements or attributes > 2 * max_elements:
        raise InvalidDocumentError("the XML document has too many elements or attributes")
    if len(document) * (elements + attributes) > _MAX_JOINED_BYTES:
        _check_namespace_lengths(document, trust_declaration=trust_declaration)
    tree = _parse_guarded(document, trust_declaration=trust_declaration)
    if elements > MAX_DEPTH and _exceeds_max_depth(tree):
        raise InvalidDocumentError("the XML document is nested too deeply")
    return tree


def _check_namespace_lengths(document: bytes, *, trust_declaration: bool) -> None:
    # Without a namespace separator expat joins no names. A namespace handler would be called after they are joined.
    parser = expat.ParserCreate(None if trust_declaration else "utf-8")
    _add_guards(parser, trust_declaration=trust_declaration)
    parser.StartElementHandler = _check_namespaces
    parser.Parse(document, True)  # noqa: FBT003  # expat's own signature


def _parse_guarded(document: bytes, *, trust_declaration: bool) -> dict[str, Tree]:
    """Parse a document, and parse it again with its unknown names in the table if it has any."""
    local_names = dict(_LOCAL_NAMES)

    def parse() -> dict[str, Tree]:
        guarded = _GuardedExpat(local_names, trust_declaration=trust_declaration)
        encoding = None if trust_declaration else "utf-8"
        return xmltodict.parse(document, encoding, expat=guarded, disable_entities=False)

    tree = parse()
    added = local_names.keys() - _LOCAL_NAMES.keys() if len(local_names) > len(_LOCAL_NAMES) else ()
    unknown = [name for name in added if " " in name]
    if not unknown:
        return tree
    if len(unknown) > MAX_UNKNOWN_NAMES:
        raise InvalidDocumentError("the XML document has too many unknown names")
    local_names.update((name, name.rpartition(" ")[2]) for name in unknown)
    return parse()


def _unwrap_soap(root: str, content: Tree) -> tuple[str, dict[str, Any]]:
    """Return the content of a SOAP envelope, or of any other root, as a mapping."""
    if root == "Envelope":
        root, content = _soap_body(content)
    if root.lower() == "html":
        raise UnexpectedDocumentError("expected XML or JSON, got an HTML page")
    if isinstance(content, dict):
        return root, content
    return root, {"#text": content} if content else {}


def _soap_body(content: Tree) -> tuple[str, Tree]:
    body = content.get("Body") if isinstance(content, dict) else None
    elements = [item for item in body.items() if item[0][0] not in "@#"] if isinstance(body, dict) else []
    if len(elements) != 1 or isinstance(elements[0][1], list):
        raise UnexpectedDocumentError("expected exactly one element in the body of the SOAP envelope")
    return elements[0]


# --- JSON -------------------------------------------------------------------------------------------------


def _reject_constant(_: str) -> NoReturn:
    raise InvalidDocumentError("invalid JSON: NaN and Infinity are not allowed")


def _parse_float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise InvalidDocumentError("invalid JSON: number out of range")
    return number


_DECODER = json.JSONDecoder(parse_constant=_reject_constant, parse_float=_parse_float, strict=False)


def _read_json(source: bytes | str, max_elements: int) -> tuple[str, dict[str, Any]]:
    text = source if isinstance(source, str) else _decode_json(source)
    # Brackets and commas inside strings count too: no message has thousands of them.
    containers = text.count("{") + text.count("[")
    if containers > max_elements or text.count(",") > 2 * max_elements:
        raise InvalidDocumentError("the JSON document has too many values")
    tree = _parse_json(text)
    if containers > MAX_DEPTH and _exceeds_max_depth(tree):
        raise InvalidDocumentError("the JSON document is nested too deeply")
    if not isinstance(tree, dict) or len(tree) != 1:
        raise UnexpectedDocumentError("expected a JSON object with exactly one key")
    ((root, content),) = tree.items()
    if not isinstance(content, dict):
        raise UnexpectedDocumentError("the value of the JSON document's only key is not an object")
    return root, content


def _decode_json(body: bytes) -> str:
    # JSON starts with an ASCII character, so that every encoding but UTF-8 has a NUL among the first four bytes.
    return _decode(body, json.detect_encoding(body) if 0 in body[:4] else "utf-8")


def _parse_json(text: str) -> Tree:
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise InvalidDocumentError(f"neither XML nor JSON: at line {error.lineno}, column {error.colno}") from None
    except InvalidDocumentError:
        raise
    except (ValueError, RecursionError):
        raise InvalidDocumentError("invalid JSON: number or nesting out of range") from None


def _exceeds_max_depth(tree: object) -> bool:
    """Return whether mappings and lists are nested more than `MAX_DEPTH` deep."""
    level = [tree]
    for _ in range(MAX_DEPTH + 1):
        level = [child for node in level for child in _children(node) if isinstance(child, dict | list)]
        if not level:
            return False
    return True


def _children(node: Tree) -> list[Any]:
    if isinstance(node, list):
        return node
    children: list[Any] = []
    for child in node.values():
        children.extend(child if isinstance(child, list) else [child])
    return children


# --- writing ----------------------------------------------------------------------------------------------


def write_xml(tree: Mapping[str, Any]) -> bytes:
    """Write a mapping with one root as XML; names keep their prefixes, which ``@xmlns`` attributes declare."""
    return xmltodict.unparse(tree).encode()


def write_json(tree: Mapping[str, Any]) -> bytes:
    """Write a mapping as JSON, with text beside attributes under ``value``, as CallFire does."""
    return json.dumps(_for_json(tree), separators=(",", ":"), ensure_ascii=False).encode()


def _for_json(node: Tree) -> Tree:
    if isinstance(node, dict):
        return {"value" if key == "#text" else key: _for_json(value) for key, value in node.items()}
    return [_for_json(item) for item in node] if isinstance(node, list) else node


def write_form(fields: Mapping[str, str]) -> bytes:
    """Write form fields, percent-encoded."""
    return urlencode(fields).encode()


def read_form(body: bytes) -> dict[str, str]:
    """Read form fields; the last value of a repeated name wins."""
    return dict(parse_qsl(body.decode(), keep_blank_values=True))


# --- comparing --------------------------------------------------------------------------------------------


def canonicalize(content: Mapping[str, Any]) -> str:
    """
    Return a document in a form that does not depend on its format.

    Scalars are text, keys are sorted, a list of one equals its item, and empty values are left out.
    """
    return json.dumps(_canonical(content), sort_keys=True)


def fingerprint(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a document's canonical form, as hexadecimal digits."""
    return hashlib.sha256(canonicalize(content).encode()).hexdigest()


def _canonical(node: Tree) -> Tree:
    if isinstance(node, dict):
        pairs = ((("#text" if key == "value" else key), _canonical(value)) for key, value in node.items())
        return _collapse_text_node({key: value for key, value in pairs if value is not None})
    if isinstance(node, list):
        items = [item for item in map(_canonical, node) if item is not None]
        return items[0] if len(items) == 1 else items or None
    return normalize(format_scalar(node))


def _collapse_text_node(mapping: dict[str, Any]) -> Tree:
    """Return the text of an element that has nothing else, and None for an empty element."""
    return mapping["#text"] if mapping.keys() == {"#text"} else mapping or None
