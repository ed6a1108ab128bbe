"""The events as values: what makes two of them equal, their keys, and what their `repr` shows."""

import copy
import pickle
from datetime import UTC, datetime

import pytest
from attrs import evolve

from callfire_async.models import ActionState, Broadcast, BroadcastStatus, Call, CallRecord, Result, Text, TextRecord
from callfire_async.notifications.events import (
    CallFinished,
    CampaignFinished,
    CampaignNotification,
    CampaignStarted,
    CampaignStopped,
    Notification,
    TextFinished,
    TextNotification,
    TextReceived,
    TextSent,
    UnknownNotification,
)
from callfire_async.testing import samples

UNKNOWN = UnknownNotification(name="FaxFinished", subscription_id=7, payload={"Fax": {"@id": "1", "Pages": ["2", "3"]}})
EVENTS = {**samples.EVENTS, "FaxFinished": UNKNOWN}

each_event = pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS)


def text(**fields) -> TextFinished:
    """Make a finished text by hand."""
    return TextFinished(text=Text(id=1, **fields))


def campaign(kind: type[CampaignNotification] = CampaignStarted, **fields) -> CampaignNotification:
    """Make news of a campaign by hand."""
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
        (UnknownNotification, []),
    ],
)
def test_the_kinds_form_a_tree(kind, parents):
    """Whoever asks for a kind gets the kinds below it as well."""
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
    ],
)
def test_an_event_made_by_hand_bears_the_root_of_its_kind(event, root):
    """`name` need not be given."""
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
            campaign(CampaignFinished, last_modified=datetime(1970, 1, 2)),  # noqa: DTZ001  # some say no offset
            ("broadcast", 1, "finished", "1970-01-02T00:00:00"),
        ),
        (campaign(CampaignNotification, status=BroadcastStatus.PAUSED), ("broadcast", 1, "PAUSED", "")),
        (campaign(CampaignNotification), ("broadcast", 1, "", "")),
    ],
)
def test_a_key_says_what_happened_to_what(event, key):
    """The key is plain text and numbers: the kind of thing, its id, and what became of it."""
    assert event.key == key


@each_event
def test_a_key_does_not_depend_on_the_subscription(event):
    """Two subscriptions that both get a thing give it one key."""
    assert evolve(event, subscription_id=1).key == evolve(event, subscription_id=None).key


def test_keys_of_different_things_differ():
    """No two samples of different things share a key."""
    things = {name: event.key for name, event in EVENTS.items()}

    # The same text and the same campaigns, under other roots.
    assert things.pop("TextSent") == things.pop("TextNotification")
    assert things.pop("BroadcastStarted") == things.pop("BroadcastNotification") == things.pop("CampaignStarted")
    assert things.pop("BroadcastStopped") == things.pop("CampaignStopped")
    assert things.pop("BroadcastFinished") == things.pop("CampaignFinished")
    assert len(set(things.values())) == len(things)


@each_event
def test_payload_and_problems_are_no_part_of_equality(event):
    """What a format leaves behind does not make two events differ, but for an unknown one, which has nothing else."""
    other = evolve(event, problems=("not a time @ Call.Created",))
    if not isinstance(event, UnknownNotification):
        other = evolve(other, payload={"a": "b"})

    assert (other, hash(other)) == (event, hash(event))


@each_event
def test_what_it_says_is_part_of_equality(event):
    """Another subscription or another root makes another event."""
    assert event != evolve(event, subscription_id=1)
    assert event != evolve(event, name="Other")


def test_unknown_notifications_are_equal_in_canonical_form():
    """Numbers and text, lists of one, empty things and the order of keys do not count; nor does ``SubscriptionId``."""
    other = UnknownNotification(
        name="FaxFinished",
        subscription_id=7,
        payload={"subscriptionId": "7", "Note": None, "Fax": [{"Pages": [2, " 3 "], "@id": 1}]},
    )

    assert (other, hash(other), other.key) == (UNKNOWN, hash(UNKNOWN), UNKNOWN.key)


def test_unknown_notifications_with_other_content_differ():
    """The payload is all that tells two unknown notifications apart."""
    other = evolve(UNKNOWN, payload={"Fax": {"@id": "1", "Pages": ["3", "2"]}})

    assert other != UNKNOWN
    assert other.key != UNKNOWN.key


def test_the_key_of_an_unknown_notification_is_a_digest():
    """It is short, whatever the notification holds, and shows nothing of it."""
    kind, digest = UNKNOWN.key

    assert kind == "unknown"
    assert len(bytes.fromhex(str(digest))) == 32


@each_event
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda event: pickle.loads(pickle.dumps(event))])
def test_events_can_be_copied_and_pickled(event, duplicate):
    """They travel between processes, and nothing is lost."""
    other = duplicate(event)

    assert (other, hash(other), other.key) == (event, hash(event), event.key)
    assert (other.payload, other.problems) == (event.payload, event.problems)


@each_event
def test_events_cannot_be_changed(event):
    """One event goes to many handlers."""
    with pytest.raises(AttributeError):
        event.subscription_id = 1


@each_event
def test_a_repr_masks_numbers_and_messages(event):
    """A log of events holds no personal data."""
    shown = repr(evolve(event, payload={"Text": {"Message": "Your order"}}))

    assert not any(secret in shown for secret in ("121355512", "order", "KEYWORD", "A. Caller", "a1b2c3"))
