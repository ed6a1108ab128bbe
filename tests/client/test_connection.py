"""`Connection` and `HttpTransport`, against respx and real servers on loopback."""

import asyncio
import gc
import gzip
import logging
import os
import re
import ssl
import subprocess
import sys
import warnings
from contextlib import suppress
from datetime import UTC, datetime

import httpx
import pytest
import respx
from attrs import evolve, frozen
from client.http_libraries import RespxTransport, make_over
from loopback import hanging_response, respond_success, response_bytes, serve_with

from callfire_async.client import _http
from callfire_async.client import connection as connection_module
from callfire_async.client._operations.api_1_1 import (
    create_subscription,
    delete_subscription,
    get_subscription,
    query_subscriptions,
    update_subscription,
)
from callfire_async.client._responses import RequestFailedError
from callfire_async.client.connection import Connection
from callfire_async.errors import (
    AuthenticationError,
    BadRequestError,
    CallFireError,
    ClientClosedError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    RequestTimeoutError,
    ResponseError,
    ServerError,
    TransportError,
)
from callfire_async.models import ResourceReference, Subscription

BASE = "http://localhost/rest"
GET = get_subscription(42)
QUERY = query_subscriptions(max_results=10, first_result=0)
DELETE = delete_subscription(42)
UPDATE = update_subscription(42, {"enabled": True, "request_id": "r"})
CREATE = create_subscription(
    {"endpoint": "https://h.example/Tok3n", "trigger_event": "CAMPAIGN_STARTED", "request_id": "r"}
)
FOUND = httpx.Response(200, json={"Resource": {"Subscription": {"@id": 42}}})
MADE = httpx.Response(201, json={"ResourceReference": {"Id": 7}})
DONE = httpx.Response(204)
GONE = httpx.Response(404)
SUBSCRIPTION = Subscription(42)
SETTINGS = {"base_url": BASE, "ssl_context": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)}


class Waits(list):
    """Records the delays instead of sleeping."""

    async def sleep(self, seconds):
        self.append(seconds)


@pytest.fixture
def waits():
    """The delays between attempts."""
    return Waits()


@pytest.fixture
def connect(request, library, waits):
    """Create connections over each HTTP library that sleep in no time, with maximum jitter."""

    def make(**settings):
        transport = RespxTransport() if "callfire" in request.fixturenames else None
        connection = make_over(
            library, Connection, "login", "password", httpx2_transport=transport, **SETTINGS | settings
        )
        now = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
        connection._retry_hooks = evolve(
            connection._retry_hooks, sleep=waits.sleep, random=lambda: 1.0, now=lambda: now
        )
        return connection

    return make


@pytest.fixture
async def connection(connect):
    """One such connection, closed at the end."""
    async with connect() as connection:
        yield connection


@pytest.fixture
def callfire():
    """One respx route for all requests."""
    with respx.mock(assert_all_called=False) as network:
        yield network.route(url__startswith=BASE)


@pytest.fixture
def short_abandon_time(monkeypatch):
    """Abandoned requests end after 50 ms."""
    monkeypatch.setattr(_http, "ABANDONED_SECONDS", 0.05)


# --- settings ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"login": ""}, ValueError, "login is empty"),
        ({"password": ""}, ValueError, "password is empty"),
        ({"base_url": "http://www.callfire.com"}, ValueError, "https"),
        ({"base_url": "https://a:b@www.callfire.com"}, ValueError, "credentials"),
        ({"response_format": "yaml"}, ValueError, "'json' or 'xml'"),
        ({"timeout": 0}, ValueError, "timeout"),
        ({"max_retries": -1}, ValueError, "max_retries"),
        ({"max_connections": 0}, ValueError, "max_connections"),
        ({"http_client": httpx.Client}, TypeError, "AsyncClient"),
    ],
)
def test_a_setting_out_of_range_is_an_error(settings, kind, message):
    """The error names the parameter and what was expected."""
    with pytest.raises(kind, match=message):
        Connection(**{"login": "login", "password": "password"} | SETTINGS | settings)


@pytest.mark.parametrize("setting", [{"trust_env": True}, {"ssl_context": SETTINGS["ssl_context"]}])
async def test_settings_of_the_http_client_are_rejected_beside_it(library, setting):
    """A setting without effect is an error."""
    async with library.AsyncClient(verify=SETTINGS["ssl_context"]) as http_client:
        with pytest.raises(TypeError, match="cannot be used with http_client: configure that client"):
            Connection("login", "password", http_client=http_client, **setting)


async def test_no_credentials_are_printed():
    """Neither plain nor encoded credentials appear in a repr or in the object's attributes."""
    async with Connection("my-login", "my-password", **SETTINGS) as connection:
        printed = f"{connection!r} {connection} {vars(connection)} {vars(connection._transport)}"

    assert repr(connection) == "Connection('***', '***', base_url='http://localhost/rest')"
    assert not any(secret in printed for secret in ("my-login", "my-password", "bXktbG9naW"))


async def test_a_default_ssl_context_is_created():
    """Without `ssl_context`, httpx creates one."""
    async with Connection("login", "password") as connection:
        assert connection._base_url == "https://www.callfire.com/api/1.1/rest"


# --- requests --------------------------------------------------------------------------------------------


async def test_a_request_has_credentials_and_a_user_agent(connection, callfire):
    """HTTP Basic is sent without a challenge, and only uncompressed responses are accepted."""
    callfire.mock(FOUND)

    await connection.execute(GET)

    request = callfire.calls.last.request
    assert request.headers["Authorization"] == "Basic bG9naW46cGFzc3dvcmQ="
    assert request.headers["User-Agent"].startswith("callfire-async/")
    assert " python/3." in request.headers["User-Agent"]
    assert request.headers["Accept-Encoding"] == "identity"
    assert str(request.url) == f"{BASE}/subscription/42.json"


