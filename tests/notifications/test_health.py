"""Health, liveness and readiness, and the health routes of each framework."""

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
    intake,
)
from callfire_async.notifications.aiohttp import add_health_routes
from callfire_async.notifications.asgi import HealthApp
from callfire_async.notifications.fastapi import health_routes
from callfire_async.notifications.health import Health

TOKEN = "0123456789abcdef"
DEADLINE = 60
VALID = b'{"TextSent": {"Text": {"@id": 42}}}'


class FaultyInbox(MemoryInbox):
    """An inbox that fails on demand."""

    is_full = False
    read_error: BaseException | None = None
    oldest_ready_age = 0.0

    async def append(self, delivery: Delivery) -> AppendResult:
        if self.is_full:
            raise InboxUnavailableError("no space")
        return await super().append(delivery)

    async def stats(self) -> InboxStats:
        if self.read_error is not None:
            raise self.read_error
        return InboxStats(ready=1, oldest_ready_age=self.oldest_ready_age)


@pytest.fixture
def inbox() -> FaultyInbox:
    return FaultyInbox()


@pytest.fixture
def receiver(inbox: FaultyInbox) -> Receiver:
    router = Router()

    @router.on(Notification)
    async def handle(event: Notification) -> None: ...

    return Receiver(router, tokens=TOKEN, inbox=inbox)


async def post(receiver: Receiver, body: bytes) -> int:
    return (await receiver.receive(Postback("POST", TOKEN, {}, body))).status


async def test_a_running_receiver_is_live_ready_and_healthy(receiver):
    """There are no reasons."""
    async with receiver:
        assert await receiver.health() == Health(live=True, ready=True, healthy=True)


async def test_a_receiver_that_is_not_running_is_not_ready(receiver):
    """It is live, because a restart does not start it."""
    assert await receiver.health() == Health(
        live=True, ready=False, healthy=False, reasons=("the receiver is not running",)
    )


async def test_a_receiver_without_an_inbox_is_healthy():
    """It has no backlog and no dead letters."""
    router = Router()
    router.fallback(_handle)
    async with Receiver(router, tokens=TOKEN) as receiver:
        assert await receiver.health() == Health(live=True, ready=True, healthy=True)


async def _handle(event: Notification) -> None: ...


async def test_an_old_delivery_makes_a_receiver_unhealthy(receiver, inbox):
    """It stays ready, because a rejected postback is lost."""
    inbox.oldest_ready_age = 301.0
    async with receiver:
        health = await receiver.health()
        with_larger_max_age = await receiver.health(max_age=400)

    assert health == Health(
        live=True, ready=True, healthy=False, reasons=("a delivery has been due for 301 s (max_age is 300 s)",)
    )
    assert (health.healthy, with_larger_max_age.healthy) == (False, True)


async def test_a_recent_dead_letter_makes_a_receiver_unhealthy(receiver):
    """It stays live and ready."""
    async with receiver:
        await post(receiver, b"{")
        async with asyncio.timeout(DEADLINE):
            while not receiver._intake.has_recent_dead_letters:  # noqa: ASYNC110  # idle() needs this inbox's counts
                await asyncio.sleep(0)
        health = await receiver.health()

    assert (health.live, health.ready, len(health.reasons)) == (True, True, 1)
    assert "dead letter" in health.reasons[0]


async def test_a_receiver_that_cannot_store_is_not_ready(receiver, inbox, monkeypatch):
    """It is ready again after a while, because only another postback shows whether the inbox is writable."""
    inbox.is_full = True
    async with receiver:
        await post(receiver, VALID)
        full = await receiver.health()
        monkeypatch.setattr(intake, "_RETRY_STORE_SECONDS", 0.0)
        later = await receiver.health()
        inbox.is_full = False
        await post(receiver, VALID)
        recovered = await receiver.health()

    assert full == Health(live=True, ready=False, healthy=False, reasons=("the inbox cannot be written to",))
    assert (later.ready, later.reasons) == (True, full.reasons)
    assert recovered.healthy


@pytest.mark.parametrize("error", [OSError("12135551212"), asyncio.CancelledError("of the driver")])
async def test_an_unreadable_inbox_makes_a_receiver_unhealthy(receiver, inbox, error):
    """The reason does not contain the error's message, which may be private."""
    async with receiver:
        inbox.read_error = error
        assert (await receiver.health()).reasons == ("the inbox cannot be read",)


async def test_a_receiver_whose_worker_has_ended_is_not_live(receiver):
    """Only a restart helps."""
    async with receiver:
        claiming, _ = receiver._intake._worker._tasks
        claiming.cancel()
        await asyncio.wait([claiming])
        health = await receiver.health()

    assert (health.live, health.ready) == (False, False)
    assert health.reasons == ("the worker has stopped claiming deliveries",)


@asynccontextmanager
async def serve_aiohttp(receiver):
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
async def serve_fastapi(receiver):
    app = FastAPI()
    app.include_router(health_routes(receiver, max_age=10))
    async with uvicorn_server(app) as port:
        yield port


@asynccontextmanager
async def serve_asgi(receiver):
    async with uvicorn_server(Starlette(routes=[Mount("/health", HealthApp(receiver, max_age=10))])) as port:
        yield port


@pytest.mark.parametrize("serve", [serve_aiohttp, serve_fastapi, serve_asgi])
async def test_all_frameworks_return_the_same_responses(receiver, inbox, serve):
    """200, or 503 with the reasons, and never cached."""
    async with serve(receiver) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:

        async def check(path: str) -> tuple[int, str]:
            response = await client.get(path, follow_redirects=True)
            assert response.headers["Cache-Control"] == "no-store"
            assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
            return response.status_code, response.text

        stopped = [await check(path) for path in ("/health", "/health/live", "/health/ready")]
        async with receiver:
            inbox.oldest_ready_age = 11.0
            waiting = [await check(path) for path in ("/health", "/health/live", "/health/ready")]
            inbox.oldest_ready_age = 9.0
            healthy = await check("/health")

    reason = "the receiver is not running\n"
    assert stopped == [(503, reason), (200, "ok\n"), (503, reason)]
    assert waiting == [(503, "a delivery has been due for 11 s (max_age is 10 s)\n"), (200, "ok\n"), (200, "ok\n")]
    assert healthy == (200, "ok\n")


@pytest.mark.parametrize("serve", [serve_aiohttp, serve_fastapi, serve_asgi])
async def test_another_path_is_not_found(receiver, serve):
    """There are three health checks."""
    async with serve(receiver) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        assert (await client.get("/health/dead")).status_code == 404


async def test_a_websocket_is_closed():
    """`HealthApp` closes it."""
    sent = []

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    await HealthApp(None)({"type": "websocket"}, None, send)

    assert sent == [{"type": "websocket.close"}]
