"""Encode events as postback bodies in CallFire's formats, for tests and tools."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, ClassVar, Literal, Protocol

from attrs import evolve

from callfire_async._arguments import type_name
from callfire_async._codec import converters, documents, json_documents
from callfire_async._codec.converters_v2 import json_fields, unstructure_v2
from callfire_async.models import (
    Broadcast,
    BroadcastType,
    Call,
    ContactList,
    DeliveryReport,
    NotificationFormat,
    Text,
    WebhookEvent,
    WebhookResource,
)

__all__ = [
    "ApiGeneration",
    "Encodable",
    "SoapVersion",
    "encode",
    "encode_envelope",
    "generation_of",
    "webhook_event_of",
]

#: The SOAP versions that `encode` supports.
SoapVersion = Literal["1.1", "1.2"]
#: The generations of CallFire's API.
ApiGeneration = Literal["1.1", "v2"]

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

    @property
    def webhook_id(self) -> int | None:
        """The id of the webhook."""
        ...

    @property
    def webhook_name(self) -> str | None:
        """The name of the webhook."""
        ...

    @property
    def occurred_at(self) -> datetime | None:
        """When the event occurred."""
        ...

    root: ClassVar[str]


def encode(
    event: Encodable,
    format: NotificationFormat | str | None = None,
    *,
    api: ApiGeneration = "1.1",
    soap_version: SoapVersion = "1.1",
) -> tuple[str, bytes]:
    """
    Encode an event as the body of a postback of either API generation, whether or not the event came from it.

    API 1.1 has the event's ``name`` as the root, or its class if the event came from API v2. XML and SOAP have U+FFFD
    for each character that XML 1.0 forbids, such as a control character or a lone surrogate.

    Args:
        event: A `Notification`. Its subject is encoded; its payload only if it has no subject.
        format: ``XML`` (the default), ``JSON`` or ``SOAP`` for API 1.1; ``JSON`` for API v2. JSON of API 1.1 has
            CallFire's oddities: ids as text, phone numbers as objects.
        api: ``1.1`` or ``v2``, which has an envelope with this event.
        soap_version: Used for ``SOAP`` only.

    Returns:
        The content type and the body.

    Raises:
        TypeError: *event* is not an event.
        ValueError: The API generation does not have *format* or such an event, *soap_version* is unknown, or a name in
            the payload of an `UnknownNotification` cannot be written in XML.
    """
    if not hasattr(event, "subject"):
        raise TypeError(f"event must be a Notification, not {type_name(event)}")
    if soap_version not in _SOAP:
        raise ValueError("soap_version must be '1.1' or '1.2'")
    if api == "v2":
        if format not in (None, NotificationFormat.JSON):
            raise ValueError("format must be JSON for API v2")
        return encode_envelope([event])
    if api != "1.1":
        raise ValueError("api must be '1.1' or 'v2'")
    return _encode_1_1(event, NotificationFormat.XML if format is None else format, soap_version)


def generation_of(event: Encodable) -> ApiGeneration:
    """Return the API generation that an event came from: the name of an event of API v2 has a dot."""
    return "v2" if "." in event.name else "1.1"


# --- API 1.1 ----------------------------------------------------------------------------------------------


def _encode_1_1(event: Encodable, format: NotificationFormat | str, soap_version: SoapVersion) -> tuple[str, bytes]:
    if format == NotificationFormat.JSON:
        return "application/json", documents.write_json({_root(event): _apply_json_quirks(_content(event))})
    if format == NotificationFormat.XML:
        return "text/xml; charset=UTF-8", documents.write_xml(_element(event))
    if format != NotificationFormat.SOAP:
        raise ValueError("format must be XML, JSON or SOAP")
    namespace, content_type = _SOAP[soap_version]
    envelope = {"@xmlns:soap": namespace, "soap:Body": _element(event)}
    return content_type, documents.write_xml({"soap:Envelope": envelope})


def _root(event: Encodable) -> str:
    """Return the name of the root, which is not the name of an event of API v2."""
    return event.root if generation_of(event) == "v2" and event.subject is not None else event.name


def _content(event: Encodable) -> dict[str, Any]:
    """Return the content of the root, with the names of the wire."""
    subscription = {} if event.subscription_id is None else {"SubscriptionId": event.subscription_id}
    return subscription | _subject_content(event)


def _subject_content(event: Encodable) -> dict[str, Any]:
    if isinstance(event.subject, ContactList | DeliveryReport) or event.root == _ACCOUNT_ROOT:
        raise ValueError(f"event must be one that API 1.1 has, not {event.name}")
    if event.subject is None:
        return {name: value for name, value in event.payload.items() if name.lower() != "subscriptionid"}
    # The classes Text, Call and Broadcast have the names of their elements.
    return {type(event.subject).__name__: converters.unstructure(event.subject)}


def _element(event: Encodable) -> dict[str, Any]:
    """Return the root with its namespaces, under the prefixes that CallFire uses."""
    content = _content(event)
    if "SubscriptionId" in content:
        content = {"n:SubscriptionId": content.pop("SubscriptionId")} | content
    return {f"n:{_root(event)}": {"@xmlns": documents.DATA, "@xmlns:n": documents.NOTIFICATION} | content}


def _apply_json_quirks(node: Any) -> Any:
    """Return a tree as in CallFire's JSON postbacks: ids are text and ``ToNumber`` is an object."""
    if isinstance(node, dict):
        return {name: _quirky_value(name, value) for name, value in node.items()}
    return [_apply_json_quirks(item) for item in node] if isinstance(node, list) else node


