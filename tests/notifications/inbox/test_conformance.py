"""One conformance suite over every inbox."""

import secrets
from typing import Any

import pytest
from engines.nats import NatsServer
from engines.postgres import PostgresServer
from notifications.inbox.clocks import ServerClocks
from notifications.inbox.suite import CLOCK, InboxSuite, World
from notifications.inbox.switched import SwitchedInbox, ThroughTheSpool

from callfire_async.notifications.inbox import Inbox
from callfire_async.notifications.inbox.jetstream import JetStreamInbox
from callfire_async.notifications.inbox.memory import MemoryInbox
from callfire_async.notifications.inbox.postgres import PostgresInbox
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
        return SqliteInbox.in_directory(world.folder / "inbox", clock=world.clocks.clock(), **options)


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


class TestJetStreamInbox(InboxSuite):
    """The distributed one; its servers own the clock: what only a turned one shows, test_jetstream waits for."""

    capabilities = InboxSuite.capabilities - {CLOCK}

    @pytest.fixture(autouse=True)
    def server(self, nats_server: NatsServer) -> None:
        self.nats = nats_server

    def make(self, world: World, **options: Any) -> Inbox:
        name = world.kept.setdefault("name", f"test_{secrets.token_hex(8)}")
        return JetStreamInbox(self.nats.url(), name=name, **options)


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
        return SpoolingInbox(primary, SqliteInbox.in_directory(world.folder / "spool", clock=clock))


class TestThroughTheSpool(InboxSuite):
    """What is taken in while the primary is away comes out as it went in, with all that happens to it after that."""

    def make(self, world: World, **options: Any) -> Inbox:
        clock = world.clocks.clock()
        primary = SwitchedInbox(SqliteInbox(world.folder / "primary.db", clock=clock, **options))
        window = {name: value for name, value in options.items() if name == "dedupe_window"}
        return ThroughTheSpool(primary, SqliteInbox(world.folder / "spool.db", clock=clock, **window))
