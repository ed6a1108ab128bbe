"""Why a request failed: the reason, the host and the attempts are in the error, against real servers on loopback."""

import asyncio
import errno
import os
import socket
import ssl
import struct
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

import httpx
import pytest
import trustme
from attrs import evolve
from client.http_libraries import make_over
from engines.ports import reserve_port
from loopback import Server, hanging_response, respond_success, response_bytes, serve_with

from callfire_async import CallFireError, Connection, RateLimitError, RequestTimeoutError, ServerError, TransportError
from callfire_async.client._operations.api_1_1 import get_subscription, query_actions, send_text
from callfire_async.client.failure_reasons import failure_reason
from callfire_async.models import Text

GET = get_subscription(42)


async def no_sleep(_):
    """Retry without a delay."""


@pytest.fixture
def failure(library):
    """Return a function that returns the error of a request; by default of one attempt, else retried without delay."""

    async def failure(url, operation=GET, **settings):
        connection = make_over(
            library, Connection, "canary-login", "canary-password", base_url=url, **{"max_retries": 0} | settings
        )
        connection._retry_hooks = evolve(connection._retry_hooks, sleep=no_sleep)
        async with connection:
            with pytest.raises(CallFireError) as caught:
                await connection.execute(operation)
        return caught.value

    return failure


def reset(writer):
    """End a connection with a reset instead of an orderly close."""
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


async def close(_, writer):
    """Close the connection instead of responding."""
    writer.close()
    raise ConnectionError


async def pipe(reader, writer):
    """Copy until the end."""
    with suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
    writer.close()


def peer(server):
    """Return the server's host and port."""
    return server.url.partition("://")[2]


# --- no connection ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("host", "printed"), [("127.0.0.1", "127.0.0.1"), ("localhost", "localhost")])
async def test_a_refused_connection(failure, library, host, printed):
    """With all addresses of a name."""
    port = reserve_port()

    error = await failure(f"http://{host}:{port}/rest", max_retries=2)

    assert isinstance(error, TransportError)
    assert str(error).startswith("GET /subscription/42 failed with ConnectError after ")
    assert str(error).endswith(f" s, while connecting to {printed}:{port}: connection refused (attempt 3)")
    assert isinstance(error.__cause__, library.ConnectError)


async def test_an_unknown_host_name(failure):
    """The port is the scheme's default; the query, which can contain phone numbers, is not in the message."""
    query = query_actions(Text, {"from_number": "12135551212"}, max_results=1, first_result=0)

    error = await failure("https://callfire.invalid/rest", query)

    assert str(error).endswith(" s, while connecting to callfire.invalid:443: host name not found (attempt 1)")
    assert not any(secret in str(error) for secret in ("12135551212", "canary", "FromNumber", "?"))


async def test_an_ipv6_address_is_in_brackets(failure):
    """Otherwise its end could not be distinguished from the port."""
    error = await failure(f"http://[::1]:{reserve_port()}")

    assert " while connecting to [::1]:" in str(error)


