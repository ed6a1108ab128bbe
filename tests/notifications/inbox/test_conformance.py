"""One conformance suite over every inbox."""

import secrets
from typing import Any

import pytest
from engines.nats import NatsServer
from engines.postgres import PostgresServer
from notifications.inbox.suite import CLOCK, InboxSuite, World

from callfire_async.notifications.inbox import Inbox
from callfire_async.notifications.inbox.jetstream import JetStreamInbox
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
    """The one for many machines; the server owns the clock, and leases run on whatever became of a host."""

    capabilities = frozenset()

    @pytest.fixture(autouse=True)
    def server(self, postgres: PostgresServer) -> None:
        self.postgres = postgres

    def make(self, world: World, **options: Any) -> Inbox:
        schema = world.kept.setdefault("schema", f"test_{secrets.token_hex(8)}")
        return PostgresInbox(self.postgres.dsn(), schema=schema, **options)


class TestJetStreamInbox(InboxSuite):
    """The distributed one; its servers own the clock."""

    capabilities = InboxSuite.capabilities - {CLOCK}

    @pytest.fixture(autouse=True)
    def server(self, nats_server: NatsServer) -> None:
        self.nats = nats_server

    def make(self, world: World, **options: Any) -> Inbox:
        name = world.kept.setdefault("name", f"test_{secrets.token_hex(8)}")
        return JetStreamInbox(self.nats.url(), name=name, **options)
