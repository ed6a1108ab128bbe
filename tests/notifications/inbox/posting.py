"""Somebody who posts to a receiver without end, and notes what is acknowledged."""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from callfire_async.notifications import Notification, Postback, Receiver, Router

# So long may anything take that is bounded by a few seconds, on a machine that has much else to do.
BOUND_SECONDS = 60.0
_POSTERS = 4
_PAUSE_SECONDS = 0.005


class Handled:
    """A router whose handler notes what it was given."""

    def __init__(self) -> None:
        self.router = Router()
        self.counts: Counter[int] = Counter()
        self.router.on(Notification, name="note")(self._note)

    async def _note(self, event: Notification) -> None:
        self.counts[event.text.id] += 1


class Posting:
    """Posts each number once, whatever becomes of it; each answer must come in bounded time."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._numbers = itertools.count()
        #: The numbers that were answered 204.
        self.acknowledged: set[int] = set()
        self.statuses: Counter[int] = Counter()

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """Post until this is left."""
        async with asyncio.TaskGroup() as tasks:
            posting = [tasks.create_task(self._keep_posting()) for _ in range(_POSTERS)]
            yield
            for one in posting:
                one.cancel()

    async def _keep_posting(self) -> None:
        for number in self._numbers:
            body = b'{"TextSent": {"SubscriptionId": 7, "Text": {"@id": %d}}}' % number
            async with asyncio.timeout(BOUND_SECONDS):
                reply = await self._receiver.receive(Postback("POST", None, {}, body))
            self.statuses[reply.status] += 1
            if reply.status == 204:
                self.acknowledged.add(number)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def is_answered(self, more: int) -> None:
        """Wait for so many more answers, whatever they are."""
        wanted = self.statuses.total() + more
        await until(lambda: self.statuses.total() >= wanted)

    async def is_acknowledged(self, more: int) -> None:
        """Wait for so many more acknowledgements."""
        wanted = len(self.acknowledged) + more
        await until(lambda: len(self.acknowledged) >= wanted)

    async def lost(self, handled: Handled) -> set[int]:
        """Wait until all that was acknowledged is handled, or nothing more is; return what is not."""
        try:
            await until(lambda: self.acknowledged <= handled.counts.keys(), lambda: len(handled.counts))
        except TimeoutError:
            return self.acknowledged - handled.counts.keys()
        return set()


async def until(holds: Callable[[], bool], progress: Callable[[], object] = lambda: None) -> None:
    """Wait until something holds; give up where there has been no progress for long."""
    loop = asyncio.get_running_loop()
    seen, deadline = progress(), loop.time() + BOUND_SECONDS
    while not holds():
        if progress() != seen:
            seen, deadline = progress(), loop.time() + BOUND_SECONDS
        if loop.time() > deadline:
            raise TimeoutError(f"nothing has happened for {BOUND_SECONDS:.0f} s")
        await asyncio.sleep(_PAUSE_SECONDS)
