"""Create events from the postbacks of API v2: the resource and the name of the event determine the class."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from attrs import evolve, fields

from callfire_async._codec import converters, documents, json_documents
from callfire_async._codec.converters_v2 import structure_v2, wire_name_v2
from callfire_async._codec.document_limits import UnexpectedDocumentError
from callfire_async._codec.model_reader import ConversionError
from callfire_async._codec.repairs import list_problems
from callfire_async._codec.scalars import read_epoch_milliseconds, read_text
from callfire_async.models import (
    Broadcast,
    BroadcastType,
    Call,
    CallRecord,
    CccBroadcastConfig,
    ContactList,
    DeliveryReport,
    IvrBroadcastConfig,
    Media,
    Note,
    QuestionResponse,
    RecordingMeta,
    Result,
    RetryConfig,
    Text,
    TextBroadcastConfig,
    TextRecord,
    VoiceBroadcastConfig,
    WebhookEvent,
    WebhookResource,
)
from callfire_async.notifications.events import (
    AccountNotification,
    CallFinished,
    CampaignFinished,
    CampaignNotification,
    CampaignStarted,
    CampaignStopped,
    ContactListValidationFailed,
    ContactListValidationFinished,
    DeliveryReportReceived,
    Notification,
    TextFinished,
    TextReceived,
    TextSent,
    UnknownNotification,
    result_of,
)

T = TypeVar("T")
#: The class of an event, its own fields, and the problems of these.
Content = tuple[type[Notification], dict[str, Any], tuple[str, ...]]
Create = Callable[[Any], Content]

# Far more than CallFire is known to send. The events are counted before they are converted.
MAX_EVENTS = 1_000
# Of an envelope with several events, for which they are repeated: four members of a few bytes and the webhook's name.
_MAX_REPEATED_BYTES = 4_096


def list_elements(envelope: Mapping[str, Any]) -> list[Any]:
    """
    Return the elements of an envelope's array of events, from one to `MAX_EVENTS`.

    Raises:
        UnexpectedDocumentError: The envelope has no events, or too many.
    """
    elements = envelope.get("events")
    if not isinstance(elements, list) or not elements:
        raise UnexpectedDocumentError("the envelope has no array of events")
    if len(elements) > MAX_EVENTS:
        raise UnexpectedDocumentError(f"the envelope has more than {MAX_EVENTS} events")
    return elements


def split(envelope: Mapping[str, Any], elements: Iterable[Any]) -> tuple[bytes, ...]:
    """
    Return an envelope for each element, with the other members of the given one; nothing is converted.

    Raises:
        UnexpectedDocumentError: The other members, which are repeated for each element, are too large.
    """
    if len(json_documents.write_object({**envelope, "events": []})) > _MAX_REPEATED_BYTES:
        raise UnexpectedDocumentError(
            f"the envelope has more than {_MAX_REPEATED_BYTES} bytes in addition to its events"
        )
    return tuple(json_documents.write_object({**envelope, "events": [element]}) for element in elements)


def create_event(envelope: documents.Members, element: object) -> Notification:
    """
    Return the event for one element of an envelope.

    The element's own timestamp, webhook and resource type take precedence over those of the envelope.

    Raises:
        ConversionError: The element is not an object, its resource is missing, or an id is missing or invalid.
    """
    if not isinstance(element, dict):
        raise ConversionError(("not an object @ events",))
    own = {name: value for name, value in element.items() if value is not None} if None in element.values() else element
    content = envelope.content | own
    resource_type, event_type = _read_type(content, "resourceType"), _read_type(content, "eventType")
    resource = element.get("resource")
    if resource is None and not event_type:
        raise ConversionError(("missing @ eventType",))
    name, create = _find_type(resource_type, event_type)
    event_class, own_fields, found = create(resource)
    problems = [*list_problems(envelope.repairs, element, _KNOWN_NAMES)] if envelope.repairs else []
    return event_class(
        name=name,
        webhook_id=converters.read_id(content.get("webhookId"), "webhookId"),
        webhook_name=_read_optional(read_text, content, "webhookName", problems),
        occurred_at=_read_optional(read_epoch_milliseconds, content, "timestamp", problems),
        problems=(*problems, *found),
        payload=_as_object(resource),
        **own_fields,
    )


def _read_type(content: Mapping[str, Any], name: str) -> str:
    """Return the name of a resource or of an event, or an empty string if it is missing."""
    try:
        return read_text(content.get(name)) or ""
    except ValueError as error:
        raise ConversionError((f"{error} @ {name}",)) from None


def _read_optional(
    read: Callable[[Any], T | None], content: Mapping[str, Any], name: str, problems: list[str]
) -> T | None:
    try:
        return read(content.get(name))
    except ValueError as error:
        problems.append(f"{error} @ {name}")
        return None


def _find_type(resource: str, event: str) -> tuple[str, Create]:
    """Return the name of an event, and the function for its resource; names are compared without regard to case."""
    known = _TYPES.get((resource.casefold(), event.casefold()))
    return known or (f"{_canonical(WebhookResource, resource)}.{_canonical(WebhookEvent, event)}", _unknown)


def _canonical(kind: type[WebhookResource | WebhookEvent], name: str) -> str:
    return str(kind(name)) if name else "Unknown"


def _as_object(resource: Any) -> dict[str, Any]:
    """Return a resource as a payload; the value of an undocumented resource that is not an object is ``#text``."""
    if isinstance(resource, dict):
        return resource
    return {} if resource is None else {"#text": resource}


