"""What is logged if a postback arrives while the receiver is not running, for each reason that it is not started."""

import logging

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from fastapi import FastAPI
from fastapi.testclient import TestClient
from notifications.servers import ADAPTERS, Endpoint, uvicorn_server
from notifications.test_adapters import TOKEN, post
from starlette.applications import Starlette
from starlette.routing import Mount

from callfire_async.notifications import Notification, Postback, Receiver, Router
from callfire_async.notifications.aiohttp import add_notification_routes
from callfire_async.notifications.asgi import NotificationApp
from callfire_async.notifications.fastapi import notification_routes


@pytest.fixture
def receiver() -> Receiver:
    router = Router()

    @router.on(Notification)
    async def handle(event: Notification) -> None: ...

    return Receiver(router, tokens=TOKEN)


def advice(caplog: pytest.LogCaptureFixture) -> str:
    (record,) = [record for record in caplog.records if record.name == "callfire_async.receiver"]
    assert record.levelno == logging.ERROR
    return record.getMessage()


async def test_a_server_without_lifespan_events(receiver, caplog):
    """The advice is about the server, not about a mount."""
    async with uvicorn_server(NotificationApp(receiver), lifespan="off") as port:
        statuses = [await post(Endpoint(port, "")) for _ in range(2)]

    assert statuses == [503, 503]
    assert "--lifespan off" in advice(caplog)
    assert "mounted" not in advice(caplog)


async def test_a_dispatch_function_that_passes_on_no_lifespan_events(receiver, caplog):
    """As in the asgi.py of a Django project."""
    notification_app = NotificationApp(receiver)

    async def application(scope: dict, receive: object, send: object) -> None:
        if scope["type"] == "http":
            await notification_app(scope | {"root_path": "/callfire"}, receive, send)

    async with uvicorn_server(application, lifespan="off") as port:
        assert await post(Endpoint(port, "/callfire")) == 503

    assert "Django" in advice(caplog)
    assert 'type "lifespan"' in advice(caplog)


async def test_a_mounted_application(receiver, caplog):
    """The outer application must start the receiver."""
    app = Starlette(routes=[Mount("/callfire", NotificationApp(receiver))])
    async with uvicorn_server(app) as port:
        assert await post(Endpoint(port, "/callfire")) == 503

    assert "notification_app.lifespan" in advice(caplog)


async def test_fastapi_behind_a_server_without_lifespan_events(receiver, caplog):
    """The advice names the server first."""
    app = FastAPI()
    app.include_router(notification_routes(receiver), prefix="/callfire")
    async with uvicorn_server(app, lifespan="off") as port:
        assert await post(Endpoint(port, "/callfire")) == 503

    assert "--lifespan off" in advice(caplog)


async def test_a_mounted_fastapi_application(receiver, caplog):
    """The outer application receives the lifespan events."""
    inner, outer = FastAPI(), FastAPI()
    inner.include_router(notification_routes(receiver), prefix="/callfire")
    outer.mount("/api", inner)
    async with uvicorn_server(outer) as port:
        assert await post(Endpoint(port, "/api/callfire")) == 503

    assert "mounted" in advice(caplog)


def test_a_test_client_that_is_not_entered(receiver, caplog):
    """Starlette's TestClient runs the lifespan only in a with statement."""
    app = FastAPI()
    app.include_router(notification_routes(receiver), prefix="/callfire")

    assert TestClient(app).post(f"/callfire/{TOKEN}", content=b"{}").status_code == 503
    assert "with TestClient(app)" in advice(caplog)


async def test_an_aiohttp_application_that_is_not_started(receiver, caplog):
    """As in a test that calls the handler alone."""
    app = web.Application()
    add_notification_routes(app, receiver)
    handler = next(iter(app.router.routes())).handler
    response = await handler(make_mocked_request("POST", f"/{TOKEN}", match_info={"token": TOKEN}))

    assert response.status == 503
    assert "AppRunner" in advice(caplog)


async def test_a_receiver_without_an_adapter(receiver, caplog):
    """The advice lists all of them."""
    await receiver.receive(Postback("POST", TOKEN, {}, b"{}"))

    assert "async with receiver" in advice(caplog)


@pytest.mark.parametrize("adapter", ADAPTERS)
async def test_a_stopped_receiver(receiver, caplog, adapter):
    """It was started, so the advice would mislead."""
    async with ADAPTERS[adapter](receiver):
        pass
    await receiver.receive(Postback("POST", TOKEN, {}, b"{}"))

    assert "has been stopped" in advice(caplog)
    assert "lifespan" not in advice(caplog)
