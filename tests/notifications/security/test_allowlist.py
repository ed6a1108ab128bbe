"""The allow-lists of subscriptions and webhooks."""

import asyncio

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


async def test_concurrent_events_share_one_call():
    """A worker handles many events at once, also when the list has become outdated."""
    calls, proceed = [], asyncio.Event()

    async def fetch() -> set[int]:
        calls.append(1)
        await proceed.wait()
        return {7}

    subscriptions = AllowList("known_subscriptions", fetch)
    checks = [asyncio.create_task(subscriptions.allows(id)) for id in (7, 8) * 8]
    asyncio.get_running_loop().call_soon(proceed.set)

    assert (await asyncio.gather(*checks), len(calls)) == ([True, False] * 8, 1)


async def test_a_call_that_fails_is_repeated_by_the_next_event():
    """Also by one that waits for the call."""
    calls = []

    async def fetch() -> set[int]:
        calls.append(1)
        await asyncio.sleep(0)
        if len(calls) == 1:
            raise OSError
        return {7}

    subscriptions = AllowList("known_subscriptions", fetch)
    results = await asyncio.gather(*[subscriptions.allows(7) for _ in range(3)], return_exceptions=True)

    assert (type(results[0]), results[1:], len(calls)) == (OSError, [True, True], 2)


def test_a_list_may_be_used_in_several_event_loops():
    """One after the other, by several events at once in each."""
    now = [0.0]

    async def fetch() -> set[int]:
        await asyncio.sleep(0)
        return {7}

    subscriptions = AllowList("known_subscriptions", fetch, clock=lambda: now[0])

    async def check() -> list[bool]:
        now[0] += 60.0
        return await asyncio.gather(*[subscriptions.allows(7) for _ in range(3)])

    assert [asyncio.run(check()) for _ in range(2)] == [[True] * 3] * 2


def test_a_plain_function_raises():
    """It would block the event loop."""
    with pytest.raises(TypeError, match=r"^known_webhooks must be a coroutine function"):
        AllowList("known_webhooks", lambda: {7})
