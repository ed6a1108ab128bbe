"""Limits of the client: redirects, the environment, certificates, large responses and insecure subscriptions."""

import asyncio
import gzip
import ssl
import tracemalloc
import warnings
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from types import ModuleType

import pytest
import trustme
from client.http_libraries import make_over
from loopback import Server, respond_success, response_bytes, serve_with

from callfire_async import CallFire, Connection, ResponseError, Subscription, SubscriptionFilter, TransportError
from callfire_async.client._operations.api_1_1 import get_subscription
from callfire_async.models import NotificationFormat, TriggerEvent
from callfire_async.testing import FakeCallFire

GET = get_subscription(42)
SUBSCRIPTION = Subscription(42)
HTTPS, MAIL = "https://hooks.example.com/callfire/Tok3n", "someone@example.com"


def connect_by_default(url: str, **settings: object) -> Connection:
    return Connection("login", "password", base_url=url, **{"max_retries": 0} | settings)


@pytest.fixture
def connect(library: ModuleType) -> Callable[..., Connection]:
    """Return a function that creates a connection over each HTTP library."""
    return partial(make_over, library, connect_by_default)


# --- redirects --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(connect, status):
    """The other server gets no request, whatever the kind of redirect."""

    async def respond(_, writer):
        writer.write(response_bytes(b"", f"{status} Elsewhere", f"Location: {elsewhere.url}\r\n"))

    async with (
        serve_with(respond_success) as elsewhere,
        serve_with(respond) as server,
        connect(server.url) as connection,
    ):
        with pytest.raises(ResponseError, match="redirects are never followed"):
            await connection.execute(GET)

    assert (len(server.requests), elsewhere.requests) == (1, [])


# --- the environment --------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
async def test_proxies_of_the_environment_need_trust_env(connect, monkeypatch, variable):
    """They are ignored by default."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    async with serve_with(respond_success) as proxy, serve_with(respond_success) as server:
        monkeypatch.setenv(variable, proxy.url)
        async with connect(server.url) as direct, connect(server.url, trust_env=True) as proxied:
            await direct.execute(GET)
            await proxied.execute(GET)

        assert (len(server.requests), len(proxy.requests)) == (1, 1)


@pytest.mark.parametrize("trust_env", [False, True])
async def test_netrc_is_ignored(connect, monkeypatch, tmp_path, trust_env):
    """The credentials that were passed are sent."""
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login other password other\ndefault login other password other\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)

    async with serve_with(respond_success) as server, connect(server.url, trust_env=trust_env) as connection:
        await connection.execute(GET)

    (request,) = server.requests
    assert "Authorization: Basic bG9naW46cGFzc3dvcmQ=\r\n" in request.headers


# --- certificates -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@asynccontextmanager
async def https(certificate: object) -> AsyncIterator[Server]:
    """Serve on loopback with TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    server = Server(respond_success)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=context)
    server.url = f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    async with listener:
        yield server
        await server.wait_until(lambda server: not server.open)


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    return context


async def test_ssl_context_can_trust_another_authority(connect, authority):
    """The server's certificate is from the authority in the context."""
    async with (
        https(authority.issue_cert("127.0.0.1")) as server,
        connect(server.url, ssl_context=trusting(authority)) as connection,
    ):
        assert await connection.execute(GET) == SUBSCRIPTION


class SelfSigned:
    """A self-signed certificate."""

    def configure_cert(self, context: ssl.SSLContext) -> None:
        own = trustme.CA()
        with own.cert_pem.tempfile() as certificate, own.private_key_pem.tempfile() as key:
            context.load_cert_chain(certificate, key)


# The authority of all of them is in SSL_CERT_FILE, which is used with `trust_env` only.
UNTRUSTED = {
    "self-signed": lambda _: (SelfSigned(), None),
    "an authority unknown to certifi": lambda authority: (authority.issue_cert("127.0.0.1"), None),
    "an authority that is not in the context": lambda authority: (
        authority.issue_cert("127.0.0.1"),
        trusting(trustme.CA()),
    ),
    "for another host": lambda authority: (authority.issue_cert("other.example.com"), trusting(authority)),
}


@pytest.mark.parametrize("case", UNTRUSTED)
async def test_an_untrusted_certificate_gets_no_request(authority, monkeypatch, tmp_path, case):
    """The connection fails before credentials are sent."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    certificate, context = UNTRUSTED[case](authority)

    async with https(certificate) as server, connect_by_default(server.url, ssl_context=context) as connection:
        with pytest.raises(TransportError, match=r"failed with ConnectError .*while connecting"):
            await connection.execute(GET)

    assert server.requests == []


async def test_authorities_of_the_environment_need_trust_env(authority, monkeypatch, tmp_path):
    """`SSL_CERT_FILE` is used with it."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    async with (
        https(authority.issue_cert("127.0.0.1")) as server,
        connect_by_default(server.url, trust_env=True) as connection,
    ):
        assert await connection.execute(GET) == SUBSCRIPTION


