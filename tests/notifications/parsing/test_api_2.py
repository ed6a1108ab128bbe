"""Tests of `parse` and the functions beside it for API v2: envelopes, classes of events, fields and problems."""

import json
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal

import pytest
from notifications.parsing.envelopes import EXAMPLE, MINIMAL, REAL_TEXT, body_of, element, envelope

from callfire_async.errors import InvalidNotificationError, MalformedNotificationError
from callfire_async.models import (
    WEBHOOK_EVENTS,
    BroadcastType,
    Call,
    CallRecord,
    CccBroadcastConfig,
    ContactList,
    DeliveryReport,
    IvrBroadcastConfig,
    LocalTimeZoneRestriction,
    Media,
    Note,
    QuestionResponse,
    RecordingMeta,
    RetryConfig,
    Text,
    TextBroadcastConfig,
    TextRecord,
    VoiceBroadcastConfig,
)
from callfire_async.notifications import parse, parse_all
from callfire_async.notifications.events import (
    AccountNotification,
    CallFinished,
    CampaignFinished,
    CampaignStarted,
    CampaignStopped,
    ContactListValidationFailed,
    ContactListValidationFinished,
    DeliveryReportReceived,
    TextFinished,
    TextReceived,
    TextSent,
    UnknownNotification,
)
from callfire_async.notifications.parsing import parse_each, parse_or_split
from callfire_async.testing import samples

MOMENT = datetime(2018, 5, 30, 15, 43, 44, 123000, tzinfo=UTC)
MILLISECONDS = 1527695024123


# --- the envelope -----------------------------------------------------------------------------------------


def test_the_published_example():
    """Each field of the envelope, of the text and of its record is read; null, missing and [] are the same."""
    second = datetime(2018, 5, 30, 15, 43, 44, tzinfo=UTC)
    record = TextRecord(id=3001, result="RECEIVED", finish_time=second, billed_amount=Decimal(1), message="hello")

    event = parse(EXAMPLE, "application/json")

    assert type(event) is TextReceived
    assert (event.name, event.problems, event.subscription_id) == ("InboundText.Finished", (), None)
    assert (event.webhook_id, event.webhook_name) == (7420003, "finished texts")
    assert event.occurred_at == second + timedelta(seconds=1)
    assert event.text == Text(
        id=1205500003,
        from_number="12135550100",
        to_number="67076",
        state="FINISHED",
        broadcast_id=10001,
        contact_id=2001,
        inbound=True,
        created=second,
        modified=second,
        message="hello",
        records=(record,),
    )
    assert event.key == ("text", 1205500003, "RECEIVED")
    assert event.payload == json.loads(EXAMPLE)["events"][0]["resource"]


def test_a_real_text():
    """Absent values are explicit nulls, and the record has the result."""
    event = parse(body_of("InboundText", "Finished", REAL_TEXT))

    assert type(event) is TextReceived
    assert event.problems == ()
    assert event.text == Text(
        id=1205500004,
        from_number="12135550100",
        to_number="67076",
        state="FINISHED",
        broadcast_id=10001,
        contact_id=2001,
        inbound=True,
        created=MOMENT,
        modified=MOMENT,
        message="KEYWORD yes",
        records=(
            TextRecord(id=3001, result="RECEIVED", finish_time=MOMENT, billed_amount=Decimal(1), message="KEYWORD yes"),
        ),
    )
    assert event.payload == REAL_TEXT


def test_an_event_overrides_its_envelope():
    """Its own time, webhook and resource type take precedence, unless they are null or missing."""
    own = {"timestamp": MILLISECONDS, "webhookId": 1, "webhookName": "own", "resourceType": "InboundText"}
    shared = {"timestamp": 1, "webhookId": 2, "webhookName": "shared", "resourceType": "OutboundCall"}
    without = dict.fromkeys(["timestamp", "webhookId", "resourceType"])

    first, second, third = parse_all(
        envelope(
            {"eventType": "Finished", "resource": MINIMAL, **own},
            {"eventType": "Finished", "resource": MINIMAL, **without},
            {"eventType": "Finished", "resource": MINIMAL},
            **shared,
        )
    )

    assert (type(first), first.webhook_id, first.webhook_name, first.occurred_at) == (TextReceived, 1, "own", MOMENT)
    assert (type(second), second.webhook_id, second.webhook_name) == (CallFinished, 2, "shared")
    assert second.occurred_at == datetime(1970, 1, 1, 0, 0, 0, 1000, tzinfo=UTC)
    assert (third, third.webhook_id, third.occurred_at) == (second, 2, second.occurred_at)


