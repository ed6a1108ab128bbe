"""Encode events as postback bodies in CallFire's formats, for tests and tools."""

from typing import Any, Literal, Protocol

from callfire_async._codec import converters, documents
from callfire_async.models import Broadcast, Call, ContactList, DeliveryReport, NotificationFormat, Text

__all__ = ["Encodable", "SoapVersion", "encode"]

#: The SOAP versions that `encode` supports.
SoapVersion = Literal["1.1", "1.2"]

_SOAP = {
    "1.1": (documents.SOAP_11, "text/xml; charset=UTF-8"),
    "1.2": (documents.SOAP_12, "application/soap+xml; charset=UTF-8"),
}


class Encodable(Protocol):
    """The attributes of a `Notification` that `encode` reads."""

    @property
    def name(self) -> str:
        """The name of the root."""
        ...

    @property
    def subscription_id(self) -> int | None:
        """The id of the subscription."""
        ...

    @property
    def subject(self) -> Text | Call | Broadcast | ContactList | DeliveryReport | None:
        """The text, call, broadcast, contact list or report."""
        ...

    @property
    def payload(self) -> dict[str, Any]:
        """The content of the root, for an event without a subject."""
        ...


def encode(
    event: Encodable,
    format: NotificationFormat | str = NotificationFormat.XML,
    *,
    soap_version: SoapVersion = "1.1",
) -> tuple[str, bytes]:
    """
    Encode an event as the body of a postback, with its ``name`` as the root.

    XML and SOAP have U+FFFD for each character that XML 1.0 forbids, such as a control character or a lone surrogate.

    Args:
        event: A `Notification`. Its subject is encoded; its payload only if it is an `UnknownNotification`.
        format: ``XML``, ``JSON`` or ``SOAP``. JSON has CallFire's oddities: ids as text, phone numbers as objects.
        soap_version: Used for ``SOAP`` only.

    Returns:
        The content type and the body.

    Raises:
        ValueError: *format* is not one of the three, API 1.1 has no such event, or a name in the payload of an
            `UnknownNotification` cannot be written in XML.
    """
    if format == NotificationFormat.JSON:
        return "application/json", documents.write_json({event.name: _apply_json_quirks(_content(event))})
    if format == NotificationFormat.XML:
        return "text/xml; charset=UTF-8", documents.write_xml(_element(event))
    if format != NotificationFormat.SOAP:
        raise ValueError("format must be XML, JSON or SOAP")
    namespace, content_type = _SOAP[soap_version]
    envelope = {"@xmlns:soap": namespace, "soap:Body": _element(event)}
    return content_type, documents.write_xml({"soap:Envelope": envelope})


def _content(event: Encodable) -> dict[str, Any]:
    """Return the content of the root, with the names of the wire."""
    subscription = {} if event.subscription_id is None else {"SubscriptionId": event.subscription_id}
    return subscription | _subject_content(event)


def _subject_content(event: Encodable) -> dict[str, Any]:
    if event.subject is None:
        return {name: value for name, value in event.payload.items() if name.lower() != "subscriptionid"}
    if isinstance(event.subject, ContactList | DeliveryReport):
        raise ValueError(f"event must be one that API 1.1 has, not {event.name}")  # noqa: TRY004  # the type is allowed
    # The classes Text, Call and Broadcast have the names of their elements.
    return {type(event.subject).__name__: converters.unstructure(event.subject)}


def _element(event: Encodable) -> dict[str, Any]:
    """Return the root with its namespaces, under the prefixes that CallFire uses."""
    content = _content(event)
    if "SubscriptionId" in content:
        content = {"n:SubscriptionId": content.pop("SubscriptionId")} | content
    return {f"n:{event.name}": {"@xmlns": documents.DATA, "@xmlns:n": documents.NOTIFICATION} | content}


def _apply_json_quirks(node: Any) -> Any:
    """Return a tree as in CallFire's JSON postbacks: ids are text and ``ToNumber`` is an object."""
    if isinstance(node, dict):
        return {name: _quirky_value(name, value) for name, value in node.items()}
    return [_apply_json_quirks(item) for item in node] if isinstance(node, list) else node


def _quirky_value(name: str, value: Any) -> Any:
    if name == "@id":
        return str(value)
    return {"#text": value} if name == "ToNumber" and isinstance(value, str) else _apply_json_quirks(value)
