"""`SqliteDirectoryInbox`: an inbox in a directory that several processes share, with one file for each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from attrs import evolve

from callfire_async.errors import InboxError
from callfire_async.notifications.inbox._cancellation import cancel_repeatedly
from callfire_async.notifications.inbox._inbox_arguments import checked_list
from callfire_async.notifications.inbox.base import (
    AppendResult,
    Delivery,
    Inbox,
    InboxEntry,
    InboxStats,
    Lease,
    wait_any,
)
from callfire_async.notifications.inbox.sqlite._directory_files import DirectoryFiles, InboxFactory

__all__ = ["SqliteDirectoryInbox"]

_log = logging.getLogger("callfire_async.inbox")

_TAKE_OVER_SECONDS = 60.0


class SqliteDirectoryInbox:
    """
    An inbox that appends to this process's own file, in a directory that several processes share.

    A process takes over the files that no running process owns, and closes each when only done deliveries are left in
    it. IDs have the form ``file/number``. ``append`` finds duplicates in its own file only: a postback that CallFire
    sends to two processes is handled twice. ``handled`` reads all files, including those of other processes.

    Args:
        directory: Created with mode 0700 if it does not exist.
        make_inbox: Creates the inbox of one file.
        retention: Seconds for which a file keeps the keys of done deliveries; None if unknown.
        read_only: Open all existing files without owning them, and change nothing.
    """

    def __init__(
        self, directory: Path, make_inbox: InboxFactory, *, retention: float | None = None, read_only: bool = False
    ) -> None:
        #: Seconds for which the keys of done deliveries are kept; ``handled`` is complete for this period.
        self.retention = retention
        self._directory = directory
        self._read_only = read_only
        self._files = DirectoryFiles(directory, make_inbox, read_only=read_only)
        self._is_open = False
        self._resources = AsyncExitStack()
        self._file_added = asyncio.Event()

    @property
    def is_available(self) -> bool:
        """Whether appends can succeed: the path of this process's own file leads to the file that is open."""
        return self._files.is_own_available

    # --- lifecycle ----------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """
        Open a file that no process owns, or a new one; take over the others that no process owns.

        Raises:
            InboxUnavailableError: The directory or the file cannot be created.
        """
        # An event belongs to the loop that first waits for it.
        self._file_added = asyncio.Event()
        async with AsyncExitStack() as resources:
            resources.push_async_callback(self._files.close)
            await self._files.open()
            if not self._read_only:
                await self._files.take_over()
                resources.push_async_callback(_cancel, asyncio.create_task(self._keep_taking_over()))
            self._resources = resources.pop_all()
        self._is_open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all files."""
        self._is_open = False
        await self._resources.aclose()

    async def _keep_taking_over(self) -> None:
        while True:
            await asyncio.sleep(_TAKE_OVER_SECONDS)
            try:
                if await self._files.take_over():
                    self._file_added.set()
            except Exception:  # noqa: BLE001  # such as too many open files: it may have passed by the next time
                _log.exception(
                    "cannot take over the files in %s, retrying in %d s", self._directory, _TAKE_OVER_SECONDS
                )

    @property
    def _open_files(self) -> DirectoryFiles:
        if not self._is_open:
            raise InboxError("this inbox is not open; use it inside 'async with'")
        return self._files

    @property
    def _owned_files(self) -> DirectoryFiles:
        if self._read_only:
            raise InboxError(f"{self._directory} was opened with read_only=True")
        return self._open_files

    # --- appending ----------------------------------------------------------------------------------------

    async def append(self, delivery: Delivery) -> AppendResult:
        """Store a delivery in this process's own file."""
        (result,) = await self.append_many([delivery])
        return result

    async def append_many(self, deliveries: Sequence[Delivery]) -> list[AppendResult]:
        """Store several deliveries in this process's own file, or in that of their envelope, all or none."""
        files = self._owned_files
        # A repeated split finds the events that exist only in the envelope's file, which may have been taken over.
        envelope_ids = [delivery.envelope_id for delivery in deliveries if delivery.envelope_id is not None]
        name = _split(envelope_ids[0])[0] if envelope_ids else files.own_name
        results = await files.call(name, lambda inbox: inbox.append_many(deliveries))
        if results is None:
            raise InboxError(f"the inbox file {name} of the envelope is not open in this process")
        return [evolve(result, id=f"{name}/{result.id}") for result in results]

    # --- leases -------------------------------------------------------------------------------------------

    async def claim(self, limit: int, *, lease: float) -> list[Lease]:
        """Lease due deliveries of one file; the files take turns."""
        files = self._owned_files
        for name in list(files.inboxes):
            leases = await files.call(name, lambda inbox: inbox.claim(limit, lease=lease))
            if leases and name in files.inboxes:
                files.inboxes[name] = files.inboxes.pop(name)
                return [evolve(leased, id=f"{name}/{leased.id}") for leased in leases]
        return []

    async def extend(self, lease: Lease, seconds: float) -> bool:
        """Make a lease expire *seconds* from now."""
        return await self._settle(lease, lambda inbox, inner: inbox.extend(inner, seconds))

    async def ack(self, lease: Lease, *, event_key: str = "") -> bool:
        """Mark a delivery as done."""
        return await self._settle(lease, lambda inbox, inner: inbox.ack(inner, event_key=event_key))

    async def nack(
        self, lease: Lease, *, delay: float, completed: frozenset[str] = frozenset(), reason: str = ""
    ) -> bool:
        """Schedule another attempt."""
        return await self._settle(
            lease, lambda inbox, inner: inbox.nack(inner, delay=delay, completed=completed, reason=reason)
        )

    async def release(self, lease: Lease, *, completed: frozenset[str] = frozenset()) -> bool:
        """Return a delivery without counting the attempt."""
        return await self._settle(lease, lambda inbox, inner: inbox.release(inner, completed=completed))

    async def dead_letter(self, lease: Lease, reason: str, *, completed: frozenset[str] = frozenset()) -> bool:
        """Make a delivery a dead letter."""
        return await self._settle(lease, lambda inbox, inner: inbox.dead_letter(inner, reason, completed=completed))

    async def _settle(self, lease: Lease, operation: Callable[[Inbox, Lease], Awaitable[bool]]) -> bool:
        name, row_id = _split(lease.id)
        inbox = self._files.inboxes.get(name)
        return inbox is not None and await operation(inbox, evolve(lease, id=row_id))

    # --- administration -----------------------------------------------------------------------------------

    async def handled(self, event_keys: Iterable[str]) -> frozenset[str]:
        """Return which of these events were acked by any process of the directory."""
        return await self._open_files.handled(list(event_keys))

    async def get(self, id: int | str) -> InboxEntry | None:
        """Return a delivery and its state."""
        name, row_id = _split(id)
        entry = await self._open_files.call(name, lambda inbox: inbox.get(row_id))
        return None if entry is None else evolve(entry, id=f"{name}/{entry.id}")

    async def entries(self, state: str | None = None) -> AsyncIterator[InboxEntry]:
        """Yield the deliveries of this process's files, one file after the other."""
        files = self._open_files
        for name in sorted(files.inboxes):
            if name in files.inboxes:
                async for entry in files.inboxes[name].entries(state):
                    yield evolve(entry, id=f"{name}/{entry.id}")

    async def replay(self, ids: Iterable[int | str] | None = None) -> int:
        """Make dead letters of this process's files ready again."""
        files = self._owned_files
        if ids is None:
            return sum(await files.call_all(lambda inbox: inbox.replay()))
        wanted: dict[str, list[str]] = {}
        for name, row_id in map(_split, checked_list("ids", ids)):
            wanted.setdefault(name, []).append(row_id)
        return sum([await files.call(name, partial(_replay, row_ids)) or 0 for name, row_ids in wanted.items()])

    async def purge(self, *, done_before: datetime | None = None, dead_before: datetime | None = None) -> int:
        """Delete deliveries of this process's files that were done, or became dead letters, before a time."""
        return sum(
            await self._owned_files.call_all(
                lambda inbox: inbox.purge(done_before=done_before, dead_before=dead_before)
            )
        )

    async def stats(self) -> InboxStats:
        """Count the deliveries of this process's files in each state."""
        all_stats = await self._open_files.call_all(lambda inbox: inbox.stats())
        ages = [stats.oldest_ready_age for stats in all_stats if stats.oldest_ready_age is not None]
        return InboxStats(
            ready=sum(stats.ready for stats in all_stats),
            delayed=sum(stats.delayed for stats in all_stats),
            leased=sum(stats.leased for stats in all_stats),
            done=sum(stats.done for stats in all_stats),
            dead=sum(stats.dead for stats in all_stats),
            oldest_ready_age=max(ages, default=None),
        )

    async def wait(self, timeout: float) -> None:
        """Wait until a delivery may be ready in one of the files, or another file is taken over."""
        self._file_added.clear()
        waits = [inbox.wait(timeout) for inbox in self._open_files.inboxes.values()]
        for wait in await wait_any(self._file_added.wait(), *waits):
            wait.result()


async def _replay(row_ids: list[str], inbox: Inbox) -> int:
    return await inbox.replay(row_ids)


async def _cancel(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait for it: it may be closing a file. If this is cancelled, wait half a second longer."""
    task.cancel()
    try:
        await asyncio.wait([task])
    finally:
        await cancel_repeatedly([task])


def _split(id: int | str) -> tuple[str, str]:
    name, _, row_id = str(id).rpartition("/")
    return name, row_id
