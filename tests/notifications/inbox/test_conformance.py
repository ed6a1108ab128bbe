"""One conformance suite over every inbox."""

from typing import Any

from notifications.inbox.suite import InboxSuite, World

from callfire_async.notifications.inbox import Inbox
from callfire_async.notifications.inbox.memory import MemoryInbox
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
