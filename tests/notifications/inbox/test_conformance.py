"""Run the conformance suite on each inbox."""

import secrets
from typing import Any

import pytest
from engines.nats import NatsServer
from engines.postgres import PostgresServer
from notifications.inbox.clocks import ServerClocks
from notifications.inbox.faulty_inbox import FaultyInbox, SpoolFirstInbox
from notifications.inbox.suite import CLOCK, InboxSuite, World

from callfire_async.notifications.inbox import Inbox
from callfire_async.notifications.inbox.jetstream import JetStreamInbox
from callfire_async.notifications.inbox.memory import MemoryInbox
from callfire_async.notifications.inbox.postgres import PostgresInbox
from callfire_async.notifications.inbox.spool import SpoolingInbox
from callfire_async.notifications.inbox.sqlite import SqliteInbox


class TestMemoryInbox(InboxSuite):
    """The in-memory inbox, whose data lives as long as the object."""

    def make(self, world: World, **options: Any) -> Inbox:
        if "inbox" not in world.reused:
            world.reused["inbox"] = MemoryInbox(clock=world.clocks.clock(), **options)
        return world.reused["inbox"]


class TestSqliteInbox(InboxSuite):
    """The default: one file."""

    def make(self, world: World, **options: Any) -> Inbox:
        return SqliteInbox(world.directory / "inbox.db", clock=world.clocks.clock(), **options)


class TestSqliteDirectory(InboxSuite):
    """One of several processes that share a directory."""

    def make(self, world: World, **options: Any) -> Inbox:
        return SqliteInbox.in_directory(world.directory / "inbox", clock=world.clocks.clock(), **options)


class TestPostgresInbox(InboxSuite):
    """For several machines: a lease outlives its process until it expires."""

    capabilities = frozenset([CLOCK])

    @pytest.fixture(autouse=True)
    def server(self, postgres: PostgresServer, world: World) -> None:
        clock = postgres.settable_clock()
        world.clocks = ServerClocks(clock)
        world.reused |= {"address": clock.dsn, "schema": f"test_{secrets.token_hex(8)}"}

    def make(self, world: World, **options: Any) -> Inbox:
        return PostgresInbox(world.reused["address"], schema=world.reused["schema"], **options)


class TestJetStreamInbox(InboxSuite):
    """The NATS inbox, whose servers own the clock; test_jetstream covers what needs time to pass."""

    capabilities = InboxSuite.capabilities - {CLOCK}

    @pytest.fixture(autouse=True)
    def server(self, nats_server: NatsServer) -> None:
        self.nats = nats_server

    def make(self, world: World, **options: Any) -> Inbox:
        name = world.reused.setdefault("name", f"test_{secrets.token_hex(8)}")
        return JetStreamInbox(self.nats.url(), name=name, **options)


class TestSpoolingInboxOverMemory(InboxSuite):
    """A spool that is never used does not change the behaviour of the primary."""

    def make(self, world: World, **options: Any) -> Inbox:
        clock = world.clocks.clock()
        if "primary" not in world.reused:
            world.reused["primary"] = MemoryInbox(clock=clock, **options)
        return SpoolingInbox(world.reused["primary"], SqliteInbox(world.directory / "spool.db", clock=clock))


class TestSpoolingInboxOverSqlite(InboxSuite):
    """A primary inbox with a directory of files as its spool."""

    def make(self, world: World, **options: Any) -> Inbox:
        clock = world.clocks.clock()
        primary = SqliteInbox(world.directory / "primary.db", clock=clock, **options)
        return SpoolingInbox(primary, SqliteInbox.in_directory(world.directory / "spool", clock=clock))


class TestSpoolFirstInbox(InboxSuite):
    """Deliveries that pass through the spool behave like others."""

    def make(self, world: World, **options: Any) -> Inbox:
        clock = world.clocks.clock()
        primary = FaultyInbox(SqliteInbox(world.directory / "primary.db", clock=clock, **options))
        window = {name: value for name, value in options.items() if name == "dedupe_window"}
        return SpoolFirstInbox(primary, SqliteInbox(world.directory / "spool.db", clock=clock, **window))
