"""
`SqliteInbox`: an inbox in one file, the embedded default.

A delivery is acknowledged once its row is on disk: write-ahead log, ``synchronous=FULL``. One thread owns the
connection and commits whatever has gathered while it committed the last group. It imports `errors` and the protocol.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from callfire_async.errors import InboxError
from callfire_async.notifications.inbox import (
    SUSPECT_CRASHES,
    Appended,
    Clock,
    Delivery,
    Entry,
    Lease,
    Stats,
    row_number,
)
from callfire_async.notifications.inbox._sqlite_file import OwnerLock, Writer, warn_of_file_system
from callfire_async.notifications.inbox._sqlite_folder import SqliteFolder

__all__ = ["SqliteInbox"]

_RETENTION_SECONDS = 30 * 86400.0

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

READY, LEASED, DONE, DEAD = range(4)
STATES = ("ready", "leased", "done", "dead")

_PAGE_ROWS = 200

_CLAIM = """
    SELECT id, state, crashes FROM deliveries INDEXED BY open_deliveries
    WHERE state < 2 AND due_at <= :now ORDER BY due_at, id LIMIT :limit"""
_LEASE = """
    UPDATE deliveries SET state = 1, due_at = :until, token = :token, updated_at = :now, crashes = crashes + (state = 1)
    WHERE id = :id
    RETURNING id, token, attempt, crashes, body, content_type, received_at, key, completed"""
_NEWEST = """
    SELECT id, state FROM deliveries WHERE key = :key AND appended_at > :since ORDER BY id DESC LIMIT 1"""
_INSERT = """
    INSERT INTO deliveries (key, body, content_type, received_at, appended_at, due_at, updated_at)
    VALUES (:key, :body, :content_type, :received_at, :now, :now, :now)"""
# A dead letter becomes as new, but for what has succeeded.
_REVIVE = "UPDATE deliveries SET state = 0, attempt = 1, due_at = :now, delay = 0, updated_at = :now"
_REVIVE_REPEATED = f"{_REVIVE} WHERE id = :id"
_REPLAY_ALL = f"{_REVIVE}, crashes = 0 WHERE state = 3 AND state > 1"
_REPLAY_ONE = f"{_REVIVE}, crashes = 0 WHERE state = 3 AND id = :id"
_ENTRY = """
    SELECT id, state, due_at, body, content_type, received_at, key, attempt, crashes, reason, updated_at
    FROM deliveries """


class SqliteInbox:
    """
    An inbox in one SQLite file, owned by one process.

    Opening waits for an owner that is about to leave (as in a rolling deploy), and makes ready what a dead one had
    leased. Keep the file on a disk that outlives the process; network file systems keep no promise of a lock.

    Args:
        path: The file; made with mode 0600 where it is missing, its folder is not made.
        lock_timeout: Seconds to wait for the owner to leave; then `InboxLockedError`.
        dedupe_window: Seconds within which two deliveries with one key are one; 0 turns it off.
        retention: Seconds for which the keys of what is done are kept.
        keep_bodies: Whether what is done keeps its body.
        read_only: For tools that look at an inbox that may be owned: ``get``, ``entries``, ``seen`` and ``stats``.
        clock: Tells the time.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        lock_timeout: float = 30.0,
        dedupe_window: float = 3600.0,
        retention: float = _RETENTION_SECONDS,
        keep_bodies: bool = False,
        read_only: bool = False,
        clock: Clock | None = None,
    ) -> None:
        self._path = Path(path)
        self._lock_timeout = lock_timeout
        self._dedupe_window = dedupe_window
        self._retention = retention
        self._keep_bodies = keep_bodies
        self._read_only = read_only
        self._clock = clock or Clock()
        self._lock = OwnerLock(self._path)
        self._writer: Writer | None = None
        self._closing = AsyncExitStack()
        self._work = asyncio.Event()

    @classmethod
    def in_folder(cls, path: str | os.PathLike[str], *, read_only: bool = False, **options: Any) -> SqliteFolder:
        """
        Return an inbox for one of several processes: a file for each, in one folder.

        Args:
            path: The folder; made where it is missing.
            read_only: For tools that look at all files that are there when it is opened, whoever owns them.
            options: As of `SqliteInbox`, but for ``lock_timeout``.

        A process takes over, at its start and every minute, each file that no living process owns, and drains it.
        """
        return SqliteFolder(
            Path(path),
            lambda file, *, read_only=False: cls(file, lock_timeout=0.0, read_only=read_only, **options),
            retention=options.get("retention", _RETENTION_SECONDS),
            read_only=read_only,
        )

    @property
    def retention(self) -> float:
        """Seconds for which the keys of what is done are kept: how far back ``seen`` knows everything."""
        return self._retention

    # --- lifecycle ----------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """
        Open the file.

        Raises:
            InboxLockedError: Another process owns it, and did not leave in time.
            InboxUnavailableError: It cannot be opened, or is damaged.
            InboxError: A later version of this library has written it.
        """
        async with AsyncExitStack() as opened:
            if not self._read_only:
                await self._lock.acquire(self._lock_timeout)
                opened.callback(self._lock.release)
            writer = Writer(self._path, read_only=self._read_only)
            await writer.start()
            opened.push_async_callback(writer.stop)
            if not self._read_only:
                await writer.submit(self._recover)
                warn_of_file_system(self._path)
            # An event belongs to the loop in which it was first waited for.
            self._work = asyncio.Event()
            self._writer, self._closing = writer, opened.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it, once all that was asked of it is done."""
        self._writer = None
        await self._closing.aclose()

    async def _do(self, work: Work[T]) -> T:
        """Have the writer do something in its next transaction."""
        if self._writer is None:
            raise InboxError("this inbox is not open; use it inside 'async with'")
        return await self._writer.submit(work)

    async def _write(self, work: Work[T]) -> T:
        if self._read_only:
            raise InboxError(f"{self._path} was opened for reading only; stop its owner, and open it without read_only")
        return await self._do(work)

    def _recover(self, connection: sqlite3.Connection) -> None:
        """Put right what a dead owner left, and what a clock that was set back since would spoil."""
        times = {"now": self._clock.seconds()}
        connection.execute(
            "UPDATE deliveries INDEXED BY open_deliveries"
            " SET state = 0, crashes = crashes + 1, due_at = :now, delay = 0, updated_at = :now"
            " WHERE state = 1 AND state < 2",
            times,
        )
        connection.execute(
            "UPDATE deliveries INDEXED BY open_deliveries SET due_at = :now + delay"
            " WHERE state < 2 AND due_at > :now + delay",
            times,
        )
        connection.execute(
            "UPDATE deliveries SET appended_at = min(appended_at, :now), updated_at = min(updated_at, :now)"
            " WHERE appended_at > :now OR updated_at > :now",
            times,
        )

    # --- taking in ----------------------------------------------------------------------------------------

    async def append(self, delivery: Delivery) -> Appended:
        """Keep a delivery; it is on disk when this returns."""
        appended = await self._write(lambda connection: self._append(connection, delivery, self._clock.seconds()))
        self._work.set()
        return appended

    async def append_many(self, deliveries: Sequence[Delivery]) -> list[Appended]:
        """Keep several, all or none; they are on disk when this returns."""

        def work(connection: sqlite3.Connection) -> list[Appended]:
            now = self._clock.seconds()
            return [self._append(connection, delivery, now) for delivery in deliveries]

        appended = await self._write(work)
        self._work.set()
        return appended

    def _append(self, connection: sqlite3.Connection, delivery: Delivery, now: float) -> Appended:
        key = {"key": _storable(delivery.key), "since": now - self._dedupe_window}
        repeated = connection.execute(_NEWEST, key).fetchone() if self._dedupe_window > 0 else None
        if repeated is not None:
            id, state = repeated
            if state == DEAD:
                connection.execute(_REVIVE_REPEATED, {"id": id, "now": now})
            return Appended(id, duplicate=True)
        row = {
            "key": key["key"],
            "body": delivery.body,
            "content_type": _storable(delivery.content_type),
            "received_at": delivery.received_at.timestamp(),
            "now": now,
        }
        return Appended(connection.execute(_INSERT, row).lastrowid or 0, duplicate=False)

    # --- handing out and settling -------------------------------------------------------------------------

    async def claim(self, limit: int, *, lease: float) -> list[Lease]:
        """Hand out what is due; and forget, a few at a time, what was done too long ago."""
        return await self._write(lambda connection: self._claim(connection, limit, lease))

    def _claim(self, connection: sqlite3.Connection, limit: int, lease: float) -> list[Lease]:
        now = self._clock.seconds()
        self._forget(connection, now - self._retention, 2 * limit)
        due = connection.execute(_CLAIM, {"now": now, "limit": limit}).fetchall()
        token = secrets.token_hex(8)
        return [
            _lease(*connection.execute(_LEASE, {"id": row[0], "until": now + lease, "now": now, "token": token}))
            for row in _without_suspects(due)
        ]

    def _forget(self, connection: sqlite3.Connection, before: float, most: int) -> None:
        # More than a claim can add, and so few that nobody's commit is held up.
        connection.execute(
            "DELETE FROM deliveries WHERE id IN (SELECT id FROM deliveries INDEXED BY closed_deliveries"
            " WHERE state = 2 AND state > 1 AND updated_at < ? ORDER BY updated_at LIMIT ?)",
            (before, most),
        )

    async def extend(self, lease: Lease, seconds: float) -> bool:
        """Let a lease end so many seconds from now."""
        return await self._settle(lease, "due_at = :now + :seconds", {"seconds": seconds})

    async def ack(self, lease: Lease, *, event_key: str = "") -> bool:
        """Note that a delivery was handled."""
        body = "" if self._keep_bodies else ", body = x''"
        changes = {"event_key": _storable(event_key)}
        return await self._settle(lease, f"state = 2, event_key = :event_key{body}", changes)

    async def nack(
        self, lease: Lease, *, delay: float, completed: frozenset[str] = frozenset(), reason: str = ""
    ) -> bool:
        """Put a delivery back for another attempt."""
        changes = {"delay": delay, "completed": _joined(lease.completed | completed), "reason": _storable(reason)}
        statement = (
            "state = 0, attempt = attempt + 1, due_at = :now + :delay, delay = :delay,"
            " completed = :completed, reason = :reason"
        )
        settled = await self._settle(lease, statement, changes)
        self._work.set()
        return settled

    async def release(self, lease: Lease, *, completed: frozenset[str] = frozenset()) -> bool:
        """Put a delivery back at once."""
        changes = {"completed": _joined(lease.completed | completed)}
        settled = await self._settle(lease, "state = 0, due_at = :now, delay = 0, completed = :completed", changes)
        self._work.set()
        return settled

    async def bury(self, lease: Lease, reason: str) -> bool:
        """Make a delivery a dead letter."""
        return await self._settle(lease, "state = 3, reason = :reason", {"reason": _storable(reason)})

    async def _settle(self, lease: Lease, change: str, values: dict[str, Any]) -> bool:
        """Change a delivery, if the lease is still its own."""
        statement = (
            f"UPDATE deliveries SET {change}, updated_at = :now"  # noqa: S608  # the changes are those above
            " WHERE id = :id AND state = 1 AND token = :token"
        )

        def work(connection: sqlite3.Connection) -> bool:
            fence = {"id": row_number(lease.id), "token": lease.token, "now": self._clock.seconds()}
            return connection.execute(statement, values | fence).rowcount == 1

        return await self._write(work)

    # --- looking after it ---------------------------------------------------------------------------------

    async def seen(self, event_keys: Iterable[str]) -> frozenset[str]:
        """Return which of these events were acked, within ``retention``."""
        keys = list(event_keys)

        def work(connection: sqlite3.Connection) -> frozenset[str]:
            query = "SELECT 1 FROM deliveries WHERE event_key = ? AND event_key != '' AND state = 2 LIMIT 1"
            return frozenset(key for key in keys if connection.execute(query, (_storable(key),)).fetchone())

        return await self._do(work)

    async def get(self, id: int | str) -> Entry | None:
        """Return what is known of one delivery."""
        number = (row_number(id),)
        row = await self._do(lambda connection: connection.execute(f"{_ENTRY} WHERE id = ?", number).fetchone())
        return None if row is None else self._entry(row)

    async def entries(self, state: str | None = None) -> AsyncIterator[Entry]:
        """Iterate over the deliveries, in pages; what arrives meanwhile comes last."""
        last = 0
        while True:
            page = await self._do(_page_after(last))
            for row in page:
                entry = self._entry(row)
                if state in (None, entry.state):
                    yield entry
            if len(page) < _PAGE_ROWS:
                return
            last = page[-1][0]

    async def newest(self, limit: int) -> list[Entry]:
        """Return the deliveries that came last, the newest first: for tools that look again and again."""
        query = f"{_ENTRY} ORDER BY id DESC LIMIT ?"
        rows = await self._do(lambda connection: connection.execute(query, (limit,)).fetchall())
        return [self._entry(row) for row in rows]

    def _entry(self, row: tuple[Any, ...]) -> Entry:
        id, state, due_at, body, content_type, received_at, key, attempt, crashes, reason, updated_at = row
        delivery = Delivery(body, _text(content_type), _moment(received_at), _text(key))
        expired = state == LEASED and due_at <= self._clock.seconds()
        name = STATES[READY if expired else state]
        return Entry(id, name, delivery, attempt, crashes, _text(reason), _moment(updated_at))

    async def replay(self, ids: Iterable[int | str] | None = None) -> int:
        """Make dead letters ready again."""
        wanted = None if ids is None else [row_number(id) for id in ids]

        def work(connection: sqlite3.Connection) -> int:
            now = self._clock.seconds()
            if wanted is None:
                return connection.execute(_REPLAY_ALL, {"now": now}).rowcount
            return sum(connection.execute(_REPLAY_ONE, {"now": now, "id": id}).rowcount for id in wanted)

        replayed = await self._write(work)
        self._work.set()
        return replayed

    async def purge(self, *, done_before: datetime | None = None, dead_before: datetime | None = None) -> int:
        """Delete what was done, or buried, before a time."""
        limits = [(state, at.timestamp()) for state, at in ((DONE, done_before), (DEAD, dead_before)) if at]
        if not limits:
            raise TypeError("say done_before, dead_before or both")
        query = "DELETE FROM deliveries WHERE state = ? AND state > 1 AND updated_at < ?"
        return await self._write(lambda connection: sum(connection.execute(query, limit).rowcount for limit in limits))

    async def stats(self) -> Stats:
        """Count."""
        return await self._do(self._stats)

    def _stats(self, connection: sqlite3.Connection) -> Stats:
        now = self._clock.seconds()
        ready, delayed, leased, first = connection.execute(
            "SELECT count(*) FILTER (WHERE due_at <= :now), count(*) FILTER (WHERE due_at > :now AND state = 0),"
            " count(*) FILTER (WHERE due_at > :now AND state = 1), min(due_at)"
            " FROM deliveries INDEXED BY open_deliveries WHERE state < 2",
            {"now": now},
        ).fetchone()
        count = "SELECT count(*) FROM deliveries INDEXED BY closed_deliveries WHERE state = ? AND state > 1"
        done, dead = (connection.execute(count, (state,)).fetchone()[0] for state in (DONE, DEAD))
        return Stats(ready, delayed, leased, done, dead, now - first if ready else None)

    async def wait(self, timeout: float) -> None:
        """Wait until there may be work."""
        self._work.clear()
        query = "SELECT min(due_at) FROM deliveries INDEXED BY open_deliveries WHERE state < 2"
        (next_due,) = await self._do(lambda connection: connection.execute(query).fetchone())
        due_in = timeout if next_due is None else next_due - self._clock.seconds()
        try:
            async with asyncio.timeout(max(0.0, min(timeout, due_in))):
                await self._work.wait()
        except TimeoutError:
            pass


