"""The pool against respx and real servers on loopback: what is sent, tried again, given up, and left behind."""

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
from attrs import evolve
from loopback import answer_bytes, hung, serving, well

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
    """A clock that nobody has to wait for: it notes what it was asked to sleep."""

    async def sleep(self, seconds):
        self.append(seconds)


@pytest.fixture
def waits():
    """What was slept between attempts."""
    return Waits()


@pytest.fixture
def connect(waits):
    """Make connections that sleep in no time, and draw the longest jitter."""

    def make(**settings):
        connection = Connection("login", "password", **SETTINGS | settings)
        now = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
        connection._retry_hooks = evolve(connection._retry_hooks, sleep=waits.sleep, random=lambda: 1.0, now=lambda: now)
        return connection

    return make


@pytest.fixture
async def connection(connect):
    """One such connection, closed at the end."""
    async with connect() as connection:
        yield connection


@pytest.fixture
def callfire():
    """CallFire at httpx's edge: one route for all requests."""
    with respx.mock(assert_all_called=False) as network:
        yield network.route(url__startswith=BASE)


@pytest.fixture
def soon(monkeypatch):
    """Abandoned exchanges are ended soon."""
    monkeypatch.setattr(_http, "ABANDONED_SECONDS", 0.05)


# --- settings ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "kind", "words"),
    [
        ({"login": ""}, ValueError, "login and password"),
        ({"password": ""}, ValueError, "login and password"),
        ({"base_url": "http://www.callfire.com"}, ValueError, "https"),
        ({"base_url": "https://a:b@www.callfire.com"}, ValueError, "credentials"),
        ({"response_format": "yaml"}, ValueError, "'json' or 'xml'"),
        ({"timeout": 0}, ValueError, "timeout"),
        ({"max_retries": -1}, ValueError, "max_retries"),
        ({"max_connections": 0}, ValueError, "max_connections"),
        ({"http_client": httpx.Client}, TypeError, "AsyncClient"),
    ],
)
def test_a_setting_out_of_its_range_is_refused(settings, kind, words):
    """At once, with what to do about it."""
    with pytest.raises(kind, match=words):
        Connection(**{"login": "login", "password": "password"} | SETTINGS | settings)


@pytest.mark.parametrize("setting", [{"trust_env": True}, {"ssl_context": SETTINGS["ssl_context"]}])
async def test_a_pool_of_ones_own_has_settings_of_its_own(setting):
    """What would have no effect is refused."""
    async with httpx.AsyncClient(verify=SETTINGS["ssl_context"]) as http_client:
        with pytest.raises(TypeError, match="cannot be used with http_client: configure that client"):
            Connection("login", "password", http_client=http_client, **setting)


async def test_no_credentials_are_printed():
    """Neither login nor password, as they are or encoded, in a repr or in what the object holds."""
    async with Connection("my-login", "my-password", **SETTINGS) as connection:
        printed = f"{connection!r} {connection} {vars(connection)} {vars(connection._transport)}"

    assert repr(connection) == "Connection('***', '***', base_url='http://localhost/rest')"
    assert not any(secret in printed for secret in ("my-login", "my-password", "bXktbG9naW"))


async def test_by_default_certificates_are_checked_against_certifi():
    """A context is made where none is given."""
    async with Connection("login", "password") as connection:
        assert connection._base_url == "https://www.callfire.com/api/1.1/rest"


# --- what is sent -----------------------------------------------------------------------------------------


async def test_a_request_carries_credentials_and_names_the_library(connection, callfire):
    """HTTP Basic, without waiting to be asked; nothing compressed is asked for."""
    callfire.mock(FOUND)

    await connection.execute(GET)

    request = callfire.calls.last.request
    assert request.headers["Authorization"] == "Basic bG9naW46cGFzc3dvcmQ="
    assert request.headers["User-Agent"].startswith("callfire-async/")
    assert " python/3." in request.headers["User-Agent"]
    assert request.headers["Accept-Encoding"] == "identity"
    assert str(request.url) == f"{BASE}/subscription/42.json"


async def test_credentials_are_sent_as_utf_8(connect, callfire):
    """A password with letters beyond ASCII opens the account too."""
    callfire.mock(FOUND)

    async with Connection("login", "pässword", **SETTINGS) as connection:
        await connection.execute(GET)

    assert callfire.calls.last.request.headers["Authorization"] == "Basic bG9naW46cMOkc3N3b3Jk"