def test_an_envelope_may_have_events_only():
    """A webhook's fields can limit what CallFire sends; unknown keys are ignored."""
    event = parse(envelope(element("InboundCall", "Finished", MINIMAL), somethingNew={"a": 1}))

    assert (type(event), event.webhook_id, event.webhook_name, event.occurred_at) == (CallFinished, None, None, None)


@pytest.mark.parametrize("read", [parse, parse_all, parse_or_split])
@pytest.mark.parametrize(
    "body",
    [
        b'{"events": []}',
        b'{"events": null}',
        b'{"events": {}}',
        b'{"events": {"resourceType": "InboundText", "eventType": "Finished", "resource": {"id": 1}}}',
        b'{"events": "InboundText"}',
        b'{"events": 1, "webhookId": 1}',
        b'{"webhookId": 1, "resourceType": "InboundText"}',
        b'[{"events": []}]',
        b'{"events": [1]}',
        b'{"events": [null]}',
        b'{"events": [{}]}',
        b'{"events": [[]]}',
    ],
)
def test_an_envelope_without_readable_events_is_an_error(read, body):
    """The events are an array of objects; nothing of the body is quoted."""
    with pytest.raises(InvalidNotificationError, match=r"^not a notification"):
        read(body)


@pytest.mark.parametrize("read", [parse, parse_all, parse_or_split])
@pytest.mark.parametrize(
    "body", [b'{"events": [', b'{"events": [{"a": 1e999}]}', b'{"events": ' + b"[" * 99 + b"]" * 99 + b"}"]
)
def test_a_malformed_envelope_is_an_error(read, body):
    """The limits of other documents apply."""
    with pytest.raises(MalformedNotificationError):
        read(body)


@pytest.mark.parametrize("read", [parse_all, parse_or_split])
def test_a_thousand_events_are_read(read):
    """Real events fit into the limits for hostile input."""
    full = {**REAL_TEXT, "labels": ["a", "b"], "media": [{"id": 1}, {"id": 2}], "attributes": {"a": "b"}}
    assert len(read(envelope(*[element("InboundText", "Finished", full)] * 1_000))) == 1_000


@pytest.mark.parametrize("read", [parse, parse_all, parse_or_split])
@pytest.mark.parametrize("event", [{}, None, element("InboundText", "Finished", REAL_TEXT)])
@pytest.mark.parametrize("number", [1_001, 100_000])
def test_more_events_are_an_error_before_they_are_converted(read, event, number):
    """None of them has to be readable."""
    body = b'{"events":[' + b",".join([json.dumps(event).encode()] * number) + b"]}"

    with pytest.raises(InvalidNotificationError, match=r"the envelope has (more than 1000|too many) events"):
        read(body)


def test_an_envelope_in_xml_is_unknown():
    """API v2 has JSON only; an XML document is one of API 1.1."""
    event = parse("<events><resourceType>InboundText</resourceType></events>")

    assert (type(event), event.name, event.webhook_id) == (UnknownNotification, "events", None)


# --- several events ---------------------------------------------------------------------------------------


def test_parse_all_returns_every_event_in_its_order():
    """An event of API 1.1 is the only one."""
    events = parse_all(envelope(*(element("OutboundText", "Finished", {"id": number}) for number in (3, 1, 2))))

    assert [event.text.id for event in events] == [3, 1, 2]
    assert parse_all(samples.body("CallFinished")) == (samples.EVENTS["CallFinished"],)
    assert parse_all(EXAMPLE) == (parse(EXAMPLE),)


