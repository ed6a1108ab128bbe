"""Tests of the events as values: equality, keys, copies and `repr`."""

import copy
import pickle
from datetime import UTC, datetime

import pytest
from attrs import evolve

from callfire_async.models import (
    ActionState,
    Broadcast,
    BroadcastStatus,
    Call,
    CallRecord,
    ContactList,
    DeliveryReport,
    Result,
    Text,
    TextRecord,
    WebhookEvent,
    WebhookResource,
)
from callfire_async.notifications.events import (
    AccountNotification,
    CallFinished,
    CampaignFinished,
    CampaignNotification,
    CampaignStarted,
    CampaignStopped,
    ContactListNotification,
    ContactListValidationFailed,
    ContactListValidationFinished,
    DeliveryReportReceived,
    Notification,
    TextFinished,
    TextNotification,
    TextReceived,
    TextSent,
    UnknownNotification,
)
from callfire_async.testing import samples

UNKNOWN = UnknownNotification(name="FaxFinished", subscription_id=7, payload={"Fax": {"@id": "1", "Pages": ["2", "3"]}})
NOON = datetime(1970, 1, 1, 12, 0, 0, 500_000, UTC)
EVENTS = {**samples.EVENTS, "FaxFinished": UNKNOWN}

each_event = pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS)


def text(**fields) -> TextFinished:
    """Return a finished text."""
    return TextFinished(text=Text(id=1, **fields))


def campaign(kind: type[CampaignNotification] = CampaignStarted, **fields) -> CampaignNotification:
    """Return a campaign event."""
    return kind(broadcast=Broadcast(id=1, **fields))


@pytest.mark.parametrize(
    ("kind", "parents"),
    [
        (TextFinished, [TextNotification]),
        (TextSent, [TextFinished, TextNotification]),
        (TextReceived, [TextFinished, TextNotification]),
        (CampaignStarted, [CampaignNotification]),
        (CampaignStopped, [CampaignNotification]),
        (CampaignFinished, [CampaignNotification]),
        (CallFinished, []),
        (ContactListValidationFinished, [ContactListNotification]),
        (ContactListValidationFailed, [ContactListNotification]),
        (DeliveryReportReceived, []),
        (AccountNotification, []),
        (UnknownNotification, []),
    ],
)
def test_the_classes_form_a_tree(kind, parents):
    """A handler for a class also gets the events of its subclasses."""
    assert all(issubclass(kind, parent) for parent in [*parents, Notification])


@pytest.mark.parametrize(
    ("event", "root"),
    [
        (TextSent(text=Text(id=1)), "TextSent"),
        (TextNotification(text=Text(id=1)), "TextNotification"),
        (CallFinished(call=Call(id=1)), "CallFinished"),
        (campaign(CampaignNotification), "BroadcastNotification"),
        (campaign(CampaignStopped), "CampaignStopped"),
        (text(), "TextFinished"),
        (ContactListValidationFailed(contact_list=ContactList(id=1)), "ContactList.ValidationFailed"),
        (DeliveryReportReceived(report=DeliveryReport(id=1)), "OutboundTextDeliveryReport.Received"),
        (
            AccountNotification(resource_type=WebhookResource.LOW_BALANCE, event_type=WebhookEvent.FAILED),
            "LowBalance.Failed",
        ),
    ],
)
def test_the_default_name_is_the_root_of_the_class(event, root):
    """`name` is optional."""
    assert event.name == root


@pytest.mark.parametrize(
    ("event", "key"),
    [
        (text(final_result=Result.SENT, state=ActionState.FINISHED), ("text", 1, "SENT")),
        (text(state=ActionState.FINISHED, records=(TextRecord(result=Result.DNT),)), ("text", 1, "DNT")),
        (text(state=ActionState.INVALID), ("text", 1, "INVALID")),
        (text(records=(TextRecord(),)), ("text", 1, "")),
        (CallFinished(call=Call(id=2, final_result=Result.LA)), ("call", 2, "LA")),
        (
            CallFinished(call=Call(id=2, records=(CallRecord(result=Result.AM), CallRecord(result=Result.LA)))),
            ("call", 2, "LA"),
        ),
        (campaign(last_modified=datetime(1970, 1, 2, tzinfo=UTC)), ("broadcast", 1, "started", 86400.0)),
        (campaign(CampaignStopped), ("broadcast", 1, "stopped", "")),
        (
            campaign(CampaignFinished, last_modified=datetime(1970, 1, 2)),  # noqa: DTZ001  # CallFire may send no offset
            ("broadcast", 1, "finished", "1970-01-02T00:00:00"),
        ),
        (campaign(CampaignNotification, status=BroadcastStatus.PAUSED), ("broadcast", 1, "PAUSED", "")),
        (campaign(CampaignNotification), ("broadcast", 1, "", "")),
        (campaign(last_modified=datetime(1970, 1, 1, 0, 0, 2, 999_000, UTC)), ("broadcast", 1, "started", 2.0)),
        (
            ContactListValidationFinished(contact_list=ContactList(id=3), occurred_at=NOON),
            ("contact_list", 3, "validation finished", 43200.5),
        ),
        (
            ContactListValidationFailed(contact_list=ContactList(id=3)),
            ("contact_list", 3, "validation failed", ""),
        ),
        (
            DeliveryReportReceived(report=DeliveryReport(id=4, delivery_state="DELIVERED")),
            ("delivery_report", 4, "DELIVERED"),
        ),
        (DeliveryReportReceived(report=DeliveryReport(id=4)), ("delivery_report", 4, "")),
        (
            AccountNotification(
                resource_type=WebhookResource.LOW_BALANCE, event_type=WebhookEvent.FINISHED, occurred_at=NOON
            ),
            ("account", "LowBalance", "Finished", 43200.5),
        ),
    ],
)
def test_a_key_has_the_subject_and_its_outcome(event, key):
    """A key is a tuple of text and numbers: type, id, and result, state or kind."""
    assert event.key == key


