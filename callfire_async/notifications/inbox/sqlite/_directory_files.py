"""The files of an inbox directory that this process has open: its own, and those that it has taken over."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol, TypeVar

from callfire_async.errors import InboxError, InboxLockedError, InboxUnavailableError
from callfire_async.notifications.inbox.base import Inbox

__all__ = ["DirectoryFiles", "InboxFactory"]

T = TypeVar("T")

_log = logging.getLogger("callfire_async.inbox")


class InboxFactory(Protocol):
    """Creates the inbox of one file."""

    def __call__(self, path: Path, /, *, read_only: bool) -> Inbox:
        """Return an inbox that is not open yet."""
        ...


class DirectoryFiles:
    """
    The open inboxes of a directory, by the names of their files.

    Args:
        directory: Created with mode 0700 if it does not exist.
        make_inbox: Creates the inbox of one file.
        read_only: Open all existing files without owning them.
    """

    def __init__(self, directory: Path, make_inbox: InboxFactory, *, read_only: bool) -> None:
        self._given = self._directory = directory
        self._make_inbox = make_inbox
        self._read_only = read_only
        #: Name of the file to which this process appends.
        self.own_name = ""
        #: In the order in which the next claim tries them.
        self.inboxes: dict[str, Inbox] = {}

    # --- opening and closing ------------------------------------------------------------------------------

    async def open(self) -> None:
        """
        Open this process's own file, or all files if read-only.

        Raises:
            InboxUnavailableError: The directory or the file cannot be created.
        """
        # The working directory may change before files are taken over.
        self._directory = self._given.absolute()
        if not self._read_only:
            self._create_directory()
            self.own_name = await self._open_own()
        elif self._directory.is_dir():
            for path in self._paths():
                await self._try_open(path)
        else:
            raise InboxUnavailableError(f"the directory {self._directory} does not exist")

    @property
    def is_own_available(self) -> bool:
        """Whether this process's own file is in its place."""
        return bool(getattr(self.inboxes.get(self.own_name), "is_available", True))

    def _create_directory(self) -> None:
        if self._directory.is_file():
            raise InboxUnavailableError(f"{self._directory} is a file, not a directory; use SqliteInbox() for one file")
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise InboxUnavailableError(f"{self._directory} cannot be created: {error.strerror}") from error

    async def _open_own(self) -> str:
        """Open the first file that no process owns, or else a new one."""
        for path in self._paths():
            if await self._try_open(path):
                return path.stem
        path = self._directory / f"{secrets.token_hex(4)}.db"
        await self._open_one(path)
        return path.stem

    async def _try_open(self, path: Path) -> bool:
        try:
            await self._open_one(path)
        except InboxLockedError:
            return False
        except InboxError as error:
            _log.error("skipping an inbox file that cannot be opened: %s", error)
            return False
        return True

    async def _open_one(self, path: Path) -> None:
        inbox = self._make_inbox(path, read_only=self._read_only)
        self.inboxes[path.stem] = await inbox.__aenter__()

    async def close_file(self, name: str, inbox: Inbox) -> None:
        """Close a file, unless it has been closed or reopened since the caller got its *inbox*."""
        if self.inboxes.get(name) is inbox:
            del self.inboxes[name]
            await inbox.__aexit__(None, None, None)

    async def close(self) -> None:
        """Close all files, also if one fails or this is cancelled; raise the first error."""
        closing = [self.close_file(name, inbox) for name, inbox in list(self.inboxes.items())]
        for result in await asyncio.gather(*closing, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    # --- files of stopped processes -----------------------------------------------------------------------

    async def take_over(self) -> bool:
        """Open the files that no process owns and that have pending deliveries; close those that have none left."""
        is_any_opened = False
        for path in self._unowned_paths():
            if await self._may_have_pending(path) and await self._try_open(path):
                _log.info("took over the inbox file %s, which no process owned", path)
                is_any_opened = True
        for name, inbox in list(self.inboxes.items()):
            if name != self.own_name and await self.call(name, _has_pending) is False:
                await self.close_file(name, inbox)
        return is_any_opened

    async def _may_have_pending(self, path: Path) -> bool:
        try:
            async with self._make_inbox(path, read_only=True) as inbox:
                return await _has_pending(inbox)
        except InboxError:
            # The file is new or damaged; opening it shows which.
            return True

    def _paths(self) -> list[Path]:
        return sorted(self._directory.glob("*.db"))

    def _unowned_paths(self) -> list[Path]:
        return [path for path in self._paths() if path.stem not in self.inboxes]

    # --- calls --------------------------------------------------------------------------------------------

    async def call(self, name: str, operation: Callable[[Inbox], Awaitable[T]]) -> T | None:
        """
        Return the result of an operation on one file; None if the file is not open.

        A file that was taken over and fails is closed, so that it does not affect the others.

        Raises:
            InboxError: This process's own file failed.
        """
        inbox = self.inboxes.get(name)
        if inbox is None:
            return None
        try:
            return await operation(inbox)
        except InboxError as error:
            if name == self.own_name:
                raise
            _log.error("closing inbox file %s after an error: %s", name, error)
            await self.close_file(name, inbox)
            return None

    async def call_all(self, operation: Callable[[Inbox], Awaitable[T]]) -> list[T]:
        """Return the results of an operation on all open files."""
        results = [await self.call(name, operation) for name in list(self.inboxes)]
        return [result for result in results if result is not None]

    async def handled(self, event_keys: list[str]) -> frozenset[str]:
        """Return which of these events were acked, in files of any process."""
        names = list(self.inboxes)
        own = {name: await self.call(name, lambda inbox: inbox.handled(event_keys)) for name in names}
        # A file may have been taken over or closed meanwhile: each that was not read above is read here.
        others = [await self._read_handled(path, event_keys) for path in self._paths() if own.get(path.stem) is None]
        return frozenset().union(*filter(None, own.values()), *others)

    async def _read_handled(self, path: Path, event_keys: list[str]) -> frozenset[str]:
        try:
            async with self._make_inbox(path, read_only=True) as inbox:
                return await inbox.handled(event_keys)
        except InboxError as error:
            _log.error("cannot read handled events from an inbox file: %s", error)
            return frozenset()


async def _has_pending(inbox: Inbox) -> bool:
    """Return whether a file is still needed; its dead letters can only be replayed while it is open."""
    stats = await inbox.stats()
    return stats.ready + stats.delayed + stats.leased + stats.dead > 0