async def test_credentials_are_sent_as_utf_8(connect, callfire):
    """Non-ASCII passwords work."""
    callfire.mock(FOUND)

    async with Connection("login", "pässword", **SETTINGS) as connection:
        await connection.execute(GET)

    assert callfire.calls.last.request.headers["Authorization"] == "Basic bG9naW46cMOkc3N3b3Jk"


@pytest.mark.parametrize(("installed", "named"), [("1.2.3", "1.2.3"), (None, "unknown")])
async def test_the_version_of_a_source_tree_is_unknown(monkeypatch, installed, named):
    """The library also runs without being installed."""

    def version(_):
        if installed is None:
            raise connection_module.PackageNotFoundError
        return installed

    monkeypatch.setattr(connection_module, "version", version)
    async with Connection("login", "password", **SETTINGS) as connection:
        agent = connection._headers["User-Agent"]

    assert agent.split()[0] == f"callfire-async/{named}"


@pytest.mark.parametrize(("response_format", "ending"), [("json", ".json"), ("xml", "")])
async def test_a_form_is_sent_as_bytes(connect, callfire, response_format, ending):
    """The request has the form's content type, and the path selects the response format."""
    callfire.mock(DONE)

    async with connect(response_format=response_format) as connection:
        await connection.execute(UPDATE)

    request = callfire.calls.last.request
    assert request.method == "PUT"
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert request.content == b"Enabled=true&RequestId=r"
    assert request.url.path == f"/rest/subscription/42{ending}"


async def test_a_query_is_sent(connection, callfire):
    """Parameters are in the URL."""
    callfire.mock(httpx.Response(200, json={"ResourceList": {}}))

    await connection.execute(QUERY)

    assert callfire.calls.last.request.url.query == b"MaxResults=10&FirstResult=0"


@pytest.mark.parametrize(("operation", "lengths"), [(GET, []), (UPDATE, ["Content-Length: 24"]), (DELETE, [])], ids=str)
async def test_a_request_has_host_and_content_length(connect, operation, lengths):
    """A request without a body has no Content-Length."""
    async with serve_with(respond_success) as server, connect(base_url=server.url) as connection:
        await connection.execute(operation)

    (request,) = server.requests
    lines = request.headers.splitlines()
    assert lines[1] == f"Host: {server.url.removeprefix('http://')}"
    assert [line for line in lines if line.lower().startswith(("content-length", "transfer-"))] == lengths
    assert request.body == (operation.content() or b"")


async def test_cookies_are_neither_stored_nor_sent(connect):
    """A long-lived client does not accumulate cookies."""

    async def respond(_, writer):
        writer.write(response_bytes(headers="Set-Cookie: visited=1; Path=/\r\n"))

    async with serve_with(respond) as server, connect(base_url=server.url) as connection:
        await connection.execute(GET)
        await connection.execute(GET)
        stored = list(connection._transport.client.cookies.jar)

    assert stored == []
    assert not any("cookie" in request.headers.lower() for request in server.requests)


async def test_the_environment_is_ignored_by_default(monkeypatch, connect):
    """Its proxy is used with `trust_env` only."""
    async with serve_with(respond_success) as proxy, serve_with(respond_success) as server:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        async with connect(base_url=server.url) as direct, connect(base_url=server.url, trust_env=True) as proxied:
            await direct.execute(GET)
            await proxied.execute(GET)

        assert (len(server.requests), len(proxy.requests)) == (1, 1)


# --- a custom client ---------------------------------------------------------------------------------------


@pytest.fixture
async def http_client():
    """A custom client with settings that must be ignored."""
    transport = httpx.MockTransport(lambda request: httpx.Response(302, headers={"Location": "https://evil.example/"}))
    async with httpx.AsyncClient(
        transport=transport, follow_redirects=True, auth=("other", "other"), headers={"X-Own": "1"}
    ) as client:
        yield client


async def test_redirects_are_never_followed(http_client, connect):
    """Not even by a client that follows redirects, since the credentials would be sent along."""
    connection = connect(http_client=http_client, ssl_context=None)

    with pytest.raises(ResponseError, match="redirects are never followed") as caught:
        await connection.execute(GET)

    assert (caught.value.status_code, caught.value.method, caught.value.path) == (302, "GET", "/subscription/42")


async def test_a_custom_client_is_never_closed(http_client, connect):
    """The caller closes it."""
    async with connect(http_client=http_client, ssl_context=None):
        pass

    assert not http_client.is_closed


async def test_a_closed_custom_client_is_an_error(http_client, connect):
    """The error names it and the remedy."""
    connection = connect(http_client=http_client, ssl_context=None)
    await http_client.aclose()

    with pytest.raises(ClientClosedError, match="http_client is closed: close it after this client"):
        await connection.execute(GET)


async def test_a_custom_client_adds_headers_and_hooks(http_client, connect):
    """Its headers are sent and its hooks are called; the credentials are the connection's."""
    requests = []

    async def hook(request):
        requests.append(request)

    http_client.event_hooks = {"request": [hook]}

    with suppress(ResponseError):
        await connect(http_client=http_client, ssl_context=None).execute(GET)

    (request,) = requests
    assert (request.headers["X-Own"], request.headers["Authorization"]) == ("1", "Basic bG9naW46cGFzc3dvcmQ=")


async def test_a_response_that_a_hook_has_read_is_parsed(library, connect):
    """A body that httpx has decompressed is not decompressed twice."""

    async def look(response):
        await response.aread()

    async def respond(_, writer):
        body = gzip.compress(b'{"Resource":{"Subscription":{"@id":42}}}')
        writer.write(response_bytes(body, headers="Content-Encoding: gzip\r\n"))

    async with serve_with(respond) as server, library.AsyncClient(event_hooks={"response": [look]}) as http_client:
        connection = connect(base_url=server.url, http_client=http_client, ssl_context=None)
        result = await connection.execute(GET)

    assert result == SUBSCRIPTION


