"""
The thread that writes to one SQLite file: what gathers while it commits is its next transaction.

It imports `errors` and how a file is opened.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from attrs import define

from callfire_async.errors import InboxError, InboxUnavailableError
from callfire_async.notifications.inbox.sqlite._database import open_file

__all__ = ["BatchMismatchError", "SharedWork", "Work", "WriterThread"]

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]
#: Does for several, in one go, what each has asked for; returns what each gets, in their order, or raises `BatchMismatchError`.
SharedWork = Callable[[sqlite3.Connection, list[Any]], Sequence[T]]

_log = logging.getLogger("callfire_async.inbox")

# One commit for more than this would let the first of them wait for the last.
_GROUP_SIZE = 1000


class BatchMismatchError(Exception):  # a signal to the writer, which has it done again
    """What was to be done for several in one go was not done for all, and who is left out shows only one by one."""


@define(eq=False)
class _Work:
    """Something to be done, and who waits for it."""

    work: Work[Any]
    future: asyncio.Future[Any]


@define(eq=False)
class _BatchedWork:
    """One's share of what is done for several in one go, and who waits for it."""

    work: SharedWork[Any]
    item: Any
    future: asyncio.Future[Any]


_Asked: TypeAlias = _Work | _BatchedWork
#: What was asked, what came of it, and what it raised.
_Outcome: TypeAlias = tuple[_Asked, Any, Exception | None]


class WriterThread:
    """
    The thread that owns a connection.

    What has gathered while a transaction was committed is the next one: many writers share a sync of the disk, and
    one by itself does not wait for others.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self._path = path
        self._read_only = read_only
        self._jobs: queue.SimpleQueue[list[_Asked] | None] = queue.SimpleQueue()
        self._asked: list[_Asked] = []
        self._left: list[_Asked] = []
        self._connection: sqlite3.Connection | None = None
        self._failed = False
        self._thread = threading.Thread(target=self._run, name=f"callfire inbox {path.name}", daemon=True)

    async def start(self) -> None:
        """
        Open the file.

        Raises:
            InboxUnavailableError: It cannot be opened, or is damaged.
            InboxError: A later version has written it.
        """
        self._loop = asyncio.get_running_loop()
        self._stopped = self._loop.create_future()
        self._thread.start()
        try:
            await self.submit(lambda _: None)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Close the file once all that was submitted is done."""
        self._hand_over()
        self._jobs.put(None)
        try:
            await asyncio.shield(self._stopped)
        finally:
            # Where this is cancelled too: nobody may own the file before the last commit.
            self._thread.join()

    def submit(self, work: Work[T]) -> asyncio.Future[T]:
        """
        Have something done in the next transaction; it is committed when the future has its result.

        It is done even where whoever waits for it is cancelled.

        Raises:
            InboxUnavailableError: The disk is full or fails, or somebody else holds the file; nothing has changed.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        self._ask(_Work(work, future))
        return future

    def share(self, work: SharedWork[T], item: object) -> asyncio.Future[T]:
        """Have something done as by `submit`, for *item*, in one go with others that ask for the same *work*."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._ask(_BatchedWork(work, item, future))
        return future

    def _ask(self, asked: _Asked) -> None:
        # The thread is woken once for all that is asked for in two turns of the event loop: those who were told of one
        # commit ask again in the first, and what follows from that in the second. Woken by the first of 64, it would
        # commit that one alone and let the others wait for two syncs instead of one.
        if not self._asked:
            self._loop.call_soon(self._loop.call_soon, self._hand_over)
        self._asked.append(asked)

    def _hand_over(self) -> None:
        if self._asked:
            self._jobs.put(self._asked)
            self._asked = []

    # --- in the thread ------------------------------------------------------------------------------------

    def _run(self) -> None:
        going_on = True
        while going_on or self._left:
            going_on = self._take_batch() and going_on
            jobs, self._left = self._left[:_GROUP_SIZE], self._left[_GROUP_SIZE:]
            outcomes = self._run_batch(jobs) if jobs else []
            self._loop.call_soon_threadsafe(_resolve_futures, outcomes)
        self._close()
        self._loop.call_soon_threadsafe(self._stopped.set_result, None)

    def _take_batch(self) -> bool:
        """Take all jobs that are there, and wait for one where there is none; tell whether there will be more."""
        while not self._left or not self._jobs.empty():
            jobs = self._jobs.get()
            if jobs is None:
                return False
            self._left += jobs
        return True

    def _run_batch(self, jobs: list[_Asked], *, one_by_one: bool = False) -> list[_Outcome]:
        try:
            return self._in_one_transaction(jobs, one_by_one=one_by_one)
        except BatchMismatchError:
            self._roll_back()
            return self._run_batch(jobs, one_by_one=True)
        except Exception as error:  # noqa: BLE001  # whatever it is belongs to whoever waits for it
            return self._fail(jobs, error) if _is_disk_error(error) else self._run_individually(jobs, error)

    def _in_one_transaction(self, jobs: list[_Asked], *, one_by_one: bool) -> list[_Outcome]:
        connection = self._open()
        connection.execute("BEGIN" if self._read_only else "BEGIN IMMEDIATE")
        outcomes = _done(connection, jobs, one_by_one=one_by_one)
        connection.execute("COMMIT")
        return outcomes

    def _run_individually(self, jobs: list[_Asked], error: Exception) -> list[_Outcome]:
        """Let a job that cannot be done fail alone."""
        self._roll_back()
        if len(jobs) == 1:
            return [(jobs[0], None, _refused(self._path, error))]
        return [outcome for job in jobs for outcome in self._run_batch([job])]

    def _fail(self, jobs: list[_Asked], error: Exception) -> list[_Outcome]:
        """Tell all that nothing has happened; be ready to try again."""
        self._roll_back()
        if _code(error) not in _HARMLESS:
            # What is in memory can no longer be trusted, nor what the disk has made of the last writes.
            self._close()
            self._failed = True
        _log.error("the inbox %s cannot be used: %s", self._path, error, extra={"also_raised": True})
        return [(job, None, _unavailable(self._path, error)) for job in jobs]

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = open_file(self._path, read_only=self._read_only, check=self._failed)
            self._failed = False
        return self._connection

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


