"""
Factories of events for tests. Each event has IDs of its own.

Events are encoded as XML and parsed again, so that their class and ``payload`` are the ones that a receiver produces.
"""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from secrets import randbelow
from typing import Any, TypedDict, TypeVar, Unpack

from callfire_async.models import (
    ActionState,
    Broadcast,
    BroadcastStatus,
    BroadcastType,
    Call,
    CallRecord,
    IvrBroadcastConfig,
    Result,
    Text,
    TextBroadcastConfig,
    TextRecord,
    VoiceBroadcastConfig,
)
from callfire_async.notifications.encoding import encode
from callfire_async.notifications.events import (
    CallFinished,
    CampaignFinished,
    CampaignNotification,
    CampaignStarted,
    CampaignStopped,
    Notification,
    TextFinished,
    TextNotification,
    TextReceived,
    TextSent,
)
from callfire_async.notifications.parsing import parse

__all__ = [
    "ActionFields",
    "CampaignFields",
    "TextFields",
    "make_call_finished",
    "make_campaign_finished",
    "make_campaign_notification",
    "make_campaign_started",
    "make_campaign_stopped",
    "make_text_finished",
    "make_text_notification",
    "make_text_received",
    "make_text_sent",
]

T = TypeVar("T", bound=Notification)

# 555-01xx numbers are reserved for fiction.
_CONTACT_NUMBER, _CALLER_ID, _SHORT_CODE = "12135550142", "12135550100", "67076"


class ActionFields(TypedDict, total=False):
    """Fields of texts and calls that can be chosen; the others are generated."""

    id: int
    subscription_id: int | None
    from_number: str | None
    to_number: str | None
    to_number_attributes: tuple[tuple[str, str], ...]
    batch_id: int | None
    broadcast_id: int | None
    contact_id: int | None
    created: datetime | None
    modified: datetime | None
    labels: tuple[str, ...]


class TextFields(ActionFields, total=False):
    """Fields of texts that can be chosen."""

    message: str


class CampaignFields(TypedDict, total=False):
    """Fields of campaigns that can be chosen; the others are generated."""

    id: int
    subscription_id: int | None
    name: str | None
    last_modified: datetime | None
    type: BroadcastType | None
    labels: tuple[str, ...]
    config: TextBroadcastConfig | VoiceBroadcastConfig | IvrBroadcastConfig | None


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
    subscription_id, action = _action_fields(inbound, _CALLER_ID, fields)
    record = CallRecord(
        id=_unique_id(),
        result=Result(result),
        originate_time=action["created"],
        finish_time=action["modified"],
        duration=timedelta(seconds=33),
        billed_amount=Decimal(1),
    )
    call = Call(state=ActionState.FINISHED, final_result=Result(result), records=(record,), agent_call=False, **action)
    return _parsed(CallFinished, CallFinished(subscription_id=subscription_id, call=call))


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


def _text(
    kind: type[T],
    state: ActionState,
    result: Result | None,
    inbound: bool,  # noqa: FBT001  # private; each caller is in this module
    **fields: Unpack[TextFields],
) -> T:
    message = fields.pop("message", "KEYWORD yes, please" if inbound else "Your order is on its way.")
    subscription_id, action = _action_fields(inbound, _SHORT_CODE, fields)
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
    event = TextNotification(name="TextNotification", subscription_id=subscription_id, text=text)
    return _parsed(kind, event)


def _action_fields(
    inbound: bool,  # noqa: FBT001  # private; each caller is in this module
    account_number: str,
    fields: ActionFields,
) -> tuple[int | None, dict[str, Any]]:
    """Return the subscription ID, and the fields that texts and calls share."""
    now = _now()
    values: dict[str, Any] = {
        "id": _unique_id(),
        "from_number": _CONTACT_NUMBER if inbound else account_number,
        "to_number": account_number if inbound else _CONTACT_NUMBER,
        "contact_id": _unique_id(),
        "inbound": inbound,
        "created": now,
        "modified": now,
        **fields,
    }
    return values.pop("subscription_id", None), values


def _campaign(kind: type[T], root: str, status: BroadcastStatus, **fields: Unpack[CampaignFields]) -> T:
    values: dict[str, Any] = {
        "id": _unique_id(),
        "name": "Spring",
        "last_modified": _now(),
        "type": BroadcastType.TEXT,
        **fields,
    }
    subscription_id = values.pop("subscription_id", None)
    broadcast = Broadcast(status=status, **values)
    event = CampaignNotification(name=root, subscription_id=subscription_id, broadcast=broadcast)
    return _parsed(kind, event)


def _parsed(kind: type[T], event: Notification) -> T:
    _, body = encode(event)
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
