"""What a receiver answers to those that watch over its process, in every framework alike."""

import asyncio
from contextlib import asynccontextmanager

import httpx
import pytest
from aiohttp import web
from fastapi import FastAPI
from notifications.servers import uvicorn_server
from starlette.applications import Starlette
from starlette.routing import Mount

from callfire_async import InboxUnavailableError
from callfire_async.notifications import (
    AppendResult,
    Delivery,
    InboxStats,
    MemoryInbox,
    Notification,
    Postback,
    Receiver,
    Router,
)
from callfire_async.notifications import intake
from callfire_async.notifications.aiohttp import add_health_routes
from callfire_async.notifications.asgi import HealthApp
from callfire_async.notifications.fastapi import health_routes
from callfire_async.notifications.health import Health

TOKEN = "0123456789abcdef"
DEADLINE = 20
FINE = b'{"TextSent": {"Text": {"@id": 42}}}'


class Changeable(MemoryInbox):
    """An inbox that fails when a test wants it to."""

    is_full = is_gone = False
    oldest = 0.0

    async def append(self, delivery: Delivery) -> AppendResult:
        if self.is_full:
            raise InboxUnavailableError("no space")
        return await super().append(delivery)

    async def stats(self) -> InboxStats:
        if self.is_gone:
            raise OSError("12135551212")
        return InboxStats(ready=1, oldest_ready_age=self.oldest)


@pytest.fixture
def inbox() -> Changeable:
    return Changeable()


@pytest.fixture
def receiver(inbox: Changeable) -> Receiver:
    router = Router()

    @router.on(Notification)
    async def take(event: Notification) -> None: ...

    return Receiver(router, tokens=TOKEN, inbox=inbox)


async def post(receiver: Receiver, body: bytes) -> int:
    return (await receiver.receive(Postback("POST", TOKEN, {}, body))).status


async def test_a_receiver_that_runs_well_has_nothing_to_say(receiver):
    """It is live, ready and healthy."""
    async with receiver:
        assert await receiver.health() == Health(live=True, ready=True, healthy=True)


async def test_one_that_is_not_running_is_not_ready(receiver):
    """A restart would not help: nobody starts it."""
    assert await receiver.health() == Health(
        live=True, ready=False, healthy=False, reasons=("the receiver is not running",)
    )


async def test_without_an_inbox_there_is_nothing_to_wait_for():
    """A receiver that runs is well."""
    router = Router()
    router.fallback(_take)
    async with Receiver(router, tokens=TOKEN) as receiver:
        assert await receiver.health() == Health(live=True, ready=True, healthy=True)


async def _take(event: Notification) -> None: ...


async def test_an_old_delivery_is_a_reason(receiver, inbox):
    """The receiver takes more all the same: what it does not take is lost."""
    inbox.oldest = 301.0
    async with receiver:
        health = await receiver.health()
        patient = await receiver.health(max_age=400)

    assert health == Health(
        live=True, ready=True, healthy=False, reasons=("a delivery has been due for 301 s (max_age is 300 s)",)
    )
    assert (health.healthy, patient.healthy) == (False, True)


async def test_a_fresh_dead_letter_is_a_reason(receiver):
    """It is for somebody to look at; one bad postback does not take the endpoint away."""
    async with receiver:
        await post(receiver, b"{")
        async with asyncio.timeout(DEADLINE):
            while not receiver._intake.has_recent_dead_letters:  # noqa: ASYNC110  # this inbox cannot tell when it is idle
                await asyncio.sleep(0)
        health = await receiver.health()

    assert (health.live, health.ready, len(health.reasons)) == (True, True, 1)
    assert "dead letter" in health.reasons[0]


async def test_an_inbox_that_cannot_be_written_to_is_not_ready(receiver, inbox, monkeypatch):
    """For a while: only another postback shows whether it can be written to again."""
    inbox.is_full = True
    async with receiver:
        await post(receiver, FINE)
        full = await receiver.health()
        monkeypatch.setattr(intake, "_RETRY_STORE_SECONDS", 0.0)
        later = await receiver.health()
        inbox.is_full = False
        await post(receiver, FINE)
        again = await receiver.health()

    assert full == Health(live=True, ready=False, healthy=False, reasons=("the inbox cannot be written to",))
    assert (later.ready, later.reasons) == (True, full.reasons)
    assert again.healthy


async def test_an_inbox_that_cannot_be_read_is_a_reason(receiver, inbox):
    """In our words: its own may quote anything."""
    async with receiver:
        inbox.is_gone = True
        assert (await receiver.health()).reasons == ("the inbox cannot be read",)


async def test_a_worker_that_has_ended_is_not_live(receiver):
    """Nothing starts it again but a restart."""
    async with receiver:
        claiming, _ = receiver._intake._worker._tasks
        claiming.cancel()
        await asyncio.wait([claiming])
        health = await receiver.health()

    assert (health.live, health.ready) == (False, False)
    assert health.reasons == ("the worker has stopped claiming deliveries",)


@asynccontextmanager
async def by_aiohttp(receiver):
    app = web.Application()
    add_health_routes(app, receiver, "/health", max_age=10)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@asynccontextmanager
async def by_fastapi(receiver):
    app = FastAPI()
    app.include_router(health_routes(receiver, max_age=10))
    async with uvicorn_server(app) as port:
        yield port


@asynccontextmanager
async def by_asgi(receiver):
    async with uvicorn_server(Starlette(routes=[Mount("/health", HealthApp(receiver, max_age=10))])) as port:
        yield port


@pytest.mark.parametrize("serve", [by_aiohttp, by_fastapi, by_asgi])
async def test_every_framework_answers_alike(receiver, inbox, serve):
    """200, or 503 with the reasons; and nobody keeps the answer."""
    async with serve(receiver) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:

        async def ask(path: str) -> tuple[int, str]:
            response = await client.get(path, follow_redirects=True)
            assert response.headers["Cache-Control"] == "no-store"
            assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
            return response.status_code, response.text

        stopped = [await ask(path) for path in ("/health", "/health/live", "/health/ready")]
        async with receiver:
            inbox.oldest = 11.0
            waiting = [await ask(path) for path in ("/health", "/health/live", "/health/ready")]
            inbox.oldest = 9.0
            well = await ask("/health")

    said = "the receiver is not running\n"
    assert stopped == [(503, said), (200, "ok\n"), (503, said)]
    assert waiting == [(503, "a delivery has been due for 11 s (max_age is 10 s)\n"), (200, "ok\n"), (200, "ok\n")]
    assert well == (200, "ok\n")


@pytest.mark.parametrize("serve", [by_aiohttp, by_fastapi, by_asgi])
async def test_nothing_else_is_answered(receiver, serve):
    """There are three questions."""
    async with serve(receiver) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        assert (await client.get("/health/dead")).status_code == 404


async def test_a_websocket_is_closed():
    """As by the receiver's own application."""
    sent = []

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    await HealthApp(None)({"type": "websocket"}, None, send)

    assert sent == [{"type": "websocket.close"}]
