"""Why a connection to NATS fails: the error and the log line have the cause and the address, and no credentials."""

import asyncio
import contextlib
import logging
import secrets
import ssl
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nats.aio.client
import pytest
import trustme
from engines.nats import PASSWORD, USER, NatsServer, running_nats
from engines.ports import reserve_port
from engines.unprivileged import unprivileged_folder
from nats.aio.client import Srv
from notifications.inbox.suite import DEADLINE, LEASE
from notifications.inbox.waiting import until

from callfire_async.errors import InboxUnavailableError
from callfire_async.notifications.inbox import Delivery, _waiting
from callfire_async.notifications.inbox.jetstream import JetStreamInbox
from callfire_async.notifications.inbox.jetstream._nats_client import NatsClient, describe_error

TIMEOUT = 1.5
LOG = "callfire_async.inbox"

# If a server dies during a handshake, nats-py drops the connection without closing it.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


@pytest.fixture
def name() -> str:
    return f"connection_{secrets.token_hex(6)}"


@pytest.fixture(scope="module")
def own_server() -> Iterator[NatsServer]:
    """A server whose configuration a test may change and restore."""
    with running_nats() as server:
        yield server


async def cause_of(servers: str | list[str], **options: object) -> str:
    """Open an inbox that cannot be opened; return the message."""
    with pytest.raises(InboxUnavailableError) as raised:
        async with JetStreamInbox(servers, timeout=TIMEOUT, **options):
            pass
    return str(raised.value)


def warnings_in(caplog: pytest.LogCaptureFixture, start: str) -> list[str]:
    messages = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    return [message for message in messages if message.startswith(start)]


# --- at the start ---------------------------------------------------------------------------------------


async def test_a_refused_connection_is_named(caplog):
    """At once in the log, and in the error after the timeout."""
    port = reserve_port()

    assert await cause_of(f"nats://me:{PASSWORD}@127.0.0.1:{port}") == (
        f"NATS at 127.0.0.1:{port} is unavailable: connection refused"
    )
    (warning,) = warnings_in(caplog, "cannot connect")
    assert warning == f"cannot connect to NATS at 127.0.0.1:{port}, retrying: connection refused"
    assert PASSWORD not in caplog.text


async def test_an_unknown_host_is_named():
    """With the resolver's reason."""
    message = await cause_of(f"nats://me:{PASSWORD}@nowhere.invalid")

    assert message.startswith(
        "NATS at nowhere.invalid:4222 is unavailable: unknown host: the name cannot be resolved ("
    )


async def test_the_causes_of_all_servers_are_named():
    """Each server of a cluster may fail in its own way."""
    port = reserve_port()
    message = await cause_of([f"nats://127.0.0.1:{port}", "nats://nowhere.invalid"])

    assert message.startswith(f"NATS at 127.0.0.1:{port}, nowhere.invalid:4222 is unavailable: ")
    assert "connection refused" in message
    assert "unknown host" in message


async def test_wrong_credentials_are_named(own_server):
    """Of each kind."""
    for credentials in (f"{USER}:wr0ng", "a-t0ken", ""):
        message = await cause_of(f"nats://{credentials}@127.0.0.1:{own_server.port}")
        assert message == (
            f"NATS at 127.0.0.1:{own_server.port} is unavailable: authentication failed: Authorization Violation"
            " (wrong user, password or token)"
        )


async def test_credentials_are_decoded(own_server, name):
    """The server compares the characters that are percent-encoded in the address."""
    own_server.reconfigure((f'user: "{USER}", password: "{PASSWORD}"', 'user: "u@x", password: "p#/?% "'))
    try:
        async with JetStreamInbox(f"nats://u%40x:p%23%2F%3F%25%20@127.0.0.1:{own_server.port}", name=name) as inbox:
            await inbox.append(Delivery(b"body"))
    finally:
        own_server.reconfigure()


