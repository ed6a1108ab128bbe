"""The factories: each event has its own IDs, and equals the event that a receiver parses."""

from datetime import UTC, datetime, timedelta

import pytest
from attrs import evolve

from callfire_async import testing
from callfire_async.models import Result, TextBroadcastConfig
from callfire_async.notifications.events import (
    CallFinished,
    CampaignFinished,
    CampaignNotification,
    CampaignStarted,
    CampaignStopped,
    TextFinished,
    TextNotification,
    TextReceived,
    TextSent,
)
from callfire_async.notifications.parsing import parse
from callfire_async.testing import encode

FACTORIES = [(getattr(testing, name), name) for name in testing.__all__ if name.startswith("make_")]
CREATED = datetime(2012, 10, 26, 21, 32, 52, tzinfo=UTC)

each_factory = pytest.mark.parametrize("make", [make for make, _ in FACTORIES], ids=[name for _, name in FACTORIES])


@each_factory
@pytest.mark.parametrize("format", ["XML", "JSON", "SOAP"])
def test_an_event_survives_encoding_and_parsing(make, format):
    """Encoding and parsing change nothing."""
    event = make(subscription_id=7)

    assert parse(encode(event, format)[1]) == event
    assert (event.subscription_id, event.problems) == (7, ())
    assert event.payload


@each_factory
def test_each_event_has_its_own_key(make):
    """Keys differ unless IDs are given."""
    assert make().key != make().key


@each_factory
def test_ids_can_be_chosen(make):
    """Events with the same ID are about the same text, call or campaign."""
    assert make(id=42).key[:2] == make(id=42).key[:2]


@pytest.mark.parametrize(
    ("event", "kind", "name"),
    [
        (testing.make_text_notification(), TextNotification, "TextNotification"),
        (testing.make_text_notification(inbound=True, state="DNC"), TextNotification, "TextNotification"),
        (testing.make_text_finished(), TextSent, "TextNotification"),
        (testing.make_text_finished(result=Result.DNT), TextFinished, "TextNotification"),
        (testing.make_text_finished(result="RECEIVED", inbound=True), TextReceived, "TextNotification"),
        (testing.make_text_sent(), TextSent, "TextNotification"),
        (testing.make_text_received(), TextReceived, "TextNotification"),
        (testing.make_call_finished(), CallFinished, "CallFinished"),
        (testing.make_campaign_notification(), CampaignNotification, "BroadcastNotification"),
        (testing.make_campaign_notification(status="RUNNING"), CampaignStarted, "BroadcastNotification"),
        (testing.make_campaign_started(), CampaignStarted, "BroadcastStarted"),
        (testing.make_campaign_stopped(), CampaignStopped, "BroadcastStopped"),
        (testing.make_campaign_finished(), CampaignFinished, "BroadcastFinished"),
    ],
)
def test_the_class_is_the_one_that_a_receiver_produces(event, kind, name):
    """Texts have the root that CallFire sends for all of them."""
    assert (type(event), event.name) == (kind, name)


def test_fields_of_a_text_can_be_chosen():
    """Each common field can be passed."""
    event = testing.make_text_sent(
        from_number="67076",
        to_number="12135550199",
        to_number_attributes=(("ClientData", "x"),),
        message="Hello",
        broadcast_id=1,
        batch_id=2,
        contact_id=3,
        labels=("a",),
        created=CREATED,
        modified=CREATED + timedelta(seconds=1),
    )

    text = event.text
    assert (text.from_number, text.to_number, text.to_number_attributes) == (
        "67076",
        "12135550199",
        (("ClientData", "x"),),
    )
    assert (text.broadcast_id, text.batch_id, text.contact_id, text.labels) == (1, 2, 3, ("a",))
    assert (text.created, text.modified) == (CREATED, CREATED + timedelta(seconds=1))
    assert (text.message, text.records[0].message) == ("Hello", "Hello")


def test_an_inbound_text_has_its_message_twice():
    """The text and its record have the message, as CallFire sends it; the numbers are swapped."""
    event = testing.make_text_received(message="KEYWORD yes")

    assert (event.text.message, event.text.records[0].message) == ("KEYWORD yes", "KEYWORD yes")
    assert (event.text.to_number, event.text.inbound) == (testing.make_text_sent().text.from_number, True)


def test_a_call_has_its_result():
    """The call and its record have the result."""
    call = testing.make_call_finished(result="AM", inbound=True, broadcast_id=None).call

    assert (call.final_result, call.records[0].result, call.inbound) == ("AM", "AM", True)


def test_fields_of_a_campaign_can_be_chosen():
    """Each common field can be passed."""
    event = testing.make_campaign_stopped(
        id=5, name="Autumn", last_modified=CREATED, labels=("a",), config=TextBroadcastConfig(id=6, from_number="67076")
    )

    broadcast = event.broadcast
    assert (broadcast.id, broadcast.name, broadcast.labels, broadcast.config.from_number) == (
        5,
        "Autumn",
        ("a",),
        "67076",
    )
    assert event.key == ("broadcast", 5, "stopped", CREATED.timestamp())


def test_other_fields_can_be_changed_with_evolve():
    """Events are values."""
    event = testing.make_call_finished()

    changed = evolve(event, call=evolve(event.call, agent_call=True))

    assert parse(encode(changed)[1]) == changed
