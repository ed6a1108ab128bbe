"""
The queue's consumer: who is handed what, and when it is handed out again.

It imports `errors`, `_wire`, the connection and what is kept.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from attrs import define, field, frozen
from nats.aio.msg import Msg

from callfire_async._codec.documents import write_json
from callfire_async.errors import InboxUnavailableError
from callfire_async.notifications.inbox.jetstream._connection import NatsConnection, header
from callfire_async.notifications.inbox.jetstream._records import Message, StoredMessage

__all__ = ["ACK_WAIT_SECONDS", "PullConsumer", "PulledMessage"]

# What the server waits for a word about a message before it hands it to another: what a receiver's leases last.
ACK_WAIT_SECONDS = 60.0
_NANOSECONDS = 1_000_000_000
# The consumer hears of a message a moment after it was acknowledged: where it knows of none, it waits so long.
_HEARSAY_NANOSECONDS = 20_000_000
# What ends a request: nothing is there, or nothing came in time.
_NOTHING_MORE = frozenset(["404", "408"])


@frozen
class PulledMessage:
    """A message of the queue in this process's hands."""

    message: Message
    #: Where the server is told what became of it.
    reply: str
    #: Whether nobody ever had it before.
    is_first: bool


@define(eq=False)
class _PullRequest:
    """A request for messages, under way."""

    #: Where it is answered when there is nothing more.
    inbox: str
    most: int
    handed_out: list[PulledMessage] = field(factory=list)
    status: str = ""
    ended: asyncio.Event = field(factory=asyncio.Event)


class PullConsumer:
    """
    Pulls from the queue's consumer, and says what became of what was pulled.

    Args:
        link: The connection.
        stream: The queue's name.
        consumer: The consumer's.
    """

    def __init__(self, link: NatsConnection, stream: str, consumer: str) -> None:
        self._link = link
        self._ask = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        # A message does not say for which request it came: one is under way at a time.
        self._pulling = asyncio.Lock()
        self._pull: _PullRequest | None = None
        # What came when nobody waited for it any more.
        self._spare: deque[PulledMessage] = deque()
        self._came = asyncio.Event()
        # Until when the server knows that whatever comes is wanted here.
        self._wanted_until = 0.0
        self._failed = ""

    @property
    def ack_wait(self) -> float:
        """Seconds after which a message is handed out again about which nobody has said a word."""
        return ACK_WAIT_SECONDS

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Listen for what is handed out; give back in the end what nobody took."""
        client = self._link.client
        self._link.on_reconnect(self._look_again)
        self._pulled, self._wanted = client.new_inbox(), client.new_inbox()
        subscriptions = [
            await client.subscribe(f"{self._pulled}.*", cb=self._receive_pulled),
            await client.subscribe(self._wanted, cb=self._receive_wanted),
        ]
        try:
            yield
        finally:
            with suppress(Exception):
                async with asyncio.timeout(self._link.timeout):
                    for subscription in subscriptions:
                        await subscription.unsubscribe()
                    # What was sent before the server knew of that is here when it has answered.
                    await client.flush()
                    for one in self._spare:
                        await self.hand_out_after(one.reply, 0)
                    await client.flush()

    def _look_again(self) -> None:
        self._wanted_until = 0.0
        self._came.set()

    # --- taking -------------------------------------------------------------------------------------------

    async def take(self, most: int) -> list[PulledMessage]:
        """
        Take what is there, *most* at most.

        Raises:
            InboxUnavailableError: Nobody answers for the queue.
        """
        taken = [self._spare.popleft() for _ in range(min(most, len(self._spare)))]
        if len(taken) < most:
            try:
                taken += await self._take_more(most - len(taken))
            except BaseException:
                self._spare.extend(taken)
                raise
        return taken

    async def _take_more(self, most: int) -> list[PulledMessage]:
        async with self._pulling:
            pull = self._pull = _PullRequest(f"{self._pulled}.{secrets.token_hex(8)}", most)
            try:
                await self._answered(pull)
            except BaseException:
                self._spare.extend(pull.handed_out)
                raise
            finally:
                self._pull = None
        if pull.status and pull.status not in _NOTHING_MORE and not pull.handed_out:
            raise self._nothing_from(pull.status)
        return pull.handed_out

    async def _answered(self, pull: _PullRequest) -> None:
        ask = write_json({"batch": pull.most, "no_wait": True, "expires": _HEARSAY_NANOSECONDS})
        await self._link.send(self._ask, ask, reply=pull.inbox)
        with self._link.told():
            async with asyncio.timeout(self._link.timeout):
                await pull.ended.wait()

    async def _receive_pulled(self, received: Msg) -> None:
        pull, status = self._pull, header(received, "Status")
        if status is not None:
            if pull is not None and received.subject == pull.inbox:
                pull.status = status
                pull.ended.set()
        elif pull is None:
            self._keep(_handed_out(received))
        else:
            pull.handed_out.append(_handed_out(received))
            if len(pull.handed_out) == pull.most:
                pull.ended.set()

    def _keep(self, handed_out: PulledMessage) -> None:
        self._spare.append(handed_out)
        self._came.set()

    def _nothing_from(self, status: str) -> InboxUnavailableError:
        return InboxUnavailableError(f"NATS at {self._link.address} hands out nothing (status {status})")

    # --- waiting ------------------------------------------------------------------------------------------

    async def _receive_wanted(self, received: Msg) -> None:
        status = header(received, "Status")
        if status is None:
            self._wanted_until = 0.0
            self._keep(_handed_out(received))
        elif status not in _NOTHING_MORE:
            self._failed = status
            self._look_again()

    async def wait(self, timeout: float) -> None:
        """
        Wait until something is there to be taken, *timeout* seconds at most.

        The server is told that the next message is wanted here, and keeps it in mind.

        Raises:
            InboxUnavailableError: Nobody answers for the queue.
        """
        if self._spare or timeout <= 0:
            return
        self._came.clear()
        await self._wait_for_next(timeout)
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._came.wait()
        if failed := self._failed:
            self._failed = ""
            raise self._nothing_from(failed)

    async def _wait_for_next(self, timeout: float) -> None:
        now = time.monotonic()
        if now + timeout <= self._wanted_until:
            return
        self._wanted_until = now + timeout
        ask = write_json({"batch": 1, "expires": max(1_000_000, int(timeout * _NANOSECONDS))})
        await self._link.send(self._ask, ask, reply=self._wanted)

    # --- what became of it --------------------------------------------------------------------------------

    async def hand_out_after(self, reply: str, seconds: float) -> None:
        """Have a message handed out again so many seconds from now; the server knows it when this returns."""
        if seconds == self.ack_wait:
            said = b"+WPI"
        elif seconds <= 0:
            said = b"-NAK"
        else:
            said = b"-NAK " + write_json({"delay": int(seconds * _NANOSECONDS)})
        await self._link.request(reply, said)

    async def finish(self, reply: str, *, is_dead: bool) -> None:
        """Have a message deleted; return once it is."""
        await self._link.request(reply, b"+TERM" if is_dead else b"+ACK")


def _handed_out(received: Msg) -> PulledMessage:
    said = received.metadata
    stored = StoredMessage(received.subject, said.sequence.stream, received.data, said.timestamp.timestamp())
    return PulledMessage(Message.read(stored), received.reply, is_first=said.num_delivered == 1)
