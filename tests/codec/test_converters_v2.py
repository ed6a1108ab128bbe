"""Tests of the conversion between mappings and models with the names and values of API v2."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from attrs import frozen

from callfire_async._codec.converters_v2 import json_fields, structure_v2, unstructure_v2
from callfire_async._codec.model_reader import ConversionError
from callfire_async.models import Webhook, WebhookEvent, WebhookResource

CONTENT = {
    "id": 2**60,
    "name": "finished texts",
    "enabled": True,
    "resource": "OutboundText",
    "events": ["Finished"],
    "callback": "https://h.example/1",
    "fields": "id",
    "singleUse": False,
    "expiresAt": 1700000000000,
    "nonStrictSsl": False,
    "createdAt": 1443373382123,
    "updatedAt": 1443373386000,
}
WEBHOOK = Webhook(
    id=2**60,
    name="finished texts",
    enabled=True,
    resource=WebhookResource.OUTBOUND_TEXT,
    events=(WebhookEvent.FINISHED,),
    callback="https://h.example/1",
    fields="id",
    single_use=False,
    expires_at=datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC),
    non_strict_ssl=False,
    created_at=datetime(2015, 9, 27, 17, 3, 2, 123000, tzinfo=UTC),
    updated_at=datetime(2015, 9, 27, 17, 3, 6, tzinfo=UTC),
)


def test_a_webhook_is_read():
    """Names are in camelCase, times are Unix time in milliseconds, IDs have 64 bits."""
    assert structure_v2(Webhook, CONTENT, "Webhook") == (WEBHOOK, ())


def test_a_webhook_is_written():
    """The inverse; fields that are None or empty are left out."""
    assert unstructure_v2(WEBHOOK) == CONTENT
    assert unstructure_v2(Webhook(1)) == {"id": 1}


def test_null_and_missing_are_the_same():
    """An explicit null is a value that CallFire did not send."""
    content = dict.fromkeys(CONTENT) | {"id": 1}

    assert structure_v2(Webhook, content, "Webhook") == (Webhook(1), ())


@pytest.mark.parametrize(
    ("sent", "events"),
    [
        (["finished", "STARTED"], ("Finished", "Started")),
        ("Started, Finished", ("Started", "Finished")),
        (["Started,Finished", None, ""], ("Started", "Finished")),
        (["SomethingNew"], ("SomethingNew",)),
        ([], ()),
    ],
)
def test_events_are_read_in_any_form(sent, events):
    """A list, or one text with commas as CallFire's description says; compared without regard to case."""
    webhook, problems = structure_v2(Webhook, {"id": 1, "events": sent}, "Webhook")

    assert (webhook.events, problems) == (events, ())
    assert all(isinstance(event, WebhookEvent) for event in webhook.events)


@pytest.mark.parametrize("sent", [1443373382000, "1443373382000", 1443373382000.0])
def test_a_time_is_read_in_any_number_format(sent):
    """An integer, its digits, or a float."""
    webhook, _ = structure_v2(Webhook, {"id": 1, "createdAt": sent}, "Webhook")

    assert webhook.created_at == datetime(2015, 9, 27, 17, 3, 2, tzinfo=UTC)


@pytest.mark.parametrize("sent", ["2015-09-27", True, 10**17, -(10**18), "9" * 30, 1e40, "1.5", {"a": 1}, [1]])
def test_an_unreadable_time_is_a_problem(sent):
    """It is left out, and the problem names the field."""
    webhook, problems = structure_v2(Webhook, {"id": 1, "createdAt": sent}, "Webhook")

    assert (webhook.created_at, problems) == (None, ("not a time @ Webhook.createdAt",))


def test_an_unreadable_event_is_a_problem():
    """The events are left out, and the problem names the field."""
    webhook, problems = structure_v2(Webhook, {"id": 1, "events": [[1]]}, "Webhook")

    assert (webhook.events, problems) == ((), ("not a string @ Webhook.events",))


@pytest.mark.parametrize("content", [{}, {"id": None}, {"id": "x"}, [], None])
def test_an_object_without_an_id_is_an_error(content):
    """There is no webhook without an ID."""
    with pytest.raises(ConversionError, match="Webhook"):
        structure_v2(Webhook, content, "Webhook")


def test_parameters_are_written_as_json():
    """None is left out; a time is rounded down to milliseconds, whatever its time zone."""
    moment = datetime(2015, 9, 27, 19, 3, 2, 123999, tzinfo=timezone(timedelta(hours=2)))

    fields = json_fields({"expires_at": moment, "single_use": False, "name": None, "events": (WebhookEvent.STARTED,)})

    assert fields == {"expiresAt": 1443373382123, "singleUse": False, "events": ["Started"]}


def test_amounts_and_lengths_are_numbers():
    """A length is in whole seconds."""

    @frozen
    class Measured:
        amount: Decimal | None = None
        length_in_seconds: timedelta | None = None

    assert unstructure_v2(Measured(Decimal("1.5"), timedelta(seconds=61))) == {"amount": 1.5, "lengthInSeconds": 61}
