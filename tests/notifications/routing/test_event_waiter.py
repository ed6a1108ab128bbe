"""`Router.expect`: wait for a single event."""

import asyncio
import gc

import pytest

from callfire_async import Call, HandlerErrors, ResourceReference, Subscription, Text
from callfire_async.models import Webhook
from callfire_async.notifications import CallFinished, Notification, Router, TextFinished, TextSent

SENT = TextSent(subscription_id=7, text=Text(1))
OTHER = TextSent(subscription_id=8, webhook_id=5, text=Text(2))
CALL = CallFinished(subscription_id=8, call=Call(2))
DEADLINE = 60


@pytest.fixture
def router() -> Router:
    return Router()


def dispatch_soon(router, *events):
    """Dispatch events in a task that starts once the test awaits."""

    async def dispatch() -> None:
        for event in events:
            await router.dispatch(event)

    return asyncio.create_task(dispatch())


async def test_an_event_wakes_its_waiters(router):
    """Those of its type and its base classes, not of another type."""
    async with router.expect(TextFinished) as expected, router.expect(CallFinished) as call:
        task = dispatch_soon(router, SENT)
        event = await expected.get(timeout=DEADLINE)
        await task

        with pytest.raises(TimeoutError):
            await call.get(timeout=0)
    assert event is SENT


async def test_events_within_the_block_are_queued(router):
    """They are collected from the start of the block, in order."""
    async with router.expect(Notification) as expected:
        for event in (SENT, CALL):
            await router.dispatch(event)

        assert [await expected.get(), await expected.get(timeout=DEADLINE)] == [SENT, CALL]


async def test_events_before_the_block_are_not_collected(router):
    """The cause of an event belongs inside the block."""
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
        {"webhook_id": 5},
        {"webhook_id": Webhook(5)},
        {"webhook_id": 6, "subscription_id": 8},
    ],
)
async def test_where_and_subscription_id_select_events(router, choice):
    """As for handlers."""
    async with router.expect(TextSent, **choice) as expected:
        await router.dispatch(SENT)
        await router.dispatch(OTHER)

        assert await expected.get() is OTHER


async def test_an_event_is_collected_once_its_handlers_have_succeeded(router):
    """After a failure it is not collected, because it is retried."""
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
        dispatch_soon(router, SENT)
        await expected.get(timeout=DEADLINE)

    assert len(ran) == 2


async def test_a_where_that_raises_affects_only_its_waiter(router):
    """The dispatch succeeds, and other waiters are woken."""
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
    [
        ({"event_type": str}, TypeError),
        ({"event_type": Notification, "subscription_id": 0}, ValueError),
        ({"event_type": Notification, "webhook_id": "5"}, TypeError),
    ],
)
async def test_an_invalid_argument_raises_at_once(router, arguments, error):
    """As for a handler."""
    with pytest.raises(error):
        async with router.expect(**arguments):
            pass


async def test_many_wait_at_once(router):
    """Each gets its own event."""

    async def wait_for(number):
        async with router.expect(TextSent, where=lambda event: event.text.id == number) as expected:
            return (await expected.get(timeout=DEADLINE)).text.id

    waiting = [asyncio.create_task(wait_for(number)) for number in range(200)]
    await asyncio.sleep(0)
    for number in reversed(range(200)):
        await router.dispatch(TextSent(text=Text(number)))

    assert await asyncio.gather(*waiting) == list(range(200))


async def test_a_cancelled_waiter_is_removed(router):
    """No reference remains, and other waiters lose no event."""

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
    """After 100,000 waits that succeeded or timed out, the router holds no waiters."""
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
