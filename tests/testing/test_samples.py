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


def test_an_unknown_name():
    """A misspelled name is an error."""
    with pytest.raises(KeyError):
        samples.body("TextSend")


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
    """The samples show everything that API 1.1 is known to send."""
    with_value: set[tuple[type, str]] = set()
    without_value: set[tuple[type, str]] = set()
    for event in samples.EVENTS.values():
        for field, is_set in set_fields(event.subject).items():
            (with_value if is_set else without_value).add(field)

    assert {f"{kind.__name__}.{name}" for kind, name in without_value - with_value} == set()
    assert models.RecordingMeta in {kind for kind, _ in with_value}


@pytest.mark.parametrize("root", ROOTS)
def test_samples_are_plain_values(root):
    """They can be pickled like all events."""
    assert pickle.loads(pickle.dumps(samples.EVENTS[root])) == samples.EVENTS[root]
