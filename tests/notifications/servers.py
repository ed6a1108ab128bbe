"""Real servers on loopback, one for each way to embed a receiver, and a raw client that keeps no manners."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, suppress

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

DEADLINE = 20


@frozen
class Endpoint:
    """Where a receiver is reached."""

    port: int
    prefix: str

    def path(self, token: str) -> str:
        return f"{self.prefix}/{token}"

    def url(self, token: str) -> str:
        return f"http://127.0.0.1:{self.port}{self.path(token)}"


def _let_uvicorn_log() -> None:
    # Its configuration is the process's own, and the demo, which another test runs here, has turned it down.
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.propagate = True
        logger.setLevel(logging.NOTSET)


@asynccontextmanager
async def uvicorn_server(app: Callable) -> AsyncIterator[int]:
    """Serve an ASGI application; yield the port."""
    _let_uvicorn_log()
    server = uvicorn.Server(uvicorn.Config(app, lifespan="on", log_config=None, timeout_graceful_shutdown=1))
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        async with asyncio.timeout(DEADLINE):
            while not server.started:  # noqa: ASYNC110  # uvicorn tells by a flag only
                await asyncio.sleep(0)
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await serving


@asynccontextmanager
async def by_aiohttp(receiver: Receiver) -> AsyncIterator[Endpoint]:
    app = web.Application()
    add_notification_routes(app, receiver, "/callfire")
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield Endpoint(runner.addresses[0][1], "/callfire")
    finally:
        await runner.cleanup()


@asynccontextmanager
async def by_fastapi(receiver: Receiver) -> AsyncIterator[Endpoint]:
    app = FastAPI()
    app.include_router(notification_routes(receiver), prefix="/callfire")
    async with uvicorn_server(app) as port:
        yield Endpoint(port, "/callfire")


@asynccontextmanager
async def by_asgi(receiver: Receiver) -> AsyncIterator[Endpoint]:
    async with uvicorn_server(NotificationApp(receiver)) as port:
        yield Endpoint(port, "")


@asynccontextmanager
async def by_mount(receiver: Receiver) -> AsyncIterator[Endpoint]:
    notification_app = NotificationApp(receiver)
    app = Starlette(routes=[Mount("/callfire", notification_app)], lifespan=notification_app.lifespan)
    async with uvicorn_server(app) as port:
        yield Endpoint(port, "/callfire")


Serve = Callable[[Receiver], AbstractAsyncContextManager[Endpoint]]
WAYS: dict[str, Serve] = {"aiohttp": by_aiohttp, "fastapi": by_fastapi, "asgi": by_asgi, "mounted": by_mount}


class Sender:
    """One connection to a server, on which anything can be sent."""

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

    def hang_up(self) -> None:
        self._writer.transport.abort()

    async def status(self) -> int:
        """Read one answer without a body; return its status."""
        async with asyncio.timeout(DEADLINE):
            head = await self._reader.readuntil(b"\r\n\r\n")
        return int(head.split()[1])

    async def send_until_cut_off(self, most: int) -> int:
        """Go on sending chunks until the other side has had enough; return how many bytes it let us send."""
        sent = 0
        with suppress(ConnectionError):
            while sent < most and not self._reader.at_eof():
                self.chunk(b" " * 65536)
                await self._writer.drain()
                sent += 65536
                await asyncio.sleep(0)
        return sent

    async def is_closed(self) -> bool:
        """Wait for the other side to close; what it still says is passed over."""
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
