"""Tasks whose first step runs at once, in which the receiver reads bodies and stores deliveries."""

import asyncio
import sys

import pytest

from callfire_async.notifications import Postback, Receiver, Router
from callfire_async.notifications._eager_start import start_task

BODY = b'{"TextSent":{"SubscriptionId":1,"Text":{"@id":42}}}'


async def double(number: int, steps: list[str], turns: int = 0) -> int:
    steps.append("started")
    for _ in range(turns):
        await asyncio.sleep(0)
    return 2 * number


@pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio has no eager start")
async def test_a_coroutine_that_does_not_wait_is_done_at_once():
    """It needs no turn of the event loop."""
    assert start_task(double(21, [])).result() == 42


@pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio has no eager start")
async def test_a_coroutine_that_waits_has_begun():
    """The rest runs like any other task."""
    task = start_task(double(21, steps := [], turns=1))

    assert (task.done(), steps) == (False, ["started"])
    assert await task == 42


async def test_a_task_factory_creates_each_task():
    """An application may follow its tasks with one."""
    created = []

    def create(loop: asyncio.AbstractEventLoop, coroutine, **options):
        created.append(coroutine.__qualname__)
        return asyncio.Task(coroutine, loop=loop, **options)

    asyncio.get_running_loop().set_task_factory(create)
    task = start_task(double(21, steps := []))

    assert (steps, created) == ([], ["double"])
    assert await task == 42


async def test_an_exception_is_raised_where_the_task_is_awaited():
    """Also if the first step raises it."""

    async def fail() -> None:
        raise ValueError("no")

    task = start_task(fail())

    with pytest.raises(ValueError, match="no"):
        await task


async def test_a_body_that_has_arrived_sets_no_timer(monkeypatch, router: Router, events):
    """A time limit costs about as much as the rest of the validation."""
    timeouts = []
    monkeypatch.setattr(
        asyncio, "timeout", lambda seconds, timeout=asyncio.timeout: timeouts.append(seconds) or timeout(seconds)
    )

    async def chunks(turns: int):
        yield BODY[:10]
        for _ in range(turns):
            await asyncio.sleep(0)
        yield BODY[10:]

    async with Receiver(router, tokens=None, body_timeout=5.0, handler_timeout=None) as receiver:
        for turns in (0, 1):
            assert (await receiver.receive(Postback("POST", None, {}, chunks(turns)))).status == 204

    assert timeouts.count(5.0) == (1 if sys.version_info >= (3, 12) else 2)
    assert len(events) == 2


async def test_a_cancelled_request_stops_reading_its_body(router: Router, events):
    """Nothing reads the connection any more."""
    begun, ended = asyncio.Event(), asyncio.Event()

    async def chunks():
        try:
            yield BODY[:10]
            begun.set()
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with Receiver(router, tokens=None) as receiver:
        receiving = asyncio.create_task(receiver.receive(Postback("POST", None, {}, chunks())))
        await begun.wait()
        receiving.cancel()
        await asyncio.wait([receiving])

    assert (receiving.cancelled(), ended.is_set(), events) == (True, True, [])
