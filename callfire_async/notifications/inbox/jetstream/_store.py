"""Reads and writes the records, bodies and dead letters of a `JetStreamInbox`, with optimistic concurrency."""

from __future__ import annotations

import asyncio
import hashlib
import math
import secrets
from collections.abc import Awaitable, Iterable, Sequence
from typing import TypeVar

from attrs import evolve, frozen

from callfire_async.errors import InboxError
from callfire_async.notifications.inbox.base import Clock, Delivery
from callfire_async.notifications.inbox.jetstream._config import InboxStreams
from callfire_async.notifications.inbox.jetstream._connection import NatsConnection
from callfire_async.notifications.inbox.jetstream._consumer import PullConsumer, PulledMessage
from callfire_async.notifications.inbox.jetstream._first_leases import FirstLeases
from callfire_async.notifications.inbox.jetstream._records import (
    DEAD,
    DONE,
    READY,
    DeliveryRecord,
    Message,
    StoredMessage,
    decode_record,
)
from callfire_async.notifications.inbox.jetstream._stream import (
    EXPECTED_REVISION,
    PendingMessage,
    RevisionConflictError,
    Stream,
)

T = TypeVar("T")

_MAX_CONCURRENCY = 64


@frozen(eq=False)
class OpenState:
    """The objects that exist only while an inbox is open."""

    connection: NatsConnection
    clock: Clock
    consumer: PullConsumer
    first_leases: FirstLeases
    queue: Stream
    records: Stream
    dead: Stream


