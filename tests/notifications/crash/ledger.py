"""What became of notifications: what the handlers wrote down, and what the inbox's files say in the end."""

import asyncio
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable
from contextlib import closing, suppress
from pathlib import Path

from notifications.crash.processes import DEADLINE, POLL_SECONDS, until

from callfire_async.notifications import Inbox, InboxEntry, InboxStats, SqliteInbox


class Ledger:
    """
    Reads what receivers leave in a folder.

    Args:
        journal: The file that all handlers of all processes append to.
        inbox: The inbox's file, or its folder.
    """

    def __init__(self, journal: Path, inbox: Path) -> None:
        self.journal = journal
        self.inbox = inbox
        journal.touch()
        self._read = 0
        self._counts: defaultdict[str, Counter[int]] = defaultdict(Counter)

    # --- the handlers' file -------------------------------------------------------------------------------

    @property
    def counts(self) -> defaultdict[str, Counter[int]]:
        """How often each word was written of each number."""
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
        """How many times something was handled again."""
        handled = self.counts["handled"]
        return handled.total() - len(handled)

    async def lost(self, acknowledged: Iterable[int]) -> set[int]:
        """Wait until all of it is handled, or nothing more is; return what is not."""
        expected = set(acknowledged)
        handled = self.counts["handled"]

        def progress() -> int:
            return len(self.counts["handled"])

        with suppress(TimeoutError):
            # The number is looked at first: of a million it takes long to tell whether all are there.
            await until(lambda: progress() >= len(expected) and expected <= handled.keys(), progress)
        return expected - handled.keys()

    # --- the inbox ----------------------------------------------------------------------------------------

    @property
    def files(self) -> list[Path]:
        return sorted(self.inbox.glob("*.db")) if self.inbox.is_dir() else [self.inbox]

    async def drained(self) -> int:
        """Wait until nothing is left but what is done or dead; return how many are dead."""
        return sum([await _drained(path) for path in self.files])

    async def entries(self, state: str | None = None) -> list[InboxEntry]:
        async with SqliteInbox(self.inbox, read_only=True) as inbox:
            return [entry async for entry in inbox.entries(state)]

    def check_integrity(self) -> set[str]:
        """Return what SQLite has to say of the files: that they are ok."""
        return {line for path in self.files for line in _integrity(path)}


class SharedLedger(Ledger):
    """
    The same where all processes have one inbox, on a server.

    Args:
        journal: As above.
        open_inbox: Makes the inbox.
    """

    def __init__(self, journal: Path, open_inbox: Callable[[], Inbox]) -> None:
        super().__init__(journal, journal)
        self._open_inbox = open_inbox

    async def drained(self) -> int:
        async with self._open_inbox() as inbox:
            return await _emptied(inbox.stats)

    async def entries(self, state: str | None = None) -> list[InboxEntry]:
        async with self._open_inbox() as inbox:
            return [entry async for entry in inbox.entries(state)]


async def _drained(path: Path) -> int:
    return await _emptied(lambda: _stats(path))


async def _emptied(ask: Callable[[], Awaitable[InboxStats]]) -> int:
    async with asyncio.timeout(DEADLINE):
        while _is_open(left := await ask()):  # noqa: ASYNC110  # another process's doing
            await asyncio.sleep(POLL_SECONDS)
    return left.dead


def _is_open(stats: InboxStats) -> bool:
    return stats.ready + stats.delayed + stats.leased > 0


async def _stats(path: Path) -> InboxStats:
    async with SqliteInbox(path, read_only=True) as inbox:
        return await inbox.stats()


def _integrity(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [line for (line,) in connection.execute("PRAGMA integrity_check")]
