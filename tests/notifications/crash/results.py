"""The results of a run: the journal that the handlers write, and the final state of the inbox."""

import asyncio
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable
from contextlib import closing, suppress
from pathlib import Path

from notifications.crash.processes import DEADLINE, POLL_SECONDS, wait_until

from callfire_async.notifications import Inbox, InboxEntry, InboxStats, SqliteInbox


class HandlerResults:
    """
    Reads the journal and the inbox files of receiver processes.

    Args:
        journal: The file that all handlers of all processes append to.
        inbox: The inbox's file or folder.
    """

    def __init__(self, journal: Path, inbox: Path) -> None:
        self.journal = journal
        self.inbox = inbox
        journal.touch()
        self._read = 0
        self._counts: defaultdict[str, Counter[int]] = defaultdict(Counter)

    # --- the journal --------------------------------------------------------------------------------------

    @property
    def counts(self) -> defaultdict[str, Counter[int]]:
        """How often each word was written for each number."""
        with self.journal.open("rb") as file:
            file.seek(self._read)
            written = file.read()
        whole = written[: written.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.decode().splitlines():
            word, number = line.split()[:2]
            self._counts[word][int(number)] += 1
        return self._counts

    @property
    def lines(self) -> list[list[str]]:
        return [line.split() for line in self.journal.read_text().splitlines()]

    @property
    def repeated(self) -> int:
        """How many events were handled again."""
        handled = self.counts["handled"]
        return handled.total() - len(handled)

    async def find_lost(self, acknowledged: Iterable[int]) -> set[int]:
        """Wait until all acknowledged numbers are handled, or no more are; return those that are not."""
        expected = set(acknowledged)
        handled = self.counts["handled"]

        def progress() -> int:
            return len(self.counts["handled"])

        with suppress(TimeoutError):
            # The counts are compared first, because comparing a million keys takes long.
            await wait_until(lambda: progress() >= len(expected) and expected <= handled.keys(), progress)
        return expected - handled.keys()

    # --- the inbox ----------------------------------------------------------------------------------------

    @property
    def files(self) -> list[Path]:
        return sorted(self.inbox.glob("*.db")) if self.inbox.is_dir() else [self.inbox]

    async def wait_until_drained(self) -> int:
        """Wait until each delivery is done or dead; return how many are dead."""
        return sum([await _wait_until_file_drained(path) for path in self.files])

    async def entries(self, state: str | None = None) -> list[InboxEntry]:
        async with SqliteInbox(self.inbox, read_only=True) as inbox:
            return [entry async for entry in inbox.entries(state)]

    def check_integrity(self) -> set[str]:
        """Return the results of SQLite's integrity check: {"ok"} if no file is damaged."""
        return {line for path in self.files for line in _integrity(path)}


class SharedInboxResults(HandlerResults):
    """
    The results if all processes share one inbox on a server.

    Args:
        journal: The file that all handlers of all processes append to.
        open_inbox: Creates an inbox object for the server.
    """

    def __init__(self, journal: Path, open_inbox: Callable[[], Inbox]) -> None:
        super().__init__(journal, journal)
        self._open_inbox = open_inbox

    async def wait_until_drained(self) -> int:
        async with self._open_inbox() as inbox:
            return await _wait_until_empty(inbox.stats)

    async def entries(self, state: str | None = None) -> list[InboxEntry]:
        async with self._open_inbox() as inbox:
            return [entry async for entry in inbox.entries(state)]


async def _wait_until_file_drained(path: Path) -> int:
    return await _wait_until_empty(lambda: _stats(path))


async def _wait_until_empty(read_stats: Callable[[], Awaitable[InboxStats]]) -> int:
    async with asyncio.timeout(DEADLINE):
        while _has_pending(stats := await read_stats()):  # noqa: ASYNC110  # another process settles them
            await asyncio.sleep(POLL_SECONDS)
    return stats.dead


def _has_pending(stats: InboxStats) -> bool:
    return stats.ready + stats.delayed + stats.leased > 0


async def _stats(path: Path) -> InboxStats:
    async with SqliteInbox(path, read_only=True) as inbox:
        return await inbox.stats()


def _integrity(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [line for (line,) in connection.execute("PRAGMA integrity_check")]
