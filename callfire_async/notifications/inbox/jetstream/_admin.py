"""Inspects, replays, purges and counts the deliveries of a `JetStreamInbox`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime

from attrs import evolve

from callfire_async.notifications.inbox._inbox_arguments import checked_list
from callfire_async.notifications.inbox.base import Delivery, InboxEntry, InboxStats, parse_row_id, purge_limits
from callfire_async.notifications.inbox.jetstream._records import (
    DEAD,
    DELAYED,
    DONE,
    LEASED,
    READY,
    DeliveryRecord,
    Message,
    decode_record,
)
from callfire_async.notifications.inbox.jetstream._store import DeliveryStore, gather_all, pages


class InboxAdmin:
    """
    The operations of an inbox that are not part of handling deliveries.

    Args:
        store: The state of each delivery.
    """

    def __init__(self, store: DeliveryStore) -> None:
        self._store = store

    # --- inspect ------------------------------------------------------------------------------------------

    async def handled(self, event_keys: Iterable[str]) -> frozenset[str]:
        """Return which of these events were acked, within ``retention``."""
        keys = [key for key in dict.fromkeys(event_keys) if key]
        is_handled = [
            handled for page in pages(keys) for handled in await gather_all(list(map(self._is_handled, page)))
        ]
        return frozenset(key for key, handled in zip(keys, is_handled, strict=True) if handled)

    async def _is_handled(self, event_key: str) -> bool:
        count, _ = await self._store.opened.records.count(self._store.event_subject(event_key, "*"))
        return count > 0

    async def get(self, id: int | str) -> InboxEntry | None:
        """Return one delivery, or None."""
        number = parse_row_id(id)
        return await self._entry(number) if number else None

    async def _entry(self, id: int) -> InboxEntry | None:
        # In this order: a delivery that is settled meanwhile has left the queue and has a record.
        stored = await self._store.opened.queue.get(id)
        record = await self._store.get_open_record(id)
        if record is not None:
            return self._build_entry(record, await self._store.get_delivery(record), self._entry_state(record))
        if stored is None or (message := Message.decode(stored)).id != id:
            return None
        return self._build_entry(DeliveryRecord.new(message), message.delivery, READY)

    def _entry_state(self, record: DeliveryRecord) -> str:
        if not record.is_open:
            return record.state
        if record.due_at <= self._store.now():
            return READY
        return LEASED if record.state == LEASED else DELAYED

    @staticmethod
    def _build_entry(record: DeliveryRecord, delivery: Delivery, state: str) -> InboxEntry:
        updated_at = datetime.fromtimestamp(record.updated_at, UTC)
        return InboxEntry(record.id, state, delivery, record.attempt, record.crashes, record.reason, updated_at)

    async def entries(self, state: str | None = None) -> AsyncIterator[InboxEntry]:
        """Iterate over the deliveries that exist now, in order of arrival."""
        streams, opened = self._store.streams, self._store.opened
        # In this order: a delivery that is settled meanwhile has left the queue and has a record.
        ids = {Message.decode(stored).id async for stored in opened.queue.messages(streams.queue_subjects)}
        ids |= {record.id async for record in self._records()}
        for page in pages(sorted(ids)):
            for entry in await gather_all([self._entry(id) for id in page]):
                if entry is not None and state in (None, entry.state):
                    yield entry

    async def _records(self) -> AsyncIterator[DeliveryRecord]:
        """Yield all records. There may be millions, with bodies if they are kept, so they are not collected."""
        async for stored in self._store.opened.records.messages(self._store.record_subject("*")):
            yield decode_record(stored)

    # --- replay and purge ---------------------------------------------------------------------------------

    async def replay(self, ids: Iterable[int | str] | None = None) -> int:
        """Make dead letters ready again; return how many."""
        if ids is None:
            numbers = sorted([record.id async for record in self._records() if record.state == DEAD])
        else:
            numbers = sorted({id for id in map(parse_row_id, checked_list("ids", ids)) if id})
        now = self._store.now()
        return sum([await self._replay(id, now) for id in numbers])

    async def _replay(self, id: int, now: float) -> bool:
        record = await self._store.get_record(id)
        return record is not None and record.state == DEAD and await self._store.requeue(record, crashes=0, due_at=now)

    async def purge(self, *, done_before: datetime | None = None, dead_before: datetime | None = None) -> int:
        """Delete deliveries that became done or dead before a time; return how many."""
        states = {"done": DONE, "dead": DEAD}
        limits = {states[state]: at.timestamp() for state, at in purge_limits(done_before, dead_before).items()}
        old = [_without_body(r) async for r in self._records() if r.state in limits and r.updated_at < limits[r.state]]
        return sum([sum(await gather_all([self._purge(record) for record in page])) for page in pages(old)])

    async def _purge(self, record: DeliveryRecord) -> bool:
        """Delete a record as it was read, with its dead letter and event key."""
        dead_letter = await self._store.get_dead_letter(record.id) if record.state == DEAD else None
        if not await self._store.opened.records.delete(record.revision):
            return False
        await self._store.delete_dead_letter(dead_letter)
        if record.event_key:
            await self._store.opened.records.delete_all(self._store.event_subject(record.event_key, record.id))
        return True

    # --- stats --------------------------------------------------------------------------------------------

    async def stats(self) -> InboxStats:
        """Count the deliveries in each state; only deliveries that were pulled and not settled are read."""
        opened, streams = self._store.opened, self._store.streams
        last_pulled = await self._last_pulled()
        unpulled, first = await opened.queue.count(streams.queue_subjects, after=last_pulled)
        replays, _ = await opened.queue.count(streams.replay_subject, after=last_pulled)
        pulled = await self._pulled_records(last_pulled)
        record_count, _ = await opened.records.count(self._store.record_subject("*"))
        dead, _ = await opened.dead.count(f"{streams.dead}.*")
        now = self._store.now()
        due = [record.due_at for record in pulled if record.due_at <= now]
        not_due = [record.state for record in pulled if record.due_at > now]
        ready_since = [*due, *([] if first is None else [first.time])]
        return InboxStats(
            ready=len(due) + unpulled,
            delayed=not_due.count(READY),
            leased=not_due.count(LEASED),
            done=max(0, record_count - dead - replays - sum(record.revision > 0 for record in pulled)),
            dead=dead,
            oldest_ready_age=max(0.0, now - min(ready_since)) if ready_since else None,
        )

    async def _last_pulled(self) -> int:
        """Return the sequence of the last message that the consumer delivered."""
        connection, streams = self._store.opened.connection, self._store.streams
        consumer = await connection.request_with_retry(
            lambda seconds: connection.jetstream.consumer_info(streams.queue, streams.consumer, timeout=seconds),
            stream=streams.queue,
        )
        return consumer.delivered.stream_seq if consumer.delivered is not None else 0

    async def _pulled_records(self, last_pulled: int) -> list[DeliveryRecord]:
        """Return the open records of messages in the queue up to *last_pulled*."""
        messages = []
        async for stored in self._store.opened.queue.messages(self._store.streams.queue_subjects):
            if stored.sequence > last_pulled:
                break
            messages.append(Message.decode(stored))
        # Several in one request: there may be thousands that wait for their next attempt.
        recorded = await self._store.get_records([message.id for message in messages])
        others = [message for message in messages if message.id not in recorded]
        leased = [record for page in pages(others) for record in await gather_all(list(map(self._record_of, page)))]
        return [record for record in (*recorded.values(), *leased) if record.is_open]

    async def _record_of(self, message: Message) -> DeliveryRecord:
        return await self._store.get_open_record(message.id) or DeliveryRecord.new(message)


def _without_body(record: DeliveryRecord) -> DeliveryRecord:
    return evolve(record, delivery=evolve(record.delivery, body=b""))
