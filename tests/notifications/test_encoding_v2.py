"""Tests of the encoding of events for API v2."""

import json
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal

import pytest
from attrs import evolve

from callfire_async.models import (
    Broadcast,
    BroadcastType,
    Call,
    ContactList,
    DeliveryReport,
    IvrBroadcastConfig,
    LocalTimeZoneRestriction,
    Text,
    TextBroadcastConfig,
    TextRecord,
    WebhookEvent,
    WebhookResource,
)
from callfire_async.notifications import parse, parse_all
from callfire_async.notifications.encoding import encode_envelope
from callfire_async.notifications.events import (
    AccountNotification,
    CallFinished,
    CampaignFinished,
    CampaignNotification,
    CampaignStarted,
    ContactListValidationFailed,
    DeliveryReportReceived,
    Notification,
    TextFinished,
    TextNotification,
    TextReceived,
    TextSent,
    UnknownNotification,
)
from callfire_async.testing import encode, samples

MOMENT = datetime(2018, 5, 30, 15, 43, 44, 123000, tzinfo=UTC)
SENT = samples.EVENTS["TextSent"]
CONTACT_LIST = ContactListValidationFailed(
    contact_list=ContactList(1, "Customers", 2, MOMENT, "ERRORS"), occurred_at=MOMENT
)
REPORT = DeliveryReportReceived(report=DeliveryReport(1, text_id=2, reported_at=MOMENT, delivery_state="DELIVERED"))
ACCOUNT = AccountNotification(
    resource_type=WebhookResource.LOW_BALANCE,
    event_type=WebhookEvent.FAILED,
    payload={"balance": 1.5},
    occurred_at=MOMENT,
)
V2_ONLY = [CONTACT_LIST, REPORT, ACCOUNT]


def test_an_envelope_has_the_documented_keys():
    """The webhook is in the envelope and in the event; None is left out."""
    text = Text(
        id=1, contact_id=2, created=MOMENT, records=(TextRecord(id=3, result="SENT", billed_amount=Decimal(1)),)
    )
    event = TextSent(text=text, webhook_id=7, webhook_name="sent texts", occurred_at=MOMENT)

    content_type, body = encode(event, api="v2")

    assert content_type == "application/json"
    assert json.loads(body) == {
        "timestamp": 1527695024123,
        "webhookId": 7,
        "webhookName": "sent texts",
        "resourceType": "OutboundText",
        "events": [
            {
                "timestamp": 1527695024123,
                "webhookId": 7,
                "resourceType": "OutboundText",
                "eventType": "Finished",
                "resource": {
                    "id": 1,
                    "contact": {"id": 2},
                    "created": 1527695024123,
                    "records": [{"id": 3, "textResult": "SENT", "billedAmount": 1}],
                },
            }
        ],
    }


@pytest.mark.parametrize("event", samples.EVENTS.values(), ids=samples.EVENTS)
def test_an_event_of_api_1_1_can_be_encoded_for_v2(event):
    """Class, key and subject are kept, except for the id and time of a configuration, which API v2 does not have."""
    read = parse(encode(event, "JSON", api="v2")[1])

    assert (type(read), read.key, read.problems) == (type(event), event.key, ())
    assert read.subject == without_ids(event.subject)
    assert read != event
    assert read == parse(encode(read, api="v2")[1])


@pytest.mark.parametrize("form", ["XML", "JSON", "SOAP"])
@pytest.mark.parametrize("event", samples.EVENTS.values(), ids=samples.EVENTS)
def test_an_event_of_v2_can_be_encoded_for_api_1_1(event, form):
    """The root is the name of its class."""
    event = parse(encode(event, api="v2")[1])

    read = parse(encode(event, form)[1])

    assert (type(read), read.name, read.key, read.subject) == (type(event), type(event).root, event.key, event.subject)
    assert {event.to_xml(), event.to_json(), event.to_soap()} >= {encode(event, form)[1]}


def without_ids(subject: object) -> object:
    """Return a subject without the id and the time of its configuration."""
    if isinstance(subject, Broadcast):
        return evolve(subject, config=evolve(subject.config, id=None, created=None))
    return subject


@pytest.mark.parametrize("event", V2_ONLY, ids=lambda event: event.name)
@pytest.mark.parametrize("form", ["XML", "JSON", "SOAP"])
def test_api_1_1_does_not_have_every_event(event, form):
    """Contact lists, delivery reports and the account are new in API v2."""
    assert parse(encode(event, api="v2")[1]) == event
    assert parse(encode(event, api="v2")[1]).key == event.key
    with pytest.raises(ValueError, match=r"event must be one that API 1\.1 has, not "):
        encode(event, form)


@pytest.mark.parametrize(
    "event",
    [
        Notification(),
        TextNotification(text=Text(1)),
        CampaignNotification(broadcast=Broadcast(1, type=BroadcastType.TEXT)),
        UnknownNotification(name="FaxFinished"),
    ],
    ids=lambda event: type(event).__name__,
)
def test_api_v2_does_not_have_every_event(event):
    """It has no texts and campaigns in other states, and no roots."""
    with pytest.raises(ValueError, match="event must be one that API v2 has, not "):
        encode(event, api="v2")