# --- responses --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", [GET, DELETE, UPDATE], ids=str)
async def test_a_success_returns_a_value(connection, callfire, operation):
    """It is the value that the operation reads from the response."""
    callfire.mock(FOUND)

    assert await connection.execute(operation) == (SUBSCRIPTION if operation is GET else None)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, BadRequestError), (401, AuthenticationError), (403, PermissionDeniedError), (404, NotFoundError)],
)
@pytest.mark.parametrize("operation", [GET, CREATE], ids=str)
async def test_a_client_error_is_not_retried(connection, callfire, operation, status, kind):
    """It is raised after the first attempt."""
    callfire.mock(httpx.Response(status))

    with pytest.raises(kind) as caught:
        await connection.execute(operation)

    assert (callfire.call_count, caught.value.attempts) == (1, 1)


async def test_unreadable_fields_are_logged_once(connection, callfire, caplog):
    """One warning per response lists the fields, without their values."""
    subscription = {"@id": 42, "Enabled": "12135551212", "SubscriptionFilter": {"Inbound": "x"}}
    callfire.mock(httpx.Response(200, json={"Resource": {"Subscription": subscription}}))

    assert await connection.execute(GET) == SUBSCRIPTION

    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert warning.name == "callfire_async.client"
    assert warning.getMessage() == (
        "GET /subscription/42: ignored unreadable fields of the response: "
        "not a boolean @ Resource.Subscription.Enabled, "
        "not a boolean @ Resource.Subscription.SubscriptionFilter.Inbound"
    )


@pytest.mark.parametrize("encoding", ["", "Content-Encoding: gzip\r\n"])
async def test_an_endless_response_is_capped(connect, encoding, monkeypatch):
    """Reading stops at the limit, and the connection is closed."""
    monkeypatch.setattr(_http, "MAX_BODY_BYTES", 1000)

    async def endless(_, writer):
        writer.write(f"HTTP/1.1 200 OK\r\n{encoding}Transfer-Encoding: chunked\r\n\r\n".encode())
        while True:
            writer.write(b"200\r\n" + b"x" * 512 + b"\r\n")
            await writer.drain()

    async with serve_with(endless) as server, connect(base_url=server.url, max_retries=0) as connection:
        with pytest.raises(ResponseError) as caught:
            await connection.execute(GET)
        await server.wait_until(lambda server: not server.open)

    assert len(caught.value.body) == 1001


# --- retries ----------------------------------------------------------------------------------------------

NOT_SENT = [httpx.ConnectError("no"), httpx.PoolTimeout("no")]
AMBIGUOUS = [
    httpx.ReadError("no"),
    httpx.WriteError("no"),
    httpx.ReadTimeout("no"),
    httpx.ConnectTimeout("no"),  # without a trace event for connecting
    httpx.RemoteProtocolError("no"),
    ssl.SSLError("no"),
    RuntimeError("no"),
    httpx.Response(500),
    httpx.Response(503),
    httpx.Response(502, html="<html>Bad gateway</html>"),
    httpx.Response(200, text="cut sh"),
]


RETRIED = [
    (operation, failure)
    for operation in (GET, UPDATE, DELETE)
    for failure in (*NOT_SENT, *AMBIGUOUS, httpx.Response(429))
    # For the other operations a 200 with any body is a success.
    if operation is GET or getattr(failure, "status_code", 0) != 200
]


@pytest.mark.parametrize(("operation", "failure"), RETRIED, ids=str)
async def test_an_idempotent_operation_is_retried(connection, callfire, waits, operation, failure):
    """After any failure, with a doubling backoff."""
    callfire.side_effect = [failure, failure, FOUND]

    await connection.execute(operation)

    assert (callfire.call_count, waits) == (3, [0.5, 1.0])


@pytest.mark.parametrize("failure", [*NOT_SENT, httpx.Response(429)], ids=repr)
async def test_a_create_that_was_not_executed_is_retried(connection, callfire, failure):
    """No lookup is needed if the request was not sent, or was rejected with a 429."""
    callfire.side_effect = [failure, MADE]

    async def recover():
        raise AssertionError

    assert await connection.execute(CREATE, recover=recover) == ResourceReference(7)
    assert callfire.call_count == 2


@pytest.mark.parametrize("failure", AMBIGUOUS, ids=repr)
async def test_a_create_without_lookup_is_not_retried(connection, callfire, failure):
    """The error's note says that it may have been executed."""
    callfire.side_effect = [failure]

    with pytest.raises(CallFireError) as caught:
        await connection.execute(CREATE)

    assert caught.value.__notes__ == ["POST /subscription may have been executed"]


@pytest.mark.parametrize("failure", AMBIGUOUS, ids=repr)
async def test_a_create_of_unknown_outcome_returns_what_the_lookup_finds(connection, callfire, failure):
    """The request is not repeated."""
    callfire.side_effect = [failure]

    async def recover():
        return ResourceReference(9)

    assert await connection.execute(CREATE, recover=recover) == ResourceReference(9)
    assert callfire.call_count == 1


@pytest.mark.parametrize("failure", AMBIGUOUS, ids=repr)
async def test_a_create_of_unknown_outcome_that_is_not_found_is_repeated(connection, callfire, failure):
    """With the same RequestId."""
    callfire.side_effect = [failure, failure, MADE]
    lookups = []

    async def recover():
        lookups.append(callfire.call_count)

    assert await connection.execute(CREATE, recover=recover) == ResourceReference(7)
    assert lookups == [1, 2]
    assert len({call.request.content for call in callfire.calls}) == 1