@pytest.mark.parametrize(("installed", "named"), [("1.2.3", "1.2.3"), (None, "unknown")])
async def test_a_version_that_nobody_installed_is_unknown(monkeypatch, installed, named):
    """The library runs from a folder too."""

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
    """With its content type; the path asks for the format."""
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
async def test_a_request_names_its_host_and_how_long_it_is(connect, operation, lengths):
    """Nothing is said of the length of a body that there is not."""
    async with serving(well) as server, connect(base_url=server.url) as connection:
        await connection.execute(operation)

    (request,) = server.requests
    lines = request.headers.splitlines()
    assert lines[1] == f"Host: {server.url.removeprefix('http://')}"
    assert [line for line in lines if line.lower().startswith(("content-length", "transfer-"))] == lengths
    assert request.body == (operation.content() or b"")


async def test_cookies_are_neither_kept_nor_sent_back(connect):
    """However many an answer sets, a client that lives for months does not grow of them."""

    async def answer(_, writer):
        writer.write(answer_bytes(headers="Set-Cookie: seen=1; Path=/\r\n"))

    async with serving(answer) as server, connect(base_url=server.url) as connection:
        await connection.execute(GET)
        await connection.execute(GET)
        kept = list(connection._transport.client.cookies.jar)

    assert kept == []
    assert not any("cookie" in request.headers.lower() for request in server.requests)


async def test_the_environment_is_not_obeyed_unless_asked(monkeypatch, connect):
    """A proxy that the environment names is used with `trust_env` only."""
    async with serving(well) as proxy, serving(well) as server:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        async with connect(base_url=server.url) as direct, connect(base_url=server.url, trust_env=True) as proxied:
            await direct.execute(GET)
            await proxied.execute(GET)

        assert (len(server.requests), len(proxy.requests)) == (1, 1)


# --- an injected client -----------------------------------------------------------------------------------


@pytest.fixture
async def http_client():
    """A client of the caller's, with everything that must not be obeyed."""
    transport = httpx.MockTransport(lambda request: httpx.Response(302, headers={"Location": "https://evil.example/"}))
    async with httpx.AsyncClient(
        transport=transport, follow_redirects=True, auth=("other", "other"), headers={"X-Own": "1"}
    ) as client:
        yield client


async def test_redirects_are_never_followed(http_client, connect):
    """Not even by a client that follows them: the credentials would go along."""
    connection = connect(http_client=http_client, ssl_context=None)

    with pytest.raises(ResponseError, match="redirects are never followed") as caught:
        await connection.execute(GET)

    assert (caught.value.status_code, caught.value.method, caught.value.path) == (302, "GET", "/subscription/42")


async def test_an_injected_client_is_never_closed(http_client, connect):
    """Whoever made it closes it."""
    async with connect(http_client=http_client, ssl_context=None):
        pass

    assert not http_client.is_closed


async def test_an_injected_client_that_was_closed_is_named(http_client, connect):
    """The error says what to do about it."""
    connection = connect(http_client=http_client, ssl_context=None)
    await http_client.aclose()

    with pytest.raises(ClientClosedError, match="http_client is closed: close it after this client"):
        await connection.execute(GET)


async def test_an_injected_client_adds_to_a_request(http_client, connect):
    """Its own headers are sent, its hooks are called, and the credentials are ours."""
    seen = []

    async def hook(request):
        seen.append(request)

    http_client.event_hooks = {"request": [hook]}

    with suppress(ResponseError):
        await connect(http_client=http_client, ssl_context=None).execute(GET)

    (request,) = seen
    assert (request.headers["X-Own"], request.headers["Authorization"]) == ("1", "Basic bG9naW46cGFzc3dvcmQ=")


async def test_an_answer_that_a_hook_has_read_is_read_all_the_same(connect):
    """A hook may look at the body; what httpx has inflated is not inflated twice."""

    async def look(response):
        await response.aread()

    async def answer(_, writer):
        body = gzip.compress(b'{"Resource":{"Subscription":{"@id":42}}}')
        writer.write(answer_bytes(body, headers="Content-Encoding: gzip\r\n"))

    async with serving(answer) as server, httpx.AsyncClient(event_hooks={"response": [look]}) as http_client:
        connection = connect(base_url=server.url, http_client=http_client, ssl_context=None)
        result = await connection.execute(GET)

    assert result == SUBSCRIPTION


# --- answers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", [GET, DELETE, UPDATE], ids=str)
async def test_a_success_is_a_value(connection, callfire, operation):
    """What the operation reads of the answer is what comes back."""
    callfire.mock(FOUND)

    assert await connection.execute(operation) == (SUBSCRIPTION if operation is GET else None)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, BadRequestError), (401, AuthenticationError), (403, PermissionDeniedError), (404, NotFoundError)],
)
@pytest.mark.parametrize("operation", [GET, CREATE], ids=str)
async def test_what_will_be_answered_again_is_not_tried_again(connection, callfire, operation, status, kind):
    """An error that is ours to mend is raised at once."""
    callfire.mock(httpx.Response(status))

    with pytest.raises(kind) as caught:
        await connection.execute(operation)

    assert (callfire.call_count, caught.value.attempts) == (1, 1)


