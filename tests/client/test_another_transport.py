"""Which promises are kept over httpx-aiohttp, and which are not: the page on the connection pool says both."""

import asyncio
import gzip
import traceback
from contextlib import asynccontextmanager

import httpx
import pytest
from attrs import evolve
from client.cutting import Cut, CuttingServer
from httpx_aiohttp import HttpxAiohttpClient
from loopback import answer_bytes, hung, running, serving, well

from callfire_async import CallFire
from callfire_async.client._operations.api_1_1 import create_subscription
from callfire_async.client._responses import MAX_ANSWER_BYTES
from callfire_async.errors import BadRequestError, NotFoundError, RequestTimeoutError, ResponseError, TransportError
from callfire_async.models import Subscription, TriggerEvent
from callfire_async.testing import FakeCallFire

WANTED = {"endpoint": "https://hooks.example.com/callfire/Tok3n", "trigger_event": TriggerEvent.OUTBOUND_TEXT_FINISHED}
NUMBER = "12135550173"


async def at_once(_):
    """Let no time pass between attempts."""


@asynccontextmanager
async def client_of(server, **settings):
    """Make a client of *server* over aiohttp, as the page says."""
    limits = httpx.Limits(max_connections=None)
    async with (
        HttpxAiohttpClient(trust_env=False, limits=limits) as http_client,
        CallFire("login", "password", base_url=server.url, http_client=http_client, **settings) as client,
    ):
        connection = client._connection
        connection._clockwork = evolve(connection._clockwork, sleep=at_once)
        yield client


async def cut_off(_, writer):
    """End the connection where the answer should begin."""
    raise ConnectionError


@pytest.fixture
async def fake_server():
    """A CallFire on loopback, whose answers can be cut."""
    async with running(CuttingServer(FakeCallFire(repeated_request_id="ignored"))) as server:
        yield server


# --- kept -------------------------------------------------------------------------------------------------


async def test_a_create_that_was_carried_out_is_found_and_not_repeated(fake_server):
    """Whatever the transport calls the end of a connection: an answer that did not come leaves it in doubt."""
    async with client_of(fake_server) as client:
        fake_server.cuts.append(Cut("answer", 0))
        reference = await client.subscriptions.create(**WANTED)

    assert [subscription.id for subscription in fake_server.fake.subscriptions] == [reference.id]


async def test_a_text_that_may_have_been_sent_is_not_sent_again():
    """Not even where the transport calls the end of a connection a timeout while connecting."""
    async with serving(cut_off) as server, client_of(server) as client:
        with pytest.raises(TransportError) as caught:
            await client.texts.send([NUMBER], "Hello")

    assert len(server.requests) == 1
    assert "the text may have been sent" in "".join(caught.value.__notes__)


async def test_the_timeout_is_to_the_last_byte():
    """A server that hangs is given up."""
    answer, _ = hung()
    async with serving(answer) as server, client_of(server, timeout=0.1, max_retries=0) as client:
        with pytest.raises(RequestTimeoutError, match=r"no whole answer within 0\.1 s"):
            await client.subscriptions.get(42)


async def test_answers_are_capped():
    """However short they are on the way."""
    bomb = gzip.compress(bytes(MAX_ANSWER_BYTES + 1))

    async def answer(_, writer):
        writer.write(answer_bytes(bomb, headers="Content-Encoding: gzip\r\n"))

    async with serving(answer) as server, client_of(server, max_retries=0) as client:
        with pytest.raises(ResponseError, match="longer than"):
            await client.subscriptions.get(42)


async def test_no_redirect_is_followed():
    """Neither httpx follows it nor aiohttp."""

    async def answer(_, writer):
        writer.write(answer_bytes(b"", "302 Found", f"Location: {elsewhere.url}\r\n"))

    async with serving(well) as elsewhere, serving(answer) as server, client_of(server, max_retries=0) as client:
        with pytest.raises(ResponseError, match="redirect"):
            await client.subscriptions.get(42)

    assert elsewhere.requests == []


