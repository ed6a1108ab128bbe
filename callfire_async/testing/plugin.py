"""
The pytest plugin: fixtures for tests of code that uses CallFire.

Every pytest run of everybody who has this package loads it: it imports pytest only, and the rest in its fixtures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from callfire_async.client import CallFire
    from callfire_async.testing import FakeCallFire, PostbackRecorder


# Not asynchronous, so that they work with every asynchronous runner; there is nothing in them that needs closing.
@pytest.fixture
def fake_callfire(request: pytest.FixtureRequest) -> FakeCallFire:
    """Give a CallFire in memory, empty at first; it posts over HTTP, or to ``postbacks`` where the test has those."""
    from callfire_async.testing.fake_callfire import FakeCallFire

    in_memory = "postbacks" in request.fixturenames
    return FakeCallFire(transport=request.getfixturevalue("postbacks") if in_memory else None)


@pytest.fixture
def callfire(fake_callfire: FakeCallFire) -> CallFire:
    """Give a client of ``fake_callfire``, in process."""
    return fake_callfire.client()


@pytest.fixture
def postbacks() -> PostbackRecorder:
    """Keep what ``fake_callfire`` posts in memory, whatever the endpoint, and have it looked at."""
    from callfire_async.testing.recorder import PostbackRecorder

    return PostbackRecorder()