async def test_a_429_does_not_clear_an_unknown_outcome(connection, callfire):
    """The attempt before it may still have been executed."""
    callfire.side_effect = [httpx.Response(500), httpx.Response(429), MADE]
    lookups = []

    async def recover():
        lookups.append(callfire.call_count)

    await connection.execute(CREATE, recover=recover)

    assert lookups == [1, 2]


async def test_a_rejected_repetition_is_looked_up(connection, callfire):
    """CallFire may reject a RequestId that it knows; then an earlier attempt was executed."""
    callfire.side_effect = [httpx.ReadError("no"), httpx.Response(400)]
    lookups = iter([None, ResourceReference(9)])

    async def recover():
        return next(lookups)

    assert await connection.execute(CREATE, recover=recover) == ResourceReference(9)


@pytest.mark.parametrize(("status", "kind"), [(400, BadRequestError), (503, ServerError)])
async def test_a_rejected_repetition_that_is_not_found_is_an_error(connect, callfire, status, kind):
    """Its note says that it may have been executed."""
    callfire.side_effect = [httpx.ReadError("no"), httpx.Response(status)]

    async def recover():
        return None

    async with connect(max_retries=1) as connection:
        with pytest.raises(kind) as caught:
            await connection.execute(CREATE, recover=recover)

    assert (caught.value.attempts, len(caught.value.__notes__)) == (2, 1)


async def test_a_failing_lookup_leaves_the_outcome_unknown(library, connection, callfire, waits):
    """The create is not repeated; the lookup is, once per attempt."""
    callfire.side_effect = [httpx.ReadError("no")]
    lookups = []

    async def recover():
        lookups.append(1)
        raise ServerError("no", status_code=503, method="GET", path="/subscription")

    with pytest.raises(TransportError) as caught:
        await connection.execute(CREATE, recover=recover)

    assert (len(lookups), callfire.call_count, len(waits)) == (3, 1, 3)
    assert (caught.value.method, caught.value.attempts) == ("POST", 1)
    assert isinstance(caught.value.__cause__, library.ReadError)


@pytest.mark.parametrize(("retry_after", "waited"), [(None, [0.5, 1.0]), (60.0, [0.5, 60.0]), (61.0, [0.5])])
async def test_the_retry_after_of_a_lookup_is_obeyed(connect, callfire, waits, retry_after, waited):
    """It replaces the backoff; the error of unknown outcome is raised at once if it is too long."""
    callfire.side_effect = [httpx.ReadError("no")]

    async def recover():
        raise RateLimitError("no", status_code=429, method="GET", path="/subscription", retry_after=retry_after)

    async with connect(max_retries=2) as connection:
        with pytest.raises(TransportError) as caught:
            await connection.execute(CREATE, recover=recover)

    assert (waits, caught.value.__notes__) == (waited, ["POST /subscription may have been executed"])


async def test_a_lookup_that_succeeds_later_returns_its_value(connection, callfire):
    """After errors of the lookup itself."""
    callfire.side_effect = [httpx.ReadError("no")]
    lookups = iter(
        [TransportError("no", method="GET", path="/"), ResponseError("no", status_code=200, method="", path="")]
    )

    async def recover():
        for error in lookups:
            raise error
        return ResourceReference(9)

    assert await connection.execute(CREATE, recover=recover) == ResourceReference(9)


async def test_an_unexpected_error_in_a_lookup_is_raised(connection, callfire):
    """A closed client is not an unknown outcome."""
    callfire.side_effect = [httpx.ReadError("no")]

    async def recover():
        raise ClientClosedError("closed")

    with pytest.raises(ClientClosedError):
        await connection.execute(CREATE, recover=recover)


async def test_a_404_to_a_repeated_delete_is_success(connection, callfire):
    """The first attempt may have deleted it."""
    callfire.side_effect = [httpx.ReadError("no"), GONE]

    assert await connection.execute(DELETE) is None


@pytest.mark.parametrize("failure", [httpx.ConnectError("no"), httpx.Response(429)], ids=repr)
async def test_a_404_to_a_delete_that_was_not_executed_before_is_an_error(connection, callfire, failure):
    """The subscription did not exist in the first place."""
    callfire.side_effect = [failure, GONE]

    with pytest.raises(NotFoundError):
        await connection.execute(DELETE)


@pytest.mark.parametrize("max_retries", [0, 1, 3])
@pytest.mark.parametrize(
    ("failure", "kind"), [(httpx.Response(503), ServerError), (httpx.ConnectError("no"), TransportError)], ids=repr
)
async def test_retries_are_limited(connect, callfire, max_retries, failure, kind):
    """After `max_retries` the last error is raised, with the number of attempts."""
    callfire.side_effect = [failure] * (max_retries + 1)

    async with connect(max_retries=max_retries) as connection:
        with pytest.raises(kind) as caught:
            await connection.execute(GET)

    assert (callfire.call_count, caught.value.attempts) == (max_retries + 1, max_retries + 1)


@pytest.mark.parametrize(
    ("header", "waited"),
    [("0", 0.0), ("2.5", 2.5), ("60", 60.0), ("Mon, 06 May 2024 07:08:39 GMT", 30.0), ("soon", 0.5)],
)
async def test_retry_after_is_obeyed(connection, callfire, waits, header, waited):
    """Seconds, fractions and dates up to a minute; an unreadable value is ignored."""
    headers = {"Retry-After": header}
    answers = [httpx.Response(429, headers=headers), FOUND, httpx.Response(503, headers=headers), FOUND]
    callfire.side_effect = answers

    await connection.execute(GET)
    await connection.execute(GET)

    assert waits == [waited, waited]


@pytest.mark.parametrize(("status", "kind"), [(429, RateLimitError), (503, ServerError)])
async def test_a_long_retry_after_is_raised(connection, callfire, waits, status, kind):
    """The error is raised at once and has the delay."""
    callfire.mock(httpx.Response(status, headers={"Retry-After": "61"}))

    with pytest.raises(kind) as caught:
        await connection.execute(GET)

    assert (caught.value.retry_after, waits) == (61.0, [])


