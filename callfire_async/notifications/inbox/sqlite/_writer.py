"""The thread that owns the connection to an inbox file and commits in groups."""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from attrs import define

from callfire_async.errors import InboxError, InboxUnavailableError
from callfire_async.notifications.inbox.sqlite._database import open_database
from callfire_async.notifications.inbox.sqlite._files import OpenFiles
from callfire_async.notifications.inbox.sqlite._lock import FileLock

__all__ = ["BatchMismatchError", "BatchWork", "Work", "WriterThread"]

T = TypeVar("T")
Work: TypeAlias = Callable[[sqlite3.Connection], T]
#: Does the same for several items; returns their results in order, or raises `BatchMismatchError`.
BatchWork: TypeAlias = Callable[[sqlite3.Connection, list[Any]], Sequence[T]]

_log = logging.getLogger("callfire_async.inbox")

# The first job of a larger group would wait too long for the last.
_MAX_GROUP_SIZE = 1000
# How long a cancelled stop waits for a disk that does not respond: nothing can interrupt the thread.
_JOIN_SECONDS = 0.5

# Errors of one job: the file itself is fine.
_JOB_ERRORS = frozenset(
    [
        sqlite3.SQLITE_ERROR,
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_RANGE,
        sqlite3.SQLITE_TOOBIG,
    ]
)
# The disk is full, or another process has locked the file: the file is unchanged.
_HARMLESS_ERRORS = frozenset([sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED])

_COUNT_OPEN = "SELECT count(*) FROM deliveries WHERE state < 2"


class BatchMismatchError(Exception):
    """Raised when a batched statement affected fewer rows than it should; the writer reruns the items one by one."""


@define(eq=False)
class _Job:
    """One item of a batch, and the future of its result."""

    work: BatchWork[Any]
    item: Any
    future: asyncio.Future[Any]
    #: Whether it must fail if the file is gone; other jobs are still done in the open file.
    is_append: bool = False


#: A job, its result, and its error.
_Outcome: TypeAlias = tuple[_Job, Any, Exception | None]


