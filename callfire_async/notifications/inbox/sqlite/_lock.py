"""The lock that gives one process the ownership of an inbox file."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from callfire_async.errors import InboxLockedError, InboxUnavailableError

__all__ = ["FileLock", "lock_path"]

_log = logging.getLogger("callfire_async.inbox")

_POLL_SECONDS = 0.05
_MAX_CONTENT_BYTES = 200


class FileLock:
    """
    An exclusive lock on a file beside the inbox file; the system releases it when the process ends.

    If the inbox file is a symbolic link, the lock is beside its target: a file with several names has one owner.

    The lock file contains the process ID of its owner, and one line that outlives the owner: the `note`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock_path = lock_path(path)
        # -1 without the lock.
        self._file = -1
        self._listener: socket.socket | None = None
        #: The last owner's note; empty without one.
        self.note: str = ""

    async def acquire(self, timeout: float) -> None:
        """
        Acquire the lock; wait at most *timeout* seconds for another owner to release it.

        Raises:
            InboxLockedError: Another process still owns the file; the message has its process ID.
            InboxUnavailableError: The lock file cannot be created or locked.
        """
        # A link may have been changed since.
        self._lock_path = lock_path(self._path)
        deadline = time.monotonic() + timeout
        if self._try_acquire():
            return
        if timeout > 0:
            _log.warning("waiting up to %g s for its owner to stop: %s", timeout, self._describe_owner())
        while time.monotonic() < deadline:
            await asyncio.sleep(_POLL_SECONDS)
            if self._try_acquire():
                return
        raise InboxLockedError(self._describe_owner())

    def _try_acquire(self) -> bool:
        # A fork by another thread waits until the lock is in the set, or not acquired.
        with _fork_mutex:
            file = self._open()
            if not self._flock(file):
                return False
            self._file = file
            _held.add(self)
        self.note = "".join(_read_lines(file)[1:2])
        self._write()
        return True

    def _open(self) -> int:
        try:
            return os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise InboxUnavailableError(f"{self._lock_path} cannot be opened: {error.strerror}") from error

    def _flock(self, file: int) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        except OSError as error:
            os.close(file)
            raise InboxUnavailableError(f"{self._lock_path} cannot be locked: {error.strerror}") from error
        return True

    def write_note(self, note: str) -> None:
        """Store one line for later owners. It is not synced, and may be lost with the process."""
        self.note = note
        self._write()

    def _write(self) -> None:
        # The content only improves messages and saves a check: a full disk must not make opening fail.
        with suppress(OSError):
            os.ftruncate(self._file, 0)
            os.lseek(self._file, 0, os.SEEK_SET)
            os.write(self._file, f"{os.getpid()}\n{self.note}\n".encode())

    def release(self) -> None:
        """Release the lock; in a forked child, which does not have it, do nothing."""
        with _fork_mutex:
            if self in _held:
                # Not only closed: a process that was forked without Python's knowledge may have the file open.
                fcntl.flock(self._file, fcntl.LOCK_UN)
                self.close()
                _held.discard(self)

    def status(self) -> os.stat_result:
        """
        Return the status of the lock file.

        Raises:
            OSError: The lock is not held.
        """
        return os.fstat(self._file)

    def close(self) -> None:
        """Close the lock file without releasing the lock in the process that this one was forked from."""
        os.close(self._file)
        self._file = -1

    # --- the owner's socket -------------------------------------------------------------------------------

    def attach(self, create: Callable[[], socket.socket]) -> socket.socket:
        """Create the socket on which the owner listens; a forked child closes it with the lock."""
        with _fork_mutex:
            self._listener = create()
        return self._listener

    def detach(self) -> None:
        """Remove the socket from the lock, before it is closed."""
        with _fork_mutex:
            self._listener = None

    def close_in_child(self) -> None:
        """Close the lock file and the socket in a child that was forked from the owner."""
        self.close()
        if self._listener is not None:
            # Not closed by the event loop, which shares its selector with the parent's.
            os.close(self._listener.detach())

    # --- messages -----------------------------------------------------------------------------------------

    def _describe_owner(self) -> str:
        pid = self._owner()
        if pid == os.getpid() and self._is_held_here():
            return (
                f"{self._path} is owned by process {pid}, which is this process: it has the file open already; use the"
                " inbox that is open, pass read_only=True to look at the file, or use SqliteInbox.in_directory() for"
                " several inboxes that append"
            )
        return (
            f"{self._path} is owned by {self._describe_process(pid)}; stop that process first,"
            " or use SqliteInbox.in_directory() to run several processes"
        )

    def _is_held_here(self) -> bool:
        # In another container, the owner may have the same process ID.
        with suppress(OSError):
            wanted = self._lock_path.stat()
            return any(os.path.samestat(lock.status(), wanted) for lock in list(_held))
        return False

    def _owner(self) -> int | None:
        """Return the process ID in the lock file; None if its owner could not write it."""
        with suppress(OSError, ValueError):
            return int(self._lock_path.read_bytes()[:_MAX_CONTENT_BYTES].split(b"\n")[0])
        return None

    def _describe_process(self, pid: int | None) -> str:
        if pid is None:
            return "process (unknown)"
        if _is_running(pid):
            return f"process {pid}"
        holders = ", ".join(map(str, sorted(_holders(self._lock_path))))
        if holders:
            return f"process {holders}, which inherited the lock from process {pid}"
        return (
            f"a process that is not visible here: process {pid}, if it runs in another container, or else one that"
            " inherited the lock from it, such as a worker that was forked"
        )


def lock_path(path: Path) -> Path:
    """Return the path of the lock of an inbox file: beside the target of a symbolic link."""
    target = path.resolve()
    return target.with_name(f"{target.name}.lock")


def _read_lines(file: int) -> list[str]:
    return os.pread(file, _MAX_CONTENT_BYTES, 0).decode("ascii", "replace").splitlines()


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _holders(path: Path, processes: Path = Path("/proc")) -> set[int]:
    """Return the processes that hold a lock on a file, as far as the system shows them to this user."""
    holders = set()
    for descriptor in processes.glob("[0-9]*/fd/*"):
        # Processes and their files come and go, and those of other users are private.
        with suppress(OSError):
            information = descriptor.parent.parent / "fdinfo" / descriptor.name
            if descriptor.samefile(path) and "FLOCK" in information.read_text():
                holders.add(int(descriptor.parent.parent.name))
    return holders


# --- forked children --------------------------------------------------------------------------------------

# A forked child shares the lock with its parent: if the parent is killed, the child would keep the file locked. The
# callbacks of a fork cannot be removed again, so all locks of the process share them, and therefore this state.
_held: set[FileLock] = set()
_fork_mutex = threading.RLock()


def _close_inherited_locks() -> None:
    for lock in _held:
        lock.close_in_child()
    _held.clear()
    _fork_mutex.release()


os.register_at_fork(
    before=_fork_mutex.acquire, after_in_parent=_fork_mutex.release, after_in_child=_close_inherited_locks
)