def test_parse_refuses_several_events():
    """It returns one event."""
    with pytest.raises(InvalidNotificationError, match="the envelope has 2 events, which parse_all returns"):
        parse(envelope(*[element("InboundText", "Finished", MINIMAL)] * 2))


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        (5, "not an object @ events[1]"),
        ({}, "missing @ events[1].eventType"),
        (element("InboundText", "Finished", None), "missing @ events[1].resource"),
        (element("InboundText", "Finished", {}), "missing @ events[1].resource.id"),
        (element("InboundText", "Finished", {"id": "x"}), "not an integer @ events[1].resource.id"),
        (element("InboundText", "Finished", MINIMAL, webhookId="x"), "not an integer @ events[1].webhookId"),
        (element("InboundText", {"a": 1}, MINIMAL), "not a string @ events[1].eventType"),
    ],
)
def test_parse_all_names_the_unreadable_event(broken, problem):
    """One of them makes the whole body an error."""
    with pytest.raises(InvalidNotificationError) as caught:
        parse_all(envelope(element("InboundText", "Finished", MINIMAL), broken))

    assert caught.value.problems == (problem,)


NUMBERS = (
    b'{"a": 123456789012345678901234567890, "b": 0.1, "c": 1.10, "d": 1e22, "e": -0.0, "f": [1.7976931348623157e308]}'
)


def test_an_envelope_is_split_without_a_loss():
    """Each part has the envelope's fields and one event, and is parsed to the event at that index."""
    resources = [
        b'{"id": 1, "message": "\\ud83d \\u0000 \xf0\x9f\x98\x80 \\ud83d\\ude00", "message2": ' + NUMBERS + b"}",
        b'{"id": 9007199254740993, "id": 9007199254740995, "message": ""}',
        b'{"id": 3, "message": "a\nb"}',
    ]
    events = b", ".join(b'{"eventType": "Finished", "resource": %s}' % resource for resource in resources)
    body = (
        b'{"timestamp": 1, "other": [null, 1.5], "resourceType": "InboundText", "events": [%s], "webhookId": 7}'
        % events
    )

    parts = parse_or_split(body)

    assert [parse(part) for part in parts] == [*parse_all(body)]
    assert [parse(part).payload for part in parts] == [event.payload for event in parse_all(body)]
    assert [(parse(part).webhook_id, parse(part).occurred_at) for part in parts] == [
        (7, parse_all(body)[0].occurred_at)
    ] * 3
    assert {json.loads(part)["other"] == [None, 1.5] for part in parts} == {True}
    assert parse(parts[1]).text.id == 9007199254740995
    assert b"123456789012345678901234567890" in parts[0]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_a_split_envelope_is_in_utf_8(encoding):
    """The content type of the body can be kept for its parts."""
    body = envelope(*[element("InboundText", "Finished", {"id": 1, "message": "Zoë"})] * 2)

    parts = parse_or_split(body.decode().encode(encoding), "application/json; charset=windows-1252")

    assert [parse(part, "application/json; charset=windows-1252").text.message for part in parts] == ["Zoë", "Zoë"]


def test_an_unreadable_event_is_an_error_of_its_part_only():
    """The split does not convert the events."""
    first, second, third = parse_or_split(envelope(5, element("InboundText", "Finished", MINIMAL), {}))

    assert parse(second).text.id == 1
    for part in (first, third):
        with pytest.raises(InvalidNotificationError):
            parse(part)


def test_a_large_envelope_is_not_split():
    """Its other members would be repeated for each of its events."""
    body = envelope(*[element("InboundText", "Finished", MINIMAL)] * 2, other="x" * 100_000)

    assert len(parse_all(body)) == 2
    with pytest.raises(InvalidNotificationError, match="in addition to its events"):
        parse_or_split(body)


@pytest.mark.parametrize("body", [EXAMPLE, samples.body("CallFinished"), samples.body("TextSent", "JSON")])
def test_one_event_is_not_split(body):
    """It is parsed."""
    assert parse_or_split(body) == parse(body)


@pytest.mark.parametrize(
    "body", [EXAMPLE, samples.body("CallFinished"), envelope(*[element("LowBalance", "Failed", None)] * 2)]
)
def test_each_event_is_what_parse_all_returns(body):
    """For one event, and for several."""
    assert parse_each(body) == parse_all(body)


def test_each_unreadable_event_is_an_error_in_its_place():
    """The others are read, also if the envelope cannot be split."""
    text = element("InboundText", "Finished", MINIMAL)
    first, second, third = parse_each(envelope(5, text, {}, other="x" * 5_000))

    assert second == parse(envelope(text))
    assert [str(error).startswith("not a notification: ") for error in (first, third)] == [True, True]
    assert [error.problems for error in (first, third)] == [
        ("not an object @ events[0]",),
        ("missing @ events[2].eventType",),
    ]


