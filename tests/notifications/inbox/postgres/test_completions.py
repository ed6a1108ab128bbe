"""`PostgresInbox.complete_in`: completions in the caller's transaction, their locks, and the caller's mistakes."""

import asyncio
import contextlib
import re
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest
from notifications.inbox.postgres.schemas import POLL_SECONDS, Schema
from notifications.inbox.postgres.transactions import (
    LIBRARIES,
    Library,
    asyncpg_connection,
    asyncpg_transaction,
    engine,
)
from notifications.inbox.suite import DEADLINE, LEASE, SETTLE, lease_of
from sqlalchemy.ext.asyncio import create_async_engine

from callfire_async.errors import InboxError, LeaseLostError
from callfire_async.notifications.inbox import Delivery, Lease
from callfire_async.notifications.inbox import postgres as module
from callfire_async.notifications.inbox.postgres import PostgresInbox

ODD_NAMES = ["orders.debit", "a\0b", "\udcff", "\u0627", "'; DROP TABLE x; --\\n", "%(id)s {id} $1"]
LATER = datetime.now(UTC) + timedelta(days=3650)

each_library = pytest.mark.parametrize("library", LIBRARIES.values(), ids=LIBRARIES)


class Rollback(Exception):
    """Raised by a test inside a transaction."""


@pytest.fixture
async def lease(inbox: PostgresInbox) -> Lease:
    await inbox.append(Delivery(b"body"))
    return await lease_of(inbox)


@pytest.fixture
async def effects(schema: Schema, inbox: PostgresInbox) -> str:
    """Create the caller's table in the database of the inbox; return its name."""
    table = f"effects_{schema.name}"
    await schema.fetchval(f"CREATE TABLE public.{table} (name text)")
    return f"public.{table}"


@contextlib.asynccontextmanager
async def transaction(schema: Schema, **options: Any) -> AsyncIterator[Any]:
    """Yield an asyncpg connection with an open transaction."""
    async with asyncpg_transaction(schema.dsn(), **options) as connection:
        yield connection


async def expire(schema: Schema, lease: Lease) -> None:
    """Make a lease expire now."""
    await schema.fetchval("UPDATE deliveries SET due_at = pg_catalog.now() - interval '1 s' WHERE id = $1", lease.id)


async def completed_later(schema: Schema, inbox: PostgresInbox, lease: Lease) -> frozenset[str]:
    """Let the lease expire, and return which handlers the next lease names."""
    await expire(schema, lease)
    return (await lease_of(inbox)).completed


async def count(schema: Schema) -> int:
    return await schema.fetchval("SELECT count(*) FROM completions")


# --- transactions -----------------------------------------------------------------------------------------


@each_library
async def test_a_committed_completion_is_part_of_the_next_lease(schema, inbox, lease, effects, library: Library):
    """The handler's own write is committed with it."""
    async with library.begin(schema.dsn()) as connection:
        await library.execute(connection, f"INSERT INTO {effects} VALUES ('debit')")
        await inbox.complete_in(lease, "debit", connection)

    assert await completed_later(schema, inbox, lease) == {"debit"}
    assert await schema.fetchval(f"SELECT count(*) FROM {effects}") == 1


@each_library
async def test_a_transaction_may_begin_with_the_completion(schema, inbox, lease, library: Library):
    """Some libraries begin a transaction with its first statement."""
    async with library.begin(schema.dsn()) as connection:
        await inbox.complete_in(lease, "debit", connection)
        assert await count(schema) == 0

    assert await completed_later(schema, inbox, lease) == {"debit"}


@each_library
async def test_a_rollback_leaves_nothing(schema, inbox, lease, effects, library: Library):
    """Neither the effect nor the completion."""
    with contextlib.suppress(Rollback):
        async with library.begin(schema.dsn()) as connection:
            await inbox.complete_in(lease, "debit", connection)
            await library.execute(connection, f"INSERT INTO {effects} VALUES ('debit')")
            raise Rollback

    assert await completed_later(schema, inbox, lease) == frozenset()
    assert await schema.fetchval(f"SELECT count(*) FROM {effects}") == 0


