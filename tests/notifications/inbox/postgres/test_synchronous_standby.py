"""While a synchronous standby does not respond, commits are not acknowledged: a failover to it would lose them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest
from engines.postgres import PostgresServer
from notifications.inbox.postgres.schemas import Schema
from notifications.inbox.suite import DEADLINE, LEASE, lease_of

from callfire_async.errors import InboxUnavailableError
from callfire_async.notifications.inbox import Delivery
from callfire_async.notifications.inbox.postgres import PostgresInbox

TIMEOUT_SECONDS = 0.5

SETTLEMENTS = {
    "ack": lambda inbox, lease: inbox.ack(lease, event_key="key"),
    "nack": lambda inbox, lease: inbox.nack(lease, delay=LEASE),
    "release": lambda inbox, lease: inbox.release(lease),
    "dead_letter": lambda inbox, lease: inbox.dead_letter(lease, "why"),
    "extend": lambda inbox, lease: inbox.extend(lease, LEASE),
}


@asynccontextmanager
async def absent_standby(server: PostgresServer) -> AsyncIterator[None]:
    """Let commits wait for a standby that does not exist."""
    await set_standby(server, "absent")
    try:
        yield
    finally:
        await set_standby(server, "")


async def set_standby(server: PostgresServer, name: str) -> None:
    # Not as one transaction: its commit would wait too.
    for statement in (f"ALTER SYSTEM SET synchronous_standby_names = '{name}'", "SELECT pg_reload_conf()"):
        await asyncio.to_thread(server.execute, statement)
    async with asyncio.timeout(DEADLINE):
        while (await asyncio.to_thread(server.query, "SHOW synchronous_standby_names")).strip() != name:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@contextmanager
def short_timeout(inbox: PostgresInbox) -> Iterator[None]:
    """Let operations of an open inbox fail soon."""
    inbox._pool._timeout = TIMEOUT_SECONDS
    try:
        yield
    finally:
        inbox._pool._timeout = DEADLINE


async def end_waiting_commits(server: PostgresServer) -> None:
    """Terminate the sessions whose commits wait, as a restart does; the primary alone has these commits."""
    terminate = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    async with asyncio.timeout(DEADLINE):
        while int(await asyncio.to_thread(server.query, terminate)):  # noqa: ASYNC110  # other processes end
            await asyncio.sleep(0.01)


async def test_a_repeated_append_waits_for_the_standby(schema: Schema, postgres):
    """Although the first one is committed on the primary, where it is found as a duplicate."""
    async with schema.inbox() as inbox:
        async with absent_standby(postgres):
            with short_timeout(inbox), pytest.raises(InboxUnavailableError, match="no response"):
                await inbox.append(Delivery(b"body"))
            await end_waiting_commits(postgres)
            with short_timeout(inbox), pytest.raises(InboxUnavailableError, match="no response"):
                await inbox.append(Delivery(b"body"))

        assert (await inbox.append(Delivery(b"body"))).duplicate


@pytest.mark.parametrize("operation", SETTLEMENTS)
async def test_a_repeated_settlement_waits_for_the_standby(schema: Schema, postgres, operation):
    """Otherwise a worker would take the delivery for settled, and another would handle it after a failover."""
    settle = SETTLEMENTS[operation]
    async with schema.inbox() as inbox:
        await inbox.append(Delivery(b"body"))
        lease = await lease_of(inbox)
        async with absent_standby(postgres):
            with short_timeout(inbox), pytest.raises(InboxUnavailableError, match="no response"):
                await settle(inbox, lease)
            await end_waiting_commits(postgres)
            with short_timeout(inbox), pytest.raises(InboxUnavailableError, match="no response"):
                await settle(inbox, lease)

        assert await settle(inbox, lease)
