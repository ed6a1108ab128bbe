"""The samples: every root, every format, every field."""

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
    """All twelve, each under its own name."""
    assert list(samples.EVENTS) == ROOTS
    assert [event.name for event in samples.EVENTS.values()] == ROOTS


def test_the_samples_cannot_be_changed():
    """They are shared."""
    with pytest.raises(TypeError):
        samples.EVENTS["TextSent"] = None


@pytest.mark.parametrize("root", ROOTS)
@pytest.mark.parametrize("format", ["XML", "JSON", "SOAP"])
def test_a_body_is_asked_for_by_name_or_by_event(root, format):
    """Both give the bytes that CallFire would post."""
    body = samples.body(root, format)

    assert body == samples.body(samples.EVENTS[root], format) == encode(samples.EVENTS[root], format)[1]
    assert parse(body) == samples.EVENTS[root]


def test_there_is_no_sample_of_an_unknown_name():
    """A misspelt name is an error."""
    with pytest.raises(KeyError):
        samples.body("TextSend")


def said_of(value: object) -> dict[tuple[type, str], bool]:
    """Tell of every field of a model and its parts whether it says something."""
    if isinstance(value, tuple):
        return {name: said for item in value for name, said in said_of(item).items()}
    if not has(type(value)):
        return {}
    found = {}
    for field in fields(type(value)):
        part = getattr(value, field.name)
        found[type(value), field.name] = part not in (None, ())
        found |= {name: said or found.get(name, False) for name, said in said_of(part).items()}
    return found


def test_every_field_of_every_model_is_in_some_sample():
    """Who has read the samples has seen everything that API 1.1 is known to send."""
    silent: set[tuple[type, str]] = set()
    telling: set[tuple[type, str]] = set()
    for event in samples.EVENTS.values():
        carried = next(getattr(event, name) for name in ("text", "call", "broadcast") if hasattr(event, name))
        for field, said in said_of(carried).items():
            (telling if said else silent).add(field)

    assert {f"{kind.__name__}.{name}" for kind, name in silent - telling} == set()
    assert models.RecordingMeta in {kind for kind, _ in telling}


@pytest.mark.parametrize("root", ROOTS)
def test_samples_are_plain_values(root):
    """They can be pickled, as all events can."""
    assert pickle.loads(pickle.dumps(samples.EVENTS[root])) == samples.EVENTS[root]