async def test_a_rollback_to_a_savepoint_leaves_nothing(schema, inbox, lease):
    """The completion can be repeated after it."""
    async with transaction(schema) as connection:
        with contextlib.suppress(Rollback):
            async with connection.transaction():
                await inbox.complete_in(lease, "debit", connection)
                raise Rollback
        await inbox.complete_in(lease, "credit", connection)

    assert await completed_later(schema, inbox, lease) == {"credit"}


@each_library
async def test_a_repeated_call_in_one_transaction_has_no_effect(schema, inbox, lease, library: Library):
    """The savepoint is a transaction with another number."""
    async with library.begin(schema.dsn()) as connection:
        await inbox.complete_in(lease, "debit", connection)
        await library.execute(connection, "SAVEPOINT one")
        await inbox.complete_in(lease, "debit", connection)

    assert await completed_later(schema, inbox, lease) == {"debit"}


async def test_a_second_transaction_is_refused(schema, inbox, lease):
    """A COMMIT without a response may have been carried out: the same effect is not committed again."""
    async with transaction(schema) as connection:
        await inbox.complete_in(lease, "debit", connection)

    with pytest.raises(InboxError, match="debit of delivery 1 is complete, by an earlier transaction") as raised:
        async with transaction(schema) as connection:
            await inbox.complete_in(lease, "debit", connection)
    assert type(raised.value) is InboxError


async def test_a_second_transaction_waits_for_the_first(schema, inbox, lease):
    """A connection that was lost may still have its transaction."""
    async with transaction(schema) as first:
        await inbox.complete_in(lease, "debit", first)
        second = asyncio.create_task(complete(schema, inbox, lease))
        await schema.wait_until_blocked()

    with pytest.raises(InboxError, match="by an earlier transaction"):
        await second


async def test_a_second_transaction_succeeds_if_the_first_is_rolled_back(schema, inbox, lease):
    """It waits for the rollback."""
    with contextlib.suppress(Rollback):
        async with transaction(schema) as first:
            await inbox.complete_in(lease, "debit", first)
            second = asyncio.create_task(complete(schema, inbox, lease))
            await schema.wait_until_blocked()
            raise Rollback
    await second

    assert await completed_later(schema, inbox, lease) == {"debit"}


async def complete(schema: Schema, inbox: PostgresInbox, lease: Lease, handler: str = "debit") -> None:
    async with transaction(schema) as connection:
        await inbox.complete_in(lease, handler, connection)


@pytest.mark.parametrize("name", ODD_NAMES)
@pytest.mark.parametrize("library", [LIBRARIES["asyncpg"], LIBRARIES["psycopg"]], ids=["asyncpg", "psycopg"])
async def test_handlers_have_any_name(schema, inbox, lease, name, library: Library):
    """The next lease has the same name."""
    async with library.begin(schema.dsn()) as connection:
        await inbox.complete_in(lease, name, connection)

    assert await completed_later(schema, inbox, lease) == {name}


async def test_completions_are_added_to_those_of_a_nack(schema, inbox, lease):
    """Of this attempt and of earlier ones; each delivery has its own."""
    await inbox.append(Delivery(b"another"))
    other = await lease_of(inbox)
    await complete(schema, inbox, lease, "debit")
    await complete(schema, inbox, other, "other")
    await inbox.nack(lease, delay=0, completed=frozenset(["credit"]))
    again = await lease_of(inbox)
    await complete(schema, inbox, again, "mail")
    await inbox.release(again)

    assert (await lease_of(inbox)).completed == {"debit", "credit", "mail"}


async def test_one_transaction_completes_several_handlers(schema, inbox, lease):
    """It may be the caller's choice."""
    async with transaction(schema) as connection:
        for handler in ("debit", "credit"):
            await inbox.complete_in(lease, handler, connection)

    assert await completed_later(schema, inbox, lease) == {"debit", "credit"}


