"""A URL with several hosts, of which some do not respond, refuse connections or are standbys."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from urllib.parse import quote

import asyncpg
import pytest
from engines.postgres import PASSWORD, PostgresServer
from notifications.inbox.postgres.schemas import Schema

from callfire_async.errors import InboxUnavailableError
from callfire_async.notifications.inbox import Delivery
from callfire_async.notifications.inbox.postgres import PostgresInbox, _hosts
from callfire_async.notifications.inbox.postgres._pool import PostgresPool
from callfire_async.notifications.inbox.postgres._source import list_hosts

# Enough for a connection on a busy machine.
TIMEOUT_SECONDS = 6.0


@pytest.fixture
def silent() -> Iterator[str]:
    """Return the address of a server that accepts connections and never responds."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def refusing() -> str:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


def real(postgres: PostgresServer) -> str:
    return quote(str(postgres.folder), safe="")


def url(*hosts: str, attributes: str = "any") -> str:
    return f"postgresql://postgres:{PASSWORD}@{','.join(hosts)}/postgres?target_session_attrs={attributes}"


def inbox_at(schema: Schema, *hosts: str, attributes: str = "any") -> PostgresInbox:
    return PostgresInbox(url(*hosts, attributes=attributes), schema=schema.name, timeout=TIMEOUT_SECONDS)


@pytest.mark.parametrize("attributes", ["any", "primary", "read-write"])
async def test_a_host_that_does_not_respond_is_skipped(schema, postgres, silent, attributes):
    """Like the machine of a lost primary, until it is replaced."""
    async with inbox_at(schema, silent, real(postgres), attributes=attributes) as inbox:
        assert not (await inbox.append(Delivery(b"body"))).duplicate


async def test_a_host_that_refuses_connections_is_skipped(schema, postgres, refusing):
    """At once."""
    async with inbox_at(schema, refusing, real(postgres)) as inbox:
        await inbox.append(Delivery(b"body"))


async def test_the_host_that_responded_last_is_tried_first(schema, postgres, silent, tried):
    """Once it is known, each further connection takes no longer than with a single host."""
    async with inbox_at(schema, silent, real(postgres)) as inbox:
        tried.clear()
        await asyncio.gather(*(inbox.get(1) for _ in range(8)))

    assert set(tried) == {str(postgres.folder)}


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the hosts that were tried."""
    tried: list[str] = []
    connect = _hosts._connect

    async def recorded(*arguments: object, host: list[str], **options: object) -> asyncpg.Connection:
        tried.extend(host)
        return await connect(*arguments, host=host, **options)

    monkeypatch.setattr(_hosts, "_connect", recorded)
    return tried


async def test_the_order_of_the_url_is_tried_again_if_the_host_is_read_only(postgres, refusing, tried):
    """The primary was unavailable when a standby responded, which would always be tried first from then on."""
    pool = PostgresPool(url(refusing, real(postgres)), timeout=TIMEOUT_SECONDS)
    async with contextlib.AsyncExitStack() as stack:
        await pool.open()
        stack.push_async_callback(pool.close)
        with pytest.raises(InboxUnavailableError, match="is read-only"):
            await pool.run(write_in_a_read_only_transaction)

    assert tried[:4] == ["127.0.0.1", str(postgres.folder)] * 2


async def write_in_a_read_only_transaction(connection: asyncpg.Connection) -> None:
    await connection.execute("BEGIN READ ONLY; CREATE TABLE never ()")


async def test_if_no_host_responds_the_error_says_so(schema, silent, refusing):
    """Within the timeout; a refusal is reported if it is the last one."""
    with pytest.raises(InboxUnavailableError, match="no response within 6 s"):
        async with inbox_at(schema, refusing, silent):
            pass
    with pytest.raises(InboxUnavailableError, match="connection refused"):
        async with inbox_at(schema, silent, refusing):
            pass


async def test_no_primary_among_the_hosts_is_an_error(schema, postgres):
    """It may be there soon, so the inbox is unavailable."""
    with pytest.raises(InboxUnavailableError):
        async with inbox_at(schema, real(postgres), real(postgres), attributes="standby"):
            pass


@pytest.mark.parametrize(
    ("source", "hosts"),
    [
        ("postgresql://h/d", []),
        ("postgresql://u:p@h:5433/d", []),
        ("postgresql:///d?host=h", []),
        ("postgresql://u:p@one,two:5433/d", [("one", 5432), ("two", 5433)]),
        ("postgresql://u:p@[::1]:5433,[::2]/d", [("::1", 5433), ("::2", 5432)]),
        ("postgresql://u:p@%2Frun%2Fpg,h/d", [("/run/pg", 5432), ("h", 5432)]),
        ("postgresql:///d?host=one,two:5433", [("one", 5432), ("two", 5433)]),
        ("postgresql:///d?host=one,two&port=5434", [("one", 5434), ("two", 5434)]),
        # A list of ports: asyncpg reads it.
        ("postgresql:///d?host=one,two&port=1,2", []),
        # The ports of Unix sockets, too.
        ("postgresql://u:p@%2Frun%2Fa:5433,%2Frun%2Fb:5434/d", []),
        ("postgresql://u:p@%2Frun%2Fa:5433,h/d", []),
    ],
)
def test_hosts_are_listed_if_there_are_several(monkeypatch, source, hosts):
    """With their ports, as asyncpg reads them."""
    monkeypatch.delenv("PGPORT", raising=False)

    assert list_hosts(source) == hosts


def test_the_default_port_is_that_of_the_environment(monkeypatch):
    """As with one host."""
    monkeypatch.setenv("PGPORT", "5499")

    assert list_hosts("postgresql://one,two:5433/d") == [("one", 5499), ("two", 5433)]
