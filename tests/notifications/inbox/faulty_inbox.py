"""An inbox that simulates the failures of a server: unavailable, hanging, or rejecting deliveries."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Self

from callfire_async.errors import InboxError, InboxUnavailableError
from callfire_async.notifications.inbox import AppendResult, Delivery, Inbox, InboxEntry
from callfire_async.notifications.inbox.spool import SpoolingInbox


class FaultyInbox:
    """
    Passes each call to another inbox, unless a failure is set.

    Attributes:
        is_unavailable: Each operation fails, including opening.
        is_hanging: Each new operation hangs until ``resumed`` is set.
        loses_responses: Each operation is carried out, but its response is lost.
        rejected_bodies: Bodies that cannot be appended: `append` raises ``rejection``.
        calls: Names of the operations that were called.
    """

    def __init__(self, inner: Inbox) -> None:
        self.inner = inner
        self.is_unavailable = False
        self.is_hanging = False
        self.loses_responses = False
        self.rejected_bodies: frozenset[bytes] = frozenset()
        self.rejection: Exception = InboxError("the body is too large")
        self.calls: list[str] = []
        self.resumed = asyncio.Event()
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
        self.calls.append(name)
        if self.is_hanging:
            await self.resumed.wait()
        if self.is_unavailable:
            raise InboxUnavailableError("the server is unavailable")
        result = await operation()
        if self.loses_responses:
            await self.resumed.wait()
            raise InboxUnavailableError("connection closed")
        return result

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        operation = getattr(self.inner, name)

        async def call(*arguments: Any, **options: Any) -> Any:
            if name in ("append", "append_many"):
                self._check(arguments[0] if name == "append_many" else [arguments[0]])
            return await self._call(name, lambda: operation(*arguments, **options))

        return call

    def _check(self, deliveries: Sequence[Delivery]) -> None:
        if not self.is_unavailable and self.rejected_bodies & {delivery.body for delivery in deliveries}:
            raise self.rejection

    async def entries(self, state: str | None = None) -> AsyncIterator[InboxEntry]:
        await self._call("entries", _no_operation)
        async for entry in self.inner.entries(state):
            yield entry


async def _no_operation() -> None:
    """Do nothing, when an iteration begins."""


class SpoolFirstInbox(SpoolingInbox):
    """An inbox whose primary is unreachable during each append, and reachable right after it."""

    def __init__(self, primary: FaultyInbox, spool: Inbox) -> None:
        super().__init__(primary, spool, recovery_timeout=0.001)
        self._faulty_primary = primary
        self._appending = asyncio.Lock()

    async def __aenter__(self) -> Self:
        """Wait until the primary is open too."""
        await super().__aenter__()
        await self._wait_until_forwarded()
        return self

    async def _wait_until_forwarded(self) -> None:
        async with asyncio.timeout(60):
            while await self.spooled() or not self._breaker.is_closed:  # noqa: ASYNC110  # there is no event for it
                await asyncio.sleep(0.001)

    async def append(self, delivery: Delivery) -> AppendResult:
        (result,) = await self.append_many([delivery])
        return result

    async def append_many(self, deliveries: Sequence[Delivery]) -> list[AppendResult]:
        """Store deliveries in the spool, wait until they are forwarded, and return the results of the primary."""
        async with self._appending:
            known = {entry.id async for entry in self._faulty_primary.inner.entries()}
            self._faulty_primary.is_unavailable = True
            await super().append_many(deliveries)
            self._faulty_primary.is_unavailable = False
            await self._wait_until_forwarded()
            return await self._results(deliveries, known)

    async def _results(self, deliveries: Sequence[Delivery], known: set[Any]) -> list[AppendResult]:
        ids = defaultdict(list)
        async for entry in self._faulty_primary.inner.entries():
            ids[entry.delivery.key].append(entry.id)
        results = []
        for delivery in deliveries:
            # The first new delivery; without one, the newest delivery, of which this is a duplicate.
            new = [id for id in ids[delivery.key] if id not in known]
            results.append(AppendResult(new[0] if new else ids[delivery.key][-1], duplicate=not new))
            known.add(results[-1].id)
        return results