@pytest.mark.parametrize(
    ("event", "name"),
    [
        (CallFinished(call=Call(1, inbound=True)), "InboundCall.Finished"),
        (CallFinished(call=Call(1, inbound=False)), "OutboundCall.Finished"),
        (CallFinished(call=Call(1)), "OutboundCall.Finished"),
        (TextReceived(text=Text(1)), "InboundText.Finished"),
        (TextSent(text=Text(1, inbound=True)), "OutboundText.Finished"),
        (TextFinished(text=Text(1)), "OutboundText.Finished"),
        (TextFinished(text=Text(1, inbound=True)), "InboundText.Finished"),
        (CampaignStarted(broadcast=Broadcast(1, type=BroadcastType.VOICE)), "CallBroadcast.Started"),
        (CampaignStarted(broadcast=Broadcast(1, type=BroadcastType.IVR)), "CallBroadcast.Started"),
        (CampaignFinished(broadcast=Broadcast(1, type=BroadcastType.TEXT)), "TextBroadcast.Finished"),
        (CampaignFinished(broadcast=Broadcast(1, type=BroadcastType.CCC)), "CccCampaign.Finished"),
        (
            CampaignStarted(name="CallBroadcast.Started", broadcast=Broadcast(1, config=IvrBroadcastConfig())),
            "CallBroadcast.Started",
        ),
    ],
)
def test_class_and_content_determine_the_resource(event, name):
    """An event of API v2 keeps its own."""
    assert parse(encode(event, api="v2")[1]).name == name


def test_a_campaign_needs_a_type():
    """It is the resource in API v2."""
    with pytest.raises(ValueError, match=r"^event.broadcast.type must be VOICE, IVR, TEXT or CCC"):
        encode(CampaignStarted(broadcast=Broadcast(1)), api="v2")


@pytest.mark.parametrize(
    "event",
    [
        UnknownNotification(name="Fax.Finished", payload={"a": [1, {"b": None}]}),
        UnknownNotification(name="Fax.Sent.Finished", payload={"#text": "12.50"}),
        UnknownNotification(name="Unknown.Finished", payload={}),
    ],
    ids=lambda event: event.name,
)
def test_an_unknown_event_of_v2_is_encoded_as_its_payload(event):
    """It has no subject."""
    assert parse(encode(event, api="v2")[1]) == event


def test_times_and_amounts():
    """A time is rounded down to milliseconds, and one without an offset is in UTC; an amount is a number."""
    text = Text(
        id=1,
        created=MOMENT + timedelta(microseconds=999),
        modified=MOMENT.replace(tzinfo=None),
        records=(TextRecord(billed_amount=Decimal("1.25")),),
    )

    read = parse(encode(TextReceived(text=text), api="v2")[1]).text

    assert (read.created, read.modified, read.records[0].billed_amount) == (MOMENT, MOMENT, Decimal("1.25"))


@pytest.mark.parametrize(
    "hours",
    [
        LocalTimeZoneRestriction(time(9, 30)),
        LocalTimeZoneRestriction(None, time(20)),
        LocalTimeZoneRestriction(time(9), time(20)),
    ],
)
def test_the_hours_of_a_campaign(hours):
    """Only what is there is written."""
    config = TextBroadcastConfig(message="Hello", local_time_zone_restriction=hours)
    event = CampaignStarted(broadcast=Broadcast(1, type=BroadcastType.TEXT, config=config))

    assert parse(encode(event, api="v2")[1]).broadcast == event.broadcast


def test_the_seconds_of_hours_are_cut_off():
    """API v2 has hours and minutes."""
    config = TextBroadcastConfig(message="Hello", local_time_zone_restriction=LocalTimeZoneRestriction(time(9, 30, 59)))
    event = CampaignStarted(broadcast=Broadcast(1, type=BroadcastType.TEXT, config=config))

    read = parse(encode(event, api="v2")[1]).broadcast.config.local_time_zone_restriction
    assert read == LocalTimeZoneRestriction(time(9, 30))


@pytest.mark.parametrize("message", ["\0", "\ud83d", "a\r\nb \U0001f600", "\x0b"])
def test_any_message_can_be_encoded(message):
    """As in JSON of API 1.1."""
    read = parse(encode(TextReceived(text=Text(1, message=f"<{message}>")), api="v2")[1])

    assert (read.text.message, read.problems) == (f"<{message}>".replace("\r\n", "\n"), ())


def test_several_events_in_an_envelope():
    """The webhook and the time are those of the first event; each event has its own."""
    first = evolve(parse(encode(SENT, api="v2")[1]), webhook_id=1, webhook_name="texts", occurred_at=MOMENT)
    second = evolve(first, webhook_id=2, occurred_at=MOMENT + timedelta(seconds=1))

    content_type, body = encode_envelope([first, second, CONTACT_LIST])

    envelope = json.loads(body)
    assert (content_type, envelope["webhookId"], envelope["webhookName"]) == ("application/json", 1, "texts")
    assert envelope["timestamp"] == 1527695024123
    read = parse_all(body)
    assert read == (first, second, CONTACT_LIST)
    assert [event.webhook_id for event in read] == [1, 2, 1]
    assert [event.occurred_at for event in read] == [MOMENT, second.occurred_at, MOMENT]


def test_an_envelope_needs_an_event():
    """CallFire sends none without."""
    with pytest.raises(ValueError, match=r"^events must have at least one event"):
        encode_envelope([])


@pytest.mark.parametrize(("format", "api"), [("XML", "v2"), ("SOAP", "v2"), ("JSON", "2"), ("JSON", "")])
def test_other_formats_and_generations_are_rejected(format, api):
    """API v2 has JSON only."""
    with pytest.raises(ValueError, match="must be"):
        encode(SENT, format, api=api)


def test_media_are_not_in_api_1_1():
    """They are left out."""
    media = parse(
        b'{"events":[{"resourceType":"InboundText","eventType":"Finished","resource":{"id":1,"media":[{"id":2}]}}]}'
    )

    assert parse(encode(media, api="v2")[1]).text.media == media.text.media != ()
    assert b"Media" not in media.to_xml() + media.to_json()
