"""The tables of an inbox in PostgreSQL, their migrations, and the check that the server's commits are durable."""

from __future__ import annotations

import logging
import re
import secrets

from callfire_async._arguments import type_name
from callfire_async.errors import InboxError
from callfire_async.notifications.inbox._waiting import log_slow_start
from callfire_async.notifications.inbox.postgres._pool import Connection, PostgresPool

_log = logging.getLogger("callfire_async.inbox")

# An identifier that needs no quotes, and is short enough for the name of a channel with a prefix.
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,39}")

# A row is written three times: appended, leased, done. The fill factor leaves space for the new versions in the same
# page, and autovacuum runs before dead versions slow down claims, however many rows are done.
_STORAGE = """
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000,
    autovacuum_analyze_scale_factor = 0.02, autovacuum_analyze_threshold = 1000
"""

_EXISTS = "SELECT EXISTS (SELECT FROM pg_catalog."
_MIGRATIONS = (
    f"""
    CREATE SEQUENCE {{schema}}.delivery_ids;
    CREATE TABLE {{schema}}.deliveries (
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
    ) WITH ({_STORAGE});
    CREATE INDEX open_deliveries ON {{schema}}.deliveries (due_at, id) WHERE state < 2;
    CREATE INDEX closed_deliveries ON {{schema}}.deliveries (state, updated_at) WHERE state > 1;
    -- A hash index, because a sender can make an event key longer than a B-tree allows.
    CREATE INDEX event_keys ON {{schema}}.deliveries USING hash (event_key) WHERE event_key <> '';
    -- The newest delivery of each key. The second of two concurrent appends of a key waits here.
    CREATE TABLE {{schema}}.delivery_keys (
        digest bytea PRIMARY KEY,
        delivery_id bigint NOT NULL,
        appended_at timestamptz NOT NULL
    );
    """,
    """
    -- The handlers that have succeeded, recorded in the transactions of their own effects.
    CREATE TABLE {schema}.completions (
        delivery_id bigint NOT NULL REFERENCES {schema}.deliveries ON DELETE CASCADE,
        handler text NOT NULL,
        transaction_id bigint NOT NULL DEFAULT pg_catalog.txid_current(),
        PRIMARY KEY (delivery_id, handler)
    );
    -- Distinguishes the inbox from one with the same schema in another database.
    ALTER TABLE {schema}.inbox_version ADD COLUMN inbox_id text NOT NULL DEFAULT '{new_id}';
    """,
)


def check_name(schema: str) -> str:
    """Return *schema*, or raise TypeError if it is not a string and ValueError if it is invalid."""
    if not isinstance(schema, str):
        raise TypeError(f"schema must be a string, not {type_name(schema)}")
    if not _NAME.fullmatch(schema):
        raise ValueError("schema must be 1 to 40 characters of a-z, 0-9 and _, and must not start with a digit")
    return schema


async def check_durability(pool: PostgresPool, *, allow_lossy_commits: bool) -> None:
    """
    Check that a crash of the server loses no commits.

    Raises:
        InboxError: Commits are not durable, and *allow_lossy_commits* is false.
    """
    names = ("synchronous_commit", "fsync", "full_page_writes")
    async with log_slow_start(pool.server, pool.timeout):
        rows = await pool.fetch("SELECT current_setting(name) FROM unnest($1::text[]) AS name", names)
    off = [name for name, row in zip(names, rows, strict=True) if row[0] == "off"]
    # Some file systems never leave a torn page, so full_page_writes is the operator's decision.
    if off == ["full_page_writes"] or (off and allow_lossy_commits):
        _log.warning("PostgreSQL may lose committed data on a crash: %s is off", ", ".join(off))
    elif off:
        raise InboxError(
            f"PostgreSQL may lose committed data on a crash: {', '.join(off)} is off; switch it on"
            " (ALTER ROLE, ALTER DATABASE or postgresql.conf), or pass allow_lossy_commits=True"
        )


async def prepare(pool: PostgresPool, schema: str, *, create: bool) -> str:
    """
    Create or migrate the tables if needed; return the inbox's ID.

    Args:
        pool: The connections to the server.
        schema: The schema of the tables.
        create: Whether to create or migrate the tables.

    Raises:
        InboxError: A later version of this library created them; or they must be created or migrated, and *create* is
            false.
    """

    async def migrate(connection: Connection) -> str:
        if (version := await _version(connection, schema)) < len(_MIGRATIONS):
            if not create:
                raise InboxError(_not_current(schema, version, pool.server))
            await _migrate(connection, schema, pool.timeout)
        return str(await connection.fetchval(f"SELECT inbox_id FROM {schema}.inbox_version"))  # noqa: S608  # validated

    async with log_slow_start(f"the tables of schema {schema} in {pool.server}", pool.timeout):
        return await pool.run(migrate)


def _not_current(schema: str, version: int, server: str) -> str:
    if version == 0:
        return f"{server} has no inbox in schema {schema}"
    return (
        f"schema {schema} was created by an earlier version of callfire_async (version {version}); start the service"
        " with this version first, which migrates the tables"
    )


async def _version(connection: Connection, schema: str) -> int:
    version = 0
    # The catalog, because `to_regclass` may use a snapshot from before the wait for the lock.
    if await connection.fetchval(f"{_EXISTS} pg_tables WHERE schemaname = $1 AND tablename = 'inbox_version')", schema):
        version = await connection.fetchval(f"SELECT version FROM {schema}.inbox_version")  # noqa: S608  # validated
    if version > len(_MIGRATIONS):
        raise InboxError(f"schema {schema} was created by a later version of callfire_async (version {version})")
    return version


async def _migrate(connection: Connection, schema: str, timeout: float) -> None:
    """Migrate in one transaction; processes that start at the same time wait for the first."""
    async with connection.transaction(isolation="read_committed"):
        # If this process hangs here, the server ends its transaction soon, and the others continue.
        await connection.execute("SET LOCAL idle_in_transaction_session_timeout = '10s'")
        # Shorter than the timeout of the operation, whose error would not mention the lock.
        await connection.execute(f"SET LOCAL lock_timeout = {max(1, int(timeout * 900))}")
        await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"callfire_async.{schema}")
        version = await _version(connection, schema)
        if version == 0:
            await _create_schema(connection, schema)
        for migration in _MIGRATIONS[version:]:
            await connection.execute(migration.format(schema=schema, new_id=secrets.token_hex(16)))
        await connection.execute(f"UPDATE {schema}.inbox_version SET version = $1", len(_MIGRATIONS))  # noqa: S608  # validated


async def _create_schema(connection: Connection, schema: str) -> None:
    # CREATE SCHEMA IF NOT EXISTS needs the privilege even if the schema exists.
    if not await connection.fetchval(f"{_EXISTS} pg_namespace WHERE nspname = $1)", schema):
        await connection.execute(f"CREATE SCHEMA {schema}")
    await connection.execute(
        f"CREATE TABLE {schema}.inbox_version (version integer NOT NULL);"  # noqa: S608  # validated
        f"INSERT INTO {schema}.inbox_version VALUES (0)"
    )
