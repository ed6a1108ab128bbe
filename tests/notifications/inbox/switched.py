"""An inbox that fails when it is told to, as one elsewhere does: it is away, hangs, or says no."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Self

from callfire_async.errors import InboxError, InboxUnavailableError
from callfire_async.notifications.inbox import AppendResult, Delivery, Inbox, InboxEntry
from callfire_async.notifications.inbox.spool import SpoolingInbox


class SwitchedInbox:
    """
    Passes everything on, unless a switch is set.

    Attributes:
        away: Every operation fails, opening too.
        hangs: Every operation that is begun stays silent until this is over.
        forgets: What is asked is done, and the answer is lost.
        refuses: Bodies that are not taken.
        asked: The names of the operations that came here.
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
        await self._pass("open", self.inner.__aenter__)
        self.is_open = True
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._pass("close", lambda: self.inner.__aexit__(None, None, None))
        self.is_open = False

    async def _pass(self, name: str, operation: Callable[[], Awaitable[Any]]) -> Any:
        self.asked.append(name)
        if self.hangs:
            await self.went_on.wait()
        if self.away:
            raise InboxUnavailableError("it is away")
        answer = await operation()
        if self.forgets:
            await self.went_on.wait()
            raise InboxUnavailableError("it broke off")
        return answer

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        operation = getattr(self.inner, name)

        async def passed(*arguments: Any, **options: Any) -> Any:
            if name in ("append", "append_many"):
                self._check(arguments[0] if name == "append_many" else [arguments[0]])
            return await self._pass(name, lambda: operation(*arguments, **options))

        return passed

    def _check(self, deliveries: Sequence[Delivery]) -> None:
        if not self.away and self.refuses & {delivery.body for delivery in deliveries}:
            raise self.refusal

    async def entries(self, state: str | None = None) -> AsyncIterator[InboxEntry]:
        await self._pass("entries", _nothing)
        async for entry in self.inner.entries(state):
            yield entry


async def _nothing() -> None:
    """Be the operation of a question that begins."""


class ThroughTheSpool(SpoolingInbox):
    """An inbox whose primary is away whenever something is appended, and back right after that."""

    def __init__(self, primary: SwitchedInbox, spool: Inbox) -> None:
        super().__init__(primary, spool, recovery_timeout=0.001)
        self._switch = primary
        self._appending = asyncio.Lock()

    async def __aenter__(self) -> Self:
        """Wait until the primary is open too, however slow the disk is."""
        await super().__aenter__()
        await self._reached()
        return self

    async def _reached(self) -> None:
        async with asyncio.timeout(60):
            while await self.spooled() or not self._breaker.is_closed:  # noqa: ASYNC110  # nobody says when
                await asyncio.sleep(0.001)

    async def append(self, delivery: Delivery) -> AppendResult:
        (appended,) = await self.append_many([delivery])
        return appended

    async def append_many(self, deliveries: Sequence[Delivery]) -> list[AppendResult]:
        """Spool, wait until it is forwarded, and say what became of it there."""
        async with self._appending:
            known = {entry.id async for entry in self._switch.inner.entries()}
            self._switch.away = True
            await super().append_many(deliveries)
            self._switch.away = False
            await self._reached()
            return await self._forwarded(deliveries, known)

    async def _forwarded(self, deliveries: Sequence[Delivery], known: set[Any]) -> list[AppendResult]:
        ids = defaultdict(list)
        async for entry in self._switch.inner.entries():
            ids[entry.delivery.key].append(entry.id)
        appended = []
        for delivery in deliveries:
            # The first that is new, or else the newest, of which this is a repeat.
            new = [id for id in ids[delivery.key] if id not in known]
            appended.append(AppendResult(new[0] if new else ids[delivery.key][-1], duplicate=not new))
            known.add(appended[-1].id)
        return appended
