"""
`SqliteInbox`: an inbox in one SQLite file.

A delivery is acknowledged once its row is on disk: write-ahead log, ``synchronous=FULL``. One thread owns the
connection and commits in groups.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from callfire_async.errors import InboxError, InboxUnavailableError
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
    encode_names,
    parse_row_id,
    purge_limits,
    wait_for_event,
)
from callfire_async.notifications.inbox.sqlite import _queries as queries
from callfire_async.notifications.inbox.sqlite._database import warn_if_ephemeral
from callfire_async.notifications.inbox.sqlite._directory import SqliteDirectoryInbox
from callfire_async.notifications.inbox.sqlite._lock import FileLock
from callfire_async.notifications.inbox.sqlite._options import check_place, to_path
from callfire_async.notifications.inbox.sqlite._recent_keys import RecentKeys
from callfire_async.notifications.inbox.sqlite._writer import Work, WriterThread
from callfire_async.notifications.inbox.sqlite.control import ControlSocket

__all__ = ["SqliteInbox"]

_RETENTION_SECONDS = 30 * 86400.0

T = TypeVar("T")

_log = logging.getLogger("callfire_async.inbox")


class SqliteInbox:
    """
    An inbox in one SQLite file, owned by one process.

    Opening waits until the current owner has stopped (as in a rolling deployment), and makes deliveries ready that a
    crashed owner had leased. Keep the file on a disk that outlives the process; locks are not reliable on network file
    systems.

    If the file is deleted, moved or replaced while it is open, appends raise `InboxUnavailableError` until the same
    file is back or the inbox is opened again; deliveries in the open file can still be claimed and settled. A
    process that is forked from the owner cannot use the inbox.

    While the file is open, ``callfire-async inbox replay`` can replay its dead letters through a Unix socket beside it,
    which is open to the user of the process.

    Args:
        path: The file; created with mode 0600 if it does not exist. Its directory must exist.
        lock_timeout: Seconds to wait for the current owner to stop before `InboxLockedError` is raised.
        dedupe_window: Seconds within which two deliveries with the same key are one; 0 turns deduplication off. The
            keys of this time are in memory, about 13 MB for 100,000. Of more than a million, the newest are kept: an
            older delivery that is repeated is stored and handled again.
        retention: Seconds for which the keys of done deliveries are kept. Default: 30 days.
        keep_bodies: Whether done deliveries keep their bodies.
        read_only: For tools that inspect an inbox while a service owns it: only ``get``, ``entries``, ``handled`` and
            ``stats`` work.
        clock: The source of time.

    Raises:
        TypeError, ValueError: An argument has the wrong type or is out of range, or *path* is not the path of a file.
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
        self._path = to_path(path)
        check_seconds(lock_timeout=lock_timeout, dedupe_window=dedupe_window, retention=retention)
        check_flags(keep_bodies=keep_bodies, read_only=read_only)
        check_clock(clock)
        self._lock_timeout = lock_timeout
        self._dedupe_window = dedupe_window
        self._retention = retention
        self._keep_bodies = keep_bodies
        self._read_only = read_only
        self._clock = clock or Clock()
        self._lock = FileLock(self._path)
        self._writer: WriterThread | None = None
        self._recent_keys = RecentKeys(self._path, dedupe_window)
        # Settlements that failed, as (id, token, state): a failed sync may have been carried out.
        self._failed: set[tuple[int | str, str, str]] = set()
        self._resources = AsyncExitStack()
        self._work_added = asyncio.Event()

    @classmethod
    def in_directory(
        cls, path: str | os.PathLike[str], *, read_only: bool = False, **options: Any
    ) -> SqliteDirectoryInbox:
        """
        Return an inbox for one of several processes, each with its own file in one directory.

        The inbox has the operations of `Inbox`; its IDs have the form ``file/number``. At its start and every minute,
        a process takes over the files that no running process owns, and handles their deliveries.

        Args:
            path: The directory; created if it does not exist.
            read_only: For tools: open all existing files without owning them.
            options: Arguments of `SqliteInbox` except ``lock_timeout``.

        Raises:
            TypeError, ValueError: As for `SqliteInbox`.
        """
        if "lock_timeout" in options:
            raise TypeError("lock_timeout cannot be used with in_directory(), which does not wait for files")

        def make_inbox(file: Path, *, read_only: bool) -> SqliteInbox:
            return cls(file, lock_timeout=0.0, read_only=read_only, **options)

        directory = to_path(path)
        # Checks the options now, and not when the first file is opened.
        retention = make_inbox(directory / "example.db", read_only=read_only).retention
        return SqliteDirectoryInbox(directory, make_inbox, retention=retention, read_only=read_only)

    @property
    def retention(self) -> float:
        """Seconds for which the keys of done deliveries are kept; ``handled`` is complete for this period."""
        return self._retention

    @property
    def is_available(self) -> bool:
        """Whether the path leads to the files that are open; if not, appends fail, and a receiver is not ready."""
        return self._writer is None or self._writer.files_problem is None

    # --- lifecycle ----------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """
        Open the file.

        Raises:
            InboxLockedError: Another process, or another inbox of this process, still owns the file after
                *lock_timeout*. Waiting is logged when it begins.
            InboxUnavailableError: The file cannot be opened, is damaged, or does not belong to the log beside it.
            InboxError: A later version of this library has written the file.
        """
        check_place(self._path)
        async with AsyncExitStack() as resources:
            if not self._read_only:
                await self._lock.acquire(self._lock_timeout)
            writer = WriterThread(self._path, None if self._read_only else self._lock)
            if not self._read_only:
                resources.callback(self._release_lock, writer)
            await writer.start()
            resources.push_async_callback(writer.stop)
            if not self._read_only:
                await writer.submit(lambda connection: queries.recover(connection, self._clock.seconds()))
                warn_if_ephemeral(self._path)
            # Another process may have owned the file in the meantime.
            self._recent_keys = RecentKeys(self._path, self._dedupe_window)
            self._failed.clear()
            # An event belongs to the loop that first waits for it.
            self._work_added = asyncio.Event()
            self._writer = writer
            if not self._read_only:
                await resources.enter_async_context(ControlSocket(self._path, self._lock, self.replay))
            self._resources = resources.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """
        Finish the submitted operations and close the file.

        An operation that waits for a disk cannot be interrupted. If closing is cancelled meanwhile, the file stays
        open and locked until the disk responds or the process ends.
        """
        self._writer = None
        await self._resources.aclose()

    def _release_lock(self, writer: WriterThread) -> None:
        if not writer.call_at_end(self._lock.release):
            _log.error("cannot close the inbox %s: its disk does not respond; it stays locked until then", self._path)

    def _read(self, work: Work[T]) -> asyncio.Future[T]:
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
            raise InboxError(f"{self._path} was opened with read_only=True; stop its owner and open it without that")
        return self._open_writer

    # --- appending ----------------------------------------------------------------------------------------

    async def append(self, delivery: Delivery) -> AppendResult:
        """Store a delivery; return once it is on disk."""
        result = self._owned_writer.submit_batched(self._append, delivery, is_append=True)
        # A worker that wakes up now submits its claim after this append.
        self._work_added.set()
        return await result

    async def append_many(self, deliveries: Sequence[Delivery]) -> list[AppendResult]:
        """Store several deliveries, all or none; return once they are on disk."""
        results = self._owned_writer.submit(lambda connection: self._append(connection, deliveries), is_append=True)
        self._work_added.set()
        return await results

    def _append(self, connection: sqlite3.Connection, deliveries: Sequence[Delivery]) -> list[AppendResult]:
        return queries.append(connection, deliveries, self._clock.seconds(), self._recent_keys)

    # --- leases -------------------------------------------------------------------------------------------

    async def claim(self, limit: int, *, lease: float) -> list[Lease]:
        """Lease due deliveries; delete a few done deliveries whose retention is over."""
        return await self._write(lambda connection: self._claim(connection, limit, lease))

    def _claim(self, connection: sqlite3.Connection, limit: int, lease: float) -> list[Lease]:
        now = self._clock.seconds()
        # More deletions than a claim can lead to acks, and few enough that no commit takes long.
        queries.purge(connection, queries.DONE, now - self._retention, 2 * limit)
        return queries.claim(connection, limit, now, lease)

    async def extend(self, lease: Lease, seconds: float) -> bool:
        """Make a lease expire *seconds* from now."""
        return await self._write(self._change(lease, "due_at = ?", lambda now: (now + seconds,)))

    async def ack(self, lease: Lease, *, event_key: str = "") -> bool:
        """Mark a delivery as done."""
        return await self._result(lease, "done", self._owned_writer.submit_batched(self._ack, (lease, event_key)))

    def _ack(self, connection: sqlite3.Connection, acks: Sequence[tuple[Lease, str]]) -> list[bool]:
        return queries.ack(connection, acks, self._clock.seconds(), keep_bodies=self._keep_bodies)

    async def nack(
        self, lease: Lease, *, delay: float, completed: frozenset[str] = frozenset(), reason: str = ""
    ) -> bool:
        """Schedule another attempt."""
        names = encode_names(lease.completed | completed)
        is_valid = await self._settle(
            lease,
            "ready",
            "state = 0, attempt = attempt + 1, due_at = ?, delay = ?, completed = ?, reason = ?",
            lambda now: (now + delay, delay, names, queries.encode_text(reason)),
        )
        self._work_added.set()
        return is_valid

    async def release(self, lease: Lease, *, completed: frozenset[str] = frozenset()) -> bool:
        """Return a delivery without counting the attempt."""
        names = encode_names(lease.completed | completed)
        is_valid = await self._settle(
            lease, "ready", "state = 0, due_at = ?, delay = 0, completed = ?", lambda now: (now, names)
        )
        self._work_added.set()
        return is_valid

    async def dead_letter(self, lease: Lease, reason: str, *, completed: frozenset[str] = frozenset()) -> bool:
        """Make a delivery a dead letter."""
        names = encode_names(lease.completed | completed)
        return await self._settle(
            lease, "dead", "state = 3, completed = ?, reason = ?", lambda _: (names, queries.encode_text(reason))
        )

    async def _settle(self, lease: Lease, state: str, assignments: str, values: Callable[[float], queries.Row]) -> bool:
        return await self._result(lease, state, self._write(self._change(lease, assignments, values)))

    def _change(self, lease: Lease, assignments: str, values: Callable[[float], queries.Row]) -> Work[bool]:
        def work(connection: sqlite3.Connection) -> bool:
            now = self._clock.seconds()
            return queries.settle(connection, lease, now, assignments, values(now))

        return work

    async def _result(self, lease: Lease, state: str, settling: asyncio.Future[bool]) -> bool:
        """Return whether a lease was valid, or an earlier call has led to the state although its commit failed."""
        settlement = (lease.id, lease.token, state)
        try:
            is_valid = await settling
        except InboxUnavailableError:
            self._failed.add(settlement)
            raise
        if not is_valid and settlement in self._failed:
            is_valid = await self._read(partial(queries.was_settled, lease=lease, state=queries.STATES.index(state)))
        self._failed.discard(settlement)
        return is_valid

    # --- administration -----------------------------------------------------------------------------------

    async def handled(self, event_keys: Iterable[str]) -> frozenset[str]:
        """Return which of these events were acked within ``retention``."""
        return await self._read(partial(queries.handled, event_keys=list(event_keys)))

    async def get(self, id: int | str) -> InboxEntry | None:
        """Return a delivery and its state."""
        row = await self._read(partial(queries.entry, id=parse_row_id(id)))
        return None if row is None else queries.to_entry(row, self._clock.seconds())

    async def entries(self, state: str | None = None) -> AsyncIterator[InboxEntry]:
        """Yield the deliveries in order of arrival; those that arrive in the meantime come last."""
        last = 0
        while page := await self._read(partial(queries.page_after, last=last)):
            for row in page:
                entry = queries.to_entry(row, self._clock.seconds())
                if state in (None, entry.state):
                    yield entry
            last = page[-1][0]

    async def newest(self, limit: int, *, bodies_after: int = 0) -> list[InboxEntry]:
        """
        Return the newest deliveries, newest first, for tools that poll.

        Args:
            limit: Maximum number of deliveries.
            bodies_after: An ID; deliveries up to this one are returned without their bodies.
        """
        rows = await self._read(partial(queries.newest, limit=limit, bodies_after=bodies_after))
        return [queries.to_entry(row, self._clock.seconds()) for row in rows]

    async def replay(self, ids: Iterable[int | str] | None = None) -> int:
        """Make dead letters ready again."""
        row_ids = None if ids is None else [parse_row_id(id) for id in checked_list("ids", ids)]
        count = await self._write(lambda connection: queries.replay(connection, row_ids, self._clock.seconds()))
        self._work_added.set()
        return count

    async def purge(self, *, done_before: datetime | None = None, dead_before: datetime | None = None) -> int:
        """
        Delete deliveries that were done, or became dead letters, before a time.

        They are deleted in parts, so that postbacks are stored meanwhile; if one fails, the earlier ones stay deleted.
        """
        limits = purge_limits(done_before, dead_before)
        return sum([await self._purge(queries.STATES.index(state), limit) for state, limit in limits.items()])

    async def _purge(self, state: int, before: datetime) -> int:
        work = partial(queries.purge, state=state, before=before.timestamp(), limit=queries.PURGED_ROWS)
        purged = 0
        while True:
            count = await self._write(work)
            purged += count
            if count < queries.PURGED_ROWS:
                return purged

    async def stats(self) -> InboxStats:
        """Count the deliveries in each state."""
        return await self._read(lambda connection: queries.stats(connection, self._clock.seconds()))

    async def wait(self, timeout: float) -> None:
        """Wait until a delivery may be ready."""
        self._work_added.clear()
        next_due = await self._read(queries.next_due)
        due_in = timeout if next_due is None else next_due - self._clock.seconds()
        await wait_for_event(self._work_added, min(timeout, due_in))


SqliteInbox.__module__ = "callfire_async.notifications"
