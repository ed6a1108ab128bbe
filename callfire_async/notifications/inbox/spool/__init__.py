"""`SpoolingInbox`: a primary inbox with a local spool for outages."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import datetime
from types import TracebackType
from typing import Self, TypeVar

from attrs import evolve

from callfire_async._arguments import check_integer
from callfire_async.errors import InboxError
from callfire_async.notifications.inbox._inbox_arguments import (
    check_inbox,
    check_positive,
    check_primary,
    check_seconds,
    checked_list,
)
from callfire_async.notifications.inbox.base import (
    AppendResult,
    Delivery,
    Inbox,
    InboxEntry,
    InboxStats,
    Lease,
    complete_in,
    purge_limits,
    wait_any,
)
from callfire_async.notifications.inbox.spool._circuit_breaker import CircuitBreaker, Operation
from callfire_async.notifications.inbox.spool._forwarder import SpoolForwarder

__all__ = ["SpoolingInbox"]

T = TypeVar("T")

_log = logging.getLogger("callfire_async.inbox")

_ID_PREFIX = "spool/"


class SpoolingInbox:
    """
    Store deliveries in a primary inbox, and in a local spool while the primary is unavailable.

    A delivery goes to the primary. If the primary fails, does not respond within *timeout*, or is not called because
    its circuit breaker is open, the delivery goes to the spool: in both cases it is durable when ``append`` returns. A
    background task forwards spooled deliveries to the primary with the same keys and times, in order of arrival. The
    inbox can be opened while the primary is unavailable. A delivery that the primary rejects five times, or with which
    it fails five times while it stores others, becomes a dead letter of the spool.

    Every other operation is the primary's and raises `InboxUnavailableError` while the primary is unavailable. Spooled
    deliveries count as ready, are listed after those of the primary, and have ids that begin with ``spool/``; after
    forwarding they have an id of the primary.

    Deliveries are handled at least once: if the primary stores a delivery but its acknowledgement is lost, the delivery
    is spooled as well, and the primary drops the repeat if it is forwarded within its ``dedupe_window``.

    Args:
        primary: The primary inbox; opened and closed by this one.
        spool: The spool: a `SqliteInbox`, or one ``in_directory`` for several processes. Opened and closed by this one.
        timeout: Seconds for the primary to store a delivery, and to open at the start.
        operation_timeout: Seconds for any other call to the primary, and for forwarding a batch of 100 deliveries.
        failure_threshold: Number of consecutive failures after which the primary is not called until a probe succeeds,
            and deliveries are spooled until the primary has stored one of those that wait.
        recovery_timeout: Seconds until the first probe; doubled after each failed probe, up to 30.
        drain_timeout: Seconds for forwarding spooled deliveries when the inbox closes. The rest is forwarded after the
            next start.
        sleep: Called to wait between probes.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: A number is not positive; *drain_timeout* may be 0.
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
        check_primary(primary)
        check_inbox("spool", spool)
        check_positive(timeout=timeout, operation_timeout=operation_timeout, recovery_timeout=recovery_timeout)
        check_integer("failure_threshold", failure_threshold, minimum=1)
        check_seconds(drain_timeout=drain_timeout)
        self._breaker = CircuitBreaker(
            primary, failure_threshold=failure_threshold, operation_timeout=operation_timeout
        )
        self._spool = spool
        self._forwarder = SpoolForwarder(
            spool, self._breaker, operation_timeout=operation_timeout, recovery_timeout=recovery_timeout, sleep=sleep
        )
        self._timeout = timeout
        self._operation_timeout = operation_timeout
        self._drain_timeout = drain_timeout
        self._exit_stack = AsyncExitStack()

    @property
    def accepts_during_outage(self) -> bool:
        """
        Whether ``append`` succeeds while leases cannot be settled: a receiver with this inbox stays ready.

        It does unless the file of the spool was deleted, moved or replaced.
        """
        return bool(getattr(self._spool, "is_available", True))

    @property
    def is_available(self) -> bool:
        """Whether ``append`` can succeed: the primary is available, or the spool is."""
        return self._breaker.can_store or self.accepts_during_outage

    @property
    def drain_timeout(self) -> float:
        """Seconds for forwarding spooled deliveries when the inbox closes: a receiver waits longer by this time."""
        return self._drain_timeout

    @property
    def retention(self) -> float | None:
        """Seconds for which the primary remembers handled events; None if the primary has no such attribute."""
        return getattr(self._breaker.inbox, "retention", None)

    @property
    def spool(self) -> Inbox:
        """The spool, for inspection while the primary is unavailable."""
        return self._spool

    async def spooled(self) -> int:
        """Return the number of deliveries that wait in the spool."""
        stats = await self._spool.stats()
        return stats.ready + stats.delayed + stats.leased

    # --- lifecycle ----------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """
        Open the spool and the primary; if the primary cannot be opened, retry in the background.

        Raises:
            InboxError: The spool cannot be opened.
        """
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._spool)
            stack.push_async_callback(self._log_remaining)
            await self._forwarder.start(self._timeout)
            stack.push_async_callback(self._forwarder.stop, self._drain_timeout)
            self._exit_stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Forward spooled deliveries for up to *drain_timeout* seconds, then close the primary and the spool."""
        await self._exit_stack.aclose()

    async def _log_remaining(self) -> None:
        # A spool that fails here must still be closed.
        with suppress(InboxError):
            if count := await self.spooled():
                _log.warning("%d deliveries remain in the spool until the next start", count)

    async def _call(self, operation: Operation[T]) -> T:
        return await self._breaker.call(operation, self._operation_timeout)

    # --- storing ------------------------------------------------------------------------------------------

    async def append(self, delivery: Delivery) -> AppendResult:
        """
        Store a delivery in the primary, else in the spool.

        Raises:
            InboxError: Neither could store the delivery.
        """
        try:
            result = await self._breaker.store(lambda primary: primary.append(delivery), self._timeout)
        except InboxError:
            self._forwarder.record_spooled([delivery])
            return _with_prefix(await self._spool.append(delivery))
        self._forwarder.record_accepted()
        return result

    async def append_many(self, deliveries: Sequence[Delivery]) -> list[AppendResult]:
        """
        Store all deliveries in the primary, else all in the spool.

        Raises:
            InboxError: Neither could store them.
        """
        try:
            results = await self._breaker.store(lambda primary: primary.append_many(deliveries), self._timeout)
        except InboxError:
            self._forwarder.record_spooled(deliveries)
            return [_with_prefix(result) for result in await self._spool.append_many(deliveries)]
        self._forwarder.record_accepted()
        return results

    # --- leases -------------------------------------------------------------------------------------------

    async def claim(self, limit: int, *, lease: float) -> list[Lease]:
        """Claim deliveries that are due in the primary; release those that the primary returns too late."""
        return await self._breaker.call(
            lambda primary: primary.claim(limit, lease=lease), self._operation_timeout, undo=self._release_all
        )

    async def _release_all(self, leases: Sequence[Lease]) -> None:
        for lease in leases:
            await self._breaker.inbox.release(lease)

    async def extend(self, lease: Lease, seconds: float) -> bool:
        """Extend a lease to *seconds* from now."""
        return await self._call(lambda primary: primary.extend(lease, seconds))

    async def ack(self, lease: Lease, *, event_key: str = "") -> bool:
        """Mark a delivery as done."""
        return await self._call(lambda primary: primary.ack(lease, event_key=event_key))

    async def nack(
        self, lease: Lease, *, delay: float, completed: frozenset[str] = frozenset(), reason: str = ""
    ) -> bool:
        """Schedule another attempt after *delay* seconds."""
        return await self._call(lambda primary: primary.nack(lease, delay=delay, completed=completed, reason=reason))

    async def release(self, lease: Lease, *, completed: frozenset[str] = frozenset()) -> bool:
        """Return a delivery unattempted."""
        return await self._call(lambda primary: primary.release(lease, completed=completed))

    async def dead_letter(self, lease: Lease, reason: str, *, completed: frozenset[str] = frozenset()) -> bool:
        """Move a delivery to the dead letters."""
        options = {"completed": completed} if completed else {}
        return await self._call(lambda primary: primary.dead_letter(lease, reason, **options))

    async def complete_in(self, lease: Lease, handler: str, connection: object) -> None:
        """
        Record in the open transaction of *connection* that a handler has succeeded, as `CurrentAttempt.complete_in`.

        It does not call the primary, whose database the caller is connected to.

        Raises:
            TypeError: The primary is not a `PostgresInbox`, or the delivery is in the spool.
        """
        if _spool_id(lease.id) is not None:
            raise TypeError("complete_in needs a delivery of the primary inbox, not one that is in the spool")
        await complete_in(self._breaker.inbox, lease, handler, connection)

    # --- queries and maintenance --------------------------------------------------------------------------

    async def handled(self, event_keys: Iterable[str]) -> frozenset[str]:
        """Return which of these events were acked in the primary; spooled deliveries have not been handled."""
        keys = list(event_keys)
        return await self._call(lambda primary: primary.handled(keys))

    async def get(self, id: int | str) -> InboxEntry | None:
        """Return a delivery; one with an id of the spool also while the primary is unavailable."""
        spool_id = _spool_id(id)
        if spool_id is None:
            return await self._call(lambda primary: primary.get(id))
        entry = await self._spool.get(spool_id)
        return None if entry is None else _public_entry(entry)

    async def entries(self, state: str | None = None) -> AsyncIterator[InboxEntry]:
        """Iterate over the deliveries of the primary, then over the spooled ones."""
        entries = self._breaker.inbox.entries(state)
        while (entry := await self._call(lambda _: anext(entries, None))) is not None:
            try:
                yield entry
            except GeneratorExit:
                await self._close_listing(entries)
                raise
        async for spooled in self._spool.entries():
            public = _public_entry(spooled)
            if public is not None and state in (None, public.state):
                yield public

    async def _close_listing(self, entries: AsyncIterator[InboxEntry]) -> None:
        """Close an unfinished listing of the primary, which may hold a connection."""
        if isinstance(entries, AsyncGenerator):
            # Not through the breaker: the result says nothing about the primary's availability.
            with suppress(Exception):
                async with asyncio.timeout(self._operation_timeout):
                    await entries.aclose()

    async def replay(self, ids: Iterable[int | str] | None = None) -> int:
        """Make dead letters ready again; those of the spool are forwarded again."""
        if ids is None:
            return await self._call(lambda primary: primary.replay()) + await self._spool.replay()
        requested = checked_list("ids", ids)
        primary_ids = [id for id in requested if _spool_id(id) is None]
        spool_ids = [spool_id for spool_id in map(_spool_id, requested) if spool_id is not None]
        replayed = await self._call(lambda primary: primary.replay(primary_ids)) if primary_ids else 0
        return replayed + await self._spool.replay(spool_ids)

    async def purge(self, *, done_before: datetime | None = None, dead_before: datetime | None = None) -> int:
        """Delete deliveries that were done, or dead-lettered, before a time."""
        purge_limits(done_before, dead_before)
        purged = await self._call(lambda primary: primary.purge(done_before=done_before, dead_before=dead_before))
        return purged + (0 if dead_before is None else await self._spool.purge(dead_before=dead_before))

    async def stats(self) -> InboxStats:
        """Count deliveries by state; spooled ones are ready, or delayed if the primary has rejected them."""
        primary = await self._call(lambda inbox: inbox.stats())
        spool = await self._spool.stats()
        ages = [stats.oldest_ready_age for stats in (primary, spool) if stats.oldest_ready_age is not None]
        return evolve(
            primary,
            # Leases in the spool are deliveries that are being forwarded.
            ready=primary.ready + spool.ready + spool.leased,
            delayed=primary.delayed + spool.delayed,
            dead=primary.dead + spool.dead,
            oldest_ready_age=max([*ages, *self._forwarder.leased_ages()], default=None),
        )

    async def wait(self, timeout: float) -> None:
        """Wait until there may be work; while the primary is unavailable, until it has recovered."""
        recovered = self._breaker.recovered
        recovered.clear()
        if self._breaker.is_closed:
            waiting = self._breaker.call(lambda primary: primary.wait(timeout), timeout + self._operation_timeout)
            for finished in await wait_any(recovered.wait(), waiting):
                finished.result()
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await recovered.wait()


def _spool_id(id: int | str) -> str | None:
    """Return the spool's own id of a delivery; None for a delivery of the primary."""
    text = str(id)
    return text.removeprefix(_ID_PREFIX) if text.startswith(_ID_PREFIX) else None


def _with_prefix(result: AppendResult) -> AppendResult:
    return evolve(result, id=f"{_ID_PREFIX}{result.id}")


def _public_entry(entry: InboxEntry) -> InboxEntry | None:
    """Return an entry of the spool as this inbox lists it; None if the primary has the delivery by now."""
    if entry.state == "done":
        return None
    # A lease in the spool is a delivery that is being forwarded.
    return evolve(entry, id=f"{_ID_PREFIX}{entry.id}", state="ready" if entry.state == "leased" else entry.state)
