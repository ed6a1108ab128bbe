"""Fixtures of several tests of the receiver."""

import pytest

from callfire_async.notifications import Notification, Router


@pytest.fixture
def events() -> list[Notification]:
    """Return the events that `router` has handled."""
    return []


@pytest.fixture
def router(events: list[Notification]) -> Router:
    """Return a router that handles all notifications by adding them to `events`."""
    router = Router()

    @router.on(Notification)
    async def collect(event: Notification) -> None:
        events.append(event)

    return router
