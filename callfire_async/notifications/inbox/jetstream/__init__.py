"""
`JetStreamInbox`: an inbox on NATS JetStream, shared by processes on any number of machines.

It has three streams on disk. The *queue* (work-queue retention) has a message with the body of each delivery that is
not settled; its pull consumer delivers each message to one process at a time. The *records* hold the state of each
delivery: its lease, its attempts, its outcome. Each write of a record names the revision that it replaces, so of two
concurrent writes one is refused. The *dead* letters have a stream of their own, with their bodies.

The first lease of a delivery is not a record, but is kept in the servers' memory, in the stream of *leases*. It is
written like a record, so of two processes one gets it. Its holder writes the first record, and another process cannot
lease the delivery without one. If the servers have no memory for it, or a delivery is redelivered, the lease is a
record.

The record, or else the first lease, is authoritative: a delivery is leased, done or dead if it says so. The consumer
only distributes messages. It redelivers a message that was not acknowledged when its lease would have expired, and the
process that pulls the message acts on the record. If a process crashes between two writes:

===============  ====================================  ================================================================
operation        crash after                           effect
===============  ====================================  ================================================================
``append``       the message is stored                 the delivery is handled; a retry in the window is a duplicate
``claim``        the message is pulled                 the message is redelivered after a minute; no crash is counted
``claim``        the lease is written                  the lease expires and counts as a crash
``extend``       the record has the new expiry         the message is redelivered early, and delayed until the expiry
``ack``          the record is *done*, and its event   the next process to pull the message deletes it, after it has
                 is marked for ``handled``             marked the event, if the two were not stored at once
``nack``,        the record is *ready*                 the message is redelivered when the lease would have expired
``release``
``dead_letter``  the record is *dead*                  the next process to pull the message copies the body to the dead
                                                       letters and deletes the message
``dead_letter``  the dead letter is stored             the next process to pull the message deletes it
``replay``       the new message is queued             the next process to pull the message completes the replay: the
                                                       message names the revision of the dead letter's record
``replay``       the record is *ready*                 the next process to pull the message deletes the dead letter
===============  ====================================  ================================================================

Differences from the protocol:

- Redelivered messages are claimed before new ones. Each list of leases is ordered by due time, then arrival. The
  deliveries that one append, replay or close makes ready are due at the same time.
- ``append_many`` is atomic for up to a thousand deliveries, unless one of them is a duplicate.
- An operation that raises `InboxUnavailableError` may have been executed. A repeated append is then a duplicate, and a
  repeated settlement of a lease returns True.
- Deduplication uses the servers' memory of ``dedupe_window``, which loses handled deliveries if all servers restart. If
  the window is shorter than ``timeout``, an append that is retried may be stored twice.
- ``entries``, ``stats`` and ``purge`` do not use a snapshot: a delivery that changes meanwhile may be counted in its
  old or new state, and replicas may be slightly behind.
- If a machine crashes, its leases expire at their normal time.
- If all servers restart, first leases are lost: their deliveries appear as ready and can be settled. No other process
  gets them before the leases would have expired, unless the consumer is created again or a killed server has lost its
  last changes; their crashes are not counted.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import ssl
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from types import TracebackType
from typing import Self

from attrs import evolve

from callfire_async._arguments import check_integer, type_name
from callfire_async.errors import InboxError
from callfire_async.notifications.inbox._inbox_arguments import check_flags, check_positive, check_seconds
from callfire_async.notifications.inbox.base import (
    MAX_SECONDS,
    AppendResult,
    Delivery,
    InboxEntry,
    InboxStats,
    Lease,
)

# First, because it reports a missing nats-py.
from callfire_async.notifications.inbox.jetstream._connection import NatsConnection

# isort: split
from callfire_async.notifications.inbox.jetstream._admin import InboxAdmin
from callfire_async.notifications.inbox.jetstream._config import HEAD_BYTES, InboxStreams, prepare, server_clock
from callfire_async.notifications.inbox.jetstream._consumer import PullConsumer
from callfire_async.notifications.inbox.jetstream._first_leases import FirstLeases
from callfire_async.notifications.inbox.jetstream._guard import ConsumerGuard
from callfire_async.notifications.inbox.jetstream._leases import LeaseManager
from callfire_async.notifications.inbox.jetstream._records import DEAD, DONE, READY, DeliveryRecord, Message
from callfire_async.notifications.inbox.jetstream._servers import ServerList
from callfire_async.notifications.inbox.jetstream._store import DeliveryStore, OpenState, digest
from callfire_async.notifications.inbox.jetstream._stream import PendingMessage, PublishAck, Stream

__all__ = ["JetStreamInbox"]

# The server's limit for an atomic batch.
_MAX_ATOMIC_APPENDS = 1000


class JetStreamInbox:
    """
    An inbox on NATS JetStream, shared by processes on any number of machines.

    The streams are created if they are missing. Opening the inbox logs one warning about guarantees that the servers
    do not give: one replica, storage in memory, acknowledgement before the disk sync.

    Args:
        servers: URLs of NATS servers, version 2.12 or later: one, or several of one cluster. A ``tls://`` URL requires
            TLS. Special characters of a user or password are percent-encoded.
        name: Prefix of the streams' names: letters, digits, ``-`` and ``_``. Each inbox needs its own.
        replicas: Number of servers that store each stream, if it is created; three survive the loss of any one.
        dedupe_window: Seconds within which two deliveries with the same key count as one; 0 disables deduplication.
        retention: Seconds for which the keys of handled deliveries are kept. Default: 30 days.
        keep_bodies: Whether handled deliveries keep their bodies.
        timeout: Seconds for any operation on the servers.
        tls: Requires TLS, with these certificates. Default: the system's, if the servers require TLS.
        create: Whether to create the streams, and to apply *dedupe_window* to those that exist. False is for tools:
            opening the inbox fails if it does not exist, and no stream is created or changed.

    Raises:
        ValueError: *servers* has an invalid URL, *name* has other characters, or a number is out of range.
        TypeError: *servers* is neither a string nor a list of strings, or another argument has the wrong type.

    Opening the inbox raises `InboxUnavailableError` if no server responds in time, and `InboxError` if the server is
    too old or a stream with this name has a different configuration.
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
        create: bool = True,
    ) -> None:
        ServerList.parse(servers)
        _check_name(name)
        check_integer("replicas", replicas, minimum=1)
        check_seconds(dedupe_window=dedupe_window, retention=retention)
        check_flags(keep_bodies=keep_bodies, create=create)
        check_positive(timeout=timeout)
        if tls is not None and not isinstance(tls, ssl.SSLContext):
            raise TypeError(f"tls must be an ssl.SSLContext, not {type_name(tls)}")
        self._servers = servers if isinstance(servers, str) else tuple(servers)
        self._streams = InboxStreams(name, replicas, min(dedupe_window, MAX_SECONDS))
        self._dedupe_window = dedupe_window
        self._retention = retention
        self._keep_bodies = keep_bodies
        self._timeout = timeout
        self._tls = tls
        self._create = create
        self._exit_stack = AsyncExitStack()
        self._store = DeliveryStore(self._streams, min(retention, MAX_SECONDS))
        self._leases = LeaseManager(self._store)
        self._admin = InboxAdmin(self._store)

    def __repr__(self) -> str:
        return f"<JetStreamInbox {self._streams.name!r}>"

    @property
    def retention(self) -> float:
        """Seconds for which the keys of handled deliveries are kept, and `handled` is complete."""
        return self._retention

    # --- lifecycle ----------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """
        Connect, and create the streams if they are missing.

        Raises:
            InboxUnavailableError: No server responds in time.
            InboxError: The server is too old, or a stream with this name has a different configuration.
        """
        async with AsyncExitStack() as stack:
            connection = NatsConnection(self._servers, self._timeout, self._tls)
            await stack.enter_async_context(connection.opened())
            await prepare(connection, self._streams, create=self._create)
            clock = await server_clock(connection, self._streams)
            names = (self._streams.queue, self._streams.records, self._streams.dead)
            streams = [Stream(connection, name) for name in names]
            first_leases = FirstLeases(connection, self._streams, create=self._create)
            stack.push_async_callback(_close_all, [*streams, first_leases])
            await first_leases.open()
            guard = ConsumerGuard(connection, self._streams)
            consumer = PullConsumer(connection, self._streams.queue, self._streams.consumer, guard)
            await stack.enter_async_context(consumer.opened())
            stack.push_async_callback(self._release_all)
            self._store.state = OpenState(connection, clock, consumer, first_leases, *streams)
            self._exit_stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the inbox; its leases are released for other processes and count as crashes."""
        await self._exit_stack.aclose()

    async def _release_all(self) -> None:
        await self._leases.release_all(self._store.opened.connection.close_timeout)
        self._store.state = None

    # --- append -------------------------------------------------------------------------------------------

    async def append(self, delivery: Delivery) -> AppendResult:
        """Store a delivery; return after the servers have acknowledged it."""
        (appended,) = await self.append_many([delivery])
        return appended

    async def append_many(self, deliveries: Sequence[Delivery]) -> list[AppendResult]:
        """Store deliveries, up to a thousand atomically unless one of them is a duplicate."""
        queue, now = self._store.opened.queue, self._store.now()
        messages = [self._message(delivery) for delivery in deliveries]
        acks: list[PublishAck] = []
        for first in range(0, len(messages), _MAX_ATOMIC_APPENDS):
            acks += await queue.publish(*messages[first : first + _MAX_ATOMIC_APPENDS])
        return [await self._append_result(*one, now) for one in zip(deliveries, messages, acks, strict=True)]

    def _message(self, delivery: Delivery) -> PendingMessage:
        data = Message.encode(delivery)
        limit = self._store.opened.connection.client.max_payload - HEAD_BYTES
        if len(data) > limit:
            raise InboxError(f"delivery of {len(data)} bytes is too large: NATS accepts {limit} (raise max_payload)")
        id = digest(delivery.key) if self._dedupe_window > 0 else secrets.token_hex(16)
        return PendingMessage(self._streams.append_subject, data, {"Nats-Msg-Id": id})

    async def _append_result(
        self, delivery: Delivery, message: PendingMessage, ack: PublishAck, now: float
    ) -> AppendResult:
        if not ack.duplicate:
            return AppendResult(ack.sequence, duplicate=False)
        # In this order: a delivery that is settled meanwhile has left the queue and has a record.
        queued = await self._store.opened.queue.get(ack.sequence)
        record = await self._store.get_record(ack.sequence)
        if queued is None and record is None:
            return await self._append_after_purge(delivery, message, ack.sequence, now)
        if record is not None and record.state == DEAD and delivery.envelope_id is None:
            await self._store.requeue(record, crashes=record.crashes, due_at=now)
        return AppendResult(ack.sequence, duplicate=True)

    async def _append_after_purge(
        self, delivery: Delivery, message: PendingMessage, purged: int, now: float
    ) -> AppendResult:
        """Store a delivery whose duplicate was purged, under another ID, because the server remembers the first."""
        renamed = evolve(message, headers={"Nats-Msg-Id": f"{message.headers['Nats-Msg-Id']}.{purged}"})
        (ack,) = await self._store.opened.queue.publish(renamed)
        return await self._append_result(delivery, renamed, ack, now)

    # --- claim and settle ---------------------------------------------------------------------------------

    async def claim(self, limit: int, *, lease: float) -> list[Lease]:
        """Lease deliveries of the queue that are due, ordered by due time, then arrival."""
        return await self._leases.claim(limit, lease=lease)

    async def wait(self, timeout: float) -> None:
        """Wait until a delivery may be due, or *timeout* seconds have passed."""
        await self._store.opened.consumer.wait(timeout)

    async def extend(self, lease: Lease, seconds: float) -> bool:
        """Extend a lease to *seconds* from now."""
        due_at = self._store.now() + seconds
        extended = await self._leases.settle(lease, lambda record: evolve(record, due_at=due_at))
        return await self._leases.nak(extended, lease, seconds)

    async def ack(self, lease: Lease, *, event_key: str = "") -> bool:
        """Mark a delivery as done."""
        body = lease.delivery.body if self._keep_bodies else b""

        def done(record: DeliveryRecord) -> DeliveryRecord:
            delivery = evolve(record.delivery, body=body)
            return evolve(record, state=DONE, event_key=event_key, reason="", delivery=delivery)

        return await self._leases.complete(await self._leases.settle(lease, done), lease)

    async def nack(
        self, lease: Lease, *, delay: float, completed: frozenset[str] = frozenset(), reason: str = ""
    ) -> bool:
        """Schedule another attempt at a delivery."""
        due_at = self._store.now() + delay

        def failed(record: DeliveryRecord) -> DeliveryRecord:
            names = record.completed | completed
            attempt = record.attempt + 1
            return evolve(record, state=READY, attempt=attempt, due_at=due_at, completed=names, reason=reason)

        return await self._leases.nak(await self._leases.settle(lease, failed), lease, delay)

    async def release(self, lease: Lease, *, completed: frozenset[str] = frozenset()) -> bool:
        """Return a delivery unattempted."""
        now = self._store.now()

        def released(record: DeliveryRecord) -> DeliveryRecord:
            return evolve(record, state=READY, due_at=now, completed=record.completed | completed)

        return await self._leases.nak(await self._leases.settle(lease, released), lease, 0)

    async def dead_letter(self, lease: Lease, reason: str, *, completed: frozenset[str] = frozenset()) -> bool:
        """Move a delivery to the dead letters."""

        def dead(record: DeliveryRecord) -> DeliveryRecord:
            return evolve(record, state=DEAD, completed=record.completed | completed, reason=reason)

        return await self._leases.complete(await self._leases.settle(lease, dead), lease)

    # --- administration -----------------------------------------------------------------------------------

    async def handled(self, event_keys: Iterable[str]) -> frozenset[str]:
        """Return which of these events were acked, within ``retention``."""
        return await self._admin.handled(event_keys)

    async def get(self, id: int | str) -> InboxEntry | None:
        """Return one delivery, or None."""
        return await self._admin.get(id)

    def entries(self, state: str | None = None) -> AsyncIterator[InboxEntry]:
        """Iterate over the deliveries that exist now, in order of arrival."""
        return self._admin.entries(state)

    async def replay(self, ids: Iterable[int | str] | None = None) -> int:
        """Make dead letters ready again."""
        return await self._admin.replay(ids)

    async def purge(self, *, done_before: datetime | None = None, dead_before: datetime | None = None) -> int:
        """Delete deliveries that became done or dead before a time."""
        return await self._admin.purge(done_before=done_before, dead_before=dead_before)

    async def stats(self) -> InboxStats:
        """Count the deliveries in each state."""
        return await self._admin.stats()


async def _close_all(streams: Sequence[Stream | FirstLeases]) -> None:
    await asyncio.gather(*(stream.close() for stream in streams))


def _check_name(name: object) -> None:
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, not {type_name(name)}")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ValueError("name must be letters, digits, '-' and '_'")
