"""
`MemoryInbox`: an inbox that keeps nothing beyond its process; the model of the others, and for tests.

It imports `errors` and the protocol.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import UTC, datetime
from heapq import heappop, heappush
from types import TracebackType
from typing import Self

from attrs import define, evolve

from callfire_async.errors import InboxError
from callfire_async.notifications.inbox.base import (
    SUSPECT_CRASHES,
    AppendResult,
    Clock,
    Delivery,
    InboxEntry,
    InboxStats,
    Lease,
    parse_row_id,
)

__all__ = ["MemoryInbox"]


@define(eq=False)
class _Item:
    id: int
    delivery: Delivery
    appended_at: float
    #: When it is due; of a lease, when it ends.
    due_at: float
    updated_at: float
    state: str = "ready"
    attempt: int = 1
    crashes: int = 0
    completed: frozenset[str] = frozenset()
    reason: str = ""
    event_key: str = ""
    token: str = ""

    @property
    def is_open(self) -> bool:
        return self.state in ("ready", "leased")


class MemoryInbox:
    """
    An inbox in memory: nothing survives the process.

    Args:
        max_deliveries: How many are kept, those that are done not counted; one more is an `InboxError`. Of those that
            are done, as many of the newest are remembered.
        dedupe_window: Seconds within which two deliveries with one key are one; 0 turns it off.
        retention: Seconds for which what is done is remembered; 30 days, unless given.
        keep_bodies: Whether what is done keeps its body.
        clock: Tells the time.
    """

    def __init__(
        self,
        max_deliveries: int = 10_000,
        *,
        dedupe_window: float = 3600.0,
        retention: float = 30 * 86400.0,
        keep_bodies: bool = False,
        clock: Clock | None = None,
    ) -> None:
        self._max_deliveries = max_deliveries
        self._dedupe_window = dedupe_window
        self._retention = retention
        self._keep_bodies = keep_bodies
        self._clock = clock or Clock()
        self._rows: dict[int, _Item] = {}
        self._open: dict[int, _Item] = {}
        # Of what is open: what waits, the first to be due on top; and what is handed out.
        self._ready: list[tuple[float, int]] = []
        self._leased: dict[int, _Item] = {}
        self._done: dict[int, _Item] = {}
        self._newest: dict[str, _Item] = {}
        self._last_id = 0
        self._work = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Open it; leases that nobody settled before are ready again, and count as crashes."""
        # An event belongs to the loop in which it was first waited for.
        self._work = asyncio.Event()
        for row in [row for row in self._open.values() if row.state == "leased"]:
            self._put_back(row, crashes=row.crashes + 1)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it; what it holds is there when it is opened again."""

    @property
    def retention(self) -> float:
        """Seconds for which the keys of what is done are kept: how far back ``handled`` knows everything."""
        return self._retention

    # --- taking in ----------------------------------------------------------------------------------------

    async def append(self, delivery: Delivery) -> AppendResult:
        """Keep a delivery in memory."""
        (appended,) = await self.append_many([delivery])
        return appended

    async def append_many(self, deliveries: Sequence[Delivery]) -> list[AppendResult]:
        """Keep several, all or none."""
        now = self._clock.seconds()
        self._forget(now - self._retention)
        new = [delivery.key for delivery in deliveries if self._repeated(delivery, now) is None]
        added = len(set(new)) if self._dedupe_window > 0 else len(new)
        if len(self._rows) - len(self._done) + added > self._max_deliveries:
            raise InboxError(f"the inbox is full: it holds {self._max_deliveries} deliveries at most")
        self._work.set()
        return [self._append(delivery, now) for delivery in deliveries]

    def _append(self, delivery: Delivery, now: float) -> AppendResult:
        row = self._repeated(delivery, now)
        if row is not None:
            if row.state == "dead":
                self._put_back(row, attempt=1)
            return AppendResult(row.id, duplicate=True)
        self._last_id += 1
        row = _Item(self._last_id, delivery, appended_at=now, due_at=now, updated_at=now)
        self._rows[row.id] = self._open[row.id] = self._newest[delivery.key] = row
        heappush(self._ready, _order(row))
        return AppendResult(row.id, duplicate=False)

    def _repeated(self, delivery: Delivery, now: float) -> _Item | None:
        """Return the delivery that this one repeats."""
        row = self._newest.get(delivery.key)
        return row if row is not None and now - row.appended_at < self._dedupe_window else None

    # --- handing out and settling -------------------------------------------------------------------------

    async def claim(self, limit: int, *, lease: float) -> list[Lease]:
        """Hand out what is due."""
        now = self._clock.seconds()
        ended = [row for row in self._leased.values() if row.due_at <= now]
        due = sorted([*ended, *self._pop_due(now, limit)], key=_order)
        leased = _isolate_suspects(due[:limit])
        for row in due[len(leased) :]:
            if row.state == "ready":
                heappush(self._ready, _order(row))
        return [self._lease(row, now + lease) for row in leased]

    def _pop_due(self, now: float, limit: int) -> list[_Item]:
        """Take what is due from the top."""
        popped: list[_Item] = []
        while self._ready and self._ready[0][0] <= now and len(popped) < limit:
            popped.append(self._rows[heappop(self._ready)[1]])
        return popped

    def _lease(self, row: _Item, until: float) -> Lease:
        row.crashes += row.state == "leased"
        row.state, row.due_at, row.token = "leased", until, secrets.token_hex(8)
        row.updated_at = self._clock.seconds()
        self._leased[row.id] = row
        return Lease(row.id, row.token, row.attempt, row.crashes, row.delivery, row.completed)

    async def extend(self, lease: Lease, seconds: float) -> bool:
        """Let a lease end so many seconds from now."""
        return self._settle(lease, lambda row: self._change(row, due_at=self._clock.seconds() + seconds))

    async def ack(self, lease: Lease, *, event_key: str = "") -> bool:
        """Note that a delivery was handled."""

        def done(row: _Item) -> None:
            self._change(row, state="done", event_key=event_key)
            if not self._keep_bodies:
                row.delivery = evolve(row.delivery, body=b"")

        return self._settle(lease, done)

    async def nack(
        self, lease: Lease, *, delay: float, completed: frozenset[str] = frozenset(), reason: str = ""
    ) -> bool:
        """Put a delivery back for another attempt."""
        return self._settle(
            lease,
            lambda row: self._put_back(
                row, delay, attempt=row.attempt + 1, completed=row.completed | completed, reason=reason
            ),
        )

    async def release(self, lease: Lease, *, completed: frozenset[str] = frozenset()) -> bool:
        """Put a delivery back at once."""
        return self._settle(lease, lambda row: self._put_back(row, completed=row.completed | completed))

    async def dead_letter(self, lease: Lease, reason: str) -> bool:
        """Make a delivery a dead letter."""
        return self._settle(lease, lambda row: self._change(row, state="dead", reason=reason))

    def _settle(self, lease: Lease, change: Callable[[_Item], None]) -> bool:
        row = self._rows.get(parse_row_id(lease.id))
        if row is None or row.state != "leased" or row.token != lease.token:
            return False
        change(row)
        return True

    def _change(self, row: _Item, **changes: object) -> None:
        row.updated_at = self._clock.seconds()
        for name, value in changes.items():
            setattr(row, name, value)
        belonging = (
            (self._open, row.is_open),
            (self._leased, row.state == "leased"),
            (self._done, row.state == "done"),
        )
        for rows, belongs in belonging:
            rows.pop(row.id, None)
            if belongs:
                rows[row.id] = row

    def _put_back(self, row: _Item, delay: float = 0.0, **changes: object) -> None:
        self._change(row, state="ready", due_at=self._clock.seconds() + delay, **changes)
        heappush(self._ready, _order(row))
        self._work.set()

    # --- looking after it ---------------------------------------------------------------------------------

    async def handled(self, event_keys: Iterable[str]) -> frozenset[str]:
        """Return which of these events were acked."""
        acked = {row.event_key for row in self._done.values()} - {""}
        return frozenset(key for key in event_keys if key in acked)

    async def get(self, id: int | str) -> InboxEntry | None:
        """Return what is known of one delivery."""
        row = self._rows.get(parse_row_id(id))
        return None if row is None else self._entry(row)

    async def entries(self, state: str | None = None) -> AsyncIterator[InboxEntry]:
        """Iterate over the deliveries."""
        for row in list(self._rows.values()):
            entry = self._entry(row)
            if state in (None, entry.state):
                yield entry

    def _entry(self, row: _Item) -> InboxEntry:
        expired = row.state == "leased" and row.due_at <= self._clock.seconds()
        updated_at = datetime.fromtimestamp(row.updated_at, UTC)
        state = "ready" if expired else row.state
        return InboxEntry(row.id, state, row.delivery, row.attempt, row.crashes, row.reason, updated_at)

    async def replay(self, ids: Iterable[int | str] | None = None) -> int:
        """Make dead letters ready again."""
        wanted = None if ids is None else {parse_row_id(id) for id in ids}
        dead = [row for row in self._rows.values() if row.state == "dead" and (wanted is None or row.id in wanted)]
        for row in dead:
            self._put_back(row, attempt=1, crashes=0)
        return len(dead)

    async def purge(self, *, done_before: datetime | None = None, dead_before: datetime | None = None) -> int:
        """Delete what was done, or buried, before a time."""
        before = {"done": done_before, "dead": dead_before}
        limits = {state: moment.timestamp() for state, moment in before.items() if moment is not None}
        if not limits:
            raise TypeError("say done_before, dead_before or both")
        return self._delete(row for row in self._rows.values() if row.updated_at < limits.get(row.state, 0))

    def _forget(self, before: float) -> None:
        """Delete what was done too long ago, or is too much; the first to be done are the first to go."""
        while self._done:
            oldest = next(iter(self._done.values()))
            if len(self._done) <= self._max_deliveries and oldest.updated_at >= before:
                return
            self._delete([oldest])

    def _delete(self, rows: Iterable[_Item]) -> int:
        gone = list(rows)
        for row in gone:
            del self._rows[row.id]
            self._done.pop(row.id, None)
            if self._newest.get(row.delivery.key) is row:
                del self._newest[row.delivery.key]
        return len(gone)

    async def stats(self) -> InboxStats:
        """Count."""
        now = self._clock.seconds()
        due = [row.due_at for row in self._open.values() if row.due_at <= now]
        later = [row.state for row in self._open.values() if row.due_at > now]
        return InboxStats(
            ready=len(due),
            delayed=later.count("ready"),
            leased=later.count("leased"),
            done=len(self._done),
            dead=len(self._rows) - len(self._open) - len(self._done),
            oldest_ready_age=now - min(due) if due else None,
        )

    async def wait(self, timeout: float) -> None:
        """Wait until there may be work."""
        now = self._clock.seconds()
        ends = [row.due_at for row in self._leased.values()]
        next_due = min([*ends, *(due_at for due_at, _ in self._ready[:1])], default=now + timeout)
        self._work.clear()
        try:
            async with asyncio.timeout(max(0.0, min(timeout, next_due - now))):
                await self._work.wait()
        except TimeoutError:
            pass


def _order(row: _Item) -> tuple[float, int]:
    return row.due_at, row.id


def _isolate_suspects(due: list[_Item]) -> list[_Item]:
    """Cut a list before the first that has crashed too often; where that is the first of all, it goes alone."""
    for number, row in enumerate(due):
        if row.crashes + (row.state == "leased") >= SUSPECT_CRASHES:
            return due[: max(1, number)]
    return due
