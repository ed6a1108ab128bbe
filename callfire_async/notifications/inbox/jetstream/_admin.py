"""
Looking after an inbox on JetStream: what there is, what was, what begins again and what is thrown away.

It imports the protocol and the rooms beside it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime

from callfire_async.notifications.inbox.base import Delivery, InboxEntry, InboxStats, parse_row_id
from callfire_async.notifications.inbox.jetstream._records import DEAD, DONE, LEASED, READY, DeliveryRecord, Message
from callfire_async.notifications.inbox.jetstream._store import DeliveryStore, gather_all, pages


class InboxAdmin:
    """
    Shows and counts deliveries, begins dead letters again, and deletes what is old.

    Args:
        ledger: What is known of each delivery.
    """

    def __init__(self, ledger: DeliveryStore) -> None:
        self._ledger = ledger

    async def handled(self, event_keys: Iterable[str]) -> frozenset[str]:
        """Return which of these events were acked, within ``retention``."""
        keys = [key for key in dict.fromkeys(event_keys) if key]
        found = [key for page in pages(keys) for key in await gather_all([self._seen(key) for key in page])]
        return frozenset(key for key in found if key is not None)

    async def _seen(self, event_key: str) -> str | None:
        count, _ = await self._ledger.opened.records.count(self._ledger.event_subject(event_key, "*"))
        return event_key if count else None

    async def get(self, id: int | str) -> InboxEntry | None:
        """Return what is known of one delivery."""
        number = parse_row_id(id)
        return await self._entry(number) if number else None

    async def _entry(self, id: int) -> InboxEntry | None:
        # In this order: what is settled meanwhile has left the queue and has a record.
        stored = await self._ledger.opened.messages.at(id)
        record = await self._ledger.record(id)
        if record is not None:
            return self._told(record, await self._ledger.delivery(record))
        if stored is None or (message := Message.read(stored)).id != id:
            return None
        return self._told(DeliveryRecord.new(message), message.delivery)

    def _told(self, record: DeliveryRecord, delivery: Delivery) -> InboxEntry:
        expired = record.state == LEASED and record.due_at <= self._ledger.now()
        state = READY if expired else record.state
        updated_at = datetime.fromtimestamp(record.updated_at, UTC)
        return InboxEntry(record.id, state, delivery, record.attempt, record.crashes, record.reason, updated_at)

    async def entries(self, state: str | None = None) -> AsyncIterator[InboxEntry]:
        """Iterate over the deliveries that there are now, in order of arrival."""
        opened = self._ledger.opened
        # In this order: what is settled meanwhile has left the one and is in the other.
        ids = {Message.read(stored).id async for stored in opened.messages.listed(self._ledger.settings.queued)}
        ids |= {
            DeliveryRecord.read(stored).id async for stored in opened.records.listed(self._ledger.record_subject("*"))
        }
        for page in pages(sorted(ids)):
            for entry in await gather_all([self._entry(id) for id in page]):
                if entry is not None and state in (None, entry.state):
                    yield entry

    async def replay(self, ids: Iterable[int | str] | None = None) -> int:
        """Make dead letters ready again."""
        if ids is None:
            dead = [record.id for record in await self._records_in(DEAD)]
        else:
            dead = [id for id in dict.fromkeys(map(parse_row_id, ids)) if id]
        replayed = 0
        for id in dead:
            record = await self._ledger.record(id)
            replayed += record is not None and record.state == DEAD and await self._ledger.requeue(record, crashes=0)
        return replayed

    async def _records_in(self, state: str) -> list[DeliveryRecord]:
        """Return the records in a state, in order of arrival."""
        listed = self._ledger.opened.records.listed(self._ledger.record_subject("*"))
        records = [record async for stored in listed if (record := DeliveryRecord.read(stored)).state == state]
        return sorted(records, key=lambda record: record.id)

    async def purge(self, *, done_before: datetime | None = None, dead_before: datetime | None = None) -> int:
        """Delete what was done, or buried, before a time."""
        before = {DONE: done_before, DEAD: dead_before}
        limits = {state: moment.timestamp() for state, moment in before.items() if moment is not None}
        if not limits:
            raise TypeError("say done_before, dead_before or both")
        listed = self._ledger.opened.records.listed(self._ledger.record_subject("*"))
        records = [record async for stored in listed if (record := DeliveryRecord.read(stored)).state in limits]
        old = [record for record in records if record.updated_at < limits[record.state]]
        return sum([sum(await gather_all([self._purge(record) for record in page])) for page in pages(old)])

    async def _purge(self, record: DeliveryRecord) -> bool:
        """Delete a record as it was read, and what belongs to it."""
        letter = await self._ledger.letter(record.id) if record.state == DEAD else None
        if not await self._ledger.opened.records.delete(record.revision):
            return False
        await self._ledger.discard(letter)
        if record.event_key:
            await self._ledger.opened.records.delete_all(self._ledger.event_subject(record.event_key, record.id))
        return True

    async def stats(self) -> InboxStats:
        """Count; what was handed out before and is not settled is looked at, the rest is counted by the servers."""
        opened, settings = self._ledger.opened, self._ledger.settings
        with opened.link.told():
            consumer = await opened.link.jetstream.consumer_info(settings.queue, settings.consumer)
        last = consumer.delivered.stream_seq if consumer.delivered is not None else 0
        waiting, first = await opened.messages.count(settings.queued, after=last)
        again, _ = await opened.messages.count(settings.again, after=last)
        open_records = await self._handed_out_until(last)
        recorded, _ = await opened.records.count(self._ledger.record_subject("*"))
        dead, _ = await opened.dead.count(f"{settings.dead}.*")
        now = self._ledger.now()
        due = [record.due_at for record in open_records if record.due_at <= now]
        later = [record.state for record in open_records if record.due_at > now]
        ready_since = [*due, *([] if first is None else [first.at])]
        return InboxStats(
            ready=len(due) + waiting,
            delayed=later.count(READY),
            leased=later.count(LEASED),
            done=max(0, recorded - dead - again - sum(record.revision > 0 for record in open_records)),
            dead=dead,
            oldest_ready_age=max(0.0, now - min(ready_since)) if ready_since else None,
        )

    async def _handed_out_until(self, last: int) -> list[DeliveryRecord]:
        """Return the open records of what was handed out up to a message."""
        messages = []
        async for stored in self._ledger.opened.messages.listed(self._ledger.settings.queued):
            if stored.sequence > last:
                break
            messages.append(Message.read(stored))
        found = [record for page in pages(messages) for record in await gather_all([self._known(one) for one in page])]
        return [record for record in found if record.is_open]

    async def _known(self, message: Message) -> DeliveryRecord:
        return await self._ledger.record(message.id) or DeliveryRecord.new(message)