async def test_the_environment_is_not_obeyed(monkeypatch, tmp_path):
    """Neither a proxy that it names nor the credentials in a file."""
    (tmp_path / ".netrc").write_text("default login other password other\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.delenv("no_proxy", raising=False)
    async with serving(well) as proxy, serving(well) as server:
        monkeypatch.setenv("http_proxy", proxy.url)
        async with client_of(server) as client:
            await client.subscriptions.get(42)

    (request,) = server.requests
    assert "Basic bG9naW46cGFzc3dvcmQ=" in request.headers
    assert proxy.requests == []


async def test_cancellations_leave_the_pool_healthy():
    """Hundreds who give up in the queue and under way keep nobody else from an answer."""
    async with serving(well) as server, client_of(server, max_connections=5) as client:
        for turns in range(20):
            tasks = [asyncio.create_task(client.subscriptions.get(42)) for _ in range(25)]
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        results = await asyncio.gather(*(client.subscriptions.get(42) for _ in range(50)))

    assert results == [Subscription(42)] * 50


# --- not kept ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "call"),
    [
        ("GET", lambda subscriptions: subscriptions.get(42)),
        ("PUT", lambda subscriptions: subscriptions.update(42, enabled=False)),
        ("DELETE", lambda subscriptions: subscriptions.delete(42)),
    ],
)
async def test_aiohttp_sends_again_what_it_holds_to_be_safe(method, call):
    """Unasked, at once and uncounted: one attempt is two requests."""
    async with serving(cut_off) as server, client_of(server, max_retries=0) as client:
        with pytest.raises(TransportError) as caught:
            await call(client.subscriptions)

    assert ([request.method for request in server.requests], caught.value.attempts) == ([method] * 2, 1)


async def test_a_delete_that_was_carried_out_is_an_error(fake_server):
    """The client does not know that it was sent before."""
    there = fake_server.fake._subscription_store.create(create_subscription({**WANTED, "request_id": "r"}).form)
    async with client_of(fake_server) as client:
        fake_server.cuts.append(Cut("answer", 0))
        with pytest.raises(NotFoundError) as caught:
            await client.subscriptions.delete(there)

    assert (caught.value.attempts, fake_server.fake.subscriptions) == (1, ())


async def test_an_update_that_was_carried_out_may_be_refused(fake_server):
    """Likewise, where a RequestId is refused the second time."""
    fake_server.fake = FakeCallFire(repeated_request_id="refused")
    there = fake_server.fake._subscription_store.create(create_subscription({**WANTED, "request_id": "r"}).form)
    async with client_of(fake_server) as client:
        fake_server.cuts.append(Cut("answer", 0))
        with pytest.raises(BadRequestError):
            await client.subscriptions.update(there, enabled=False)

    assert [subscription.enabled for subscription in fake_server.fake.subscriptions] == [False]


async def test_what_never_left_is_in_doubt():
    """Nobody listens, and a text that cannot have been sent is not tried again."""
    async with serving(well) as server:
        pass

    async with client_of(server) as client:
        with pytest.raises(TransportError, match="at attempt 1") as caught:
            await client.texts.send([NUMBER], "Hello")

    assert "may have been sent" in "".join(caught.value.__notes__)


async def test_a_connection_that_ends_is_told_as_a_timeout():
    """At once, and not after thirty seconds."""
    async with serving(cut_off) as server, client_of(server, max_retries=0) as client:
        with pytest.raises(RequestTimeoutError, match="within 30 s, while waiting for the answer"):
            await client.subscriptions.get(42)


async def test_the_cause_of_an_error_quotes_what_came_instead_of_http():
    """A phone number may be in it, and a traceback prints it."""

    async def answer(_, writer):
        writer.write(f"{NUMBER}\r\n\r\n".encode())
        await writer.drain()
        raise ConnectionError

    async with serving(answer) as server, client_of(server, max_retries=0) as client:
        with pytest.raises(TransportError) as caught:
            await client.subscriptions.get(42)

    assert NUMBER not in str(caught.value)
    assert NUMBER in "".join(traceback.format_exception(caught.value))


async def test_no_more_than_a_hundred_are_under_way():
    """A limit that was taken off is aiohttp's own."""
    async with serving(well) as server, client_of(server, max_connections=150) as client:
        await client.subscriptions.get(42)

        assert client._connection._pool.client._transport.client.connector.limit == 100
