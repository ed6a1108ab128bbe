"""
The pytest plugin: fixtures for tests of code that uses CallFire.

pytest loads this module in every run if the package is installed, so it imports only pytest; fixtures import the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from callfire_async.client import CallFire
    from callfire_async.testing import FakeCallFire, PostbackRecorder


# Synchronous fixtures work with every asyncio plugin, and these hold nothing that needs closing.
@pytest.fixture
def fake_callfire(request: pytest.FixtureRequest) -> FakeCallFire:
    """Return an empty `FakeCallFire`; it posts to ``postbacks`` if the test uses that fixture, otherwise over HTTP."""
    from callfire_async.testing.fake_callfire import FakeCallFire

    is_recorded = "postbacks" in request.fixturenames
    return FakeCallFire(transport=request.getfixturevalue("postbacks") if is_recorded else None)


@pytest.fixture
def callfire(fake_callfire: FakeCallFire) -> CallFire:
    """Return a client that is connected to ``fake_callfire`` in process."""
    return fake_callfire.client()


@pytest.fixture
def postbacks() -> PostbackRecorder:
    """Return a recorder of the postbacks that ``fake_callfire`` sends to any endpoint."""
    from callfire_async.testing.recorder import PostbackRecorder

    return PostbackRecorder()