@pytest.mark.parametrize("body", [b'{"events": []}', b'{"a": 1, "b": 2}', b"<CallFinished/>"])
def test_a_body_without_events_is_an_error_for_each_event(body):
    """As for `parse`."""
    with pytest.raises(InvalidNotificationError, match=r"^not a notification"):
        parse_each(body)


# --- classes ----------------------------------------------------------------------------------------------

CAMPAIGNS = {"Started": CampaignStarted, "Stopped": CampaignStopped, "Finished": CampaignFinished}
CLASSES = {
    ("InboundText", "Finished"): TextReceived,
    ("OutboundText", "Finished"): TextFinished,
    ("InboundCall", "Finished"): CallFinished,
    ("OutboundCall", "Finished"): CallFinished,
    **{
        (resource, event): kind
        for resource in ("CallBroadcast", "TextBroadcast", "CccCampaign")
        for event, kind in CAMPAIGNS.items()
    },
    ("ContactList", "ValidationFinished"): ContactListValidationFinished,
    ("ContactList", "ValidationFailed"): ContactListValidationFailed,
    ("OutboundTextDeliveryReport", "Received"): DeliveryReportReceived,
    **{
        (resource, event): AccountNotification
        for resource in ("MonthlyRenewal", "LowBalance")
        for event in ("Finished", "Failed")
    },
}


def test_every_documented_event_has_a_class():
    """The table of resources and events is complete."""
    assert set(CLASSES) == {(resource, event) for resource, events in WEBHOOK_EVENTS.items() for event in events}


@pytest.mark.parametrize("change", [str, str.lower, str.upper])
@pytest.mark.parametrize(("names", "kind"), CLASSES.items(), ids=map(".".join, CLASSES))
def test_the_resource_and_the_event_determine_the_class(names, kind, change):
    """They are compared without regard to case; the event's name is in CallFire's spelling."""
    event = parse(body_of(*map(change, names)))

    assert (type(event), event.name, event.payload, event.problems) == (kind, ".".join(names), MINIMAL, ())


@pytest.mark.parametrize("resource_type", ["InboundText", "OutboundText", "InboundCall", "OutboundCall"])
@pytest.mark.parametrize("content", [{"inbound": True}, {"inbound": False}, {"state": "READY"}, {"status": "STOPPED"}])
def test_the_content_does_not_determine_the_class(resource_type, content):
    """Neither the direction nor the state or status."""
    event = parse(body_of(resource_type, "Finished", MINIMAL | content))

    assert type(event) is CLASSES[resource_type, "Finished"]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ({"finalTextResult": "SENT"}, TextSent),
        ({"finalTextResult": "RECEIVED"}, TextFinished),
        ({"finalTextResult": "CARRIER_ERROR", "records": [{"textResult": "SENT"}]}, TextFinished),
        ({"finalTextResult": None, "records": [{"textResult": "CARRIER_ERROR"}, {"textResult": "SENT"}]}, TextSent),
        ({"records": [{"textResult": "SENT"}, {"textResult": "CARRIER_ERROR"}]}, TextFinished),
        ({"records": [{"result": "SENT"}]}, TextFinished),
        ({"records": []}, TextFinished),
        ({}, TextFinished),
    ],
)
def test_the_result_determines_the_class_of_an_outbound_text(content, kind):
    """It is the final result, or else that of the last record."""
    assert type(parse(body_of("OutboundText", "Finished", MINIMAL | content))) is kind


@pytest.mark.parametrize("resource", [{"balance": 1.5}, {}])
def test_an_event_of_the_account(resource):
    """Its content is not documented."""
    event = parse(body_of("lowbalance", "FAILED", resource, timestamp=MILLISECONDS))

    assert (event.resource_type, event.event_type, event.payload) == ("LowBalance", "Failed", resource)
    assert event.key == ("account", "LowBalance", "Failed", MOMENT.timestamp())


