"""
A folder of SQLite files, one for each of several processes.

It imports `errors` and the protocol; how a file is opened it is told.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TypeVar

from attrs import evolve

from callfire_async.errors import InboxError, InboxLockedError, InboxUnavailableError
from callfire_async.notifications.inbox.base import AppendResult, Delivery, Inbox, InboxEntry, InboxStats, Lease

__all__ = ["SqliteDirectoryInbox"]

T = TypeVar("T")


class InboxFactory(Protocol):
    """Makes the inbox of one file."""

    def __call__(self, path: Path, /, *, read_only: bool = False) -> Inbox:
        """Make it; it is not open yet."""
        ...


_log = logging.getLogger("callfire_async.inbox")

_TAKE_OVER_SECONDS = 60.0


class SqliteDirectoryInbox:
    """
    An inbox whose deliveries go to a file of this process's own, in a folder that several processes share.

    Files that no living process owns are taken over, and let go once nothing is left in them but what is done. Ids are
    ``file/number``. ``append`` finds repeats in its own file only: a postback that CallFire were to send twice, to two
    processes, is handled twice. ``handled`` asks all files, those of living processes too. A file that was taken over and
    fails is let go, so that it holds up nothing else.

    Args:
        folder: Made where it is missing, with mode 0700.
        open_file: Makes the inbox of one file.
        retention: Seconds for which a file keeps the keys of what is done; None where that is not known.
        read_only: Look at the files that are there, whoever owns them, and change nothing.
    """

    def __init__(
        self, folder: Path, open_file: InboxFactory, *, retention: float | None = None, read_only: bool = False
    ) -> None:
        #: How far back ``handled`` knows everything, in seconds.
        self.retention = retention
        self._folder = folder
        self._open_file = partial(open_file, read_only=True) if read_only else open_file
        self._read_only = read_only
        self._is_open = False
        self._own = ""
        # Who is asked first stands first.
        self._held: dict[str, Inbox] = {}
        self._files: dict[str, AsyncExitStack] = {}
        self._closing = AsyncExitStack()
        self._taken = asyncio.Event()

    # --- lifecycle ----------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """
        Open a file that nobody owns, or a new one; take over what else waits.

        Raises:
            InboxUnavailableError: The folder or the file cannot be made.
        """
        self._prepare_folder()
        # An event belongs to the loop in which it was first waited for.
        self._taken = asyncio.Event()
        async with AsyncExitStack() as opened:
            opened.push_async_callback(self._let_all_go)
            if self._read_only:
                for path in self._paths():
                    await self._hold(path)
            else:
                self._own = await self._open_own()
                await self._take_over()
                opened.push_async_callback(_cancel, asyncio.create_task(self._keep_taking_over()))
            self._closing = opened.pop_all()
        self._is_open = True
        return self

    def _prepare_folder(self) -> None:
        if self._read_only:
            if not self._folder.is_dir():
                raise InboxUnavailableError(f"there is no folder {self._folder}")
            return
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise InboxUnavailableError(f"{self._folder} cannot be made: {error.strerror}") from error

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all files."""
        self._is_open = False
        await self._closing.aclose()

    async def _open_own(self) -> str:
        for path in self._paths():
            if await self._hold(path):
                return path.stem
        path = self._folder / f"{secrets.token_hex(4)}.db"
        await self._enter(path.stem, self._open_file(path))
        return path.stem

    async def _hold(self, path: Path) -> bool:
        """Open a file unless a living process owns it, or it cannot be opened."""
        try:
            await self._enter(path.stem, self._open_file(path))
        except InboxLockedError:
            return False
        except InboxError as error:
            told = "is not shown" if self._read_only else "that nobody owns cannot be taken over"
            _log.error("an inbox %s: %s", told, error)
            return False
        return True

    async def _enter(self, name: str, inbox: Inbox) -> None:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(inbox)
            self._held[name], self._files[name] = inbox, stack.pop_all()

    async def _close_file(self, name: str, inbox: Inbox) -> None:
        # Two who ask at once may both find that it fails, and it may have been opened anew since.
        if self._held.get(name) is inbox:
            del self._held[name]
            await self._files.pop(name).aclose()

    async def _let_all_go(self) -> None:
        async with AsyncExitStack() as stack:
            for name, inbox in self._held.items():
                stack.push_async_callback(self._close_file, name, inbox)

    async def _keep_taking_over(self) -> None:
        while True:
            await asyncio.sleep(_TAKE_OVER_SECONDS)
            try:
                await self._take_over()
            except Exception:  # noqa: BLE001  # too many open files, say: in a minute there may be fewer
                _log.exception("the inboxes of processes that are gone cannot be taken over now")

    async def _take_over(self) -> None:
        """Take over files in which something is left; let go of those in which nothing is."""
        for path in self._unowned_paths():
            if await self._may_have_pending(path) and await self._hold(path):
                _log.info("the inbox %s of a process that is gone was taken over", path)
                self._taken.set()
        for name, inbox in list(self._held.items()):
            if name != self._own and await self._ask(name, _is_needed) is False:
                await self._close_file(name, inbox)

    async def _may_have_pending(self, path: Path) -> bool:
        try:
            async with self._open_file(path, read_only=True) as inbox:
                return await _is_needed(inbox)
        except InboxError:
            # Its owner is about to make it, or it is damaged: whoever tries to own it will know.
            return True

    def _paths(self) -> list[Path]:
        return sorted(self._folder.glob("*.db"))

    def _unowned_paths(self) -> list[Path]:
        return [path for path in self._paths() if path.stem not in self._held]

    # --- asking the files ---------------------------------------------------------------------------------

    async def _ask(self, name: str, question: Callable[[Inbox], Awaitable[T]]) -> T | None:
        """Ask a file; one that was let go has no answer."""
        inbox = self._held.get(name)
        if inbox is None:
            return None
        try:
            return await question(inbox)
        except InboxError as error:
            if name == self._own:
                raise
            _log.error("the inbox %s is let go: %s", name, error)
            await self._close_file(name, inbox)
            return None

    async def _ask_all(self, question: Callable[[Inbox], Awaitable[T]]) -> dict[str, T]:
        answers = {name: await self._ask(name, question) for name in self._names()}
        return {name: answer for name, answer in answers.items() if answer is not None}

    def _names(self) -> list[str]:
        if not self._is_open:
            raise InboxError("this inbox is not open; use it inside 'async with'")
        return list(self._held)

    def _writable_names(self) -> list[str]:
        if self._read_only:
            raise InboxError(f"{self._folder} was opened for reading only")
        return self._names()

    # --- taking in ----------------------------------------------------------------------------------------

    async def append(self, delivery: Delivery) -> AppendResult:
        """Keep a delivery in this process's own file."""
        (appended,) = await self.append_many([delivery])
        return appended

    async def append_many(self, deliveries: Sequence[Delivery]) -> list[AppendResult]:
        """Keep several in this process's own file, all or none."""
        self._writable_names()
        appended = await self._held[self._own].append_many(deliveries)
        return [evolve(one, id=f"{self._own}/{one.id}") for one in appended]

    # --- handing out and settling -------------------------------------------------------------------------

    async def claim(self, limit: int, *, lease: float) -> list[Lease]:
        """Hand out what is due in one of the files; they take turns, lest one starve the others."""
        for name in self._writable_names():
            leases = await self._ask(name, lambda inbox: inbox.claim(limit, lease=lease))
            if leases and name in self._held:
                self._held[name] = self._held.pop(name)
                return [evolve(one, id=f"{name}/{one.id}") for one in leases]
        return []

    async def extend(self, lease: Lease, seconds: float) -> bool:
        """Let a lease end so many seconds from now."""
        inbox, inner = self._located(lease)
        return inbox is not None and await inbox.extend(inner, seconds)

    async def ack(self, lease: Lease, *, event_key: str = "") -> bool:
        """Note that a delivery was handled."""
        inbox, inner = self._located(lease)
        return inbox is not None and await inbox.ack(inner, event_key=event_key)

    async def nack(
        self, lease: Lease, *, delay: float, completed: frozenset[str] = frozenset(), reason: str = ""
    ) -> bool:
        """Put a delivery back for another attempt."""
        inbox, inner = self._located(lease)
        return inbox is not None and await inbox.nack(inner, delay=delay, completed=completed, reason=reason)

    async def release(self, lease: Lease, *, completed: frozenset[str] = frozenset()) -> bool:
        """Put a delivery back at once."""
        inbox, inner = self._located(lease)
        return inbox is not None and await inbox.release(inner, completed=completed)

    async def dead_letter(self, lease: Lease, reason: str) -> bool:
        """Make a delivery a dead letter."""
        inbox, inner = self._located(lease)
        return inbox is not None and await inbox.dead_letter(inner, reason)

    def _located(self, lease: Lease) -> tuple[Inbox | None, Lease]:
        name, id = _split(lease.id)
        return self._held.get(name), evolve(lease, id=id)

    # --- looking after it ---------------------------------------------------------------------------------

    async def handled(self, event_keys: Iterable[str]) -> frozenset[str]:
        """Return which of these events were acked, by any process of the folder."""
        keys = list(event_keys)
        acked = await self._ask_all(lambda inbox: inbox.handled(keys))
        for path in self._unowned_paths():
            try:
                async with self._open_file(path, read_only=True) as inbox:
                    acked[path.stem] = await inbox.handled(keys)
            except InboxError as error:
                _log.error("what was acked in one inbox is not known: %s", error)
        return frozenset().union(*acked.values())

    async def get(self, id: int | str) -> InboxEntry | None:
        """Return what is known of one delivery."""
        name, number = _split(id)
        entry = await self._ask(name, lambda inbox: inbox.get(number)) if name in self._names() else None
        return None if entry is None else evolve(entry, id=f"{name}/{entry.id}")

    async def entries(self, state: str | None = None) -> AsyncIterator[InboxEntry]:
        """Iterate over the deliveries, one file after the other."""
        for name in sorted(self._names()):
            if name in self._held:
                async for entry in self._held[name].entries(state):
                    yield evolve(entry, id=f"{name}/{entry.id}")

    async def replay(self, ids: Iterable[int | str] | None = None) -> int:
        """Make dead letters ready again."""
        names = self._writable_names()
        if ids is None:
            return sum((await self._ask_all(lambda inbox: inbox.replay())).values())
        wanted = [_split(id) for id in ids]
        replayed = 0
        for name in names:
            numbers = [number for file, number in wanted if file == name]
            replayed += await self._ask(name, partial(_replay, numbers)) or 0
        return replayed

    async def purge(self, *, done_before: datetime | None = None, dead_before: datetime | None = None) -> int:
        """Delete what was done, or buried, before a time."""
        self._writable_names()
        purged = await self._ask_all(lambda inbox: inbox.purge(done_before=done_before, dead_before=dead_before))
        return sum(purged.values())

    async def stats(self) -> InboxStats:
        """Count what is in this process's files."""
        all_stats = (await self._ask_all(lambda inbox: inbox.stats())).values()
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
        """Wait until there may be work in one of the files, or another is taken over."""
        self._taken.clear()
        waits = [asyncio.ensure_future(self._held[name].wait(timeout)) for name in self._names()]
        waits.append(asyncio.ensure_future(_event(self._taken)))
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                one.result()
        finally:
            for one in waits:
                one.cancel()
            await asyncio.gather(*waits, return_exceptions=True)


async def _is_needed(inbox: Inbox) -> bool:
    """Whether anything may have to be handled still; a dead letter can be replayed where it is held only."""
    stats = await inbox.stats()
    return stats.ready + stats.delayed + stats.leased + stats.dead > 0


async def _replay(ids: list[str], inbox: Inbox) -> int:
    return await inbox.replay(ids)


async def _cancel(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait for its end, though this be cancelled: it may be about to let go of a file."""
    task.cancel()
    cancelled = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


async def _event(event: asyncio.Event) -> None:
    await event.wait()


def _split(id: int | str) -> tuple[str, str]:
    name, _, number = str(id).rpartition("/")
    return name, number
