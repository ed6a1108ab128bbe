"""Tests of `parse` for API 1.1: classes of events, payloads, formats and encodings."""

import json

import pytest
from notifications.parsing.documents import FORMATS, as_json, as_xml

from callfire_async.models import BroadcastStatus, Result
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
    UnknownNotification,
)
from callfire_async.notifications.parsing import parse
from callfire_async.testing import samples

each_format = pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)


# --- classes ----------------------------------------------------------------------------------------------

FINISHED = {"State": "FINISHED"}
SENT, RECEIVED, FAILED = ({"FinalResult": result} for result in ("SENT", "RECEIVED", "CARRIER_ERROR"))
INBOUND, OUTBOUND = {"Inbound": "true"}, {"Inbound": "false"}
RECORDS = {"TextRecord": [{"Result": "CARRIER_TEMP_ERROR"}, {"Result": "SENT"}]}
NOT_SENT = {"TextRecord": [{"Result": "SENT"}, {"Result": "CARRIER_ERROR"}]}


@pytest.mark.parametrize("root", ["TextNotification", "TextFinished"])
@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ({}, TextNotification),
        ({"State": "READY"}, TextNotification),
        (INBOUND, TextNotification),
        ({"State": "READY"} | RECORDS, TextNotification),
        (FINISHED, TextFinished),
        (FAILED, TextFinished),
        (FINISHED | SENT, TextSent),
        (SENT, TextSent),
        ({"State": "READY"} | SENT, TextSent),
        (SENT | OUTBOUND, TextSent),
        (FINISHED | RECORDS, TextSent),
        (FINISHED | NOT_SENT, TextFinished),
        (FAILED | RECORDS, TextFinished),
        (FINISHED | INBOUND, TextReceived),
        (RECEIVED | INBOUND, TextReceived),
        (SENT | INBOUND, TextReceived),
        (RECEIVED | OUTBOUND, TextFinished),
        ({"FinalResult": "NEW_ONE"}, TextFinished),
        ({"State": "NEW_ONE"}, TextNotification),
    ],
)
def test_the_content_determines_the_class_of_a_text(root, text, kind):
    """A final text is received if it is inbound, sent if its result is SENT, and finished otherwise."""
    event = parse(as_xml(root, {"Text": {"@id": 1, **text}}))

    assert (type(event), event.name) == (kind, root)


@pytest.mark.parametrize(
    ("root", "kind"),
    [
        ("BroadcastStarted", CampaignStarted),
        ("CampaignStarted", CampaignStarted),
        ("BroadcastStopped", CampaignStopped),
        ("CampaignStopped", CampaignStopped),
        ("BroadcastFinished", CampaignFinished),
        ("CampaignFinished", CampaignFinished),
        ("BroadcastNotification", CampaignNotification),
    ],
)
def test_the_root_determines_the_class_of_a_campaign(root, kind):
    """The root takes precedence over the status."""
    assert type(parse(as_json(root, {"Broadcast": {"@id": 1, "Status": "DECLINED"}}))) is kind


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((status, CampaignNotification) for status in BroadcastStatus),
        ("NEW_ONE", CampaignNotification),
        ("", CampaignNotification),
    ],
)
def test_the_status_determines_the_class_of_a_broadcast_notification(status, kind):
    """A status other than a start, a stop or an end is a CampaignNotification."""
    kinds = {
        "RUNNING": CampaignStarted,
        "START_PENDING": CampaignStarted,
        "STOPPED": CampaignStopped,
        "FINISHED": CampaignFinished,
    }
    event = parse(as_json("BroadcastNotification", {"Broadcast": {"@id": 1, "Status": str(status)}}))

    assert type(event) is kinds.get(status, kind)


@pytest.mark.parametrize(("root", "kind"), [("TextSent", TextSent), ("TextReceived", TextReceived)])
@pytest.mark.parametrize("text", [{}, INBOUND, OUTBOUND | RECEIVED, FAILED])
def test_the_root_determines_the_class_of_a_text(root, kind, text):
    """The root takes precedence over the content."""
    assert type(parse(as_json(root, {"Text": {"@id": 1, **text}}))) is kind


def test_a_call_event_is_call_finished():
    """The content does not matter."""
    assert type(parse(as_json("CallFinished", {"Call": {"@id": 1, "State": "READY"}}))) is CallFinished


def test_an_unknown_value_is_kept():
    """CallFire extends its sets of values over time."""
    result = parse(as_json("CallFinished", {"Call": {"@id": 1, "FinalResult": "NEW_ONE"}})).call.final_result

    assert (result, result.is_known, type(result)) == ("NEW_ONE", False, Result)


# --- unknown notifications --------------------------------------------------------------------------------


@each_format
def test_an_unknown_root_is_an_unknown_notification(write):
    """The payload has the whole content."""
    content = {
        "SubscriptionId": 7,
        "Fax": {"@id": "1", "Page": ["a", "b"], "Sent": True, "Note": {"@a": "b", "#text": "c"}},
    }

    event = parse(write("FaxFinished", content))

    assert event == UnknownNotification(name="FaxFinished", subscription_id=7, payload=content)
    assert event.key == UnknownNotification(name="FaxFinished", payload=content).key


