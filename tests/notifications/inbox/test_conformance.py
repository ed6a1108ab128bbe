"""One conformance suite over every inbox."""

import secrets
from typing import Any

import pytest
from engines.postgres import PostgresServer
from notifications.inbox.clocks import ServerClocks
from notifications.inbox.suite import CLOCK, InboxSuite, World

from callfire_async.notifications.inbox import Inbox
from callfire_async.notifications.inbox.memory import MemoryInbox
from callfire_async.notifications.inbox.postgres import PostgresInbox
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


class TestPostgresInbox(InboxSuite):
    """The one for many machines; what a host had leased outlives it, until the lease ends."""

    capabilities = frozenset([CLOCK])

    @pytest.fixture(autouse=True)
    def server(self, postgres: PostgresServer, world: World) -> None:
        clock = postgres.turned_clock()
        world.clocks = ServerClocks(clock)
        world.kept |= {"address": clock.dsn, "schema": f"test_{secrets.token_hex(8)}"}

    def make(self, world: World, **options: Any) -> Inbox:
        return PostgresInbox(world.kept["address"], schema=world.kept["schema"], **options)