@each_event
def test_a_key_does_not_depend_on_the_subscription(event):
    """Two subscriptions for the same event produce the same key."""
    assert evolve(event, subscription_id=1).key == evolve(event, subscription_id=None).key


def test_an_unknown_event_of_api_v2_is_identified_by_its_name_too():
    """The name of an event of API v2 is not a part of its resource."""
    started, stopped = (UnknownNotification(name=f"Poll.{kind}", payload={"id": 1}) for kind in ("Started", "Stopped"))

    assert started.key != stopped.key


def test_the_webhook_does_not_affect_equality():
    """The same event can arrive through several webhooks."""
    event = text()

    assert evolve(event, webhook_id=1, webhook_name="texts", occurred_at=NOON) == event


def test_different_subjects_have_different_keys():
    """No two samples with different subjects share a key."""
    keys = {name: event.key for name, event in EVENTS.items()}

    # Samples of the same text or campaign with different roots.
    assert keys.pop("TextSent") == keys.pop("TextNotification")
    assert keys.pop("BroadcastStarted") == keys.pop("BroadcastNotification") == keys.pop("CampaignStarted")
    assert keys.pop("BroadcastStopped") == keys.pop("CampaignStopped")
    assert keys.pop("BroadcastFinished") == keys.pop("CampaignFinished")
    assert len(set(keys.values())) == len(keys)


@each_event
def test_payload_and_problems_do_not_affect_equality(event):
    """The payload of an unknown event is the exception."""
    other = evolve(event, problems=("not a time @ Call.Created",))
    if not isinstance(event, UnknownNotification):
        other = evolve(other, payload={"a": "b"})

    assert (other, hash(other)) == (event, hash(event))


@each_event
def test_subscription_and_name_affect_equality(event):
    """Another subscription or root is another event."""
    assert event != evolve(event, subscription_id=1)
    assert event != evolve(event, name="Other")


def test_unknown_notifications_are_equal_in_canonical_form():
    """Types of scalars, lists of one, empty values, the order of keys and ``SubscriptionId`` do not matter."""
    other = UnknownNotification(
        name="FaxFinished",
        subscription_id=7,
        payload={"subscriptionId": "7", "Note": None, "Fax": [{"Pages": [2, " 3 "], "@id": 1}]},
    )

    assert (other, hash(other), other.key) == (UNKNOWN, hash(UNKNOWN), UNKNOWN.key)


def test_unknown_notifications_with_other_content_differ():
    """The payload distinguishes unknown notifications."""
    other = evolve(UNKNOWN, payload={"Fax": {"@id": "1", "Pages": ["3", "2"]}})

    assert other != UNKNOWN
    assert other.key != UNKNOWN.key


def test_the_key_of_an_unknown_notification_is_a_digest():
    """It has a fixed length and reveals nothing of the payload."""
    kind, digest = UNKNOWN.key

    assert kind == "unknown"
    assert len(bytes.fromhex(str(digest))) == 32


@each_event
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda event: pickle.loads(pickle.dumps(event))])
def test_events_can_be_copied_and_pickled(event, duplicate):
    """Every attribute is kept."""
    other = duplicate(event)

    assert (other, hash(other), other.key) == (event, hash(event), event.key)
    assert (other.payload, other.problems) == (event.payload, event.problems)


@each_event
def test_events_are_immutable(event):
    """An event is passed to several handlers."""
    with pytest.raises(AttributeError):
        event.subscription_id = 1


@each_event
def test_a_repr_masks_numbers_and_messages(event):
    """Logged events have no personal data."""
    shown = repr(evolve(event, payload={"Text": {"Message": "Your order"}}))

    assert not any(secret in shown for secret in ("121355512", "order", "KEYWORD", "A. Caller", "a1b2c3"))
