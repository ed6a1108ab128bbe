"""Open the file of an inbox: durability settings, migrations, and checks of the file and its file system."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from callfire_async.errors import InboxError
from callfire_async.notifications.inbox.sqlite._files import log_path

__all__ = [
    "EPHEMERAL_FILE_SYSTEMS",
    "check_is_inbox",
    "connect",
    "create_file",
    "file_system",
    "find_damage",
    "open_database",
    "sync_directory",
    "sync_file",
    "warn_if_ephemeral",
]

_log = logging.getLogger("callfire_async.inbox")

# A tool that copies the file may lock it for this long; after that a postback gets a 503.
_BUSY_SECONDS = 5.0
# A write-ahead log that has grown in a burst is truncated to this size.
_MAX_WAL_BYTES = 64 * 1024 * 1024
_CHUNK_BYTES = 1024 * 1024

#: File systems whose contents are lost when the container or the machine goes away.
EPHEMERAL_FILE_SYSTEMS = ("tmpfs", "ramfs", "overlay")

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
    # The keys are in memory (`RecentKeys`).
    "DROP INDEX delivery_keys",
)


def open_database(
    path: Path, *, read_only: bool = False, check: bool = False, create: bool = True, check_log: bool = False
) -> sqlite3.Connection:
    """
    Open the file of an inbox; create and migrate it if necessary.

    Args:
        path: The file.
        read_only: The file must exist and is not changed.
        check: Check the whole file for damage first, which takes time if it is large.
        create: Create the file if it does not exist.
        check_log: Check first whether the log belongs to the file, which takes time if the file is large.

    Raises:
        sqlite3.Error, OSError: The file cannot be opened, or is damaged.
        InboxError: A later version of this library has written the file.
    """
    if create and not read_only:
        create_file(path)
    if not read_only:
        # Before SQLite opens the file: closing a connection may copy the log into the database.
        _sync_wal(path)
    if check_log:
        _check_log(path)
    connection = connect(path, read_only=read_only)
    try:
        _prepare(connection, path, read_only=read_only, check=check)
    except BaseException:
        connection.close()
        raise
    return connection


def connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    """Open a file that exists; SQLite reports a file that is not a database with the first statement."""
    uri = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rw'}"
    return sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)


def _prepare(connection: sqlite3.Connection, path: Path, *, read_only: bool, check: bool) -> None:
    if check:
        _check_damage(connection)
    if read_only:
        check_is_inbox(connection, path)
        return
    _configure(connection)
    _migrate(connection, path)
    sync_directory(path.parent)


def create_file(path: Path) -> None:
    """Create an empty file that only this user can read, unless it exists."""
    # SQLite gives its other files the mode of this one. An existing file must not be opened here: closing it would
    # release all locks that this process has on it, including those of SQLite.
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _check_damage(connection: sqlite3.Connection) -> None:
    (result,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if result != "ok":
        raise OSError("the file is damaged")


def _check_log(path: Path) -> None:
    """
    Refuse a log that does not belong to the file; neither is changed.

    Raises:
        OSError: The file is damaged if it is read with its log.
    """
    _log.info("checking %s with its log, because the file has changed since the last recorded checkpoint", path)
    # A connection that only reads does not copy the log into the file.
    with closing(connect(path, read_only=True)) as connection:
        try:
            problem = find_damage(connection)
        except sqlite3.OperationalError as error:
            # The process ended while it created the file: SQLite must roll that back before the file can be read.
            if error.sqlite_errorcode != sqlite3.SQLITE_READONLY_ROLLBACK:
                raise
            problem = None
    if problem is not None:
        log = log_path(path)
        raise OSError(
            f"its log {log} does not belong to it ({problem}): the file was replaced without its log, such as by a"
            " backup, or is damaged. To restore a backup, run 'callfire-async inbox restore'. To use the file as it is,"
            f" without the deliveries in the log, move {log} to another directory"
        )


def find_damage(connection: sqlite3.Connection) -> str | None:
    """Return the damage of a file and its indexes, or None."""
    try:
        (result,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise
        return str(error)
    return None if result == "ok" else " ".join(str(result).split())


def _configure(connection: sqlite3.Connection) -> None:
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise InboxError(f"the file system does not support a write-ahead log (journal mode {mode})")
    # Explicit, because some builds default to NORMAL, which loses the last commits in a power failure.
    connection.execute("PRAGMA synchronous = FULL")
    # On macOS, a plain fsync leaves the data in the cache of the disk.
    connection.execute("PRAGMA fullfsync = ON")
    connection.execute("PRAGMA checkpoint_fullfsync = ON")
    # Some builds default to ON, and then write each page of an index that is dropped.
    connection.execute("PRAGMA secure_delete = FAST")
    connection.execute(f"PRAGMA journal_size_limit = {_MAX_WAL_BYTES}")


def _check_version(connection: sqlite3.Connection, path: Path, *, minimum: int = 0) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(_MIGRATIONS):
        raise InboxError(f"{path} was written by a later version of callfire_async (schema {version})")
    if version < minimum:
        raise InboxError(f"{path} is not an inbox of this version; open it once without read_only")
    return int(version)


def check_is_inbox(connection: sqlite3.Connection, path: Path, *, oldest: int | None = None) -> None:
    """
    Check that a file is an inbox that this version can read, or one since *oldest*.

    Raises:
        InboxError: It is not, or a later version of this library has written it.
    """
    _check_version(connection, path, minimum=_oldest_readable() if oldest is None else oldest)


def _oldest_readable() -> int:
    """Return the first version with everything that reading needs: all changes since have dropped an index."""
    return max(number for number, script in enumerate(_MIGRATIONS, 1) if not script.startswith("DROP INDEX"))


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    for number in range(_check_version(connection, path), len(_MIGRATIONS)):
        connection.executescript(f"BEGIN IMMEDIATE;{_MIGRATIONS[number]};PRAGMA user_version = {number + 1};COMMIT;")


def sync_directory(directory: Path) -> None:
    """Make the names of new files durable."""
    sync_file(directory)


def sync_file(path: Path) -> None:
    """Make the contents of a file or directory durable."""
    with _opened(path, os.O_RDONLY) as file:
        os.fsync(file)


def _sync_wal(path: Path) -> None:
    """
    Rewrite and sync the write-ahead log that the last owner left.

    The owner may have died before its last sync, and pages that a failed sync covered are only synced again if they
    are written again. Without this, commits that are read from such a log could be lost in a power failure.
    """
    log = log_path(path)
    with suppress(FileNotFoundError), _opened(log, os.O_RDWR) as file:
        for start in range(0, os.fstat(file).st_size, _CHUNK_BYTES):
            os.pwrite(file, os.pread(file, _CHUNK_BYTES, start), start)
        os.fsync(file)
        sync_directory(log.parent)


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    file = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield file
    finally:
        os.close(file)


def warn_if_ephemeral(path: Path, mounts: Path = Path("/proc/self/mounts")) -> None:
    """Log a warning if a file or its log does not outlive its container or machine."""
    # Without its directory, a file that is mounted into a container has its log in the container.
    for name, file in ((path, path.resolve()), (log_path(path), log_path(path))):
        kind = file_system(file, mounts)
        if kind in EPHEMERAL_FILE_SYSTEMS:
            _log.warning(
                "%s is on an ephemeral file system (%s): deliveries are lost when the container or machine goes away",
                name,
                kind,
            )
            return


def file_system(path: Path, mounts: Path = Path("/proc/self/mounts")) -> str | None:
    """Return the type of the file system of an absolute path; None if it is unknown."""
    try:
        lines = [line.split(" ") for line in mounts.read_text().splitlines()]
    except OSError:
        return None
    # The longest mount point wins; of several mounts at the same point, the last one.
    matching = sorted((line for line in lines if path.is_relative_to(line[1])), key=lambda line: len(line[1]))
    return matching[-1][2] if matching else None
