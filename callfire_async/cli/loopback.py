"""ASGI applications served on loopback, for the commands that need a server."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager

import uvicorn
from starlette.types import ASGIApp

__all__ = ["LOOPBACK", "served"]

LOOPBACK = "127.0.0.1"


@asynccontextmanager
async def served(app: ASGIApp, port: int = 0, *, host: str = LOOPBACK) -> AsyncIterator[int]:
    """
    Serve an application; one that cannot start ends the process, as uvicorn has it.

    Args:
        app: What to serve.
        port: 0 for any that is free.
        host: Where it listens.

    Returns:
        The port.

    Raises:
        OSError: The port is taken.
    """
    server = uvicorn.Server(uvicorn.Config(app, access_log=False, log_level="error"))
    with (
        closing(
            socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        ) as listener,
        _terminated_like_interrupted(),
    ):
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:  # noqa: ASYNC110  # uvicorn tells by a flag only
            await asyncio.sleep(0.01)
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await serving


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM, which uvicorn raises once more when it has stopped, close what is open around the server too."""
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
