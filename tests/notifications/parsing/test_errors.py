"""What cannot be read: a problem where the event stands without it, an error where it does not."""

import pytest
from notifications.parsing.documents import as_json, as_xml, at, content_of

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
def test_a_field_that_cannot_be_read_is_a_problem(write, root, path, value, problem):
    """It is left out and named, in the wire's words and without its value; all else is there."""
    content = content_of(root)
    place, name = at(content, path)
    place[name] = value

    event = parse(write(root, content))

    assert event.problems == (problem,)
    del place[name]
    assert event == parse(write(root, content))


def test_many_problems():
    """Every one is named."""
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
def test_without_its_identity_it_is_no_notification(write, root, content, problem):
    """The thing that it is about, the ids of both: what cannot be read there is an error that names it."""
    with pytest.raises(InvalidNotificationError) as caught:
        parse(write(root, content))

    assert caught.value.problems == (problem,)
    assert caught.value.status_hint == 422
    assert "12135551212" not in repr(caught.value)


@pytest.mark.parametrize(
    "body",
    ["[]", "1", '"TextSent"', "null", "{}", '{"a": {}, "b": {}}', '{"TextSent": []}', '{"TextSent": 1}', "[{}]"],
)
def test_json_that_is_not_one_named_object_is_no_notification(body):
    """Well-formed is not enough."""
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
def test_pages_and_empty_envelopes_are_no_notifications(body):
    """A page of HTML, or an envelope that does not hold one thing, is well-formed all the same."""
    with pytest.raises(InvalidNotificationError):
        parse(body)


@pytest.mark.parametrize("body", [b"", "", " ", "hello", "<", "{", "<a>", b"\xff", b"\x00", "<a></b>", '{"a": }'])
def test_what_is_neither_xml_nor_json_is_malformed(body):
    """It asks for status 400."""
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
def test_what_is_made_to_do_harm_is_malformed(body, reason):
    """It is refused for a reason that can be printed."""
    with pytest.raises(MalformedNotificationError, match=reason):
        parse(body)


def test_a_number_that_is_not_an_integer_is_read():
    """JSON's numbers with fractions are as good as the others."""
    assert parse('{"Ping":{"a":1.5,"b":[[{"c":2}]]}}').payload == {"a": 1.5, "b": [[{"c": 2}]]}


def test_a_deep_document_below_the_limit_is_read():
    """Many objects beside each other are not deep."""
    body = '{"Ping":{"a":[' + "{}," * 100 + '[{"b":{}}]]}}'

    assert len(parse(body).payload["a"]) == 101


def test_an_error_says_where_the_document_breaks():
    """Line and column, and no word of what stands there."""
    with pytest.raises(MalformedNotificationError, match="line 2, column") as caught:
        parse("<TextSent>\n<Text>12135551212</Txt>")

    assert "12135551212" not in str(caught.value)
