"""The factories: each event has its own IDs, and equals the event that a receiver parses."""

from datetime import UTC, datetime, timedelta

import pytest
from attrs import evolve

from callfire_async import testing
from callfire_async.models import ContactList, DeliveryReport, Result, TextBroadcastConfig
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
    TextFinished,
    TextNotification,
    TextReceived,
    TextSent,
)
from callfire_async.notifications.parsing import parse
from callfire_async.testing import encode

V2_ONLY = """
    make_account_notification make_contact_list_validation_failed make_contact_list_validation_finished
    make_delivery_report_received
""".split()
NOT_IN_V2 = ["make_text_notification", "make_campaign_notification"]
ALL = [name for name in testing.__all__ if name.startswith("make_")]
CREATED = datetime(2012, 10, 26, 21, 32, 52, tzinfo=UTC)


def factories(names: list[str]) -> pytest.MarkDecorator:
    """Run a test with each of these factories."""
    return pytest.mark.parametrize("make", [getattr(testing, name) for name in names], ids=names)


each_factory = factories([name for name in ALL if name not in V2_ONLY])
each_factory_of_v2 = factories([name for name in ALL if name not in NOT_IN_V2])


@each_factory
@pytest.mark.parametrize("format", ["XML", "JSON", "SOAP"])
def test_an_event_survives_encoding_and_parsing(make, format):
    """Encoding and parsing change nothing."""
    event = make(subscription_id=7)

    assert parse(encode(event, format)[1]) == event
    assert (event.subscription_id, event.problems) == (7, ())
    assert event.payload


@factories(ALL)
def test_each_event_has_its_own_key(make):
    """Keys differ unless IDs are given."""
    assert make().key != make().key


@factories([name for name in ALL if name != "make_account_notification"])
def test_ids_can_be_chosen(make):
    """Events with the same ID are about the same text, call, campaign, list or report."""
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


@each_factory_of_v2
def test_an_event_of_v2_survives_encoding_and_parsing(make):
    """It has the fields of its webhook, and no subscription."""
    event = make(webhook_id=7, webhook_name="all", occurred_at=CREATED)

    read = parse(encode(event, api="v2")[1])
    assert read == event
    assert (read.key, read.payload, read.problems) == (event.key, event.payload, ())
    assert (event.webhook_id, event.webhook_name, event.occurred_at) == (7, "all", CREATED)
    assert "." in event.name
    assert event.subscription_id is None


@each_factory
@pytest.mark.parametrize("fields", [{"api": "v2"}, {"webhook_id": 1}, {"webhook_name": "a"}, {"occurred_at": CREATED}])
def test_the_generation_can_be_chosen(make, fields):
    """A field of a webhook makes it an event of API v2; API v2 has no texts and campaigns that are not finished."""
    assert "." not in make(api="1.1", subscription_id=7, webhook_id=None).name
    if make.__name__ in NOT_IN_V2:
        with pytest.raises(ValueError, match="event must be one that API v2 has"):
            make(**fields)
        return
    event = make(**fields)
    assert "." in event.name
    assert event.subject == parse(encode(event)[1]).subject


@each_factory_of_v2
def test_an_event_of_v2_has_no_subscription(make):
    """A test that expects one would not see it."""
    with pytest.raises(TypeError, match=r"^subscription_id must not be given"):
        make(webhook_id=7, subscription_id=8)


@pytest.mark.parametrize(
    ("event", "kind", "name"),
    [
        (testing.make_text_finished(api="v2"), TextSent, "OutboundText.Finished"),
        (testing.make_text_finished(api="v2", result="DNT"), TextFinished, "OutboundText.Finished"),
        (testing.make_text_finished(api="v2", inbound=True), TextReceived, "InboundText.Finished"),
        (testing.make_text_sent(api="v2"), TextSent, "OutboundText.Finished"),
        (testing.make_text_received(api="v2"), TextReceived, "InboundText.Finished"),
        (testing.make_call_finished(api="v2"), CallFinished, "OutboundCall.Finished"),
        (testing.make_call_finished(api="v2", inbound=True), CallFinished, "InboundCall.Finished"),
        (testing.make_campaign_started(api="v2"), CampaignStarted, "TextBroadcast.Started"),
        (testing.make_campaign_stopped(api="v2", type="VOICE"), CampaignStopped, "CallBroadcast.Stopped"),
        (testing.make_campaign_finished(api="v2", type="CCC"), CampaignFinished, "CccCampaign.Finished"),
        (
            testing.make_contact_list_validation_finished(),
            ContactListValidationFinished,
            "ContactList.ValidationFinished",
        ),
        (testing.make_contact_list_validation_failed(), ContactListValidationFailed, "ContactList.ValidationFailed"),
        (testing.make_delivery_report_received(), DeliveryReportReceived, "OutboundTextDeliveryReport.Received"),
        (testing.make_account_notification(), AccountNotification, "LowBalance.Finished"),
        (
            testing.make_account_notification(resource_type="MonthlyRenewal", event_type="failed"),
            AccountNotification,
            "MonthlyRenewal.Failed",
        ),
    ],
)
def test_the_class_and_name_of_an_event_of_v2(event, kind, name):
    """The resource and event are those that CallFire sends for it."""
    assert (type(event), event.name) == (kind, name)


def test_fields_of_a_contact_list_can_be_chosen():
    """All of them."""
    fields = {"id": 1, "name": "Customers", "size": 2, "created": CREATED, "status": "VALIDATING"}

    assert testing.make_contact_list_validation_failed(**fields).contact_list == ContactList(**fields)


def test_fields_of_a_delivery_report_can_be_chosen():
    """All of them."""
    fields = {
        "id": 1,
        "text_id": 2,
        "broadcast_id": 3,
        "account_id": 4,
        "from_number": "67076",
        "to_number": "12135550199",
        "reported_at": CREATED,
        "delivery_state": "UNKNOWN",
        "delivery_category": "NO_DATA",
    }

    assert testing.make_delivery_report_received(**fields).report == DeliveryReport(**fields)


def test_the_payload_of_an_account_notification_can_be_chosen():
    """CallFire does not document it."""
    assert testing.make_account_notification(payload={"balance": 5}).payload == {"balance": 5}


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