isolated = pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])


@isolated
@each_library
async def test_an_isolated_transaction_may_last_longer_than_an_extension(
    schema, inbox, lease, library: Library, isolation
):
    """An extension after its snapshot is not a conflict, before or after the completion."""
    async with library.begin(schema.dsn(), isolation=isolation) as connection:
        await library.execute(connection, "SELECT 1 FROM pg_catalog.pg_class")
        await inbox.extend(lease, LEASE)
        await inbox.complete_in(lease, "debit", connection)
        await inbox.extend(lease, LEASE)

    assert await completed_later(schema, inbox, lease) == {"debit"}


@isolated
async def test_an_isolated_transaction_does_not_complete_with_a_lost_lease(schema, inbox, lease, isolation):
    """Its snapshot still shows the lease, so this is a serialization failure."""
    async with asyncpg_connection(schema.dsn()) as connection:
        await connection.execute(f"BEGIN ISOLATION LEVEL {isolation}; SELECT 1 FROM pg_catalog.pg_class")
        await expire(schema, lease)
        other = await lease_of(inbox)
        with pytest.raises(asyncpg.SerializationError, match="could not serialize access"):
            await inbox.complete_in(lease, "debit", connection)

    assert (await completed_later(schema, inbox, other)) == frozenset()


@isolated
async def test_an_isolated_transaction_keeps_a_nacked_delivery_from_other_workers(schema, inbox, lease, isolation):
    """Its snapshot still shows the lease, which has ended; no worker has claimed the delivery since."""
    async with transaction(schema, isolation=isolation) as connection:
        await connection.execute("SELECT 1 FROM pg_catalog.pg_class")
        await inbox.nack(lease, delay=0)
        await inbox.complete_in(lease, "debit", connection)
        assert await inbox.claim(10, lease=LEASE) == []

    assert (await lease_of(inbox)).completed == {"debit"}


@isolated
async def test_an_isolated_transaction_does_not_complete_after_a_nack_and_a_claim(schema, inbox, lease, isolation):
    """The delivery has another lease, although its snapshot shows the first one."""
    async with asyncpg_connection(schema.dsn()) as connection:
        await connection.execute(f"BEGIN ISOLATION LEVEL {isolation}; SELECT 1 FROM pg_catalog.pg_class")
        await inbox.nack(lease, delay=0)
        await lease_of(inbox)
        with pytest.raises(asyncpg.SerializationError):
            await inbox.complete_in(lease, "debit", connection)


# --- leases -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settle", [settle for name, settle in SETTLE.items() if name != "extend"])
async def test_a_settled_lease_is_lost(schema, inbox, lease, settle):
    """As for a handler that still runs after its timeout."""
    await settle(inbox, lease)

    with pytest.raises(LeaseLostError, match="the lease of delivery 1 was lost or has ended; roll the"):
        await complete(schema, inbox, lease)
    assert await count(schema) == 0


async def test_a_lease_that_another_worker_has_taken_is_lost(schema, inbox, lease):
    """Only the other worker can complete."""
    await expire(schema, lease)
    other = await lease_of(inbox)

    with pytest.raises(LeaseLostError):
        await complete(schema, inbox, lease)
    await complete(schema, inbox, other)


async def test_an_expired_lease_that_no_worker_has_taken_is_held(schema, inbox, lease):
    """As for the other operations."""
    await expire(schema, lease)

    await complete(schema, inbox, lease)


@pytest.mark.parametrize("settle", SETTLE.values(), ids=SETTLE)
async def test_a_lease_is_extended_and_settled_during_the_transaction(schema, inbox, lease, settle):
    """Without waiting for the end of the transaction."""
    async with transaction(schema) as connection:
        await inbox.complete_in(lease, "debit", connection)
        async with asyncio.timeout(DEADLINE):
            assert await settle(inbox, lease)

    assert await count(schema) == 1