def _lease(row: tuple[Any, ...]) -> Lease:
    id, token, attempt, crashes, body, content_type, received_at, key, completed = row
    delivery = Delivery(body, _text(content_type), _moment(received_at), _text(key))
    return Lease(id, token, attempt, crashes, delivery, _parted(completed))


def _without_suspects(due: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Cut a list before the first that has crashed too often; where that is the first of all, it goes alone."""
    for number, (_, state, crashes) in enumerate(due):
        if crashes + (state == LEASED) >= SUSPECT_CRASHES:
            return due[: max(1, number)]
    return due


def _page_after(last: int) -> Work[list[tuple[Any, ...]]]:
    query = f"{_ENTRY} WHERE id > ? ORDER BY id LIMIT ?"
    return lambda connection: connection.execute(query, (last, _PAGE_ROWS)).fetchall()


def _joined(names: Iterable[str]) -> str:
    return "\n".join(name.encode("unicode_escape").decode() for name in sorted(names))


def _parted(names: str) -> frozenset[str]:
    return frozenset(name.encode().decode("unicode_escape") for name in names.split("\n") if name)


def _storable(text: str | None) -> str | bytes | None:
    """Return a text as SQLite can keep it: a server hands over what it could not decode as lone surrogates."""
    if text is None:
        return None
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
    return text


def _text(stored: Any) -> Any:
    return stored.decode("utf-8", "surrogatepass") if isinstance(stored, bytes) else stored


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
