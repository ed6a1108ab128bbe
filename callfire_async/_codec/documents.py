"""
Bytes to plain mappings and back: XML, JSON, SOAP and form fields, guarded against hostile input.

A document becomes the local name of its root and a dict of what stands inside: attributes as ``@name``, text
beside them as ``#text``, repeated elements as lists, no prefixes and no ``xmlns``. Reading gives that or raises
`InvalidDocumentError` (whose words are safe to print), nothing else. The one importer of xmltodict and json; it imports
nothing of the package.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import math
import re
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias
from urllib.parse import parse_qsl, urlencode
from xml.parsers import expat

import xmltodict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# What stands in a document: a scalar, or mappings and lists of it.
Tree: TypeAlias = Any

DATA = "http://api.callfire.com/data"
NOTIFICATION = "http://api.callfire.com/notification/xsd"
RESOURCE = "http://api.callfire.com/resource"
SOAP_11 = "http://schemas.xmlsoap.org/soap/envelope/"
SOAP_12 = "http://www.w3.org/2003/05/soap-envelope"

# A real notification has some forty elements; plain xmltodict spends a second and 65 MB on a megabyte of them.
MAX_ELEMENTS = 10_000
# A name of a namespace that is not CallFire's costs a second parse; a real document has none of them.
MAX_STRANGE_NAMES = 1_000
# CallFire's have some forty letters.
MAX_NAMESPACE_LENGTH = 256
# Expat puts the namespace before every name in it. No more bytes than this can come of a document whose length, times
# its names, is less; of a longer one it is looked first how long its namespaces are. A notification comes to a tenth.
_MAX_JOINED_BYTES = 8_000_000
# The deepest known document has eight levels. Far below where comparing or printing a value meets the recursion limit.
MAX_DEPTH = 64

_WHITE = b" \t\r\n"
_JSON_WHITE = _WHITE.decode()
# What most bodies begin with: nothing stands before these.
_BEGINNINGS = (b"{", b"<")
_ENCODINGS = frozenset(["utf-8", "utf-16", "utf-16le", "utf-16be", "iso-8859-1", "us-ascii", "windows-1252", "cp1252"])
_CHARSET = re.compile(r"charset=[\"']?([\w-]+)", re.IGNORECASE)
_SINGLE_BYTE = frozenset(["iso-8859-1", "latin-1", "windows-1252", "cp1252"])


class InvalidDocumentError(ValueError):  # a signal between these rooms; callers see an error of errors.py
    """The bytes are neither XML nor JSON, or are made to do harm."""


class UnexpectedDocumentError(InvalidDocumentError):
    """The bytes are well-formed, but not one named object."""


# --- reading ----------------------------------------------------------------------------------------------


def read(
    body: bytes | str, content_type: str | None = None, *, max_elements: int = MAX_ELEMENTS
) -> tuple[str, dict[str, Any]]:
    """
    Read one XML, JSON or SOAP document; the body decides which it is.

    Args:
        body: As it came. In text, an encoding in the XML declaration is ignored.
        content_type: A hint: its charset is used for a single-byte body that does not say its own.
        max_elements: How many tags an XML document may have, or objects and lists a JSON one; of attributes or commas
            twice as many.

    Returns:
        The root's local name, and what stands inside it.

    Raises:
        NotADocument: Neither XML nor JSON, or hostile.
        NotOneObject: A well-formed document of another shape, or a page of HTML.
    """
    source = _strip_bom_and_decode(body, content_type)
    return _read_xml(source, max_elements) if _is_xml(source) else _read_json(source, max_elements)


def _strip_bom_and_decode(body: bytes | str, content_type: str | None) -> bytes | str:
    """Strip what may stand before a document; decode what the XML parser could not."""
    if isinstance(body, str):
        return body.lstrip("\ufeff \t\r\n")
    if not body.startswith(_BEGINNINGS):
        if body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return _decoded(body, "utf-16").lstrip()
        body = body.removeprefix(codecs.BOM_UTF8).lstrip(_WHITE)
    if content_type is None or body.startswith(b"<?xml"):
        return body
    charset = _CHARSET.search(content_type)
    if charset and charset[1].lower() in _SINGLE_BYTE and not _is_utf_8(body):
        return _decoded(body, charset[1])
    return body


def _is_utf_8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _decoded(body: bytes, encoding: str) -> str:
    try:
        return body.decode(encoding)
    except UnicodeDecodeError:
        raise InvalidDocumentError(f"not valid {encoding.upper()}") from None


def _is_xml(source: bytes | str) -> bool:
    return source.startswith("<") if isinstance(source, str) else source.startswith((b"<", b"\0<"))


# --- XML --------------------------------------------------------------------------------------------------

# The words of API 1.1. A name that is not here is read just as well, at twice the cost.
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
_NAMES = {f"{namespace} {word}": word for namespace in (DATA, NOTIFICATION, RESOURCE) for word in _WORDS.split()} | {
    f"{namespace} {word}": word for namespace in (SOAP_11, SOAP_12) for word in ("Envelope", "Header", "Body")
}
# Expat adds to its table what is not in it, and so says that there was something: attributes have no namespace.
_NAMES |= {attribute: attribute for attribute in ("id", "totalResults", "ClientData")}


class _GuardedExpat:
    """
    Stands in for the ``expat`` that xmltodict asks for, and keeps what it sets from reaching the parser unguarded.

    Expat joins a namespace and a name with a space; its own table of names then gives the local name for both,
    which costs nothing where xmltodict's mapping of namespaces would cost a third of the parse.
    """

    # Both are set by xmltodict. Attributes come as a dict whatever it says, since it would make one of their list: that
    # takes a tenth of its time.
    ordered_attributes = buffer_text = True

    def __init__(self, names: dict[str, str], *, trust_declaration: bool) -> None:
        self._names = names
        self._trust_declaration = trust_declaration

    StartElementHandler: Callable[..., None]
    EndElementHandler: Callable[..., None]
    CharacterDataHandler: Callable[..., None]

    def ParserCreate(self, encoding: str | None, _: str | None) -> _GuardedExpat:  # noqa: N802  # expat's own name
        self._encoding = encoding
        return self

    def Parse(self, document: bytes, final: bool) -> None:  # noqa: N802, FBT001  # expat's own signature
        parser = expat.ParserCreate(self._encoding, " ", self._names)
        parser = _guarded(parser, trust_declaration=self._trust_declaration)
        parser.buffer_text = self.buffer_text
        parser.StartElementHandler = self.StartElementHandler
        parser.EndElementHandler = self.EndElementHandler
        parser.CharacterDataHandler = self.CharacterDataHandler
        parser.Parse(document, final)


def _guarded(parser: expat.XMLParserType, *, trust_declaration: bool) -> expat.XMLParserType:
    parser.StartDoctypeDeclHandler = _refuse_doctype
    if trust_declaration:
        parser.XmlDeclHandler = _check_encoding
    return parser


def _check_namespaces(_: str, attributes: dict[str, str]) -> None:
    for name, value in attributes.items():
        if len(value) > MAX_NAMESPACE_LENGTH and name.startswith("xmlns"):
            raise InvalidDocumentError("an XML document with a long namespace is not read")


def _refuse_doctype(*_: object) -> NoReturn:
    raise InvalidDocumentError("an XML document with a DOCTYPE is not read")


def _check_encoding(_: str, encoding: str | None, __: int) -> None:
    # Called before expat looks an encoding up, so that no codec is ever searched for by a stranger's name.
    if encoding and encoding.lower() not in _ENCODINGS:
        raise InvalidDocumentError("the encoding that the XML declaration names is not read")


def _read_xml(source: bytes | str, max_elements: int) -> tuple[str, dict[str, Any]]:
    try:
        document = source if isinstance(source, bytes) else source.encode()
        return _unwrap_soap(*_parsed(document, max_elements, trust_declaration=document is source))
    except expat.ExpatError as error:
        reason = expat.errors.messages[error.code]
        raise InvalidDocumentError(f"not XML: {reason} at line {error.lineno}, column {error.offset + 1}") from None
    except UnicodeEncodeError:
        raise InvalidDocumentError("not XML: a lone surrogate") from None


def _parsed(document: bytes, max_elements: int, *, trust_declaration: bool) -> tuple[str, Any]:
    elements, attributes = document.count(b"<"), document.count(b"=")
    if elements > max_elements or attributes > 2 * max_elements:
        raise InvalidDocumentError("an XML document with too many elements or attributes is not read")
    encoding = None if trust_declaration else "utf-8"
    if len(document) * (elements + attributes) > _MAX_JOINED_BYTES:
        # A parser that knows no namespaces joins nothing. A handler of them would come too late: expat ends the tag.
        parser = _guarded(expat.ParserCreate(encoding), trust_declaration=trust_declaration)
        parser.StartElementHandler = _check_namespaces
        parser.Parse(document, True)  # noqa: FBT003  # expat's own signature
    names = dict(_NAMES)

    def parse() -> Tree:
        guarded = _GuardedExpat(names, trust_declaration=trust_declaration)
        return xmltodict.parse(document, encoding, expat=guarded, disable_entities=False)

    tree = parse()
    strangers = [] if len(names) == len(_NAMES) else [name for name in names.keys() - _NAMES.keys() if " " in name]
    if len(strangers) > MAX_STRANGE_NAMES:
        raise InvalidDocumentError("an XML document with too many strange names is not read")
    if strangers:
        names.update((name, name.rpartition(" ")[2]) for name in strangers)
        tree = parse()
    if elements > MAX_DEPTH and _exceeds_max_depth(tree):
        raise InvalidDocumentError("an XML document nested too deeply is not read")
    ((root, content),) = tree.items()
    return root, content


def _unwrap_soap(root: str, content: Tree) -> tuple[str, dict[str, Any]]:
    """Take what a SOAP envelope holds; make what stands in an empty or simple root a mapping too."""
    if root == "Envelope":
        root, content = _soap_body(content)
    if root.lower() == "html":
        raise UnexpectedDocumentError("a page of HTML")
    if isinstance(content, dict):
        return root, content
    return root, {"#text": content} if content else {}


def _soap_body(content: Tree) -> tuple[str, Tree]:
    body = content.get("Body") if isinstance(content, dict) else None
    inside = [item for item in body.items() if item[0][0] not in "@#"] if isinstance(body, dict) else []
    if len(inside) != 1 or isinstance(inside[0][1], list):
        raise UnexpectedDocumentError("a SOAP envelope that does not hold one element")
    return inside[0]


# --- JSON -------------------------------------------------------------------------------------------------


def _refuse_number(_: str) -> NoReturn:
    raise InvalidDocumentError("not JSON: a number that is none")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise InvalidDocumentError("not JSON: a number out of range")
    return number


_DECODER = json.JSONDecoder(parse_constant=_refuse_number, parse_float=_finite, strict=False)


def _read_json(source: bytes | str, max_elements: int) -> tuple[str, dict[str, Any]]:
    if isinstance(source, str):
        text = source
    else:
        # Every encoding but UTF-8 has a NUL there, since JSON begins with ASCII.
        text = _decoded(source, json.detect_encoding(source) if 0 in source[:4] else "utf-8")
    # Those in a text count too: no message has thousands.
    containers = text.count("{") + text.count("[")
    if containers > max_elements or (len(text) > 2 * max_elements < text.count(",")):
        raise InvalidDocumentError("a JSON document with too many values is not read")
    tree = _decoded_json(text)
    if containers > MAX_DEPTH and _exceeds_max_depth(tree):
        raise InvalidDocumentError("a JSON document nested too deeply is not read")
    if not isinstance(tree, dict) or len(tree) != 1:
        raise UnexpectedDocumentError("a JSON document that is not an object with one key")
    ((root, content),) = tree.items()
    if not isinstance(content, dict):
        raise UnexpectedDocumentError("a JSON document whose one value is not an object")
    return root, content


def _decoded_json(text: str) -> Tree:
    try:
        if text.startswith("{"):
            tree, end = _DECODER.raw_decode(text)
            if end == len(text) or not text[end:].strip(_JSON_WHITE):
                return tree
        # It passes over white space, and says where what is wrong stands.
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise InvalidDocumentError(f"neither XML nor JSON: at line {error.lineno}, column {error.colno}") from None
    except InvalidDocumentError:
        raise
    except (ValueError, RecursionError):
        raise InvalidDocumentError("not JSON: a number or a nesting out of range") from None


def _exceeds_max_depth(tree: object) -> bool:
    """Tell whether mappings (and what stands in their lists) are nested more than MAX_DEPTH deep."""
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
    """Write a mapping with one root as XML; names bear the prefixes that its ``@xmlns`` attributes declare."""
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
    """Read form fields; of a repeated name the last stays."""
    return dict(parse_qsl(body.decode(), keep_blank_values=True))


# --- what two documents have in common --------------------------------------------------------------------


def canonical(content: Mapping[str, Any]) -> str:
    """
    Word a document alike whatever format it came in.

    Scalars as text, keys sorted, lists of one like the item by itself, empty things left out.
    """
    return json.dumps(_canonical(content), sort_keys=True)


def fingerprint(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a document in its canonical form, in hexadecimal digits."""
    return hashlib.sha256(canonical(content).encode()).hexdigest()


def _canonical(node: Tree) -> Tree:
    if isinstance(node, dict):
        pairs = ((("#text" if key == "value" else key), _canonical(value)) for key, value in node.items())
        return _collapse_text_node({key: value for key, value in pairs if value is not None})
    if isinstance(node, list):
        items = [item for item in map(_canonical, node) if item is not None]
        return items[0] if len(items) == 1 else items or None
    return normalised(scalar(node))


def _collapse_text_node(mapping: dict[str, Any]) -> Tree:
    """Make an element with nothing but text that text."""
    return mapping["#text"] if mapping.keys() == {"#text"} else mapping or None


def scalar(value: object) -> str:
    """Word a scalar as XML would: ``true``, ``42``, nothing."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def normalised(text: str) -> str | None:
    """Strip white space at both ends and make every line end a line feed; empty text is None."""
    text = text.strip()
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text or None
