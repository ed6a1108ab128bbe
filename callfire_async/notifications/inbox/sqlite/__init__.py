"""
`SqliteInbox`: an inbox in one file, the embedded default.

A delivery is acknowledged once its row is on disk: write-ahead log, ``synchronous=FULL``. One thread owns the
connection and commits whatever has gathered while it committed the last group. It imports `errors` and the protocol.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from callfire_async.errors import InboxError
from callfire_async.notifications.inbox.base import (
    AppendResult,
    Clock,
    Delivery,
    InboxEntry,
    InboxStats,
    Lease,
    parse_row_id,
)
from callfire_async.notifications.inbox.sqlite import _queries as rows
from callfire_async.notifications.inbox.sqlite._database import FileLock, warn_if_ephemeral
from callfire_async.notifications.inbox.sqlite._directory import SqliteDirectoryInbox
from callfire_async.notifications.inbox.sqlite._writer import Work, WriterThread

__all__ = ["SqliteInbox"]

_RETENTION_SECONDS = 30 * 86400.0

T = TypeVar("T")


class SqliteInbox:
    """
    An inbox in one SQLite file, owned by one process.

    Opening waits for an owner that is about to leave (as in a rolling deploy), and makes ready what a dead one had
    leased. Keep the file on a disk that outlives the process; network file systems keep no promise of a lock.

    Args:
        path: The file; made with mode 0600 where it is missing, its folder is not made.
        lock_timeout: Seconds to wait for the owner to leave; then `InboxLockedError`.
        dedupe_window: Seconds within which two deliveries with one key are one; 0 turns it off.
        retention: Seconds for which the keys of what is done are kept; 30 days, unless given.
        keep_bodies: Whether what is done keeps its body.
        read_only: For tools that look at an inbox that may be owned: ``get``, ``entries``, ``handled`` and ``stats``.
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
        self._lock = FileLock(self._path)
        self._writer: WriterThread | None = None
        self._closing = AsyncExitStack()
        self._work = asyncio.Event()
        # Before this there is nothing to forget.
        self._forget_at = 0.0

    @classmethod
    def in_directory(
        cls, path: str | os.PathLike[str], *, read_only: bool = False, **options: Any
    ) -> SqliteDirectoryInbox:
        """
        Return an inbox for one of several processes: a file for each, in one folder.

        It has the operations of `Inbox`, and ids such as ``file/number``.

        Args:
            path: The folder; made where it is missing.
            read_only: For tools that look at all files that are there when it is opened, whoever owns them.
            options: As of `SqliteInbox`, but for ``lock_timeout``.

        A process takes over, at its start and every minute, each file that no living process owns, and drains it.
        """
        return SqliteDirectoryInbox(
            Path(path),
            lambda file, *, read_only=False: cls(file, lock_timeout=0.0, read_only=read_only, **options),
            retention=options.get("retention", _RETENTION_SECONDS),
            read_only=read_only,
        )

    @property
    def retention(self) -> float:
        """Seconds for which the keys of what is done are kept: how far back ``handled`` knows everything."""
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
            writer = WriterThread(self._path, read_only=self._read_only)
            await writer.start()
            opened.push_async_callback(writer.stop)
            if not self._read_only:
                await writer.submit(self._recover)
                warn_if_ephemeral(self._path)
            # An event belongs to the loop in which it was first waited for.
            self._work = asyncio.Event()
            self._forget_at = 0.0
            self._writer, self._closing = writer, opened.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it, once all that was asked of it is done."""
        self._writer = None
        await self._closing.aclose()

    def _do(self, work: Work[T]) -> asyncio.Future[T]:
        """Have the writer do something in its next transaction."""
        return self._open_writer.submit(work)

    def _write(self, work: Work[T]) -> asyncio.Future[T]:
        return self._owned_writer.submit(work)

    @property
    def _open_writer(self) -> WriterThread:
        if self._writer is None:
            raise InboxError("this inbox is not open; use it inside 'async with'")
        return self._writer

    @property
    def _owned_writer(self) -> WriterThread:
        if self._read_only:
            raise InboxError(f"{self._path} was opened for reading only; stop its owner, and open it without read_only")
        return self._open_writer

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

    async def append(self, delivery: Delivery) -> AppendResult:
        """Keep a delivery; it is on disk when this returns."""
        appending = self._owned_writer.share(self._append, delivery)
        # Whoever is woken by this asks the writer for something, and so comes after it.
        self._work.set()
        return await appending

    async def append_many(self, deliveries: Sequence[Delivery]) -> list[AppendResult]:
        """Keep several, all or none; they are on disk when this returns."""
        appending = self._write(lambda connection: self._append(connection, deliveries))
        self._work.set()
        return await appending

    def _append(self, connection: sqlite3.Connection, deliveries: Sequence[Delivery]) -> list[AppendResult]:
        return rows.append(connection, deliveries, self._clock.seconds(), self._dedupe_window)

    # --- handing out and settling -------------------------------------------------------------------------

    async def claim(self, limit: int, *, lease: float) -> list[Lease]:
        """Hand out what is due; and forget, a few at a time, what was done too long ago."""
        return await self._write(lambda connection: self._claim(connection, limit, lease))

    def _claim(self, connection: sqlite3.Connection, limit: int, lease: float) -> list[Lease]:
        now = self._clock.seconds()
        if now >= self._forget_at:
            self._forget(connection, now, 2 * limit)
        return rows.claim(connection, limit, now, lease)

    def _forget(self, connection: sqlite3.Connection, now: float, most: int) -> None:
        # More than a claim can add, and so few that nobody's commit is held up.
        if not rows.forget(connection, now - self._retention, most):
            first = rows.first_done(connection)
            self._forget_at = (now if first is None else first) + self._retention

    async def extend(self, lease: Lease, seconds: float) -> bool:
        """Let a lease end so many seconds from now."""
        return await self._settle(lease, "due_at = ?", lambda now: (now + seconds,))

    async def ack(self, lease: Lease, *, event_key: str = "") -> bool:
        """Note that a delivery was handled."""
        return await self._owned_writer.share(self._ack, (lease, event_key))

    def _ack(self, connection: sqlite3.Connection, handled: Sequence[tuple[Lease, str]]) -> list[bool]:
        return rows.ack(connection, handled, self._clock.seconds(), keep_bodies=self._keep_bodies)

    async def nack(
        self, lease: Lease, *, delay: float, completed: frozenset[str] = frozenset(), reason: str = ""
    ) -> bool:
        """Put a delivery back for another attempt."""
        names = rows.joined(lease.completed | completed)
        settled = await self._settle(
            lease,
            "state = 0, attempt = attempt + 1, due_at = ?, delay = ?, completed = ?, reason = ?",
            lambda now: (now + delay, delay, names, rows.encode_text(reason)),
        )
        self._work.set()
        return settled

    async def release(self, lease: Lease, *, completed: frozenset[str] = frozenset()) -> bool:
        """Put a delivery back at once."""
        names = rows.joined(lease.completed | completed)
        settled = await self._settle(lease, "state = 0, due_at = ?, delay = 0, completed = ?", lambda now: (now, names))
        self._work.set()
        return settled

    async def dead_letter(self, lease: Lease, reason: str) -> bool:
        """Make a delivery a dead letter."""
        return await self._settle(lease, "state = 3, reason = ?", lambda _: (rows.encode_text(reason),))

    def _settle(self, lease: Lease, change: str, values: Callable[[float], rows.Row]) -> asyncio.Future[bool]:
        """Change a delivery, if the lease is still its own."""

        def work(connection: sqlite3.Connection) -> bool:
            now = self._clock.seconds()
            return rows.settle(connection, lease, now, change, values(now))

        return self._write(work)

    # --- looking after it ---------------------------------------------------------------------------------

    async def handled(self, event_keys: Iterable[str]) -> frozenset[str]:
        """Return which of these events were acked, within ``retention``."""
        keys = list(event_keys)

        def work(connection: sqlite3.Connection) -> frozenset[str]:
            query = "SELECT 1 FROM deliveries WHERE event_key = ? AND event_key != '' AND state = 2 LIMIT 1"
            return frozenset(key for key in keys if connection.execute(query, (rows.encode_text(key),)).fetchone())

        return await self._do(work)

    async def get(self, id: int | str) -> InboxEntry | None:
        """Return what is known of one delivery."""
        row = await self._do(lambda connection: rows.entry(connection, parse_row_id(id)))
        return None if row is None else rows.as_entry(row, self._clock.seconds())

    async def entries(self, state: str | None = None) -> AsyncIterator[InboxEntry]:
        """Iterate over the deliveries, in pages; what arrives meanwhile comes last."""
        last = 0
        while page := await self._do(partial(rows.page_after, last=last)):
            for row in page:
                entry = rows.as_entry(row, self._clock.seconds())
                if state in (None, entry.state):
                    yield entry
            last = page[-1][0]

    async def newest(self, limit: int, *, bodies_after: int = 0) -> list[InboxEntry]:
        """
        Return the deliveries that came last, the newest first: for tools that look again and again.

        Args:
            limit: How many at most.
            bodies_after: An id: that one, and what came before it, is returned without its body.
        """
        newest = await self._do(partial(rows.newest, limit=limit, bodies_after=bodies_after))
        return [rows.as_entry(row, self._clock.seconds()) for row in newest]

    async def replay(self, ids: Iterable[int | str] | None = None) -> int:
        """Make dead letters ready again."""
        wanted = None if ids is None else [parse_row_id(id) for id in ids]
        replayed = await self._write(lambda connection: rows.replay(connection, wanted, self._clock.seconds()))
        self._work.set()
        return replayed

    async def purge(self, *, done_before: datetime | None = None, dead_before: datetime | None = None) -> int:
        """Delete what was done, or buried, before a time."""
        limits = [(state, at.timestamp()) for state, at in ((rows.DONE, done_before), (rows.DEAD, dead_before)) if at]
        if not limits:
            raise TypeError("say done_before, dead_before or both")
        query = "DELETE FROM deliveries WHERE state = ? AND state > 1 AND updated_at < ?"
        return await self._write(lambda connection: sum(connection.execute(query, limit).rowcount for limit in limits))

    async def stats(self) -> InboxStats:
        """Count."""
        return await self._do(self._stats)

    def _stats(self, connection: sqlite3.Connection) -> InboxStats:
        now = self._clock.seconds()
        ready, delayed, leased, first = connection.execute(
            "SELECT count(*) FILTER (WHERE due_at <= :now), count(*) FILTER (WHERE due_at > :now AND state = 0),"
            " count(*) FILTER (WHERE due_at > :now AND state = 1), min(due_at)"
            " FROM deliveries INDEXED BY open_deliveries WHERE state < 2",
            {"now": now},
        ).fetchone()
        count = "SELECT count(*) FROM deliveries INDEXED BY closed_deliveries WHERE state = ? AND state > 1"
        done, dead = (connection.execute(count, (state,)).fetchone()[0] for state in (rows.DONE, rows.DEAD))
        return InboxStats(ready, delayed, leased, done, dead, now - first if ready else None)

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


SqliteInbox.__module__ = "callfire_async.notifications"