async def test_jitter_is_full(connection, callfire, waits):
    """The delay is any value between zero and the backoff."""
    connection._retry_hooks = evolve(connection._retry_hooks, random=iter([0.25, 0.5]).__next__)
    callfire.side_effect = [httpx.Response(503), httpx.Response(503), FOUND]

    await connection.execute(GET)

    assert waits == [0.125, 0.5]


async def test_the_retry_hooks_of_a_connection_are_real():
    """They are asyncio's sleep, an aware clock and a random number."""
    async with Connection("login", "password", **SETTINGS) as connection:
        hooks = connection._retry_hooks

    assert hooks.now().tzinfo is UTC
    assert 0 <= hooks.random() < 1
    assert hooks.sleep is asyncio.sleep


# --- errors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", [*NOT_SENT, *AMBIGUOUS[:7]], ids=repr)
async def test_any_transport_failure_is_a_transport_error(library, connect, callfire, failure):
    """It has method, path, attempts and cause; a timeout has a class of its own."""
    callfire.side_effect = [failure] * 2

    async with connect(max_retries=1) as connection:
        with pytest.raises(TransportError) as caught:
            await connection.execute(GET)

    error = caught.value
    timed_out = isinstance(failure, httpx.TimeoutException)
    assert isinstance(error, RequestTimeoutError) is timed_out
    assert (error.method, error.path, error.attempts) == ("GET", "/subscription/42", 2)
    # Over httpx2 it is httpx2's exception of the same name.
    assert (error.__cause__ is failure) is (library is httpx or not isinstance(failure, httpx.HTTPError))
    assert repr(error.__cause__) == repr(failure)
    failed = rf"failed with {type(failure).__name__} after 0\.\d{{3}} s"
    reason = "got no complete response within 30 s" if timed_out else failed
    phase = "connecting to" if failure in NOT_SENT else "waiting for the response from"
    cause = ": TLS error" if isinstance(failure, ssl.SSLError) else ""
    assert re.fullmatch(rf"GET /subscription/42 {reason}, while {phase} localhost:80{cause} \(attempt 2\)", str(error))


async def test_a_refused_connection_is_retried_for_a_create(connect, waits):
    """The create cannot have been executed."""
    async with serve_with(respond_success) as server:
        pass

    async with connect(base_url=server.url) as connection:
        message = r"failed with ConnectError after .*, while connecting to .*: connection refused \(attempt 4\)"
        with pytest.raises(TransportError, match=message) as caught:
            await connection.execute(CREATE)

    assert not hasattr(caught.value, "__notes__")


# --- timeouts ---------------------------------------------------------------------------------------------


async def test_a_hanging_server_causes_a_timeout(connect):
    """The error has the limit, the phase and the attempt."""
    respond, _ = hanging_response()
    async with serve_with(respond) as server, connect(base_url=server.url, max_retries=1) as connection:
        # Longer on a machine that is too busy to connect in time.
        for timeout in (0.05, 0.5, 5.0, 50.0):
            with pytest.raises(RequestTimeoutError) as caught:
                await connection.with_options(timeout=timeout).execute(GET)
            if "while connecting" not in str(caught.value):
                break

    assert str(caught.value) == (
        f"GET /subscription/42 got no complete response within {timeout:g} s, "
        f"while waiting for the response from {server.url.removeprefix('http://')} (attempt 2)"
    )
    assert isinstance(caught.value.__cause__, TimeoutError)


async def test_a_slow_response_causes_a_timeout(connect):
    """The timeout covers the whole response, not the pause between two bytes."""

    async def drip(_, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.005)

    async with serve_with(drip) as server, connect(base_url=server.url, timeout=1.0, max_retries=0) as connection:
        with pytest.raises(RequestTimeoutError, match=r"within 1 s, while reading the response from .* \(attempt 1\)"):
            await connection.execute(GET)


async def test_a_response_that_ends_early_fails_while_reading(library, connect):
    """A transport without trace events has at least returned a status."""

    async def broken():
        yield b"{"
        raise library.ReadError("no")

    transport = library.MockTransport(lambda _: library.Response(200, content=broken()))
    async with library.AsyncClient(transport=transport) as http_client:
        connection = connect(http_client=http_client, ssl_context=None, max_retries=0)
        with pytest.raises(TransportError, match=r"ReadError .*, while reading the response from .* \(attempt 1\)"):
            await connection.execute(GET)


async def test_an_error_that_is_its_own_cause_is_converted(library, connect):
    """A custom hook or transport may execute ``raise error from error``."""

    def fail(_: library.Request) -> library.Response:
        error = OSError("broken")
        raise error from error

    async with library.AsyncClient(transport=library.MockTransport(fail)) as http_client:
        connection = connect(http_client=http_client, ssl_context=None, max_retries=0)
        with pytest.raises(TransportError, match="failed with OSError"):
            await connection.execute(GET)


async def test_a_cancellation_inside_a_request_is_a_failure(library, connect):
    """A hook that awaits a cancelled task raises CancelledError; the caller is not cancelled, and gets an error."""

    async def hook(_):
        cancelled = asyncio.create_task(asyncio.sleep(0))
        cancelled.cancel()
        await cancelled

    async with (
        serve_with(respond_success) as server,
        library.AsyncClient(event_hooks={"request": [hook]}) as http_client,
    ):
        connection = connect(base_url=server.url, http_client=http_client, ssl_context=None, max_retries=1)
        with pytest.raises(TransportError, match=r"failed with CancelledError .* \(attempt 2\)"):
            await connection.execute(GET)

    assert server.requests == []