async def test_the_proxy_is_named_if_it_cannot_be_reached(failure, monkeypatch):
    """The connection is to the proxy's host, not to CallFire's."""
    for name in ("all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    port = reserve_port()
    monkeypatch.setenv("https_proxy", f"http://user:canary-proxy@127.0.0.1:{port}")

    error = await failure("https://callfire.invalid", trust_env=True)

    assert str(error).endswith(f"while connecting to 127.0.0.1:{port}: connection refused (attempt 1)")
    assert "canary" not in str(error)


async def test_a_proxy_that_refuses(failure, monkeypatch):
    """Its status is the reason, without the text that it sends."""

    async def refuse(_, writer):
        writer.write(response_bytes(b"", "407 canary words"))

    for name in ("all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    async with serve_with(refuse) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        error = await failure("https://callfire.invalid", trust_env=True)

    assert str(error).endswith("while connecting to callfire.invalid:443: the proxy returned 407 (attempt 1)")
    assert "canary" not in str(error)


async def test_nothing_is_sent_through_a_proxy_that_refuses(failure, monkeypatch):
    """Even a text is sent again, since CallFire has not received it."""

    async def refuse(_, writer):
        writer.write(response_bytes(b"", "503 Busy"))

    for name in ("all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    async with serve_with(refuse) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        text = send_text({"to": ["12135550142"], "message": "hello"})
        error = await failure("https://callfire.invalid", text, trust_env=True, max_retries=1)

    assert [request.method for request in proxy.requests] == ["CONNECT"] * 2
    assert str(error).endswith("the proxy returned 503 (attempt 2)")
    assert not hasattr(error, "__notes__")


# --- TLS --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority():
    """A certificate authority."""
    return trustme.CA()


@asynccontextmanager
async def https(certificate, **limits):
    """Serve on loopback with TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    server = Server(respond_success)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=context, **limits)
    server.url = f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    async with listener:
        yield server
        await server.wait_until(lambda server: not server.open)


def trusting(authority):
    """Return a context that trusts *authority*."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    return context


class SelfSigned:
    """A self-signed certificate."""

    def configure_cert(self, context):
        """Add the certificate to *context*."""
        own = trustme.CA()
        with own.cert_pem.tempfile() as certificate, own.private_key_pem.tempfile() as key:
            context.load_cert_chain(certificate, key)


CERTIFICATES = {
    "self-signed": (lambda _: SelfSigned(), "self-signed certificate"),
    "expired": (
        lambda ca: ca.issue_cert("127.0.0.1", not_after=datetime(2020, 1, 1, tzinfo=UTC)),
        "certificate has expired",
    ),
    "for another host": (
        lambda ca: ca.issue_cert("other.example.com"),
        "IP address mismatch, certificate is not valid for '127.0.0.1'",
    ),
    "of an unknown authority": (
        lambda _: trustme.CA().issue_cert("127.0.0.1"),
        "unable to get local issuer certificate",
    ),
}


@pytest.mark.parametrize("case", CERTIFICATES)
async def test_an_untrusted_certificate(failure, authority, case):
    """OpenSSL's reason is in the message."""
    make, reason = CERTIFICATES[case]

    async with https(make(authority)) as server:
        error = await failure(server.url, ssl_context=trusting(authority))

    message = f"while connecting to {peer(server)}: certificate verification failed: {reason} (attempt 1)"
    assert str(error).endswith(message)


async def test_https_to_a_plain_http_port(failure, authority):
    """The server responds in HTTP instead of with a handshake."""

    async def plain(reader, writer):
        await reader.read(1)
        writer.write(response_bytes(b"", "400 Bad Request"))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        error = await failure(f"https://127.0.0.1:{port}", ssl_context=trusting(authority))

    assert str(error).endswith(f"connecting to 127.0.0.1:{port}: the server does not use TLS on this port (attempt 1)")


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (lambda writer: writer.close(), "the server closed the connection during the TLS handshake"),
        (reset, "connection reset by the server"),
    ],
    ids=["closed", "reset"],
)
async def test_a_handshake_that_the_server_ends(failure, authority, end, reason):
    """Orderly, or with a reset."""

    async def serve(reader, writer):
        await reader.read(1)
        end(writer)

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        error = await failure(f"https://127.0.0.1:{port}", ssl_context=trusting(authority))

    assert str(error).endswith(f" while connecting to 127.0.0.1:{port}: {reason} (attempt 1)")


async def test_a_text_that_a_tunnel_may_have_delivered_is_not_sent_again(failure, authority, monkeypatch):
    """The request to CallFire follows the one to the proxy, so that its outcome is unknown."""
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server_context)
    server = Server(close)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=server_context)
    port = listener.sockets[0].getsockname()[1]

    async def tunnel(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        to_server = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pipe(reader, to_server[1]), pipe(to_server[0], writer))

    for name in ("all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    async with listener, await asyncio.start_server(tunnel, "127.0.0.1", 0) as proxy:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}")
        text = send_text({"to": ["12135550142"], "message": "hello"})
        settings = {"trust_env": True, "ssl_context": trusting(authority), "max_retries": 1}
        error = await failure(f"https://127.0.0.1:{port}", text, **settings)
        await server.wait_until(lambda server: not server.open)

    assert [request.method for request in server.requests] == ["POST"]
    assert "while waiting for the response from" in str(error)
    assert "the text may have been sent" in "".join(error.__notes__)


async def test_a_handshake_over_a_unix_socket(library, tmp_path):
    """Its failure has the same reason as over TCP."""

    async def serve(reader, writer):
        await reader.read(1)
        writer.close()

    transport = library.AsyncHTTPTransport(uds=str(tmp_path / "socket"))
    async with (
        await asyncio.start_unix_server(serve, tmp_path / "socket"),
        library.AsyncClient(transport=transport) as http_client,
        Connection("login", "password", base_url="https://localhost", http_client=http_client) as connection,
    ):
        with pytest.raises(TransportError) as caught:
            await connection.with_options(max_retries=0).execute(GET)

    reason = "the server closed the connection during the TLS handshake"
    assert str(caught.value).endswith(f"while connecting to localhost:443: {reason} (attempt 1)")
    assert isinstance(caught.value.__cause__, library.ConnectError)


# --- no response ------------------------------------------------------------------------------------------


async def abort(_, writer):
    reset(writer)
    raise ConnectionError


