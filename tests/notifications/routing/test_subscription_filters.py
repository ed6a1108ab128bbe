"""Which subscriptions an event matches."""

import pytest
from attrs import evolve

from callfire_async.models import (
    Call,
    Subscription,
    SubscriptionFilter,
    Text,
    TextBroadcastConfig,
    TextRecord,
    TriggerEvent,
    Webhook,
    WebhookEvent,
    WebhookResource,
)
from callfire_async.notifications.events import (
    CallFinished,
    Notification,
    TextFinished,
    TextReceived,
    TextSent,
    UnknownNotification,
)
from callfire_async.notifications.routing.subscription_filters import matches, matches_webhook, trigger_event_of
from callfire_async.testing import (
    make_call_finished,
    make_campaign_finished,
    make_campaign_notification,
    make_campaign_started,
    make_campaign_stopped,
    make_text_finished,
    make_text_notification,
    make_text_received,
    make_text_sent,
)


def is_match(event: Notification, **expected) -> bool:
    """Return whether an event matches a subscription with a filter."""
    return matches(event, Subscription(1, trigger_event=trigger_event_of(event), filter=SubscriptionFilter(**expected)))


@pytest.mark.parametrize(
    ("event", "trigger_event"),
    [
        (make_text_sent(), "OUTBOUND_TEXT_FINISHED"),
        (make_text_finished(result="CARRIER_ERROR"), "OUTBOUND_TEXT_FINISHED"),
        (make_text_received(), "INBOUND_TEXT_FINISHED"),
        (make_text_notification(), None),
        (make_call_finished(), "OUTBOUND_CALL_FINISHED"),
        (make_call_finished(inbound=True), "INBOUND_CALL_FINISHED"),
        (make_campaign_started(), "CAMPAIGN_STARTED"),
        (make_campaign_stopped(), "CAMPAIGN_STOPPED"),
        (make_campaign_finished(), "CAMPAIGN_FINISHED"),
        (make_campaign_notification(), None),
        (UnknownNotification(name="FaxFinished"), None),
    ],
)
def test_an_event_matches_subscriptions_to_its_trigger(event, trigger_event):
    """Each event has one trigger; an event of an unfinished text has none."""
    matching = [trigger for trigger in TriggerEvent if matches(event, Subscription(1, trigger_event=trigger))]

    assert matching == ([trigger_event] if trigger_event else [])


@pytest.mark.parametrize(
    ("event", "resource", "name"),
    [
        (make_text_received(), "InboundText", "Finished"),
        (make_text_received(api="v2"), "InboundText", "Finished"),
        (make_call_finished(), "OutboundCall", "Finished"),
        (make_campaign_started(api="v2"), "TextBroadcast", "Started"),
        (make_text_notification(), None, None),
    ],
)
def test_an_event_matches_webhooks_of_its_resource_and_name(event, resource, name):
    """In both API generations; an event that API v2 does not have matches none."""
    webhooks = [
        Webhook(1, resource=kind, events=(event_name,)) for kind in WebhookResource for event_name in WebhookEvent
    ]

    matching = [(item.resource, *item.events) for item in webhooks if matches_webhook(event, item)]

    assert matching == ([(resource, name)] if resource else [])


@pytest.mark.parametrize(
    ("event", "trigger_event", "inbound"),
    [
        (TextReceived(name="InboundText.Finished", text=Text(1)), "INBOUND_TEXT_FINISHED", True),
        (TextSent(name="OutboundText.Finished", text=Text(1, inbound=True)), "OUTBOUND_TEXT_FINISHED", False),
        (TextFinished(name="OutboundText.Finished", text=Text(1)), "OUTBOUND_TEXT_FINISHED", False),
        (CallFinished(name="InboundCall.Finished", call=Call(1, inbound=False)), "INBOUND_CALL_FINISHED", True),
        (CallFinished(name="OutboundCall.Finished", call=Call(1, inbound=None)), "OUTBOUND_CALL_FINISHED", False),
    ],
)
def test_the_resource_of_an_event_of_api_2_is_its_direction(event, trigger_event, inbound):
    """The flag in the text or call may be missing or wrong."""
    assert trigger_event_of(event) == trigger_event
    assert (is_match(event, inbound=inbound), is_match(event, inbound=not inbound)) == (True, False)


