"""What an operator deletes, revokes or makes read-only while a receiver runs: 503, not ready, one error, recovery."""

import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncpg
import nats
import pytest
from attrs import frozen
from engines.nats import NatsServer
from engines.postgres import PASSWORD, PostgresServer
from notifications.inbox.waiting import until

from callfire_async.notifications import Notification, Postback, Receiver, Router
from callfire_async.notifications.inbox import Inbox
from callfire_async.notifications.inbox.jetstream import JetStreamInbox
from callfire_async.notifications.inbox.postgres import PostgresInbox

DEADLINE = 60


@frozen
class Change:
    """A change on a server that makes an inbox unusable, and its reversal."""

    inbox: Inbox
    apply: Callable[[], Awaitable[None]]
    undo: Callable[[], Awaitable[None]]
    #: A part of the error in the log.
    cause: str


@asynccontextmanager
async def postgres_change(server: PostgresServer, kind: str) -> AsyncIterator[Change]:
    name = f"changed_{secrets.token_hex(6)}"
    statements = {
        "schema dropped": (
            f"ALTER SCHEMA {name} RENAME TO {name}_away",
            f"ALTER SCHEMA {name}_away RENAME TO {name}",
            "does not have this inbox's",
        ),
        "table dropped": (
            f"ALTER TABLE {name}.deliveries RENAME TO away",
            f"ALTER TABLE {name}.away RENAME TO deliveries",
            "does not have this inbox's tables; restore them, or restart",
        ),
        "rights revoked": (
            f"REVOKE ALL ON ALL TABLES IN SCHEMA {name} FROM {name}",
            f"GRANT ALL ON ALL TABLES IN SCHEMA {name} TO {name}",
            "denies the permission: permission denied for table",
        ),
        "read-only": (
            f"ALTER ROLE {name} SET default_transaction_read_only = on",
            f"ALTER ROLE {name} SET default_transaction_read_only = off",
            "is read-only (a standby, or default_transaction_read_only): cannot execute",
        ),
    }
    apply, undo, cause = statements[kind]
    admin = await asyncpg.connect(server.dsn())
    try:
        await admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
        await admin.execute(f"CREATE SCHEMA {name} AUTHORIZATION {name}")
        inbox = PostgresInbox(server.dsn().replace("//postgres:", f"//{name}:"), schema=name)

        async def execute(statement: str) -> None:
            await admin.execute(statement)
            # A standby that takes over ends the connections to the old primary.
            await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", name)

        yield Change(inbox, lambda: execute(apply), lambda: execute(undo), cause)
    finally:
        await admin.close()


@asynccontextmanager
async def nats_change(server: NatsServer) -> AsyncIterator[Change]:
    name = f"changed_{secrets.token_hex(6)}"
    client = await nats.connect(server.url())
    jetstream = client.jetstream()
    try:

        async def delete() -> None:
            await jetstream.delete_stream(name)

        async def restore() -> None:
            # As a process that starts does.
            async with JetStreamInbox(server.url(), name=name):
                pass

        cause = f"stream {name} on NATS at 127.0.0.1:{server.port} is missing: it was deleted"
        yield Change(JetStreamInbox(server.url(), name=name, timeout=5.0), delete, restore, cause)
    finally:
        await client.close()


@pytest.fixture(params=["schema dropped", "table dropped", "rights revoked", "read-only", "queue"])
async def change(request: pytest.FixtureRequest) -> AsyncIterator[Change]:
    if request.param == "queue":
        changing = nats_change(request.getfixturevalue("nats_server"))
    else:
        changing = postgres_change(request.getfixturevalue("postgres"), request.param)
    async with changing as change:
        yield change


class Handled:
    """A receiver that counts the events that it has handled."""

    def __init__(self, inbox: Inbox) -> None:
        router, self.ids = Router(), []

        @router.on(Notification)
        async def handle(event: Notification) -> None:
            self.ids.append(event.text.id)

        self.receiver = Receiver(router, tokens=None, inbox=inbox)

    async def post(self, id: int) -> int:
        body = b'{"TextSent": {"Text": {"@id": %d}}}' % id
        return (await self.receiver.receive(Postback("POST", None, {}, body))).status

    async def wait_for_readiness(self, ready: str) -> None:
        async def is_expected() -> bool:
            return (await self.receiver.health()).ready is (ready == "ready")

        await until(is_expected, deadline=DEADLINE)

    async def wait_for(self, id: int) -> None:
        async def is_handled() -> bool:
            return id in self.ids

        await until(is_handled, deadline=DEADLINE)


async def test_an_unusable_inbox_is_reported_and_recovers(change, caplog):
    """No postback gets 204, and no stored delivery is lost."""
    handled = Handled(change.inbox)
    async with handled.receiver:
        assert await handled.post(1) == 204
        await handled.wait_for(1)
        await change.apply()
        assert await handled.post(2) == 503
        health = await handled.receiver.health()
        await change.undo()
        assert await handled.post(3) == 204
        await handled.wait_for(3)
        await handled.wait_for_readiness("ready")

    assert (health.live, health.ready, health.healthy) == (True, False, False)
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    (stored,) = [error for error in errors if error.startswith("cannot store a postback, responded 503: ")]
    assert change.cause in stored
    assert PASSWORD not in caplog.text


async def test_a_deleted_consumer_makes_the_receiver_unready_until_it_is_created_again(nats_server, caplog):
    """Deliveries that arrive meanwhile are handled; one error is logged."""
    name = f"changed_{secrets.token_hex(6)}"
    inbox = JetStreamInbox(nats_server.url(), name=name)
    handled = Handled(inbox)
    client = await nats.connect(nats_server.url())
    jetstream = client.jetstream()

    async def is_waiting() -> bool:
        return inbox._store.opened.consumer._waiting_until > 0

    async with handled.receiver:
        await until(is_waiting, deadline=DEADLINE)
        await jetstream.delete_consumer(name, "workers")
        await handled.wait_for_readiness("not ready")
        assert await handled.post(1) == 204
        await handled.wait_for_readiness("ready")
        await handled.wait_for(1)
    await client.close()

    (error,) = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert error.startswith(f"consumer workers of stream {name} on NATS at 127.0.0.1:{nats_server.port} was deleted")