def _quirky_value(name: str, value: Any) -> Any:
    if name == "@id":
        return str(value)
    return {"#text": value} if name == "ToNumber" and isinstance(value, str) else _apply_json_quirks(value)


# --- API v2 -----------------------------------------------------------------------------------------------


def encode_envelope(events: Sequence[Encodable]) -> tuple[str, bytes]:
    """
    Encode events as the body of one postback of API v2, with the webhook and the time of the first event.

    Args:
        events: One or more.

    Returns:
        The content type and the body.

    Raises:
        ValueError: There are no events, or API v2 does not have one of them.
    """
    if not events:
        raise ValueError("events must have at least one event")
    first = events[0]
    header = {"timestamp": first.occurred_at, "webhook_id": first.webhook_id, "webhook_name": first.webhook_name}
    envelope = json_fields(header | {"resource_type": webhook_event_of(first)[0]})
    return "application/json", json_documents.write_object(envelope | {"events": [*map(_event_element, events)]})


def _event_element(event: Encodable) -> dict[str, Any]:
    resource_type, event_type = webhook_event_of(event)
    header = {"timestamp": event.occurred_at, "webhook_id": event.webhook_id}
    return json_fields(header | {"resource_type": resource_type, "event_type": event_type}) | {
        "resource": _resource(event)
    }


def webhook_event_of(event: Encodable) -> tuple[str, str]:
    """
    Return the resource and the event in API v2; for an event of API 1.1 its class and content determine them.

    Raises:
        ValueError: API v2 does not have the event.
    """
    resource, dot, event_type = event.name.rpartition(".")
    if dot:
        return resource, event_type
    if event.root not in _EVENT_TYPES:
        raise ValueError(f"event must be one that API v2 has, not {event.name}")
    return _resource_type(event.subject, event.root), _EVENT_TYPES[event.root]


def _resource_type(subject: object, root: str) -> WebhookResource:
    if isinstance(subject, Broadcast):
        return _broadcast_resource(subject)
    if isinstance(subject, Call):
        return WebhookResource.INBOUND_CALL if subject.inbound else WebhookResource.OUTBOUND_CALL
    is_inbound = root == "TextReceived" or (isinstance(subject, Text) and subject.inbound and root == "TextFinished")
    return WebhookResource.INBOUND_TEXT if is_inbound else WebhookResource.OUTBOUND_TEXT


def _broadcast_resource(broadcast: Broadcast) -> WebhookResource:
    if broadcast.type not in _BROADCAST_RESOURCES:
        raise ValueError("event.broadcast.type must be VOICE, IVR, TEXT or CCC, which is the resource in API v2")
    return _BROADCAST_RESOURCES[broadcast.type]


def _resource(event: Encodable) -> object:
    if isinstance(event.subject, Broadcast):
        return _broadcast_content(event.subject)
    if event.subject is not None:
        return unstructure_v2(event.subject)
    # The value of a resource that is not an object.
    return event.payload["#text"] if event.payload.keys() == {"#text"} else event.payload


def _broadcast_content(broadcast: Broadcast) -> dict[str, Any]:
    """Return a broadcast with its configuration as flat members; API v2 has no id and time of the configuration."""
    content = unstructure_v2(evolve(broadcast, type=None, config=None))
    return (
        content
        if broadcast.config is None
        else unstructure_v2(evolve(broadcast.config, id=None, created=None)) | content
    )


_ACCOUNT_ROOT = "AccountNotification"
_EVENT_TYPES = {
    **dict.fromkeys(["TextSent", "TextReceived", "TextFinished", "CallFinished"], WebhookEvent.FINISHED),
    "CampaignStarted": WebhookEvent.STARTED,
    "CampaignStopped": WebhookEvent.STOPPED,
    "CampaignFinished": WebhookEvent.FINISHED,
}
_BROADCAST_RESOURCES: dict[str | None, WebhookResource] = {
    BroadcastType.VOICE: WebhookResource.CALL_BROADCAST,
    BroadcastType.IVR: WebhookResource.CALL_BROADCAST,
    BroadcastType.TEXT: WebhookResource.TEXT_BROADCAST,
    BroadcastType.CCC: WebhookResource.CCC_CAMPAIGN,
}
