"""The samples: every root, format and field."""

import pickle

import pytest
from attrs import fields, has

from callfire_async import models
from callfire_async.notifications.parsing import parse
from callfire_async.testing import encode, samples

ROOTS = """
TextNotification TextSent TextReceived TextFinished CallFinished
BroadcastNotification BroadcastStarted BroadcastStopped BroadcastFinished
CampaignStarted CampaignStopped CampaignFinished
""".split()


def test_there_is_a_sample_of_every_root():
    """Each of the twelve has its own name."""
    assert list(samples.EVENTS) == ROOTS
    assert [event.name for event in samples.EVENTS.values()] == ROOTS


def test_the_samples_are_read_only():
    """Tests share them."""
    with pytest.raises(TypeError):
        samples.EVENTS["TextSent"] = None


@pytest.mark.parametrize("root", ROOTS)
@pytest.mark.parametrize("format", ["XML", "JSON", "SOAP"])
def test_a_body_by_name_or_by_event(root, format):
    """Both return the bytes that CallFire would post."""
    body = samples.body(root, format)

    assert body == samples.body(samples.EVENTS[root], format) == encode(samples.EVENTS[root], format)[1]
    assert parse(body) == samples.EVENTS[root]


@pytest.mark.parametrize("api", ["1.1", "v2"])
def test_an_unknown_name(api):
    """A misspelled name is an error."""
    with pytest.raises(KeyError):
        samples.body("TextSend", api=api)


def test_there_is_a_sample_of_every_event_of_v2():
    """Each resource and event has one, which is the event that a receiver makes of its postback."""
    names = [f"{resource}.{event}" for resource, events in models.WEBHOOK_EVENTS.items() for event in events]

    assert sorted(samples.EVENTS_V2) == sorted(names)
    assert [event.name for event in samples.EVENTS_V2.values()] == [*samples.EVENTS_V2]
    assert all(event.webhook_id and event.webhook_name and event.occurred_at for event in samples.EVENTS_V2.values())


@pytest.mark.parametrize("name", samples.EVENTS_V2)
def test_a_body_of_v2_by_name_or_by_event(name):
    """Both return the bytes that CallFire would post."""
    event = samples.EVENTS_V2[name]
    body = samples.body(name, "JSON", api="v2")

    assert body == samples.body(event, api="v2") == encode(event, api="v2")[1]
    assert (parse(body), parse(body).webhook_id, parse(body).problems) == (event, event.webhook_id, ())
    assert pickle.loads(pickle.dumps(event)) == event


@pytest.mark.parametrize("root", ROOTS)
def test_a_sample_of_api_1_1_in_v2(root):
    """It has the same key and class, and is posted by a webhook."""
    event = parse(samples.body(root, "JSON", api="v2"))

    assert (type(event), event.key) == (type(samples.EVENTS[root]), samples.EVENTS[root].key)
    assert (event.webhook_id, event.subscription_id) == (7420003, None)
    if not root.startswith(("Broadcast", "Campaign")):  # a configuration of API v2 has no id
        assert event.subject == samples.EVENTS[root].subject


@pytest.mark.parametrize("kind", ["ContactListValidationFailed", "DeliveryReportReceived", "AccountNotification"])
def test_a_body_of_v2_by_class(kind):
    """Any event of that class."""
    assert type(parse(samples.body(kind, api="v2"))).__name__ == kind


def test_api_1_1_has_no_samples_of_v2():
    """Their names are not roots, and some have no equivalent."""
    with pytest.raises(KeyError):
        samples.body("OutboundText.Finished")
    with pytest.raises(ValueError, match="event must be one that API 1"):
        samples.body(samples.EVENTS_V2["LowBalance.Failed"])


def set_fields(value: object) -> dict[tuple[type, str], bool]:
    """Return whether each field of a model and its parts has a value."""
    if isinstance(value, tuple):
        return {name: is_set for item in value for name, is_set in set_fields(item).items()}
    if not has(type(value)):
        return {}
    result = {}
    for field in fields(type(value)):
        part = getattr(value, field.name)
        result[type(value), field.name] = part not in (None, ())
        result |= {name: is_set or result.get(name, False) for name, is_set in set_fields(part).items()}
    return result


def test_every_field_of_every_model_is_in_some_sample():
    """The samples show everything that CallFire is known to send."""
    with_value: set[tuple[type, str]] = set()
    without_value: set[tuple[type, str]] = set()
    for event in (*samples.EVENTS.values(), *samples.EVENTS_V2.values()):
        for field, is_set in set_fields(event.subject).items():
            (with_value if is_set else without_value).add(field)

    # A configuration of API v2 has neither, and API 1.1 is not known to send this one.
    never_sent = {"CccBroadcastConfig.id", "CccBroadcastConfig.created"}
    assert {f"{kind.__name__}.{name}" for kind, name in without_value - with_value} == never_sent
    assert models.RecordingMeta in {kind for kind, _ in with_value}


@pytest.mark.parametrize("root", ROOTS)
def test_samples_are_plain_values(root):
    """They can be pickled like all events."""
    assert pickle.loads(pickle.dumps(samples.EVENTS[root])) == samples.EVENTS[root]
