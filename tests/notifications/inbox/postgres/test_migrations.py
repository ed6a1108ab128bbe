"""Tables of earlier releases: they are migrated in place, with their deliveries."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from notifications.inbox.postgres.schemas import Schema
from notifications.inbox.postgres.transactions import asyncpg_transaction
from notifications.inbox.suite import all_entries, lease_of

from callfire_async.errors import InboxError
from callfire_async.notifications.inbox import Delivery

# As release 0.1 created and filled them.
VERSION_1 = """
    CREATE SCHEMA {schema};
    CREATE TABLE {schema}.inbox_version (version integer NOT NULL);
    INSERT INTO {schema}.inbox_version VALUES (1);
    CREATE SEQUENCE {schema}.delivery_ids;
    CREATE TABLE {schema}.deliveries (
        id bigint PRIMARY KEY,
        state smallint NOT NULL DEFAULT 0,
        attempt integer NOT NULL DEFAULT 1,
        crashes integer NOT NULL DEFAULT 0,
        due_at timestamptz NOT NULL,
        received_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        key text NOT NULL,
        content_type text,
        token text NOT NULL DEFAULT '',
        event_key text NOT NULL DEFAULT '',
        completed text NOT NULL DEFAULT '',
        reason text NOT NULL DEFAULT '',
        body bytea NOT NULL
    ) WITH (
        fillfactor = 70,
        autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000,
        autovacuum_analyze_scale_factor = 0.02, autovacuum_analyze_threshold = 1000
    );
    CREATE INDEX open_deliveries ON {schema}.deliveries (due_at, id) WHERE state < 2;
    CREATE INDEX closed_deliveries ON {schema}.deliveries (state, updated_at) WHERE state > 1;
    CREATE INDEX event_keys ON {schema}.deliveries USING hash (event_key) WHERE event_key <> '';
    CREATE TABLE {schema}.delivery_keys (
        digest bytea PRIMARY KEY,
        delivery_id bigint NOT NULL,
        appended_at timestamptz NOT NULL
    );
    INSERT INTO {schema}.deliveries
        (id, state, attempt, due_at, received_at, updated_at, key, token, completed, reason, event_key, body)
    VALUES
        (nextval('{schema}.delivery_ids'), 0, 2, now(), now(), now(), 'ready', 'old', 'debit', 'mail: ValueError', '',
            'ready'),
        (nextval('{schema}.delivery_ids'), 1, 1, now() + interval '1 h', now(), now(), 'leased', 'token', '', '', '',
            'leased'),
        (nextval('{schema}.delivery_ids'), 2, 1, now(), now(), now(), 'done', 'older', '', '', 'text:1:SENT', ''),
        (nextval('{schema}.delivery_ids'), 3, 9, now(), now(), now(), 'dead', 'oldest', 'debit', 'why', '', 'dead');
    INSERT INTO {schema}.delivery_keys
        SELECT sha256(convert_to(key, 'UTF8')), id, updated_at FROM {schema}.deliveries;
"""
STATES = {"ready": "ready", "leased": "leased", "done": "done", "dead": "dead"}


@pytest.fixture
def version_1(schema: Schema) -> Schema:
    schema.server.execute(VERSION_1.format(schema=schema.name))
    return schema


async def test_deliveries_of_the_first_release_are_kept(version_1):
    """Each in its state, with its handlers, key and event."""
    async with version_1.inbox() as inbox:
        assert {entry.delivery.key: entry.state for entry in await all_entries(inbox)} == STATES
        assert (await inbox.append(Delivery(b"ready", key="ready"))).duplicate
        assert await inbox.handled(["text:1:SENT"])

        lease = await lease_of(inbox)
        assert (lease.delivery.body, lease.attempt, lease.completed) == (b"ready", 2, {"debit"})
        async with asyncpg_transaction(version_1.dsn()) as connection:
            await inbox.complete_in(lease, "mail", connection)
        await inbox.release(lease)
        assert (await lease_of(inbox)).completed == {"debit", "mail"}


async def test_processes_that_start_together_migrate_once(version_1):
    """All of them use the migrated tables, and the inbox has one id."""
    async with AsyncExitStack() as stack:
        inboxes = [version_1.inbox() for _ in range(8)]
        await asyncio.gather(*(stack.enter_async_context(inbox) for inbox in inboxes))

        assert await version_1.fetchval("SELECT version FROM inbox_version") == 2
        lease = await lease_of(inboxes[0])
        for inbox in inboxes:
            async with asyncpg_transaction(version_1.dsn()) as connection:
                await inbox.complete_in(lease, repr(inbox), connection)


async def test_the_tables_are_migrated_while_an_old_process_uses_them(version_1):
    """It has no completions, and the migration waits only for its current statement."""
    async with version_1.admin() as old, AsyncExitStack() as stack:
        async with old.transaction():
            await old.execute("UPDATE deliveries SET updated_at = now()")
            opening = asyncio.create_task(stack.enter_async_context(version_1.inbox()))
            await version_1.wait_until_blocked()
        inbox = await opening
        await old.execute("UPDATE deliveries SET updated_at = now()")

        assert (await lease_of(inbox)).delivery.body == b"ready"


async def test_migrated_and_new_tables_are_the_same(version_1):
    """Whatever the release that created them."""
    columns = """
        SELECT array_agg(table_name || '.' || column_name || ' ' || data_type ORDER BY 1)
        FROM information_schema.columns WHERE table_schema = $1"""
    new = Schema(version_1.server, f"{version_1.name}_new")
    async with version_1.inbox(), new.inbox():
        migrated, created = [await new.fetchval(columns, schema.name) for schema in (version_1, new)]

    assert sorted(migrated) == sorted(created)


async def test_a_tool_does_not_migrate(version_1):
    """Otherwise the processes of the earlier release could not be started again."""
    with pytest.raises(InboxError, match=r"by an earlier version of callfire_async \(version 1\); start the service"):
        async with version_1.inbox(create=False):
            pass

    assert await version_1.fetchval("SELECT version FROM inbox_version") == 1
