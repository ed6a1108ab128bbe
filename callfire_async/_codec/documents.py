"""
Convert bytes to plain mappings and back: XML, JSON, SOAP and form fields, with limits for hostile input.

A document is read as the local name of its root and a dict of the root's content: attributes as ``@name``, text beside
them as ``#text``, repeated elements as lists, without prefixes and ``xmlns``. Anything else is an
`InvalidDocumentError`, whose message quotes nothing of the document.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NoReturn
from urllib.parse import parse_qsl, urlencode
from xml.parsers import expat

import xmltodict

from callfire_async._codec import charsets
from callfire_async._codec.document_limits import (
    MAX_DEPTH,
    InvalidDocumentError,
    UnexpectedDocumentError,
    exceeds_max_depth,
)
from callfire_async._codec.json_documents import parse_json, parse_postback, write_object
from callfire_async._codec.repairs import (
    REPLACEMENT,
    Repair,
    Tree,
    list_problems,
    repair_xml,
    replace_forbidden,
)
from callfire_async._codec.scalars import format_scalar, normalize

DATA = "http://api.callfire.com/data"
NOTIFICATION = "http://api.callfire.com/notification/xsd"
RESOURCE = "http://api.callfire.com/resource"
SOAP_11 = "http://schemas.xmlsoap.org/soap/envelope/"
SOAP_12 = "http://www.w3.org/2003/05/soap-envelope"
_SCHEMA_INSTANCE = "http://www.w3.org/2001/XMLSchema-instance"

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


class Document(NamedTuple):
    """A document that was read."""

    #: The local name of the root.
    root: str
    #: The content of the root.
    content: dict[str, Any]
    #: The values with characters that the format forbids and that were repaired, as ``kind @ path``.
    problems: tuple[str, ...]


# --- reading ----------------------------------------------------------------------------------------------


class Members(NamedTuple):
    """The members of a JSON object that has no name: an envelope of API v2."""

    content: dict[str, Any]
    #: The kinds of characters that were repaired.
    repairs: tuple[Repair, ...]


def read(body: bytes | str, content_type: str | None = None, *, max_elements: int = MAX_ELEMENTS) -> Document:
    """
    Read an XML, JSON or SOAP document; the format is detected from the body.

    Args:
        body: The document. If it is text, an encoding in its XML declaration is ignored.
        content_type: Its charset is used only for a single-byte body that declares no encoding.
        max_elements: The maximum number of tags in XML, and of objects and lists in JSON. Twice as many attributes or
            commas are allowed, and in XML that needs a repair twice as many references to characters.

    Raises:
        InvalidDocumentError: The body is neither XML nor JSON, or exceeds a limit.
        UnexpectedDocumentError: The body is well-formed, but not one named object, or it is an HTML page.
    """
    try:
        source = charsets.decode(body, content_type)
        if _is_xml(source):
            return _create_document(*_read_xml(source, max_elements))
        return _create_document(*_named_object(*parse_json(source, max_elements)))
    except charsets.EncodingError as error:
        raise InvalidDocumentError(str(error)) from None


def read_postback(body: bytes | str, content_type: str | None = None) -> Document | Members:
    """
    Read the body of a postback.

    A JSON object with the key ``events`` is an envelope of API v2, and may have more values than another document. Any
    other document is read as by `read`.
    """
    try:
        source = charsets.decode(body, content_type)
        if _is_xml(source):
            return _create_document(*_read_xml(source, MAX_ELEMENTS))
        tree, repairs = parse_postback(source, MAX_ELEMENTS)
    except charsets.EncodingError as error:
        raise InvalidDocumentError(str(error)) from None
    if isinstance(tree, dict) and "events" in tree:
        return Members(tree, repairs)
    return _create_document(
        *_named_object(tree, repairs, expected="an object with exactly one key, or with the key events")
    )


def _create_document(root: str, content: dict[str, Any], repairs: tuple[Repair, ...]) -> Document:
    return Document(root, content, list_problems(repairs, content, _KNOWN_NAMES) if repairs else ())


def _is_xml(source: bytes | str) -> bool:
    return source.startswith("<") if isinstance(source, str) else source.startswith(b"<")


# --- XML --------------------------------------------------------------------------------------------------

# The names of API 1.1. A document with any other name in a namespace is parsed twice.
_WORDS = """
    Resource ResourceList ResourceReference ResourceException Id Location HttpStatus Message
    TextNotification TextSent TextReceived TextFinished CallFinished BroadcastNotification BroadcastStarted
    BroadcastStopped BroadcastFinished CampaignStarted CampaignStopped CampaignFinished SubscriptionId subscriptionId
    Subscription Enabled Endpoint NonStrictSsl NotificationFormat TriggerEvent SubscriptionFilter BroadcastId BatchId
    FromNumber ToNumber Inbound Text Call State ContactId Created Modified FinalResult Label Name TextRecord CallRecord
    AgentCall Result FinishTime BilledAmount QuestionResponse Question Response SwitchId CallerName OriginateTime
    AnswerTime Duration RecordingMeta LengthInSeconds Link Note Broadcast Status LastModified Type VoiceBroadcastConfig
    TextBroadcastConfig IvrBroadcastConfig CccBroadcastConfig LocalTimeZoneRestriction BeginTime EndTime RetryConfig
    MaxAttempts MinutesBetweenAttempts RetryResults RetryPhoneTypes BigMessageStrategy DialplanXml ResumeNextDay