class DeliveryStore:
    """
    Reads and writes the state of each delivery.

    Args:
        streams: The names of the streams.
        retention: Seconds for which the servers keep the records of handled deliveries.
    """

    def __init__(self, streams: InboxStreams, retention: float) -> None:
        self.streams = streams
        #: None while the inbox is not open.
        self.state: OpenState | None = None
        self._retention = retention

    @property
    def opened(self) -> OpenState:
        """The state of the open inbox; raises `InboxError` while it is not open."""
        if self.state is None:
            raise InboxError("this inbox is not open; use it inside 'async with'")
        return self.state

    def now(self) -> float:
        """Return the servers' time, in seconds since 1970."""
        return self.opened.clock.seconds()

    # --- records ------------------------------------------------------------------------------------------

    async def get_record(self, id: int) -> DeliveryRecord | None:
        """Return a delivery's record on disk, from the leader of its servers; None if it has none."""
        stored = await self.opened.records.get_last(self.record_subject(id)) if id else None
        return None if stored is None else decode_record(stored)

    async def get_open_record(self, id: int, held: DeliveryRecord | None = None) -> DeliveryRecord | None:
        """Return a delivery's record; without one on disk its first lease, *held* or in memory, while it is queued."""
        record = await self.get_record(id)
        if record is not None or not id:
            return record
        lease = held or await self.opened.first_leases.get(id)
        queued = None if lease is None else await self.opened.queue.get(id)
        # Sequences start again if a stream is recreated.
        is_current = lease is not None and queued is not None and lease.is_of(Message.decode(queued))
        return lease if is_current else None

    async def get_records(self, ids: Sequence[int]) -> dict[int, DeliveryRecord]:
        """Return the records on disk of these deliveries, by ID; recent ones and recent changes may be missing."""
        subjects = [[self.record_subject(id) for id in page] for page in pages(ids)]
        stored = [each for page in subjects for each in await self.opened.records.last_of(page)]
        return {record.id: record for record in map(decode_record, stored)}

    async def write(self, record: DeliveryRecord) -> DeliveryRecord | None:
        """
        Write a record, unless another process has written it since it was read; mark the event of one that is done.

        Returns:
            The record as it is then. It is *record* if its ``write`` is the same.
        """
        headers = {EXPECTED_REVISION: str(record.revision)}
        if record.state == DONE:
            headers |= self.ttl_headers()
        message = PendingMessage(self.record_subject(record.id), record.encode(), headers)
        try:
            ack, *_ = await self.opened.records.publish(message, *self._event_messages(record))
        except RevisionConflictError:
            return await self.get_record(record.id)
        return evolve(record, revision=ack.sequence)

    async def write_lease(self, record: DeliveryRecord, pulled: PulledMessage) -> DeliveryRecord | None:
        """
        Write the lease of a pulled message, unless another process has leased the delivery since it was read.

        The lease of a delivery without a record is written in the servers' memory, and only there if it is the first.

        Returns:
            The record as it is then, or None. It is *record* if its ``write`` is the same.
        """
        try:
            uses_memory = not (record.revision or pulled.message.replays)
            # Of a later lease, only what it replaces: it would count as a crash if its record cannot be written.
            kept = record if pulled.is_new else evolve(record, state=READY)
            is_in_memory = uses_memory and await self.opened.first_leases.write(kept)
        except RevisionConflictError:
            return None
        return record if is_in_memory and pulled.is_new else await self.write(record)

    async def write_event(self, record: DeliveryRecord) -> None:
        """Mark the event of a record that was written, in case its writer did not."""
        if messages := self._event_messages(record):
            await self.opened.records.publish(*messages)

    def _event_messages(self, record: DeliveryRecord) -> list[PendingMessage]:
        if record.state != DONE or not record.event_key:
            return []
        return [PendingMessage(self.event_subject(record.event_key, record.id), b"", self.ttl_headers())]

    def ttl_headers(self) -> dict[str, str]:
        """Return the headers of a message that the server deletes after ``retention``."""
        return {"Nats-TTL": f"{max(1, math.ceil(self._retention))}s"}

    def record_subject(self, id: int | str) -> str:
        """Return the subject of a delivery's record; the ID ``*`` matches all deliveries."""
        return f"{self.streams.records}.record.{id}"

    def event_subject(self, event_key: str, id: int | str) -> str:
        """Return the subject that marks an event as handled by a delivery; the ID ``*`` matches all deliveries."""
        return f"{self.streams.records}.event.{digest(event_key)}.{id}"

    # --- bodies -------------------------------------------------------------------------------------------

    def dead_subject(self, id: int) -> str:
        """Return the subject of a dead letter."""
        return f"{self.streams.dead}.{id}"

    async def get_dead_letter(self, id: int) -> StoredMessage | None:
        """Return the message of a dead letter, which has its body."""
        return await self.opened.dead.get_last(self.dead_subject(id))

    async def delete_dead_letter(self, dead_letter: StoredMessage | None) -> None:
        """Delete a dead letter as it was read, and no later one of the same delivery."""
        if dead_letter is not None:
            await self.opened.dead.delete(dead_letter.sequence)

    async def get_delivery(self, record: DeliveryRecord) -> Delivery:
        """Return a record's delivery with its body, from the dead letters or the queue."""
        if record.state == DONE:
            return record.delivery
        dead_letter = await self.get_dead_letter(record.id) if record.state == DEAD else None
        stored = dead_letter or await self.opened.queue.get(record.message)
        return record.delivery if stored is None else Message.decode(stored).delivery

    async def requeue(self, record: DeliveryRecord, *, crashes: int, due_at: float) -> bool:
        """Queue a dead letter again, which counts as due since *due_at*; return False if another process has."""
        delivery, dead_letter = await self.get_delivery(record), await self.get_dead_letter(record.id)
        # With the revision in its ID, concurrent replays of a dead letter are duplicates.
        headers = {"Nats-Msg-Id": f"{record.id}@{record.revision}"}
        data = Message.encode(delivery, record, crashes)
        (ack,) = await self.opened.queue.publish(PendingMessage(self.streams.replay_subject, data, headers))
        # A conflict means that the message was pulled already, and its record written.
        await self.write(evolve(record.reset(ack.sequence, crashes, due_at), write=secrets.token_hex(8)))
        await self.delete_dead_letter(dead_letter)
        return not ack.duplicate


def digest(text: str) -> str:
    """Return a SHA-256 of any text, including the lone surrogates of an undecodable header."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def pages(items: Sequence[T]) -> Iterable[Sequence[T]]:
    """Split *items* into pages to process concurrently."""
    return (items[first : first + _MAX_CONCURRENCY] for first in range(0, len(items), _MAX_CONCURRENCY))


async def gather_all(awaitables: Sequence[Awaitable[T]]) -> list[T]:
    """Return all results in order; wait for all awaitables before the first error is raised."""
    outcomes = await asyncio.gather(*awaitables, return_exceptions=True)
    errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    if errors:
        raise errors[0]
    return [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
