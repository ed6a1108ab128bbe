"""The allow-lists of subscriptions and webhooks."""

import pytest

from callfire_async.notifications.security._allowlist import AllowList


async def test_known_subscriptions_are_fetched_once_a_minute():
    """Not for each event."""
    fetched, now = [], [0.0]

    async def fetch() -> set[int]:
        fetched.append(now[0])
        return {7}

    subscriptions = AllowList("known_subscriptions", fetch, clock=lambda: now[0])
    for now[0] in (0.0, 59.0, 60.0, 61.0):
        assert await subscriptions.allows(7)

    assert (fetched, await subscriptions.allows(8)) == ([0.0, 60.0], False)


def test_a_plain_function_raises():
    """It would block the event loop."""
    with pytest.raises(TypeError, match=r"^known_webhooks must be a coroutine function"):
        AllowList("known_webhooks", lambda: {7})
