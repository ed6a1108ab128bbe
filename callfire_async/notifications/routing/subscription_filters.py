"""Matches events to subscriptions: CallFire's triggers and filters, without I/O."""

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
    """Return whether an event matches a subscription's trigger and filter; ``enabled`` is ignored."""
    trigger_event = trigger_event_of(event)
    if trigger_event is None or subscription.trigger_event != trigger_event:
        return False
    expected = subscription.filter or SubscriptionFilter()
    if isinstance(event, CampaignNotification):
        return _campaign_matches(event.broadcast, expected)
    return any(_action_matches(action, expected) for action in _actions(event))


def trigger_event_of(event: Notification) -> TriggerEvent | None:
    """Return the trigger of an event; None if CallFire posts none, as for a text that is not finished."""
    if isinstance(event, TextFinished):
        return _by_direction(event.text, TriggerEvent.INBOUND_TEXT_FINISHED, TriggerEvent.OUTBOUND_TEXT_FINISHED)
    if isinstance(event, CallFinished):
        return _by_direction(event.call, TriggerEvent.INBOUND_CALL_FINISHED, TriggerEvent.OUTBOUND_CALL_FINISHED)
    return _CAMPAIGN_TRIGGERS.get(type(event))


def _by_direction(action: Text | Call, inbound: TriggerEvent, outbound: TriggerEvent) -> TriggerEvent:
    return inbound if action.inbound else outbound


def _actions(event: Notification) -> Iterator[Text | Call]:
    if isinstance(event, TextFinished):
        yield event.text
    if isinstance(event, CallFinished):
        yield event.call


def _action_matches(action: Text | Call, expected: SubscriptionFilter) -> bool:
    """Return whether a text or a call matches all fields of a filter that are set."""
    return (
        expected.broadcast_id in (None, action.broadcast_id)
        and expected.batch_id in (None, action.batch_id)
        and expected.inbound in (None, bool(action.inbound))
        and _number_matches(action.from_number, expected.from_number)
        and _to_number_matches(action, expected.to_number)
    )


def _campaign_matches(broadcast: Broadcast, expected: SubscriptionFilter) -> bool:
    """Return whether a campaign matches a filter. A campaign is outbound and has no batch and no number of its own."""
    from_number = broadcast.config.from_number if broadcast.config else None
    return (
        expected.broadcast_id in (None, broadcast.id)
        and expected.batch_id is None
        and expected.to_number is None
        and not expected.inbound
        and _number_matches(from_number, expected.from_number)
    )


def _to_number_matches(action: Text | Call, expected: str | None) -> bool:
    number, colon, keyword = (expected or "").partition(":")
    if not colon:
        return _number_matches(action.to_number, expected)
    return _number_matches(action.to_number, number) and _first_word(action) == keyword.strip().casefold()


def _first_word(action: Text | Call) -> str:
    messages = [action.message, *(record.message for record in action.records)] if isinstance(action, Text) else []
    words = " ".join(message for message in messages if message).split()
    return words[0].casefold() if words else ""


def _number_matches(number: str | None, expected: str | None) -> bool:
    return expected is None or (number is not None and _normalized_number(number) == _normalized_number(expected))


def _normalized_number(number: str) -> str:
    """Return the digits of a number, or a word such as 'anonymous' that replaces a withheld number."""
    return re.sub(r"[^0-9]", "", number) or number.strip().casefold()
