"""Real servers on loopback, one for each adapter, and a raw client that can send invalid HTTP."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, suppress
from unittest import mock

import uvicorn
from aiohttp import web
from attrs import frozen
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount

from callfire_async.notifications import Receiver
from callfire_async.notifications.aiohttp import add_notification_routes
from callfire_async.notifications.asgi import NotificationApp
from callfire_async.notifications.fastapi import notification_routes

DEADLINE = 60


@frozen
class Endpoint:
    """The port and the prefix of a served receiver."""

    port: int
    prefix: str

    def path(self, token: str) -> str:
        return f"{self.prefix}/{token}"

    def url(self, token: str) -> str:
        return f"http://127.0.0.1:{self.port}{self.path(token)}"


def _reset_uvicorn_loggers() -> None:
    # Logging is global, and a test of the demo, in the same process, lowers these levels.
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.propagate = True
        logger.setLevel(logging.NOTSET)


class QuickAsyncio:
    """The module asyncio for uvicorn, which starts and stops in pauses of 0.1 s: they are shorter here."""

    def __getattr__(self, name: str) -> object:
        return getattr(asyncio, name)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / 20)


# The same object for all servers, which may end in any order.
QUICK_ASYNCIO = QuickAsyncio()


@asynccontextmanager
async def uvicorn_server(app: Callable, *, lifespan: str = "on") -> AsyncIterator[int]:
    """Serve an ASGI application; yield the port."""
    _reset_uvicorn_loggers()
    server = uvicorn.Server(uvicorn.Config(app, lifespan=lifespan, log_config=None, timeout_graceful_shutdown=1))
    with (
        mock.patch("uvicorn.server.asyncio", QUICK_ASYNCIO),
        closing(socket.create_server(("127.0.0.1", 0))) as listener,
    ):
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        async with asyncio.timeout(DEADLINE):
            while not server.started:  # noqa: ASYNC110  # uvicorn has no event for it
                await asyncio.sleep(0)
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await serving


@asynccontextmanager
async def aiohttp_server(app: web.Application) -> AsyncIterator[int]:
    """Serve an aiohttp application; yield the port."""
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@asynccontextmanager
async def serve_aiohttp(receiver: Receiver) -> AsyncIterator[Endpoint]:
    app = web.Application()
    add_notification_routes(app, receiver, "/callfire")
    async with aiohttp_server(app) as port:
        yield Endpoint(port, "/callfire")


@asynccontextmanager
async def serve_fastapi(receiver: Receiver) -> AsyncIterator[Endpoint]:
    app = FastAPI()
    app.include_router(notification_routes(receiver), prefix="/callfire")
    async with uvicorn_server(app) as port:
        yield Endpoint(port, "/callfire")


@asynccontextmanager
async def serve_asgi(receiver: Receiver) -> AsyncIterator[Endpoint]:
    async with uvicorn_server(NotificationApp(receiver)) as port:
        yield Endpoint(port, "")


@asynccontextmanager
async def serve_mounted(receiver: Receiver) -> AsyncIterator[Endpoint]:
    notification_app = NotificationApp(receiver)
    app = Starlette(routes=[Mount("/callfire", notification_app)], lifespan=notification_app.lifespan)
    async with uvicorn_server(app) as port:
        yield Endpoint(port, "/callfire")


Serve = Callable[[Receiver], AbstractAsyncContextManager[Endpoint]]
ADAPTERS: dict[str, Serve] = {
    "aiohttp": serve_aiohttp,
    "fastapi": serve_fastapi,
    "asgi": serve_asgi,
    "mounted": serve_mounted,
}


class Sender:
    """One connection to a server that can send any bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def head(self, path: str, *headers: str, method: str = "POST") -> None:
        if not any(header.startswith("Content-Type:") for header in headers):
            headers = ("Content-Type: application/json", *headers)
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *headers]
        self._writer.write("\r\n".join([*lines, "", ""]).encode())

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    def chunk(self, data: bytes) -> None:
        self._writer.write(b"%x\r\n%s\r\n" % (len(data), data))

    def abort(self) -> None:
        self._writer.transport.abort()

    async def status(self) -> int:
        """Read one response without a body; return its status."""
        async with asyncio.timeout(DEADLINE):
            head = await self._reader.readuntil(b"\r\n\r\n")
        return int(head.split()[1])

    async def send_until_disconnected(self, limit: int) -> int:
        """Send chunks until the server closes the connection; return how many bytes were sent."""
        sent = 0
        with suppress(ConnectionError):
            while sent < limit and not self._reader.at_eof():
                self.chunk(b" " * 65536)
                await self._writer.drain()
                sent += 65536
                await asyncio.sleep(0)
        return sent

    async def is_closed(self) -> bool:
        """Wait until the server closes the connection, and ignore what it sends."""
        with suppress(ConnectionError):
            async with asyncio.timeout(DEADLINE):
                while await self._reader.read(65536):
                    pass
        return True


@asynccontextmanager
async def connection(endpoint: Endpoint) -> AsyncIterator[Sender]:
    reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.port)
    try:
        yield Sender(reader, writer)
    finally:
        writer.transport.abort()
        with suppress(ConnectionError):
            await writer.wait_closed()
