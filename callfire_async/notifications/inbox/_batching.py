"""Group commit for inboxes on a server: requests that arrive while a batch is in flight form the next batch."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Generic, TypeAlias, TypeVar

from attrs import field, frozen

from callfire_async.errors import InboxUnavailableError
from callfire_async.notifications.inbox._cancellation import cancel_repeatedly

__all__ = ["Batcher"]

Item = TypeVar("Item")
Result = TypeVar("Result")
Write: TypeAlias = Callable[[Sequence[Sequence[Item]]], Awaitable[Sequence[Result | BaseException]]]


@frozen(eq=False)
class _Request(Generic[Item, Result]):
    items: Sequence[Item]
    future: asyncio.Future[list[Result]] = field(factory=lambda: asyncio.get_running_loop().create_future())

    def resolve(self, outcomes: Sequence[Result | BaseException]) -> None:
        """Return the results to the caller, or raise the first error there."""
        errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        if self.future.done():
            return
        if errors:
            self.future.set_exception(errors[0])
        else:
            self.future.set_result([outcome for outcome in outcomes if not isinstance(outcome, BaseException)])


class Batcher(Generic[Item, Result]):
    """
    Writes the requests of concurrent callers in batches, one batch at a time.

    A single request is written at once. Cancelling a caller does not cancel a batch that was started.

    Args:
        write: Writes the items of a batch, given for each request, and returns a result or an error for each item. If
            it raises, each request is written again in a batch of its own, unless the server is unavailable.
        max_items: Number of items in a batch of several requests.
        max_bytes: Size of a batch of several requests.
        size_of: Returns the size of an item in bytes.
    """

    def __init__(
        self,
        write: Write[Item, Result],
        *,
        max_items: int,
        max_bytes: int = sys.maxsize,
        size_of: Callable[[Item], int] = lambda _: 0,
    ) -> None:
        self._write = write
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._size_of = size_of
        self._pending: deque[_Request[Item, Result]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def submit(self, items: Sequence[Item]) -> list[Result]:
        """Write *items* in one batch, with those of other callers, and return their results in order."""
        request = _Request[Item, Result](items)
        self._pending.append(request)
        if self._task is None:
            self._task = asyncio.create_task(self._flush())
        return await request.future

    async def close(self, seconds: float) -> None:
        """Wait up to *seconds* until every request is written or has failed; the others fail then."""
        task = self._task
        if task is not None:
            try:
                await asyncio.wait([task], timeout=seconds)
            finally:
                await cancel_repeatedly([task])

    async def _flush(self) -> None:
        batch: list[_Request[Item, Result]] = []
        try:
            while batch := self._next_batch():
                await self._write_batch(batch)
        finally:
            # A driver may raise CancelledError of its own, and no caller may wait forever.
            self._task = None
            for request in (*batch, *self._pending):
                request.resolve([InboxUnavailableError("the write was interrupted and may have been stored")])
            self._pending.clear()

    def _next_batch(self) -> list[_Request[Item, Result]]:
        batch: list[_Request[Item, Result]] = []
        count = size = 0
        while self._pending:
            items = self._pending[0].items
            count, size = count + len(items), size + sum(map(self._size_of, items))
            if batch and (count > self._max_items or size > self._max_bytes):
                break
            request = self._pending.popleft()
            if not request.future.done():
                batch.append(request)
        return batch

    async def _write_batch(self, batch: Sequence[_Request[Item, Result]]) -> None:
        try:
            outcomes = iter(await self._write([request.items for request in batch]))
        except InboxUnavailableError as error:
            for request in batch:
                request.resolve([_copy(error)])
        except Exception as error:  # noqa: BLE001  # raised in the callers
            await self._write_individually(batch, error)
        else:
            for request in batch:
                request.resolve(list(islice(outcomes, len(request.items))))

    async def _write_individually(self, batch: Sequence[_Request[Item, Result]], error: Exception) -> None:
        if len(batch) == 1:
            batch[0].resolve([error])
            return
        for request in batch:
            await self._write_batch([request])


def _copy(error: InboxUnavailableError) -> InboxUnavailableError:
    """Return a copy to raise in one caller, because raising adds to an error's traceback."""
    copied = type(error)(*error.args)
    copied.__cause__ = error.__cause__
    return copied
