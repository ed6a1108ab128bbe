"""
The connection of a `JetStreamInbox`: bounded waits, and errors that are safe to print.

With `_jetstream_streams`, `_jetstream_queue` and `_jetstream_settings` the only importer of nats-py. It imports
`errors`.
"""

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
    raise ImportError("JetStreamInbox needs nats-py: install callfire-async[nats]") from error

__all__ = ["NatsConnection", "header"]

T = TypeVar("T")

_log = logging.getLogger("callfire_async.inbox")

# Between attempts to reach a server again: an election among them takes a few of these.
_RECONNECT_SECONDS = 0.25
# A server that says nothing for two of these is left for another.
_PING_SECONDS = 5
# What may wait to be sent while no server is there; what does not fit is refused at once.
_BUFFER_BYTES = 32 * 1024 * 1024
# JetStream's words for: ask again soon. The message is under way already; no leader; no answer of one.
_AGAIN = frozenset([10158, 10008, 10009, 10118])


class NatsConnection:
    """
    A connection that finds its way back by itself.

    Args:
        servers: Where they listen.
        timeout: Seconds that anything may take.
        tls: For servers that want it.
    """

    def __init__(self, servers: Sequence[str], timeout: float, tls: ssl.SSLContext | None) -> None:
        self._servers = list(servers)
        self._tls = tls
        self._on_return: list[Callable[[], None]] = []
        self.timeout = timeout
        #: Where the servers are, without what would open them.
        self.address = ", ".join(map(_address, servers))
        self.client = Client()
        self.jetstream: JetStreamContext = self.client.jetstream(timeout=timeout)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """
        Connect, and close in the end.

        Raises:
            InboxUnavailableError: No server answers in time.
        """
        try:
            with self.told():
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
            "error_cb": self._note,
            "disconnected_cb": self._left,
            "reconnected_cb": self._returned,
        }

    async def _close(self) -> None:
        # A server that takes no bytes must not keep us.
        with suppress(Exception):
            async with asyncio.timeout(self.timeout):
                await self.client.close()

    async def _note(self, error: Exception) -> None:
        _log.debug("the connection to NATS at %s: %s", self.address, type(error).__name__)

    async def _left(self) -> None:
        if not self.client.is_closed:
            _log.warning("the connection to NATS at %s was lost; another is being made", self.address)

    async def _returned(self) -> None:
        _log.warning("NATS at %s is reached again", self.address)
        for tell in self._on_return:
            tell()

    def on_reconnect(self, tell: Callable[[], None]) -> None:
        """Have somebody told whenever a connection was made again: what was asked of the last one is not answered."""
        self._on_return.append(tell)

    @contextmanager
    def told(self) -> Iterator[None]:
        """
        Word whatever nats-py raises as errors of ours.

        Raises:
            InboxUnavailableError: There was no answer in time; what was asked for may have happened.
            InboxError: NATS refused.
        """
        try:
            yield
        except nats.js.errors.APIError as error:
            kind = InboxUnavailableError if (error.code or 503) >= 500 else InboxError
            raise kind(f"NATS at {self.address} refused: {error.description} ({error.err_code})") from error
        except TimeoutError as error:
            raise InboxUnavailableError(f"NATS at {self.address} did not answer in {self.timeout:g} s") from error
        except (nats.errors.Error, OSError) as error:
            raise InboxUnavailableError(f"NATS at {self.address} cannot be used: {type(error).__name__}") from error

    async def request(self, subject: str, payload: bytes, *, timeout: float | None = None) -> Msg:
        """Ask, and wait for one answer."""
        with self.told():
            async with asyncio.timeout(timeout or self.timeout):
                return await self.client.request(subject, payload, timeout=timeout or self.timeout)

    async def send(self, subject: str, payload: bytes, *, reply: str = "") -> None:
        """Say something that is not answered, or not here."""
        with self.told():
            async with asyncio.timeout(self.timeout):
                await self.client.publish(subject, payload, reply=reply)

    async def request_with_retry(self, ask: Callable[[float], Awaitable[T]]) -> T:
        """
        Ask again, until there is an answer or the time is over.

        Only for what may be carried out twice. *ask* is called with the seconds for one attempt.
        """
        with self.told():
            async with asyncio.timeout(self.timeout):
                while True:
                    try:
                        # A server that died with the question leaves time to ask the next one.
                        return await ask(self.timeout / 4)
                    except nats.js.errors.APIError as error:
                        if error.err_code is not None and error.err_code not in _AGAIN:
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
