"""Tests of the encoding of events: content types, namespaces, and CallFire's oddities."""

import json
import re

import pytest
from attrs import evolve

from callfire_async.models import NotificationFormat
from callfire_async.notifications.events import UnknownNotification
from callfire_async.notifications.parsing import parse
from callfire_async.testing import encode, samples

TEXT, CALL, CAMPAIGN = (samples.EVENTS[root] for root in ("TextSent", "CallFinished", "CampaignStarted"))


@pytest.mark.parametrize(
    ("format", "version", "content_type"),
    [
        ("XML", "1.1", "text/xml; charset=UTF-8"),
        ("JSON", "1.1", "application/json"),
        ("SOAP", "1.1", "text/xml; charset=UTF-8"),
        ("SOAP", "1.2", "application/soap+xml; charset=UTF-8"),
    ],
)
def test_the_content_type_of_each_format(format, version, content_type):
    """XML has the content type of a real postback."""
    assert encode(TEXT, format, soap_version=version)[0] == content_type


def test_xml_is_the_default():
    """It is also CallFire's default."""
    assert encode(TEXT) == encode(TEXT, NotificationFormat.XML)


@pytest.mark.parametrize("format", ["EMAIL", "LEGACY", "xml", ""])
def test_other_formats_are_rejected(format):
    """EMAIL is sent to a mailbox, and LEGACY is not supported."""
    with pytest.raises(ValueError, match="XML, JSON or SOAP"):
        encode(TEXT, format)


def test_xml_uses_the_namespaces_and_prefixes_of_callfire():
    """The root and the subscription are in one namespace, the subject in another."""
    body = encode(TEXT)[1].decode()

    assert re.search(
        '<n:TextSent xmlns="http://api.callfire.com/data" xmlns:n="http://api.callfire.com/notification/xsd">'
        r'<n:SubscriptionId>609951003</n:SubscriptionId><Text id="896807881003">',
        body,
    )


@pytest.mark.parametrize(
    ("version", "namespace"),
    [("1.1", "http://schemas.xmlsoap.org/soap/envelope/"), ("1.2", "http://www.w3.org/2003/05/soap-envelope")],
)
def test_soap_is_the_xml_in_an_envelope(version, namespace):
    """Each version has its own namespace."""
    body = encode(TEXT, "SOAP", soap_version=version)[1].decode()

    assert f'<soap:Envelope xmlns:soap="{namespace}"><soap:Body><n:TextSent' in body


def test_json_has_the_oddities_of_callfire():
    """Ids are text and phone numbers are objects; other integers and booleans are unchanged."""
    call = json.loads(encode(CALL, "JSON")[1])["CallFinished"]["Call"]

    assert (call["@id"], call["CallRecord"][0]["@id"]) == ("896807884003", "537621191003")
    assert call["ToNumber"] == {"value": "12135551216", "@ClientData": "order 1139"}
    assert (call["ContactId"], call["Inbound"], call["FromNumber"]) == (175791874003, False, "12135551215")


def test_a_number_without_attributes_is_an_object_in_json():
    """The text is under `value`."""
    text = json.loads(encode(samples.EVENTS["TextFinished"], "JSON")[1])["TextFinished"]["Text"]

    assert text["ToNumber"] == {"value": "12135551213"}


@pytest.mark.parametrize("event", [TEXT, CALL, CAMPAIGN])
@pytest.mark.parametrize("format", ["XML", "JSON", "SOAP"])
def test_the_root_is_the_name_of_the_event(event, format):
    """The class of the event does not matter."""
    name = "BroadcastNotification" if event is CAMPAIGN else event.name.replace("Sent", "Notification")

    assert parse(encode(evolve(event, name=name), format)[1]) == evolve(event, name=name)


@pytest.mark.parametrize("format", ["XML", "JSON", "SOAP"])
def test_an_unknown_notification_is_encoded_as_its_payload(format):
    """The subscription id is the event's, not the payload's."""
    event = UnknownNotification(
        name="FaxFinished", subscription_id=8, payload={"subscriptionId": "7", "Fax": {"@id": "1", "#text": "a"}}
    )

    assert parse(encode(event, format)[1]) == event


@pytest.mark.parametrize("format", ["XML", "JSON"])
def test_a_missing_subscription_id_is_left_out(format):
    """The element is optional."""
    assert b"SubscriptionId" not in encode(evolve(TEXT, subscription_id=None), format)[1]


@pytest.mark.parametrize("event", samples.EVENTS.values(), ids=samples.EVENTS)
def test_an_event_has_a_method_for_each_format(event):
    """The method returns the encoded body, and parsing that returns an equal event."""
    bodies = {"XML": event.to_xml(), "JSON": event.to_json(), "SOAP": event.to_soap()}

    assert bodies == {format: encode(event, format)[1] for format in bodies}
    assert {parse(body) for body in bodies.values()} == {event}
    assert event.to_soap("1.2") == encode(event, "SOAP", soap_version="1.2")[1]


def test_an_unknown_event_can_be_encoded_and_parsed():
    """It has no subject."""
    event = UnknownNotification(name="FaxFinished", subscription_id=7, payload={"Fax": {"@id": "1"}})

    assert event.subject is None
    assert parse(event.to_json()) == parse(event.to_xml()) == event