async def incomplete(_, writer):
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{")
    await writer.drain()
    raise ConnectionError


async def not_http(_, writer):
    writer.write(b"12135551212 says hello\r\n\r\n")
    await writer.drain()
    raise ConnectionError


@pytest.mark.parametrize(
    ("answer", "phase", "reason"),
    [
        (close, "waiting for the response from", "the server closed the connection without a response"),
        (abort, "waiting for the response from", "connection reset by the server"),
        (incomplete, "reading the response from", "the server closed the connection before the end of the response"),
        (not_http, "waiting for the response from", "the response is not valid HTTP"),
    ],
)
async def test_a_broken_response(failure, answer, phase, reason):
    """The phase, the server and the reason; nothing that the server sent."""
    async with serve_with(answer) as server:
        error = await failure(server.url, max_retries=1)

    assert str(error).endswith(f" s, while {phase} {peer(server)}: {reason} (attempt 2)")
    assert "12135551212" not in f"{error} {error.__cause__}"


async def test_timeouts_name_the_phase_and_the_server(failure, authority):
    """A connection that is not accepted, and a response that does not arrive, are different problems."""
    answer, arrived = hanging_response()
    async with serve_with(answer) as server:
        # Longer on a machine that is too busy to send the request in time.
        for timeout in (0.05, 0.5, 5.0, 50.0):
            waiting = await failure(server.url, timeout=timeout)
            if arrived.is_set():
                break
        connecting = await failure(server.url.replace("http:", "https:"), timeout=0.05, ssl_context=trusting(authority))

    expired = "GET /subscription/42 got no complete response within {} s, while"
    assert isinstance(waiting, RequestTimeoutError)
    assert str(waiting) == f"{expired.format(timeout)} waiting for the response from {peer(server)} (attempt 1)"
    assert str(connecting) == f"{expired.format(0.05)} connecting to {peer(server)} (attempt 1)"


@pytest.mark.parametrize(("status", "kind"), [("503 No", ServerError), ("429 Wait", RateLimitError)])
async def test_exhausted_retries_name_the_attempts(failure, status, kind):
    """Of an error response too."""

    async def refuse(_, writer):
        writer.write(response_bytes(b"", status))

    async with serve_with(refuse) as server:
        error = await failure(server.url, max_retries=3)

    assert isinstance(error, kind)
    assert f"returned {status[:3]} (attempt 4)" in str(error)
    assert (error.attempts, len(server.requests)) == (4, 4)


async def test_each_retry_is_logged_with_its_reason(failure, caplog):
    """With the failure, the server and the delay."""
    caplog.set_level("INFO", logger="callfire_async.client")
    port = reserve_port()

    await failure(f"http://127.0.0.1:{port}", max_retries=1)

    (record,) = caplog.records
    assert "connection refused (attempt 1), retrying in 0." in record.getMessage()
    assert f"127.0.0.1:{port}" in record.getMessage()


# --- reasons ----------------------------------------------------------------------------------------------


def raised_from(error, cause):
    """Return *error* with a cause."""
    error.__cause__ = cause
    return error


def ssl_error(reason):
    """Return an SSLError as OpenSSL raises it."""
    error = ssl.SSLError(1, "[SSL] canary")
    error.reason = reason
    return error


CYCLE = OSError("canary")
CYCLE.__cause__ = CYCLE


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (socket.gaierror(socket.EAI_AGAIN, "canary"), "host name cannot be resolved: temporary failure"),
        (socket.gaierror(socket.EAI_NONAME, "canary"), "host name not found"),
        (socket.gaierror(socket.EAI_FAMILY, "canary"), "host name cannot be resolved"),
        (OSError(errno.EHOSTUNREACH, "canary"), os.strerror(errno.EHOSTUNREACH).lower()),
        (OSError(errno.EMFILE, "canary"), os.strerror(errno.EMFILE).lower()),
        (BrokenPipeError(errno.EPIPE, "canary"), "connection reset by the server"),
        (ssl_error("TLSV1_ALERT_PROTOCOL_VERSION"), "TLS error: tlsv1 alert protocol version"),
        (ssl_error(None), "TLS error"),
        (ssl.SSLError("canary"), "TLS error"),
        (ssl.SSLCertVerificationError("canary"), "certificate verification failed"),
        (httpx.ProxyError("canary"), "the proxy rejected the connection"),
        (ExceptionGroup("canary", [ConnectionRefusedError(), OSError()]), "connection refused"),
        (
            raised_from(OSError("canary"), ExceptionGroup("", [ValueError(), ConnectionResetError()])),
            "connection reset by",
        ),
        (OSError("canary"), None),
        (OSError(10**6, "canary"), None),
        (RuntimeError("canary"), None),
        (httpx.RemoteProtocolError("canary"), None),
        (CYCLE, None),
    ],
    ids=repr,
)
def test_a_reason_quotes_no_message(error, reason):
    """It depends on the types and codes of the exception and its causes only."""
    found = failure_reason(raised_from(httpx.ConnectError("canary"), error))

    assert (found or "").startswith(reason or "")
    assert (found is None) is (reason is None)
    assert "canary" not in (found or "")
