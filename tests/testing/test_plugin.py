"""The pytest plugin: its fixtures and its imports."""

import subprocess
import sys

import pytest

from callfire_async import TriggerEvent, testing
from callfire_async.testing.plugin import callfire, fake_callfire

# Imported so that the tests also run if the plugin is not installed.
__all__ = ["callfire", "fake_callfire"]

OPTIONAL_MODULES = (
    "starlette callfire_async.testing.fake_callfire callfire_async.testing.samples fastapi aiohttp uvicorn".split()
)


async def test_the_client_is_connected_to_the_fake(callfire, fake_callfire):
    """Both fixtures share one account."""
    created = await callfire.subscriptions.create("https://hooks.example.com/t", TriggerEvent.CAMPAIGN_STARTED)

    assert [subscription.id for subscription in fake_callfire.subscriptions] == [created.id]


def test_each_test_has_an_empty_fake(fake_callfire):
    """A synchronous test can use it too."""
    assert fake_callfire.subscriptions == ()


@pytest.mark.parametrize("module", ["callfire_async.testing", "callfire_async.testing.plugin"])
def test_the_plugin_imports_no_optional_module(module):
    """Every pytest run loads it, also if the extra is not installed."""
    script = f"import sys, {module}; print(*sys.modules.keys() & set(sys.argv[1:]))"

    result = subprocess.run(
        [sys.executable, "-c", script, *OPTIONAL_MODULES], check=True, capture_output=True, text=True
    )

    assert result.stdout.split() == []


def test_the_public_names():
    """They are sorted, and each can be imported."""
    assert testing.__all__ == sorted(set(testing.__all__))
    assert all(getattr(testing, name).__doc__ for name in testing.__all__)


def test_unknown_names():
    """A misspelled name is an error."""
    with pytest.raises(AttributeError, match="FakeCallfire"):
        _ = testing.FakeCallfire