async def test_what_cannot_be_read_is_named_in_the_log_once(connection, callfire, caplog):
    """One warning an answer says what was left out and where, never what stood there."""
    subscription = {"@id": 42, "Enabled": "12135551212", "SubscriptionFilter": {"Inbound": "x"}}
    callfire.mock(httpx.Response(200, json={"Resource": {"Subscription": subscription}}))

    assert await connection.execute(GET) == SUBSCRIPTION

    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert warning.name == "callfire_async.client"
    assert warning.getMessage() == (
        "GET /subscription/42: ignored unreadable fields of the response: not a boolean @ Resource.Subscription.Enabled, "
        "not a boolean @ Resource.Subscription.SubscriptionFilter.Inbound"
    )


@pytest.mark.parametrize("encoding", ["", "Content-Encoding: gzip\r\n"])
async def test_an_answer_without_end_is_not_read_to_its_end(connect, encoding, monkeypatch):
    """Reading stops at the cap, and the connection is closed."""
    monkeypatch.setattr(_http, "MAX_BODY_BYTES", 1000)

    async def endless(_, writer):
        writer.write(f"HTTP/1.1 200 OK\r\n{encoding}Transfer-Encoding: chunked\r\n\r\n".encode())
        while True:
            writer.write(b"200\r\n" + b"x" * 512 + b"\r\n")
            await writer.drain()

    async with serving(endless) as server, connect(base_url=server.url, max_retries=0) as connection:
        with pytest.raises(ResponseError) as caught:
            await connection.execute(GET)
        await server.until(lambda server: not server.open)

    assert len(caught.value.body) == 1001


# --- trying again -----------------------------------------------------------------------------------------

NEVER_SENT = [httpx.ConnectError("no"), httpx.PoolTimeout("no")]
IN_DOUBT = [
    httpx.ReadError("no"),
    httpx.WriteError("no"),
    httpx.ReadTimeout("no"),
    httpx.ConnectTimeout("no"),  # while nothing was said of connecting
    httpx.RemoteProtocolError("no"),
    ssl.SSLError("no"),
    RuntimeError("no"),
    httpx.Response(500),
    httpx.Response(503),
    httpx.Response(502, html="<html>Bad gateway</html>"),
    httpx.Response(200, text="cut sh"),
]


REPEATED = [
    (operation, failure)
    for operation in (GET, UPDATE, DELETE)
    for failure in (*NEVER_SENT, *IN_DOUBT, httpx.Response(429))
    # To the others a 200 is a success, whatever the body.
    if operation is GET or getattr(failure, "status_code", 0) != 200
]


@pytest.mark.parametrize(("operation", "failure"), REPEATED, ids=str)
async def test_what_is_safe_to_repeat_is_repeated(connection, callfire, waits, operation, failure):
    """Whatever went wrong; the backoff doubles."""
    callfire.side_effect = [failure, failure, FOUND]

    await connection.execute(operation)

    assert (callfire.call_count, waits) == (3, [0.5, 1.0])


@pytest.mark.parametrize("failure", [*NEVER_SENT, httpx.Response(429)], ids=repr)
async def test_a_create_that_was_not_carried_out_is_repeated(connection, callfire, failure):
    """It never left, or it was turned away: nobody has to look."""
    callfire.side_effect = [failure, MADE]

    async def recover():
        raise AssertionError

    assert await connection.execute(CREATE, recover=recover) == ResourceReference(7)
    assert callfire.call_count == 2


@pytest.mark.parametrize("failure", IN_DOUBT, ids=repr)
async def test_what_is_not_safe_to_repeat_is_not_repeated(connection, callfire, failure):
    """The error says that it may have been carried out."""
    callfire.side_effect = [failure]

    with pytest.raises(CallFireError) as caught:
        await connection.execute(CREATE)

    assert caught.value.__notes__ == ["POST /subscription may have been executed"]


@pytest.mark.parametrize("failure", IN_DOUBT, ids=repr)
async def test_a_create_in_doubt_is_looked_for_and_adopted(connection, callfire, failure):
    """What is found is the result; nothing is sent again."""
    callfire.side_effect = [failure]

    async def recover():
        return ResourceReference(9)

    assert await connection.execute(CREATE, recover=recover) == ResourceReference(9)
    assert callfire.call_count == 1


