"""Serve ASGI applications with uvicorn, in the running event loop."""

import asyncio
import errno
import logging
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from types import FrameType

import uvicorn

__all__ = ["LOOPBACK", "serve"]

LOOPBACK = "127.0.0.1"
_UVICORN_LOGGER = "uvicorn.error"


@asynccontextmanager
async def serve(
    app: Callable[..., Awaitable[None]],
    port: int = 0,
    *,
    host: str = LOOPBACK,
    on_shutdown: Callable[[], None] | None = None,
) -> AsyncIterator[int]:
    """
    Serve an application; an application that cannot start ends the process, as in uvicorn.

    Args:
        app: The ASGI application.
        port: The port to listen on; 0 for any free port.
        host: The address to listen on.
        on_shutdown: Called before the server waits for open responses; endless responses must end then.

    Returns:
        The port.

    Raises:
        OSError: The port is not available.
    """
    server = _Server(uvicorn.Config(app, access_log=False, log_level="error"), on_shutdown)
    with closing(_create_listener(host, port)) as listener, _cancel_on_sigterm(), _without_cancellations_in_log():
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            while not server.started:
                # Uvicorn reports its start with a flag only.
                await asyncio.wait([serving], timeout=0.01)
                if serving.done():
                    await serving
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await serving


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_shutdown: Callable[[], None] | None) -> None:
        super().__init__(config)
        self._on_shutdown = on_shutdown

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop; at a further signal, cancel the requests that are in progress."""
        if not self.should_exit:
            super().handle_exit(sig, frame)
            return
        # Uvicorn would leave the application running, and pass each signal on, of which asyncio expects one.
        for task in self.server_state.tasks:
            task.cancel()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Call the callback first: uvicorn calls this method after a signal too."""
        if self._on_shutdown is not None:
            self._on_shutdown()
        await super().shutdown(sockets)


def _create_listener(host: str, port: int) -> socket.socket:
    try:
        # The socket module raises a TypeError, and leaves a socket open, for a name that it cannot encode.
        host.encode("idna")
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except UnicodeError:
        raise OSError(errno.EINVAL, f"cannot listen on {host}: not a host name") from None
    except OSError as error:
        place = f"port {port}" if host == LOOPBACK else f"port {port} of {host}"
        raise OSError(error.errno, f"cannot listen on {place}: {error.strerror}") from None


@contextmanager
def _without_cancellations_in_log() -> Iterator[None]:
    """Drop the records of requests that were cancelled, which uvicorn logs with a traceback."""
    logger = logging.getLogger(_UVICORN_LOGGER)
    logger.addFilter(_is_no_cancellation)
    try:
        yield
    finally:
        logger.removeFilter(_is_no_cancellation)


def _is_no_cancellation(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


@contextmanager
def _cancel_on_sigterm() -> Iterator[None]:
    """Cancel the current task on SIGTERM, which uvicorn raises again after its shutdown, so that all contexts exit."""
    task = asyncio.current_task()
    # Not SIGINT: shells start background jobs with SIGINT ignored.
    previous = signal.signal(signal.SIGTERM, lambda *_: task and task.cancel())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
