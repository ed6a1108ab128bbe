"""The files that a connection has open: checks that their paths lead to them, and of a log that the last owner left."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TypeAlias

from callfire_async.notifications.inbox.sqlite._lock import FileLock

__all__ = ["OpenFiles", "log_path"]

# A log of this size has no changes.
_LOG_HEADER_BYTES = 32

#: Device and inode.
_Identity: TypeAlias = tuple[int, int]


class OpenFiles:
    """
    The database and the write-ahead log of one inbox.

    SQLite does not notice if these files are deleted, moved or replaced while they are open: commits then succeed,
    and are lost when the process ends.

    Args:
        path: The absolute path of the database.
        lock: Keeps the state of the database after its last checkpoint, for the next owner.
    """

    def __init__(self, path: Path, lock: FileLock) -> None:
        self._path = path
        self._lock = lock
        self._log_path = log_path(path)
        self._database: _Identity | None = None
        self._log: _Identity | None = None

    @property
    def are_recorded(self) -> bool:
        """Whether the files were open before."""
        return self._database is not None

    def record(self) -> None:
        """
        Record which files are open; called when SQLite has opened both.

        Raises:
            OSError: One of them is gone already, or the database is not the one that was open before.
        """
        # SQLite keeps a log for as long as a connection is open: checkpoints only truncate it.
        self._log_path = log_path(self._path)
        self._database = self._database or _identity(self._path.stat())
        self._log = _identity(self._log_path.stat())
        self.check()

    def forget_log(self) -> None:
        """Expect another log from now on; called when SQLite has closed the files, which may delete the log."""
        self._log = None

    def check(self) -> None:
        """
        Check that the paths lead to the files that were recorded.

        Raises:
            OSError: One does not.
        """
        if self._database is not None:
            database = _stat_expected(self._path, self._database)
            if self._log is not None:
                _stat_expected(self._log_path, self._log)
            if (state := _state(database)) != self._lock.note:
                self._lock.write_note(state)

    def has_unknown_log(self) -> bool:
        """
        Return whether a log was left for a database that has changed since its owner's last checkpoint.

        Only a checkpoint changes a database that has a log. So either the owner was killed right after a checkpoint,
        or the power failed, or the database was replaced without its log, such as by a backup.
        """
        try:
            database, log = self._path.stat(), log_path(self._path).stat()
        except FileNotFoundError:
            return False
        return log.st_size > _LOG_HEADER_BYTES and _state(database) != self._lock.note


def log_path(path: Path) -> Path:
    """Return the path of the log: beside the target if the database is a symbolic link."""
    target = path.resolve()
    return target.with_name(f"{target.name}-wal")


def _stat_expected(path: Path, expected: _Identity) -> os.stat_result:
    status = path.stat()
    if _identity(status) != expected:
        raise OSError(errno.ESTALE, "another file is in its place", str(path))
    return status


def _identity(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino


def _state(database: os.stat_result) -> str:
    return f"{database.st_size} {database.st_mtime_ns}"
