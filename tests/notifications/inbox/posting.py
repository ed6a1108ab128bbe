"""A load generator that posts to a receiver and records which deliveries are acknowledged."""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from callfire_async.notifications import Notification, Postback, Receiver, Router

# A limit for operations that take a few seconds at most, on a busy machine.
BOUND_SECONDS = 120.0
_POSTERS = 4
_PAUSE_SECONDS = 0.005


class Handled:
    """A router whose handler counts the events by text ID."""

    def __init__(self) -> None:
        self.router = Router()
        self.counts: Counter[int] = Counter()
        self.router.on(Notification, name="count")(self._count)

    async def _count(self, event: Notification) -> None:
        self.counts[event.text.id] += 1


class Posting:
    """Posts each number once; each reply must arrive in bounded time."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._numbers = itertools.count()
        #: The numbers whose reply was 204.
        self.acknowledged: set[int] = set()
        self.statuses: Counter[int] = Counter()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Post until the context ends."""
        async with asyncio.TaskGroup() as tasks:
            posters = [tasks.create_task(self._post_numbers()) for _ in range(_POSTERS)]
            yield
            for poster in posters:
                poster.cancel()

    async def _post_numbers(self) -> None:
        for number in self._numbers:
            body = b'{"TextSent": {"SubscriptionId": 7, "Text": {"@id": %d}}}' % number
            async with asyncio.timeout(BOUND_SECONDS):
                reply = await self._receiver.receive(Postback("POST", None, {}, body))
            self.statuses[reply.status] += 1
            if reply.status == 204:
                self.acknowledged.add(number)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def wait_for_replies(self, more: int) -> None:
        """Wait for *more* further replies of any status."""
        wanted = self.statuses.total() + more
        await until(lambda: self.statuses.total() >= wanted)

    async def wait_for_acknowledged(self, more: int) -> None:
        """Wait for *more* further deliveries to be acknowledged."""
        wanted = len(self.acknowledged) + more
        await until(lambda: len(self.acknowledged) >= wanted)

    async def find_lost(self, handled: Handled) -> set[int]:
        """Wait until all acknowledged deliveries are handled, or no more are; return those that are not."""
        try:
            await until(lambda: self.acknowledged <= handled.counts.keys(), lambda: len(handled.counts))
        except TimeoutError:
            return self.acknowledged - handled.counts.keys()
        return set()


async def until(condition: Callable[[], bool], progress: Callable[[], object] = lambda: None) -> None:
    """Wait until a condition is true; raise `TimeoutError` after a long time without progress."""
    loop = asyncio.get_running_loop()
    last, deadline = progress(), loop.time() + BOUND_SECONDS
    while not condition():
        if progress() != last:
            last, deadline = progress(), loop.time() + BOUND_SECONDS
        if loop.time() > deadline:
            raise TimeoutError(f"no progress for {BOUND_SECONDS:.0f} s")
        await asyncio.sleep(_PAUSE_SECONDS)
