"""ASGI applications served on loopback, for the commands that need a server."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager

import uvicorn
from starlette.types import ASGIApp

from callfire_async.cli._exit import CliError

__all__ = ["LOOPBACK", "serve"]

LOOPBACK = "127.0.0.1"


@asynccontextmanager
async def serve(
    app: ASGIApp, port: int = 0, *, host: str = LOOPBACK, stopping: Callable[[], None] | None = None
) -> AsyncIterator[int]:
    """
    Serve an application; one that cannot start ends the process, as uvicorn has it.

    Args:
        app: What to serve.
        port: 0 for any that is free.
        host: Where it listens.
        stopping: Called before what is being answered is waited for: an answer without end must end then.

    Returns:
        The port.

    Raises:
        Ended: The port is taken.
    """
    server = _Server(uvicorn.Config(app, access_log=False, log_level="error"), stopping)
    with closing(_listener(host, port)) as listener, _ended_by_sigterm():
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            while not server.started:
                # Uvicorn tells by a flag only, and by what it fails with.
                await asyncio.wait([serving], timeout=0.01)
                if serving.done():
                    await serving
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await serving


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, stopping: Callable[[], None] | None) -> None:
        super().__init__(config)
        self._stopping = stopping

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Say so first: whether it was told to stop, or a signal was."""
        if self._stopping is not None:
            self._stopping()
        await super().shutdown(sockets)


def _listener(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise CliError(f"port {port} cannot be had ({error.strerror}); choose another with --port") from None


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