@pytest.mark.parametrize(
    ("resource_type", "event_type", "name"),
    [
        ("InboundText", "Deleted", "InboundText.Deleted"),
        ("inboundtext", "failed", "InboundText.Failed"),
        ("Fax", "finished", "Fax.Finished"),
        ("Fax", "Sent", "Fax.Sent"),
        ("Fax", None, "Fax.Unknown"),
        (None, "Finished", "Unknown.Finished"),
        ("", "", "Unknown.Unknown"),
    ],
)
def test_any_other_event_is_unknown(resource_type, event_type, name):
    """Its payload and name take part in equality and in its key."""
    event, other = (parse(body_of(resource_type, event_type, {"a": value})) for value in (1, 2))

    assert (type(event), event.name, event.payload) == (UnknownNotification, name, {"a": 1})
    assert event == parse(body_of(resource_type, event_type, {"a": 1}))
    assert event != other
    assert event.key != other.key
    assert event.key != parse(body_of("Other", event_type, {"a": 1})).key


@pytest.mark.parametrize("resource_type", ["MonthlyRenewal", "Fax"])
@pytest.mark.parametrize(("resource", "payload"), [(None, {}), ("12.50", {"#text": "12.50"}), ([1], {"#text": [1]})])
def test_an_undocumented_resource_may_be_any_value(resource_type, resource, payload):
    """Nothing is lost."""
    assert parse(body_of(resource_type, "Finished", resource)).payload == payload


# --- fields -----------------------------------------------------------------------------------------------


def test_the_fields_of_a_text():
    """They have the names of API 1.1."""
    resource = {
        "id": 2**62,
        "fromNumber": 67076,
        "toNumber": "+12135550142",
        "attributes": {"Region": "west", "ClientData": "order 1138", "Empty": None},
        "state": "FINISHED",
        "campaignId": "7",
        "batchId": 8,
        "contact": {"id": 9},
        "inbound": False,
        "created": MILLISECONDS,
        "modified": str(MILLISECONDS),
        "labels": ["spring", "customers", None, ""],
        "message": " hello\r\nyou ",
        "finalTextResult": "SENT",
        "media": [
            {
                "id": 1,
                "accountId": 2,
                "name": "cat",
                "created": MILLISECONDS,
                "lengthInBytes": 3,
                "mediaType": "JPEG",
                "publicUrl": "https://www.callfire.com/media/1.jpg",
            },
            {},
        ],
    }

    event = parse(body_of("OutboundText", "Finished", resource))

    assert event.problems == ()
    assert event.text == Text(
        id=2**62,
        from_number="67076",
        to_number="+12135550142",
        to_number_attributes=(("ClientData", "order 1138"), ("Empty", ""), ("Region", "west")),
        state="FINISHED",
        broadcast_id=7,
        batch_id=8,
        contact_id=9,
        inbound=False,
        created=MOMENT,
        modified=MOMENT,
        labels=("spring", "customers"),
        message="hello\nyou",
        final_result="SENT",
        media=(
            Media(
                id=1,
                account_id=2,
                name="cat",
                created=MOMENT,
                length_in_bytes=3,
                media_type="JPEG",
                public_url="https://www.callfire.com/media/1.jpg",
            ),
            Media(),
        ),
    )


def test_the_fields_of_a_call():
    """Its records have recordings and answers."""
    record = {
        "id": 1,
        "result": "LA",
        "billedAmount": 1.25,
        "finishTime": MILLISECONDS,
        "switchId": "sw-17",
        "callerName": "A. Caller",
        "originateTime": MILLISECONDS,
        "answerTime": MILLISECONDS,
        "duration": 33,
        "questionResponses": [{"question": "Content?", "response": "yes"}],
        "recordings": [
            {
                "id": 2,
                "callId": 3,
                "campaignId": 4,
                "name": "answer",
                "created": MILLISECONDS,
                "lengthInBytes": 5,
                "lengthInSeconds": 12,
                "hash": "a1b2",
                "mp3Url": "https://www.callfire.com/recording/a1b2.mp3",
                "state": "READY",
            }
        ],
    }

    event = parse(
        body_of("OutboundCall", "Finished", {"id": 1, "finalCallResult": "AM", "agentCall": True, "records": [record]})
    )

    assert event.problems == ()
    assert event.call == Call(
        id=1,
        final_result="AM",
        agent_call=True,
        records=(
            CallRecord(
                id=1,
                result="LA",
                finish_time=MOMENT,
                billed_amount=Decimal("1.25"),
                question_responses=(QuestionResponse("Content?", "yes"),),
                switch_id="sw-17",
                caller_name="A. Caller",
                originate_time=MOMENT,
                answer_time=MOMENT,
                duration=timedelta(seconds=33),
                recordings=(
                    RecordingMeta(
                        id=2,
                        name="answer",
                        created=MOMENT,
                        length=timedelta(seconds=12),
                        link="https://www.callfire.com/recording/a1b2.mp3",
                    ),
                ),
            ),
        ),
    )


