"""
Factories of events for tests. Each event has IDs of its own.

Events are encoded as a postback and parsed again, so that their class and ``payload`` are the ones that a receiver
produces. With ``api="v2"``, a ``webhook_id``, a ``webhook_name`` or ``occurred_at`` it is a postback of API v2.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from secrets import randbelow
from typing import Any, TypeVar, Unpack, get_args

from callfire_async.models import (
    ActionState,
    Broadcast,
    BroadcastConfig,
    BroadcastStatus,
    BroadcastType,
    Call,
    CallRecord,
    CccBroadcastConfig,
    ContactList,
    DeliveryReport,
    IvrBroadcastConfig,
    Result,
    Text,
    TextBroadcastConfig,
    TextRecord,
    VoiceBroadcastConfig,
    WebhookEvent,
    WebhookResource,
)
from callfire_async.notifications.encoding import ApiGeneration, encode
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
    TextNotification,
    TextReceived,
    TextSent,
)
from callfire_async.notifications.parsing import parse
from callfire_async.testing._event_fields import (
    ActionFields,
    CampaignFields,
    ContactListFields,
    DeliveryReportFields,
    OriginFields,
    TextFields,
    WebhookFields,
)

__all__ = [
    "ActionFields",
    "CampaignFields",
    "ContactListFields",
    "DeliveryReportFields",
    "OriginFields",
    "TextFields",
    "WebhookFields",
    "make_account_notification",
    "make_call_finished",
    "make_campaign_finished",
    "make_campaign_notification",
    "make_campaign_started",
    "make_campaign_stopped",
    "make_contact_list_validation_failed",
    "make_contact_list_validation_finished",
    "make_delivery_report_received",
    "make_text_finished",
    "make_text_notification",
    "make_text_received",
    "make_text_sent",
]

# As for the other public classes: the path that users import.
for _fields in (
    *(ActionFields, CampaignFields, ContactListFields, DeliveryReportFields),
    *(OriginFields, TextFields, WebhookFields),
):
    _fields.__module__ = __name__

T = TypeVar("T", bound=Notification)

# 555-01xx numbers are reserved for fiction.
_CONTACT_NUMBER, _CALLER_ID, _SHORT_CODE = "12135550142", "12135550100", "67076"


def make_text_notification(
    *, state: ActionState | str = ActionState.READY, inbound: bool = False, **fields: Unpack[TextFields]
) -> TextNotification:
    """Create a notification of a text without a result; the text is finished only in the state ``FINISHED``."""
    return _text(TextNotification, ActionState(state), None, inbound, **fields)


def make_text_finished(
    *, result: Result | str = Result.SENT, inbound: bool = False, **fields: Unpack[TextFields]
) -> TextFinished:
    """
    Create a finished text: a `TextReceived` if it is inbound, a `TextSent` if the result is ``SENT``.

    Its record has the message too, as CallFire sends it since 2016.
    """
    return _text(TextFinished, ActionState.FINISHED, Result(result), inbound, **fields)


def make_text_sent(**fields: Unpack[TextFields]) -> TextSent:
    """Create an outbound text that was sent."""
    return _text(TextSent, ActionState.FINISHED, Result.SENT, inbound=False, **fields)


def make_text_received(**fields: Unpack[TextFields]) -> TextReceived:
    """Create an inbound text."""
    return _text(TextReceived, ActionState.FINISHED, Result.RECEIVED, inbound=True, **fields)


def make_call_finished(
    *, result: Result | str = Result.LA, inbound: bool = False, **fields: Unpack[ActionFields]
) -> CallFinished:
    """Create a finished call."""
    origin, action = _action_fields(inbound, _CALLER_ID, fields)
    record = CallRecord(
        id=_unique_id(),
        result=Result(result),
        originate_time=action["created"],
        finish_time=action["modified"],
        duration=timedelta(seconds=33),
        billed_amount=Decimal(1),
    )
    call = Call(state=ActionState.FINISHED, final_result=Result(result), records=(record,), agent_call=False, **action)
    return _parsed(CallFinished, origin, "CallFinished", call=call)


def make_campaign_notification(
    *, status: BroadcastStatus | str = BroadcastStatus.PAUSED, **fields: Unpack[CampaignFields]
) -> CampaignNotification:
    """Create a notification of a campaign; the status selects the class, for example ``RUNNING`` `CampaignStarted`."""
    return _campaign(CampaignNotification, "BroadcastNotification", BroadcastStatus(status), **fields)


def make_campaign_started(**fields: Unpack[CampaignFields]) -> CampaignStarted:
    """Create the start of a campaign."""
    return _campaign(CampaignStarted, "BroadcastStarted", BroadcastStatus.RUNNING, **fields)


def make_campaign_stopped(**fields: Unpack[CampaignFields]) -> CampaignStopped:
    """Create the stop of a campaign."""
    return _campaign(CampaignStopped, "BroadcastStopped", BroadcastStatus.STOPPED, **fields)


def make_campaign_finished(**fields: Unpack[CampaignFields]) -> CampaignFinished:
    """Create the end of a campaign."""
    return _campaign(CampaignFinished, "BroadcastFinished", BroadcastStatus.FINISHED, **fields)


def make_contact_list_validation_finished(**fields: Unpack[ContactListFields]) -> ContactListValidationFinished:
    """Create the validation of a contact list, an event of API v2 only."""
    origin, values = _contact_list_fields("ACTIVE", fields)
    return _parsed(ContactListValidationFinished, origin, contact_list=ContactList(**values))


def make_contact_list_validation_failed(**fields: Unpack[ContactListFields]) -> ContactListValidationFailed:
    """Create the failed validation of a contact list, an event of API v2 only."""
    origin, values = _contact_list_fields("ERRORS", fields)
    return _parsed(ContactListValidationFailed, origin, contact_list=ContactList(**values))


def make_delivery_report_received(**fields: Unpack[DeliveryReportFields]) -> DeliveryReportReceived:
    """Create a report of a text that was delivered, an event of API v2 only."""
    origin, chosen = _split_origin(fields)
    values: dict[str, Any] = {
        "id": _unique_id(),
        "text_id": _unique_id(),
        "broadcast_id": _unique_id(),
        "from_number": _SHORT_CODE,
        "to_number": _CONTACT_NUMBER,
        "reported_at": _now(),
        "delivery_state": "DELIVERED",
        "delivery_category": "DELIVERED",
        **chosen,
    }
    return _parsed(DeliveryReportReceived, _V2 | origin, report=DeliveryReport(**values))


def make_account_notification(
    *,
    resource_type: WebhookResource | str = WebhookResource.LOW_BALANCE,
    event_type: WebhookEvent | str = WebhookEvent.FINISHED,
    payload: dict[str, Any] | None = None,
    **fields: Unpack[WebhookFields],
) -> AccountNotification:
    """
    Create a monthly renewal or a low balance of the account, an event of API v2 only.

    Args:
        resource_type: ``MonthlyRenewal`` or ``LowBalance``.
        event_type: ``Finished`` or ``Failed``.
        payload: The content, which CallFire does not document.
        fields: Fields of the webhook.
    """
    types = {"resource_type": WebhookResource(resource_type), "event_type": WebhookEvent(event_type)}
    origin = _V2 | {"occurred_at": _unique_moment()} | fields
    return _parsed(AccountNotification, origin, payload=payload or {}, **types)


def _text(
    kind: type[T],
    state: ActionState,
    result: Result | None,
    inbound: bool,  # noqa: FBT001  # private; each caller is in this module
    **fields: Unpack[TextFields],
) -> T:
    message = fields.pop("message", "KEYWORD yes, please" if inbound else "Your order is on its way.")
    origin, action = _action_fields(inbound, _SHORT_CODE, fields)
    record = TextRecord(
        id=_unique_id(),
        result=result,
        finish_time=action["modified"],
        billed_amount=Decimal(result in (Result.SENT, Result.RECEIVED)),
        message=message,
    )
    text = Text(
        state=state,
        final_result=result,
        message=message,
        records=(record,) if result else (),
        **action,
    )
    # CallFire sends this root for both text triggers.
    return _parsed(kind, origin, "TextNotification", text=text)


def _action_fields(
    inbound: bool,  # noqa: FBT001  # private; each caller is in this module
    account_number: str,
    fields: ActionFields,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the fields of the origin, and those that texts and calls share."""
    now = _now()
    origin, chosen = _split_origin(fields)
    values: dict[str, Any] = {
        "id": _unique_id(),
        "from_number": _CONTACT_NUMBER if inbound else account_number,
        "to_number": account_number if inbound else _CONTACT_NUMBER,
        "contact_id": _unique_id(),
        "inbound": inbound,
        "created": now,
        "modified": now,
        **chosen,
    }
    return origin, values


