"""Whose events are handled."""

import pytest

from callfire_async.notifications.security._allowlist import SubscriptionAllowList


async def test_known_subscriptions_are_asked_once_a_minute():
    """Not for each event."""
    asked, now = [], [0.0]

    async def ask() -> set[int]:
        asked.append(now[0])
        return {7}

    subscriptions = SubscriptionAllowList(ask, clock=lambda: now[0])
    for now[0] in (0.0, 59.0, 60.0, 61.0):
        assert await subscriptions.allows(7)

    assert (asked, await subscriptions.allows(8)) == ([0.0, 60.0], False)


def test_a_plain_function_is_no_way_to_ask():
    """It would hold up the event loop."""
    with pytest.raises(TypeError, match="coroutine function"):
        SubscriptionAllowList(lambda: {7})