@pytest.mark.parametrize("is_committed", [True, False], ids=["commit", "rollback"])
async def test_a_delivery_is_not_claimed_during_the_transaction(schema, inbox, lease, is_committed):
    """Even if its lease has expired; afterwards the next lease has the outcome of the transaction."""
    with contextlib.suppress(Rollback):
        async with transaction(schema) as connection:
            await inbox.complete_in(lease, "debit", connection)
            await expire(schema, lease)
            assert await inbox.claim(10, lease=LEASE) == []
            if not is_committed:
                raise Rollback

    assert (await lease_of(inbox)).completed == ({"debit"} if is_committed else frozenset())


async def test_a_delivery_is_not_claimed_during_the_transaction_after_a_nack(schema, inbox, lease):
    """A handler that still runs after its timeout may commit."""
    async with transaction(schema) as connection:
        await inbox.complete_in(lease, "debit", connection)
        await inbox.nack(lease, delay=0)
        assert await inbox.claim(10, lease=LEASE) == []

    assert (await lease_of(inbox)).completed == {"debit"}


async def test_other_deliveries_are_claimed_during_the_transaction(schema, inbox, lease):
    """The locked one does not hold them up."""
    await inbox.append(Delivery(b"another"))
    async with transaction(schema) as connection:
        await inbox.complete_in(lease, "debit", connection)
        await expire(schema, lease)

        assert (await lease_of(inbox)).delivery.body == b"another"


async def test_a_transaction_that_commits_during_a_claim_is_part_of_the_lease(schema, inbox, lease):
    """The claim's snapshot was taken before the commit, and its lock after that."""
    await expire(schema, lease)
    # The claim calls this function after it has taken its snapshot, and before it locks deliveries.
    waiting = f"waiting_{schema.name}"
    await schema.fetchval(f"CREATE SCHEMA {waiting}")
    await schema.fetchval(
        f"CREATE FUNCTION {waiting}.statement_timestamp() RETURNS timestamptz VOLATILE LANGUAGE sql AS"
        f" $$ SELECT pg_advisory_xact_lock_shared(17); SELECT pg_catalog.statement_timestamp() $$"
    )
    async with schema.inbox(schema.dsn(search_path=f"{waiting},pg_catalog")) as other, schema.admin() as gate:
        async with transaction(schema) as connection:
            await inbox.complete_in(lease, "debit", connection)
            await gate.execute("SELECT pg_advisory_lock(17)")
            claiming = asyncio.create_task(lease_of(other))
            await schema.wait_until_blocked()
        await gate.execute("SELECT pg_advisory_unlock(17)")

        assert (await claiming).completed == {"debit"}


async def test_completing_waits_for_a_claim(schema, inbox, lease):
    """A claim that has locked the delivery and has not committed yet decides who completes."""
    async with schema.admin() as claim, claim.transaction():
        await claim.execute("SELECT FROM deliveries FOR UPDATE")
        await claim.execute("UPDATE deliveries SET token = 'another worker''s'")
        completing = asyncio.create_task(complete(schema, inbox, lease))
        await schema.wait_until_blocked()

    with pytest.raises(LeaseLostError):
        await completing


async def test_waiting_does_not_repeat_claims_at_once_while_a_due_delivery_is_locked(schema, inbox, lease, monkeypatch):
    """It waits for a moment, or for work that arrives after the claim has begun."""
    monkeypatch.setattr(module, "_LOCKED_SECONDS", 1e-3 + 2 * POLL_SECONDS)
    async with transaction(schema) as connection:
        await inbox.complete_in(lease, "debit", connection)
        await expire(schema, lease)
        assert await inbox.claim(1, lease=LEASE) == []
        started = asyncio.get_running_loop().time()
        await inbox.wait(DEADLINE)
        assert asyncio.get_running_loop().time() - started >= POLL_SECONDS

        monkeypatch.setattr(module, "_LOCKED_SECONDS", 10 * DEADLINE)
        assert await inbox.claim(1, lease=LEASE) == []
        await inbox.append(Delivery(b"another"))
        async with asyncio.timeout(DEADLINE):
            await inbox.wait(10 * DEADLINE)


