"""Back up and restore SQLite inboxes: one file, or all files of a directory."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from callfire_async.errors import InboxError, InboxUnavailableError
from callfire_async.notifications.inbox.sqlite._database import (
    check_is_inbox,
    connect,
    create_file,
    find_damage,
    sync_directory,
    sync_file,
)
from callfire_async.notifications.inbox.sqlite._files import log_path
from callfire_async.notifications.inbox.sqlite._lock import FileLock, lock_path

__all__ = ["back_up", "restore"]


async def back_up(source: Path, target: Path, *, overwrite: bool = False) -> list[Path]:
    """
    Copy an inbox file, or each file of a directory, and return the copies. Safe while processes use the files.

    Each copy is the state of one file at one moment. It is checked, and on disk when this returns.

    Args:
        source: A file or a directory.
        target: A file if *source* is one, otherwise a directory.
        overwrite: Replace files that exist.

    Raises:
        InboxError: *source* is not an inbox, or *target* exists or cannot be a copy of it.
        InboxLockedError: A process uses a file that would be replaced.
        InboxUnavailableError: A file cannot be read or written, or is damaged.
    """
    files = _pairs(source, target)
    _check_target(target, files, overwrite=overwrite)
    async with AsyncExitStack() as stack:
        for copy in files.values():
            # Without a lock file, it has no owner, and needs none: a backup is one file.
            if lock_path(copy).exists():
                await _acquire(copy, stack, 0.0)
        with _copies(files) as copies:
            for copy, partial in copies.items():
                _install(partial, copy.resolve())
    return list(files.values())


async def restore(target: Path, source: Path, *, lock_timeout: float = 0.0) -> dict[Path, Path | None]:
    """
    Replace an inbox file with a backup, or files of a directory with those of a directory of backups.

    The old file and its log are kept beside the new one, under another name. Files of the directory that have no
    backup are not changed.

    Args:
        target: A file or a directory; it need not exist.
        source: A backup: a file if *target* is one, otherwise a directory.
        lock_timeout: Seconds to wait for the owners of the files to stop.

    Returns:
        The restored files, and the path of the old file of each; None if there was none.

    Raises:
        InboxError: *source* is not an inbox, or *target* cannot be restored from it.
        InboxLockedError: A process owns one of the files.
        InboxUnavailableError: A file cannot be read or written, or is damaged.
    """
    files = _pairs(source, target)
    _create_directory(target, files)
    owned = {*files.values(), *_inbox_files(target)}
    async with AsyncExitStack() as stack:
        locks = {path: await _acquire(path, stack, lock_timeout) for path in sorted(owned)}
        with _copies(files) as copies:
            restored = {}
            for path, partial in copies.items():
                restored[path] = _keep_old(path.resolve())
                _install(partial, path.resolve())
                locks[path].write_note("")
    return restored


# --- which files ------------------------------------------------------------------------------------------


def _pairs(source: Path, target: Path) -> dict[Path, Path]:
    """Return each file to copy with its target."""
    if not source.exists():
        raise InboxError(f"{source} does not exist")
    if target.exists() and source.is_dir() != target.is_dir():
        kind = "directory" if source.is_dir() else "file"
        raise InboxError(f"{source} is a {kind} and {target} is not: pass two files, or two directories")
    if target.exists() and source.samefile(target):
        raise InboxError(f"{source} and {target} are the same; choose another path for the backup")
    if not source.is_dir():
        return {source: target}
    files = {path: target / path.name for path in sorted(_inbox_files(source))}
    if not files:
        raise InboxError(f"the directory {source} has no inbox files (*.db)")
    return files


def _inbox_files(directory: Path) -> set[Path]:
    return set(directory.glob("*.db")) if directory.is_dir() else set()


def _check_target(target: Path, files: dict[Path, Path], *, overwrite: bool) -> None:
    for copy in files.values():
        if not overwrite and (copy.exists() or log_path(copy).exists()):
            raise InboxError(f"{copy} exists already; choose another path, or overwrite it with --force")
    if others := _inbox_files(target) - {*files.values()}:
        raise InboxError(f"{target} has other inbox files ({min(others).name}, for example); choose another directory")
    _create_directory(target, files)


def _create_directory(target: Path, files: dict[Path, Path]) -> None:
    if target not in files.values():
        with _errors(target):
            target.mkdir(mode=0o700, exist_ok=True)


async def _acquire(path: Path, stack: AsyncExitStack, timeout: float) -> FileLock:
    lock = FileLock(path)
    await lock.acquire(timeout)
    stack.callback(lock.release)
    return lock


# --- copying ----------------------------------------------------------------------------------------------


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise InboxUnavailableError(f"{path} cannot be copied or replaced: {error}") from error


@contextmanager
def _copies(files: dict[Path, Path]) -> Iterator[dict[Path, Path]]:
    """Copy all files, each beside its target; delete copies that were not installed."""
    with ExitStack() as stack:
        copies = {}
        for file, copy in files.items():
            partial = copy.resolve().with_name(f"{copy.resolve().name}.partial")
            stack.callback(_delete, partial)
            with _errors(file):
                _copy(file, partial)
            copies[copy] = partial
        yield copies


def _delete(path: Path) -> None:
    # The error of a copy that could not be written is raised, not that of its removal.
    with suppress(OSError):
        path.unlink(missing_ok=True)


def _copy(source: Path, target: Path) -> None:
    """Copy a database that may be in use, with its log, to one file; check and sync it."""
    target.unlink(missing_ok=True)
    create_file(target)
    with closing(connect(source, read_only=True)) as reader, closing(connect(target, read_only=False)) as writer:
        # A backup of an older version is migrated when it is opened.
        check_is_inbox(reader, source, oldest=1)
        reader.backup(writer)
        # A file without a log, which can also be read on a disk that is read-only.
        writer.execute("PRAGMA journal_mode = DELETE")
        problem = find_damage(writer)
    if problem is not None:
        raise OSError(f"its copy is damaged ({problem})")
    sync_file(target)


def _keep_old(path: Path) -> Path | None:
    """Give an old file and its log second names, so that replacing them loses nothing; return the name of the file."""
    if not path.exists():
        return None
    kept = path.with_name(f"{path.name}.replaced-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")
    with _errors(path):
        _link(path, kept)
        if log_path(path).exists():
            _link(log_path(path), log_path(kept))
        sync_directory(path.parent)
    return kept


def _link(path: Path, other: Path) -> None:
    try:
        other.hardlink_to(path)
    except OSError:
        # Not every file system has hard links.
        shutil.copy2(path, other)
        sync_file(other)


def _install(partial: Path, path: Path) -> None:
    """Replace a file with a copy; SQLite would apply the log and the journal of the old file to the new one."""
    with _errors(path):
        partial.replace(path)
        for suffix in ("-wal", "-shm", "-journal"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        sync_directory(path.parent)
