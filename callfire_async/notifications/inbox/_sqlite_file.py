"""
One SQLite file: who owns it, how it is opened, and the thread that writes to it.

It imports `errors`.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

from attrs import field, frozen

from callfire_async.errors import InboxError, InboxLockedError, InboxUnavailableError

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

_log = logging.getLogger(__name__)

_LOCK_POLL_SECONDS = 0.05
# As long as a tool that copies the file may hold it; a postback is answered 503 then.
_BUSY_SECONDS = 5.0
# One commit for more than this would let the first of them wait for the last.
_GROUP_SIZE = 1000
# A write-ahead log that has grown in a burst is cut back to this.
_LOG_BYTES = 64 * 1024 * 1024
_CHUNK_BYTES = 1024 * 1024

# File systems that end with their machine or container.
FLEETING = ("tmpfs", "ramfs", "overlay")

_MIGRATIONS = (
    """
    CREATE TABLE deliveries (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        key TEXT NOT NULL,
        state INTEGER NOT NULL DEFAULT 0,
        due_at REAL NOT NULL,
        delay REAL NOT NULL DEFAULT 0,
        attempt INTEGER NOT NULL DEFAULT 1,
        crashes INTEGER NOT NULL DEFAULT 0,
        token TEXT NOT NULL DEFAULT '',
        appended_at REAL NOT NULL,
        received_at REAL NOT NULL,
        updated_at REAL NOT NULL,
        event_key TEXT NOT NULL DEFAULT '',
        completed TEXT NOT NULL DEFAULT '',
        reason TEXT NOT NULL DEFAULT '',
        content_type TEXT,
        body BLOB NOT NULL
    );
    CREATE INDEX open_deliveries ON deliveries (due_at, id) WHERE state < 2;
    CREATE INDEX closed_deliveries ON deliveries (state, updated_at) WHERE state > 1;
    CREATE INDEX delivery_keys ON deliveries (key, id);
    CREATE INDEX event_keys ON deliveries (event_key) WHERE event_key != '';
    """,
)


# --- who owns it ------------------------------------------------------------------------------------------


class OwnerLock:
    """The lock beside a file: held for as long as a process owns it, and gone with that process."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def acquire(self, timeout: float) -> None:
        """
        Wait for the owner to leave, *timeout* seconds at most.

        Raises:
            InboxLockedError: It did not leave; the message names its process.
            InboxUnavailableError: The lock file cannot be made.
        """
        deadline = time.monotonic() + timeout
        while not self._try():
            if time.monotonic() >= deadline:
                raise InboxLockedError(
                    f"{self._path} is owned by process {self._owner()}; wait until that has stopped,"
                    " or run several processes with SqliteInbox.in_folder()"
                )
            await asyncio.sleep(_LOCK_POLL_SECONDS)

    def _try(self) -> bool:
        try:
            file = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise InboxUnavailableError(f"{self._lock_path} cannot be opened: {error.strerror}") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(file)
            if isinstance(error, BlockingIOError):
                return False
            raise InboxUnavailableError(f"{self._lock_path} cannot be locked: {error.strerror}") from error
        self._file = file
        # Who it is only makes for better words: a full disk must not keep the owner out.
        with suppress(OSError):
            os.ftruncate(file, 0)
            os.write(file, str(os.getpid()).encode())
        return True

    def release(self) -> None:
        """Let the next owner in."""
        os.close(self._file)

    def _owner(self) -> str:
        return self._lock_path.read_text().strip() or "(unknown)"

    @property
    def _lock_path(self) -> Path:
        return self._path.with_name(self._path.name + ".lock")


# --- opening ----------------------------------------------------------------------------------------------


def open_file(path: Path, *, read_only: bool = False, check: bool = False) -> sqlite3.Connection:
    """
    Open an inbox's file, made and migrated where that is needed.

    Args:
        path: The file.
        read_only: It must be there, and nothing in it is changed.
        check: Look for damage first, which takes a while for a large one.

    Raises:
        sqlite3.Error, OSError: It cannot be opened, or is damaged.
        InboxError: A later version has written it.
    """
    if not read_only:
        _make(path)
        # Before SQLite sees it: to close a connection may be to put the log into the file.
        _settle_log(path)
    uri = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rw'}"
    connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None, cached_statements=256)
    try:
        if check:
            _check_damage(connection)
        if read_only:
            _check_version(connection, path, at_least=len(_MIGRATIONS))
        else:
            _configure(connection)
            _migrate(connection, path)
            _sync_folder(path.parent)
    except BaseException:
        connection.close()
        raise
    return connection


def _make(path: Path) -> None:
    # SQLite gives its other files the mode of this one. One that is there must not be touched: whoever closes a file
    # lets go of all locks that his process has on it, those of SQLite among them.
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _check_damage(connection: sqlite3.Connection) -> None:
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise OSError("the file is damaged")


def _configure(connection: sqlite3.Connection) -> None:
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise InboxError(f"the file system cannot hold a write-ahead log (journal mode {mode})")
    # FULL, said aloud: NORMAL loses the last commits with the machine's power.
    connection.execute("PRAGMA synchronous = FULL")
    # On Apple's systems a plain fsync leaves the data in the disk's cache.
    connection.execute("PRAGMA fullfsync = ON")
    connection.execute("PRAGMA checkpoint_fullfsync = ON")
    connection.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")


