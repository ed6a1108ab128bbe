"""
A receiver behind a real server in its own process, so that its memory can be measured.

The program takes the name of a framework to embed the receiver in, and whether Sentry's SDK is active; it prints port
and path prefix, and serves until its standard input ends.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from attrs import frozen
from notifications.servers import ADAPTERS, DEADLINE, Endpoint, connection

from callfire_async.notifications import Notification, Receiver, Router

TOKEN = "0123456789abcdef"
BOMB_BYTES = 200_000_000


@frozen
class OwnServer:
    """A server in another process."""

    process: int
    endpoint: Endpoint

    async def post(self, body: bytes, *headers: str) -> int:
        """Post a body and return the status."""
        async with connection(self.endpoint) as sender:
            sender.head(self.endpoint.path(TOKEN), f"Content-Length: {len(body)}", *headers)
            sender.send(body)
            return await sender.status()

    def memory(self) -> int:
        """Return the resident memory in bytes."""
        return self._memory("VmRSS")

    def most_memory(self) -> int:
        """Return the peak resident memory in bytes."""
        return self._memory("VmHWM")

    def _memory(self, line: str) -> int:
        status = Path(f"/proc/{self.process}/status").read_text().splitlines()
        return next(int(found.split()[1]) * 1024 for found in status if found.startswith(line))


@asynccontextmanager
async def own_server(way: str, *, sentry: bool = False) -> AsyncIterator[OwnServer]:
    """Start a server; on exit, stop it and check that it was still running."""
    pipe = asyncio.subprocess.PIPE
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = (sys.executable, "-W", "error", __file__, way, *(["sentry"] if sentry else []))
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, env=environment)
    try:
        async with asyncio.timeout(3 * DEADLINE):  # the imports take long on a busy machine
            port, prefix = (await process.stdout.readline()).decode().rstrip("\n").split(" ")
        yield OwnServer(process.pid, Endpoint(int(port), prefix))
    finally:
        process.stdin.close()
        status = await process.wait()
    assert status == 0


async def serve(way: str, **options: float) -> None:
    """Serve until standard input ends."""
    router = Router()

    @router.on(Notification)
    async def handle(event: Notification) -> None: ...

    async with ADAPTERS[way](Receiver(router, tokens=TOKEN, **options)) as endpoint:
        print(endpoint.port, endpoint.prefix, flush=True)  # noqa: T201  # the parent process reads it
        await asyncio.to_thread(sys.stdin.read)


def start_sentry() -> None:
    """Start Sentry's SDK as for an application that reports as much as possible; nothing is sent."""
    import sentry_sdk
    from sentry_sdk.integrations.aiohttp import AioHttpIntegration
    from sentry_sdk.integrations.fastapi import FastApiIntegration
    from sentry_sdk.integrations.starlette import StarletteIntegration
    from sentry_sdk.transport import Transport

    class NoTransport(Transport):
        def capture_envelope(self, envelope: object) -> None: ...

    sentry_sdk.init(
        dsn="http://key@127.0.0.1:9/1",
        transport=NoTransport,
        traces_sample_rate=1.0,
        max_request_body_size="always",
        # It finds these by itself, by importing everything that it knows and that is installed, which takes seconds.
        auto_enabling_integrations=False,
        integrations=[FastApiIntegration(), StarletteIntegration(), AioHttpIntegration()],
    )


if __name__ == "__main__":
    if "sentry" in sys.argv:
        # It wraps functions of the frameworks, which cannot be undone: it needs a process of its own.
        start_sentry()
        asyncio.run(serve(sys.argv[1], body_timeout=1.0))
    else:
        asyncio.run(serve(sys.argv[1]))
