"""The pull consumer of the queue: fetch, ack, and nak with a delay."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Protocol

from attrs import define, field, frozen
from nats.aio.msg import Msg

from callfire_async._codec.documents import write_json
from callfire_async.errors import InboxUnavailableError
from callfire_async.notifications.inbox.jetstream._connection import NatsConnection, header
from callfire_async.notifications.inbox.jetstream._records import Message, StoredMessage

__all__ = ["ACK_WAIT_SECONDS", "PullConsumer", "PulledMessage"]

# The consumer's `ack_wait`; also the length of a receiver's leases.
ACK_WAIT_SECONDS = 60.0
_NANOSECONDS = 1_000_000_000
# A new message is available to the consumer only shortly after its ack, so an empty pull waits this long.
_PULL_EXPIRES_NANOSECONDS = 20_000_000
# Statuses that end a pull request without an error: no messages, request expired.
_EMPTY_STATUSES = frozenset(["404", "408"])


@frozen
class PulledMessage:
    """A message that the consumer delivered to this process."""

    message: Message
    #: The subject for its ack or nak.
    reply: str
    #: Whether it was never delivered before.
    is_first: bool

    @property
    def is_new(self) -> bool:
        """Whether its delivery was never delivered before."""
        return self.is_first and not self.message.replays


@define(eq=False)
class _PullRequest:
    #: The subject for the status that ends the request.
    inbox: str
    limit: int
    pulled: list[PulledMessage] = field(factory=list)
    status: str = ""
    ended: asyncio.Event = field(factory=asyncio.Event)

    @property
    def has_failed(self) -> bool:
        """Whether an error of the consumer ended the request."""
        return bool(self.status) and self.status.partition(" ")[0] not in _EMPTY_STATUSES and not self.pulled


class Guard(Protocol):
    """Restores the consumer."""

    async def check_if_due(self) -> None:
        """Restore the consumer if that was not checked for a while."""
        ...

    async def restore(self) -> bool:
        """Restore the consumer; return whether it was deleted or changed."""
        ...


class PullConsumer:
    """
    Pulls messages from the queue's consumer, and acks or naks them.

    Args:
        connection: The connection to NATS.
        stream: The name of the queue.
        consumer: The name of the consumer.
        guard: Restores the consumer.
    """

    def __init__(self, connection: NatsConnection, stream: str, consumer: str, guard: Guard) -> None:
        self._connection = connection
        self._guard = guard
        self._next_subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        # A message does not name its pull request, so there is one request at a time.
        self._pull_lock = asyncio.Lock()
        self._request: _PullRequest | None = None
        # Messages that arrived after their request had ended.
        self._spare: deque[PulledMessage] = deque()
        self._arrived = asyncio.Event()
        # The server sends the next message until then, by the monotonic clock.
        self._waiting_until = 0.0
        self._error_status = ""

    @property
    def ack_wait(self) -> float:
        """Consumer ``ack_wait``: seconds until an unacknowledged message is redelivered."""
        return ACK_WAIT_SECONDS

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Subscribe to the consumer's messages; on exit, nak those that were not claimed."""
        client = self._connection.client
        self._connection.on_reconnect(self._wake)
        self._pull_subject, self._wait_subject = client.new_inbox(), client.new_inbox()
        subscriptions = [
            await client.subscribe(f"{self._pull_subject}.*", cb=self._receive_pulled),
            await client.subscribe(self._wait_subject, cb=self._receive_awaited),
        ]
        try:
            yield
        finally:
            with suppress(Exception):
                async with asyncio.timeout(self._connection.close_timeout):
                    for subscription in subscriptions:
                        await subscription.unsubscribe()
                    # After the flush, all messages that the server sent before are here.
                    await client.flush()
                    for pulled in self._spare:
                        await self.nak(pulled.reply, 0)
                    await client.flush()

    def _wake(self) -> None:
        self._waiting_until = 0.0
        self._arrived.set()

    # --- pull ---------------------------------------------------------------------------------------------

    async def pull(self, limit: int) -> list[PulledMessage]:
        """
        Return up to *limit* messages that are available now, after the consumer is restored if necessary.

        Raises:
            InboxUnavailableError: The consumer does not respond, or a stream is missing.
            InboxError: The servers refuse to restore the consumer.
        """
        await self._guard.check_if_due()
        pulled = [self._spare.popleft() for _ in range(min(limit, len(self._spare)))]
        if len(pulled) < limit:
            try:
                pulled += await self._pull_restored(limit - len(pulled))
            except BaseException:
                self._spare.extend(pulled)
                raise
        return pulled

    async def _pull_restored(self, limit: int) -> list[PulledMessage]:
        """Pull; if that fails because the consumer was deleted or changed, restore it and pull again."""
        request = await self._pull(limit)
        if request.has_failed and await self._guard.restore():
            request = await self._pull(limit)
        if request.has_failed:
            raise self._failure(request.status)
        return request.pulled

    async def _pull(self, limit: int) -> _PullRequest:
        async with self._pull_lock:
            request = self._request = _PullRequest(f"{self._pull_subject}.{secrets.token_hex(8)}", limit)
            try:
                await self._send_and_wait(request)
            except BaseException:
                self._spare.extend(request.pulled)
                raise
            finally:
                self._request = None
        return request

    async def _send_and_wait(self, request: _PullRequest) -> None:
        query = write_json({"batch": request.limit, "no_wait": True, "expires": _PULL_EXPIRES_NANOSECONDS})
        await self._connection.send(self._next_subject, query, reply=request.inbox)
        with self._connection.translate_errors():
            async with asyncio.timeout(self._connection.timeout):
                await request.ended.wait()

    async def _receive_pulled(self, received: Msg) -> None:
        request, status = self._request, header(received, "Status")
        if status is not None:
            if request is not None and received.subject == request.inbox:
                request.status = _full_status(received)
                request.ended.set()
        elif request is None:
            self._add_spare(_pulled_message(received))
        else:
            request.pulled.append(_pulled_message(received))
            if len(request.pulled) == request.limit:
                request.ended.set()

    def _add_spare(self, pulled: PulledMessage) -> None:
        self._spare.append(pulled)
        self._arrived.set()

    def _failure(self, status: str) -> InboxUnavailableError:
        return InboxUnavailableError(f"the consumer on NATS at {self._connection.address} failed with status {status}")

    # --- wait ---------------------------------------------------------------------------------------------

    async def _receive_awaited(self, received: Msg) -> None:
        status = header(received, "Status")
        if status is None:
            self._waiting_until = 0.0
            self._add_spare(_pulled_message(received))
        elif status not in _EMPTY_STATUSES:
            self._error_status = _full_status(received)
            self._wake()

    async def wait(self, timeout: float) -> None:
        """
        Wait until a message can be pulled, or *timeout* seconds have passed.

        Meanwhile a pull request stays open at the server, which responds to it with the next message.

        Raises:
            InboxUnavailableError: The consumer does not respond.
        """
        if self._spare or timeout <= 0:
            return
        self._arrived.clear()
        await self._wait_for_next(timeout)
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._arrived.wait()
        if status := self._error_status:
            self._error_status = ""
            raise self._failure(status)

    async def _wait_for_next(self, timeout: float) -> None:
        now = time.monotonic()
        if now + timeout <= self._waiting_until:
            return
        self._waiting_until = now + timeout
        query = write_json({"batch": 1, "expires": max(1_000_000, int(timeout * _NANOSECONDS))})
        await self._connection.send(self._next_subject, query, reply=self._wait_subject)

    # --- ack and nak --------------------------------------------------------------------------------------

    async def nak(self, reply: str, seconds: float) -> None:
        """Have a message redelivered after *seconds*; return once the server has confirmed it."""
        if seconds == self.ack_wait:
            payload = b"+WPI"
        elif seconds <= 0:
            payload = b"-NAK"
        else:
            payload = b"-NAK " + write_json({"delay": int(seconds * _NANOSECONDS)})
        await self._connection.request(reply, payload)

    async def ack(self, reply: str, *, is_dead: bool) -> None:
        """Delete a message from the queue; return once the server has confirmed it."""
        await self._connection.request(reply, b"+TERM" if is_dead else b"+ACK")


def _full_status(received: Msg) -> str:
    """Return a message's status with its description, if it has one."""
    return " ".join(filter(None, (header(received, "Status"), header(received, "Description"))))


def _pulled_message(received: Msg) -> PulledMessage:
    metadata = received.metadata
    stored = StoredMessage(received.subject, metadata.sequence.stream, received.data, metadata.timestamp.timestamp())
    return PulledMessage(Message.decode(stored), received.reply, is_first=metadata.num_delivered == 1)
