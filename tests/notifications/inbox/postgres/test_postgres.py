"""What only an inbox in PostgreSQL has: a server that may be away, other hosts, and what stands between them."""

import asyncio
import importlib
import logging
import secrets
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from attrs import frozen
from engines.pgbouncer import running_pgbouncer
from engines.postgres import PASSWORD, PostgresServer
from engines.proxy import Fault, Proxy, proxying
from notifications.inbox.suite import DEADLINE, LEASE, ODD_TEXTS, all_entries, bodies_of, lease_of

from callfire_async.errors import InboxError, InboxUnavailableError
from callfire_async.notifications.inbox import Delivery, Inbox, Lease
from callfire_async.notifications.inbox import postgres as module
from callfire_async.notifications.inbox.postgres import PostgresInbox
from callfire_async.notifications.inbox.postgres import _notify as _postgres_hints
from callfire_async.notifications.inbox.postgres import _pool as _postgres_pool
from callfire_async.notifications.inbox.postgres._pool import PostgresPool

NEVER = 3600.0
POLL_SECONDS = 0.01
LATER = datetime.now(UTC) + timedelta(days=3650)


@frozen
class Place:
    """A schema of a test's own, and who is connected for its sake."""

    server: PostgresServer
    schema: str

    def dsn(self, **settings: str) -> str:
        asked = "".join(f"&{name}={value}" for name, value in settings.items())
        return f"{self.server.dsn()}&application_name={self.schema}{asked}"

    def through(self, port: int) -> str:
        """Return where to connect by way of a port of loopback."""
        return f"postgresql://postgres:{PASSWORD}@127.0.0.1:{port}/postgres?application_name={self.schema}"

    def inbox(self, dsn: str | None = None, **options: Any) -> PostgresInbox:
        return PostgresInbox(dsn or self.dsn(), schema=self.schema, **options)

    @asynccontextmanager
    async def administrator(self) -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(self.server.dsn(), server_settings={"search_path": self.schema})
        try:
            yield connection
        finally:
            await connection.close()

    async def ask(self, statement: str, *arguments: object) -> Any:
        async with self.administrator() as connection:
            return await connection.fetchval(statement, *arguments)

    async def disconnect(self) -> int:
        """Cut off all who are connected for this place; return how many."""
        others = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = $1"
        return await self.ask(others, self.schema)

    async def until(self, holds: str, *arguments: object) -> None:
        """Wait until what is asked for is true."""
        async with asyncio.timeout(DEADLINE):
            while not await self.ask(f"SELECT {holds}", *arguments):  # noqa: ASYNC110  # the server's doing
                await asyncio.sleep(POLL_SECONDS)

    async def until_listening(self, hosts: int = 1) -> None:
        # That is what a connection for hints is asked once it listens.
        listening = "FROM pg_stat_activity WHERE application_name = $1 AND query = 'SELECT 1' AND state = 'idle'"
        await self.until(f"(SELECT count(*) {listening}) = $2", self.schema, hosts)

    async def until_blocked(self, count: int = 1) -> None:
        blocked = "FROM pg_stat_activity WHERE application_name = $1 AND wait_event_type = 'Lock'"
        await self.until(f"(SELECT count(*) {blocked}) >= $2", self.schema, count)


@pytest.fixture
def place(postgres: PostgresServer) -> Place:
    return Place(postgres, f"test_{secrets.token_hex(8)}")


@pytest.fixture
async def inbox(place: Place) -> AsyncIterator[PostgresInbox]:
    async with place.inbox() as inbox:
        yield inbox