def _campaign(kind: type[T], root: str, status: BroadcastStatus, **fields: Unpack[CampaignFields]) -> T:
    origin, chosen = _split_origin(fields)
    values: dict[str, Any] = {
        "id": _unique_id(),
        "name": "Spring",
        "last_modified": _now(),
        "type": BroadcastType.TEXT,
        **chosen,
    }
    values.setdefault("config", _make_config(values["type"]))
    return _parsed(kind, origin, root, broadcast=Broadcast(status=status, **values))


def _make_config(kind: str | None) -> BroadcastConfig | None:
    """Return the configuration of a kind of campaign, which CallFire's XML schema requires."""
    if kind == BroadcastType.TEXT:
        return TextBroadcastConfig(from_number=_SHORT_CODE, message="Your order is on its way.")
    if kind == BroadcastType.VOICE:
        return VoiceBroadcastConfig(from_number=_CALLER_ID, live_sound_text="This is a reminder.")
    if kind == BroadcastType.IVR:
        return IvrBroadcastConfig(from_number=_CALLER_ID, dialplan_xml='<dialplan name="Root"/>')
    return CccBroadcastConfig(from_number=_CALLER_ID) if kind == BroadcastType.CCC else None


def _contact_list_fields(status: str, fields: ContactListFields) -> tuple[dict[str, Any], dict[str, Any]]:
    origin, chosen = _split_origin(fields)
    values = {"id": _unique_id(), "name": "Customers", "size": 1138, "created": _now(), "status": status, **chosen}
    return _V2 | {"occurred_at": _now()} | origin, values