async def test_an_immutable_error_is_converted(library, connect):
    """Nothing can be masked in an exception class whose instances are frozen."""

    @frozen
    class HookError(Exception):
        detail: str

    async def hook(_):
        raise HookError("no")

    async with library.AsyncClient(event_hooks={"request": [hook]}) as http_client:
        connection = connect(http_client=http_client, ssl_context=None, max_retries=0)
        with pytest.raises(TransportError, match="failed with HookError"):
            await connection.execute(GET)


async def test_a_hanging_handshake_counts_as_not_sent(connect):
    """It is a timeout while connecting: even a create is retried, and no socket is left open."""
    ends = [asyncio.Event(), asyncio.Event()]
    to_come = iter(ends)

    async def silent(reader, writer):
        end = next(to_come)
        await reader.read()
        writer.close()
        end.set()

    listener = await asyncio.start_server(silent, "127.0.0.1", 0)
    url = f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    async with listener, connect(base_url=url, timeout=0.05, max_retries=1) as connection:
        with pytest.raises(RequestTimeoutError, match=r"while connecting to .* \(attempt 2\)"):
            await connection.execute(CREATE)
        async with asyncio.timeout(60):
            await asyncio.gather(*(end.wait() for end in ends))


async def test_asyncio_timeout_limits_the_whole_call(connect):
    """It ends the call in the middle of an attempt."""
    respond, _ = hanging_response()
    async with serve_with(respond) as server, connect(base_url=server.url, timeout=60.0) as connection:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await connection.execute(GET)


# --- concurrency ------------------------------------------------------------------------------------------


async def test_concurrent_requests_are_limited(connect):
    """The others wait, and are served in order."""
    busy, max_busy, order = 0, 0, []

    async def respond(request, writer):
        nonlocal busy, max_busy
        busy += 1
        max_busy = max(max_busy, busy)
        order.append(request.target)
        await asyncio.sleep(0)
        busy -= 1
        writer.write(response_bytes())

    async with serve_with(respond) as server, connect(base_url=server.url, max_connections=3) as connection:
        await asyncio.gather(*(connection.execute(get_subscription(number)) for number in range(1, 31)))

    assert max_busy <= 3
    assert sorted(order[3:], key=order.index) == [f"/subscription/{number}.json" for number in range(4, 31)]


async def test_a_timeout_in_the_queue_names_the_requests_ahead(connect, short_abandon_time):
    """The request was not sent."""
    respond, arrived = hanging_response()
    async with (
        serve_with(respond) as server,
        connect(base_url=server.url, max_connections=1, max_retries=0) as connection,
    ):
        first = asyncio.create_task(connection.execute(GET))
        await arrived.wait()
        impatient = connection.with_options(timeout=0.05)
        results = await asyncio.gather(*[impatient.execute(CREATE) for _ in range(2)], return_exceptions=True)
        first.cancel()
        await asyncio.wait([first])

        assert [str(error) for error in results] == [
            f"POST /subscription got none of 1 connections within 0.05 s, with {ahead} requests ahead (attempt 1)"
            for ahead in (0, 1)
        ]
        assert not any(hasattr(error, "__notes__") for error in results)
        assert len(server.requests) == 1


# --- cancellation -----------------------------------------------------------------------------------------


async def test_a_cancelled_caller_returns_at_once_and_its_request_ends(connect, short_abandon_time):
    """The hung request does not keep its connection."""
    respond, arrived = hanging_response()
    async with serve_with(respond) as server, connect(base_url=server.url, max_connections=1) as connection:
        task = asyncio.create_task(connection.execute(GET))
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        await server.wait_until(lambda server: not server.open)
        assert len(server.requests) == 1


async def test_an_abandoned_request_that_finishes_keeps_its_connection(connect):
    """The next request reuses it."""
    arrived, go = asyncio.Event(), asyncio.Event()

    async def respond(_, writer):
        arrived.set()
        await go.wait()
        writer.write(response_bytes())

    async with serve_with(respond) as server, connect(base_url=server.url, max_connections=1) as connection:
        task = asyncio.create_task(connection.execute(GET))
        await arrived.wait()
        task.cancel()
        await asyncio.wait([task])
        go.set()

        assert await connection.execute(GET) == SUBSCRIPTION
        assert (len(server.requests), server.open) == (2, 1)


async def test_the_failure_of_an_abandoned_request_is_retrieved(connect, caplog):
    """Nothing is logged about it."""
    arrived, go = asyncio.Event(), asyncio.Event()

    async def respond(_, writer):
        arrived.set()
        await go.wait()
        raise ConnectionError

    async with serve_with(respond) as server, connect(base_url=server.url) as connection:
        task = asyncio.create_task(connection.execute(GET))
        await arrived.wait()
        task.cancel()
        await asyncio.wait([task])
        go.set()
        await server.wait_until(lambda server: not server.open)
    del task
    gc.collect()

    assert not [record for record in caplog.records if record.name == "asyncio" and record.levelno > logging.DEBUG]


async def test_a_caller_cancelled_in_the_queue_leaves_it(connect):
    """Its request is never sent, and the next one is."""
    arrived, go = asyncio.Event(), asyncio.Event()

    async def respond(_, writer):
        arrived.set()
        await go.wait()
        writer.write(response_bytes())

    async with serve_with(respond) as server, connect(base_url=server.url, max_connections=1) as connection:
        first = asyncio.create_task(connection.execute(get_subscription(1)))
        await arrived.wait()
        second, third = (asyncio.create_task(connection.execute(get_subscription(number))) for number in (2, 3))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.wait([second])
        go.set()
        await asyncio.gather(first, third)

    assert [request.target for request in server.requests] == ["/subscription/1.json", "/subscription/3.json"]


