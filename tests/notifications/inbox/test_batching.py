"""Group commit for the inboxes on a server, without a server; the tests of each engine cover its use of it."""

import asyncio
from collections.abc import Sequence

import pytest

from callfire_async.errors import InboxError, InboxUnavailableError
from callfire_async.notifications.inbox._batching import Batcher

DEADLINE = 60


class Recorder:
    """Writes batches in memory; each write waits until it is allowed."""

    def __init__(self) -> None:
        self.batches: list[list[list[int]]] = []
        self.allowed = asyncio.Event()
        self.started = asyncio.Event()
        self.errors: list[BaseException] = []

    async def write(self, requests: Sequence[Sequence[int]]) -> list[int]:
        self.batches.append([list(items) for items in requests])
        self.started.set()
        await self.allowed.wait()
        if self.errors:
            raise self.errors.pop(0)
        return [item * 10 for items in requests for item in items]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


async def submit_all(batcher: Batcher[int, int], *requests: list[int]) -> list[asyncio.Task[list[int]]]:
    tasks = [asyncio.create_task(batcher.submit(items)) for items in requests]
    await asyncio.sleep(0)
    return tasks


async def outcomes_of(tasks: Sequence[asyncio.Task[list[int]]]) -> list[list[int] | BaseException]:
    async with asyncio.timeout(DEADLINE):
        return await asyncio.gather(*tasks, return_exceptions=True)


async def test_requests_that_arrive_during_a_batch_form_the_next_one(recorder):
    """Each caller gets the results of its own items."""
    batcher = Batcher(recorder.write, max_items=100)
    first = await submit_all(batcher, [1])
    await recorder.started.wait()
    later = await submit_all(batcher, [2, 3], [], [4])
    recorder.allowed.set()

    assert await outcomes_of(first + later) == [[10], [20, 30], [], [40]]
    assert recorder.batches == [[[1]], [[2, 3], [], [4]]]


@pytest.mark.parametrize("limits", [{"max_items": 3}, {"max_items": 100, "max_bytes": 6, "size_of": lambda item: item}])
async def test_a_batch_is_limited_in_items_and_bytes(recorder, limits):
    """A larger request is a batch of its own."""
    batcher = Batcher(recorder.write, **limits)
    recorder.allowed.set()

    await outcomes_of(await submit_all(batcher, [2, 2], [2], [2, 2, 2, 2], [2]))

    assert recorder.batches == [[[2, 2], [2]], [[2, 2, 2, 2]], [[2]]]


async def test_a_request_that_fails_does_not_fail_the_others(recorder):
    """After an error each request is written in a batch of its own."""
    batcher = Batcher(recorder.write, max_items=100)
    refused = InboxError("refused")
    recorder.errors = [InboxError("one of them is refused"), refused]
    recorder.allowed.set()

    assert await outcomes_of(await submit_all(batcher, [1], [2], [3])) == [refused, [20], [30]]
    assert recorder.batches == [[[1], [2], [3]], [[1]], [[2]], [[3]]]


async def test_an_item_that_fails_fails_its_request_only():
    """The write returns an error in the place of a result; the caller gets its first."""
    errors = [KeyError(1), KeyError(2)]

    async def write(requests: Sequence[Sequence[int]]) -> list[int | BaseException]:
        return [errors[item] if item < 2 else item for items in requests for item in items]

    batcher: Batcher[int, int] = Batcher(write, max_items=100)

    assert await outcomes_of(await submit_all(batcher, [2], [0, 3, 1], [4, 5])) == [[2], errors[0], [4, 5]]


async def test_all_requests_fail_if_the_server_is_unavailable(recorder):
    """Each caller gets an error of its own with the same cause, and nothing is written again."""
    batcher = Batcher(recorder.write, max_items=100)
    error = InboxUnavailableError("gone")
    error.__cause__ = OSError()
    recorder.errors = [error]
    recorder.allowed.set()

    first, second = await outcomes_of(await submit_all(batcher, [1], [2]))

    assert (type(first), str(first), first.__cause__) == (InboxUnavailableError, "gone", error.__cause__)
    assert (type(second), first is second, len(recorder.batches)) == (InboxUnavailableError, False, 1)


async def test_cancelling_a_caller_does_not_cancel_the_write(recorder):
    """A request that was not started is dropped; the others get their results."""
    batcher = Batcher(recorder.write, max_items=100)
    started, other = await submit_all(batcher, [1], [2])
    await recorder.started.wait()
    waiting, last = await submit_all(batcher, [3], [4])
    for task in (started, waiting):
        task.cancel()
    recorder.allowed.set()

    assert await outcomes_of([other, last]) == [[20], [40]]
    assert recorder.batches == [[[1], [2]], [[4]]]


@pytest.mark.parametrize("also_refused", [False, True])
async def test_no_caller_waits_forever_if_the_driver_raises_cancelled_error(recorder, also_refused):
    """The callers of the batch and of the next one get an error; a later request is written."""
    batcher = Batcher(recorder.write, max_items=2)
    recorder.errors = [*[InboxError("one of them is refused")] * also_refused, asyncio.CancelledError()]
    recorder.allowed.set()

    interrupted = await outcomes_of(await submit_all(batcher, [1], [2], [3]))

    assert {type(error) for error in interrupted} == {InboxUnavailableError}
    assert await outcomes_of(await submit_all(batcher, [4])) == [[40]]


async def test_closing_waits_for_all_requests(recorder):
    """Closing a batcher without requests returns at once."""
    batcher = Batcher(recorder.write, max_items=1)
    await batcher.close(DEADLINE)
    tasks = await submit_all(batcher, [1], [2])
    recorder.allowed.set()
    async with asyncio.timeout(DEADLINE):
        await batcher.close(DEADLINE)

    assert recorder.batches == [[[1]], [[2]]]
    assert await outcomes_of(tasks) == [[10], [20]]


def test_a_batcher_works_in_several_event_loops(recorder):
    """An inbox may be opened once for each test of an application."""

    async def submit(item: int) -> list[int]:
        recorder.allowed = asyncio.Event()
        recorder.allowed.set()
        recorder.started = asyncio.Event()
        return await batcher.submit([item])

    batcher = Batcher(recorder.write, max_items=1)

    assert [asyncio.run(submit(item)) for item in (1, 2)] == [[10], [20]]
