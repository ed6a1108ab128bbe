"""Tests of unreadable content: a problem of the event if the event can exist without it, or else an error."""

import pytest
from notifications.parsing.documents import as_json, as_xml, content_of, locate

from callfire_async.errors import InvalidNotificationError, MalformedNotificationError
from callfire_async.models import Result
from callfire_async.notifications.parsing import parse


@pytest.mark.parametrize("write", [as_xml, as_json])
@pytest.mark.parametrize(
    ("root", "path", "value", "problem"),
    [
        ("CallFinished", "Call.Created", "yesterday", "not a time @ Call.Created"),
        ("CallFinished", "Call.Inbound", "maybe", "not a boolean @ Call.Inbound"),
        ("CallFinished", "Call.ContactId", "1.9", "not an integer @ Call.ContactId"),
        ("CallFinished", "Call.ToNumber", {"Other": "x"}, "not a string @ Call.ToNumber"),
        ("CallFinished", "Call.FromNumber", ["1", "2"], "not a string @ Call.FromNumber"),
        ("CallFinished", "Call.CallRecord.0.Duration", "long", "not a duration @ Call.CallRecord[0].Duration"),
        ("CallFinished", "Call.CallRecord.0.BilledAmount", "1,5", "not a decimal @ Call.CallRecord[0].BilledAmount"),
        ("CallFinished", "Call.CallRecord.0.@id", "x", "not an integer @ Call.CallRecord[0].@id"),
        ("TextFinished", "Text.TextRecord.1", "x", "not an object @ Text.TextRecord[1]"),
        (
            "BroadcastStarted",
            "Broadcast.TextBroadcastConfig.Created",
            "x",
            "not a time @ Broadcast.TextBroadcastConfig.Created",
        ),
        (
            "BroadcastStarted",
            "Broadcast.TextBroadcastConfig.LocalTimeZoneRestriction.BeginTime",
            "noon",
            "not a time of day @ Broadcast.TextBroadcastConfig.LocalTimeZoneRestriction.BeginTime",
        ),
        (
            "BroadcastStarted",
            "Broadcast.TextBroadcastConfig.RetryConfig.MaxAttempts",
            "many",
            "not an integer @ Broadcast.TextBroadcastConfig.RetryConfig.MaxAttempts",
        ),
        (
            "CallFinished",
            "Call.CallRecord.0.RecordingMeta.0.LengthInSeconds",
            "x",
            "not a duration @ Call.CallRecord[0].RecordingMeta[0].LengthInSeconds",
        ),
    ],
)
def test_an_unreadable_field_is_a_problem(write, root, path, value, problem):
    """It is left out and listed with its path, without its value; all other fields are kept."""
    content = content_of(root)
    parent, name = locate(content, path)
    parent[name] = value

    event = parse(write(root, content))

    assert event.problems == (problem,)
    del parent[name]
    assert event == parse(write(root, content))


def test_every_problem_is_listed():
    """Readable fields are kept."""
    content = content_of("CallFinished")
    content["Call"] |= {"Created": "x", "Modified": "y", "CallRecord": [{"Duration": "z"}, {"Result": "LA"}]}

    event = parse(as_json("CallFinished", content))

    assert set(event.problems) == {
        "not a time @ Call.Created",
        "not a time @ Call.Modified",
        "not a duration @ Call.CallRecord[0].Duration",
    }
    assert event.call.records[1].result == Result.LA


@pytest.mark.parametrize("write", [as_xml, as_json])
@pytest.mark.parametrize(
    ("root", "content", "problem"),
    [
        ("TextSent", {}, "missing @ Text"),
        ("TextNotification", {"Call": {"@id": 1}}, "missing @ Text"),
        ("CallFinished", {"SubscriptionId": 7}, "missing @ Call"),
        ("CampaignStarted", {"SubscriptionId": 7}, "missing @ Broadcast"),
        ("TextSent", {"Text": "12135551212"}, "not an object @ Text"),
        ("TextSent", {"Text": [{"@id": 1}, {"@id": 2}]}, "not an object @ Text"),
        ("TextSent", {"Text": {"State": "READY"}}, "missing @ Text.@id"),
        ("TextSent", {"Text": {"@id": "", "State": "READY"}}, "missing @ Text.@id"),
        ("CallFinished", {"Call": {"@id": "12135551212x"}}, "not an integer @ Call.@id"),
        ("CallFinished", {"Call": {"@id": 2**63}}, "not an integer @ Call.@id"),
        ("CallFinished", {"SubscriptionId": "x", "Call": {"@id": 1}}, "not an integer @ SubscriptionId"),
        ("FaxFinished", {"subscriptionId": "x"}, "not an integer @ subscriptionId"),
    ],
)
def test_a_missing_subject_or_id_is_an_error(write, root, content, problem):
    """The error lists the problem and quotes no value."""
    with pytest.raises(InvalidNotificationError) as caught:
        parse(write(root, content))

    assert caught.value.problems == (problem,)
    assert caught.value.status_hint == 422
    assert "12135551212" not in repr(caught.value)