@pytest.mark.parametrize("failure", IN_DOUBT, ids=repr)
async def test_a_create_in_doubt_that_is_not_found_is_repeated(connection, callfire, failure):
    """With the same RequestId."""
    callfire.side_effect = [failure, failure, MADE]
    looks = []

    async def recover():
        looks.append(callfire.call_count)

    assert await connection.execute(CREATE, recover=recover) == ResourceReference(7)
    assert looks == [1, 2]
    assert len({call.request.content for call in callfire.calls}) == 1


async def test_doubt_remains_after_an_attempt_that_was_turned_away(connection, callfire):
    """An attempt that was not carried out says nothing about the one before it."""
    callfire.side_effect = [httpx.Response(500), httpx.Response(429), MADE]
    looks = []

    async def recover():
        looks.append(callfire.call_count)

    await connection.execute(CREATE, recover=recover)

    assert looks == [1, 2]


async def test_a_refused_repetition_is_looked_for(connection, callfire):
    """CallFire may refuse a RequestId that it has seen: then the earlier attempt did it, a little late."""
    callfire.side_effect = [httpx.ReadError("no"), httpx.Response(400)]
    looks = iter([None, ResourceReference(9)])

    async def recover():
        return next(looks)

    assert await connection.execute(CREATE, recover=recover) == ResourceReference(9)


@pytest.mark.parametrize(("status", "kind"), [(400, BadRequestError), (503, ServerError)])
async def test_a_refused_repetition_that_is_nowhere_is_an_error(connect, callfire, status, kind):
    """With a note that it may have been executed."""
    callfire.side_effect = [httpx.ReadError("no"), httpx.Response(status)]

    async def recover():
        return None

    async with connect(max_retries=1) as connection:
        with pytest.raises(kind) as caught:
            await connection.execute(CREATE, recover=recover)

    assert (caught.value.attempts, len(caught.value.__notes__)) == (2, 1)


async def test_a_look_that_fails_leaves_the_doubt(connection, callfire, waits):
    """The create is not repeated blindly; looking is, as often as there are attempts."""
    callfire.side_effect = [httpx.ReadError("no")]
    looks = []

    async def recover():
        looks.append(1)
        raise ServerError("no", status_code=503, method="GET", path="/subscription")

    with pytest.raises(TransportError) as caught:
        await connection.execute(CREATE, recover=recover)

    assert (len(looks), callfire.call_count, len(waits)) == (3, 1, 3)
    assert (caught.value.method, caught.value.attempts) == ("POST", 1)
    assert isinstance(caught.value.__cause__, httpx.ReadError)


async def test_a_look_that_succeeds_at_last_is_adopted(connection, callfire):
    """A service that comes back tells what became of the create."""
    callfire.side_effect = [httpx.ReadError("no")]
    looks = iter(
        [TransportError("no", method="GET", path="/"), ResponseError("no", status_code=200, method="", path="")]
    )

    async def recover():
        for error in looks:
            raise error
        return ResourceReference(9)

    assert await connection.execute(CREATE, recover=recover) == ResourceReference(9)


async def test_an_error_in_a_look_that_is_not_callfires_comes_out(connection, callfire):
    """A closed client is not a doubt."""
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
async def test_a_404_to_a_delete_that_was_not_carried_out_before_is_an_error(connection, callfire, failure):
    """Then it was not there in the first place."""
    callfire.side_effect = [failure, GONE]

    with pytest.raises(NotFoundError):
        await connection.execute(DELETE)


@pytest.mark.parametrize("max_retries", [0, 1, 3])
@pytest.mark.parametrize(
    ("failure", "kind"), [(httpx.Response(503), ServerError), (httpx.ConnectError("no"), TransportError)], ids=repr
)
async def test_attempts_end(connect, callfire, max_retries, failure, kind):
    """After `max_retries` repetitions the last error comes out and says how many attempts there were."""
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
    """Seconds, fractions and dates up to a minute; what cannot be read is as if it were not there."""
    headers = {"Retry-After": header}
    answers = [httpx.Response(429, headers=headers), FOUND, httpx.Response(503, headers=headers), FOUND]
    callfire.side_effect = answers

    await connection.execute(GET)
    await connection.execute(GET)

    assert waits == [waited, waited]


@pytest.mark.parametrize(("status", "kind"), [(429, RateLimitError), (503, ServerError)])
async def test_a_long_retry_after_is_left_to_the_caller(connection, callfire, waits, status, kind):
    """The error comes at once and says how long."""
    callfire.mock(httpx.Response(status, headers={"Retry-After": "61"}))

    with pytest.raises(kind) as caught:
        await connection.execute(GET)

    assert (caught.value.retry_after, waits) == (61.0, [])


async def test_jitter_is_full(connection, callfire, waits):
    """Any wait from nothing to the backoff is drawn."""
    connection._retry_hooks = evolve(connection._retry_hooks, random=iter([0.25, 0.5]).__next__)
    callfire.side_effect = [httpx.Response(503), httpx.Response(503), FOUND]

    await connection.execute(GET)

    assert waits == [0.125, 0.5]


