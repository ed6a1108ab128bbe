"""
The tables of an inbox in PostgreSQL: how they are made, and what a server must promise.

It imports `errors` and the connections.
"""

from __future__ import annotations

import logging
import re

from callfire_async.errors import InboxError
from callfire_async.notifications.inbox.postgres._pool import Connection, PostgresPool

_log = logging.getLogger("callfire_async.inbox")

# An identifier that needs no quotes, and leaves room for the name of a channel.
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,39}")

# A row is written three times: when it comes, when it is leased, when it is done. There is room for that where it
# stands, and what was overwritten is cleared away before it slows down whoever claims, however many rows are done.
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
    -- A hash, since what a stranger has written may be longer than any other index allows.
    CREATE INDEX event_keys ON {{schema}}.deliveries USING hash (event_key) WHERE event_key <> '';
    -- Which delivery is the newest with its key. Of two that bring one key at once, the second waits here.
    CREATE TABLE {{schema}}.delivery_keys (
        digest bytea PRIMARY KEY,
        delivery_id bigint NOT NULL,
        appended_at timestamptz NOT NULL
    );
    """,
)


def check_name(schema: str) -> str:
    """Return a schema's name, if it may be one; raise ValueError if not."""
    if not _NAME.fullmatch(schema):
        raise ValueError("schema must be up to 40 of a-z, 0-9 and _, and not begin with a digit")
    return schema


async def check_durability(database: PostgresPool, *, allow_lossy_commits: bool) -> None:
    """
    Hold that what the server has committed outlives its crash.

    Raises:
        InboxError: It does not.
    """
    names = ("synchronous_commit", "fsync", "full_page_writes")
    rows = await database.fetch("SELECT current_setting(name) FROM unnest($1::text[]) AS name", names)
    off = [name for name, row in zip(names, rows, strict=True) if row[0] == "off"]
    if off == ["full_page_writes"] or (off and allow_lossy_commits):
        _log.warning("PostgreSQL may lose what it has committed when its machine fails: off is %s", ", ".join(off))
    elif off:
        raise InboxError(
            f"PostgreSQL may lose what it has committed, and we have acknowledged: off is {', '.join(off)};"
            " switch it on (ALTER ROLE, ALTER DATABASE or postgresql.conf), or say allow_lossy_commits=True"
        )


async def prepare(database: PostgresPool, schema: str) -> None:
    """
    Make the tables, or bring them up to date, if that has not been done.

    Raises:
        InboxError: A later version of this library has made them.
    """

    async def migrate(connection: Connection) -> None:
        if await _version(connection, schema) < len(_MIGRATIONS):
            await _migrate(connection, schema)

    await database.run(migrate)


async def _version(connection: Connection, schema: str) -> int:
    version = 0
    # The catalogue, and not `to_regclass`, which may know no more than what there was before we waited.
    if await connection.fetchval(f"{_EXISTS} pg_tables WHERE schemaname = $1 AND tablename = 'inbox_version')", schema):
        version = await connection.fetchval(f"SELECT version FROM {schema}.inbox_version")  # noqa: S608  # a name checked
    if version > len(_MIGRATIONS):
        raise InboxError(f"the inbox in {schema} was made by a later version of callfire_async (schema {version})")
    return version


async def _migrate(connection: Connection, schema: str) -> None:
    """Do it in one transaction; of hosts that start at once one does it, and the others wait."""
    async with connection.transaction(isolation="read_committed"):
        # Should this host end in the middle, nobody waits for it until its connection is found to be dead.
        await connection.execute("SET LOCAL idle_in_transaction_session_timeout = '10s'")
        await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"callfire_async.{schema}")
        version = await _version(connection, schema)
        if version == 0:
            await _begin(connection, schema)
        for migration in _MIGRATIONS[version:]:
            await connection.execute(migration.format(schema=schema))
        await connection.execute(f"UPDATE {schema}.inbox_version SET version = $1", len(_MIGRATIONS))  # noqa: S608  # likewise


async def _begin(connection: Connection, schema: str) -> None:
    # Whoever may not make schemas may have been given one.
    if not await connection.fetchval(f"{_EXISTS} pg_namespace WHERE nspname = $1)", schema):
        await connection.execute(f"CREATE SCHEMA {schema}")
    await connection.execute(
        f"CREATE TABLE {schema}.inbox_version (version integer NOT NULL);"  # noqa: S608  # likewise
        f"INSERT INTO {schema}.inbox_version VALUES (0)"
    )