@pytest.mark.parametrize(
    "body",
    ["[]", "1", '"TextSent"', "null", "{}", '{"a": {}, "b": {}}', '{"TextSent": []}', '{"TextSent": 1}', "[{}]"],
)
def test_json_that_is_not_one_named_object_is_invalid(body):
    """Its status hint is 422."""
    with pytest.raises(InvalidNotificationError) as caught:
        parse(body)

    assert (caught.value.problems, caught.value.status_hint) == ((), 422)


@pytest.mark.parametrize(
    "body",
    [
        "<html/>",
        "<HTML><body/></HTML>",
        '<html xmlns="http://www.w3.org/1999/xhtml"><head/></html>',
        '<Envelope xmlns="http://schemas.xmlsoap.org/soap/envelope/"/>',
        '<Envelope xmlns="http://schemas.xmlsoap.org/soap/envelope/"><Body/></Envelope>',
        '<Envelope xmlns="http://schemas.xmlsoap.org/soap/envelope/"><Body>text</Body></Envelope>',
        '<Envelope xmlns="http://schemas.xmlsoap.org/soap/envelope/"><Body><a/><b/></Body></Envelope>',
        '<Envelope xmlns="http://schemas.xmlsoap.org/soap/envelope/"><Body><a/><a/></Body></Envelope>',
        "<Envelope>text</Envelope>",
    ],
)
def test_html_pages_and_empty_envelopes_are_invalid(body):
    """They are well-formed, but not notifications."""
    with pytest.raises(InvalidNotificationError):
        parse(body)


@pytest.mark.parametrize("body", [b"", "", " ", "hello", "<", "{", "<a>", b"\xff", b"\x00", "<a></b>", '{"a": }'])
def test_a_body_that_is_neither_xml_nor_json_is_malformed(body):
    """Its status hint is 400."""
    with pytest.raises(MalformedNotificationError) as caught:
        parse(body)

    assert caught.value.status_hint == 400


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"<!DOCTYPE a><a/>", "DOCTYPE"),
        ("<!DOCTYPE a><a/>", "DOCTYPE"),
        (b'<?xml version="1.0" encoding="rot13"?><a/>', "encoding"),
        (b"<a>" * 70 + b"</a>" * 70, "nested"),
        (b"<a>" + b"<b/>" * 10_000 + b"</a>", "too many"),
        (b"<a " + b"b=''" * 20_001 + b"/>", "too many"),
        ("<a>\ud800</a>", "surrogate"),
        (b'{"a":' * 70 + b"1" + b"}" * 70, "nested"),
        (b"[" * 100_000, "too many"),
        (b'{"a":{"b":' + b"1" * 4301 + b"}}", "out of range"),
        (b'{"a":[' + b"1," * 20_001 + b"1]}", "too many"),
        (b'{"a":{"b":NaN}}', "NaN and Infinity"),
        (b'{"a":{"b":-1e999}}', "out of range"),
        (b'{"a":{"b":"\xe9"}}', "UTF-8"),
    ],
)
def test_hostile_bodies_are_malformed(body, reason):
    """The reason quotes nothing of the body."""
    with pytest.raises(MalformedNotificationError, match=reason):
        parse(body)


def test_a_fraction_in_json_is_read():
    """Nested lists are read, too."""
    assert parse('{"Ping":{"a":1.5,"b":[[{"c":2}]]}}').payload == {"a": 1.5, "b": [[{"c": 2}]]}


def test_siblings_do_not_count_as_depth():
    """Only nesting is limited."""
    body = '{"Ping":{"a":[' + "{}," * 100 + '[{"b":{}}]]}}'

    assert len(parse(body).payload["a"]) == 101


def test_a_parse_error_has_its_position():
    """It has line and column, and quotes nothing."""
    with pytest.raises(MalformedNotificationError, match="line 2, column") as caught:
        parse("<TextSent>\n<Text>12135551212</Txt>")

    assert "12135551212" not in str(caught.value)


def test_an_envelope_without_the_key_events_is_named():
    """The ``fields`` of a webhook may leave the key out: the reason of the dead letter says what is missing."""
    with pytest.raises(InvalidNotificationError, match="or with the key events"):
        parse(b'{"webhookId": 7420003, "resourceType": "InboundText"}')