def _check_version(connection: sqlite3.Connection, path: Path, *, at_least: int = 0) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(_MIGRATIONS):
        raise InboxError(f"{path} was written by a later version of callfire_async (schema {version})")
    if version < at_least:
        raise InboxError(f"{path} holds no inbox of this version; open it for writing once")
    return int(version)


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    for number in range(_check_version(connection, path), len(_MIGRATIONS)):
        connection.executescript(f"BEGIN IMMEDIATE;{_MIGRATIONS[number]};PRAGMA user_version = {number + 1};COMMIT;")


def _sync_folder(folder: Path) -> None:
    """Make the names of new files durable too."""
    file = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _settle_log(path: Path) -> None:
    """
    Put on the disk whatever can be read of the log that the last owner has left.

    It may have died before it had synced that; and what a failed sync had covered, no later one covers unless it is
    written again. What was put into the file from such a log, or appended to it, would end with the machine's power.
    """
    try:
        # SQLite keeps the log beside the file itself, not beside a link to it.
        file = os.open(f"{path.resolve()}-wal", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        for start in range(0, os.fstat(file).st_size, _CHUNK_BYTES):
            os.pwrite(file, os.pread(file, _CHUNK_BYTES, start), start)
        os.fsync(file)
    finally:
        os.close(file)
    _sync_folder(path.resolve().parent)


def warn_of_file_system(path: Path, mounts: Path = Path("/proc/self/mounts")) -> None:
    """Log a warning where a file will not outlive the machine, or its container."""
    kind = file_system(path.resolve(), mounts)
    if kind in FLEETING:
        _log.warning("%s is on a file system (%s) that ends with its machine or container", path, kind)


def file_system(path: Path, mounts: Path = Path("/proc/self/mounts")) -> str | None:
    """Name the kind of file system that a whole path is on; None where that cannot be told."""
    try:
        lines = [line.split(" ") for line in mounts.read_text().splitlines()]
    except OSError:
        return None
    over = sorted((line for line in lines if path.is_relative_to(line[1])), key=lambda line: len(line[1]))
    # Of several in one place the last one mounted is seen.
    return over[-1][2] if over else None


# --- writing ----------------------------------------------------------------------------------------------


@frozen(eq=False)
class _Job(Generic[T]):
    work: Work[T]
    future: asyncio.Future[T]


@frozen
class _Outcome:
    job: _Job[Any]
    value: Any = None
    error: Exception | None = field(default=None)

    def tell(self) -> None:
        """Wake whoever waits, unless they have gone."""
        if self.job.future.done():
            return
        if self.error is None:
            self.job.future.set_result(self.value)
        else:
            self.job.future.set_exception(self.error)


class Writer:
    """
    The thread that owns a connection.

    What has gathered while a transaction was committed is the next one: many writers share a sync of the disk, and
    one by itself does not wait for others.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self._path = path
        self._read_only = read_only
        self._jobs: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
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
        self._jobs.put(None)
        try:
            await asyncio.shield(self._stopped)
        finally:
            # Where this is cancelled too: nobody may own the file before the last commit.
            self._thread.join()

    async def submit(self, work: Work[T]) -> T:
        """
        Have something done in the next transaction; it is committed when this returns.

        It is done even where whoever waits for it is cancelled.

        Raises:
            InboxUnavailableError: The disk is full or fails, or somebody else holds the file; nothing has changed.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put(_Job(work, future))
        return await future

    def _run(self) -> None:
        going_on = True
        while going_on:
            going_on, jobs = self._gather()
            outcomes = self._carry_out(jobs) if jobs else []
            self._loop.call_soon_threadsafe(_tell, outcomes)
        self._close()
        self._loop.call_soon_threadsafe(self._stopped.set_result, None)

    def _gather(self) -> tuple[bool, list[_Job[Any]]]:
        """Wait for a job; take all that are there, and whether there will be more."""
        jobs: list[_Job[Any]] = []
        job = self._jobs.get()
        while job is not None:
            jobs.append(job)
            if len(jobs) == _GROUP_SIZE or self._jobs.empty():
                return True, jobs
            job = self._jobs.get()
        return False, jobs

    def _carry_out(self, jobs: list[_Job[Any]]) -> list[_Outcome]:
        try:
            return self._in_one_transaction(jobs)
        except Exception as error:  # noqa: BLE001  # whatever it is belongs to whoever waits for it
            return self._fail(jobs, error) if _is_of_the_disk(error) else self._one_by_one(jobs, error)

    def _in_one_transaction(self, jobs: list[_Job[Any]]) -> list[_Outcome]:
        connection = self._open()
        connection.execute("BEGIN" if self._read_only else "BEGIN IMMEDIATE")
        outcomes = [_Outcome(job, job.work(connection)) for job in jobs]
        connection.execute("COMMIT")
        return outcomes

    def _one_by_one(self, jobs: list[_Job[Any]], error: Exception) -> list[_Outcome]:
        """Let a job that cannot be done fail alone."""
        self._roll_back()
        if len(jobs) == 1:
            return [_Outcome(jobs[0], error=_refused(self._path, error))]
        return [outcome for job in jobs for outcome in self._carry_out([job])]

    def _fail(self, jobs: list[_Job[Any]], error: Exception) -> list[_Outcome]:
        """Tell all that nothing has happened; be ready to try again."""
        self._roll_back()
        if _code(error) not in _HARMLESS:
            # What is in memory can no longer be trusted, nor what the disk has made of the last writes.
            self._close()
            self._failed = True
        _log.error("the inbox %s cannot be used: %s", self._path, error)
        return [_Outcome(job, error=_unavailable(self._path, error)) for job in jobs]

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


def _is_of_the_disk(error: Exception) -> bool:
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


def _tell(outcomes: list[_Outcome]) -> None:
    for outcome in outcomes:
        outcome.tell()