@pytest.mark.parametrize("mode", [ssl.CERT_NONE, ssl.CERT_OPTIONAL])
def test_certificate_checks_cannot_be_disabled(mode):
    """A context that verifies nothing is an error."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = mode

    with pytest.raises(ValueError, match="verify certificates"):
        connect_by_default("https://www.callfire.com", ssl_context=context)


# --- large responses --------------------------------------------------------------------------------------

MEBIBYTE = 1024 * 1024


def compressed(encoding: str, plain: bytes) -> bytes:
    return gzip.compress(plain) if encoding == "gzip" else zlib.compress(plain)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_decompression_bomb_is_capped(connect, encoding):
    """The server compresses 200 MB without being asked to; memory stays bounded."""
    bomb = compressed(encoding, bytes(200_000_000))

    async def respond(request, writer):
        assert "accept-encoding: identity" in request.headers.lower()
        writer.write(response_bytes(bomb, headers=f"Content-Encoding: {encoding}\r\n"))

    async with serve_with(respond) as server, connect(server.url) as connection:
        tracemalloc.start()
        try:
            with pytest.raises(ResponseError, match="longer than 16777216 bytes"):
                await connection.execute(GET)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert peak < 64 * MEBIBYTE


async def test_a_response_above_16_mebibytes_is_capped(connect):
    """Before decompression too."""

    async def respond(_, writer):
        writer.write(response_bytes(b"<a>" + b" " * (17 * MEBIBYTE)))

    async with serve_with(respond) as server, connect(server.url) as connection:
        with pytest.raises(ResponseError, match="longer than 16777216 bytes") as caught:
            await connection.execute(GET)

    assert len(caught.value.body) == 16 * MEBIBYTE


async def test_a_small_compressed_response_is_read(connect):
    """A server may ignore Accept-Encoding."""

    async def respond(_, writer):
        body = gzip.compress(b'{"Resource":{"Subscription":{"@id":42}}}')
        writer.write(response_bytes(body, headers="Content-Encoding: gzip\r\n"))

    async with serve_with(respond) as server, connect(server.url) as connection:
        assert await connection.execute(GET) == SUBSCRIPTION


# --- insecure subscriptions --------------------------------------------------------------------------------


@pytest.fixture
async def callfire() -> AsyncIterator[CallFire]:
    async with FakeCallFire().client() as callfire:
        yield callfire


async def warnings_of(callfire: CallFire, endpoint: str, *, non_strict_ssl: bool | None = None) -> list[str]:
    """Create, then update to the same values; return the warnings, which must be equal and point at this file."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        filter_ = SubscriptionFilter(to_number="12135551212")
        create, update = callfire.subscriptions.create, callfire.subscriptions.update
        created = await create(endpoint, TriggerEvent.CAMPAIGN_STARTED, non_strict_ssl=non_strict_ssl, filter=filter_)
        await update(created.id, endpoint=endpoint, non_strict_ssl=non_strict_ssl)
    messages = [str(warning.message) for warning in caught]
    assert {(warning.category, warning.filename) for warning in caught} <= {(UserWarning, __file__)}
    assert messages[: len(messages) // 2] == messages[len(messages) // 2 :]
    return messages[: len(messages) // 2]


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://hooks.example.com/callfire/Tok3n",
        "HTTP://hooks.example.com",
        "http://10.0.0.1/Tok3n",
        " http://a/Tok3n",
        "http://[Tok3n",
    ],
)
async def test_an_http_endpoint_causes_a_warning(callfire, endpoint):
    """The warning does not quote the endpoint."""
    (warning,) = await warnings_of(callfire, endpoint)

    assert ("http://" in warning, "Tok3n" in warning) == (True, False)


@pytest.mark.parametrize(
    "endpoint", [HTTPS, MAIL, "http://127.0.0.1:8000/Tok3n", "http://localhost/Tok3n", "http://[::1]:80/Tok3n"]
)
async def test_a_safe_endpoint_causes_no_warning(callfire, endpoint):
    """TLS, loopback, and e-mail addresses."""
    assert await warnings_of(callfire, endpoint) == []


@pytest.mark.parametrize(("non_strict_ssl", "number"), [(True, 1), (False, 0), (None, 0)])
async def test_non_strict_ssl_causes_a_warning(callfire, non_strict_ssl, number):
    """Any server could impersonate the endpoint."""
    messages = await warnings_of(callfire, HTTPS, non_strict_ssl=non_strict_ssl)

    assert [warning.startswith("non_strict_ssl=True") for warning in messages] == [True] * number


async def test_a_warning_precedes_the_request(callfire):
    """If warnings are errors, nothing is created."""
    with pytest.raises(UserWarning):
        await callfire.subscriptions.create(
            "http://hooks.example.com", TriggerEvent.CAMPAIGN_STARTED, notification_format=NotificationFormat.JSON
        )

    assert [subscription async for subscription in callfire.subscriptions.all()] == []
