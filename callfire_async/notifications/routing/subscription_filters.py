"""
Which subscriptions an event goes to.

Pure. It imports `models` and `events`.
"""

import re
from collections.abc import Iterator

from callfire_async.models import Broadcast, Call, Subscription, SubscriptionFilter, Text, TriggerEvent
from callfire_async.notifications.events import (
    CallFinished,
    CampaignFinished,
    CampaignNotification,
    CampaignStarted,
    CampaignStopped,
    Notification,
    TextFinished,
)

__all__ = ["matches", "trigger_event_of"]

_CAMPAIGN_TRIGGERS: dict[type[Notification], TriggerEvent] = {
    CampaignStarted: TriggerEvent.CAMPAIGN_STARTED,
    CampaignStopped: TriggerEvent.CAMPAIGN_STOPPED,
    CampaignFinished: TriggerEvent.CAMPAIGN_FINISHED,
}


def matches(event: Notification, subscription: Subscription) -> bool:
    """Tell whether an event is what a subscription waits for; whether that is enabled is not asked."""
    trigger_event = trigger_event_of(event)
    if trigger_event is None or subscription.trigger_event != trigger_event:
        return False
    wanted = subscription.filter or SubscriptionFilter()
    if isinstance(event, CampaignNotification):
        return _campaign_fits(event.broadcast, wanted)
    return any(_action_fits(action, wanted) for action in _actions(event))


def trigger_event_of(event: Notification) -> TriggerEvent | None:
    """Return what an event triggers; None for what CallFire posts to nobody, as a text that is not finished."""
    if isinstance(event, TextFinished):
        return _either(event.text, TriggerEvent.INBOUND_TEXT_FINISHED, TriggerEvent.OUTBOUND_TEXT_FINISHED)
    if isinstance(event, CallFinished):
        return _either(event.call, TriggerEvent.INBOUND_CALL_FINISHED, TriggerEvent.OUTBOUND_CALL_FINISHED)
    return _CAMPAIGN_TRIGGERS.get(type(event))


def _either(action: Text | Call, inbound: TriggerEvent, outbound: TriggerEvent) -> TriggerEvent:
    return inbound if action.inbound else outbound


def _actions(event: Notification) -> Iterator[Text | Call]:
    if isinstance(event, TextFinished):
        yield event.text
    if isinstance(event, CallFinished):
        yield event.call


def _action_fits(action: Text | Call, wanted: SubscriptionFilter) -> bool:
    """Hold a text or a call against each field of a filter that says something."""
    return (
        wanted.broadcast_id in (None, action.broadcast_id)
        and wanted.batch_id in (None, action.batch_id)
        and wanted.inbound in (None, bool(action.inbound))
        and _number_fits(action.from_number, wanted.from_number)
        and _to_number_fits(action, wanted.to_number)
    )


def _campaign_fits(broadcast: Broadcast, wanted: SubscriptionFilter) -> bool:
    """Hold a campaign against a filter: it is outbound, in no one batch, and to no one number."""
    from_number = broadcast.config.from_number if broadcast.config else None
    return (
        wanted.broadcast_id in (None, broadcast.id)
        and wanted.batch_id is None
        and wanted.to_number is None
        and not wanted.inbound
        and _number_fits(from_number, wanted.from_number)
    )


def _to_number_fits(action: Text | Call, wanted: str | None) -> bool:
    number, colon, keyword = (wanted or "").partition(":")
    if not colon:
        return _number_fits(action.to_number, wanted)
    return _number_fits(action.to_number, number) and _first_word(action) == keyword.strip().casefold()


def _first_word(action: Text | Call) -> str:
    messages = [action.message, *(record.message for record in action.records)] if isinstance(action, Text) else []
    words = " ".join(message for message in messages if message).split()
    return words[0].casefold() if words else ""


def _number_fits(number: str | None, wanted: str | None) -> bool:
    return wanted is None or (number is not None and _comparable(number) == _comparable(wanted))


def _comparable(number: str) -> str:
    """Return the digits of a number, or what a withheld one says."""
    return re.sub(r"[^0-9]", "", number) or number.strip().casefold()
