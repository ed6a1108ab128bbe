"""Matches events to subscriptions and webhooks: CallFire's triggers, filters and resources, without I/O."""

import re

from callfire_async.models import Broadcast, Call, Subscription, SubscriptionFilter, Text, TriggerEvent, Webhook
from callfire_async.notifications.encoding import webhook_event_of
from callfire_async.notifications.events import (
    CallFinished,
    CampaignFinished,
    CampaignNotification,
    CampaignStarted,
    CampaignStopped,
    Notification,
    TextFinished,
)

__all__ = ["matches", "matches_webhook", "trigger_event_of"]

#: By the class of the event's subject, and whether that is inbound.
_ACTION_TRIGGERS = {
    (Text, True): TriggerEvent.INBOUND_TEXT_FINISHED,
    (Text, False): TriggerEvent.OUTBOUND_TEXT_FINISHED,
    (Call, True): TriggerEvent.INBOUND_CALL_FINISHED,
    (Call, False): TriggerEvent.OUTBOUND_CALL_FINISHED,
}
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
    action = _finished_action(event)
    return action is not None and _action_matches(action, expected, is_inbound=_is_inbound(event, action))


def matches_webhook(event: Notification, webhook: Webhook) -> bool:
    """Return whether an event is one of a webhook's resource and events; ``enabled`` is ignored."""
    try:
        resource, event_type = webhook_event_of(event)
    except ValueError:
        return False
    return resource == webhook.resource and event_type in webhook.events


def trigger_event_of(event: Notification) -> TriggerEvent | None:
    """Return the trigger of an event; None if CallFire posts none, as for a text that is not finished."""
    action = _finished_action(event)
    if action is not None:
        return _ACTION_TRIGGERS[type(action), _is_inbound(event, action)]
    return _CAMPAIGN_TRIGGERS.get(type(event))


def _is_inbound(event: Notification, action: Text | Call) -> bool:
    """Return the direction of a text or call: API v2 names it in the event, and API 1.1 in the text or call."""
    resource, dot, _ = event.name.partition(".")
    return resource.startswith("Inbound") if dot else bool(action.inbound)


def _finished_action(event: Notification) -> Text | Call | None:
    if isinstance(event, TextFinished):
        return event.text
    return event.call if isinstance(event, CallFinished) else None


def _action_matches(action: Text | Call, expected: SubscriptionFilter, *, is_inbound: bool) -> bool:
    """Return whether a text or a call matches all fields of a filter that are set."""
    return (
        expected.broadcast_id in (None, action.broadcast_id)
        and expected.batch_id in (None, action.batch_id)
        and expected.inbound in (None, is_inbound)
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