# --- the end of a delivery --------------------------------------------------------------------------------


async def test_completions_survive_a_replay(schema, inbox, lease):
    """And the revival of a dead letter by a duplicate."""
    await complete(schema, inbox, lease)
    await inbox.dead_letter(lease, "why")
    await inbox.replay()
    again = await lease_of(inbox)
    await inbox.dead_letter(again, "why")
    await inbox.append(Delivery(b"body"))

    assert (again.completed, (await lease_of(inbox)).completed) == ({"debit"}, {"debit"})


@pytest.mark.parametrize("settle", [SETTLE["ack"], SETTLE["dead_letter"]], ids=["done", "dead"])
async def test_a_purge_deletes_completions(schema, inbox, lease, settle):
    """With their deliveries."""
    await complete(schema, inbox, lease)
    await settle(inbox, lease)

    assert await inbox.purge(done_before=LATER, dead_before=LATER) == 1
    assert await count(schema) == 0


async def test_retention_deletes_completions(schema):
    """With their deliveries."""
    async with schema.inbox(retention=0.0) as inbox:
        await inbox.append(Delivery(b"body"))
        lease = await lease_of(inbox)
        await complete(schema, inbox, lease)
        await inbox.ack(lease)

        assert await inbox.claim(1, lease=LEASE) == []
        assert await count(schema) == 0


async def test_a_delivery_after_the_dedupe_window_has_no_completions(schema):
    """It is another delivery."""
    async with schema.inbox(dedupe_window=0) as inbox:
        for _ in range(2):
            await inbox.append(Delivery(b"body"))
            lease = await lease_of(inbox)
            assert lease.completed == frozenset()
            await complete(schema, inbox, lease)


# --- mistakes of the caller -------------------------------------------------------------------------------


@each_library
async def test_without_a_transaction_nothing_is_recorded(schema, inbox, lease, library: Library):
    """A completion that is committed at once would prevent the handler's effect."""
    async with library.autocommit(schema.dsn()) as connection:
        with pytest.raises(RuntimeError, match="connection has no open transaction: call complete_in inside"):
            await inbox.complete_in(lease, "debit", connection)

    assert await count(schema) == 0


@each_library
async def test_a_database_without_the_inbox_is_refused(schema, inbox, lease, library: Library):
    """The error names the schema."""
    async with other_database(schema) as dsn:
        with pytest.raises(ValueError, match=f"connection must be to the database of the inbox.*{schema.name}"):
            async with library.begin(dsn) as connection:
                await inbox.complete_in(lease, "debit", connection)


async def test_a_database_with_another_inbox_is_refused(schema, inbox, lease):
    """Even if its schema has the same name, and its delivery the same id."""
    async with other_database(schema) as dsn, schema.inbox(dsn) as other:
        await other.append(Delivery(b"body"))
        with pytest.raises(ValueError, match="connection must be to the database of the inbox"):
            async with asyncpg_transaction(dsn) as connection:
                await inbox.complete_in(await lease_of(other), "debit", connection)


