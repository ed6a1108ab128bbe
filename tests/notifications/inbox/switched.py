"""An inbox with switches for the failures of a server: unreachable, hanging, or refusing."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Self

from callfire_async.errors import InboxError, InboxUnavailableError
from callfire_async.notifications.inbox import AppendResult, Delivery, Inbox, InboxEntry
from callfire_async.notifications.inbox.spool import SpoolingInbox


class SwitchedInbox:
    """
    Passes each call to another inbox, unless a switch is set.

    Attributes:
        away: Each operation fails, opening included.
        hangs: Each new operation hangs until ``went_on`` is set.
        forgets: Each operation is carried out, but its response is lost.
        refuses: Bodies that cannot be appended.
        asked: Names of the operations that were called.
    """

    def __init__(self, inner: Inbox) -> None:
        self.inner = inner
        self.away = False
        self.hangs = False
        self.forgets = False
        self.refuses: frozenset[bytes] = frozenset()
        self.refusal: Exception = InboxError("it does not fit")
        self.asked: list[str] = []
        self.went_on = asyncio.Event()
        self.is_open = False

    @property
    def retention(self) -> float:
        return self.inner.retention

    async def __aenter__(self) -> Self:
        await self._call("open", self.inner.__aenter__)
        self.is_open = True
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._call("close", lambda: self.inner.__aexit__(None, None, None))
        self.is_open = False

    async def _call(self, name: str, operation: Callable[[], Awaitable[Any]]) -> Any:
        self.asked.append(name)
        if self.hangs:
            await self.went_on.wait()
        if self.away:
            raise InboxUnavailableError("it is away")
        result = await operation()
        if self.forgets:
            await self.went_on.wait()
            raise InboxUnavailableError("it broke off")
        return result

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        operation = getattr(self.inner, name)

        async def call(*arguments: Any, **options: Any) -> Any:
            if name in ("append", "append_many"):
                self._check(arguments[0] if name == "append_many" else [arguments[0]])
            return await self._call(name, lambda: operation(*arguments, **options))

        return call

    def _check(self, deliveries: Sequence[Delivery]) -> None:
        if not self.away and self.refuses & {delivery.body for delivery in deliveries}:
            raise self.refusal

    async def entries(self, state: str | None = None) -> AsyncIterator[InboxEntry]:
        await self._call("entries", _no_operation)
        async for entry in self.inner.entries(state):
            yield entry


async def _no_operation() -> None:
    """Do nothing: the operation of an iteration that begins."""


class ThroughTheSpool(SpoolingInbox):
    """An inbox whose primary is unreachable during each append, and reachable right after it."""

    def __init__(self, primary: SwitchedInbox, spool: Inbox) -> None:
        super().__init__(primary, spool, recovery_timeout=0.001)
        self._switch = primary
        self._appending = asyncio.Lock()

    async def __aenter__(self) -> Self:
        """Wait until the primary is open too."""
        await super().__aenter__()
        await self._forwarded_all()
        return self

    async def _forwarded_all(self) -> None:
        async with asyncio.timeout(60):
            while await self.spooled() or not self._breaker.is_closed:  # noqa: ASYNC110  # there is no event for it
                await asyncio.sleep(0.001)

    async def append(self, delivery: Delivery) -> AppendResult:
        (result,) = await self.append_many([delivery])
        return result

    async def append_many(self, deliveries: Sequence[Delivery]) -> list[AppendResult]:
        """Store deliveries in the spool, wait until they are forwarded, and return the results of the primary."""
        async with self._appending:
            known = {entry.id async for entry in self._switch.inner.entries()}
            self._switch.away = True
            await super().append_many(deliveries)
            self._switch.away = False
            await self._forwarded_all()
            return await self._results(deliveries, known)

    async def _results(self, deliveries: Sequence[Delivery], known: set[Any]) -> list[AppendResult]:
        ids = defaultdict(list)
        async for entry in self._switch.inner.entries():
            ids[entry.delivery.key].append(entry.id)
        results = []
        for delivery in deliveries:
            # The first new delivery; without one, the newest delivery, of which this is a duplicate.
            new = [id for id in ids[delivery.key] if id not in known]
            results.append(AppendResult(new[0] if new else ids[delivery.key][-1], duplicate=not new))
            known.add(results[-1].id)
        return results