async def test_the_retry_hooks_of_a_connection_is_the_real_one():
    """Nothing is left to be wound up by whoever uses it."""
    async with Connection("login", "password", **SETTINGS) as connection:
        clockwork = connection._retry_hooks

    assert clockwork.now().tzinfo is UTC
    assert 0 <= clockwork.random() < 1
    assert clockwork.sleep is asyncio.sleep


# --- errors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", [*NEVER_SENT, *IN_DOUBT[:7]], ids=repr)
async def test_whatever_fails_below_is_an_error_of_ours(connect, callfire, failure):
    """With method, path and attempts, and the cause behind it; a timeout is told apart."""
    callfire.side_effect = [failure] * 2

    async with connect(max_retries=1) as connection:
        with pytest.raises(TransportError) as caught:
            await connection.execute(GET)

    error = caught.value
    timed_out = isinstance(failure, httpx.TimeoutException)
    assert isinstance(error, RequestTimeoutError) is timed_out
    assert (error.method, error.path, error.attempts, error.__cause__) == ("GET", "/subscription/42", 2, failure)
    failed = rf"failed with {type(failure).__name__} after 0\.\d{{3}} s"
    what = "got no complete response within 30 s" if timed_out else failed
    while_what = "connecting" if failure in NEVER_SENT else "waiting for the response"
    assert re.fullmatch(rf"GET /subscription/42 {what}, while {while_what} \(attempt 2\)", str(error))


async def test_a_port_where_nobody_listens_is_never_sent(connect, waits):
    """A create is tried again, since it cannot have been carried out."""
    async with serving(well) as server:
        pass

    async with connect(base_url=server.url) as connection:
        words = r"failed with ConnectError after .*, while connecting \(attempt 4\)"
        with pytest.raises(TransportError, match=words) as caught:
            await connection.execute(CREATE)

    assert not hasattr(caught.value, "__notes__")


# --- time -------------------------------------------------------------------------------------------------


async def test_a_server_that_hangs_is_given_up(connect):
    """The error says how long, while what, and which attempt."""
    answer, _ = hung()
    async with serving(answer) as server, connect(base_url=server.url, timeout=0.05, max_retries=1) as connection:
        with pytest.raises(RequestTimeoutError) as caught:
            await connection.execute(GET)

    assert str(caught.value) == (
        "GET /subscription/42 got no complete response within 0.05 s, while waiting for the response (attempt 2)"
    )
    assert isinstance(caught.value.__cause__, TimeoutError)


async def test_an_answer_that_drips_is_given_up(connect):
    """The timeout is for the whole answer, not for the pause between two bytes."""

    async def drip(_, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.005)

    async with serving(drip) as server, connect(base_url=server.url, timeout=0.1, max_retries=0) as connection:
        with pytest.raises(RequestTimeoutError, match=r"within 0\.1 s, while reading the response \(attempt 1\)"):
            await connection.execute(GET)


async def test_an_answer_that_ends_too_early_was_being_read_whatever_the_transport_says(connect):
    """One that says nothing of what it does has at least handed over a status."""

    async def broken():
        yield b"{"
        raise httpx.ReadError("no")

    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=broken()))
    async with httpx.AsyncClient(transport=transport) as http_client:
        connection = connect(http_client=http_client, ssl_context=None, max_retries=0)
        with pytest.raises(TransportError, match=r"ReadError .*, while reading the response \(attempt 1\)"):
            await connection.execute(GET)


async def test_an_error_that_is_its_own_cause_is_told_all_the_same(connect):
    """A hook or a transport of the caller's may say ``raise error from error``."""

    def fail(_: httpx.Request) -> httpx.Response:
        error = OSError("broken")
        raise error from error

    async with httpx.AsyncClient(transport=httpx.MockTransport(fail)) as http_client:
        connection = connect(http_client=http_client, ssl_context=None, max_retries=0)
        with pytest.raises(TransportError, match="failed with OSError"):
            await connection.execute(GET)


async def test_a_server_that_does_not_take_connections_was_never_sent_anything(connect):
    """A handshake that hangs is a timeout while connecting: even a create is repeated, and no socket is left."""
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
        with pytest.raises(RequestTimeoutError, match=r"while connecting \(attempt 2\)"):
            await connection.execute(CREATE)
        async with asyncio.timeout(5):
            await asyncio.gather(*(end.wait() for end in ends))


async def test_a_limit_for_the_whole_call_is_the_callers(connect):
    """`asyncio.timeout` ends it at once, in the middle of an attempt."""
    answer, _ = hung()
    async with serving(answer) as server, connect(base_url=server.url, timeout=0.3) as connection:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await connection.execute(GET)


