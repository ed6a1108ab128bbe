"""
Events for tests, each about a thing of its own, as `parse` would give them.

What is made goes through CallFire's XML once, so that ``payload`` is there and the kind is the one that a receiver
would see. It imports `models`, `notifications` and `encoding`.
"""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, TypedDict, TypeVar, Unpack
from uuid import uuid4

from callfire_async.models import (
    ActionState,
    Broadcast,
    BroadcastStatus,
    BroadcastType,
    Call,
    CallRecord,
    Result,
    Text,
    TextBroadcastConfig,
    TextRecord,
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

# Numbers that are kept for fiction.
_PERSON, _OURS, _SHORT_CODE = "12135550142", "12135550100", "67076"


class ActionFields(TypedDict, total=False):
    """What may be said of every text and call; the rest is made up."""

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
    """What may be said of every text."""

    message: str


class CampaignFields(TypedDict, total=False):
    """What may be said of every campaign; the rest is made up."""

    id: int
    subscription_id: int | None
    name: str | None
    last_modified: datetime | None
    type: BroadcastType | None
    labels: tuple[str, ...]
    config: TextBroadcastConfig | None


def make_text_notification(
    *, state: ActionState | str = ActionState.READY, inbound: bool = False, **fields: Unpack[TextFields]
) -> TextNotification:
    """Make news of a text that has no result; it is finished only in the state ``FINISHED``."""
    return _text(TextNotification, ActionState(state), None, inbound, **fields)


def make_text_finished(
    *, result: Result | str = Result.SENT, inbound: bool = False, **fields: Unpack[TextFields]
) -> TextFinished:
    """
    Make a finished text: a `TextReceived` where it is inbound, a `TextSent` where the result is ``SENT``.

    As CallFire words it, the message of an outbound text stands in its record only.
    """
    return _text(TextFinished, ActionState.FINISHED, Result(result), inbound, **fields)


def make_text_sent(**fields: Unpack[TextFields]) -> TextSent:
    """Make an outbound text that was sent; its message stands in its record."""
    return _text(TextSent, ActionState.FINISHED, Result.SENT, inbound=False, **fields)


def make_text_received(**fields: Unpack[TextFields]) -> TextReceived:
    """Make an inbound text."""
    return _text(TextReceived, ActionState.FINISHED, Result.RECEIVED, inbound=True, **fields)


def make_call_finished(
    *, result: Result | str = Result.LA, inbound: bool = False, **fields: Unpack[ActionFields]
) -> CallFinished:
    """Make a call that has ended."""
    subscription_id, action = _action(inbound, _OURS, fields)
    record = CallRecord(
        id=_unique_id(),
        result=Result(result),
        originate_time=action["created"],
        finish_time=action["modified"],
        duration=timedelta(seconds=33),
        billed_amount=Decimal(1),
    )
    call = Call(state=ActionState.FINISHED, final_result=Result(result), records=(record,), **action)
    return _as_received(CallFinished, CallFinished(subscription_id=subscription_id, call=call))


def make_campaign_notification(
    *, status: BroadcastStatus | str = BroadcastStatus.PAUSED, **fields: Unpack[CampaignFields]
) -> CampaignNotification:
    """Make news of a campaign: a `CampaignStarted` where the status is ``RUNNING``, and so on."""
    return _campaign(CampaignNotification, "BroadcastNotification", BroadcastStatus(status), **fields)


def make_campaign_started(**fields: Unpack[CampaignFields]) -> CampaignStarted:
    """Make the start of a campaign."""
    return _campaign(CampaignStarted, "BroadcastStarted", BroadcastStatus.RUNNING, **fields)


def make_campaign_stopped(**fields: Unpack[CampaignFields]) -> CampaignStopped:
    """Make the stop of a campaign."""
    return _campaign(CampaignStopped, "BroadcastStopped", BroadcastStatus.STOPPED, **fields)


def make_campaign_finished(**fields: Unpack[CampaignFields]) -> CampaignFinished:
    """Make the end of a campaign."""
    return _campaign(CampaignFinished, "BroadcastFinished", BroadcastStatus.FINISHED, **fields)


def _text(
    kind: type[T],
    state: ActionState,
    result: Result | None,
    inbound: bool,  # noqa: FBT001  # each caller is in sight
    **fields: Unpack[TextFields],
) -> T:
    message = fields.pop("message", "KEYWORD yes, please" if inbound else "Your order is on its way.")
    subscription_id, action = _action(inbound, _SHORT_CODE, fields)
    record = TextRecord(id=_unique_id(), result=result, finish_time=action["modified"], message=message)
    text = Text(
        state=state,
        final_result=result,
        message=message if inbound else None,
        records=(record,) if result else (),
        **action,
    )
    # The root that production sends for both text triggers.
    event = TextNotification(name="TextNotification", subscription_id=subscription_id, text=text)
    return _as_received(kind, event)


def _action(inbound: bool, ours: str, fields: ActionFields) -> tuple[int | None, dict[str, Any]]:  # noqa: FBT001  # as above
    """Return the subscription that sends it, and what a text and a call have in common."""
    now = _now()
    chosen: dict[str, Any] = {
        "id": _unique_id(),
        "from_number": _PERSON if inbound else ours,
        "to_number": ours if inbound else _PERSON,
        "contact_id": _unique_id(),
        "inbound": inbound,
        "created": now,
        "modified": now,
        **fields,
    }
    return chosen.pop("subscription_id", None), chosen


def _campaign(kind: type[T], root: str, status: BroadcastStatus, **fields: Unpack[CampaignFields]) -> T:
    chosen: dict[str, Any] = {
        "id": _unique_id(),
        "name": "Spring",
        "last_modified": _now(),
        "type": BroadcastType.TEXT,
        **fields,
    }
    subscription_id = chosen.pop("subscription_id", None)
    broadcast = Broadcast(status=status, **chosen)
    event = CampaignNotification(name=root, subscription_id=subscription_id, broadcast=broadcast)
    return _as_received(kind, event)


def _as_received(kind: type[T], event: Notification) -> T:
    _, body = encode(event)
    received = parse(body)
    assert isinstance(received, kind)
    return received


def _unique_id() -> int:
    """Return an id that no other call returns, in the 64 bits that the wire has for it."""
    return uuid4().int >> 66


def _now() -> datetime:
    # CallFire's times have no fractions of a second.
    return datetime.now(UTC).replace(microsecond=0)
