"""
`SpoolingInbox`: an inbox elsewhere, and one on this machine's disk for when that cannot be reached.

It imports `errors`, the protocol, the primary as it is asked, and what forwards to it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import datetime
from types import TracebackType
from typing import Self, TypeVar

from attrs import evolve

from callfire_async.errors import InboxError
from callfire_async.notifications.inbox.base import AppendResult, Delivery, Inbox, InboxEntry, InboxStats, Lease
from callfire_async.notifications.inbox.spool._circuit_breaker import CircuitBreaker
from callfire_async.notifications.inbox.spool._forwarder import SpoolForwarder

__all__ = ["SpoolingInbox"]

T = TypeVar("T")

_log = logging.getLogger("callfire_async.inbox")

_PREFIX = "spool/"


class SpoolingInbox:
    """
    An inbox elsewhere, and one on this machine's disk for when that cannot be reached.

    A delivery goes to the primary. Where that fails, or does not answer within *timeout*, or has failed so often that
    it is not asked at present, the spool keeps it: either way it is durable when ``append`` returns. In the background
    the spool is emptied into the primary, with the same keys and times, in order of arrival; it may be opened while the
    primary is away. What a primary that takes others refuses five times becomes a dead letter of the spool.

    All else is the primary's: while that is away, it raises `InboxUnavailableError`. What is spooled counts as ready,
    is listed after what the primary has, and has ids that begin with ``spool/``; once it is forwarded it has the
    primary's id.

    At least once: where the primary took a delivery but could not say so, the spool has it too, and the primary finds
    the repeat if it is forwarded within its ``dedupe_window``.

    Args:
        primary: Where deliveries belong; opened and closed here.
        spool: Where they wait: a `SqliteInbox`, or one ``in_directory`` for several processes. Opened and closed here.
        timeout: Seconds for the primary to keep a delivery, and to be opened at the start.
        operation_timeout: Seconds for everything else that it is asked, and for a hundred deliveries that are forwarded.
        failure_threshold: So many in a row, and the primary is not asked until it has answered a probe.
        recovery_timeout: Seconds until that probe; doubled with each that fails, up to 30.
        drain_timeout: Seconds for what is spooled to be forwarded when this is closed. What is left waits for the next start.
        sleep: Lets time pass between probes.

    Raises:
        ValueError: One of these is not positive; *drain_timeout* may be 0.
    """

    def __init__(
        self,
        primary: Inbox,
        spool: Inbox,
        *,
        timeout: float = 2.0,
        operation_timeout: float = 30.0,
        failure_threshold: int = 3,
        recovery_timeout: float = 2.0,
        drain_timeout: float = 5.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        _check_positive(
            timeout=timeout,
            operation_timeout=operation_timeout,
            failure_threshold=failure_threshold,
            recovery_timeout=recovery_timeout,
        )
        if not drain_timeout >= 0:
            raise ValueError("drain_timeout must not be negative")
        self._primary = CircuitBreaker(
            primary, failure_threshold=failure_threshold, operation_timeout=operation_timeout
        )
        self._spool = spool
        self._forwarder = SpoolForwarder(
            spool, self._primary, operation_timeout=operation_timeout, recovery_timeout=recovery_timeout, sleep=sleep
        )
        self._timeout = timeout
        self._operation_timeout = operation_timeout
        self._drain_timeout = drain_timeout
        self._closing = AsyncExitStack()

    @property
    def accepts_during_outage(self) -> bool:
        """Whether deliveries are kept while nothing can be settled: a receiver in front of it stays ready."""
        return True

    @property
    def retention(self) -> float | None:
        """Seconds for which the primary keeps the keys of what is done; None where it does not say."""
        return getattr(self._primary.inbox, "retention", None)

    @property
    def spool(self) -> Inbox:
        """What keeps deliveries while the primary is away: to look at it then."""
        return self._spool

    async def spooled(self) -> int:
        """Return how many deliveries wait in the spool."""
        return _waiting(await self._spool.stats())

    # --- lifecycle ----------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """
        Open the spool, and the primary where that can be done; else that is tried again in the background.

        Raises:
            InboxError: The spool cannot be opened.
        """
        async with AsyncExitStack() as opened:
            await opened.enter_async_context(self._spool)
            opened.push_async_callback(self._log_remaining)
            await self._forwarder.start(self._timeout)
            opened.push_async_callback(self._forwarder.stop, self._drain_timeout)
            self._closing = opened.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Forward what can be forwarded, close the primary, then the spool."""
        await self._closing.aclose()

    async def _log_remaining(self) -> None:
        # Where it cannot be counted it says so itself, and is to be closed.
        with suppress(InboxError):
            if count := await self.spooled():
                _log.warning("deliveries that stay in the spool until the next start: %d", count)

    async def _ask(self, question: Callable[[Inbox], Awaitable[T]]) -> T:
        return await self._primary.ask(question, self._operation_timeout)

    # --- taking in ----------------------------------------------------------------------------------------

    async def append(self, delivery: Delivery) -> AppendResult:
        """
        Keep a delivery in the primary, or in the spool.

        Raises:
            InboxError: Neither could keep it.
        """
        try:
            appended = await self._primary.ask(lambda primary: primary.append(delivery), self._timeout)
        except InboxError:
            return _named(await self._spool.append(delivery))
        self._forwarder.note_taken()
        return appended

    async def append_many(self, deliveries: Sequence[Delivery]) -> list[AppendResult]:
        """
        Keep several in the primary, or in the spool: all or none.

        Raises:
            InboxError: Neither could keep them.
        """
        try:
            appended = await self._primary.ask(lambda primary: primary.append_many(deliveries), self._timeout)
        except InboxError:
            return [_named(one) for one in await self._spool.append_many(deliveries)]
        self._forwarder.note_taken()
        return appended

    # --- handing out and settling -------------------------------------------------------------------------

    async def claim(self, limit: int, *, lease: float) -> list[Lease]:
        """Hand out what is due in the primary; what it hands out too late goes back."""
        return await self._primary.ask(
            lambda primary: primary.claim(limit, lease=lease), self._operation_timeout, late=self._put_back
        )

    async def _put_back(self, leases: Sequence[Lease]) -> None:
        for lease in leases:
            await self._primary.inbox.release(lease)

    async def extend(self, lease: Lease, seconds: float) -> bool:
        """Let a lease end so many seconds from now."""
        return await self._ask(lambda primary: primary.extend(lease, seconds))

    async def ack(self, lease: Lease, *, event_key: str = "") -> bool:
        """Note that a delivery was handled."""
        return await self._ask(lambda primary: primary.ack(lease, event_key=event_key))

    async def nack(
        self, lease: Lease, *, delay: float, completed: frozenset[str] = frozenset(), reason: str = ""
    ) -> bool:
        """Put a delivery back for another attempt."""
        return await self._ask(lambda primary: primary.nack(lease, delay=delay, completed=completed, reason=reason))

    async def release(self, lease: Lease, *, completed: frozenset[str] = frozenset()) -> bool:
        """Put a delivery back at once."""
        return await self._ask(lambda primary: primary.release(lease, completed=completed))

    async def dead_letter(self, lease: Lease, reason: str) -> bool:
        """Make a delivery a dead letter."""
        return await self._ask(lambda primary: primary.dead_letter(lease, reason))

    # --- looking after it ---------------------------------------------------------------------------------

    async def handled(self, event_keys: Iterable[str]) -> frozenset[str]:
        """Return which of these events were acked; what is spooled has not been handled."""
        keys = list(event_keys)
        return await self._ask(lambda primary: primary.handled(keys))

    async def get(self, id: int | str) -> InboxEntry | None:
        """Return what is known of one delivery; of one with an id of the spool also while the primary is away."""
        inner = _spool_id(id)
        if inner is None:
            return await self._ask(lambda primary: primary.get(id))
        entry = await self._spool.get(inner)
        return None if entry is None else _shown(entry)

    async def entries(self, state: str | None = None) -> AsyncIterator[InboxEntry]:
        """Iterate over the deliveries: those of the primary, then what is spooled."""
        primary = self._primary.inbox.entries(state)
        while (entry := await self._ask(lambda _: anext(primary, None))) is not None:
            try:
                yield entry
            except GeneratorExit:
                await self._end(primary)
                raise
        async for spooled in self._spool.entries():
            shown = _shown(spooled)
            if shown is not None and state in (None, shown.state):
                yield shown

    async def _end(self, listing: AsyncIterator[InboxEntry]) -> None:
        """End a listing of the primary's that nobody reads on, where it can be; it may hold a connection."""
        if isinstance(listing, AsyncGenerator):
            # Not asked as all else is: that it ends says nothing of how the primary is.
            with suppress(Exception):
                async with asyncio.timeout(self._operation_timeout):
                    await listing.aclose()

    async def replay(self, ids: Iterable[int | str] | None = None) -> int:
        """Make dead letters ready again; those of the spool are sent to the primary again."""
        if ids is None:
            return await self._ask(lambda primary: primary.replay()) + await self._spool.replay()
        wanted = list(ids)
        own = [id for id in wanted if _spool_id(id) is None]
        spooled = [inner for inner in map(_spool_id, wanted) if inner is not None]
        replayed = await self._ask(lambda primary: primary.replay(own)) if own else 0
        return replayed + await self._spool.replay(spooled)

    async def purge(self, *, done_before: datetime | None = None, dead_before: datetime | None = None) -> int:
        """Delete what was done, or buried, before a time."""
        if done_before is None and dead_before is None:
            raise TypeError("say done_before, dead_before or both")
        purged = await self._ask(lambda primary: primary.purge(done_before=done_before, dead_before=dead_before))
        return purged + (0 if dead_before is None else await self._spool.purge(dead_before=dead_before))

    async def stats(self) -> InboxStats:
        """Count; what is spooled is ready, or delayed where the primary has refused it."""
        there = await self._ask(lambda primary: primary.stats())
        here = await self._spool.stats()
        ages = [stats.oldest_ready_age for stats in (there, here) if stats.oldest_ready_age is not None]
        return evolve(
            there,
            # Leased is what is about to be forwarded.
            ready=there.ready + here.ready + here.leased,
            delayed=there.delayed + here.delayed,
            dead=there.dead + here.dead,
            oldest_ready_age=max([*ages, *self._forwarder.held_ages()], default=None),
        )

    async def wait(self, timeout: float) -> None:
        """Wait until there may be work; where the primary is away, until it is back."""
        self._primary.recovered.clear()
        waits = [asyncio.ensure_future(self._recovered())]
        if self._primary.is_reachable:
            within = timeout + self._operation_timeout
            waits.append(asyncio.ensure_future(self._primary.ask(lambda primary: primary.wait(timeout), within)))
        try:
            # The first does not end by itself, the second does.
            done, _ = await asyncio.wait(
                waits, timeout=timeout if len(waits) == 1 else None, return_when=asyncio.FIRST_COMPLETED
            )
            for one in done:
                one.result()
        finally:
            for one in waits:
                one.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def _recovered(self) -> None:
        await self._primary.recovered.wait()


def _waiting(stats: InboxStats) -> int:
    return stats.ready + stats.delayed + stats.leased


def _spool_id(id: int | str) -> str | None:
    """Return an id of the spool as the spool knows it; None for one of the primary."""
    text = str(id)
    return text.removeprefix(_PREFIX) if text.startswith(_PREFIX) else None


def _named(appended: AppendResult) -> AppendResult:
    return evolve(appended, id=f"{_PREFIX}{appended.id}")


def _shown(entry: InboxEntry) -> InboxEntry | None:
    """Show what is spooled as it is to whoever looks at the whole; None for what the primary has by now."""
    if entry.state == "done":
        return None
    # Leased is what is about to be forwarded.
    return evolve(entry, id=f"{_PREFIX}{entry.id}", state="ready" if entry.state == "leased" else entry.state)


def _check_positive(**limits: float) -> None:
    for name, limit in limits.items():
        if not limit > 0:
            raise ValueError(f"{name} must be more than 0")