"""
_LOCAL_NAMES = {f"{namespace} {word}": word for namespace in (DATA, NOTIFICATION, RESOURCE) for word in _WORDS.split()}
_LOCAL_NAMES |= {f"{soap} {word}": word for soap in (SOAP_11, SOAP_12) for word in ("Envelope", "Header", "Body")}
# Attributes have no namespace. Expat adds each name that is not in the table, so that a longer table shows that a
# document has unknown names.
_LOCAL_NAMES |= {attribute: attribute for attribute in ("id", "totalResults", "ClientData")}
# The attributes of XML Schema keep their prefix: a sender may attach a "type" of its own to a number.
_LOCAL_NAMES |= {
    f"{_SCHEMA_INSTANCE} {word}": f"xsi:{word}"
    for word in ("type", "nil", "schemaLocation", "noNamespaceSchemaLocation")
}
_KNOWN_NAMES = frozenset(_LOCAL_NAMES.values())
# Expat's errors for a character, or a reference to one, that XML forbids.
_REPAIRABLE = [
    expat.errors.codes[error] for error in (expat.errors.XML_ERROR_INVALID_TOKEN, expat.errors.XML_ERROR_BAD_CHAR_REF)
]


class _GuardedExpat:
    """
    A replacement for the ``expat`` module that xmltodict uses, which creates parsers with guards only.

    Expat joins a namespace and a name by a space. Its table of interned names then maps the result to the local name at
    no cost; xmltodict's own mapping of namespaces takes a third of the parse.
    """

    # xmltodict sets both. Attributes are always passed as a dict: with a list of them xmltodict takes a tenth longer.
    ordered_attributes = buffer_text = True

    def __init__(self, local_names: dict[str, str]) -> None:
        self._local_names = local_names

    StartElementHandler: Callable[..., None]
    EndElementHandler: Callable[..., None]
    CharacterDataHandler: Callable[..., None]

    def ParserCreate(self, *_: object) -> _GuardedExpat:  # noqa: N802  # expat's own name
        return self

    def Parse(self, document: bytes, final: bool) -> None:  # noqa: N802, FBT001  # expat's own signature
        parser = _create_parser(" ", self._local_names)
        parser.buffer_text = self.buffer_text
        parser.StartElementHandler = self.StartElementHandler
        parser.EndElementHandler = self.EndElementHandler
        parser.CharacterDataHandler = self.CharacterDataHandler
        parser.Parse(document, final)


def _create_parser(separator: str | None = None, local_names: dict[str, str] | None = None) -> expat.XMLParserType:
    # With an encoding given, expat ignores the one in the declaration and does not look up a codec.
    parser = expat.ParserCreate("utf-8", separator, local_names)
    parser.StartDoctypeDeclHandler = _reject_doctype
    return parser


def _reject_doctype(*_: object) -> NoReturn:
    raise InvalidDocumentError("XML with a DOCTYPE is not accepted")


def _check_namespaces(_: str, attributes: dict[str, str]) -> None:
    for name, value in attributes.items():
        if len(value) > MAX_NAMESPACE_LENGTH and name.startswith("xmlns"):
            raise InvalidDocumentError("the XML document has a namespace that is too long")


def _read_xml(source: bytes | str, max_elements: int) -> tuple[str, dict[str, Any], tuple[Repair, ...]]:
    try:
        document = source if isinstance(source, bytes) else source.encode()
        tree, repairs = _parse_or_repair(document, max_elements)
    except expat.ExpatError as error:
        reason = expat.errors.messages[error.code]
        raise InvalidDocumentError(f"invalid XML: {reason} at line {error.lineno}, column {error.offset + 1}") from None
    except UnicodeEncodeError:
        raise InvalidDocumentError("invalid XML: lone surrogate") from None
    ((root, content),) = tree.items()
    return *_unwrap_soap(root, content), repairs


def _parse_or_repair(document: bytes, max_elements: int) -> tuple[dict[str, Tree], tuple[Repair, ...]]:
    """Parse a document, and parse it again with its forbidden characters replaced if it has any."""
    try:
        return _parse_xml(document, max_elements), ()
    except expat.ExpatError as error:
        # A megabyte of references to repair takes 100 ms.
        if error.code in _REPAIRABLE and document.count(b"&#") > 2 * max_elements:
            raise InvalidDocumentError("the XML document has too many references to characters") from None
        repaired = repair_xml(document) if error.code in _REPAIRABLE else None
        if repaired is None:
            raise
    document, repairs = repaired
    return _parse_xml(document, max_elements), repairs


def _parse_xml(document: bytes, max_elements: int) -> dict[str, Tree]:
    elements, attributes = document.count(b"<"), document.count(b"=")
    if elements > max_elements or attributes > 2 * max_elements:
        raise InvalidDocumentError("the XML document has too many elements or attributes")
    if len(document) * (elements + attributes) > _MAX_JOINED_BYTES:
        _check_namespace_lengths(document)
    tree = _parse_guarded(document)
    if elements > MAX_DEPTH and exceeds_max_depth(tree):
        raise InvalidDocumentError("the XML document is nested too deeply")
    return tree


def _check_namespace_lengths(document: bytes) -> None:
    # Without a namespace separator expat joins no names. A namespace handler would be called after they are joined.
    parser = _create_parser()
    parser.StartElementHandler = _check_namespaces
    parser.Parse(document, True)  # noqa: FBT003  # expat's own signature


def _parse_guarded(document: bytes) -> dict[str, Tree]:
    """Parse a document, and parse it again with its unknown names in the table if it has any."""
    local_names = dict(_LOCAL_NAMES)

    def parse() -> dict[str, Tree]:
        return xmltodict.parse(document, expat=_GuardedExpat(local_names), disable_entities=False)

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


def _named_object(
    tree: Tree, repairs: tuple[Repair, ...], *, expected: str = "an object with exactly one key"
) -> tuple[str, dict[str, Any], tuple[Repair, ...]]:
    if not isinstance(tree, dict) or len(tree) != 1:
        raise UnexpectedDocumentError(f"the JSON document is not {expected}")
    ((root, content),) = tree.items()
    if not isinstance(content, dict):
        raise UnexpectedDocumentError("the value of the JSON document's only key is not an object")
    return root, content, repairs


# --- writing ----------------------------------------------------------------------------------------------


def write_xml(tree: Mapping[str, Any]) -> bytes:
    """
    Write a mapping with one root as XML; names keep their prefixes, which ``@xmlns`` attributes declare.

    Surrogates and characters that XML forbids are repaired as `read` repairs them; NUL becomes U+FFFD too. The prefix
    of XML Schema, which `read` keeps, is declared if an attribute uses the prefix.

    Raises:
        ValueError: A name is not a name in XML, or has a prefix that is not declared.
    """
    if _has_schema_attribute(tree):
        tree = {root: {"@xmlns:xsi": _SCHEMA_INSTANCE} | content for root, content in tree.items()}
    text = charsets.join_surrogates(xmltodict.unparse(tree), "replace")
    document = replace_forbidden(text.replace("\0", REPLACEMENT).encode())
    try:
        _create_parser(" ").Parse(document, True)  # noqa: FBT003  # expat's own signature
    except expat.ExpatError:
        raise ValueError("the names of elements and attributes must be valid in XML") from None
    return document


def _has_schema_attribute(node: Tree) -> bool:
    if isinstance(node, list):
        return any(map(_has_schema_attribute, node))
    return isinstance(node, dict) and any(
        name.startswith("@xsi:") or _has_schema_attribute(child) for name, child in node.items()
    )


def write_json(tree: Mapping[str, Any]) -> bytes:
    """Write a mapping as JSON, with text beside attributes under ``value``, as CallFire does."""
    return write_object(_for_json(tree))


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
