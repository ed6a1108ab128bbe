"""A minimal inbox, with which the others are compared step by step."""

from attrs import define, evolve, field

from callfire_async.notifications.inbox import Delivery, InboxStats

DEDUPE_WINDOW = 3_600.0


@define
class Row:
    """A delivery and its state."""

    id: int
    body: bytes
    appended_at: float
    due_at: float
    updated_at: float
    state: str = "ready"
    attempt: int = 1
    crashes: int = 0
    delay: float = 0.0
    completed: frozenset[str] = frozenset()
    reason: str = ""
    event_key: str = ""
    #: Number of the lease that is valid.
    lease: int = 0


@define
class Model:
    """A list of rows, without an index, a queue or a file."""

    rows: list[Row] = field(factory=list)
    leases: int = 0

    def append(self, body: bytes, now: float) -> tuple[int, bool]:
        same = [row for row in self.rows if row.body == body and row.appended_at > now - DEDUPE_WINDOW]
        if not same:
            self.rows.append(Row(len(self.rows) + 1, body, appended_at=now, due_at=now, updated_at=now))
            return len(self.rows), False
        if same[-1].state == "dead":
            self._make_ready(same[-1], now, attempt=1)
        return same[-1].id, True

    def claim(self, limit: int, lease: float, now: float) -> list[Row]:
        """Return copies of the rows that are leased."""
        due = sorted((row for row in self.rows if self._is_due(row, now)), key=lambda row: (row.due_at, row.id))
        chosen = []
        for row in due[:limit]:
            if row.crashes + (row.state == "leased") >= 2:
                chosen = chosen or [row]
                break
            chosen.append(row)
        return [self._lease(row, now, lease) for row in chosen]

    def claim_chosen(self, ids: list[int], limit: int, lease: float, now: float) -> list[Row]:
        """Lease the rows that an inbox has chosen, after checking them: due, in order, suspects alone."""
        due = [row for row in self.rows if self._is_due(row, now)]
        chosen = [self.rows[id - 1] for id in ids]
        assert len(chosen) <= limit
        assert bool(chosen) == bool(due and limit)
        assert all(row in due for row in chosen)
        assert chosen == sorted(chosen, key=lambda row: (row.due_at, row.id))
        assert len(chosen) == 1 or all(row.crashes + (row.state == "leased") < 2 for row in chosen)
        return [self._lease(row, now, lease) for row in chosen]

    def _is_due(self, row: Row, now: float) -> bool:
        return row.state in ("ready", "leased") and row.due_at <= now

    def _lease(self, row: Row, now: float, lease: float) -> Row:
        self.leases += 1
        row.crashes += row.state == "leased"
        row.state, row.due_at, row.updated_at, row.lease = "leased", now + lease, now, self.leases
        return evolve(row)

    def _row_of(self, lease: Row) -> Row | None:
        row = self.rows[lease.id - 1]
        return row if row.state == "leased" and row.lease == lease.lease else None

    def extend(self, lease: Row, seconds: float, now: float) -> bool:
        if row := self._row_of(lease):
            row.due_at, row.updated_at = now + seconds, now
        return row is not None

    def ack(self, lease: Row, event_key: str, now: float) -> bool:
        if row := self._row_of(lease):
            row.state, row.reason, row.event_key, row.updated_at = "done", "", event_key, now
        return row is not None

    def nack(self, lease: Row, delay: float, completed: frozenset[str], now: float) -> bool:
        if row := self._row_of(lease):
            self._make_ready(
                row, now, delay, attempt=row.attempt + 1, completed=row.completed | completed, reason="failed"
            )
        return row is not None

    def release(self, lease: Row, completed: frozenset[str], now: float) -> bool:
        if row := self._row_of(lease):
            self._make_ready(row, now, completed=row.completed | completed)
        return row is not None

    def dead_letter(self, lease: Row, completed: frozenset[str], now: float) -> bool:
        if row := self._row_of(lease):
            row.state, row.reason, row.updated_at = "dead", "rejected", now
            row.completed |= completed
        return row is not None

    def replay(self, ids: list[int] | None, now: float) -> int:
        dead = [row for row in self.rows if row.state == "dead" and (ids is None or row.id in ids)]
        for row in dead:
            self._make_ready(row, now, attempt=1, crashes=0)
        return len(dead)

    def reopen(self, now: float) -> None:
        """Recover from a crash; the system clock may have been set back."""
        for row in self.rows:
            if row.state == "leased":
                self._make_ready(row, now, crashes=row.crashes + 1)
            row.due_at = min(row.due_at, now + row.delay)
            row.appended_at, row.updated_at = min(row.appended_at, now), min(row.updated_at, now)

    def _make_ready(self, row: Row, now: float, delay: float = 0.0, **changes: object) -> None:
        row.state, row.due_at, row.delay, row.updated_at = "ready", now + delay, delay, now
        for name, value in changes.items():
            setattr(row, name, value)

    def state(self, row: Row, now: float) -> str:
        if self._is_due(row, now):
            return "ready"
        return "delayed" if row.state == "ready" else row.state

    def stats(self, now: float) -> InboxStats:
        due = [row.due_at for row in self.rows if self._is_due(row, now)]
        later = [row.state for row in self.rows if not self._is_due(row, now)]
        return InboxStats(
            ready=len(due),
            delayed=later.count("ready"),
            leased=later.count("leased"),
            done=later.count("done"),
            dead=later.count("dead"),
            oldest_ready_age=now - min(due) if due else None,
        )

    def handled(self) -> frozenset[str]:
        return frozenset(row.event_key for row in self.rows if row.state == "done")

    def entry(self, row: Row, now: float) -> tuple[object, ...]:
        """Return the fields of an entry."""
        body = b"" if row.state == "done" else row.body
        return row.id, self.state(row, now), body, row.attempt, row.crashes, row.reason, row.updated_at

    def delivery(self, row: Row) -> Delivery:
        return Delivery(row.body)
