"""The lock that gives one process the ownership of an inbox file."""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path

from callfire_async.errors import InboxLockedError, InboxUnavailableError

__all__ = ["FileLock"]

_POLL_SECONDS = 0.05


class FileLock:
    """An exclusive lock on a file beside the inbox file; the system releases it when the process ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock_path = path.with_name(f"{path.name}.lock")

    async def acquire(self, timeout: float) -> None:
        """
        Acquire the lock; wait at most *timeout* seconds for another owner to release it.

        Raises:
            InboxLockedError: Another process still owns the file; the message has its process ID.
            InboxUnavailableError: The lock file cannot be created or locked.
        """
        deadline = time.monotonic() + timeout
        while not self._try_acquire():
            if time.monotonic() >= deadline:
                raise InboxLockedError(
                    f"{self._path} is owned by process {self._owner()}; stop that process first,"
                    " or use SqliteInbox.in_directory() to run several processes"
                )
            await asyncio.sleep(_POLL_SECONDS)

    def _try_acquire(self) -> bool:
        file = self._open()
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        except OSError as error:
            os.close(file)
            raise InboxUnavailableError(f"{self._lock_path} cannot be locked: {error.strerror}") from error
        self._file = file
        # The process ID only improves an error message: a full disk must not make opening fail.
        with suppress(OSError):
            os.ftruncate(file, 0)
            os.write(file, str(os.getpid()).encode())
        return True

    def _open(self) -> int:
        try:
            return os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise InboxUnavailableError(f"{self._lock_path} cannot be opened: {error.strerror}") from error

    def release(self) -> None:
        """Release the lock."""
        os.close(self._file)

    def _owner(self) -> str:
        return self._lock_path.read_text().strip() or "(unknown)"