_V2: dict[str, Any] = {"api": "v2"}


def _split_origin(fields: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the fields of the event's origin, and those of its subject."""
    names = OriginFields.__annotations__.keys() | WebhookFields.__annotations__.keys()
    return (
        {name: value for name, value in fields.items() if name in names},
        {name: value for name, value in fields.items() if name not in names},
    )


def _parsed(kind: type[T], origin: Mapping[str, Any], root: str | None = None, **content: Any) -> T:
    """
    Return the event that a receiver makes of the postback with this content.

    Args:
        kind: The class of the event.
        origin: The API generation, and what posted the event.
        root: The root in API 1.1, where the content determines the class.
        content: The subject, and other fields of the event.

    Raises:
        TypeError: An event of API v2 has a subscription.
        ValueError: The API generation is unknown, or API v2 does not have the event.
    """
    if origin.get("api", "1.1") not in get_args(ApiGeneration):
        raise ValueError("api must be '1.1' or 'v2'")
    is_v2 = origin.get("api") == "v2" or any(origin.get(name) is not None for name in WebhookFields.__annotations__)
    if is_v2 and origin.get("subscription_id") is not None:
        raise TypeError("subscription_id must not be given for an event of API v2, which has a webhook_id")
    fields: dict[str, Any] = {**origin, **content} | ({} if is_v2 or root is None else {"name": root})
    fields.pop("api", None)
    _, body = encode(kind(**fields), api="v2" if is_v2 else "1.1")
    received = parse(body)
    assert isinstance(received, kind)
    return received


# Twelve digits that end in 003, as CallFire's IDs do. A random start keeps the IDs of several processes apart.
_ids = count(100_000_000_003 + 1000 * randbelow(800_000_000), 1000)


def _unique_id() -> int:
    """Return an ID that no other call in this process returns; JavaScript can represent it."""
    return next(_ids)


def _now() -> datetime:
    # CallFire's timestamps are whole seconds.
    return datetime.now(UTC).replace(microsecond=0)


def _unique_moment() -> datetime:
    """Return a time of the current second that differs from that of a thousand other calls."""
    return _now() + timedelta(milliseconds=next(_ids) // 1000 % 1000)