CAMPAIGN = {
    "id": 1,
    "name": "Spring",
    "status": "RUNNING",
    "lastModified": MILLISECONDS,
    "labels": ["spring"],
    "fromNumber": "67076",
    "localTimeRestriction": {"enabled": True, "beginHour": 9, "beginMinute": 0, "endHour": 20, "endMinute": 30},
    "retryConfig": {
        "maxAttempts": 3,
        "minutesBetweenAttempts": 5,
        "retryResults": ["BUSY", "NO_ANS"],
        "retryPhoneTypes": ["FIRST_NUMBER"],
    },
    "schedules": [{"id": 1}],
    "recipients": [],
    "message": "Hello",
    "bigMessageStrategy": "TRIM",
    "answeringMachineConfig": "AM_AND_LIVE",
    "maxActiveTransfers": 10,
    "sounds": {"liveSoundText": "Hi", "machineSoundId": 8, "transferDigit": "1", "dncDigit": "9"},
}
SHARED_CONFIG = {
    "from_number": "67076",
    "local_time_zone_restriction": LocalTimeZoneRestriction(time(9), time(20, 30)),
    "retry_config": RetryConfig(3, 5, ("BUSY", "NO_ANS"), ("FIRST_NUMBER",)),
}
VOICE_CONFIG = VoiceBroadcastConfig(
    **SHARED_CONFIG,
    answering_machine_config="AM_AND_LIVE",
    max_active_transfers=10,
    live_sound_text="Hi",
    machine_sound_id=8,
    transfer_digit="1",
    dnc_digit="9",
)


