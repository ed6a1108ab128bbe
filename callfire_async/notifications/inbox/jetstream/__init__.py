"""
`JetStreamInbox`: an inbox on NATS JetStream, for many machines.

Three streams. The *queue* (work-queue retention) holds a message with the body of each delivery that is not settled;
its pull consumer hands each out to one process at a time. The *records* say what is known of each delivery that was
ever handed out: its state, its lease, its attempts; each write of a record names the revision that it follows, so of
two that write at once one is refused. The *dead* letters lie with their bodies in a stream of their own.

The record is the truth: a delivery is leased, done or dead when its record says so. The consumer only distributes. It
hands a message out again when nobody has said a word about it for so long as the lease lasts; whoever gets it asks the
record what that means. What is left when a process dies between two writes:

============  ==========================================  ============================================================
operation     it dies after                               then
============  ==========================================  ============================================================
``append``    the message is stored, before the answer    it is handled; a repeat within the window is the same one
``claim``     a message is pulled, before the record      it is handed out again after a minute, and is no crash
              is written
``claim``     the record says *leased*                    the lease ends: a crash
``extend``    the record says how long                    the consumer asks earlier, and is told how long
``ack``       the record says *done*                      whoever is handed the message completes this: notes the
                                                          event's key for ``handled``, and deletes the message
``nack``,     the record says *ready*                     it is handed out again when its lease would have ended
``release``
``dead_letter``      the record says *dead*                      the body is still in the queue: whoever is handed the message
                                                          puts it among the dead letters, and deletes it then
``dead_letter``      the dead letter is stored                   whoever is handed the message deletes it
``replay``    a new message is queued                     whoever is handed it completes this: the message names the
                                                          revision that was dead
``replay``    the record says *ready*                     whoever is handed the message deletes the dead letter
============  ==========================================  ============================================================

What JetStream cannot keep of the protocol, or not in this way:

- Of what is due, what was put back comes before what was never handed out. Within one list the order is due time, then
  arrival; so it is for all that never failed.
- ``append_many`` keeps all or none of a thousand, but each by itself where one of them is a repeat.
- An operation that raises `InboxUnavailableError` may have happened: an append that is repeated is then a duplicate,
  and a lease that is settled again knows that it was.
- A repeat is recognised by the servers' memory of ``dedupe_window``; what was done by then is forgotten when all of
  them are started anew. A window shorter than ``timeout`` may end while an append is tried again: it is kept twice.
- ``entries``, ``stats`` and ``purge`` look at one delivery after the other: what changes meanwhile may be counted in
  the state before or after; in a cluster they may be a moment behind.
- A host that dies loses its leases when they end, not before.

It imports `errors`, the protocol and the rooms beside it.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import ssl
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from types import TracebackType
from typing import Self

from attrs import evolve

from callfire_async.errors import InboxError
from callfire_async.notifications.inbox.base import AppendResult, Delivery, InboxEntry, InboxStats, Lease
from callfire_async.notifications.inbox.jetstream._admin import InboxAdmin
from callfire_async.notifications.inbox.jetstream._config import HEAD_BYTES, InboxStreams, prepare, server_clock
from callfire_async.notifications.inbox.jetstream._connection import NatsConnection
from callfire_async.notifications.inbox.jetstream._consumer import PullConsumer
from callfire_async.notifications.inbox.jetstream._leases import LeaseManager
from callfire_async.notifications.inbox.jetstream._records import DEAD, DONE, READY, DeliveryRecord, Message
from callfire_async.notifications.inbox.jetstream._store import DeliveryStore, OpenState, digest
from callfire_async.notifications.inbox.jetstream._stream import PendingMessage, PublishAck, Stream

__all__ = ["JetStreamInbox"]


class JetStreamInbox:
    """
    An inbox on NATS JetStream, shared by any number of processes on any number of machines.

    The streams are made where they are missing. What the servers do not guarantee (one replica, memory, no sync before
    the answer) is said in one warning when it is opened.

    Args:
        servers: Where NATS listens, version 2.12 or later: one URL, or several of one cluster.
        name: What the streams' names begin with: letters, digits, ``-`` and ``_``. One inbox a name.
        replicas: On how many servers each stream is kept, where it is made; three outlast the loss of any one.
        dedupe_window: Seconds within which two deliveries with one key are one; 0 turns it off.
        retention: Seconds for which the keys of what is done are kept; 30 days, unless given.
        keep_bodies: Whether what is done keeps its body.
        timeout: Seconds that an operation may take, as far as the servers are concerned.
        tls: For servers that want it.

    Raises:
        ValueError: *name* has other characters.

    Opening it raises `InboxUnavailableError` where no server answers in time, and `InboxError` where the server is too
    old or a stream of this name is somebody else's.
    """

    def __init__(
        self,
        servers: str | Sequence[str],
        *,
        name: str = "callfire",
        replicas: int = 1,
        dedupe_window: float = 3600.0,
        retention: float = 30 * 86400.0,
        keep_bodies: bool = False,
        timeout: float = 10.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise ValueError("name must be letters, digits, '-' and '_'")
        self._servers = [servers] if isinstance(servers, str) else list(servers)
        self._settings = InboxStreams(name, replicas, dedupe_window)
        self._dedupe_window = dedupe_window
        self._retention = retention
        self._keep_bodies = keep_bodies
        self._timeout = timeout
        self._tls = tls
        self._closing = AsyncExitStack()
        self._ledger = DeliveryStore(self._settings, retention)
        self._claims = LeaseManager(self._ledger)
        self._caretaker = InboxAdmin(self._ledger)

    def __repr__(self) -> str:
        return f"<JetStreamInbox {self._settings.name!r}>"

    @property
    def retention(self) -> float:
        """Seconds for which the keys of what is done are kept: how far back ``handled`` knows everything."""
        return self._retention

    # --- lifecycle ----------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """
        Connect, and make what is missing.

        Raises:
            InboxUnavailableError: No server answers in time.
            InboxError: The server is too old, or a stream of this name is somebody else's.
        """
        async with AsyncExitStack() as opening:
            link = NatsConnection(self._servers, self._timeout, self._tls)
            await opening.enter_async_context(link.opened())
            await prepare(link, self._settings)
            clock = await server_clock(link, self._settings)
            names = (self._settings.queue, self._settings.records, self._settings.dead)
            streams = [Stream(link, name) for name in names]
            for stream in streams:
                await opening.enter_async_context(_running(stream))
            pulling = PullConsumer(link, self._settings.queue, self._settings.consumer)
            await opening.enter_async_context(pulling.opened())
            opening.push_async_callback(self._give_up)
            self._ledger.state = OpenState(link, clock, pulling, *streams)
            self._closing = opening.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it; leases that nobody settled are ready for others at once, and count as crashes."""
        await self._closing.aclose()

    async def _give_up(self) -> None:
        await self._claims.release_all(self._timeout)
        self._ledger.state = None

    # --- taking in ----------------------------------------------------------------------------------------

    async def append(self, delivery: Delivery) -> AppendResult:
        """Keep a delivery; the servers have said that they have it when this returns."""
        (appended,) = await self.append_many([delivery])
        return appended

    async def append_many(self, deliveries: Sequence[Delivery]) -> list[AppendResult]:
        """Keep several, a thousand at a time all or none; each by itself where one is a repeat."""
        opened = self._ledger.opened
        writes = [self._queued(delivery) for delivery in deliveries]
        taken: list[PublishAck] = []
        for first in range(0, len(writes), 1000):
            taken += await opened.messages.publish(*writes[first : first + 1000])
        return [await self._appended(*pair) for pair in zip(writes, taken, strict=True)]

    def _queued(self, delivery: Delivery) -> PendingMessage:
        data = Message.written(delivery)
        largest = self._ledger.opened.link.client.max_payload - HEAD_BYTES
        if len(data) > largest:
            raise InboxError(f"a delivery of {len(data)} bytes is too large; NATS here takes {largest} (max_payload)")
        id = digest(delivery.key) if self._dedupe_window > 0 else secrets.token_hex(16)
        return PendingMessage(self._settings.new, data, {"Nats-Msg-Id": id})

    async def _appended(self, write: PendingMessage, taken: PublishAck) -> AppendResult:
        if not taken.duplicate:
            return AppendResult(taken.sequence, duplicate=False)
        # In this order: what is settled meanwhile has left the queue and has a record.
        queued = await self._ledger.opened.messages.at(taken.sequence)
        record = await self._ledger.record(taken.sequence)
        if queued is None and record is None:
            return await self._append_anew(write, taken.sequence)
        if record is not None and record.state == DEAD:
            await self._ledger.requeue(record, crashes=record.crashes)
        return AppendResult(taken.sequence, duplicate=True)

    async def _append_anew(self, write: PendingMessage, forgotten: int) -> AppendResult:
        """Keep what repeats a delivery that was purged; the server still knows that one's name."""
        anew = evolve(write, headers={"Nats-Msg-Id": f"{write.headers['Nats-Msg-Id']}.{forgotten}"})
        (taken,) = await self._ledger.opened.messages.publish(anew)
        return await self._appended(anew, taken)

    # --- handing out --------------------------------------------------------------------------------------

    async def claim(self, limit: int, *, lease: float) -> list[Lease]:
        """Hand out what is due: of what the queue has to offer, in order of due time, then arrival."""
        return await self._claims.claim(limit, lease=lease)

    async def wait(self, timeout: float) -> None:
        """Wait until there may be work; the servers tell."""
        await self._ledger.opened.queue.wait(timeout)

    # --- settling -----------------------------------------------------------------------------------------

    async def extend(self, lease: Lease, seconds: float) -> bool:
        """Let a lease end so many seconds from now."""
        until = self._ledger.now() + seconds
        extended = await self._claims.settle(lease, lambda record: evolve(record, due_at=until))
        return await self._claims.hand_out_after(extended, lease, seconds)

    async def ack(self, lease: Lease, *, event_key: str = "") -> bool:
        """Note that a delivery was handled."""
        body = lease.delivery.body if self._keep_bodies else b""

        def done(record: DeliveryRecord) -> DeliveryRecord:
            return evolve(record, state=DONE, event_key=event_key, delivery=evolve(record.delivery, body=body))

        return await self._claims.finished(await self._claims.settle(lease, done), lease)

    async def nack(
        self, lease: Lease, *, delay: float, completed: frozenset[str] = frozenset(), reason: str = ""
    ) -> bool:
        """Put a delivery back for another attempt."""
        due_at = self._ledger.now() + delay

        def failed(record: DeliveryRecord) -> DeliveryRecord:
            names = record.completed | completed
            attempt = record.attempt + 1
            return evolve(record, state=READY, attempt=attempt, due_at=due_at, completed=names, reason=reason)

        return await self._claims.hand_out_after(await self._claims.settle(lease, failed), lease, delay)

    async def release(self, lease: Lease, *, completed: frozenset[str] = frozenset()) -> bool:
        """Put a delivery back at once."""
        now = self._ledger.now()

        def released(record: DeliveryRecord) -> DeliveryRecord:
            return evolve(record, state=READY, due_at=now, completed=record.completed | completed)

        return await self._claims.hand_out_after(await self._claims.settle(lease, released), lease, 0)

    async def dead_letter(self, lease: Lease, reason: str) -> bool:
        """Make a delivery a dead letter."""
        buried = await self._claims.settle(lease, lambda record: evolve(record, state=DEAD, reason=reason))
        return await self._claims.finished(buried, lease)

    # --- looking after it ---------------------------------------------------------------------------------

    async def handled(self, event_keys: Iterable[str]) -> frozenset[str]:
        """Return which of these events were acked, within ``retention``."""
        return await self._caretaker.handled(event_keys)

    async def get(self, id: int | str) -> InboxEntry | None:
        """Return what is known of one delivery."""
        return await self._caretaker.get(id)

    def entries(self, state: str | None = None) -> AsyncIterator[InboxEntry]:
        """Iterate over the deliveries that there are now, in order of arrival."""
        return self._caretaker.entries(state)

    async def replay(self, ids: Iterable[int | str] | None = None) -> int:
        """Make dead letters ready again."""
        return await self._caretaker.replay(ids)

    async def purge(self, *, done_before: datetime | None = None, dead_before: datetime | None = None) -> int:
        """Delete what was done, or buried, before a time."""
        return await self._caretaker.purge(done_before=done_before, dead_before=dead_before)

    async def stats(self) -> InboxStats:
        """Count; what was handed out before and is not settled is looked at, the rest is counted by the servers."""
        return await self._caretaker.stats()


@asynccontextmanager
async def _running(stream: Stream) -> AsyncIterator[None]:
    """Let a stream write what gathers."""
    writing = asyncio.create_task(stream.keep_writing())
    try:
        yield
    finally:
        writing.cancel()
        await asyncio.wait([writing])
