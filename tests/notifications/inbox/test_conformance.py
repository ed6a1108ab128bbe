"""One conformance suite over every inbox."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from notifications.inbox.suite import InboxSuite, World
from notifications.inbox.switched import SwitchedInbox

from callfire_async.notifications.inbox import Appended, Delivery, Inbox
from callfire_async.notifications.inbox.memory import MemoryInbox
from callfire_async.notifications.inbox.spool import SpoolingInbox
from callfire_async.notifications.inbox.sqlite import SqliteInbox


class TestMemoryInbox(InboxSuite):
    """The model of the others; what it holds is there for as long as it is."""

    def make(self, world: World, **options: Any) -> Inbox:
        if "inbox" not in world.kept:
            world.kept["inbox"] = MemoryInbox(clock=world.clocks.clock(), **options)
        return world.kept["inbox"]


class TestSqliteInbox(InboxSuite):
    """The embedded default."""

    def make(self, world: World, **options: Any) -> Inbox:
        return SqliteInbox(world.folder / "inbox.db", clock=world.clocks.clock(), **options)


class TestSqliteFolder(InboxSuite):
    """The same, one of several processes."""

    def make(self, world: World, **options: Any) -> Inbox:
        return SqliteInbox.in_folder(world.folder / "inbox", clock=world.clocks.clock(), **options)


class TestSpoolingInboxOverMemory(InboxSuite):
    """A spool that is never needed changes nothing."""

    def make(self, world: World, **options: Any) -> Inbox:
        clock = world.clocks.clock()
        if "primary" not in world.kept:
            world.kept["primary"] = MemoryInbox(clock=clock, **options)
        return SpoolingInbox(world.kept["primary"], SqliteInbox(world.folder / "spool.db", clock=clock))


class TestSpoolingInboxOverSqlite(InboxSuite):
    """Likewise, with a folder of files as the spool."""

    def make(self, world: World, **options: Any) -> Inbox:
        clock = world.clocks.clock()
        primary = SqliteInbox(world.folder / "primary.db", clock=clock, **options)
        return SpoolingInbox(primary, SqliteInbox.in_folder(world.folder / "spool", clock=clock))


class ThroughTheSpool(SpoolingInbox):
    """An inbox whose primary is away whenever something is appended, and back right after that."""

    def __init__(self, primary: SwitchedInbox, spool: Inbox) -> None:
        super().__init__(primary, spool, probe_after=0.001)
        self._switch = primary
        self._appending = asyncio.Lock()

    async def append(self, delivery: Delivery) -> Appended:
        (appended,) = await self.append_many([delivery])
        return appended

    async def append_many(self, deliveries: Sequence[Delivery]) -> list[Appended]:
        """Spool, wait until it is forwarded, and say what became of it there."""
        async with self._appending:
            known = {entry.id async for entry in self._switch.inner.entries()}
            self._switch.away = True
            await super().append_many(deliveries)
            self._switch.away = False
            async with asyncio.timeout(10):
                while await self.spooled():  # noqa: ASYNC110  # the forwarder says nothing when it is done
                    await asyncio.sleep(0.001)
            return await self._forwarded(deliveries, known)

    async def _forwarded(self, deliveries: Sequence[Delivery], known: set[Any]) -> list[Appended]:
        ids = defaultdict(list)
        async for entry in self._switch.inner.entries():
            ids[entry.delivery.key].append(entry.id)
        appended = []
        for delivery in deliveries:
            # The first that is new, or else the newest, of which this is a repeat.
            new = [id for id in ids[delivery.key] if id not in known]
            appended.append(Appended(new[0] if new else ids[delivery.key][-1], duplicate=not new))
            known.add(appended[-1].id)
        return appended


class TestThroughTheSpool(InboxSuite):
    """What is taken in while the primary is away comes out as it went in, with all that happens to it after that."""

    def make(self, world: World, **options: Any) -> Inbox:
        clock = world.clocks.clock()
        primary = SwitchedInbox(SqliteInbox(world.folder / "primary.db", clock=clock, **options))
        window = {name: value for name, value in options.items() if name == "dedupe_window"}
        return ThroughTheSpool(primary, SqliteInbox(world.folder / "spool.db", clock=clock, **window))