@contextlib.asynccontextmanager
async def other_database(schema: Schema) -> AsyncIterator[str]:
    name = f"other_{secrets.token_hex(4)}"
    await schema.fetchval(f"CREATE DATABASE {name}")
    yield schema.server.dsn(database=name)
    await schema.fetchval(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize("make", [lambda _: None, lambda _: "connection", lambda dsn: engine(dsn, "asyncpg")])
async def test_another_object_is_a_type_error(schema, inbox, lease, make):
    """The message names what is expected."""
    with pytest.raises(TypeError, match=r"connection must be an asyncpg.Connection, a psycopg.AsyncConnection, or"):
        await inbox.complete_in(lease, "debit", make(schema.dsn()))


async def test_a_pool_or_a_synchronous_connection_is_a_type_error(schema, inbox, lease):
    """A pool has no transaction, and a synchronous connection blocks."""
    with psycopg.connect(schema.dsn()) as connection:
        async with asyncpg.create_pool(schema.dsn(), min_size=0) as pool:
            for wrong in (connection, pool):
                with pytest.raises(TypeError, match=r"not (Connection|Pool)$"):
                    await inbox.complete_in(lease, "debit", wrong)


async def test_another_database_system_is_a_type_error(inbox, lease):
    """SQLAlchemy has many."""
    engine = create_async_engine("sqlite+aiosqlite://")
    async with engine.begin() as connection:
        with pytest.raises(TypeError, match="over asyncpg or psycopg, not over aiosqlite"):
            await inbox.complete_in(lease, "debit", connection)
    await engine.dispose()


@pytest.mark.parametrize("name", ["psycopg", "sqlalchemy.ext.asyncio"])
async def test_a_library_is_not_needed(schema, inbox, lease, monkeypatch, name):
    """It is not imported."""
    monkeypatch.delitem(module._completions.fetch_in_transaction.__globals__["sys"].modules, name)

    await complete(schema, inbox, lease)


async def test_an_exception_of_the_driver_is_raised_unchanged(schema, inbox, lease):
    """The connection belongs to the caller, who expects the exceptions of its driver."""
    async with asyncpg_transaction(schema.dsn()) as connection:
        await connection.execute("SET TRANSACTION READ ONLY")
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await inbox.complete_in(lease, "debit", connection)


async def test_an_inbox_that_is_not_open_raises(schema, inbox, lease):
    """As in its other operations."""
    async with transaction(schema) as connection:
        with pytest.raises(InboxError, match="not open"):
            await schema.inbox().complete_in(lease, "debit", connection)


# --- surroundings -----------------------------------------------------------------------------------------


async def test_the_callers_search_path_does_not_matter(schema, inbox, lease):
    """Nor do tables and functions of the same names in it."""
    own = f"own_{schema.name}"
    for statement in (
        f"CREATE SCHEMA {own}",
        f"CREATE TABLE {own}.completions (id int)",
        f"CREATE TABLE {own}.deliveries (id int)",
        f"CREATE FUNCTION {own}.txid_current() RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint'",
    ):
        await schema.fetchval(statement)
    async with asyncpg_transaction(schema.dsn(search_path=f"{own},pg_catalog")) as connection:
        await inbox.complete_in(lease, "debit", connection)
        await inbox.complete_in(lease, "debit", connection)

    assert await completed_later(schema, inbox, lease) == {"debit"}


@each_library
async def test_transactions_through_a_pooler_work(schema, pgbouncer, library: Library):
    """In transaction mode, with the inbox behind the pooler too."""
    dsn = schema.server.dsn(folder=pgbouncer)
    async with schema.inbox(dsn) as inbox:
        await inbox.append(Delivery(b"body"))
        lease = await lease_of(inbox)
        async with library.begin(dsn) as connection:
            await inbox.complete_in(lease, "debit", connection)
            assert await inbox.extend(lease, LEASE)

        assert await completed_later(schema, inbox, lease) == {"debit"}


async def test_a_role_needs_few_rights(schema, inbox, lease):
    """The documented ones suffice."""
    role = f"role_{schema.name}"
    page = (Path(__file__).parents[4] / "docs" / "exactly-once-effects.md").read_text(encoding="utf-8")
    (documented,) = re.findall(r"^ *```sql\n(.*?)^ *```$", page, re.MULTILINE | re.DOTALL)
    grants = documented.replace("app;", f"{role};").replace("callfire", schema.name).splitlines()
    assert len(grants) == 4
    for statement in (f"CREATE ROLE {role}", *grants):
        await schema.fetchval(statement)
    async with transaction(schema) as connection:
        await connection.execute(f"SET LOCAL ROLE {role}")
        await inbox.complete_in(lease, "debit", connection)

    assert await completed_later(schema, inbox, lease) == {"debit"}
