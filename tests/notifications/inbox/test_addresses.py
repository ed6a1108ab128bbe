"""A wrong server address is refused when the inbox is created; the message says what is expected."""

import pathlib
import traceback

import asyncpg
import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import create_async_engine

from callfire_async.notifications.inbox.jetstream import JetStreamInbox
from callfire_async.notifications.inbox.jetstream._servers import ServerList
from callfire_async.notifications.inbox.postgres import PostgresInbox
from callfire_async.notifications.inbox.postgres._pool import PostgresPool

EXPECTED = r"^source must be postgresql://user:password@host/database, .*percent-encoded.*: "
PASSWORD = "s3same"


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (f"postgresql+asyncpg://u:{PASSWORD}@h/d", "names a driver, as SQLAlchemy's addresses do; write postgresql://"),
        (f"postgresql+psycopg://u:{PASSWORD}@h/d", "write postgresql://"),
        (f"postgresql+psycopg2://u:{PASSWORD}@h/d", "write postgresql://"),
        (f"postgres+asyncpg://u:{PASSWORD}@h/d", "write postgres://"),
        (f"mysql://u:{PASSWORD}@h/d", "mysql:// is not a supported scheme"),
        ("sqlite:///inbox.db", "sqlite:// is not a supported scheme"),
        ("sqlite+aiosqlite:///inbox.db", r"sqlite\+aiosqlite:// is not a supported scheme"),
        ("nats://h:4222", "nats:// is not a supported scheme"),
        (f"{PASSWORD}@x://h/d", "the scheme is invalid"),
        (f"host=h dbname=d password={PASSWORD}", "a string of keywords .* is not supported"),
        ("host=h", "'://' is missing; a string of keywords"),
        (f"u:{PASSWORD}@h/d", "'://' is missing"),
        ("callfire.db", "'://' is missing"),
        ("", "the address is empty"),
        (f"postgresql://u:{PASSWORD}#1@h/d", "'#' must be %23"),
        (f"postgresql://u:{PASSWORD}@1@h/d", "'@' in a user name or password must be %40"),
        (f"postgresql://u:{PASSWORD}/1@h/d", "'/' must be %2F"),
        (f"postgresql://u:12/{PASSWORD}@h/d", "'/' must be %2F"),
        (f"postgresql://u:{PASSWORD}?1@h/d", r"'\?' (must be )?%3F"),
        (f"postgresql://u:12?{PASSWORD}@h/d", r"'\?' (must be )?%3F"),
        (f"postgresql://u:{PASSWORD}%zz@h/d", "'%' must be %25"),
        (f"postgresql://u:{PASSWORD}%@h/d", "'%' must be %25"),
        (f"postgresql://u:{PASSWORD} 1@h/d", "a space is %20"),
        (f"postgresql://u:{PASSWORD}@h/d\n", "a line break"),
        (f" postgresql://u:{PASSWORD}@h/d", "a space"),
        (f"postgresql://u:{PASSWORD}[@h/d", "the host cannot be read"),
        (f"postgresql://u@[::1:{PASSWORD}/d", "the host cannot be read"),
        (f"postgresql://u:{PASSWORD}@h:no-port/d", "the host or port cannot be read"),
        (f"postgresql://u:{PASSWORD}@h:70000/d", "the host or port cannot be read"),
        (f"postgresql://u:{PASSWORD}@h:0/d", "the host or port cannot be read"),
        (f"postgresql://u:{PASSWORD}@/d", "the host is missing"),
        (f"postgresql://u:{PASSWORD}@h", "the database is missing"),
        (f"postgresql://u:{PASSWORD}@h/", "the database is missing"),
        (f"postgresql://u:{PASSWORD}@h/d?sslmode", "not name=value"),
    ],
)
def test_another_address_than_postgresqls_is_refused(monkeypatch, source, problem):
    """The message says what is expected and what is wrong, and has no password."""
    for name in ("PGHOST", "PGSERVICE", "PGDATABASE"):
        monkeypatch.delenv(name, raising=False)

    with pytest.raises(ValueError, match=EXPECTED + f".*{problem}") as raised:
        PostgresInbox(source)

    printed = "".join(traceback.format_exception_only(raised.value))
    assert (PASSWORD in printed, raised.value.__suppress_context__) == (False, True)