@pytest.mark.parametrize(
    ("resource_type", "content", "kind", "config"),
    [
        (
            "TextBroadcast",
            {"dialplanXml": "<dialplan/>"},
            BroadcastType.TEXT,
            TextBroadcastConfig(**SHARED_CONFIG, message="Hello", big_message_strategy="TRIM"),
        ),
        ("CallBroadcast", {"dialplanXml": None}, BroadcastType.VOICE, VOICE_CONFIG),
        (
            "CallBroadcast",
            {"dialplanXml": "<dialplan/>"},
            BroadcastType.IVR,
            IvrBroadcastConfig(**SHARED_CONFIG, dialplan_xml="<dialplan/>"),
        ),
    ],
)
def test_the_fields_of_a_campaign(resource_type, content, kind, config):
    """The resource determines the type, and which of the flat fields are in the configuration."""
    event = parse(body_of(resource_type, "Started", CAMPAIGN | content))

    broadcast = event.broadcast
    assert event.problems == ()
    assert (broadcast.id, broadcast.name, broadcast.status, broadcast.labels) == (1, "Spring", "RUNNING", ("spring",))
    assert (broadcast.type, broadcast.config) == (kind, config)
    assert (broadcast.last_modified, event.key) == (MOMENT, ("broadcast", 1, "started", float(MILLISECONDS // 1000)))


@pytest.mark.parametrize("resource_type", ["TextBroadcast", "CallBroadcast"])
def test_a_campaign_without_a_configuration(resource_type):
    """The id is that of the broadcast."""
    assert parse(body_of(resource_type, "Started")).broadcast.config is None


@pytest.mark.parametrize(
    ("restriction", "read"),
    [
        ({"enabled": False, "beginHour": 9, "endHour": 20}, None),
        ({"enabled": None, "beginHour": 9}, LocalTimeZoneRestriction(time(9))),
        ({"endHour": "20", "endMinute": 5}, LocalTimeZoneRestriction(None, time(20, 5))),
        ({"enabled": True}, None),
        ({}, None),
        (None, None),
    ],
)
def test_the_hours_of_a_campaign(restriction, read):
    """A restriction that is not enabled is left out."""
    event = parse(body_of("TextBroadcast", "Started", {"id": 1, "message": "a", "localTimeRestriction": restriction}))

    assert (event.broadcast.config.local_time_zone_restriction, event.problems) == (read, ())


def test_the_fields_of_a_call_center_campaign():
    """By analogy: CallFire has published no sample."""
    content = {"agentGroupId": 1, "transferNumberIdList": [2, "3"], "recorded": True, "resumeNextDay": True}

    broadcast = parse(body_of("CccCampaign", "Started", {"id": 1, **content})).broadcast

    config = CccBroadcastConfig(agent_group_id=1, transfer_number_id_list=(2, 3), recorded=True)
    assert (broadcast.type, broadcast.config, broadcast.resume_next_day) == (BroadcastType.CCC, config, True)


def test_the_notes_and_voices():
    """They have the names of API 1.1 in another spelling."""
    note = {"text": "Call back", "created": MILLISECONDS}

    call = parse(body_of("InboundCall", "Finished", {"id": 1, "notes": [note], "records": [{"notes": [note]}]})).call
    config = parse(
        body_of("CallBroadcast", "Started", {"id": 1, "sounds": {"liveSoundTextVoice": "MALE1"}})
    ).broadcast.config

    assert call.notes == call.records[0].notes == (Note("Call back", MOMENT),)
    assert config == VoiceBroadcastConfig(live_sound_text_voice="MALE1")


def test_the_fields_of_a_contact_list():
    """All five."""
    resource = {"id": 1, "name": "Customers", "size": 2, "created": MILLISECONDS, "status": "ACTIVE"}

    event = parse(body_of("ContactList", "ValidationFinished", resource, timestamp=MILLISECONDS))

    assert event.contact_list == ContactList(1, "Customers", 2, MOMENT, "ACTIVE")
    assert event.key == ("contact_list", 1, "validation finished", MOMENT.timestamp())


def test_the_fields_of_a_delivery_report():
    """The text's id is the action's."""
    resource = {
        "id": 7420017300281076000,
        "actionId": 2,
        "campaignId": 3,
        "accountId": 4,
        "toNumber": "12135550142",
        "fromNumber": "67076",
        "timestamp": MILLISECONDS,
        "deliveryState": "CARRIER_REJECTED",
        "deliveryCategory": "BOUNCED",
    }

    event = parse(body_of("OutboundTextDeliveryReport", "Received", resource))

    assert event.report == DeliveryReport(
        id=7420017300281076000,
        text_id=2,
        broadcast_id=3,
        account_id=4,
        from_number="67076",
        to_number="12135550142",
        reported_at=MOMENT,
        delivery_state="CARRIER_REJECTED",
        delivery_category="BOUNCED",
    )
    assert event.key == ("delivery_report", 7420017300281076000, "CARRIER_REJECTED")


# --- problems ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("resource", "problem"),
    [
        ({"created": "2018-05-30T15:43:44Z"}, "not a time @ resource.created"),
        ({"created": 1e300}, "not a time @ resource.created"),
        ({"created": 10**19}, "not a time @ resource.created"),
        ({"created": 10**4000}, "not a time @ resource.created"),
        ({"created": "9" * 30}, "not a time @ resource.created"),
        ({"created": -(10**17)}, "not a time @ resource.created"),
        ({"created": 1.5}, "not a time @ resource.created"),
        ({"created": True}, "not a time @ resource.created"),
        ({"inbound": "maybe"}, "not a boolean @ resource.inbound"),
        ({"fromNumber": {"a": 1}}, "not a string @ resource.fromNumber"),
        ({"campaignId": 1.5}, "not an integer @ resource.campaignId"),
        ({"campaignId": 2**63}, "not an integer @ resource.campaignId"),
        ({"contact": {"id": "x"}}, "not an integer @ resource.contact.id"),
        ({"contact": 5}, "not an object @ resource.contact"),
        ({"attributes": [1]}, "not an object @ resource.attributes"),
        ({"attributes": {"a": {}, "b": [1]}}, "not a string @ resource.attributes"),
        ({"records": [5]}, "not an object @ resource.records[0]"),
        ({"records": [{}, {"finishTime": "x"}]}, "not a time @ resource.records[1].finishTime"),
        ({"records": [{"billedAmount": "NaN"}]}, "not a decimal @ resource.records[0].billedAmount"),
        ({"media": [{"lengthInBytes": "x"}]}, "not an integer @ resource.media[0].lengthInBytes"),
    ],
)
def test_an_unreadable_field_is_a_problem(resource, problem):
    """It is left out and listed with its path, without its value; all other fields are kept."""
    event = parse(body_of("InboundText", "Finished", {"id": 1, "message": "hello", **resource}))

    assert (event.problems, event.text.id, event.text.message) == ((problem,), 1, "hello")


@pytest.mark.parametrize(
    ("resource", "problem"),
    [
        ({"localTimeRestriction": {"beginHour": 24}}, "not a time of day @ resource.localTimeRestriction"),
        ({"localTimeRestriction": {"beginHour": 10**18}}, "not a time of day @ resource.localTimeRestriction"),
        ({"localTimeRestriction": {"beginHour": "x"}}, "not an integer @ resource.localTimeRestriction"),
        ({"localTimeRestriction": 9}, "not an object @ resource.localTimeRestriction"),
        ({"retryConfig": {"maxAttempts": "x"}}, "not an integer @ resource.retryConfig.maxAttempts"),
        ({"sounds": {"liveSoundId": "x"}}, "not an integer @ resource.sounds.liveSoundId"),
        ({"sounds": "x"}, "not an object @ resource.sounds"),
        ({"lastModified": "x"}, "not a time @ resource.lastModified"),
    ],
)
def test_an_unreadable_field_of_a_campaign_is_a_problem(resource, problem):
    """The configuration has the names of the flat fields."""
    event = parse(body_of("CallBroadcast", "Started", {"id": 1, "maxActiveTransfers": 3, **resource}))

    assert (event.problems, event.broadcast.config) == ((problem,), VoiceBroadcastConfig(max_active_transfers=3))


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("timestamp", "yesterday", "not a time @ timestamp"),
        ("timestamp", 1e300, "not a time @ timestamp"),
        ("webhookName", {"a": {}}, "not a string @ webhookName"),
    ],
)
def test_an_unreadable_field_of_the_envelope_is_a_problem(field, value, problem):
    """The event can exist without it."""
    event = parse(body_of("InboundText", "Finished", {"id": 1, "inbound": "x"}, **{field: value}))

    assert event.problems == (problem, "not a boolean @ resource.inbound")
    assert (event.occurred_at, event.webhook_name) == (None, None)