# --- pressure ---------------------------------------------------------------------------------------------


async def test_no_more_requests_are_under_way_than_allowed(connect):
    """The others wait, and come in order."""
    busy, most, order = 0, 0, []

    async def answer(request, writer):
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        order.append(request.target)
        await asyncio.sleep(0)
        busy -= 1
        writer.write(answer_bytes())

    async with serving(answer) as server, connect(base_url=server.url, max_connections=3) as connection:
        await asyncio.gather(*(connection.execute(get_subscription(number)) for number in range(1, 31)))

    assert most <= 3
    assert sorted(order[3:], key=order.index) == [f"/subscription/{number}.json" for number in range(4, 31)]


async def test_who_waits_too_long_is_told_how_many_were_ahead(connect, soon):
    """The request never left."""
    answer, arrived = hung()
    async with serving(answer) as server, connect(base_url=server.url, max_connections=1, max_retries=0) as connection:
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


async def test_a_cancelled_caller_leaves_at_once_and_the_exchange_ends(connect, soon):
    """Nobody waits for a hung server, and it does not keep its connection."""
    answer, arrived = hung()
    async with serving(answer) as server, connect(base_url=server.url, max_connections=1) as connection:
        task = asyncio.create_task(connection.execute(GET))
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        await server.until(lambda server: not server.open)
        assert len(server.requests) == 1


async def test_an_abandoned_exchange_that_is_answered_keeps_its_connection(connect):
    """What ends by itself leaves the pool as it was."""
    arrived, go = asyncio.Event(), asyncio.Event()

    async def answer(_, writer):
        arrived.set()
        await go.wait()
        writer.write(answer_bytes())

    async with serving(answer) as server, connect(base_url=server.url, max_connections=1) as connection:
        task = asyncio.create_task(connection.execute(GET))
        await arrived.wait()
        task.cancel()
        await asyncio.wait([task])
        go.set()

        assert await connection.execute(GET) == SUBSCRIPTION
        assert (len(server.requests), server.open) == (2, 1)


async def test_the_failure_of_an_abandoned_exchange_is_retrieved(connect, caplog):
    """Nothing is said of exceptions that nobody retrieved."""
    arrived, go = asyncio.Event(), asyncio.Event()

    async def answer(_, writer):
        arrived.set()
        await go.wait()
        raise ConnectionError

    async with serving(answer) as server, connect(base_url=server.url) as connection:
        task = asyncio.create_task(connection.execute(GET))
        await arrived.wait()
        task.cancel()
        await asyncio.wait([task])
        go.set()
        await server.until(lambda server: not server.open)
    del task
    gc.collect()

    assert not [record for record in caplog.records if record.name == "asyncio" and record.levelno > logging.DEBUG]


async def test_who_is_cancelled_while_waiting_for_a_turn_leaves_the_queue(connect):
    """The request is never sent, and the next one has its turn."""
    arrived, go = asyncio.Event(), asyncio.Event()

    async def answer(_, writer):
        arrived.set()
        await go.wait()
        writer.write(answer_bytes())

    async with serving(answer) as server, connect(base_url=server.url, max_connections=1) as connection:
        first = asyncio.create_task(connection.execute(get_subscription(1)))
        await arrived.wait()
        second, third = (asyncio.create_task(connection.execute(get_subscription(number))) for number in (2, 3))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.wait([second])
        go.set()
        await asyncio.gather(first, third)

    assert [request.target for request in server.requests] == ["/subscription/1.json", "/subscription/3.json"]


async def test_an_exchange_abandoned_while_it_is_being_ended_stays_so(connect, soon):
    """A cancellation that comes together with the timeout changes nothing."""
    answer, arrived = hung()
    async with serving(answer) as server, connect(base_url=server.url) as connection:
        exchanging = connection._transport.request("GET", server.url, headers={}, content=None, timeout=5)
        task = asyncio.create_task(exchanging)
        await arrived.wait()
        (exchange,) = connection._transport._in_flight.values()
        exchange.abandon(0)
        await asyncio.sleep(0)
        exchange.abandon(0)
        with pytest.raises(RequestFailedError) as caught:
            await task

    assert caught.value.timed_out


async def test_an_exchange_that_was_abandoned_before_it_began_has_its_time_cut(connection):
    """It starts with the shorter limit."""
    exchange = _http._InFlightRequest(connection._transport.client, httpx.Request("GET", BASE), 70.0, 30.0)

    exchange.abandon(50.0)

    assert exchange.deadline == 50.0


