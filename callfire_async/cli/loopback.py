"""ASGI applications served on loopback, for the commands that need a server."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager

import uvicorn
from starlette.types import ASGIApp

from callfire_async.cli.ending import Ended

__all__ = ["served"]


@asynccontextmanager
async def served(app: ASGIApp, port: int = 0) -> AsyncIterator[int]:
    """
    Serve an application; one that cannot start ends the process, as uvicorn has it.

    Args:
        app: What to serve.
        port: 0 for any that is free.

    Returns:
        The port.

    Raises:
        Ended: The port is taken.
    """
    server = uvicorn.Server(uvicorn.Config(app, access_log=False, log_level="error"))
    with closing(_listener(port)) as listener, _ended_by_sigterm():
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:  # noqa: ASYNC110  # uvicorn tells by a flag only
            await asyncio.sleep(0.01)
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await serving


def _listener(port: int) -> socket.socket:
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise Ended(f"port {port} cannot be had ({error.strerror}); choose another with --port") from None


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM, which uvicorn raises once more when it has stopped, close what is open around the server too."""
    task = asyncio.current_task()
    # Not as SIGINT, which a shell has its background jobs ignore.
    before = signal.signal(signal.SIGTERM, lambda *_: task and task.cancel())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