@pytest.mark.parametrize("webhook_id", ["x", 1.5, [1], {"a": 1}, True, 2**63])
def test_an_unreadable_webhook_id_is_an_error(webhook_id):
    """A receiver of known webhooks must not accept it as an event without one."""
    with pytest.raises(InvalidNotificationError, match="not an integer @ webhookId"):
        parse(body_of("InboundText", "Finished", webhookId=webhook_id))


@pytest.mark.parametrize(
    ("resource", "problem"),
    [
        (None, "missing @ resource"),
        ({}, "missing @ resource.id"),
        ({"id": None}, "missing @ resource.id"),
        ({"id": "x"}, "not an integer @ resource.id"),
        ("x", "not an object @ resource"),
        ([], "not an object @ resource"),
    ],
)
@pytest.mark.parametrize("names", list(CLASSES)[:-4], ids=".".join)
def test_a_documented_resource_needs_its_id(names, resource, problem):
    """As in API 1.1."""
    with pytest.raises(InvalidNotificationError) as caught:
        parse(body_of(*names, resource))

    assert caught.value.problems == (problem,)


def test_characters_that_are_not_escaped_are_a_problem():
    """A raw control character is kept, as in API 1.1; a name that is not known ends the path."""
    first, second = parse_all(
        b'{"events":[{"resourceType":"InboundText","eventType":"Finished","resource":{"id":1,"message":"a\nb"}},'
        b'{"resourceType":"InboundText","eventType":"Finished","resource":{"id":1,"12135550142":{"message":"\n"}}}]}'
    )

    assert (first.text.message, first.problems) == ("a\nb", ("unescaped control characters @ resource.message",))
    assert second.problems == ("unescaped control characters @ resource",)
