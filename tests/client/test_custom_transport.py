"""`http_client=` with a transport that emits no trace events: the client does not know how far a request came."""

import asyncio
import gzip
from contextlib import asynccontextmanager

import pytest
from attrs import evolve
from client.cutting import Cut, CuttingServer
from loopback import hanging_response, respond_success, response_bytes, run_server, serve_with

from callfire_async import CallFire
from callfire_async.client._operations.api_1_1 import create_subscription
from callfire_async.client._responses import MAX_BODY_BYTES
from callfire_async.errors import RequestTimeoutError, ResponseError, TransportError
from callfire_async.models import Subscription, TriggerEvent
from callfire_async.testing import FakeCallFire

SPEC = {"endpoint": "https://hooks.example.com/callfire/Tok3n", "trigger_event": TriggerEvent.OUTBOUND_TEXT_FINISHED}
NUMBER = "12135550173"


def untraced_transport(library):
    """Return the library's own transport without its trace events."""

    class UntracedTransport(library.AsyncHTTPTransport):
        async def handle_async_request(self, request):
            del request.extensions["trace"]
            return await super().handle_async_request(request)

    return UntracedTransport(limits=library.Limits(max_connections=None))


async def no_sleep(_):
    """Retry without a delay."""


@pytest.fixture
def client_of(library):
    """Return a function that creates a client of a server over the custom transport."""

    @asynccontextmanager
    async def client_of(server, **settings):
        async with (
            library.AsyncClient(transport=untraced_transport(library)) as http_client,
            CallFire("login", "password", base_url=server.url, http_client=http_client, **settings) as client,
        ):
            connection = client._connection
            connection._retry_hooks = evolve(connection._retry_hooks, sleep=no_sleep)
            yield client

    return client_of


async def cut_off(_, writer):
    """Close the connection instead of responding."""
    raise ConnectionError


@pytest.fixture
async def fake_server():
    """A fake CallFire on loopback, whose responses can be cut."""
    async with run_server(CuttingServer(FakeCallFire(repeated_request_id="ignored"))) as server:
        yield server


async def test_a_create_that_was_executed_is_found_and_not_repeated(client_of, fake_server):
    """Without a response, the outcome of the create is unknown."""
    async with client_of(fake_server) as client:
        fake_server.cuts.append(Cut("answer", 0))
        reference = await client.subscriptions.create(**SPEC)

    assert [subscription.id for subscription in fake_server.fake.subscriptions] == [reference.id]


async def test_a_delete_that_was_executed_succeeds(client_of, fake_server):
    """The repetition gets a 404, which is a success after an unknown outcome."""
    subscription_id = fake_server.fake._subscription_store.create(create_subscription({**SPEC, "request_id": "r"}).form)
    async with client_of(fake_server) as client:
        fake_server.cuts.append(Cut("answer", 0))
        await client.subscriptions.delete(subscription_id)

    assert fake_server.fake.subscriptions == ()


async def test_a_text_that_may_have_been_sent_is_not_sent_again(client_of):
    """The error has a note."""
    async with serve_with(cut_off) as server, client_of(server) as client:
        with pytest.raises(TransportError) as caught:
            await client.texts.send([NUMBER], "Hello")

    assert len(server.requests) == 1
    assert "the text may have been sent" in "".join(caught.value.__notes__)


async def test_a_refused_connection_is_retried(client_of):
    """`ConnectError` proves that nothing was sent, so even a text is retried."""
    async with serve_with(respond_success) as server:
        pass

    async with client_of(server) as client:
        with pytest.raises(TransportError, match=r"while connecting to .*connection refused \(attempt 4\)") as caught:
            await client.texts.send([NUMBER], "Hello")

    assert not hasattr(caught.value, "__notes__")


async def test_the_timeout_covers_the_whole_response(client_of):
    """A request to a server that hangs ends."""
    respond, _ = hanging_response()
    async with serve_with(respond) as server, client_of(server, timeout=0.1, max_retries=0) as client:
        with pytest.raises(RequestTimeoutError, match=r"no complete response within 0\.1 s"):
            await client.subscriptions.get(42)


async def test_responses_are_capped(client_of):
    """Even if they are short before decompression."""
    bomb = gzip.compress(bytes(MAX_BODY_BYTES + 1))

    async def respond(_, writer):
        writer.write(response_bytes(bomb, headers="Content-Encoding: gzip\r\n"))

    async with serve_with(respond) as server, client_of(server, max_retries=0) as client:
        with pytest.raises(ResponseError, match="longer than"):
            await client.subscriptions.get(42)


async def test_redirects_are_not_followed(client_of):
    """The other server gets no request."""

    async def respond(_, writer):
        writer.write(response_bytes(b"", "302 Found", f"Location: {elsewhere.url}\r\n"))

    async with (
        serve_with(respond_success) as elsewhere,
        serve_with(respond) as server,
        client_of(server, max_retries=0) as client,
    ):
        with pytest.raises(ResponseError, match="redirects are never followed"):
            await client.subscriptions.get(42)

    assert elsewhere.requests == []


async def test_the_environment_is_ignored(client_of, monkeypatch, tmp_path):
    """Neither its proxy nor the credentials in a netrc file are used."""
    (tmp_path / ".netrc").write_text("default login other password other\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.delenv("no_proxy", raising=False)
    async with serve_with(respond_success) as proxy, serve_with(respond_success) as server:
        monkeypatch.setenv("http_proxy", proxy.url)
        async with client_of(server) as client:
            await client.subscriptions.get(42)

    (request,) = server.requests
    assert "Basic bG9naW46cGFzc3dvcmQ=" in request.headers
    assert proxy.requests == []


async def test_cancellations_leave_the_pool_usable(client_of):
    """After hundreds of cancelled callers, in the queue and in flight, all others get a response."""
    async with serve_with(respond_success) as server, client_of(server, max_connections=5) as client:
        for turns in range(20):
            tasks = [asyncio.create_task(client.subscriptions.get(42)) for _ in range(25)]
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        results = await asyncio.gather(*(client.subscriptions.get(42) for _ in range(50)))

    assert results == [Subscription(42)] * 50
