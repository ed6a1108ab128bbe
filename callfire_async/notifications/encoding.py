"""
Events to the bytes that CallFire would post: the one writer of notifications.

It knows what every event has, and no kind of event. It imports `_wire`, `_convert` and `models`.
"""

from typing import Any, Literal, Protocol

from callfire_async._codec import converters, documents
from callfire_async.models import Broadcast, Call, NotificationFormat, Text

__all__ = ["Encodable", "SoapVersion", "encode"]

#: The two versions of SOAP that CallFire might speak.
SoapVersion = Literal["1.1", "1.2"]

_SOAP = {
    "1.1": (documents.SOAP_11, "text/xml; charset=UTF-8"),
    "1.2": (documents.SOAP_12, "application/soap+xml; charset=UTF-8"),
}


class Encodable(Protocol):
    """What can be written: every `Notification`."""

    @property
    def name(self) -> str:
        """The root."""
        ...

    @property
    def subscription_id(self) -> int | None:
        """The subscription that sends it."""
        ...

    @property
    def subject(self) -> Text | Call | Broadcast | None:
        """What it is about."""
        ...

    @property
    def payload(self) -> dict[str, Any]:
        """What stands inside the root, where nothing is carried."""
        ...


def encode(
    event: Encodable,
    format: NotificationFormat | str = NotificationFormat.XML,
    *,
    soap_version: SoapVersion = "1.1",
) -> tuple[str, bytes]:
    """
    Write an event as CallFire posts it, under the root that its ``name`` says.

    Args:
        event: What is written is its model; the payload only of an `UnknownNotification`.
        format: ``XML``, ``JSON`` or ``SOAP``; in JSON with CallFire's oddities (ids as text, numbers as objects).
        soap_version: For ``SOAP`` only.

    Returns:
        The content type, and the body.

    Raises:
        ValueError: Nothing is posted in that format.
    """
    if format == NotificationFormat.JSON:
        return "application/json", documents.write_json({event.name: _apply_json_quirks(_content(event))})
    if format == NotificationFormat.XML:
        return "text/xml; charset=UTF-8", documents.write_xml(_element(event))
    if format != NotificationFormat.SOAP:
        raise ValueError("an event is posted as XML, JSON or SOAP")
    namespace, content_type = _SOAP[soap_version]
    envelope = {"@xmlns:soap": namespace, "soap:Body": _element(event)}
    return content_type, documents.write_xml({"soap:Envelope": envelope})


def _content(event: Encodable) -> dict[str, Any]:
    """Return what stands inside the root, in the names of the wire."""
    subscription = {} if event.subscription_id is None else {"SubscriptionId": event.subscription_id}
    return subscription | _subject_of(event)


def _subject_of(event: Encodable) -> dict[str, Any]:
    if event.subject is None:
        return {name: value for name, value in event.payload.items() if name.lower() != "subscriptionid"}
    # The models are called by CallFire's words.
    return {type(event.subject).__name__: converters.unstructure(event.subject)}


def _element(event: Encodable) -> dict[str, Any]:
    """Put the content into the namespaces of the wire, with the prefixes that CallFire uses."""
    content = _content(event)
    if "SubscriptionId" in content:
        content = {"n:SubscriptionId": content.pop("SubscriptionId")} | content
    return {f"n:{event.name}": {"@xmlns": documents.DATA, "@xmlns:n": documents.NOTIFICATION} | content}


def _apply_json_quirks(node: Any) -> Any:
    """Word a tree as CallFire's JSON notifications do: ids as text, ``ToNumber`` as an object."""
    if isinstance(node, dict):
        return {name: _odd_value(name, value) for name, value in node.items()}
    return [_apply_json_quirks(item) for item in node] if isinstance(node, list) else node


def _odd_value(name: str, value: Any) -> Any:
    if name == "@id":
        return str(value)
    return {"#text": value} if name == "ToNumber" and isinstance(value, str) else _apply_json_quirks(value)
