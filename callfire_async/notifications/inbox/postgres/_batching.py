"""
What several callers append at once is kept together.

It imports `errors` and the protocol.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import TypeAlias

from attrs import frozen

from callfire_async.errors import InboxError, InboxUnavailableError
from callfire_async.notifications.inbox.base import AppendResult, Delivery

Keep: TypeAlias = Callable[[Sequence[Delivery]], Awaitable[list[AppendResult]]]

# One statement for more than this would let the first of them wait for the last.
_GROUP_DELIVERIES = 500
_GROUP_BYTES = 4 * 1024 * 1024


@frozen(eq=False)
class _PendingAppend:
    """What one caller appends, all or none."""

    deliveries: Sequence[Delivery]
    appended: asyncio.Future[list[AppendResult]]

    @property
    def size(self) -> int:
        return sum(len(delivery.body) for delivery in self.deliveries)

    def tell(self, appended: list[AppendResult]) -> None:
        if not self.appended.done():
            self.appended.set_result(appended)

    def fail(self, error: Exception) -> None:
        if not self.appended.done():
            self.appended.set_exception(error)


class AppendBatcher:
    """
    Keeps what has gathered while the last group was committed.

    Many callers share a commit, and one by itself waits for nobody. A caller that is cancelled leaves the others as
    they are; what it appended may be kept or not.

    Args:
        keep: Keeps several, all or none; in order.
    """

    def __init__(self, keep: Keep) -> None:
        self._keep = keep
        self._jobs: deque[_PendingAppend] = deque()
        self._keeping: asyncio.Task[None] | None = None

    async def append(self, deliveries: Sequence[Delivery]) -> list[AppendResult]:
        """Keep these, all or none, with what others append now."""
        job = _PendingAppend(deliveries, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        if self._keeping is None:
            self._keeping = asyncio.create_task(self._flush_loop())
        return await job.appended

    async def finish(self) -> None:
        """Wait until all that was asked for is kept, or has failed."""
        if self._keeping is not None:
            await asyncio.wait([self._keeping])

    async def _flush_loop(self) -> None:
        try:
            while jobs := self._next_group():
                await self._keep_all(jobs)
        finally:
            self._keeping = None

    def _next_group(self) -> list[_PendingAppend]:
        group: list[_PendingAppend] = []
        deliveries = size = 0
        while self._jobs:
            deliveries, size = deliveries + len(self._jobs[0].deliveries), size + self._jobs[0].size
            if group and (deliveries > _GROUP_DELIVERIES or size > _GROUP_BYTES):
                break
            job = self._jobs.popleft()
            if not job.appended.done():
                group.append(job)
        return group

    async def _keep_all(self, jobs: list[_PendingAppend]) -> None:
        try:
            appended = iter(await self._keep([delivery for job in jobs for delivery in job.deliveries]))
        except asyncio.CancelledError:
            # A driver that gives up looks like this too: nobody must wait for ever.
            for job in [*jobs, *self._jobs]:
                job.fail(InboxUnavailableError("what was to be kept was broken off; it may have been kept"))
            raise
        except InboxUnavailableError as error:
            for job in jobs:
                job.fail(_copy(error))
        except Exception as error:  # noqa: BLE001  # whatever it is belongs to whoever waits for it
            await self._append_individually(jobs, error)
        else:
            for job in jobs:
                job.tell(list(islice(appended, len(job.deliveries))))

    async def _append_individually(self, jobs: list[_PendingAppend], error: Exception) -> None:
        """Let what cannot be kept fail alone."""
        if len(jobs) == 1:
            jobs[0].fail(error)
            return
        for job in jobs:
            await self._keep_all([job])


def _copy(error: InboxError) -> InboxError:
    """Return an error of a caller's own: each adds to it where it came by."""
    copied = type(error)(*error.args)
    copied.__cause__ = error.__cause__
    return copied
