"""`MemoryInbox`: an inbox in the memory of its process, for tests and as the reference for the other engines."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import UTC, datetime
from heapq import nsmallest
from types import TracebackType
from typing import Self

from attrs import define, evolve

from callfire_async._arguments import check_integer
from callfire_async.errors import InboxError
from callfire_async.notifications.inbox._inbox_arguments import (
    check_clock,
    check_flags,
    check_seconds,
    checked_list,
)
from callfire_async.notifications.inbox.base import (
    AppendResult,
    Clock,
    Delivery,
    InboxEntry,
    InboxStats,
    Lease,
    isolate_suspects,
    parse_row_id,
    public_state,
    purge_limits,
    wait_for_event,
)

__all__ = ["MemoryInbox"]


@define(eq=False)
class _Item:
    id: int
    delivery: Delivery
    appended_at: float
    #: When a ready delivery is due, or when a lease ends.
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
    def is_pending(self) -> bool:
        return self.state in ("ready", "leased")

    def crashes_if_claimed(self) -> int:
        """Return the number of crashes, including the one of the lease that has expired, if there is one."""
        return self.crashes + (self.state == "leased")

    def entry(self, now: float) -> InboxEntry:
        state = public_state(self.state, self.due_at, now)
        updated_at = datetime.fromtimestamp(self.updated_at, UTC)
        return InboxEntry(self.id, state, self.delivery, self.attempt, self.crashes, self.reason, updated_at)


class MemoryInbox:
    """
    An inbox in memory: its deliveries are lost when the process ends.

    Args:
        max_deliveries: Maximum number of deliveries that are not done; another append raises `InboxError`. Also the
            maximum number of done deliveries, of which the newest are kept.
        dedupe_window: Seconds within which two deliveries with the same key are one; 0 turns deduplication off.
        retention: Seconds for which done deliveries are kept. Default: 30 days.
        keep_bodies: Whether done deliveries keep their bodies.
        clock: The source of time.

    Raises:
        TypeError, ValueError: An argument has the wrong type or is out of range.
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
        check_integer("max_deliveries", max_deliveries)
        check_seconds(dedupe_window=dedupe_window, retention=retention)
        check_flags(keep_bodies=keep_bodies)
        check_clock(clock)
        self._max_deliveries = max_deliveries
        self._dedupe_window = dedupe_window
        self._retention = retention
        self._keep_bodies = keep_bodies
        self._clock = clock or Clock()
        self._rows: dict[int, _Item] = {}
        self._pending: dict[int, _Item] = {}
        # In the order in which they were acked.
        self._done: dict[int, _Item] = {}
        self._newest: dict[str, _Item] = {}
        self._last_id = 0
        self._work_added = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Open the inbox; leases of its last use count as crashes."""
        # An event belongs to the loop that first waits for it.
        self._work_added = asyncio.Event()
        now = self._clock.seconds()
        for item in [item for item in self._pending.values() if item.state == "leased"]:
            self._make_ready(item, now, crashes=item.crashes + 1)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the inbox; its deliveries stay for the next use."""

    @property
    def retention(self) -> float:
        """Seconds for which the keys of done deliveries are kept."""
        return self._retention

    # --- appending ----------------------------------------------------------------------------------------

    async def append(self, delivery: Delivery) -> AppendResult:
        """Store a delivery in memory."""
        (result,) = await self.append_many([delivery])
        return result

    async def append_many(self, deliveries: Sequence[Delivery]) -> list[AppendResult]:
        """Store several deliveries, all or none."""
        now = self._clock.seconds()
        self._delete_expired(now - self._retention)
        new_keys = [delivery.key for delivery in deliveries if self._duplicate_of(delivery, now) is None]
        added = len(set(new_keys)) if self._dedupe_window > 0 else len(new_keys)
        if len(self._rows) - len(self._done) + added > self._max_deliveries:
            raise InboxError(f"the inbox is full: max_deliveries is {self._max_deliveries}")
        self._work_added.set()
        return [self._append(delivery, now) for delivery in deliveries]

    def _append(self, delivery: Delivery, now: float) -> AppendResult:
        duplicate = self._duplicate_of(delivery, now)
        if duplicate is not None:
            if duplicate.state == "dead" and delivery.envelope_id is None:
                self._make_ready(duplicate, now, attempt=1)
            return AppendResult(duplicate.id, duplicate=True)
        self._last_id += 1
        item = _Item(self._last_id, delivery, appended_at=now, due_at=now, updated_at=now)
        self._rows[item.id] = self._pending[item.id] = self._newest[delivery.key] = item
        return AppendResult(item.id, duplicate=False)

    def _duplicate_of(self, delivery: Delivery, now: float) -> _Item | None:
        item = self._newest.get(delivery.key)
        return item if item is not None and now - item.appended_at < self._dedupe_window else None

    # --- leases -------------------------------------------------------------------------------------------

    async def claim(self, limit: int, *, lease: float) -> list[Lease]:
        """Lease due deliveries."""
        now = self._clock.seconds()
        due = nsmallest(limit, (item for item in self._pending.values() if item.due_at <= now), key=_order)
        return [self._lease(item, now + lease) for item in isolate_suspects(due, _Item.crashes_if_claimed)]

    def _lease(self, item: _Item, until: float) -> Lease:
        crashes, token = item.crashes_if_claimed(), secrets.token_hex(8)
        self._update(item, state="leased", due_at=until, crashes=crashes, token=token)
        return Lease(item.id, token, item.attempt, crashes, item.delivery, item.completed)

    async def extend(self, lease: Lease, seconds: float) -> bool:
        """Make a lease expire *seconds* from now."""
        return self._settle(lease, lambda item: self._update(item, due_at=self._clock.seconds() + seconds))

    async def ack(self, lease: Lease, *, event_key: str = "") -> bool:
        """Mark a delivery as done."""

        def finish(item: _Item) -> None:
            self._update(item, state="done", event_key=event_key, reason="")
            if not self._keep_bodies:
                item.delivery = evolve(item.delivery, body=b"")

        return self._settle(lease, finish)

    async def nack(
        self, lease: Lease, *, delay: float, completed: frozenset[str] = frozenset(), reason: str = ""
    ) -> bool:
        """Schedule another attempt."""
        return self._settle(
            lease,
            lambda item: self._make_ready(
                item,
                self._clock.seconds() + delay,
                attempt=item.attempt + 1,
                completed=item.completed | completed,
                reason=reason,
            ),
        )

    async def release(self, lease: Lease, *, completed: frozenset[str] = frozenset()) -> bool:
        """Return a delivery without counting the attempt."""
        return self._settle(
            lease,
            lambda item: self._make_ready(item, self._clock.seconds(), completed=item.completed | completed),
        )

    async def dead_letter(self, lease: Lease, reason: str, *, completed: frozenset[str] = frozenset()) -> bool:
        """Make a delivery a dead letter."""
        return self._settle(
            lease,
            lambda item: self._update(item, state="dead", completed=item.completed | completed, reason=reason),
        )

    def _settle(self, lease: Lease, change: Callable[[_Item], None]) -> bool:
        item = self._rows.get(parse_row_id(lease.id))
        if item is None or item.state != "leased" or item.token != lease.token:
            return False
        change(item)
        return True

    def _update(self, item: _Item, **changes: object) -> None:
        item.updated_at = self._clock.seconds()
        for name, value in changes.items():
            setattr(item, name, value)
        for items, belongs in ((self._pending, item.is_pending), (self._done, item.state == "done")):
            items.pop(item.id, None)
            if belongs:
                items[item.id] = item

    def _make_ready(self, item: _Item, due_at: float, **changes: object) -> None:
        self._update(item, state="ready", due_at=due_at, **changes)
        self._work_added.set()

    # --- administration -----------------------------------------------------------------------------------

    async def handled(self, event_keys: Iterable[str]) -> frozenset[str]:
        """Return which of these events were acked."""
        acked = {item.event_key for item in self._done.values()} - {""}
        return frozenset(key for key in event_keys if key in acked)

    async def get(self, id: int | str) -> InboxEntry | None:
        """Return a delivery and its state."""
        item = self._rows.get(parse_row_id(id))
        return None if item is None else item.entry(self._clock.seconds())

    async def entries(self, state: str | None = None) -> AsyncIterator[InboxEntry]:
        """Yield the deliveries in order of arrival."""
        for item in list(self._rows.values()):
            entry = item.entry(self._clock.seconds())
            if state in (None, entry.state):
                yield entry

    async def replay(self, ids: Iterable[int | str] | None = None) -> int:
        """Make dead letters ready again."""
        wanted = self._rows.keys() if ids is None else {parse_row_id(id) for id in checked_list("ids", ids)}
        dead = [item for item in self._rows.values() if item.state == "dead" and item.id in wanted]
        now = self._clock.seconds()
        for item in dead:
            self._make_ready(item, now, attempt=1, crashes=0)
        return len(dead)

    async def purge(self, *, done_before: datetime | None = None, dead_before: datetime | None = None) -> int:
        """Delete deliveries that were done, or became dead letters, before a time."""
        limits = {state: before.timestamp() for state, before in purge_limits(done_before, dead_before).items()}
        return self._delete([item for item in self._rows.values() if item.updated_at < limits.get(item.state, 0)])

    def _delete_expired(self, before: float) -> None:
        """Delete the done deliveries that are too old or too many, oldest first."""
        while self._done:
            oldest = next(iter(self._done.values()))
            if len(self._done) <= self._max_deliveries and oldest.updated_at >= before:
                return
            self._delete([oldest])

    def _delete(self, items: list[_Item]) -> int:
        for item in items:
            del self._rows[item.id]
            self._done.pop(item.id, None)
            if self._newest.get(item.delivery.key) is item:
                del self._newest[item.delivery.key]
        return len(items)

    async def stats(self) -> InboxStats:
        """Count the deliveries in each state."""
        now = self._clock.seconds()
        due = [item.due_at for item in self._pending.values() if item.due_at <= now]
        not_due = [item.state for item in self._pending.values() if item.due_at > now]
        return InboxStats(
            ready=len(due),
            delayed=not_due.count("ready"),
            leased=not_due.count("leased"),
            done=len(self._done),
            dead=len(self._rows) - len(self._pending) - len(self._done),
            oldest_ready_age=now - min(due) if due else None,
        )

    async def wait(self, timeout: float) -> None:
        """Wait until a delivery may be ready."""
        self._work_added.clear()
        now = self._clock.seconds()
        next_due = min((item.due_at for item in self._pending.values()), default=now + timeout)
        await wait_for_event(self._work_added, min(timeout, next_due - now))


def _order(item: _Item) -> tuple[float, int]:
    return item.due_at, item.id