# --- the classes of events --------------------------------------------------------------------------------


def _structure(kind: type[T], resource: object) -> tuple[T, tuple[str, ...]]:
    if resource is None:
        raise ConversionError(("missing @ resource",))
    return structure_v2(kind, resource, "resource")


def _subject(event_class: type[Notification], attribute: str, kind: type[Any]) -> Create:
    """Return a function that creates the content of an event whose attribute is a model of this kind."""

    def create(resource: Any) -> Content:
        subject, problems = _structure(kind, resource)
        return event_class, {attribute: subject}, problems

    return create


def _outbound_text(resource: Any) -> Content:
    text, problems = _structure(Text, resource)
    return TextSent if result_of(text) == Result.SENT else TextFinished, {"text": text}, problems


def _campaign(event_class: type[CampaignNotification], resource_type: WebhookResource) -> Create:
    def create(resource: Any) -> Content:
        broadcast, problems = _structure(Broadcast, resource)
        kind, config_class = _broadcast_type(resource_type, resource)
        config, others = _read_config(config_class, resource)
        return event_class, {"broadcast": evolve(broadcast, type=kind, config=config)}, problems + others

    return create


def _broadcast_type(resource_type: WebhookResource, resource: Mapping[str, Any]) -> tuple[BroadcastType, type[Any]]:
    if resource_type == WebhookResource.CALL_BROADCAST and resource.get("dialplanXml"):
        return BroadcastType.IVR, IvrBroadcastConfig
    return _BROADCAST_TYPES[resource_type]


def _read_config(kind: type[Any], resource: Mapping[str, Any]) -> tuple[Any, tuple[str, ...]]:
    """Return a broadcast's configuration, which is part of the resource, or None if no field of it has a value."""
    # The id is that of the broadcast.
    config, problems = structure_v2(kind, {**resource, "id": None}, "resource")
    return None if config == kind() else config, problems


def _account(resource_type: WebhookResource, event_type: WebhookEvent) -> Create:
    own_fields = {"resource_type": resource_type, "event_type": event_type}
    return lambda _: (AccountNotification, own_fields, ())


def _unknown(_: Any) -> Content:
    return UnknownNotification, {}, ()


_BROADCAST_TYPES: dict[WebhookResource, tuple[BroadcastType, type[Any]]] = {
    WebhookResource.CALL_BROADCAST: (BroadcastType.VOICE, VoiceBroadcastConfig),
    WebhookResource.TEXT_BROADCAST: (BroadcastType.TEXT, TextBroadcastConfig),
    WebhookResource.CCC_CAMPAIGN: (BroadcastType.CCC, CccBroadcastConfig),
}
_CAMPAIGN_CLASSES: dict[WebhookEvent, type[CampaignNotification]] = {
    WebhookEvent.STARTED: CampaignStarted,
    WebhookEvent.STOPPED: CampaignStopped,
    WebhookEvent.FINISHED: CampaignFinished,
}
_ACCOUNT_RESOURCES = (WebhookResource.MONTHLY_RENEWAL, WebhookResource.LOW_BALANCE)

_CREATORS: dict[tuple[WebhookResource, WebhookEvent], Create] = {
    (WebhookResource.INBOUND_TEXT, WebhookEvent.FINISHED): _subject(TextReceived, "text", Text),
    (WebhookResource.OUTBOUND_TEXT, WebhookEvent.FINISHED): _outbound_text,
    (WebhookResource.INBOUND_CALL, WebhookEvent.FINISHED): _subject(CallFinished, "call", Call),
    (WebhookResource.OUTBOUND_CALL, WebhookEvent.FINISHED): _subject(CallFinished, "call", Call),
    **{
        (resource, event): _campaign(event_class, resource)
        for resource in _BROADCAST_TYPES
        for event, event_class in _CAMPAIGN_CLASSES.items()
    },
    (WebhookResource.CONTACT_LIST, WebhookEvent.VALIDATION_FINISHED): _subject(
        ContactListValidationFinished, "contact_list", ContactList
    ),
    (WebhookResource.CONTACT_LIST, WebhookEvent.VALIDATION_FAILED): _subject(
        ContactListValidationFailed, "contact_list", ContactList
    ),
    (WebhookResource.OUTBOUND_TEXT_DELIVERY_REPORT, WebhookEvent.RECEIVED): _subject(
        DeliveryReportReceived, "report", DeliveryReport
    ),
    **{
        (resource, event): _account(resource, event)
        for resource in _ACCOUNT_RESOURCES
        for event in (WebhookEvent.FINISHED, WebhookEvent.FAILED)
    },
}
_TYPES = {
    (resource.casefold(), event.casefold()): (f"{resource}.{event}", create)
    for (resource, event), create in _CREATORS.items()
}
# The names in the problems of characters that were repaired.
_KNOWN_NAMES = frozenset(
    part
    for kind in (
        Broadcast,
        Call,
        CallRecord,
        CccBroadcastConfig,
        ContactList,
        DeliveryReport,
        Media,
        Note,
        QuestionResponse,
        RecordingMeta,
        RetryConfig,
        Text,
        TextBroadcastConfig,
        TextRecord,
        VoiceBroadcastConfig,
        IvrBroadcastConfig,
    )
    for field in fields(kind)
    for part in ("resource", *wire_name_v2(kind, field.name).split("."))
)
