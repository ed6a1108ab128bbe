"""The pytest plugin: its fixtures, and that it costs nothing."""

import subprocess
import sys

import pytest

from callfire_async import TriggerEvent, testing
from callfire_async.testing.plugin import callfire, fake_callfire

# Wherever the plugin is installed or not, these are its fixtures.
__all__ = ["callfire", "fake_callfire"]

ONE_MAY_NOT_HAVE = (
    "starlette callfire_async.testing.fake_callfire callfire_async.testing.samples fastapi aiohttp uvicorn".split()
)


async def test_the_client_is_one_of_the_fake(callfire, fake_callfire):
    """Both fixtures are of one account."""
    made = await callfire.subscriptions.create("https://hooks.example.com/t", TriggerEvent.CAMPAIGN_STARTED)

    assert [subscription.id for subscription in fake_callfire.subscriptions] == [made.id]


def test_the_fake_is_empty_at_first(fake_callfire):
    """Each test has one of its own; one that is not asynchronous may use it too."""
    assert fake_callfire.subscriptions == ()


@pytest.mark.parametrize("module", ["callfire_async.testing", "callfire_async.testing.plugin"])
def test_the_plugin_is_light(module):
    """Every pytest run of everybody who has the package loads it, with or without the extra."""
    script = f"import sys, {module}; print(*sys.modules.keys() & set(sys.argv[1:]))"

    result = subprocess.run(
        [sys.executable, "-c", script, *ONE_MAY_NOT_HAVE], check=True, capture_output=True, text=True
    )

    assert result.stdout.split() == []


def test_the_public_names():
    """They are sorted, and each can be had."""
    assert testing.__all__ == sorted(set(testing.__all__))
    assert all(getattr(testing, name).__doc__ for name in testing.__all__)


def test_other_names_are_not_there():
    """A misspelt name is an error."""
    with pytest.raises(AttributeError, match="FakeCallfire"):
        _ = testing.FakeCallfire