class WriterThread:
    """
    The thread that owns the connection.

    Jobs that are submitted during a commit form the next transaction: concurrent writers share one sync of the disk,
    and a single writer does not wait for others.

    Args:
        path: The file.
        lock: The lock that its owner holds; None to open the file read-only.
    """

    def __init__(self, path: Path, lock: FileLock | None) -> None:
        self._path = path
        # The working directory may change before the file is opened again.
        self._absolute_path = path.absolute()
        self._read_only = lock is None
        self._files = None if lock is None else OpenFiles(self._absolute_path, lock)
        self._process_id = os.getpid()
        #: Why appends fail, if the path no longer leads to the open files.
        self.files_problem: str | None = None
        self._unsent: list[_Job] = []
        self._submitted: queue.SimpleQueue[list[_Job] | None] = queue.SimpleQueue()
        # Owned by the thread.
        self._queued: list[_Job] = []
        self._is_stopping = False
        self._connection: sqlite3.Connection | None = None
        self._check_before_use = False
        self._end_lock = threading.Lock()
        self._has_ended = True
        self._on_end: Callable[[], None] | None = None
        self._thread = threading.Thread(target=self._run, name=f"callfire inbox {path.name}", daemon=True)

    async def start(self) -> None:
        """
        Start the thread and open the file.

        Raises:
            InboxUnavailableError: The file cannot be opened, or is damaged.
            InboxError: A later version of this library has written the file.
        """
        self._loop = asyncio.get_running_loop()
        self._stopped = self._loop.create_future()
        self._thread.start()
        self._has_ended = False
        try:
            await self.submit(lambda _: None)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """
        Finish the submitted jobs, close the file and stop the thread; do nothing in a forked child.

        A call that waits for the disk cannot be interrupted: if this is cancelled, the thread may be left running.
        """
        if self._process_id != os.getpid():
            return
        self._send()
        self._submitted.put(None)
        try:
            await asyncio.shield(self._stopped)
        finally:
            # Even if cancelled: the next owner may open the file only after the last commit.
            self._thread.join(_JOIN_SECONDS)

    def call_at_end(self, function: Callable[[], None]) -> bool:
        """Call *function* when the file is closed: now, or from the thread. Return whether it was called now."""
        with self._end_lock:
            if not self._has_ended:
                self._on_end = function
                return False
        function()
        return True

    def submit(self, work: Work[T], *, is_append: bool = False) -> asyncio.Future[T]:
        """
        Run *work* in the next transaction; the future completes after the commit.

        The work is done even if the future is cancelled.

        Raises:
            InboxUnavailableError: The disk is full or failing, or another process has locked the file; nothing has
                changed, unless a sync failed that was carried out.
        """
        return self.submit_batched(lambda connection, _: [work(connection)], None, is_append=is_append)

    def submit_batched(self, work: BatchWork[T], item: object, *, is_append: bool = False) -> asyncio.Future[T]:
        """
        Run *work* in the next transaction, once for all items that are submitted with an equal *work*.

        Args:
            work: Does the same for several items.
            item: One of the items.
            is_append: Fail if the path no longer leads to the open files.
        """
        if self._process_id != os.getpid():
            raise InboxError(
                f"the inbox {self._path} was opened by process {self._process_id}, from which this process was forked;"
                " use it in that process only"
            )
        future: asyncio.Future[T] = self._loop.create_future()
        if not self._unsent:
            # Jobs that are submitted in two iterations of the event loop share a commit: tasks that a commit has woken
            # submit theirs in the first, and the tasks that these wake in the second. With 64 concurrent postbacks and
            # 16 handlers this needs 27 % fewer commits than one iteration; with 16 postbacks it is 13 % faster.
            self._loop.call_soon(self._loop.call_soon, self._send)
        self._unsent.append(_Job(work, item, future, is_append))
        return future

    def _send(self) -> None:
        if self._unsent:
            self._submitted.put(self._unsent)
            self._unsent = []

    # --- in the thread ------------------------------------------------------------------------------------

    def _run(self) -> None:
        while jobs := self._next_group():
            self._call_in_loop(_resolve_futures, self._run_checked(jobs))
        self._close()
        with self._end_lock:
            self._has_ended = True
        if self._on_end is not None:
            self._on_end()
        self._call_in_loop(self._stopped.set_result, None)

    def _call_in_loop(self, function: Callable[..., object], *arguments: object) -> None:
        # The event loop is closed if a stop has left this thread running.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *arguments)

    def _next_group(self) -> list[_Job]:
        """Return the next jobs, waiting until there are some; an empty list after the last."""
        while not self._is_stopping and not (self._queued and self._submitted.empty()):
            jobs = self._submitted.get()
            self._is_stopping = jobs is None
            self._queued += jobs or []
        group, self._queued = self._queued[:_MAX_GROUP_SIZE], self._queued[_MAX_GROUP_SIZE:]
        return group

    def _run_checked(self, jobs: list[_Job]) -> list[_Outcome]:
        """Run a group; its appends fail if the path does not lead to the open files, before or after the commit."""
        refused: list[_Outcome] = []
        if any(job.is_append for job in jobs) and not self._are_files_in_place():
            refused = self._refuse([job for job in jobs if job.is_append])
            jobs = [job for job in jobs if not job.is_append]
        outcomes = self._run_group(jobs) if jobs else []
        if not self._are_files_in_place():
            refused += self._refuse([job for job, _, error in outcomes if job.is_append and error is None])
        refused_jobs = {job for job, _, _ in refused}
        return refused + [outcome for outcome in outcomes if outcome[0] not in refused_jobs]

    def _refuse(self, jobs: list[_Job]) -> list[_Outcome]:
        message = (
            f"the file of the inbox {self._path} was deleted, moved or replaced ({self.files_problem}); it accepts no"
            " deliveries until the same file is restored or the process is restarted"
        )
        return [(job, None, InboxUnavailableError(message)) for job in jobs]

    def _are_files_in_place(self) -> bool:
        """Return whether the path leads to the open files; log when that has changed."""
        before, self.files_problem = self.files_problem, self._find_files_problem()
        if self.files_problem is not None and before is None:
            _log.error(
                "the file of the inbox %s was deleted, moved or replaced (%s), refusing postbacks until the same file"
                " is restored or the process is restarted; %s waiting deliveries are at risk: they are still handled"
                " while this process runs, and are lost if it stops first",
                self._path,
                self.files_problem,
                self._count_open(),
            )
        elif self.files_problem is None and before is not None:
            _log.warning("the file of the inbox %s is back, accepting postbacks", self._path)
        return self.files_problem is None

    def _find_files_problem(self) -> str | None:
        try:
            if self._files is not None:
                self._files.check()
        except OSError as error:
            return f"{error.filename}: {error.strerror}"
        return None

    def _count_open(self) -> int | str:
        with suppress(sqlite3.Error):
            if self._connection is not None:
                return int(self._connection.execute(_COUNT_OPEN).fetchone()[0])
        return "an unknown number of"

    def _run_group(self, jobs: list[_Job], *, one_by_one: bool = False) -> list[_Outcome]:
        try:
            return self._run_transaction(jobs, one_by_one=one_by_one)
        except BatchMismatchError:
            self._roll_back()
            return self._run_group(jobs, one_by_one=True)
        except Exception as error:  # noqa: BLE001  # the callers of these jobs get it
            self._roll_back()
            return self._fail(jobs, error) if _is_disk_error(error) else self._run_individually(jobs, error)

    def _run_transaction(self, jobs: list[_Job], *, one_by_one: bool) -> list[_Outcome]:
        connection = self._open()
        connection.execute("BEGIN" if self._read_only else "BEGIN IMMEDIATE")
        outcomes = _run_batches(connection, jobs, one_by_one=one_by_one)
        connection.execute("COMMIT")
        return outcomes

    def _run_individually(self, jobs: list[_Job], error: Exception) -> list[_Outcome]:
        """Run each job in its own transaction, so that only the one with the error fails."""
        if len(jobs) == 1:
            if isinstance(error, sqlite3.Error):
                error = _with_cause(InboxError(f"the inbox {self._path} cannot do this: {error}"), error)
            return [(jobs[0], None, error)]
        return [outcome for job in jobs for outcome in self._run_group([job])]

    def _fail(self, jobs: list[_Job], error: Exception) -> list[_Outcome]:
        """Fail all jobs; the next group tries again."""
        if _error_code(error) not in _HARMLESS_ERRORS:
            self._check_before_use = True
            self._close_untrusted()
        _log.error("the inbox %s cannot be used: %s", self._path, error, extra={"also_raised": True})
        message = f"the inbox {self._path} cannot be used: {error}"
        return [(job, None, _with_cause(InboxUnavailableError(message), error)) for job in jobs]

    def _open(self) -> sqlite3.Connection:
        if self._check_before_use:
            self._close_untrusted()
        if self._connection is None:
            self._connection = self._connect()
            self._check_before_use = False
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        path, check = self._absolute_path, self._check_before_use
        if self._files is None:
            return open_database(path, read_only=True, check=check)
        if self._files.are_recorded:
            # A new file in place of the missing one would hide the loss.
            self._files.check()
            connection = open_database(path, check=check, create=False)
        else:
            connection = open_database(path, check_log=self._files.has_unknown_log())
        try:
            self._files.record()
        except OSError:
            connection.close()
            raise
        return connection

    def _close_untrusted(self) -> None:
        """Close the file, because the cache and the last writes cannot be trusted after an error; not if it is gone."""
        if self._find_files_problem() is None:
            self._close()

    def _roll_back(self) -> None:
        try:
            if self._connection is not None and self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._close()

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        if self._files is not None:
            self._files.forget_log()


def _run_batches(connection: sqlite3.Connection, jobs: list[_Job], *, one_by_one: bool) -> list[_Outcome]:
    batches: dict[BatchWork[Any], list[_Job]] = {}
    for job in jobs:
        batches.setdefault(job.work, []).append(job)
    outcomes: list[_Outcome] = []
    for work, batch in batches.items():
        items = [job.item for job in batch]
        results = [work(connection, [item])[0] for item in items] if one_by_one else work(connection, items)
        outcomes += [(job, result, None) for job, result in zip(batch, results, strict=True)]
    return outcomes


def _error_code(error: Exception) -> int | None:
    """Return SQLite's primary error code; None for other errors."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _is_disk_error(error: Exception) -> bool:
    code = _error_code(error)
    return isinstance(error, OSError) or (code is not None and code not in _JOB_ERRORS)


def _with_cause(error: InboxError, cause: Exception) -> InboxError:
    error.__cause__ = cause
    return error


def _resolve_futures(outcomes: list[_Outcome]) -> None:
    """Complete the futures, except those that were cancelled."""
    for job, result, error in outcomes:
        if job.future.done():
            continue
        if error is None:
            job.future.set_result(result)
        else:
            job.future.set_exception(error)