async def test_a_server_of_another_kind_is_named():
    """For example the port of an HTTP server."""

    async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await reader.read()

    async with await asyncio.start_server(http, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        message = await cause_of(f"nats://127.0.0.1:{port}")

    assert (
        message == f"NATS at 127.0.0.1:{port} is unavailable: the server closed the connection, or does not speak NATS"
    )


async def test_an_account_without_jetstream_is_named(own_server):
    """With JetStream's reason."""
    message = await cause_of(own_server.url("admin"))

    assert (
        message == f"NATS at 127.0.0.1:{own_server.port} refused the request: JetStream not enabled for account (10039)"
    )


async def test_a_missing_permission_is_named(own_server, name, caplog):
    """The server does not respond to the operation itself."""
    own_server.reconfigure((f'user: "{USER}"', f'user: "{USER}", permissions: {{ publish: {{ deny: "$JS.API.>" }} }}'))
    try:
        message = await cause_of(own_server.url(), name=name)
    finally:
        own_server.reconfigure()

    assert message.startswith(
        f"NATS at 127.0.0.1:{own_server.port} did not respond within 1.5 s; it does not permit the"
    )
    assert "permissions violation for publish" in message
    (error,) = warnings_in(caplog, f"NATS at 127.0.0.1:{own_server.port} does not permit an operation of the inbox: ")
    assert "permissions violation" in error


async def test_waiting_for_a_silent_server_is_logged(caplog, monkeypatch):
    """Before the timeout ends."""
    monkeypatch.setattr(_waiting, "_SLOW_SECONDS", 0.1)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            await reader.read()

    async with await asyncio.start_server(silent, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        await cause_of(f"nats://127.0.0.1:{port}")

    assert f"waiting for NATS at 127.0.0.1:{port}, up to 1.5 s" in caplog.messages


# --- TLS ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def certificates() -> Iterator[Path]:
    with unprivileged_folder("certificates-") as folder:
        yield folder


@pytest.fixture
def context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@contextlib.contextmanager
def tls_server(certificates: Path, certificate: trustme.LeafCert, more: str = "") -> Iterator[NatsServer]:
    file = certificates / f"{secrets.token_hex(6)}.pem"
    file.write_bytes(certificate.private_key_and_cert_chain_pem.bytes())
    with running_nats(more=f'tls {{ cert_file: "{file}", key_file: "{file}" }}\n{more}') as server:
        yield server


async def test_a_certificate_that_is_not_accepted_is_named(authority, certificates, context):
    """With the reason: it is not trusted, is for another name, or has expired."""
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    for certificate, tls, reason in (
        (authority.issue_cert("127.0.0.1"), None, "unable to get local issuer certificate"),
        (authority.issue_cert("other.example"), context, "certificate is not valid for '127.0.0.1'"),
        (
            authority.issue_cert("127.0.0.1", not_before=long_ago - timedelta(1), not_after=long_ago),
            context,
            "certificate has expired",
        ),
    ):
        with tls_server(certificates, certificate) as server:
            message = await cause_of(server.url(), tls=tls)
        start = (
            f"NATS at 127.0.0.1:{server.port} is unavailable: TLS failed: the server's certificate is not accepted: "
        )
        assert message.startswith(start)
        assert reason in message


@pytest.mark.parametrize("with_context", [True, False])
async def test_a_server_without_tls_never_gets_the_password(context, with_context):
    """If the address or an argument requires TLS; nats-py alone would send the password unencrypted."""
    received = []

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            writer.write(b'INFO {"server_id":"a","version":"2.12.0","max_payload":1048576,"headers":true}\r\n')
            received.append(await reader.read())

    async with await asyncio.start_server(plain, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        scheme, tls = ("nats", context) if with_context else ("tls", None)
        message = await cause_of(f"{scheme}://me:{PASSWORD}@127.0.0.1:{port}", tls=tls)

    assert message == f"NATS at 127.0.0.1:{port} is unavailable: TLS failed: the server does not use TLS"
    assert set(received) <= {b""}


async def test_tls_is_used_if_the_server_offers_it(authority, certificates, context, name):
    """The address requires it, and the server would accept the connection without."""
    with tls_server(certificates, authority.issue_cert("127.0.0.1"), more="allow_non_tls: true") as server:
        url = server.url().replace("nats://", "tls://")
        async with JetStreamInbox(url, name=name, tls=context) as inbox:
            await inbox.append(Delivery(b"body"))
            transport = inbox._store.opened.connection.client._transport
            assert transport._io_writer.get_extra_info("ssl_object") is not None


# --- while it runs --------------------------------------------------------------------------------------


@pytest.fixture
async def inbox(own_server: NatsServer, name: str) -> AsyncIterator[JetStreamInbox]:
    async with JetStreamInbox(own_server.url(), name=name, timeout=TIMEOUT) as inbox:
        yield inbox


async def try_to_append(inbox: JetStreamInbox) -> str:
    try:
        await inbox.append(Delivery(b"body"))
    except InboxUnavailableError as error:
        return str(error)
    return ""


async def test_credentials_that_are_revoked_and_restored(own_server, inbox, caplog):
    """nats-py would close the connection for good; here it is opened again once the server accepts it."""
    own_server.reconfigure((f'user: "{USER}"', 'user: "another"'))
    try:

        async def is_refused() -> bool:
            return "is unavailable: authentication failed" in await try_to_append(inbox)

        await until(is_refused, deadline=DEADLINE)
    finally:
        own_server.reconfigure()

    async def is_stored() -> bool:
        return not await try_to_append(inbox)

    await until(is_stored, deadline=DEADLINE)
    address = f"NATS at 127.0.0.1:{own_server.port}"
    (warning,) = warnings_in(caplog, "cannot connect")
    assert warning.startswith(f"cannot connect to {address}, retrying: authentication failed")
    assert warnings_in(caplog, "reconnected") == [f"reconnected to {address}"]


async def test_an_error_of_the_server_does_not_close_the_connection_for_good(inbox):
    """nats-py would close it, and each operation would fail until a restart."""
    client = inbox._store.opened.connection.client
    await client._ps.parse(b"-ERR 'User Authentication Expired'\r\n")

    async def is_stored() -> bool:
        return not await try_to_append(inbox)

    await until(is_stored, deadline=DEADLINE)
    assert client.stats["reconnects"] == 1


async def test_permissions_that_are_revoked_are_named(own_server, inbox, caplog):
    """In the error and, once, in the log."""
    denied = f'permissions: {{ publish: {{ deny: "$JS.API.CONSUMER.>" }} }}, user: "{USER}"'
    own_server.reconfigure((f'user: "{USER}"', denied))
    try:
        for _ in range(2):
            with pytest.raises(InboxUnavailableError, match="it does not permit the operation: permissions violation"):
                await inbox.claim(1, lease=LEASE)
    finally:
        own_server.reconfigure()

    assert len(warnings_in(caplog, f"NATS at 127.0.0.1:{own_server.port} does not permit")) == 1


async def test_a_server_that_is_gone_is_named(name, caplog):
    """In the log once for each cause, and in the errors until it is back."""
    with running_nats() as server:
        async with JetStreamInbox(server.url(), name=name, timeout=TIMEOUT) as inbox:
            server.kill()
            assert await try_to_append(inbox) == f"NATS at 127.0.0.1:{server.port} is unavailable: connection refused"
            server.start()
            server.wait()

            async def is_stored() -> bool:
                return not await try_to_append(inbox)

            await until(is_stored, deadline=DEADLINE)
    address = f"NATS at 127.0.0.1:{server.port}"
    assert warnings_in(caplog, "cannot connect") == [f"cannot connect to {address}, retrying: connection refused"]
    assert warnings_in(caplog, "lost the connection") == [f"lost the connection to {address}, reconnecting"]


# --- leaving a server -----------------------------------------------------------------------------------


@pytest.fixture
def current_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nats-py's shuffle put the server first to which the client was connected last."""

    def shuffle(servers: list[Srv]) -> None:
        servers.sort(key=lambda server: server.last_attempt or 0.0, reverse=True)
        servers.sort(key=lambda server: not server.did_connect)

    monkeypatch.setattr(nats.aio.client, "shuffle", shuffle)


@contextlib.asynccontextmanager
async def client_of(*ports: int) -> AsyncIterator[tuple[NatsClient, asyncio.Event]]:
    """Yield a client that is connected to the first of these servers, and the event of its reconnect."""
    client, reconnected = NatsClient(requires_tls=False), asyncio.Event()

    async def set_reconnected() -> None:
        reconnected.set()

    async def ignore(error: Exception) -> None:
        """Do nothing."""

    urls = [f"nats://{USER}:{PASSWORD}@127.0.0.1:{port}" for port in ports]
    options = {"reconnect_time_wait": 0.01, "dont_randomize": True, "max_reconnect_attempts": -1}
    await client.connect(urls, reconnected_cb=set_reconnected, error_cb=ignore, **options)
    client.options["dont_randomize"] = False
    try:
        yield client, reconnected
    finally:
        await client.close()


@pytest.mark.usefixtures("current_first")
async def test_a_client_that_leaves_a_server_connects_to_another(own_server, nats_server):
    """nats-py would choose it again as often as the other one."""
    async with client_of(own_server.port, nats_server.port) as (client, reconnected), asyncio.timeout(DEADLINE):
        await client.leave_server()
        await reconnected.wait()

        assert client.connected_url.port == nats_server.port


@pytest.mark.usefixtures("current_first")
async def test_a_server_that_was_left_is_tried_after_the_others(own_server):
    """If none of them works, for example because each closes the connection."""

    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(close, "127.0.0.1") as closing, asyncio.timeout(DEADLINE):
        port = closing.sockets[0].getsockname()[1]
        async with client_of(own_server.port, port) as (client, reconnected):
            await client.leave_server()
            await reconnected.wait()

            assert client.connected_url.port == own_server.port


def test_other_errors_are_named_by_their_type():
    """Their texts are not known to be free of private data."""
    assert describe_error(KeyError("secret")) == "KeyError"