async def test_a_task_group_that_fails_takes_its_requests_with_it(connect, soon):
    """The others are cancelled, and the pool is as good as new."""
    answer, arrived = hung()

    async def fail():
        await arrived.wait()
        raise LookupError

    async def work(connection):
        async with asyncio.TaskGroup() as group:
            group.create_task(connection.execute(GET))
            group.create_task(fail())

    async with serving(answer) as server, connect(base_url=server.url) as connection:
        with pytest.raises(ExceptionGroup):
            await work(connection)

        await server.until(lambda server: not server.open)


@pytest.mark.parametrize("steps", [0, 1, 20])
async def test_what_is_cancelled_with_everything_else_ends(connect, caplog, steps):
    """`asyncio.run` cancels all tasks at its end, ours among them, begun or not: no noise, no socket."""
    answer, _ = hung()
    async with serving(answer) as server, connect(base_url=server.url) as connection:
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


# --- the end ----------------------------------------------------------------------------------------------


async def test_closing_waits_for_what_is_in_flight(connect):
    """It gets its answer; then no socket is left."""
    arrived, go = asyncio.Event(), asyncio.Event()

    async def answer(_, writer):
        arrived.set()
        await go.wait()
        writer.write(answer_bytes())

    async with serving(answer) as server:
        connection = connect(base_url=server.url)
        request = asyncio.create_task(connection.execute(GET))
        await arrived.wait()
        closing = asyncio.create_task(connection.aclose())
        await asyncio.sleep(0)
        go.set()
        await closing
        await server.until(lambda server: not server.open)

        assert await request == SUBSCRIPTION


async def test_closing_is_bounded(connect, soon):
    """What hangs is ended by its timeout."""
    answer, arrived = hung()
    async with serving(answer) as server:
        connection = connect(base_url=server.url, timeout=0.1)
        request = asyncio.create_task(connection.execute(GET))
        await arrived.wait()
        await connection.aclose()
        await server.until(lambda server: not server.open)

        with pytest.raises(ClientClosedError, match="closed"):
            await request


async def test_closing_goes_on_when_its_caller_is_cancelled(connect, soon):
    """Nothing is left half closed; closing once more waits for the end."""
    answer, arrived = hung()
    async with serving(answer) as server:
        connection = connect(base_url=server.url, timeout=0.1, max_retries=0)
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


async def test_who_waits_for_a_turn_when_it_closes_is_turned_away(connect, soon):
    """It was never sent, and the error says why."""
    arrived, go = asyncio.Event(), asyncio.Event()

    async def answer(_, writer):
        arrived.set()
        await go.wait()
        writer.write(answer_bytes())

    async with serving(answer) as server:
        connection = connect(base_url=server.url, max_connections=1)
        first, second = (asyncio.create_task(connection.execute(GET)) for _ in range(2))
        await arrived.wait()
        closing = asyncio.create_task(connection.aclose())
        await asyncio.sleep(0)
        go.set()
        results = await asyncio.gather(first, second, closing, return_exceptions=True)

    assert results[0] == SUBSCRIPTION
    assert isinstance(results[1], ClientClosedError)


async def test_after_closing_a_call_says_that_it_was_closed(connect):
    """Closing twice is as good as once."""
    connection = connect()
    await connection.aclose()
    await connection.aclose()

    with pytest.raises(ClientClosedError, match="is closed: create a new one"):
        await connection.execute(GET)
    with pytest.raises(ClientClosedError, match="is closed"):
        async with connection:
            pass


async def test_a_call_that_sleeps_between_attempts_notices_the_end(connect, callfire):
    """It makes no further attempt."""
    connection = connect()
    connection._retry_hooks = evolve(connection._retry_hooks, sleep=lambda _: connection.aclose())
    callfire.mock(httpx.Response(503))

    with pytest.raises(ClientClosedError):
        await connection.execute(GET)

    assert callfire.call_count == 1


def test_a_connection_is_made_anywhere_and_used_in_one_loop(connect, callfire):
    """In a second loop, a call and closing say what happened and what to do."""
    connection = connect()
    callfire.mock(FOUND)

    with asyncio.Runner() as runner:
        assert runner.run(connection.execute(GET)) == SUBSCRIPTION
        with pytest.raises(ClientClosedError, match=r"another event loop.*create one client in each loop"):
            asyncio.run(connection.execute(GET))
        with pytest.raises(ClientClosedError, match="another event loop"):
            asyncio.run(connection.aclose())
        runner.run(connection.aclose())


async def test_after_a_fork_a_call_says_so(connection, monkeypatch):
    """The sockets belong to the parent."""
    parent = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: parent + 1)

    with pytest.raises(ClientClosedError, match=r"fork.*create one client in each process"):
        await connection.execute(GET)

    monkeypatch.undo()


