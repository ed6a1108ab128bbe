"""The NATS connection of a `JetStreamInbox`: timeouts, retries and error mapping."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, TypeVar
from urllib.parse import urlsplit

from callfire_async.errors import InboxError, InboxUnavailableError

try:
    import nats.errors
    import nats.js.errors
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.js import JetStreamContext
except ImportError as error:
    raise ImportError("JetStreamInbox needs nats-py: pip install 'callfire-async[nats]'") from error

__all__ = ["NatsConnection", "header"]

T = TypeVar("T")

_log = logging.getLogger("callfire_async.inbox")

# An election of a leader takes a few of these.
_RECONNECT_SECONDS = 0.25
# After two pings without a response, the client connects to another server.
_PING_SECONDS = 5
# Messages kept while no server is connected; a message that does not fit is refused at once.
_BUFFER_BYTES = 32 * 1024 * 1024
# Limit for each of the four steps of closing an inbox: a server that does not respond must not delay a stop.
_MAX_CLOSE_SECONDS = 0.75
# Error codes of JetStream that pass: the message is in flight already, no leader, no response from a peer.
_TEMPORARY_ERRORS = frozenset([10158, 10008, 10009, 10118])


class NatsConnection:
    """
    A connection that reconnects by itself.

    Args:
        servers: The servers' URLs.
        timeout: Seconds for any operation.
        tls: For servers that require TLS.
    """

    def __init__(self, servers: Sequence[str], timeout: float, tls: ssl.SSLContext | None) -> None:
        self._servers = list(servers)
        self._tls = tls
        self._reconnect_callbacks: list[Callable[[], None]] = []
        self.timeout = timeout
        #: Hosts and ports, without credentials.
        self.address = ", ".join(map(_address, servers))
        self.client = Client()
        self.jetstream: JetStreamContext = self.client.jetstream(timeout=timeout)

    @property
    def close_timeout(self) -> float:
        """Seconds for each step of closing the inbox."""
        return min(self.timeout, _MAX_CLOSE_SECONDS)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """
        Connect, and close on exit.

        Raises:
            InboxUnavailableError: No server responds in time.
        """
        try:
            with self.translate_errors():
                async with asyncio.timeout(self.timeout):
                    await self.client.connect(self._servers, **self._options())
            yield
        finally:
            await self._close()

    def _options(self) -> dict[str, Any]:
        return {
            "name": "callfire_async",
            "tls": self._tls,
            "connect_timeout": self.timeout,
            "max_reconnect_attempts": -1,
            "reconnect_time_wait": _RECONNECT_SECONDS,
            "ping_interval": _PING_SECONDS,
            "pending_size": _BUFFER_BYTES,
            "error_cb": self._log_error,
            "disconnected_cb": self._log_disconnect,
            "reconnected_cb": self._reconnected,
        }

    async def _close(self) -> None:
        # A server that reads nothing must not block the close.
        with suppress(Exception):
            async with asyncio.timeout(self.close_timeout):
                await self.client.close()

    async def _log_error(self, error: Exception) -> None:
        _log.debug("error on the connection to NATS at %s: %s", self.address, type(error).__name__)

    async def _log_disconnect(self) -> None:
        if not self.client.is_closed:
            _log.warning("lost the connection to NATS at %s, reconnecting", self.address)

    async def _reconnected(self) -> None:
        _log.warning("reconnected to NATS at %s", self.address)
        for callback in self._reconnect_callbacks:
            callback()

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        """Register a function to call after each reconnect, when requests on the old connection get no response."""
        self._reconnect_callbacks.append(callback)

    @contextmanager
    def translate_errors(self) -> Iterator[None]:
        """
        Raise the errors of nats-py as errors of ours.

        Raises:
            InboxUnavailableError: No response in time; the operation may have been executed.
            InboxError: NATS refused the operation.
        """
        try:
            yield
        except nats.js.errors.APIError as error:
            kind = InboxUnavailableError if (error.code or 503) >= 500 else InboxError
            message = f"NATS at {self.address} refused the request: {error.description} ({error.err_code})"
            raise kind(message) from error
        except TimeoutError as error:
            raise InboxUnavailableError(f"NATS at {self.address} did not respond within {self.timeout:g} s") from error
        except (nats.errors.Error, OSError) as error:
            raise InboxUnavailableError(f"NATS at {self.address} is unavailable: {type(error).__name__}") from error

    async def request(self, subject: str, payload: bytes) -> Msg:
        """Send a request and return its response."""
        with self.translate_errors():
            async with asyncio.timeout(self.timeout):
                return await self.client.request(subject, payload, timeout=self.timeout)

    async def send(self, subject: str, payload: bytes, *, reply: str = "") -> None:
        """Send a message without waiting for a response."""
        with self.translate_errors():
            async with asyncio.timeout(self.timeout):
                await self.client.publish(subject, payload, reply=reply)

    async def request_with_retry(self, request: Callable[[float], Awaitable[T]]) -> T:
        """
        Call *request* with the seconds for one attempt, until it succeeds or the timeout ends.

        Only for idempotent requests.
        """
        with self.translate_errors():
            async with asyncio.timeout(self.timeout):
                while True:
                    try:
                        # Leaves time to ask another server if this one dies.
                        return await request(self.timeout / 4)
                    except nats.js.errors.APIError as error:
                        if error.err_code is not None and error.err_code not in _TEMPORARY_ERRORS:
                            raise
                    except (nats.errors.TimeoutError, nats.errors.NoRespondersError, nats.js.errors.Error):
                        pass
                    await asyncio.sleep(_RECONNECT_SECONDS)


def header(message: Msg, name: str) -> str | None:
    """Return a header of a message."""
    return (message.headers or {}).get(name)


def _address(server: str) -> str:
    parts = urlsplit(server if "//" in server else f"nats://{server}")
    return f"{parts.hostname}:{parts.port or 4222}"
