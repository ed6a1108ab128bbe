"""Coroutines whose first step runs at once, in which the receiver reads bodies and stores deliveries."""

import asyncio
import contextlib
import sys

import pytest

from callfire_async.notifications import MemoryInbox, Postback, Receiver, Router
from callfire_async.notifications._eager_start import run_within, start_task

BODY = b'{"TextSent":{"SubscriptionId":1,"Text":{"@id":42}}}'


async def double(number: int, steps: list[str], turns: int = 0) -> int:
    steps.append("started")
    for _ in range(turns):
        await asyncio.sleep(0)
    return 2 * number


@pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio has no eager start")
async def test_a_coroutine_that_does_not_wait_is_done_at_once():
    """It needs no iteration of the event loop."""
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


@pytest.mark.parametrize("turns", [0, 1, 3])
async def test_a_coroutine_runs_within_its_time(turns):
    """In the task that awaits it, whether it has to wait or not."""
    tasks = []

    async def current() -> int:
        tasks.append(asyncio.current_task())
        return await double(21, [], turns)

    assert await run_within(60.0, current()) == 42
    assert tasks == [asyncio.current_task()]


async def test_a_coroutine_that_takes_too_long_is_cancelled():
    """It can clean up."""
    steps = []

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await double(1, steps, turns=2)
            raise

    with pytest.raises(TimeoutError):
        await run_within(0.0, wait())

    assert steps == ["started"]


@pytest.mark.parametrize("turns", [0, 1])
async def test_an_error_of_the_coroutine_is_raised(turns):
    """As if it was awaited directly."""

    async def fail() -> None:
        await double(1, [], turns)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await run_within(60.0, fail())


async def test_a_coroutine_may_ignore_an_error():
    """What it returns then is the result."""

    async def ignore() -> str:
        with contextlib.suppress(LookupError):
            await waiting
        return "done"

    waiting = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(waiting.set_exception, LookupError())

    assert await run_within(60.0, ignore()) == "done"


async def test_a_request_that_is_cancelled_right_after_its_body_was_read_is_stored(router: Router, events):
    """The client may disconnect as soon as it has sent everything."""
    arrived = asyncio.get_running_loop().create_future()

    async def chunks():
        yield await arrived

    async with Receiver(router, tokens=None, inbox=MemoryInbox()) as receiver:
        receiving = asyncio.create_task(receiver.receive(Postback("POST", None, {}, chunks())))
        await asyncio.sleep(0)
        arrived.set_result(BODY)
        await asyncio.sleep(0)
        receiving.cancel()
        await asyncio.wait([receiving])
        await receiver.idle(timeout=20)

    assert [event.key for event in events] == [("text", 42, "")]


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

    assert timeouts.count(5.0) == 1
    assert len(events) == 2


async def test_a_cancelled_request_stops_reading_its_body(router: Router, events):
    """Nothing reads the connection any more."""
    ended = asyncio.Event()

    async def chunks():
        try:
            yield BODY[:10]
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with Receiver(router, tokens=None) as receiver:
        receiving = asyncio.create_task(receiver.receive(Postback("POST", None, {}, chunks())))
        await asyncio.sleep(0)
        receiving.cancel()
        await asyncio.wait([receiving])

    assert (receiving.cancelled(), ended.is_set(), events) == (True, True, [])
