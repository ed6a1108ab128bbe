"""`PostgresInbox` beyond the shared suite: server failures, several processes, poolers."""

import asyncio
import contextlib
import importlib
import logging
import math
import secrets
import ssl
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import asyncpg
import pytest
import trustme
from attrs import evolve
from engines.postgres import PASSWORD
from engines.proxy import Fault, Proxy, run_proxy
from notifications.inbox.postgres.schemas import POLL_SECONDS, Schema
from notifications.inbox.suite import DEADLINE, LEASE, ODD_TEXTS, all_entries, bodies_of, lease_of

from callfire_async.errors import InboxError, InboxUnavailableError
from callfire_async.notifications.inbox import Delivery, Inbox, Lease, _waiting
from callfire_async.notifications.inbox import postgres as module
from callfire_async.notifications.inbox.postgres import PostgresInbox, _notify, _pool
from callfire_async.notifications.inbox.postgres._pool import PostgresPool

NEVER = 3600.0
LATER = datetime.now(UTC) + timedelta(days=3650)


@pytest.fixture
def no_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Find work by notifications only."""
    monkeypatch.setattr(module, "_POLL_SECONDS", NEVER)
    monkeypatch.setattr(_notify, "_RETRY_SECONDS", 0.01)


async def outcomes_of(tasks: list[asyncio.Task[Any]]) -> list[Any]:
    async with asyncio.timeout(DEADLINE):
        return await asyncio.gather(*tasks, return_exceptions=True)


# --- opening --------------------------------------------------------------------------------------------


def test_without_asyncpg_the_import_error_names_the_extra(monkeypatch):
    """The message is the command that installs it."""
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    monkeypatch.delitem(sys.modules, _pool.__name__)

    with pytest.raises(ImportError, match=r"pip install 'callfire-async\[postgres\]'"):
        importlib.import_module(_pool.__name__)


@pytest.mark.parametrize("name", ["", "9lives", "Callfire", "a b", "a;b", 'a"b', "x" * 41])
def test_a_schema_name_that_needs_quotes_is_rejected(name):
    """So that every tool can use it unquoted."""
    with pytest.raises(ValueError, match="schema must be"):
        PostgresInbox("postgresql:///", schema=name)


def test_retention_is_readable():
    """Backfilling reads how far back `handled` is complete."""
    assert PostgresInbox("postgresql:///", retention=5.0).retention == 5.0


async def test_an_inbox_that_is_not_open_raises(schema):
    """Before it is opened, and after it is closed."""
    inbox = schema.inbox()
    with pytest.raises(InboxError, match="not open"):
        await inbox.append(Delivery(b"body"))
    async with inbox:
        pass
    with pytest.raises(InboxError, match="not open"):
        await inbox.stats()


async def test_processes_that_start_together_create_the_tables_once(schema):
    """The others wait for the first, and use its tables."""
    async with AsyncExitStack() as stack:
        inboxes = [schema.inbox() for _ in range(8)]
        await asyncio.gather(*(stack.enter_async_context(inbox) for inbox in inboxes))
        for inbox in inboxes:
            await inbox.append(Delivery(b"same"))

        assert (await inboxes[0].stats()).ready == 1
        assert await schema.fetchval("SELECT count(*) FROM inbox_version") == 1


async def test_waiting_for_another_processs_migration_is_logged(schema, caplog, monkeypatch):
    """At once, not when the timeout ends; then the error says that it was a lock."""
    monkeypatch.setattr(_waiting, "_SLOW_SECONDS", 0.05)
    async with schema.admin() as other, other.transaction():
        await other.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"callfire_async.{schema.name}")
        with pytest.raises(InboxUnavailableError, match=r"^PostgreSQL at .* did not get a lock in time"):
            # The time for the lock is a tenth shorter, in which the connection must be made.
            await schema.inbox(timeout=4.0).__aenter__()

    name = f"the tables of schema {schema.name} in PostgreSQL at {schema.server.folder}"
    assert f"waiting for {name}, up to 4 s" in caplog.messages


async def test_tables_of_a_later_version_are_refused(schema, inbox):
    """An old process does not guess their meaning."""
    await schema.fetchval("UPDATE inbox_version SET version = 99")

    with pytest.raises(InboxError, match=rf"{schema.name} was created by a later version .* \(version 99\)"):
        await schema.inbox().__aenter__()


async def test_a_tool_creates_no_tables(schema):
    """It fails if there is no inbox, for example because its address is wrong."""
    with pytest.raises(InboxError, match=f"has no inbox in schema {schema.name}$"):
        async with schema.inbox(create=False):
            pass

    assert not await schema.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname = $1", schema.name)


async def test_a_tool_uses_the_tables_that_exist(schema, inbox):
    """As any other process."""
    await inbox.append(Delivery(b"body"))

    async with schema.inbox(create=False) as tool:
        assert await bodies_of(tool) == [b"body"]


async def test_a_role_without_the_right_to_create_schemas_can_use_an_existing_one(schema):
    """The right to create tables in it is enough."""
    role = f"role_{secrets.token_hex(4)}"
    await schema.fetchval(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
    await schema.fetchval(f"CREATE SCHEMA {schema.name} AUTHORIZATION {role}")

    async with schema.inbox(schema.dsn().replace("//postgres:", f"//{role}:")) as inbox:
        await inbox.append(Delivery(b"body"))
        assert await bodies_of(inbox) == [b"body"]


async def test_a_schema_that_cannot_be_created_raises_an_inbox_error(schema):
    """The message names the missing privilege."""
    role = f"role_{secrets.token_hex(4)}"
    await schema.fetchval(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")

    with pytest.raises(InboxError, match="permission denied for database"):
        await schema.inbox(schema.dsn().replace("//postgres:", f"//{role}:")).__aenter__()


# --- durability -----------------------------------------------------------------------------------------


async def test_a_server_with_asynchronous_commits_is_refused(schema):
    """A crash would lose acknowledged deliveries; the message says how to fix it."""
    with pytest.raises(InboxError, match=r"synchronous_commit is off; switch it on .* allow_lossy_commits=True"):
        await schema.inbox(schema.dsn(synchronous_commit="off")).__aenter__()


async def test_lossy_commits_can_be_allowed(schema, caplog):
    """With one warning in the log."""
    async with schema.inbox(schema.dsn(synchronous_commit="off"), allow_lossy_commits=True) as inbox:
        await inbox.append(Delivery(b"body"))

    assert [record.levelno for record in caplog.records if "synchronous_commit" in record.message] == [logging.WARNING]


@pytest.fixture
async def switch_off(schema: Schema) -> AsyncIterator[Callable[[str], Awaitable[None]]]:
    """Return a function that switches a setting of the server off until the test ends."""
    switched = []

    async def switch(setting: str, value: str) -> None:
        await schema.fetchval(f"ALTER SYSTEM SET {setting} = {value}")
        await schema.fetchval("SELECT pg_reload_conf()")
        await schema.wait_until("current_setting($1) = $2", setting, value)

    async def switch_setting_off(setting: str) -> None:
        switched.append(setting)
        await switch(setting, "off")

    yield switch_setting_off
    for setting in switched:
        await switch(setting, "on")


async def test_a_server_without_fsync_is_refused(schema, switch_off):
    """Whatever its synchronous_commit is."""
    await switch_off("fsync")

    with pytest.raises(InboxError, match="fsync is off"):
        await schema.inbox().__aenter__()


async def test_a_server_without_full_page_writes_is_warned_about(schema, switch_off, caplog):
    """Some disks and file systems never leave a torn page."""
    await switch_off("full_page_writes")

    async with schema.inbox():
        assert "full_page_writes is off" in caplog.text


# --- append ---------------------------------------------------------------------------------------------


async def test_concurrent_appends_share_a_commit(schema, inbox):
    """Each caller gets the ID of its own delivery."""
    appended = await asyncio.gather(*(inbox.append(Delivery(b"%d" % number)) for number in range(64)))

    assert await schema.fetchval("SELECT count(DISTINCT xmin::text) FROM deliveries") <= 2
    bodies = {entry.id: entry.delivery.body for entry in await all_entries(inbox)}
    assert [bodies[result.id] for result in appended] == [b"%d" % number for number in range(64)]


async def test_a_batch_is_limited_in_bytes(schema, inbox):
    """Large deliveries are committed in several batches."""
    large = bytes(3 * 1024 * 1024)
    await asyncio.gather(*(inbox.append(Delivery(large, key=str(number))) for number in range(4)))

    assert await schema.fetchval("SELECT count(DISTINCT xmin::text) FROM deliveries") == 4


async def test_a_delivery_that_cannot_be_stored_fails_alone(inbox):
    """For example one with a time that PostgreSQL cannot represent; the others are stored."""
    beyond = datetime.max.replace(tzinfo=timezone(timedelta(hours=-12)))
    bodies = [b"1", b"2", b"3"]
    deliveries = [*map(Delivery, bodies), Delivery(b"beyond", received_at=beyond)]

    outcomes = await asyncio.gather(*map(inbox.append, deliveries), return_exceptions=True)

    assert isinstance(outcomes.pop(), InboxError)
    assert await bodies_of(inbox) == bodies
    assert [outcome.duplicate for outcome in outcomes] == [False] * 3


async def test_concurrent_appends_of_the_same_keys_store_one_delivery_each(schema):
    """In any order of the keys, without a deadlock."""
    keys = [str(number) for number in range(40)]
    async with schema.inbox() as one, schema.inbox() as two, schema.inbox() as three:
        lists = await asyncio.gather(
            one.append_many([Delivery(b"1", key=key) for key in keys]),
            two.append_many([Delivery(b"2", key=key) for key in reversed(keys)]),
            *(three.append(Delivery(b"3", key=key)) for key in keys),
        )
        both, backwards, each = lists[0], lists[1][::-1], lists[2:]

        ids = [[result.id for result in results] for results in (both, backwards, each)]
        assert ids[0] == ids[1] == ids[2]
        news = [
            [result.duplicate for result in three].count(False) for three in zip(both, backwards, each, strict=True)
        ]
        assert news == [1] * 40
        assert (await one.stats()).ready == 40


async def test_a_duplicate_of_an_uncommitted_delivery_waits_for_its_commit(schema):
    """Even with a snapshot from before that commit and a strict isolation level, as a pool of the caller's may have."""
    address = schema.dsn(default_transaction_isolation="repeatable%20read")
    async with asyncpg.create_pool(address, min_size=0) as pool, schema.inbox(pool) as inbox:
        async with schema.admin() as other:
            change = other.transaction()
            await change.start()
            await other.execute(
                "WITH new AS (INSERT INTO deliveries (id, key, body, received_at, due_at, updated_at)"
                " VALUES (nextval('delivery_ids'), 'key', 'other', now(), now(), now()) RETURNING id)"
                " INSERT INTO delivery_keys SELECT sha256('key'), id, now() FROM new"
            )
            appending = asyncio.create_task(inbox.append(Delivery(b"own", key="key")))
            await schema.wait_until_blocked()
            await change.commit()

        assert (await appending).duplicate
        assert await bodies_of(inbox) == [b"other"]


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
async def test_a_database_in_any_encoding_stores_any_text(schema, encoding):
    """No character that a sender chooses prevents the delivery from being stored."""
    name = f"db_{secrets.token_hex(4)}"
    await schema.fetchval(f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0")

    async with schema.inbox(schema.server.dsn(database=name)) as inbox:
        for text in ODD_TEXTS.values():
            await inbox.append(Delivery(b"body", text, key=text))

        kept = [entry.delivery for entry in await all_entries(inbox)]
        assert (
            [delivery.content_type for delivery in kept]
            == [delivery.key for delivery in kept]
            == list(ODD_TEXTS.values())
        )


async def test_a_cancelled_append_does_not_affect_the_others(schema, inbox):
    """Whether it is in flight or waits for its batch."""
    async with schema.admin() as other, other.transaction():
        await other.execute("LOCK TABLE deliveries")
        first, under_way = [asyncio.create_task(inbox.append(Delivery(body))) for body in (b"1", b"2")]
        await schema.wait_until_blocked()
        waiting, second = [asyncio.create_task(inbox.append(Delivery(body))) for body in (b"3", b"4")]
        await asyncio.sleep(0)
        for task in (under_way, waiting):
            task.cancel()
        await outcomes_of([under_way, waiting])

    outcomes = await outcomes_of([first, second])
    assert [outcome.duplicate for outcome in outcomes] == [False, False]
    assert {b"1", b"4"} <= set(await bodies_of(inbox))


async def test_a_cancelled_claim_leaks_no_connection(schema, inbox):
    """However often."""
    async with schema.admin() as other, other.transaction():
        await other.execute("LOCK TABLE deliveries")
        for _ in range(3):
            claiming = [asyncio.create_task(inbox.claim(1, lease=LEASE)) for _ in range(10)]
            await schema.wait_until_blocked()
            for task in claiming:
                task.cancel()
            await outcomes_of(claiming)

    async with asyncio.timeout(DEADLINE):
        await inbox.append(Delivery(b"body"))
        assert await bodies_of(inbox) == [b"body"]


# --- ack ------------------------------------------------------------------------------------------------


async def leases_of(inbox: Inbox, count: int, *, lease: float = LEASE) -> list[Lease]:
    await inbox.append_many([Delivery(b"%d" % number) for number in range(count)])
    return await inbox.claim(count, lease=lease)


async def test_concurrent_acks_share_a_commit(schema, inbox):
    """Each delivery gets its own event key."""
    leases = await leases_of(inbox, 64)

    acked = await asyncio.gather(*(inbox.ack(lease, event_key=f"event {lease.id}") for lease in leases))

    assert acked == [True] * 64
    assert await schema.fetchval("SELECT count(DISTINCT xmin::text) FROM deliveries") <= 2
    assert await schema.fetchval("SELECT bool_and(state = 2 AND event_key = 'event ' || id) FROM deliveries")


async def test_more_acks_than_fit_into_a_transaction_succeed(schema, inbox, monkeypatch):
    """In several transactions."""
    monkeypatch.setattr(inbox._acks, "_max_items", 10)
    leases = await leases_of(inbox, 25)

    assert await asyncio.gather(*map(inbox.ack, leases)) == [True] * 25
    assert await schema.fetchval("SELECT count(DISTINCT xmin::text) FROM deliveries") == 3


async def test_acks_in_one_transaction_have_results_of_their_own(schema, inbox):
    """An ack of a lease that another worker has taken over, and the second ack of a lease, are refused."""
    lost, *_ = await leases_of(inbox, 3, lease=0.0)
    taken, other, third = await inbox.claim(3, lease=LEASE)
    assert taken.id == lost.id

    acked = await asyncio.gather(*map(inbox.ack, [lost, taken, lost, other, taken, third]))

    assert acked == [False, True, False, True, False, True]
    assert await schema.fetchval("SELECT count(DISTINCT xmin::text) FROM deliveries") == 1


async def test_a_lost_lease_alone_changes_nothing(schema, inbox):
    """The other worker's delivery is neither done nor without its body."""
    (lost,) = await leases_of(inbox, 1, lease=0.0)
    (taken,) = await inbox.claim(1, lease=LEASE)

    assert await asyncio.gather(inbox.ack(lost), inbox.ack(lost)) == [False, False]
    entry = await inbox.get(taken.id)
    assert (entry.state, entry.delivery.body) == ("leased", b"0")


async def test_an_ack_with_a_value_that_is_refused_fails_alone(inbox):
    """For example a token with a NUL, which PostgreSQL does not store; the others are acked."""
    first, second = await leases_of(inbox, 2)
    impossible = evolve(first, token="\0")

    outcomes = await asyncio.gather(*map(inbox.ack, [first, impossible, second]), return_exceptions=True)

    assert isinstance(outcomes[1], InboxError)
    assert outcomes[::2] == [True, True]


async def test_a_cancelled_ack_does_not_affect_the_others(schema, inbox):
    """One in flight succeeds when it is repeated, whether or not it was committed; one that waits is not sent."""
    leases = await leases_of(inbox, 4)
    async with schema.admin() as other, other.transaction():
        await other.execute("SELECT FROM deliveries FOR UPDATE")
        first, under_way = [asyncio.create_task(inbox.ack(lease)) for lease in leases[:2]]
        await schema.wait_until_blocked()
        waiting, second = [asyncio.create_task(inbox.ack(lease)) for lease in leases[2:]]
        await asyncio.sleep(0)
        for task in (under_way, waiting):
            task.cancel()
        await outcomes_of([under_way, waiting])

    assert await outcomes_of([first, second]) == [True, True]
    assert (await inbox.get(leases[2].id)).state == "leased"
    assert await asyncio.gather(*map(inbox.ack, leases)) == [False, True, True, False]


async def test_all_acks_of_a_transaction_without_a_response_succeed_when_repeated(schema):
    """Each once: the server may have committed them."""
    server = schema.server.folder / ".s.PGSQL.5432"
    async with run_proxy(server) as proxy, schema.inbox(schema.proxy_dsn(proxy.port)) as inbox:
        leases = await leases_of(inbox, 3)
        async with response_lost(schema, proxy):
            acking = [asyncio.create_task(inbox.ack(lease)) for lease in leases]
        outcomes = await outcomes_of(acking)
        proxy.fault = None

        assert {type(outcome) for outcome in outcomes} == {InboxUnavailableError}
        assert [await inbox.ack(lease) for lease in leases * 2] == [True] * 3 + [False] * 3


# --- several processes ----------------------------------------------------------------------------------


async def test_a_lease_outlives_its_process_until_it_expires(schema):
    """Another process gets the delivery then, and the crash is counted."""
    async with schema.inbox() as closed:
        await closed.append(Delivery(b"body"))
        await lease_of(closed, lease=0.01)

    async with schema.inbox() as other, asyncio.timeout(DEADLINE):
        while not (leases := await other.claim(1, lease=LEASE)):
            await other.wait(LEASE)
        assert [(lease.delivery.body, lease.crashes, lease.attempt) for lease in leases] == [(b"body", 1, 1)]


async def test_processes_share_the_deliveries(schema):
    """No delivery is leased twice."""
    async with schema.inbox() as one, schema.inbox() as two:
        await one.append_many([Delivery(b"%d" % number) for number in range(60)])

        lists = await asyncio.gather(*(inbox.claim(7, lease=LEASE) for inbox in (one, two) * 6))

        ids = [lease.id for leases in lists for lease in leases]
        left = [lease.id for lease in await one.claim(100, lease=LEASE)]
        assert sorted(ids + left) == sorted({*ids, *left})
        assert len(ids + left) == 60


@pytest.mark.parametrize("cause", ["append", "nack", "release", "replay"])
async def test_a_process_is_notified_of_another_ones_work(schema, no_polling, cause):
    """Without polling."""
    async with schema.inbox() as one, schema.inbox() as two:
        await schema.wait_until_listening(2)
        await one.append_many([Delivery(b"dead"), Delivery(b"leased")])
        dead, lease = await one.claim(2, lease=LEASE)
        await one.dead_letter(dead, "because")
        waiting = asyncio.create_task(two.wait(NEVER))
        causes = {
            "append": lambda: one.append(Delivery(b"new")),
            "nack": lambda: one.nack(lease, delay=0),
            "release": lambda: one.release(lease),
            "replay": one.replay,
        }

        await causes[cause]()

        assert await outcomes_of([waiting]) == [None]


@pytest.mark.usefixtures("no_polling")
def test_notifications_work_in_any_event_loop(schema):
    """An inbox may be opened once for each test of an application."""
    inbox = schema.inbox()

    async def notify(body: bytes) -> None:
        async with inbox, schema.inbox() as other:
            await schema.wait_until_listening(2)
            waiting = asyncio.create_task(other.wait(NEVER))
            await inbox.append(Delivery(body))
            assert await outcomes_of([waiting]) == [None]
            await inbox.ack(await lease_of(inbox))

    for body in (b"1", b"2"):
        asyncio.run(notify(body))


@pytest.mark.usefixtures("no_polling")
async def test_a_broken_listening_connection_is_replaced(schema):
    """A reconnect counts as a notification, because some may have been missed."""
    async with schema.inbox() as one, schema.inbox() as two:
        await schema.wait_until_listening(2)
        waiting = asyncio.create_task(two.wait(NEVER))
        await asyncio.sleep(0)
        await two.stats()

        await schema.disconnect()

        assert await outcomes_of([waiting]) == [None]
        await schema.wait_until_listening(2)
        again = asyncio.create_task(two.wait(NEVER))
        await one.append(Delivery(b"new"))
        assert await outcomes_of([again]) == [None]


class UnreachableAtFirst:
    """A pool whose first connection fails."""

    def __init__(self) -> None:
        self.attempts = 0

    @asynccontextmanager
    async def own_connection(self) -> AsyncIterator[None]:
        self.attempts += 1
        if self.attempts == 1:
            raise OSError(PASSWORD)
        yield None


@pytest.mark.usefixtures("no_polling")
async def test_listening_is_retried_if_the_server_was_unreachable(caplog):
    """The log has the error's type only."""
    caplog.set_level(logging.INFO, "callfire_async")
    notifier = _notify.WorkNotifier(UnreachableAtFirst(), "channel", lambda: None)

    notifier.start()
    async with asyncio.timeout(DEADLINE):
        while "through a pooler" not in caplog.text:  # noqa: ASYNC110  # the log has no event
            await asyncio.sleep(POLL_SECONDS)
    await notifier.stop()

    assert "cannot LISTEN, retrying in 0.01 s: OSError" in caplog.messages
    assert PASSWORD not in caplog.text


class FailsOnce(UnreachableAtFirst):
    """A pool whose first statement fails."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._errors = [error]
        self.sent = asyncio.Event()

    async def fetch(self, statement: str, *arguments: object) -> None:
        if self._errors:
            raise self._errors.pop()
        self.sent.set()


@pytest.mark.usefixtures("no_polling")
@pytest.mark.parametrize("error", [InboxUnavailableError("gone"), KeyError(PASSWORD)])
async def test_notifying_continues_after_any_error(caplog, error):
    """The log has the error's type only."""
    caplog.set_level(logging.INFO, "callfire_async")
    pool = FailsOnce(error)
    notifier = _notify.WorkNotifier(pool, "channel", lambda: None)

    notifier.start()
    async with asyncio.timeout(DEADLINE):
        while not pool.sent.is_set():
            notifier.notify()
            await asyncio.sleep(POLL_SECONDS)
    await notifier.stop()

    assert f"cannot send NOTIFY, retrying with the next work: {type(error).__name__}" in caplog.messages
    assert PASSWORD not in caplog.text


@pytest.mark.usefixtures("no_polling")
async def test_the_listening_connection_is_checked(schema, monkeypatch):
    """Its other end may disappear without a packet."""
    # Also the time limit of a check, after which the connection would be replaced.
    monkeypatch.setattr(_notify, "_CHECK_SECONDS", 0.5)
    async with schema.inbox():
        last_check = (
            "(SELECT max(query_start) FROM pg_stat_activity WHERE application_name = $1 AND query = 'SELECT 1')"
        )
        await schema.wait_until_listening()
        before = await schema.fetchval(f"SELECT {last_check}", schema.name)
        await schema.wait_until(f"{last_check} > $2", schema.name, before)


async def test_a_pool_with_one_connection_polls_instead_of_listening(schema, caplog):
    """Work of other processes is still found."""
    caplog.set_level(logging.INFO)
    single = asyncpg.create_pool(schema.dsn(), min_size=1, max_size=1)
    async with single as pool, schema.inbox() as one, schema.inbox(pool) as two:
        waiting = asyncio.create_task(two.wait(NEVER))
        await one.append(Delivery(b"new"))

        assert await outcomes_of([waiting]) == [None]
        assert "with a single connection" in caplog.text


async def test_wait_polls(schema, monkeypatch):
    """A notification may be lost."""
    monkeypatch.setattr(module, "_POLL_SECONDS", 0.01)
    last_poll = (
        "(SELECT max(query_start) FROM pg_stat_activity WHERE application_name = $1 AND query LIKE '%min(due_at)%')"
    )
    async with schema.inbox() as inbox:
        await schema.wait_until_listening()
        waiting = asyncio.create_task(inbox.wait(NEVER))
        await schema.wait_until(f"{last_poll} IS NOT NULL", schema.name)
        # The query text appears before the query has run, so one poll is not enough.
        for _ in range(4):
            before = await schema.fetchval(f"SELECT {last_poll}", schema.name)
            await schema.wait_until(f"{last_poll} > $2", schema.name, before)
        columns = "id, key, body, received_at, due_at, updated_at"
        await schema.fetchval(f"INSERT INTO deliveries ({columns}) VALUES (1, 'key', '', now(), now(), now())")

        assert await outcomes_of([waiting]) == [None]


@pytest.mark.usefixtures("no_polling")
async def test_a_pool_of_the_caller_is_used_and_left_open(schema):
    """One of its connections listens meanwhile."""
    async with asyncpg.create_pool(schema.dsn(), min_size=1, max_size=3) as pool:
        async with schema.inbox(pool) as inbox:
            await schema.wait_until_listening()
            await inbox.append(Delivery(b"body"))
            assert await bodies_of(inbox) == [b"body"]

        assert await pool.fetchval("SELECT 'open'") == "open"


async def test_a_purge_deletes_in_parts(schema, inbox):
    """No part takes long; the keys are deleted too."""
    await inbox.append_many([Delivery(b"%d" % number) for number in range(1001)])
    await schema.fetchval("UPDATE deliveries SET state = 3")

    assert await inbox.purge(dead_before=LATER) == 1001
    assert await schema.fetchval("SELECT count(*) FROM delivery_keys") == 0


async def test_an_endless_period_lasts_as_long_as_the_server_can_count(schema):
    """Infinity is more than its types of times hold."""
    async with schema.inbox(dedupe_window=math.inf, retention=math.inf) as inbox:
        appended = await inbox.append(Delivery(b"body"))
        await inbox.ack(await lease_of(inbox), event_key="event")
        await schema.fetchval("UPDATE deliveries SET updated_at = now() - interval '90 years'")
        await schema.fetchval("UPDATE delivery_keys SET appended_at = now() - interval '90 years'")

        assert await inbox.claim(1, lease=LEASE) == []
        assert (await inbox.handled(["event"]), (await inbox.append(Delivery(b"body"))).id) == ({"event"}, appended.id)


async def test_a_delivery_is_delayed_until_its_next_attempt(schema, inbox):
    """In `get`, in `entries` and in `stats`; an ack clears the reason of the failure."""
    await inbox.append(Delivery(b"body"))
    await inbox.nack(await lease_of(inbox), delay=NEVER, reason="it failed")
    (delayed,) = await all_entries(inbox, "delayed")
    assert (await inbox.get(delayed.id), (await inbox.stats()).delayed) == (delayed, 1)
    await schema.fetchval("UPDATE deliveries SET due_at = now()")
    (ready,) = await all_entries(inbox, "ready")
    assert (await all_entries(inbox, "delayed"), ready.reason) == ([], "it failed")

    await inbox.ack(await lease_of(inbox))

    assert [entry.reason for entry in await all_entries(inbox, "done")] == [""]


async def test_an_unknown_state_has_no_entries(inbox):
    """As in every inbox."""
    await inbox.append(Delivery(b"body"))

    assert await all_entries(inbox, "lost") == []


# --- prepared statements --------------------------------------------------------------------------------

SESSION = "SELECT current_setting('plan_cache_mode'), (SELECT count(*) FROM pg_prepared_statements)"


@asynccontextmanager
async def pool_to(dsn: str) -> AsyncIterator[PostgresPool]:
    pool = PostgresPool(dsn, timeout=DEADLINE)
    await pool.open()
    try:
        yield pool
    finally:
        await pool.close()


async def test_statements_are_prepared_once_and_planned_each_time(schema):
    """A plan for empty tables would be slow once they are full."""
    async with pool_to(schema.dsn()) as pool:
        for _ in range(2):
            await pool.fetch("SELECT 1")
        (session,) = await pool.fetch(SESSION)

    assert tuple(session) == ("force_custom_plan", 2)


async def test_the_isolation_level_does_not_depend_on_the_default(schema):
    """With a stricter one, concurrent claims and counts would fail."""
    async with pool_to(schema.dsn(default_transaction_isolation="serializable")) as pool:
        ((isolation,),) = await pool.fetch("SELECT current_setting('transaction_isolation')")

    assert isolation == "read committed"


async def test_sessions_of_a_pooler_are_not_changed(schema, pgbouncer):
    """Its next client would find the prepared statements and the setting."""
    async with pool_to(schema.server.dsn(folder=pgbouncer)) as pool:
        for _ in range(2):
            await pool.fetch("SELECT 1")
        sessions = await asyncio.gather(*(pool.fetch(SESSION) for _ in range(4)))

    assert {tuple(session) for (session,) in sessions} == {("auto", 0)}


async def test_no_connection_prepares_statements_once_a_pooler_is_known(schema, pgbouncer, monkeypatch):
    """Also one that was being opened when another detected it."""
    async with pool_to(schema.server.dsn(folder=pgbouncer)) as pool:
        connect, reached, detected = pool._connector.connect, asyncio.Event(), asyncio.Event()

        async def late(*arguments: Any, **options: Any) -> asyncpg.Connection:
            monkeypatch.setattr(pool._connector, "connect", connect)
            reached.set()
            await detected.wait()
            return await connect(*arguments, **options)

        monkeypatch.setattr(pool._connector, "connect", late)
        first = asyncio.create_task(pool.fetch(SESSION))
        await reached.wait()
        second = await pool.fetch(SESSION)
        detected.set()
        sessions = [*second, *await first]

    assert [tuple(session) for session in sessions] == [("auto", 0)] * 2


async def test_a_connection_that_fails_its_check_is_closed(schema, monkeypatch):
    """The next operation opens another one."""

    async def fail(connection: Any) -> bool:
        raise ConnectionResetError

    async with pool_to(schema.dsn()) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(_pool, "is_pooled", fail)
            with pytest.raises(InboxUnavailableError, match="is unavailable"):
                await pool.fetch("SELECT 1")
        await schema.wait_until("NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = $1)", schema.name)
        assert await pool.fetch("SELECT 1")


async def test_prepared_statements_survive_a_change_of_the_tables(schema, inbox):
    """A process of a later version adds a column while this one runs."""
    await inbox.append(Delivery(b"1"))
    (lease,) = await inbox.claim(1, lease=LEASE)
    await schema.fetchval("ALTER TABLE deliveries ADD COLUMN later text NOT NULL DEFAULT ''")

    assert await inbox.release(lease)
    assert await bodies_of(inbox) == [b"1"]
    assert [entry.state for entry in await all_entries(inbox)] == ["leased"]


# --- poolers --------------------------------------------------------------------------------------------


async def test_each_transaction_may_use_another_session(schema, pgbouncer, monkeypatch):
    """No state is kept in a session; processes outnumber sessions, and some connect directly."""
    monkeypatch.setattr(module, "_POLL_SECONDS", 0.02)
    pooled = schema.server.dsn(folder=pgbouncer)
    async with schema.inbox(pooled) as one, schema.inbox(pooled) as two, schema.inbox() as three:
        inboxes = (one, two, three)
        waiting = [asyncio.create_task(inbox.wait(NEVER)) for inbox in inboxes]
        appends = [inbox.append(Delivery(b"%d" % number)) for inbox in inboxes for number in range(50)]
        appended = await asyncio.gather(*appends)
        await outcomes_of(waiting)
        lists = await asyncio.gather(*(inbox.claim(10, lease=LEASE) for inbox in inboxes * 5))
        leases = [(inbox, lease) for inbox, leases in zip(inboxes * 5, lists, strict=True) for lease in leases]
        acked = await asyncio.gather(*(inbox.ack(lease) for inbox, lease in leases))

        assert [result.duplicate for result in appended].count(False) == 50
        assert acked == [True] * len({lease.id for _, lease in leases})
        left = await one.claim(50, lease=LEASE)
        assert len(left) + len(leases) == 50


async def test_an_inbox_does_not_listen_through_a_pooler(schema, pgbouncer, caplog):
    """The next client of that session would get the notifications."""
    caplog.set_level(logging.INFO)
    async with schema.inbox(schema.server.dsn(folder=pgbouncer)):
        async with asyncio.timeout(DEADLINE):
            while "cannot LISTEN through a pooler" not in caplog.text:  # noqa: ASYNC110  # the log has no event
                await asyncio.sleep(POLL_SECONDS)


# --- server failures ------------------------------------------------------------------------------------


async def test_terminated_connections_are_replaced(schema, inbox):
    """No append fails for it."""
    await inbox.append(Delivery(b"1"))
    assert await schema.disconnect() >= 1

    await inbox.append(Delivery(b"2"))

    assert await bodies_of(inbox) == [b"1", b"2"]


async def test_connections_to_a_read_only_server_are_dropped(schema):
    """After a failover the same URL leads to the new primary."""
    name = f"db_{secrets.token_hex(4)}"
    await schema.fetchval(f"CREATE DATABASE {name}")
    async with schema.inbox(f"{schema.server.dsn(database=name)}&application_name={schema.name}") as inbox:
        await schema.fetchval(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        await schema.disconnect()
        with pytest.raises(InboxUnavailableError, match=r"is read-only .*: cannot execute"):
            await inbox.append(Delivery(b"1"))
        await schema.fetchval(f"ALTER DATABASE {name} SET default_transaction_read_only = off")

        await inbox.append(Delivery(b"2"))

        assert await bodies_of(inbox) == [b"2"]


async def test_an_append_is_retried_if_its_connection_is_terminated(schema, inbox):
    """Committed or not: the key identifies the repeat."""
    async with schema.admin() as other, other.transaction():
        await other.execute("LOCK TABLE deliveries")
        appending = asyncio.create_task(inbox.append(Delivery(b"body")))
        await schema.wait_until_blocked()
        await schema.disconnect()
        await schema.wait_until_blocked()

    await outcomes_of([appending])
    assert appending.exception() is None
    assert await bodies_of(inbox) == [b"body"]


async def test_without_deduplication_an_append_is_not_retried(schema):
    """A retry could store it twice, so the error is raised."""
    async with schema.inbox(dedupe_window=0) as inbox:
        async with schema.admin() as other, other.transaction():
            await other.execute("LOCK TABLE deliveries")
            *appending, gone = [asyncio.create_task(inbox.append(Delivery(b"body"))) for _ in range(3)]
            await schema.wait_until_blocked()
            gone.cancel()
            await schema.disconnect()
            outcomes = await outcomes_of(appending)

        assert {type(outcome) for outcome in outcomes} == {InboxUnavailableError}
        assert outcomes[0] is not outcomes[1]
        assert (await inbox.stats()).ready == 0


@asynccontextmanager
async def response_lost(
    schema: Schema, proxy: Proxy, lock: str = "SELECT FROM deliveries FOR UPDATE"
) -> AsyncIterator[None]:
    """Block the server until the end of the block, then lose the response to what it executes."""
    async with schema.admin() as other, other.transaction():
        await other.execute(lock)
        yield
        await schema.wait_until_blocked()
        proxy.fault = Fault.CUT_BEFORE_RESPONSE


SETTLEMENTS: dict[str, Callable[[Inbox, Lease], Awaitable[bool]]] = {
    "ack": lambda inbox, lease: inbox.ack(lease, event_key="key"),
    "nack": lambda inbox, lease: inbox.nack(lease, delay=NEVER),
    "release": lambda inbox, lease: inbox.release(lease),
    "dead_letter": lambda inbox, lease: inbox.dead_letter(lease, "why"),
}


@pytest.fixture
async def settle_without_response(schema: Schema) -> AsyncIterator[Callable[[str], Awaitable[tuple[Inbox, Lease]]]]:
    """Return a function that settles a delivery in an inbox that gets no response."""
    server = schema.server.folder / ".s.PGSQL.5432"
    async with run_proxy(server) as proxy, schema.inbox(schema.proxy_dsn(proxy.port)) as inbox:

        async def settle(operation: str) -> tuple[Inbox, Lease]:
            await inbox.append(Delivery(b"body"))
            lease = await lease_of(inbox)
            async with response_lost(schema, proxy):
                settling = asyncio.create_task(SETTLEMENTS[operation](inbox, lease))
            (outcome,) = await outcomes_of([settling])
            proxy.fault = None
            assert type(outcome) is InboxUnavailableError
            return inbox, lease

        yield settle


@pytest.mark.parametrize(
    ("operation", "state"), [("ack", "done"), ("nack", "delayed"), ("release", "ready"), ("dead_letter", "dead")]
)
async def test_a_settlement_without_a_response_succeeds_when_repeated(settle_without_response, operation, state):
    """Once, and only for the same operation."""
    inbox, lease = await settle_without_response(operation)

    results = [await SETTLEMENTS[operation](inbox, lease) for _ in range(2)]
    others = [await SETTLEMENTS[other](inbox, lease) for other in SETTLEMENTS if other != operation]
    entry = await inbox.get(lease.id)
    assert (results, others, entry.state, entry.attempt) == (
        [True, False],
        [False] * 3,
        state,
        1 + (operation == "nack"),
    )


async def test_a_repeated_settlement_does_not_affect_the_next_lease(settle_without_response):
    """The delivery was released, though the response was lost."""
    inbox, lease = await settle_without_response("release")
    other = await lease_of(inbox)

    assert (await inbox.release(lease), await inbox.ack(other)) == (False, True)


async def test_the_leases_of_a_claim_without_a_response_are_returned(schema):
    """They have no worker: their deliveries do not wait until they expire, and no crash is counted."""
    server = schema.server.folder / ".s.PGSQL.5432"
    async with run_proxy(server) as proxy, schema.inbox(schema.proxy_dsn(proxy.port)) as inbox:
        # The statement is prepared with its first execution.
        await inbox.claim(1, lease=LEASE)
        await inbox.append(Delivery(b"body"))
        async with response_lost(schema, proxy, "LOCK TABLE deliveries"):
            claiming = asyncio.create_task(inbox.claim(1, lease=NEVER))
        (outcome,) = await outcomes_of([claiming])
        proxy.fault = None
        assert type(outcome) is InboxUnavailableError
        await schema.wait_until("(SELECT state FROM deliveries) = 1")

        lease = await lease_of(inbox)
        assert (lease.delivery.body, lease.crashes) == (b"body", 0)
        assert (await inbox.claim(1, lease=LEASE), await inbox.ack(lease)) == ([], True)


async def test_conflicts_are_retried_five_times(schema):
    """Then the error is raised."""
    pool = PostgresPool(schema.dsn(), timeout=DEADLINE)
    attempts = []

    async def clash(connection: object) -> None:
        attempts.append(connection)
        raise asyncpg.SerializationError("could not serialize access")

    await pool.open()
    with pytest.raises(InboxUnavailableError, match="could not serialize access"):
        await pool.run(clash)
    await pool.close()

    assert len(attempts) == 5


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (
            "postgresql://unknown:SECRET@/postgres?host={folder}",
            "^PostgreSQL at {folder} rejected the login: password authentication failed",
        ),
        (
            "postgresql://postgres:{password}@/SECRETS?host={folder}",
            "^PostgreSQL at {folder} does not have this database: database .* does not exist",
        ),
        (
            "postgresql://postgres:SECRET@/postgres?host={folder}/nowhere",
            "^PostgreSQL at {folder}/nowhere is unavailable: there is no socket at this path",
        ),
        (
            "postgresql://postgres:SECRET@127.0.0.1:1/postgres",
            "^PostgreSQL at 127.0.0.1:1 is unavailable: connection refused$",
        ),
        (
            "postgresql://postgres:SECRET@nowhere.invalid/postgres",
            "^PostgreSQL at nowhere.invalid:5432 is unavailable: unknown host: the name cannot be resolved",
        ),
        (
            "postgresql://postgres:SECRET@no..where/postgres",
            "^PostgreSQL at no..where:5432 is unavailable: unknown host: the name is invalid$",
        ),
        (
            "postgresql://postgres:SECRET@127.0.0.1:1/postgres?sslmode=on",
            "^PostgreSQL at 127.0.0.1:1 cannot be used with these settings: `sslmode` parameter must be one of",
        ),
        (
            "postgresql://postgres:SECRET@/postgres?host=127.0.0.1&port=no-port",
            "driver rejected a value or the URL",
        ),
    ],
)
async def test_an_error_about_the_url_hides_its_password(schema, url, message):
    """In the message and in its causes."""
    folder = schema.server.folder
    url = url.format(folder=folder, password=PASSWORD)

    with pytest.raises(InboxError, match=message.format(folder=folder)) as raised:
        await schema.inbox(url).__aenter__()

    printed = "".join(traceback.format_exception(raised.value))
    lines = [line for line in printed.splitlines() if "SECRET" in line and "SECRETS" not in line]
    assert (lines, PASSWORD in printed) == ([], False)