async def test_abandoning_a_request_twice_is_harmless(connect, short_abandon_time):
    """A cancellation that coincides with the timeout changes nothing."""
    respond, arrived = hanging_response()
    async with serve_with(respond) as server, connect(base_url=server.url) as connection:
        pending = connection._transport.request("GET", server.url, headers={}, content=None, timeout=5)
        task = asyncio.create_task(pending)
        await arrived.wait()
        (request,) = connection._transport._in_flight.values()
        request.abandon(0)
        await asyncio.sleep(0)
        request.abandon(0)
        with pytest.raises(RequestFailedError) as caught:
            await task

    assert caught.value.timed_out


async def test_a_request_abandoned_before_it_starts_has_an_earlier_deadline(connection):
    """It starts with the earlier deadline."""
    request = _http._InFlightRequest(connection._transport.client, httpx.Request("GET", BASE), 70.0, 30.0)

    request.abandon(50.0)

    assert request.deadline == 50.0


async def test_a_failing_task_group_cancels_its_requests(connect, short_abandon_time):
    """No connection is left open."""
    respond, arrived = hanging_response()

    async def fail():
        await arrived.wait()
        raise LookupError

    async def work(connection):
        async with asyncio.TaskGroup() as group:
            group.create_task(connection.execute(GET))
            group.create_task(fail())

    async with serve_with(respond) as server, connect(base_url=server.url) as connection:
        with pytest.raises(ExceptionGroup):
            await work(connection)

        await server.wait_until(lambda server: not server.open)


@pytest.mark.parametrize("steps", [0, 1, 20])
async def test_all_tasks_can_be_cancelled(connect, caplog, steps):
    """As at the end of `asyncio.run`: no log record and no open socket, whether a task has started or not."""
    respond, _ = hanging_response()
    async with serve_with(respond) as server, connect(base_url=server.url) as connection:
        call = asyncio.create_task(connection.execute(GET))
        await asyncio.sleep(0)
        for _ in range(steps):
            await asyncio.sleep(0)
        tasks = [call, *connection._transport._in_flight]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

        assert all(task.cancelled() for task in tasks)
    assert len(tasks) == 2
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


# --- lifecycle --------------------------------------------------------------------------------------------


async def test_closing_waits_for_requests_in_flight(connect):
    """They get their response; then no socket is open."""
    arrived, go = asyncio.Event(), asyncio.Event()

    async def respond(_, writer):
        arrived.set()
        await go.wait()
        writer.write(response_bytes())

    async with serve_with(respond) as server:
        connection = connect(base_url=server.url)
        request = asyncio.create_task(connection.execute(GET))
        await arrived.wait()
        closing = asyncio.create_task(connection.aclose())
        await asyncio.sleep(0)
        go.set()
        await closing
        await server.wait_until(lambda server: not server.open)

        assert await request == SUBSCRIPTION


async def test_closing_is_bounded(connect, short_abandon_time):
    """A hanging request ends with its timeout."""
    respond, arrived = hanging_response()
    async with serve_with(respond) as server:
        connection = connect(base_url=server.url, timeout=0.1)
        request = asyncio.create_task(connection.execute(GET))
        await arrived.wait()
        await connection.aclose()
        await server.wait_until(lambda server: not server.open)

        with pytest.raises(ClientClosedError, match="closed"):
            await request


async def test_closing_continues_if_its_caller_is_cancelled(connect, short_abandon_time):
    """A second call waits for the end."""
    respond, arrived = hanging_response()
    async with serve_with(respond) as server:
        connection = connect(base_url=server.url, timeout=0.5, max_retries=0)
        request = asyncio.create_task(connection.execute(GET))
        await arrived.wait()
        closing = asyncio.create_task(connection.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
        await connection.aclose()

        assert closing.cancelled()
        assert connection._transport.client.is_closed
        await asyncio.wait([request])
        assert isinstance(request.exception(), RequestTimeoutError)


async def test_a_caller_in_the_queue_gets_an_error_on_close(connect, short_abandon_time):
    """Its request was never sent."""
    arrived, go = asyncio.Event(), asyncio.Event()

    async def respond(_, writer):
        arrived.set()
        await go.wait()
        writer.write(response_bytes())

    async with serve_with(respond) as server:
        connection = connect(base_url=server.url, max_connections=1)
        first, second = (asyncio.create_task(connection.execute(GET)) for _ in range(2))
        await arrived.wait()
        closing = asyncio.create_task(connection.aclose())
        await asyncio.sleep(0)
        go.set()
        results = await asyncio.gather(first, second, closing, return_exceptions=True)

    assert results[0] == SUBSCRIPTION
    assert isinstance(results[1], ClientClosedError)


async def test_a_call_after_closing_is_an_error(connect):
    """Closing twice is harmless."""
    connection = connect()
    await connection.aclose()
    await connection.aclose()

    with pytest.raises(ClientClosedError, match="is closed: create a new one"):
        await connection.execute(GET)
    with pytest.raises(ClientClosedError, match="is closed"):
        async with connection:
            pass


async def test_a_call_that_waits_for_a_retry_notices_the_close(connect, callfire):
    """It makes no further attempt."""
    connection = connect()
    connection._retry_hooks = evolve(connection._retry_hooks, sleep=lambda _: connection.aclose())
    callfire.mock(httpx.Response(503))

    with pytest.raises(ClientClosedError):
        await connection.execute(GET)

    assert callfire.call_count == 1


def test_a_connection_belongs_to_the_first_loop_that_uses_it(connect, callfire):
    """In another loop, a call and closing raise an error with the remedy."""
    connection = connect()
    callfire.mock(FOUND)

    with asyncio.Runner() as runner:
        assert runner.run(connection.execute(GET)) == SUBSCRIPTION
        with pytest.raises(ClientClosedError, match=r"another event loop.*create one client in each loop"):
            asyncio.run(connection.execute(GET))
        with pytest.raises(ClientClosedError, match="another event loop"):
            asyncio.run(connection.aclose())
        runner.run(connection.aclose())


async def test_a_call_after_a_fork_is_an_error(connection, monkeypatch):
    """The sockets belong to the parent."""
    parent = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: parent + 1)

    with pytest.raises(ClientClosedError, match=r"fork.*create one client in each process"):
        await connection.execute(GET)

    monkeypatch.undo()


