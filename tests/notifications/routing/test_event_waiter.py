"""Waiting for an event in the middle of other work."""

import asyncio
import gc

import pytest

from callfire_async import Call, HandlerErrors, ResourceReference, Subscription, Text
from callfire_async.notifications import CallFinished, Notification, Router, TextFinished, TextSent

SENT = TextSent(subscription_id=7, text=Text(1))
OTHER = TextSent(subscription_id=8, text=Text(2))
CALL = CallFinished(subscription_id=8, call=Call(2))
DEADLINE = 20


@pytest.fixture
def router() -> Router:
    return Router()


def soon(router, *events):
    """Have events dispatched once whoever waits has gone to sleep."""

    async def dispatch() -> None:
        for event in events:
            await router.dispatch(event)

    return asyncio.create_task(dispatch())


async def test_an_event_wakes_who_waits_for_it(router):
    """Of its type, and of the types above; not for another one."""
    async with router.expect(TextFinished) as expected, router.expect(CallFinished) as call:
        task = soon(router, SENT)
        event = await expected.get(timeout=DEADLINE)
        await task

        with pytest.raises(TimeoutError):
            await call.get(timeout=0)
    assert event is SENT


async def test_what_came_before_it_was_asked_for_is_kept(router):
    """It is armed by the block, not by the asking; and in order."""
    async with router.expect(Notification) as expected:
        for event in (SENT, CALL):
            await router.dispatch(event)

        assert [await expected.get(), await expected.get(timeout=DEADLINE)] == [SENT, CALL]


async def test_what_came_before_the_block_is_not_seen(router):
    """Arm it before the cause."""
    await router.dispatch(SENT)

    async with router.expect(Notification) as expected:
        with pytest.raises(TimeoutError):
            await expected.get(timeout=0)


@pytest.mark.parametrize(
    "choice",
    [
        {"where": lambda event: event.text.id == 2},
        {"subscription_id": 8},
        {"subscription_id": ResourceReference(8)},
        {"subscription_id": Subscription(8)},
        {"subscription_id": {8, 9}},
        {"subscription_id": [8], "where": lambda event: event.text.id > 1},
    ],
)
async def test_an_event_is_chosen(router, choice):
    """As a handler's is."""
    async with router.expect(TextSent, **choice) as expected:
        await router.dispatch(SENT)
        await router.dispatch(OTHER)

        assert await expected.get() is OTHER


async def test_an_event_counts_once_it_is_handled(router):
    """What the handlers did is done when the event is seen; a failure means that it will come again."""
    ran = []

    @router.on(TextFinished)
    async def handler(event: TextFinished) -> None:
        ran.append(event)
        await asyncio.sleep(0)
        if len(ran) == 1:
            raise LookupError

    async with router.expect(TextFinished) as expected:
        with pytest.raises(HandlerErrors):
            await router.dispatch(SENT)
        with pytest.raises(TimeoutError):
            await expected.get(timeout=0)
        soon(router, SENT)
        await expected.get(timeout=DEADLINE)

    assert len(ran) == 2


async def test_where_fails_for_who_waits_alone(router):
    """The dispatch goes on, and another one is woken."""
    async with (
        router.expect(Notification, where=lambda event: event.text) as broken,
        router.expect(CallFinished) as call,
    ):
        await router.dispatch(CALL)

        with pytest.raises(AttributeError):
            await broken.get()
        assert await call.get() is CALL


@pytest.mark.parametrize(
    ("arguments", "error"),
    [({"event_type": str}, TypeError), ({"event_type": Notification, "subscription_id": 0}, ValueError)],
)
async def test_nonsense_is_an_error_at_once(router, arguments, error):
    """As with a handler."""
    with pytest.raises(error):
        async with router.expect(**arguments):
            pass


async def test_many_wait_at_once(router):
    """Each gets its own."""

    async def wait_for(number):
        async with router.expect(TextSent, where=lambda event: event.text.id == number) as expected:
            return (await expected.get(timeout=DEADLINE)).text.id

    waiting = [asyncio.create_task(wait_for(number)) for number in range(200)]
    await asyncio.sleep(0)
    for number in reversed(range(200)):
        await router.dispatch(TextSent(text=Text(number)))

    assert await asyncio.gather(*waiting) == list(range(200))


async def test_who_is_cancelled_is_forgotten(router):
    """Cleanly: nothing is left, and no event is lost to others."""

    async def wait():
        async with router.expect(TextSent) as expected:
            await expected.get()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    async with router.expect(TextSent) as expected:
        task.cancel()
        await router.dispatch(SENT)

        assert await expected.get() is SENT
    with pytest.raises(asyncio.CancelledError):
        await task
    assert router._waiters == {}


async def test_nothing_leaks(router):
    """After 100,000 that came, timed out or failed, the router is as it was."""
    gc.collect()
    before = len(gc.get_objects())
    for number in range(100_000):
        async with router.expect(TextSent) as expected:
            if number % 2:
                await router.dispatch(SENT)
            elif number % 100 == 0:
                with pytest.raises(TimeoutError):
                    await expected.get(timeout=0)
    del expected
    gc.collect()

    assert router._waiters == {}
    assert len(gc.get_objects()) - before < 1000