async def test_too_many_connections_are_named(schema):
    """The limit of the role has the same error as max_connections."""
    role = f"role_{secrets.token_hex(4)}"
    await schema.fetchval(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}' CONNECTION LIMIT 0")

    with pytest.raises(InboxUnavailableError, match=r"^PostgreSQL at .* accepts no more connections: too many conn"):
        await schema.inbox(schema.dsn().replace("//postgres:", f"//{role}:")).__aenter__()


async def test_a_server_without_tls_is_named(schema):
    """If the address requires TLS."""
    async with run_proxy(schema.server.folder / ".s.PGSQL.5432") as proxy:
        with pytest.raises(InboxUnavailableError, match=rf"127\.0\.0\.1:{proxy.port} is unavailable: .*rejected SSL"):
            await schema.inbox(f"{schema.proxy_dsn(proxy.port)}&sslmode=require").__aenter__()


async def test_a_certificate_that_is_not_trusted_is_named(tmp_path):
    """With the reason of the verification."""
    certificate, other = trustme.CA(), trustme.CA()
    other.cert_pem.write_to_path(root := tmp_path / "root.crt")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.issue_cert("127.0.0.1").configure_cert(context)

    async def upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError), contextlib.closing(writer):
            await reader.readexactly(8)
            writer.write(b"S")
            await writer.start_tls(context)

    async with await asyncio.start_server(upgrade, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        url = f"postgresql://me:secret@127.0.0.1:{port}/db?sslmode=verify-full&sslrootcert={root}"
        with pytest.raises(
            InboxUnavailableError,
            match=rf"^PostgreSQL at 127\.0\.0\.1:{port} is unavailable: TLS failed: the server's certificate is",
        ):
            await PostgresInbox(url).__aenter__()


async def test_an_error_does_not_quote_the_values(inbox):
    """A delivery is personal data."""
    beyond = datetime.max.replace(tzinfo=timezone(timedelta(hours=-12)))

    with pytest.raises(InboxError) as raised:
        await inbox.append(Delivery(b"a secret", "a secret", received_at=beyond))
    assert "secret" not in "".join(traceback.format_exception(raised.value)).replace('"a secret"', "")


async def test_an_error_does_not_quote_the_servers_message_about_values(schema, inbox):
    """The server's message contains the row."""
    await schema.fetchval("ALTER TABLE deliveries ADD CHECK (body <> 'a secret')")

    with pytest.raises(InboxError, match=r"^PostgreSQL at .* rejected the statement: CheckViolationError$") as raised:
        await inbox.append(Delivery(b"a secret"))
    assert type(raised.value) is InboxError
    assert raised.value.__cause__ is None


@contextmanager
def frozen_server(schema: Schema, inbox: PostgresInbox) -> Iterator[None]:
    """Freeze the server; the open inbox has a timeout of one second meanwhile."""
    inbox._pool._timeout = 1
    schema.server.freeze()
    try:
        yield
    finally:
        schema.server.thaw()
        inbox._pool._timeout = DEADLINE


async def test_operations_time_out_on_an_unresponsive_server(schema):
    """They succeed again once the server responds."""
    async with asyncio.timeout(3 * DEADLINE), schema.inbox() as inbox:
        await inbox.append(Delivery(b"1"))
        with frozen_server(schema, inbox):
            with pytest.raises(InboxUnavailableError, match="no response within 1 s"):
                await inbox.append(Delivery(b"2"))
            with pytest.raises(InboxUnavailableError, match="no response within 1 s"):
                await inbox.claim(1, lease=LEASE)

        await inbox.append(Delivery(b"3"))
        assert {b"1", b"3"} <= set(await bodies_of(inbox))


async def test_a_timeout_ends_the_idle_connections_too(schema):
    """They lead to the same lost server: each would cost the time of another operation."""
    socket = schema.server.folder / ".s.PGSQL.5432"
    async with run_proxy(socket) as proxy, schema.inbox(schema.proxy_dsn(proxy.port)) as inbox:
        await asyncio.gather(*(inbox.stats() for _ in range(4)))
        proxy.lose_connections()
        inbox._pool._timeout = 1.0
        with pytest.raises(InboxUnavailableError, match="no response within 1 s"):
            await inbox.stats()

        inbox._pool._timeout = 10 * DEADLINE
        async with asyncio.timeout(DEADLINE):
            await asyncio.gather(*(inbox.stats() for _ in range(4)))


async def test_closing_is_bounded_on_an_unresponsive_server(schema):
    """Pending appends fail first."""
    inbox = await schema.inbox().__aenter__()
    await inbox.append(Delivery(b"1"))
    with frozen_server(schema, inbox):
        appending = asyncio.create_task(inbox.append(Delivery(b"2")))
        await asyncio.sleep(0)
        async with asyncio.timeout(3 * DEADLINE):
            await inbox.__aexit__(None, None, None)

    assert isinstance(appending.exception(), InboxUnavailableError)


async def test_closing_waits_for_pending_appends(schema):
    """Each caller gets its result."""
    async with schema.inbox() as inbox:
        appending = asyncio.create_task(inbox.append(Delivery(b"body")))
        await asyncio.sleep(0)

    assert not appending.result().duplicate


async def test_closing_waits_for_pending_acks(schema):
    """Each caller gets its result."""
    async with schema.inbox() as inbox:
        acking = [asyncio.create_task(inbox.ack(lease)) for lease in await leases_of(inbox, 2)]
        await asyncio.sleep(0)

    assert [task.result() for task in acking] == [True, True]


async def test_opening_times_out_on_a_server_that_never_responds(tmp_path):
    """It accepts the connection and sends nothing."""
    writers: list[asyncio.StreamWriter] = []

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    async with asyncio.timeout(DEADLINE):
        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(InboxUnavailableError, match=r"no response within 0\.2 s"):
            await PostgresInbox(f"postgresql://me:secret@127.0.0.1:{port}/db", timeout=0.2).__aenter__()
        server.close()
        for writer in writers:
            writer.close()
        await server.wait_closed()
