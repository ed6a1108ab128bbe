"""The NATS connection of a `JetStreamInbox`: timeouts, retries and error mapping."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, TypeVar

from callfire_async.errors import InboxError, InboxUnavailableError

try:
    import nats.errors
    import nats.js.errors
    from nats.aio.msg import Msg
    from nats.js import JetStreamContext
except ImportError as error:
    raise ImportError("JetStreamInbox needs nats-py: pip install 'callfire-async[nats]'") from error

# isort: split
from callfire_async.notifications.inbox._cancellation import finish_within
from callfire_async.notifications.inbox._waiting import log_slow_start
from callfire_async.notifications.inbox.jetstream._nats_client import (
    CONNECTION_CLOSED,
    PERMISSIONS_ERROR,
    NatsClient,
    describe_error,
)
from callfire_async.notifications.inbox.jetstream._servers import ServerList

__all__ = ["NatsConnection", "header"]

T = TypeVar("T")

_log = logging.getLogger("callfire_async.inbox")

# An election of a leader takes a few of these.
_RECONNECT_SECONDS = 0.25
# After two pings without a response, the client connects to another server.
_PING_SECONDS = 5
# A server that is split off from the others responds to pings, and to nothing else, so the client connects to another
# one; not more often than this, because there may be no server with a majority.
_MIN_SECONDS_BETWEEN_LEAVES = 30.0
# Messages kept while no server is connected; a message that does not fit is refused at once.
_BUFFER_BYTES = 32 * 1024 * 1024
# Limit for each of the four steps of closing an inbox: a server that does not respond must not delay a stop.
_MAX_CLOSE_SECONDS = 0.75
# Temporary errors of JetStream, by code: the message is in flight already, no leader, no response from a peer.
_TEMPORARY_ERRORS = frozenset([10158, 10008, 10009, 10118])
# Error codes of JetStream: the stream or the consumer does not exist.
_MISSING_STREAM_ERROR = 10059
_MISSING_CONSUMER_ERROR = 10014


class NatsConnection:
    """
    A connection that reconnects by itself.

    Args:
        servers: The servers' URLs.
        timeout: Seconds for any operation.
        tls: For servers that require TLS.
    """

    def __init__(self, servers: str | Sequence[str], timeout: float, tls: ssl.SSLContext | None) -> None:
        self._servers = ServerList.parse(servers)
        self._tls = tls
        self._reconnect_callbacks: list[Callable[[], None]] = []
        self._is_connecting = True
        # When the client connected, and when it last disconnected from an isolated server, by the monotonic clock.
        self._connected_at = self._left_at = float("-inf")
        self._leaving: asyncio.Future[None] | None = None
        # Why the attempts to connect failed; empty while connected.
        self._causes: dict[str, None] = {}
        # The last operation that the server did not permit, and when; it gets no response.
        self._denied = ("", float("-inf"))
        self.timeout = timeout
        #: Hosts and ports, without credentials.
        self.address = self._servers.address
        has_context = tls is not None and not self._servers.uses_websockets
        self.client = NatsClient(requires_tls=has_context or self._servers.requires_tls)
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
                async with asyncio.timeout(self.timeout), log_slow_start(f"NATS at {self.address}", self.timeout):
                    await self.client.connect(self._servers.urls, **self._options())
            self._end_connecting()
            yield
        finally:
            await self._close()

    def _options(self) -> dict[str, Any]:
        return {
            **self._servers.connect_options(),
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
        # A server that reads nothing must not block the close. In a task of its own, because nats-py may raise the
        # CancelledError of one of its own tasks.
        with suppress(Exception):
            await finish_within(self.close_timeout, self.client.close())
        if self._leaving is not None:
            await asyncio.wait([self._leaving])

    async def _log_error(self, error: Exception) -> None:
        if PERMISSIONS_ERROR in str(error):
            self._log_denied(describe_error(error))
        elif self._is_connecting:
            self._log_cause(describe_error(error))
        else:
            _log.debug("error on the connection to NATS at %s: %s", self.address, describe_error(error))

    def _log_denied(self, text: str) -> None:
        if text != self._denied[0]:
            _log.error("NATS at %s does not permit an operation of the inbox: %s", self.address, text)
        self._denied = (text, time.monotonic())

    def _log_cause(self, cause: str) -> None:
        # A connection that is closed is often a consequence of another cause.
        if cause in self._causes or (cause == CONNECTION_CLOSED and self._causes):
            return
        self._causes.pop(CONNECTION_CLOSED, None)
        self._causes[cause] = None
        _log.warning("cannot connect to NATS at %s, retrying: %s", self.address, cause)

    async def _log_disconnect(self) -> None:
        self._is_connecting = True
        if not self.client.is_closed:
            _log.warning("lost the connection to NATS at %s, reconnecting", self.address)

    async def _reconnected(self) -> None:
        _log.warning("reconnected to NATS at %s", self.address)
        self._end_connecting()
        for callback in self._reconnect_callbacks:
            callback()

    def _end_connecting(self) -> None:
        self._is_connecting = False
        self._connected_at = time.monotonic()
        self._causes.clear()

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        """Register a function to call after each reconnect, when requests on the old connection get no response."""
        self._reconnect_callbacks.append(callback)

    @contextmanager
    def translate_errors(self, *, is_optional: bool = False) -> Iterator[None]:
        """
        Raise the errors of nats-py as errors of this library.

        Args:
            is_optional: Whether the request is for a stream that the inbox can do without. A missing response then
                proves nothing about the server, so the connection is kept.

        Raises:
            InboxUnavailableError: No response in time; the operation may have been executed.
            InboxError: NATS refused the operation.
        """
        try:
            yield
        except nats.js.errors.APIError as error:
            is_missing = error.err_code in (_MISSING_STREAM_ERROR, _MISSING_CONSUMER_ERROR)
            kind = InboxUnavailableError if is_missing or (error.code or 503) >= 500 else InboxError
            reason = f"{error.description} ({error.err_code})" if error.description else "JetStream does not respond"
            raise kind(f"NATS at {self.address} refused the request: {reason}") from error
        except TimeoutError as error:
            if not is_optional:
                self._leave_isolated_server()
            raise InboxUnavailableError(self._timeout_message()) from error
        except (nats.errors.Error, OSError) as error:
            raise InboxUnavailableError(f"NATS at {self.address} is unavailable: {describe_error(error)}") from error
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            # No cause: the message may quote the response.
            message = f"NATS at {self.address} sent a response that cannot be read ({type(error).__name__})"
            raise InboxUnavailableError(message) from None

    def _leave_isolated_server(self) -> None:
        """Connect to another server, if there is one and the operation that got no response began at this one."""
        now = time.monotonic()
        is_recent = now - self._connected_at < self.timeout or now - self._left_at < _MIN_SECONDS_BETWEEN_LEAVES
        if is_recent or self._is_denied() or not self.client.is_connected or len(self.client.servers) < 2:
            return
        self._left_at = now
        _log.warning("NATS at %s did not respond within %g s, connecting to another server", self.address, self.timeout)
        self._leaving = asyncio.ensure_future(self.client.leave_server())

    def _timeout_message(self) -> str:
        if self._causes:
            return f"NATS at {self.address} is unavailable: {'; '.join(self._causes)}"
        reason = f"; it does not permit the operation: {self._denied[0]}" if self._is_denied() else ""
        return f"NATS at {self.address} did not respond within {self.timeout:g} s{reason}"

    def _is_denied(self) -> bool:
        """Return whether the server did not permit an operation that gets no response now: it began shortly before."""
        return time.monotonic() - self._denied[1] <= self.timeout + _RECONNECT_SECONDS

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

    async def check_stream(self, name: str, *, is_optional: bool = False) -> None:
        """Raise `InboxUnavailableError` if a stream does not exist."""
        try:
            await self.jetstream.stream_info(name)
        except nats.js.errors.NotFoundError as error:
            raise self._missing_stream(name, is_optional=is_optional) from error

    def _missing_stream(self, name: str, *, is_optional: bool) -> InboxUnavailableError:
        loss = ": it was deleted, with its deliveries; restore it from a backup, or restart to create an empty one"
        return InboxUnavailableError(f"stream {name} on NATS at {self.address} is missing{'' if is_optional else loss}")

    async def request_with_retry(
        self, request: Callable[[float], Awaitable[T]], *, stream: str | None = None, is_optional: bool = False
    ) -> T:
        """
        Call *request* with the seconds for one attempt, until it succeeds or the timeout ends.

        Only for idempotent requests. If *stream* is missing, it fails at once.
        """
        with self.translate_errors(is_optional=is_optional):
            async with asyncio.timeout(self.timeout):
                while True:
                    try:
                        # Leaves time to send the request to another server if this one crashes.
                        return await request(self.timeout / 4)
                    except nats.js.errors.APIError as error:
                        if error.err_code == _MISSING_STREAM_ERROR and stream is not None:
                            raise self._missing_stream(stream, is_optional=is_optional) from error
                        if error.err_code is not None and error.err_code not in _TEMPORARY_ERRORS:
                            raise
                    except (nats.errors.NoRespondersError, nats.js.errors.NoStreamResponseError):
                        await self._check_responder(stream, is_optional=is_optional)
                    except (nats.errors.TimeoutError, nats.js.errors.Error):
                        pass
                    await asyncio.sleep(_RECONNECT_SECONDS)

    async def _check_responder(self, stream: str | None, *, is_optional: bool) -> None:
        """Raise `InboxUnavailableError` if nothing responds because the stream is missing, and not for an election."""
        if stream is not None:
            with suppress(nats.errors.Error):
                await self.check_stream(stream, is_optional=is_optional)


def header(message: Msg, name: str) -> str | None:
    """Return a header of a message."""
    return (message.headers or {}).get(name)