def warnings_of(make):
    """Create a client, drop it, and return the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make()
        gc.collect()
    return caught


def test_a_client_that_is_never_closed_causes_a_warning():
    """The warning has the line outside this library that created the client."""

    def make():
        return Connection("login", "password", **SETTINGS).with_options(timeout=1)

    (warning,) = warnings_of(make)

    line = make.__code__.co_firstlineno + 1
    assert (warning.category, warning.filename, warning.lineno) == (ResourceWarning, __file__, line)
    assert str(warning.message) == (
        f"the CallFire client created at {__file__}:{line} was never closed: use async with or await aclose()"
    )


def test_a_client_that_is_open_at_exit_causes_a_warning(tmp_path):
    """As a module's global is, when the interpreter exits."""
    script = tmp_path / "service.py"
    script.write_text("from callfire_async import CallFire\n\ncallfire = CallFire('login', 'password')\n")

    result = subprocess.run([sys.executable, "-W", "default", script], check=True, capture_output=True, text=True)

    assert f"{script}:3: ResourceWarning: the CallFire client created at {script}:3 was never closed" in result.stderr


def test_a_closed_client_causes_no_warning():
    """Nor do its views."""

    async def use():
        async with Connection("login", "password", **SETTINGS) as connection:
            return connection.with_options(timeout=1)

    assert not warnings_of(lambda: asyncio.run(use()))


async def test_a_client_over_a_custom_client_causes_no_warning(http_client):
    """It owns no connections."""
    assert not warnings_of(lambda: Connection("login", "password", base_url=BASE, http_client=http_client))


def test_a_forked_child_causes_no_warning(monkeypatch):
    """The parent closes the client."""
    parent = os.getpid()

    def make():
        connection = Connection("login", "password", **SETTINGS)
        monkeypatch.setattr(os, "getpid", lambda: parent + 1)
        return connection

    assert not warnings_of(make)


async def test_a_view_has_its_own_options_on_the_same_pool(connection, callfire):
    """The options of the connection do not change."""
    callfire.side_effect = [httpx.Response(503), httpx.Response(503), FOUND]
    view = connection.with_options(timeout=1, max_retries=0)

    with pytest.raises(ServerError):
        await view.execute(GET)
    assert await connection.execute(GET) == SUBSCRIPTION
    assert view._transport is connection._transport
    assert (view._timeout, connection._timeout) == (1, 30.0)


@pytest.mark.parametrize("options", [{"timeout": 0}, {"max_retries": -1}])
async def test_options_out_of_range_are_errors(connection, options):
    """As in the constructor."""
    with pytest.raises(ValueError, match=next(iter(options))):
        connection.with_options(**options)


async def test_a_view_without_options_keeps_them(connect):
    """All options are those of the connection."""
    async with connect(timeout=3, max_retries=1) as connection:
        view = connection.with_options()

    assert (view._timeout, view._max_retries) == (3, 1)


# --- logs -------------------------------------------------------------------------------------------------


async def test_each_request_and_each_retry_is_logged(connection, callfire, caplog):
    """With method, path, status, attempt and milliseconds, without query and body."""
    caplog.set_level(logging.DEBUG)
    callfire.side_effect = [httpx.Response(503), httpx.ReadError("no"), httpx.Response(200, json={"ResourceList": {}})]

    await connection.execute(QUERY)

    records = [record for record in caplog.records if record.name == "callfire_async.client"]
    lines = [(record.levelname, record.getMessage()) for record in records]
    assert [level for level, _ in lines] == ["DEBUG", "INFO", "DEBUG", "INFO", "DEBUG"]
    assert lines[0][1].startswith("GET /subscription: 503, attempt 1, ")
    assert lines[1][1] == "GET /subscription returned 503, retrying in 0.50 s"
    assert lines[2][1].startswith("GET /subscription: no response, attempt 2, ")
    assert lines[2][1].endswith(" ms")
    assert lines[3][1].startswith("GET /subscription failed with ReadError after ")
    assert lines[3][1].endswith(" (attempt 2), retrying in 1.00 s")


async def test_no_log_record_contains_a_query(connection, callfire, caplog):
    """This includes httpx's own records; those of other requests do not change."""
    caplog.set_level(logging.DEBUG)
    callfire.mock(httpx.Response(200, json={"ResourceList": {}}))

    await connection.execute(QUERY)
    async with httpx.AsyncClient() as other:
        await other.get(f"{BASE}/else?some=query")
    logging.getLogger("httpx").info("%(count)d arguments", {"count": 1})

    lines = [record.getMessage() for record in caplog.records]
    assert not any("MaxResults" in line for line in lines)
    assert f'HTTP Request: GET {BASE}/subscription.json "HTTP/1.1 200 OK"' in lines
    assert f'HTTP Request: GET {BASE}/else?some=query "HTTP/1.1 200 OK"' in lines
    assert "1 arguments" in lines


async def test_no_log_record_contains_a_secret(connect, caplog):
    """Neither credentials nor form values, at any level, over a real connection."""
    caplog.set_level(logging.DEBUG)

    async def respond(_, writer):
        writer.write(response_bytes(b'{"ResourceReference": {"Id": 7}}', "201 Created"))

    async with serve_with(respond) as server, connect(base_url=server.url) as connection:
        await connection.execute(CREATE)

    text = " ".join(record.getMessage() for record in caplog.records)
    assert "POST /subscription: 201" in text
    assert not any(secret in text for secret in ("password", "bG9naW", "Tok3n", "h.example"))