def said_of(make):
    """Make a client, lose it, and return what is said of that."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        make()
        gc.collect()
    return said


def test_a_forgotten_close_is_warned_of_where_the_client_was_made():
    """The warning stands at the line, outside of this library, that made it, and says what to do."""

    def make():
        return Connection("login", "password", **SETTINGS).with_options(timeout=1)

    (warning,) = said_of(make)

    line = make.__code__.co_firstlineno + 1
    assert (warning.category, warning.filename, warning.lineno) == (ResourceWarning, __file__, line)
    assert str(warning.message) == (
        f"the CallFire client created at {__file__}:{line} was never closed: use async with or await aclose()"
    )


def test_a_close_forgotten_until_the_end_is_warned_of(tmp_path):
    """A client that lives in a module is lost when the interpreter ends."""
    script = tmp_path / "service.py"
    script.write_text("from callfire_async import CallFire\n\ncallfire = CallFire('login', 'password')\n")

    result = subprocess.run([sys.executable, "-W", "default", script], check=True, capture_output=True, text=True)

    assert f"{script}:3: ResourceWarning: the CallFire client created at {script}:3 was never closed" in result.stderr


def test_nothing_is_said_of_a_client_that_was_closed():
    """Nor of the views on it."""

    async def use():
        async with Connection("login", "password", **SETTINGS) as connection:
            return connection.with_options(timeout=1)

    assert not said_of(lambda: asyncio.run(use()))


async def test_nothing_is_said_of_an_injected_client(http_client):
    """It holds nothing of its own."""
    assert not said_of(lambda: Connection("login", "password", base_url=BASE, http_client=http_client))


def test_nothing_is_said_after_a_fork(monkeypatch):
    """What a child process inherits is its parent's to close."""
    parent = os.getpid()

    def make():
        connection = Connection("login", "password", **SETTINGS)
        monkeypatch.setattr(os, "getpid", lambda: parent + 1)
        return connection

    assert not said_of(make)


async def test_a_view_has_its_own_options_on_the_same_pool(connection, callfire):
    """The connection keeps its own."""
    callfire.side_effect = [httpx.Response(503), httpx.Response(503), FOUND]
    view = connection.with_options(timeout=1, max_retries=0)

    with pytest.raises(ServerError):
        await view.execute(GET)
    assert await connection.execute(GET) == SUBSCRIPTION
    assert view._transport is connection._transport
    assert (view._timeout, connection._timeout) == (1, 30.0)


@pytest.mark.parametrize("options", [{"timeout": 0}, {"max_retries": -1}])
async def test_options_out_of_their_range_are_refused(connection, options):
    """As in the constructor."""
    with pytest.raises(ValueError, match=next(iter(options))):
        connection.with_options(**options)


async def test_no_options_change_nothing(connect):
    """A view without options is the same again."""
    async with connect(timeout=3, max_retries=1) as connection:
        view = connection.with_options()

    assert (view._timeout, view._max_retries) == (3, 1)


# --- logs -------------------------------------------------------------------------------------------------


async def test_each_request_is_one_line_and_each_retry_another(connection, callfire, caplog):
    """With method, path, status, attempt and milliseconds; the query and the body are in neither."""
    caplog.set_level(logging.DEBUG)
    callfire.side_effect = [httpx.Response(503), httpx.ReadError("no"), httpx.Response(200, json={"ResourceList": {}})]

    await connection.execute(QUERY)

    records = [record for record in caplog.records if record.name == "callfire_async.client"]
    lines = [(record.levelname, record.getMessage()) for record in records]
    assert [level for level, _ in lines] == ["DEBUG", "INFO", "DEBUG", "INFO", "DEBUG"]
    assert lines[0][1].startswith("GET /subscription: 503, attempt 1, ")
    assert lines[1][1] == "GET /subscription: retrying in 0.50 s after ServerError"
    assert lines[2][1].startswith("GET /subscription: no response, attempt 2, ")
    assert lines[2][1].endswith(" ms")
    assert lines[3][1] == "GET /subscription: retrying in 1.00 s after TransportError"


async def test_no_log_holds_a_query(connection, callfire, caplog):
    """Not httpx's own either, of our requests; of others it says what it always said."""
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


async def test_no_log_holds_a_secret(connect, caplog):
    """Neither credentials nor what a form says, over a real connection, at any level."""
    caplog.set_level(logging.DEBUG)

    async def answer(_, writer):
        writer.write(answer_bytes(b'{"ResourceReference": {"Id": 7}}', "201 Created"))

    async with serving(answer) as server, connect(base_url=server.url) as connection:
        await connection.execute(CREATE)

    text = " ".join(record.getMessage() for record in caplog.records)
    assert "POST /subscription: 201" in text
    assert not any(secret in text for secret in ("password", "bG9naW", "Tok3n", "h.example"))