def _done(connection: sqlite3.Connection, jobs: list[_Asked], *, one_by_one: bool) -> list[_Outcome]:
    """Do the shared work first: who asks at the same time for what is there may as well see it."""
    shares: dict[SharedWork[Any], list[_BatchedWork]] = {}
    for job in jobs:
        if isinstance(job, _BatchedWork):
            shares.setdefault(job.work, []).append(job)
    outcomes: list[_Outcome] = []
    for work, sharing in shares.items():
        items = [share.item for share in sharing]
        values = [work(connection, [item])[0] for item in items] if one_by_one else work(connection, items)
        outcomes += [(share, value, None) for share, value in zip(sharing, values, strict=True)]
    return outcomes + [(job, job.work(connection), None) for job in jobs if isinstance(job, _Work)]


# What a statement can be told by SQLite without anything being wrong with the file.
_OF_THE_JOB = frozenset(
    [
        sqlite3.SQLITE_ERROR,
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_RANGE,
        sqlite3.SQLITE_TOOBIG,
    ]
)
# The disk is full, or somebody else has the file: it is as it was.
_HARMLESS = frozenset([sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED])


def _code(error: Exception) -> int | None:
    """Return SQLite's primary code; None where the error is not SQLite's own."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _is_disk_error(error: Exception) -> bool:
    return isinstance(error, OSError) or (_code(error) is not None and _code(error) not in _OF_THE_JOB)


def _unavailable(path: Path, cause: Exception) -> InboxUnavailableError:
    error = InboxUnavailableError(f"the inbox {path} cannot be used: {cause}")
    error.__cause__ = cause
    return error


def _refused(path: Path, cause: Exception) -> Exception:
    if not isinstance(cause, sqlite3.Error):
        return cause
    error = InboxError(f"the inbox {path} cannot do this: {cause}")
    error.__cause__ = cause
    return error


def _resolve_futures(outcomes: list[_Outcome]) -> None:
    """Wake all who wait, but for those who have gone."""
    for asked, value, error in outcomes:
        if asked.future.done():
            continue
        if error is None:
            asked.future.set_result(value)
        else:
            asked.future.set_exception(error)