@pytest.mark.parametrize(
    ("source", "server"),
    [
        ("postgresql:///", "PostgreSQL at localhost:5432"),
        ("postgresql://", "PostgreSQL at localhost:5432"),
        ("postgresql://h/d", "PostgreSQL at h:5432"),
        ("PostgreSQL://h/d", "PostgreSQL at h:5432"),
        ("postgres://u@h:5433/d", "PostgreSQL at h:5433"),
        ("postgres://u@h:/d", "PostgreSQL at h:5432"),
        ("postgresql://u:p%23%40%2F%3F%25%20@h/d", "PostgreSQL at h:5432"),
        ("postgresql://u:a:b@h/d?sslmode=verify-full", "PostgreSQL at h:5432"),
        ("postgresql://h/d?user=me@azure&password=p", "PostgreSQL at h:5432"),
        ("postgresql://u:p@one,two:5433/d?target_session_attrs=read-write", "PostgreSQL at one:5432, two:5433"),
        ("postgresql://u:p@[::1]:5433,[::2]/d", "PostgreSQL at [::1]:5433, [::2]:5432"),
        ("postgresql://u:p@/d?host=/run/pg&port=5433", "PostgreSQL at /run/pg"),
        ("postgresql://u:p@%2Frun%2Fpg/d", "PostgreSQL at /run/pg"),
        ("postgresql://u:p@h?dbname=d", "PostgreSQL at h:5432"),
        ("postgresql://u:p@/?host=h&database=d&port=6432", "PostgreSQL at h:6432"),
        ("postgresql:///?service=callfire", "PostgreSQL at localhost:5432"),
    ],
)
def test_every_form_that_asyncpg_reads_is_accepted(monkeypatch, source, server):
    """Messages name the host and port, without credentials."""
    for name in ("PGHOST", "PGPORT", "PGSERVICE", "PGDATABASE"):
        monkeypatch.delenv(name, raising=False)

    assert PostgresInbox(source)._pool.server == server