@pytest.mark.parametrize("name", ["Z", "textsent", "TextSent2", "callFinished", "SubscriptionId", "Envelope2"])
@pytest.mark.parametrize("write", [as_xml, as_json])
def test_roots_are_matched_exactly(write, name):
    """A root that is similar to a known one is unknown."""
    assert type(parse(write(name, {"Text": {"@id": 1}}))) is UnknownNotification


@pytest.mark.parametrize(
    "body",
    ["<Ping/>", "<Ping></Ping>", "<Ping> </Ping>", '{"Ping":{}}', '<p:Ping xmlns:p="urn:p"/>'],
)
def test_an_unknown_root_can_be_empty(body):
    """Its payload is empty."""
    assert parse(body) == UnknownNotification(name="Ping")


def test_text_in_an_unknown_root_is_kept():
    """The text of the root is under `#text`."""
    assert parse("<Ping>pong</Ping>").payload == {"#text": "pong"}


def test_unknown_namespaces_are_ignored():
    """Only the local name of an element matters."""
    event = parse('<a:Ping xmlns:a="urn:a"><b:Id xmlns:b="urn:b" b:kind="x">1</b:Id></a:Ping>')

    assert event.payload == {"Id": {"@kind": "x", "#text": "1"}}


# --- payload ----------------------------------------------------------------------------------------------


def test_the_payload_has_the_whole_content():
    """Unknown fields are kept, without prefixes or namespaces."""
    body = """
        <n:TextSent xmlns="http://api.callfire.com/data" xmlns:n="http://api.callfire.com/notification/xsd" n:v="2">
          <n:SubscriptionId>7</n:SubscriptionId>
          <Text id="1"><Added>x</Added><Label/><Label><Name>a</Name></Label></Text>
        </n:TextSent>"""

    assert parse(body).payload == {
        "@v": "2",
        "SubscriptionId": "7",
        "Text": {"@id": "1", "Added": "x", "Label": [None, {"Name": "a"}]},
    }


@pytest.mark.parametrize("root", samples.EVENTS)
def test_the_payload_of_json_is_unchanged(root):
    """It equals the decoded JSON."""
    body = samples.body(root, "JSON")

    assert parse(body).payload == json.loads(body)[root]


# --- formats and encodings --------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["XML", "JSON", "SOAP"])
@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "text/xml",
        "application/json",
        "text/html; charset=utf-8",
        "image/png",
        "x" * 1000,
        "text/xml;charset=",
    ],
)
def test_the_format_is_detected_from_the_body(format, content_type):
    """A wrong content type has no effect."""
    assert parse(samples.body("CallFinished", format), content_type) == samples.EVENTS["CallFinished"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("format", ["XML", "JSON"])
def test_unicode_encodings(encoding, format):
    """UTF-8 and UTF-16 are read with and without a byte order mark."""
    body = samples.body("TextReceived", format).decode().replace('encoding="utf-8"', "")

    assert parse(body.encode(encoding)) == samples.EVENTS["TextReceived"]


@pytest.mark.parametrize("encoding", ["iso-8859-1", "windows-1252"])
def test_the_encoding_of_the_declaration_is_used(encoding):
    """The XML declaration takes precedence over the content type."""
    body = f'<?xml version="1.0" encoding="{encoding}"?><Ping><Café>é</Café></Ping>'.encode(encoding)

    assert parse(body, "text/xml; charset=utf-8").payload == {"Café": "é"}


@pytest.mark.parametrize("body", ["<Ping><a>é</a></Ping>", '{"Ping":{"a":"é"}}'])
def test_the_encoding_of_the_content_type_is_used(body):
    """It applies to a single-byte body that declares no encoding."""
    assert parse(body.encode("latin-1"), 'text/xml; charset="ISO-8859-1"').payload == {"a": "é"}


def test_a_wrong_encoding_in_the_content_type_is_ignored():
    """A body that is valid UTF-8 is read as UTF-8."""
    assert parse("<Ping><a>é</a></Ping>".encode(), "text/xml; charset=ISO-8859-1").payload == {"a": "é"}


@pytest.mark.parametrize("encoding", ["utf-16", "shift_jis", "rot13", "latin-1"])
def test_the_declared_encoding_of_text_is_ignored(encoding):
    """Text is decoded already."""
    assert parse(f'<?xml version="1.0" encoding="{encoding}"?><Ping><a>é</a></Ping>').payload == {"a": "é"}


@pytest.mark.parametrize("white", [" ", "\n\n", "\t\r\n", "\ufeff", "\ufeff \n"])
@pytest.mark.parametrize("root", ["TextSent", "CampaignStopped"])
@pytest.mark.parametrize("format", ["XML", "JSON"])
def test_white_space_before_the_document_is_ignored(white, root, format):
    """Some senders start with an empty line."""
    body = samples.body(root, format)

    assert parse(white + body.decode()) == parse(white.encode() + body) == samples.EVENTS[root]


@pytest.mark.parametrize(
    ("sent", "read"),
    [("a\r\nb\rc", "a\nb\nc"), ("  a ", "a"), (" \r\n ", None), ("", None), ("<!DOCTYPE html>", "<!DOCTYPE html>")],
)
@each_format
def test_text_is_normalized_in_every_format(write, sent, read):
    """Line ends are line feeds, white space around the text is stripped, and empty text is None."""
    event = parse(write("TextReceived", {"Text": {"@id": 1, "Message": sent}}))

    assert event.text.message == read