@pytest.mark.parametrize("event", [make_text_sent(), make_call_finished(), make_campaign_started()])
@pytest.mark.parametrize("expected", [None, SubscriptionFilter()])
def test_an_empty_filter_matches_all_events(event, expected):
    """No filter and an empty filter are the same."""
    assert matches(event, Subscription(1, trigger_event=trigger_event_of(event), filter=expected))


@pytest.mark.parametrize(
    ("event", "expected", "result"),
    [
        (make_text_sent(broadcast_id=5), {"broadcast_id": 5}, True),
        (make_text_sent(broadcast_id=5), {"broadcast_id": 6}, False),
        (make_text_sent(), {"broadcast_id": 5}, False),
        (make_call_finished(batch_id=5), {"batch_id": 5}, True),
        (make_call_finished(batch_id=5), {"batch_id": 6}, False),
        (make_text_sent(broadcast_id=5, batch_id=6), {"broadcast_id": 5, "batch_id": 7}, False),
        (make_call_finished(inbound=True), {"inbound": True}, True),
        (make_call_finished(inbound=True), {"inbound": False}, False),
        (make_call_finished(), {"inbound": False}, True),
        (make_campaign_started(id=5), {"broadcast_id": 5}, True),
        (make_campaign_started(id=5), {"broadcast_id": 6}, False),
        (make_campaign_started(), {"batch_id": 5}, False),
        (make_campaign_started(), {"to_number": "67076"}, False),
        (make_campaign_started(), {"inbound": True}, False),
        (make_campaign_started(), {"inbound": False}, True),
    ],
)
def test_ids_and_directions_must_be_equal(event, expected, result):
    """A missing field matches no filter; a campaign is outbound and has no to_number."""
    assert is_match(event, **expected) is result


@pytest.mark.parametrize(
    ("number", "expected", "result"),
    [
        ("12135550142", "12135550142", True),
        ("12135550142", "+1 (213) 555-0142", True),
        ("+12135550142", "12135550142", True),
        ("12135550142", "2135550142", False),
        ("12135550142", "12135550143", False),
        ("67076", "67076", True),
        ("Anonymous", "anonymous", True),
        ("Anonymous", "Private", False),
        ("Anonymous", "12135550142", False),
        (None, "12135550142", False),
    ],
)
def test_numbers_are_compared_as_digits(number, expected, result):
    """Punctuation is ignored; the words of withheld numbers are compared as text."""
    assert is_match(make_call_finished(from_number=number), from_number=expected) is result
    assert is_match(make_call_finished(to_number=number), to_number=expected) is result
    campaign = make_campaign_started(config=TextBroadcastConfig(id=1, from_number=number))
    assert is_match(campaign, from_number=expected) is result


def test_a_campaign_without_a_configuration_is_from_no_number():
    """A filter for a number does not match."""
    assert not is_match(make_campaign_started(config=None), from_number="67076")


@pytest.mark.parametrize(
    ("message", "expected", "result"),
    [
        ("KEYWORD yes", "67076:KEYWORD", True),
        ("keyword", "67076:KEYWORD", True),
        ("Keyword\nyes", "67076:keyWORD", True),
        ("yes KEYWORD", "67076:KEYWORD", False),
        ("KEYWORDS", "67076:KEYWORD", False),
        ("KEYWORD", "67077:KEYWORD", False),
        ("KEYWORD", "67076", True),
    ],
)
def test_a_keyword_is_the_first_word_of_the_message(message, expected, result):
    """Case is ignored, and the number must match too."""
    assert is_match(make_text_received(to_number="67076", message=message), to_number=expected) is result


def test_a_keyword_may_be_only_in_the_record():
    """As for outbound texts."""
    assert is_match(make_text_sent(to_number="67076", message="KEYWORD"), to_number="67076:KEYWORD")


def test_without_a_message_there_is_no_keyword():
    """A call and a text without a message match no keyword."""
    event = make_text_received(to_number="67076")
    silent = evolve(event, text=evolve(event.text, message=None, records=(TextRecord(),)))

    assert not is_match(silent, to_number="67076:KEYWORD")
    assert not is_match(make_call_finished(to_number="67076"), to_number="67076:KEYWORD")