def test_the_environment_completes_an_address(monkeypatch):
    """With the variables of PostgreSQL's own programs, which asyncpg reads."""
    monkeypatch.setenv("PGHOST", "h")
    monkeypatch.setenv("PGPORT", "5433")
    assert PostgresInbox("postgresql://u:p@/d")._pool.server == "PostgreSQL at h:5433"
    monkeypatch.setenv("PGDATABASE", "d")
    assert PostgresInbox("postgresql://u:p@other")._pool.server == "PostgreSQL at other:5433"


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        (None, "NoneType"),
        (b"postgresql://h/d", "bytes"),
        (pathlib.Path("inbox.db"), "PosixPath"),
        (5432, "int"),
        ({"host": "h"}, "dict"),
        (sqlalchemy.make_url("postgresql+asyncpg://u:s3same@h/d"), "URL"),
        (create_async_engine("postgresql+asyncpg://u:s3same@h/d"), "AsyncEngine"),
        (asyncpg.Pool, "the class Pool"),
        (PostgresPool("postgresql://h/d", timeout=1.0), "PostgresPool"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_another_type_than_a_url_or_a_pool_is_refused(source, kind):
    """The message names the type, not the value."""
    with pytest.raises(TypeError, match=f"^source must be .*asyncpg.Pool, not {kind}$") as raised:
        PostgresInbox(source)

    assert PASSWORD not in str(raised.value)


# --- NATS -----------------------------------------------------------------------------------------------

EXPECTED_NATS = r"^servers must be nats://user:password@host:4222, .*percent-encoded.*, or a list of such URLs: "


@pytest.mark.parametrize(
    ("servers", "problem"),
    [
        (f"http://u:{PASSWORD}@h:4222", "http:// is not a supported scheme"),
        ("https://h", "https:// is not a supported scheme"),
        (f"postgresql://u:{PASSWORD}@h/d", "postgresql:// is not a supported scheme"),
        ("redis://h", "redis:// is not a supported scheme"),
        ("nats:h:4222", "the host or port cannot be read"),
        (f"nats://u:{PASSWORD}#1@h", "'#' must be %23"),
        (f"nats://u:{PASSWORD}@1@h", "'@' in a user name or password must be %40"),
        (f"nats://u:{PASSWORD}/1@h", "'/' must be %2F"),
        (f"nats://u:{PASSWORD}?1@h", r"'\?' (must be )?%3F"),
        (f"nats://u:{PASSWORD}%1@h", "'%' must be %25"),
        (f"nats://u:{PASSWORD} 1@h", "a space is %20"),
        (f"nats://u:{PASSWORD}@h\n", "a line break"),
        (f"nats://u:{PASSWORD}@h:port", "the host or port cannot be read"),
        (f"nats://u:{PASSWORD}@", "the host is missing"),
        (f"nats://u:{PASSWORD}@:4222", "the host is missing"),
        (f"nats://u:{PASSWORD}@h/callfire", "the inbox has its name in name="),
        ("nats://h?tls=true", "a path or query follows the host"),
        (f"nats://u:{PASSWORD}@one,nats://two", "the host or port cannot be read|'@' follows|several hosts"),
        ("nats://one:4222,two:4222", "several hosts; give a list of addresses"),
        ("", "the address is empty"),
        ([], "the list is empty"),
        (["nats://h", ""], "the address is empty"),
    ],
)
def test_another_address_than_a_nats_servers_is_refused(servers, problem):
    """The message says what is expected and what is wrong, and has no password."""
    with pytest.raises(ValueError, match=EXPECTED_NATS + f".*({problem})") as raised:
        JetStreamInbox(servers)

    printed = "".join(traceback.format_exception_only(raised.value))
    assert (PASSWORD in printed, raised.value.__suppress_context__ or "empty" in printed) == (False, True)


@pytest.mark.parametrize(
    ("servers", "problem"),
    [
        (["ws://one", "nats://two"], "must not mix addresses of WebSockets"),
        ([f"nats://u:{PASSWORD}@one", "nats://u:other@two"], "must have the same user and password in all addresses"),
        ([f"nats://u:{PASSWORD}@one", f"nats://{PASSWORD}@two"], "must have the same user and password"),
    ],
)
def test_servers_that_are_not_a_cluster_are_refused(servers, problem):
    """nats-py sends one pair of credentials to all servers of a cluster."""
    with pytest.raises(ValueError, match=f"^servers {problem}") as raised:
        JetStreamInbox(servers)

    assert PASSWORD not in str(raised.value)


@pytest.mark.parametrize(
    ("servers", "kind"),
    [
        (None, "not NoneType"),
        (b"nats://h", "not bytes"),
        (bytearray(b"nats://h"), "not bytearray"),
        (pathlib.Path("inbox.db"), "not PosixPath"),
        (4222, "not int"),
        ({"nats://h": 1}, "not dict"),
        ({"nats://h"}, "not set"),
        (JetStreamInbox, "not the class .*JetStreamInbox"),
        (["nats://h", None], "the list contains NoneType"),
        ([b"nats://h"], "the list contains bytes"),
        ([pathlib.Path("h")], "the list contains PosixPath"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_another_type_than_addresses_is_refused(servers, kind):
    """The message names the type, not the value."""
    with pytest.raises(TypeError, match=f"^servers must be .*{kind}$"):
        JetStreamInbox(servers)


@pytest.mark.parametrize(
    ("servers", "urls", "address", "options"),
    [
        ("h", ["nats://h:4222"], "h:4222", {}),
        ("h:4223", ["nats://h:4223"], "h:4223", {}),
        ("nats://h:/", ["nats://h:4222"], "h:4222", {}),
        ("NATS://h", ["nats://h:4222"], "h:4222", {}),
        (("tls://one", "nats://two:1"), ["tls://one:4222", "nats://two:1"], "one:4222, two:1", {}),
        (["wss://one", "ws://two"], ["wss://one:443", "ws://two:80"], "one:443, two:80", {}),
        ("nats://[::1]:4223", ["nats://[::1]:4223"], "[::1]:4223", {}),
        ("u:p@h", ["nats://h:4222"], "h:4222", {"user": "u", "password": "p"}),
        (
            ["nats://u%40x:p%23%2F%3F%25%20@one", "nats://two"],
            ["nats://one:4222", "nats://two:4222"],
            "one:4222, two:4222",
            {"user": "u@x", "password": "p#/?% "},
        ),
        ("nats://t%2Fken@h", ["nats://h:4222"], "h:4222", {"token": "t/ken"}),
        ("nats://u:@h", ["nats://h:4222"], "h:4222", {"user": "u", "password": ""}),
    ],
)
def test_addresses_and_credentials_are_separated(servers, urls, address, options):
    """The credentials are decoded, which nats-py does not do, and appear in no message or repr."""
    found = ServerList.parse(servers)

    assert (found.urls, found.address, found.connect_options()) == (urls, address, options)
    assert "p#" not in repr(found)