@pytest.fixture
def only_hints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody look for work by himself."""
    monkeypatch.setattr(module, "_POLL_SECONDS", NEVER)
    monkeypatch.setattr(_postgres_hints, "_AGAIN_SECONDS", 0.01)


async def settled(tasks: list[asyncio.Task[Any]]) -> list[Any]:
    async with asyncio.timeout(DEADLINE):
        return await asyncio.gather(*tasks, return_exceptions=True)


# --- making one -------------------------------------------------------------------------------------------


def test_without_the_driver_the_extra_is_named(monkeypatch):
    """Whoever forgot it reads what to install."""
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    monkeypatch.delitem(sys.modules, _postgres_pool.__name__)

    with pytest.raises(ImportError, match=r"pip install 'callfire-async\[postgres\]'"):
        importlib.import_module(_postgres_pool.__name__)


@pytest.mark.parametrize("name", ["", "9lives", "Callfire", "a b", "a;b", 'a"b', "x" * 41])
def test_a_name_that_needs_quotes_is_refused(name):
    """It would have to be quoted by everybody who looks at the tables too."""
    with pytest.raises(ValueError, match="schema must be"):
        PostgresInbox("postgresql:///", schema=name)


def test_its_retention_is_told():
    """Whoever looks for what was missed asks how far back it knows."""
    assert PostgresInbox("postgresql:///", retention=5.0).retention == 5.0


async def test_it_must_be_open(place):
    """And says so."""
    inbox = place.inbox()
    with pytest.raises(InboxError, match="not open"):
        await inbox.append(Delivery(b"body"))
    async with inbox:
        pass
    with pytest.raises(InboxError, match="not open"):
        await inbox.stats()


async def test_hosts_that_start_at_once_make_the_tables_once(place):
    """Whoever comes second waits, and finds them."""
    async with AsyncExitStack() as stack:
        inboxes = [place.inbox() for _ in range(8)]
        await asyncio.gather(*(stack.enter_async_context(inbox) for inbox in inboxes))
        for inbox in inboxes:
            await inbox.append(Delivery(b"same"))

        assert (await inboxes[0].stats()).ready == 1
        assert await place.ask("SELECT count(*) FROM inbox_version") == 1


async def test_tables_of_a_later_version_are_left_alone(place, inbox):
    """An old host does not guess what they mean."""
    await place.ask("UPDATE inbox_version SET version = 99")

    with pytest.raises(InboxError, match=rf"{place.schema} was made by a later version .* \(schema 99\)"):
        await place.inbox().__aenter__()


async def test_who_may_make_no_schema_may_be_given_one(place):
    """The right to make tables in it is enough."""
    role = f"role_{secrets.token_hex(4)}"
    await place.ask(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
    await place.ask(f"CREATE SCHEMA {place.schema} AUTHORIZATION {role}")

    async with place.inbox(place.dsn().replace("//postgres:", f"//{role}:")) as inbox:
        await inbox.append(Delivery(b"body"))
        assert await bodies_of(inbox) == [b"body"]


async def test_a_schema_that_cannot_be_made_is_an_error_of_ours(place):
    """What is missing is a right."""
    role = f"role_{secrets.token_hex(4)}"
    await place.ask(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")

    with pytest.raises(InboxError, match="permission denied for database"):
        await place.inbox(place.dsn().replace("//postgres:", f"//{role}:")).__aenter__()


# --- what a server must promise ---------------------------------------------------------------------------


async def test_a_server_that_commits_before_it_writes_is_refused(place):
    """What was acknowledged would end with its power; the message says how to mend that."""
    with pytest.raises(InboxError, match=r"off is synchronous_commit; switch it on .* allow_lossy_commits=True"):
        await place.inbox(place.dsn(synchronous_commit="off")).__aenter__()


async def test_a_server_that_may_lose_commits_can_be_allowed(place, caplog):
    """Said aloud, and logged."""
    async with place.inbox(place.dsn(synchronous_commit="off"), allow_lossy_commits=True) as inbox:
        await inbox.append(Delivery(b"body"))

    assert [record.levelno for record in caplog.records if "synchronous_commit" in record.message] == [logging.WARNING]


@pytest.fixture
async def configured(place: Place) -> AsyncIterator[Callable[[str], Awaitable[None]]]:
    """Return what switches a setting of the server off; on again in the end."""
    switched = []

    async def switch(setting: str, value: str) -> None:
        await place.ask(f"ALTER SYSTEM SET {setting} = {value}")
        await place.ask("SELECT pg_reload_conf()")
        await place.until("current_setting($1) = $2", setting, value)

    async def switch_off(setting: str) -> None:
        switched.append(setting)
        await switch(setting, "off")

    yield switch_off
    for setting in switched:
        await switch(setting, "on")


async def test_a_server_that_never_syncs_is_refused(place, configured):
    """Whatever it says of its commits."""
    await configured("fsync")

    with pytest.raises(InboxError, match="off is fsync"):
        await place.inbox().__aenter__()


async def test_a_server_that_relies_on_its_disk_is_warned_of(place, configured, caplog):
    """There are disks and file systems that never leave half a page."""
    await configured("full_page_writes")

    async with place.inbox():
        assert "off is full_page_writes" in caplog.text


# --- taking in --------------------------------------------------------------------------------------------


async def test_many_at_once_share_a_commit(place, inbox):
    """Each knows its own delivery, and only its own."""
    appended = await asyncio.gather(*(inbox.append(Delivery(b"%d" % number)) for number in range(64)))

    assert await place.ask("SELECT count(DISTINCT xmin::text) FROM deliveries") <= 2
    bodies = {entry.id: entry.delivery.body for entry in await all_entries(inbox)}
    assert [bodies[one.id] for one in appended] == [b"%d" % number for number in range(64)]


async def test_a_group_has_its_limits(place, inbox):
    """Of many large ones some wait for the next commit, lest all wait long."""
    large = bytes(3 * 1024 * 1024)
    await asyncio.gather(*(inbox.append(Delivery(large, key=str(number))) for number in range(4)))

    assert await place.ask("SELECT count(DISTINCT xmin::text) FROM deliveries") == 4


async def test_what_cannot_be_kept_fails_alone(inbox):
    """A moment beyond all calendars, say; what comes with it is kept, in one commit or in several."""
    beyond = datetime.max.replace(tzinfo=timezone(timedelta(hours=-12)))
    bodies = [b"1", b"2", b"3"]
    deliveries = [*map(Delivery, bodies), Delivery(b"beyond", received_at=beyond)]

    outcomes = await asyncio.gather(*map(inbox.append, deliveries), return_exceptions=True)

    assert isinstance(outcomes.pop(), InboxError)
    assert await bodies_of(inbox) == bodies
    assert [outcome.duplicate for outcome in outcomes] == [False] * 3


async def test_hosts_that_bring_the_same_at_once_bring_it_once(place):
    """Whichever comes first; none waits for ever for another."""
    keys = [str(number) for number in range(40)]
    async with place.inbox() as one, place.inbox() as two, place.inbox() as three:
        lists = await asyncio.gather(
            one.append_many([Delivery(b"1", key=key) for key in keys]),
            two.append_many([Delivery(b"2", key=key) for key in reversed(keys)]),
            *(three.append(Delivery(b"3", key=key)) for key in keys),
        )
        both, backwards, each = lists[0], lists[1][::-1], lists[2:]

        assert [one.id for one in both] == [one.id for one in backwards] == [one.id for one in each]
        news = [[one.duplicate for one in three].count(False) for three in zip(both, backwards, each, strict=True)]
        assert news == [1] * 40
        assert (await one.stats()).ready == 40


async def test_a_repeat_of_what_another_host_is_about_to_keep_waits_for_it(place):
    """Though its own snapshot is older than what the other has committed, and its isolation a strict one."""
    async with place.inbox(place.dsn(default_transaction_isolation="repeatable%20read")) as inbox:
        async with place.administrator() as other:
            change = other.transaction()
            await change.start()
            await other.execute(
                "WITH new AS (INSERT INTO deliveries (id, key, body, received_at, due_at, updated_at)"
                " VALUES (nextval('delivery_ids'), 'key', 'other', now(), now(), now()) RETURNING id)"
                " INSERT INTO delivery_keys SELECT sha256('key'), id, now() FROM new"
            )
            appending = asyncio.create_task(inbox.append(Delivery(b"own", key="key")))
            await place.until_blocked()
            await change.commit()

        assert (await appending).duplicate
        assert await bodies_of(inbox) == [b"other"]


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
async def test_a_database_of_few_letters_keeps_any_text(place, encoding):
    """A stranger's letters must not cost us the body."""
    name = f"db_{secrets.token_hex(4)}"
    await place.ask(f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0")

    async with place.inbox(place.server.dsn(database=name)) as inbox:
        for text in ODD_TEXTS.values():
            await inbox.append(Delivery(b"body", text, key=text))

        kept = [entry.delivery for entry in await all_entries(inbox)]
        assert [one.content_type for one in kept] == [one.key for one in kept] == list(ODD_TEXTS.values())


async def test_an_append_that_is_cancelled_leaves_the_others_as_they_are(place, inbox):
    """Whether it is under way or waits; and what others brought is kept."""
    async with place.administrator() as other, other.transaction():
        await other.execute("LOCK TABLE deliveries")
        first, under_way = [asyncio.create_task(inbox.append(Delivery(body))) for body in (b"1", b"2")]
        await place.until_blocked()
        waiting, second = [asyncio.create_task(inbox.append(Delivery(body))) for body in (b"3", b"4")]
        await asyncio.sleep(0)
        for task in (under_way, waiting):
            task.cancel()
        await settled([under_way, waiting])

    outcomes = await settled([first, second])
    assert [outcome.duplicate for outcome in outcomes] == [False, False]
    assert {b"1", b"4"} <= set(await bodies_of(inbox))


async def test_who_is_cancelled_leaves_no_connection_behind(place, inbox):
    """However often."""
    async with place.administrator() as other, other.transaction():
        await other.execute("LOCK TABLE deliveries")
        for _ in range(3):
            claiming = [asyncio.create_task(inbox.claim(1, lease=LEASE)) for _ in range(10)]
            await place.until_blocked()
            for task in claiming:
                task.cancel()
            await settled(claiming)

    async with asyncio.timeout(DEADLINE):
        await inbox.append(Delivery(b"body"))
        assert await bodies_of(inbox) == [b"body"]


# --- other hosts ------------------------------------------------------------------------------------------


async def test_a_lease_outlives_its_host_until_it_ends(place):
    """Another host has it then, and the crash is counted."""
    async with place.inbox() as gone:
        await gone.append(Delivery(b"body"))
        await lease_of(gone, lease=0.01)

    async with place.inbox() as other, asyncio.timeout(DEADLINE):
        while not (leases := await other.claim(1, lease=LEASE)):
            await other.wait(LEASE)
        assert [(lease.delivery.body, lease.crashes, lease.attempt) for lease in leases] == [(b"body", 1, 1)]


async def test_hosts_share_what_there_is(place):
    """Nothing is handed to two of them."""
    async with place.inbox() as one, place.inbox() as two:
        await one.append_many([Delivery(b"%d" % number) for number in range(60)])

        lists = await asyncio.gather(*(inbox.claim(7, lease=LEASE) for inbox in (one, two) * 6))

        ids = [lease.id for leases in lists for lease in leases]
        left = [lease.id for lease in await one.claim(100, lease=LEASE)]
        assert sorted(ids + left) == sorted({*ids, *left})
        assert len(ids + left) == 60


@pytest.mark.parametrize("cause", ["append", "nack", "release", "replay"])
async def test_a_host_hears_of_work_that_another_has(place, only_hints, cause):
    """It need not look for it."""
    async with place.inbox() as one, place.inbox() as two:
        await place.until_listening(2)
        await one.append_many([Delivery(b"dead"), Delivery(b"leased")])
        buried, lease = await one.claim(2, lease=LEASE)
        await one.dead_letter(buried, "because")
        waiting = asyncio.create_task(two.wait(NEVER))
        causes = {
            "append": lambda: one.append(Delivery(b"new")),
            "nack": lambda: one.nack(lease, delay=0),
            "release": lambda: one.release(lease),
            "replay": one.replay,
        }

        await causes[cause]()

        assert await settled([waiting]) == [None]


@pytest.mark.usefixtures("only_hints")
def test_a_host_tells_others_in_whichever_event_loop_it_is_opened(place):
    """A server is started once for each test of an application."""
    inbox = place.inbox()

    async def tell(body: bytes) -> None:
        async with inbox, place.inbox() as other:
            await place.until_listening(2)
            waiting = asyncio.create_task(other.wait(NEVER))
            await inbox.append(Delivery(body))
            assert await settled([waiting]) == [None]
            await inbox.ack(await lease_of(inbox))

    for body in (b"1", b"2"):
        asyncio.run(tell(body))


@pytest.mark.usefixtures("only_hints")
async def test_a_connection_for_hints_that_breaks_is_made_again(place):
    """What was missed meanwhile is looked for."""
    async with place.inbox() as one, place.inbox() as two:
        await place.until_listening(2)
        waiting = asyncio.create_task(two.wait(NEVER))
        await asyncio.sleep(0)
        await two.stats()

        await place.disconnect()

        assert await settled([waiting]) == [None]
        await place.until_listening(2)
        again = asyncio.create_task(two.wait(NEVER))
        await one.append(Delivery(b"new"))
        assert await settled([again]) == [None]


class AwayAtFirst:
    """A database that cannot be reached at once."""

    def __init__(self) -> None:
        self.asked = 0

    @asynccontextmanager
    async def own_connection(self) -> AsyncIterator[None]:
        self.asked += 1
        if self.asked == 1:
            raise OSError(PASSWORD)
        yield None


@pytest.mark.usefixtures("only_hints")
async def test_hints_are_asked_for_again_where_the_server_was_away(caplog):
    """What failed is logged by its type."""
    caplog.set_level(logging.INFO, "callfire_async")
    hints = _postgres_hints.WorkNotifier(AwayAtFirst(), "channel", lambda: None)

    hints.start()
    async with asyncio.timeout(DEADLINE):
        while "through a pooler" not in caplog.text:  # noqa: ASYNC110  # a task's doing
            await asyncio.sleep(POLL_SECONDS)
    await hints.stop()

    assert "cannot be heard for now (OSError)" in caplog.text
    assert PASSWORD not in caplog.text


class FailsOnce(AwayAtFirst):
    """A database whose driver raises, once, what nobody has thought of."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._errors = [error]
        self.told = asyncio.Event()

    async def fetch(self, statement: str, *arguments: object) -> None:
        if self._errors:
            raise self._errors.pop()
        self.told.set()


@pytest.mark.usefixtures("only_hints")
@pytest.mark.parametrize("error", [InboxUnavailableError("gone"), KeyError(PASSWORD)])
async def test_hints_are_told_again_after_an_error(caplog, error):
    """Whatever it was, it is logged by its type."""
    caplog.set_level(logging.INFO, "callfire_async")
    database = FailsOnce(error)
    hints = _postgres_hints.WorkNotifier(database, "channel", lambda: None)

    hints.start()
    async with asyncio.timeout(DEADLINE):
        while not database.told.is_set():
            hints.tell()
            await asyncio.sleep(POLL_SECONDS)
    await hints.stop()

    assert f"hints cannot be told for now ({type(error).__name__})" in caplog.messages
    assert PASSWORD not in caplog.text


@pytest.mark.usefixtures("only_hints")
async def test_a_connection_for_hints_is_looked_at(place, monkeypatch):
    """The other end may be gone without a word."""
    monkeypatch.setattr(_postgres_hints, "_LOOK_SECONDS", 0.01)
    async with place.inbox():
        asked = "(SELECT max(query_start) FROM pg_stat_activity WHERE application_name = $1 AND query = 'SELECT 1')"
        await place.until_listening()
        before = await place.ask(f"SELECT {asked}", place.schema)
        await place.until(f"{asked} > $2", place.schema, before)


async def test_a_pool_with_a_single_connection_has_none_to_spare_for_hints(place, caplog):
    """What another host has is found all the same."""
    caplog.set_level(logging.INFO)
    single = asyncpg.create_pool(place.dsn(), min_size=1, max_size=1)
    async with single as pool, place.inbox() as one, place.inbox(pool) as two:
        waiting = asyncio.create_task(two.wait(NEVER))
        await one.append(Delivery(b"new"))

        assert await settled([waiting]) == [None]
        assert "with a single connection" in caplog.text


async def test_work_is_looked_for_again_and_again(place, monkeypatch):
    """A hint may be lost."""
    monkeypatch.setattr(module, "_POLL_SECONDS", 0.01)
    asked = "(SELECT max(query_start) FROM pg_stat_activity WHERE application_name = $1 AND query LIKE '%min(due_at)%')"
    async with place.inbox() as inbox:
        await place.until_listening()
        waiting = asyncio.create_task(inbox.wait(NEVER))
        await place.until(f"{asked} IS NOT NULL", place.schema)
        # To ask once is to have it read, and then to have it done.
        for _ in range(4):
            before = await place.ask(f"SELECT {asked}", place.schema)
            await place.until(f"{asked} > $2", place.schema, before)
        columns = "id, key, body, received_at, due_at, updated_at"
        await place.ask(f"INSERT INTO deliveries ({columns}) VALUES (1, 'key', '', now(), now(), now())")

        assert await settled([waiting]) == [None]


@pytest.mark.usefixtures("only_hints")
async def test_a_pool_of_the_callers_own_is_used_and_left_open(place):
    """With all that the caller has set; one of its connections is for hints meanwhile."""
    async with asyncpg.create_pool(place.dsn(), min_size=1, max_size=3) as pool:
        async with place.inbox(pool) as inbox:
            await place.until_listening()
            await inbox.append(Delivery(b"body"))
            assert await bodies_of(inbox) == [b"body"]

        assert await pool.fetchval("SELECT 'open'") == "open"


async def test_many_are_purged_in_parts(place, inbox):
    """None of which takes long; their keys go with them."""
    await inbox.append_many([Delivery(b"%d" % number) for number in range(1001)])
    await place.ask("UPDATE deliveries SET state = 3")

    assert await inbox.purge(dead_before=LATER) == 1001
    assert await place.ask("SELECT count(*) FROM delivery_keys") == 0


async def test_there_is_no_entry_in_a_state_that_there_is_not(inbox):
    """As in every inbox."""
    await inbox.append(Delivery(b"body"))

    assert await all_entries(inbox, "lost") == []


# --- behind a pooler --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pgbouncer(postgres: PostgresServer) -> Iterator[Path]:
    with running_pgbouncer(postgres) as folder:
        yield folder


async def test_each_transaction_may_have_another_session(place, pgbouncer, monkeypatch):
    """Nothing is kept from one to the next, on either side; hosts are more than sessions, and some connect directly."""
    monkeypatch.setattr(module, "_POLL_SECONDS", 0.02)
    pooled = place.server.dsn(folder=pgbouncer)
    async with place.inbox(pooled) as one, place.inbox(pooled) as two, place.inbox() as three:
        inboxes = (one, two, three)
        waiting = [asyncio.create_task(inbox.wait(NEVER)) for inbox in inboxes]
        appends = [inbox.append(Delivery(b"%d" % number)) for inbox in inboxes for number in range(50)]
        appended = await asyncio.gather(*appends)
        await settled(waiting)
        lists = await asyncio.gather(*(inbox.claim(10, lease=LEASE) for inbox in inboxes * 5))
        leases = [(inbox, lease) for inbox, leases in zip(inboxes * 5, lists, strict=True) for lease in leases]
        acked = await asyncio.gather(*(inbox.ack(lease) for inbox, lease in leases))

        assert [one.duplicate for one in appended].count(False) == 50
        assert acked == [True] * len({lease.id for _, lease in leases})
        left = await one.claim(50, lease=LEASE)
        assert len(left) + len(leases) == 50


async def test_hints_are_not_asked_for_through_a_pooler(place, pgbouncer, caplog):
    """They would come to whoever has that session next."""
    caplog.set_level(logging.INFO)
    async with place.inbox(place.server.dsn(folder=pgbouncer)):
        async with asyncio.timeout(DEADLINE):
            while "cannot be heard through a pooler" not in caplog.text:  # noqa: ASYNC110  # another task's doing
                await asyncio.sleep(POLL_SECONDS)


# --- when the server fails --------------------------------------------------------------------------------


async def test_connections_that_were_cut_are_made_again(place, inbox):
    """Nobody who posts is refused for it."""
    await inbox.append(Delivery(b"1"))
    assert await place.disconnect() >= 1

    await inbox.append(Delivery(b"2"))

    assert await bodies_of(inbox) == [b"1", b"2"]


async def test_a_server_that_takes_no_more_writes_is_left_for_the_one_that_does(place):
    """Its connections stay when it becomes the copy of another; the address stands for that other one then."""
    name = f"db_{secrets.token_hex(4)}"
    await place.ask(f"CREATE DATABASE {name}")
    async with place.inbox(f"{place.server.dsn(database=name)}&application_name={place.schema}") as inbox:
        await place.ask(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        await place.disconnect()
        with pytest.raises(InboxUnavailableError, match="in a read-only transaction"):
            await inbox.append(Delivery(b"1"))
        await place.ask(f"ALTER DATABASE {name} SET default_transaction_read_only = off")

        await inbox.append(Delivery(b"2"))

        assert await bodies_of(inbox) == [b"2"]


async def test_an_append_whose_connection_is_cut_is_repeated(place, inbox):
    """Whether it was committed or not: a repeat is known by its key."""
    async with place.administrator() as other, other.transaction():
        await other.execute("LOCK TABLE deliveries")
        appending = asyncio.create_task(inbox.append(Delivery(b"body")))
        await place.until_blocked()
        await place.disconnect()
        await place.until_blocked()

    await settled([appending])
    assert appending.exception() is None
    assert await bodies_of(inbox) == [b"body"]


async def test_what_is_no_repeat_is_not_repeated(place):
    """Without a window nobody would know it again: whoever posted it is told to do so."""
    async with place.inbox(dedupe_window=0) as inbox:
        async with place.administrator() as other, other.transaction():
            await other.execute("LOCK TABLE deliveries")
            *appending, gone = [asyncio.create_task(inbox.append(Delivery(b"body"))) for _ in range(3)]
            await place.until_blocked()
            gone.cancel()
            await place.disconnect()
            outcomes = await settled(appending)

        assert {type(outcome) for outcome in outcomes} == {InboxUnavailableError}
        assert outcomes[0] is not outcomes[1]
        assert (await inbox.stats()).ready == 0


@asynccontextmanager
async def answer_lost(place: Place, proxy: Proxy) -> AsyncIterator[None]:
    """Let the server carry out what is blocked until then, and lose what it answers."""
    async with place.administrator() as other, other.transaction():
        await other.execute("SELECT FROM deliveries FOR UPDATE")
        yield
        await place.until_blocked()
        proxy.fault = Fault.CUT_BEFORE_ANSWER


SETTLING: dict[str, Callable[[Inbox, Lease], Awaitable[bool]]] = {
    "ack": lambda inbox, lease: inbox.ack(lease, event_key="key"),
    "nack": lambda inbox, lease: inbox.nack(lease, delay=NEVER),
    "release": lambda inbox, lease: inbox.release(lease),
    "dead_letter": lambda inbox, lease: inbox.dead_letter(lease, "why"),
}


@pytest.fixture
async def unanswered(place: Place) -> AsyncIterator[Callable[[str], Awaitable[tuple[Inbox, Lease]]]]:
    """Has a delivery settled, in one way or another, by an inbox that gets no answer."""
    server = place.server.folder / ".s.PGSQL.5432"
    async with proxying(server) as proxy, place.inbox(place.through(proxy.port)) as inbox:

        async def settle(how: str) -> tuple[Inbox, Lease]:
            await inbox.append(Delivery(b"body"))
            lease = await lease_of(inbox)
            async with answer_lost(place, proxy):
                settling = asyncio.create_task(SETTLING[how](inbox, lease))
            (outcome,) = await settled([settling])
            proxy.fault = None
            assert type(outcome) is InboxUnavailableError
            return inbox, lease

        yield settle


@pytest.mark.parametrize(
    ("how", "state"), [("ack", "done"), ("nack", "ready"), ("release", "ready"), ("dead_letter", "dead")]
)
async def test_what_was_settled_without_an_answer_is_settled(unanswered, how, state):
    """Whoever says so again is told that it is; once, and of that alone."""
    inbox, lease = await unanswered(how)

    answers = [await SETTLING[how](inbox, lease) for _ in range(2)]
    others = [await SETTLING[other](inbox, lease) for other in SETTLING if other != how]
    entry = await inbox.get(lease.id)
    assert (answers, others, entry.state, entry.attempt) == ([True, False], [False] * 3, state, 1 + (how == "nack"))


async def test_what_another_has_since_is_settled_no_more(unanswered):
    """It was put back, though nobody said so."""
    inbox, lease = await unanswered("release")
    other = await lease_of(inbox)

    assert (await inbox.release(lease), await inbox.ack(other)) == (False, True)


async def test_who_stands_in_anothers_way_gives_up_in_the_end(place):
    """A server may say so each time."""
    database = PostgresPool(place.dsn(), timeout=DEADLINE)
    attempts = []

    async def clash(connection: object) -> None:
        attempts.append(connection)
        raise asyncpg.SerializationError("could not serialize access")

    await database.open()
    with pytest.raises(InboxUnavailableError, match="could not serialize access"):
        await database.run(clash)
    await database.close()

    assert len(attempts) == 5


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("postgresql://somebody:SECRET@/postgres?host={folder}", "PostgreSQL cannot be used: password authentication"),
        ("postgresql://postgres:{password}@/SECRETS?host={folder}", "cannot be used: database .* does not exist"),
        ("postgresql://postgres:SECRET@/postgres?host={folder}/nowhere", "PostgreSQL cannot be used: "),
        ("postgresql://postgres:SECRET@127.0.0.1:1/postgres", "PostgreSQL cannot be used: "),
        ("postgresql://postgres:SECRET@host:no-port/postgres", "driver refuses this"),
        ("postgresql://postgres@[::1:SECRET/postgres", "driver refuses this"),
        ("https://postgres:SECRET@host/postgres", "driver refuses this"),
    ],
)
async def test_an_address_that_is_wrong_is_an_error_without_its_password(place, address, words):
    """Neither in the message nor in what stands behind it."""
    address = address.format(folder=place.server.folder, password=PASSWORD)

    with pytest.raises(InboxError, match=words) as raised:
        await place.inbox(address).__aenter__()

    printed = "".join(traceback.format_exception(raised.value))
    lines = [line for line in printed.splitlines() if "SECRET" in line and "SECRETS" not in line]
    assert (lines, PASSWORD in printed) == ([], False)


async def test_what_is_refused_is_not_quoted(inbox):
    """What was to be stored is personal."""
    beyond = datetime.max.replace(tzinfo=timezone(timedelta(hours=-12)))

    with pytest.raises(InboxError) as raised:
        await inbox.append(Delivery(b"a secret", "a secret", received_at=beyond))
    assert "secret" not in "".join(traceback.format_exception(raised.value)).replace('"a secret"', "")


async def test_what_the_server_refuses_is_not_quoted_either(place, inbox):
    """Its own words name the row."""
    await place.ask("ALTER TABLE deliveries ADD CHECK (body <> 'a secret')")

    with pytest.raises(InboxError, match="PostgreSQL refuses this: CheckViolationError") as raised:
        await inbox.append(Delivery(b"a secret"))
    assert type(raised.value) is InboxError
    assert raised.value.__cause__ is None


@contextmanager
def frozen_server(place: Place, inbox: PostgresInbox) -> Iterator[None]:
    """Stop the server in the middle of whatever it does; an inbox that is open waits for a second then."""
    inbox._database._timeout = 1
    place.server.freeze()
    try:
        yield
    finally:
        place.server.thaw()
        inbox._database._timeout = DEADLINE


async def test_a_server_that_falls_silent_is_not_waited_for(place):
    """Neither by who appends nor by who closes; when it speaks again, all goes on."""
    async with asyncio.timeout(3 * DEADLINE), place.inbox() as inbox:
        await inbox.append(Delivery(b"1"))
        with frozen_server(place, inbox):
            with pytest.raises(InboxUnavailableError, match="no answer within 1 s"):
                await inbox.append(Delivery(b"2"))
            with pytest.raises(InboxUnavailableError, match="no answer within 1 s"):
                await inbox.claim(1, lease=LEASE)

        await inbox.append(Delivery(b"3"))
        assert {b"1", b"3"} <= set(await bodies_of(inbox))


async def test_closing_does_not_wait_long_for_a_server_that_is_silent(place):
    """What was asked of it fails first."""
    inbox = await place.inbox().__aenter__()
    await inbox.append(Delivery(b"1"))
    with frozen_server(place, inbox):
        appending = asyncio.create_task(inbox.append(Delivery(b"2")))
        await asyncio.sleep(0)
        async with asyncio.timeout(3 * DEADLINE):
            await inbox.__aexit__(None, None, None)

    assert isinstance(appending.exception(), InboxUnavailableError)


async def test_closing_waits_for_what_was_appended(place):
    """Whoever appended it is told that it is kept."""
    async with place.inbox() as inbox:
        appending = asyncio.create_task(inbox.append(Delivery(b"body")))
        await asyncio.sleep(0)

    assert not appending.result().duplicate


async def test_what_never_answers_is_not_waited_for(tmp_path):
    """It takes the connection, and says nothing."""
    held: list[asyncio.StreamWriter] = []

    async def hold(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)

    async with asyncio.timeout(DEADLINE):
        server = await asyncio.start_server(hold, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(InboxUnavailableError, match=r"no answer within 0\.2 s"):
            await PostgresInbox(f"postgresql://me:secret@127.0.0.1:{port}/db", timeout=0.2).__aenter__()
        server.close()
        for writer in held:
            writer.close()
        await server.wait_closed()
