"""Claims, extends, settles and releases the leases of a `JetStreamInbox`."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress

from attrs import evolve

from callfire_async.errors import InboxError
from callfire_async.notifications.inbox.base import Delivery, Lease, isolate_suspects, parse_row_id
from callfire_async.notifications.inbox.jetstream._consumer import PulledMessage
from callfire_async.notifications.inbox.jetstream._records import DEAD, LEASED, READY, DeliveryRecord, Message
from callfire_async.notifications.inbox.jetstream._store import DeliveryStore, gather_all
from callfire_async.notifications.inbox.jetstream._stream import PendingMessage


class LeaseManager:
    """
    Creates and settles leases by writing delivery records.

    Args:
        store: The state of each delivery.
    """

    def __init__(self, store: DeliveryStore) -> None:
        self._store = store
        # This process's leases as it last wrote them, so that settling one does not read its record first.
        self._held: dict[int, DeliveryRecord] = {}
        # IDs of writes without a response by lease token. The server may execute each while a later one is in flight.
        self._unanswered: dict[str, set[str]] = {}
        # Calls that settle a lease, by its token.
        self._settling: Counter[str] = Counter()
        # Claims whose caller was cancelled, until their leases are released.
        self._returning: set[asyncio.Future[None]] = set()

    # --- claim --------------------------------------------------------------------------------------------

    async def claim(self, limit: int, *, lease: float) -> list[Lease]:
        """Lease deliveries of the queue that are due, ordered by due time, then arrival."""
        leases: list[Lease] = []
        while not leases and (pulled := await self._store.opened.consumer.pull(limit)):
            leases = await self._claim_shielded(pulled, lease)
        return leases

    async def _claim_shielded(self, pulled: Sequence[PulledMessage], lease: float) -> list[Lease]:
        """
        Lease pulled messages; if the caller is cancelled meanwhile, release the leases.

        A lease whose record is written would expire and count as a crash of the delivery.
        """
        claiming = asyncio.ensure_future(self._claim(pulled, lease))
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            returning = asyncio.ensure_future(self._return(claiming))
            self._returning.add(returning)
            returning.add_done_callback(self._returning.discard)
            raise

    async def _return(self, claiming: asyncio.Future[list[Lease]]) -> None:
        """Release the leases of a claim that its caller did not wait for; without a response they expire."""
        with suppress(InboxError):
            for lease in await claiming:
                released = await self.settle(lease, self._ready)
                await self.nak(released, lease, 0)

    def _ready(self, record: DeliveryRecord) -> DeliveryRecord:
        return evolve(record, state=READY, due_at=self._store.now())

    async def _claim(self, pulled: Sequence[PulledMessage], lease: float) -> list[Lease]:
        records = await gather_all([self._due_record(message) for message in pulled])
        due = [(record, message) for record, message in zip(records, pulled, strict=True) if record is not None]
        due.sort(key=lambda pair: (pair[0].due_at, pair[0].id))
        chosen = isolate_suspects(due, lambda pair: _crashes(pair[0]))
        for _, message in due[len(chosen) :]:
            await self._store.opened.consumer.nak(message.reply, 0)
        outcomes = await asyncio.gather(*(self._lease(*pair, lease) for pair in chosen), return_exceptions=True)
        leases = [outcome for outcome in outcomes if isinstance(outcome, Lease)]
        errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        # If some were leased, the caller must get them, whatever failed for the others.
        if errors and not leases:
            raise errors[0]
        return leases

    async def _due_record(self, pulled: PulledMessage) -> DeliveryRecord | None:
        """Return the record of a pulled message; None if the delivery cannot be leased now."""
        message = pulled.message
        # Also of a message that is delivered for the first time: so are all messages of a consumer that was created
        # again, and those that a new leader of the consumer delivers because it did not learn of their delivery.
        record = await self._store.get_record(message.id)
        if record is None and not (pulled.is_first or message.replays):
            record = await self._store.opened.first_leases.get(message.id)
        if record is None:
            return DeliveryRecord.new(message)
        if not record.is_of(message):
            new = DeliveryRecord.new(message)
            return evolve(new, revision=record.revision, lease_revision=record.lease_revision)
        if record.state == DEAD and record.revision == message.replays:
            return record.reset(message.sequence, message.crashes, self._store.now())
        return await self._check_due(record, pulled)

    async def _check_due(self, record: DeliveryRecord, pulled: PulledMessage) -> DeliveryRecord | None:
        """Return *record* if its delivery is due; else update the queue to match the record."""
        message, consumer = pulled.message, self._store.opened.consumer
        if record.message != message.sequence:
            # A later message has replaced this one, unless the record was read from a replica that is behind.
            if record.revision > message.replays:
                await consumer.ack(pulled.reply, is_dead=False)
            return None
        if not record.is_open:
            await self._store.write_event(record)
            await self._finish(record, pulled.reply, message.delivery.body)
            return None
        delay = record.due_at - self._store.now()
        if delay > 0:
            await consumer.nak(pulled.reply, delay)
            return None
        return record

    async def _lease(self, record: DeliveryRecord, pulled: PulledMessage, seconds: float) -> Lease | None:
        """Write a record's lease; return None if another process has written the record first."""
        now = self._store.now()
        leased = evolve(
            record,
            state=LEASED,
            due_at=now + seconds,
            updated_at=now,
            crashes=_crashes(record),
            token=f"{secrets.token_hex(8)} {pulled.reply}",
            write=secrets.token_hex(8),
        )
        # Read before the write: a process that crashed during a replay may have left this dead letter.
        dead_letter = await self._store.get_dead_letter(record.id) if pulled.message.replays else None
        written = await self._store.write_lease(leased, pulled)
        if written is None or written.write != leased.write:
            if pulled.is_first:
                # When the message is delivered again, the record of the delivery is read.
                await self._store.opened.consumer.nak(pulled.reply, 0)
            return None
        self._held[written.id] = written
        lease = _lease(written, pulled.message.delivery)
        if seconds != self._store.opened.consumer.ack_wait:
            await self.nak(written, lease, seconds)
        # The lease is valid either way, and would count as a crash if the caller did not get it.
        with suppress(InboxError):
            await self._store.delete_dead_letter(dead_letter)
        return lease

    # --- settle -------------------------------------------------------------------------------------------

    async def settle(self, lease: Lease, change: Callable[[DeliveryRecord], DeliveryRecord]) -> DeliveryRecord | None:
        """Change a delivery's record; return None if the lease was lost."""
        self._settling[lease.token] += 1
        try:
            return await self._settle(lease, change)
        finally:
            self._settling -= Counter([lease.token])

    async def _settle(self, lease: Lease, change: Callable[[DeliveryRecord], DeliveryRecord]) -> DeliveryRecord | None:
        record = await self._current(lease)
        while record is not None and record.token == lease.token:
            changed = evolve(change(record), updated_at=self._store.now(), write=secrets.token_hex(8))
            if record.state != LEASED:
                return await self._settled_before(record, changed.state)
            record = await self._write(changed)
            if record is not None and record.write == changed.write:
                self._update(record)
                return record
        self._forget(parse_row_id(lease.id), lease.token)
        return None

    async def _settled_before(self, record: DeliveryRecord, state: str) -> DeliveryRecord | None:
        """Return *record* if an earlier call of this operation, which got no response, has settled the lease."""
        is_own = record.write in self._unanswered.get(record.token, ()) and record.state == state
        if is_own:
            await self._store.write_event(record)
        self._forget(record.id, record.token)
        return record if is_own else None

    async def _current(self, lease: Lease) -> DeliveryRecord | None:
        id = parse_row_id(lease.id)
        held = self._held.get(id)
        if held is None or held.token != lease.token:
            return await self._store.get_open_record(id)
        # It is held until the outcome is known, because a first lease may be nowhere else.
        if held.revision or held.due_at > self._store.now():
            return held
        # Another process may have settled the delivery, and an operator have deleted its record.
        return await self._store.get_open_record(id, held)

    async def _write(self, changed: DeliveryRecord) -> DeliveryRecord | None:
        try:
            return await self._store.write(changed)
        except BaseException:
            self._unanswered.setdefault(changed.token, set()).add(changed.write)
            raise

    def _update(self, record: DeliveryRecord) -> None:
        """Store a lease as it was written, or remove it once it is settled."""
        self._forget(record.id, record.token)
        if record.state == LEASED:
            self._held[record.id] = record

    def _forget(self, id: int, token: str) -> None:
        self._unanswered.pop(token, None)
        if (held := self._held.get(id)) is not None and held.token == token:
            del self._held[id]

    async def nak(self, record: DeliveryRecord | None, lease: Lease, seconds: float) -> bool:
        """Have a message redelivered after *seconds*, if its lease was settled; return whether it was."""
        if record is not None:
            # Without it, the message is redelivered when the lease would have expired.
            with suppress(InboxError):
                await self._store.opened.consumer.nak(_reply(lease), seconds)
        return record is not None

    async def complete(self, record: DeliveryRecord | None, lease: Lease) -> bool:
        """Remove a message from the queue, if its lease was settled as done or dead; return whether it was."""
        if record is not None:
            # Otherwise the next process to pull the message completes it.
            with suppress(InboxError):
                await self._finish(record, _reply(lease), lease.delivery.body)
        return record is not None

    async def _finish(self, record: DeliveryRecord, reply: str, body: bytes) -> None:
        """Store the dead letter, if the delivery is one, and delete the message."""
        opened = self._store.opened
        if record.state == DEAD:
            data = Message.encode(evolve(record.delivery, body=body))
            await opened.dead.publish(PendingMessage(self._store.dead_subject(record.id), data, {}))
        await opened.consumer.ack(reply, is_dead=record.state == DEAD)

    # --- close --------------------------------------------------------------------------------------------

    async def release_all(self, timeout: float) -> None:
        """Make all leased deliveries ready for other processes; each counts as a crash."""
        if self._returning:
            await asyncio.wait(self._returning, timeout=timeout)
        # Due at one time, they are claimed in order of arrival.
        now = self._store.now()
        held = [record for record in self._held.values() if record.token not in self._settling]
        with suppress(InboxError, TimeoutError):
            async with asyncio.timeout(timeout):
                await asyncio.gather(*(self._release(record, now) for record in held), return_exceptions=True)
        self._held.clear()
        self._unanswered.clear()

    async def _release(self, record: DeliveryRecord, now: float) -> None:
        lease = _lease(record, record.delivery)
        released = await self.settle(lease, lambda held: evolve(held, state=READY, due_at=now, crashes=_crashes(held)))
        if released is not None:
            await self._store.opened.consumer.nak(_reply(lease), 0)


def _lease(record: DeliveryRecord, delivery: Delivery) -> Lease:
    return Lease(record.id, record.token, record.attempt, record.crashes, delivery, record.completed)


def _reply(lease: Lease) -> str:
    """Return the subject for the ack of a lease's message, which is part of its token."""
    return lease.token.partition(" ")[2]


def _crashes(record: DeliveryRecord) -> int:
    """Return the crashes of a delivery, including a lease that was not settled."""
    return record.crashes + (record.state == LEASED)
