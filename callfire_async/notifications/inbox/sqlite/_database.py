"""
One SQLite file: who owns it, and how it is opened.

It imports `errors`.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import sqlite3
import time
from contextlib import suppress
from pathlib import Path

from callfire_async.errors import InboxError, InboxLockedError, InboxUnavailableError

_log = logging.getLogger("callfire_async.inbox")

_LOCK_POLL_SECONDS = 0.05
# As long as a tool that copies the file may hold it; a postback is answered 503 then.
_BUSY_SECONDS = 5.0
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


class FileLock:
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
                    " or run several processes with SqliteInbox.in_directory()"
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
        _create_file(path)
        # Before SQLite sees it: to close a connection may be to put the log into the file.
        _sync_wal(path)
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


def _create_file(path: Path) -> None:
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


def _sync_wal(path: Path) -> None:
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


def warn_if_ephemeral(path: Path, mounts: Path = Path("/proc/self/mounts")) -> None:
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
