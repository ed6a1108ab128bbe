"""
Who has which delivery of an inbox on JetStream: leases are given, settled and lost.

It imports `errors`, the protocol and the rooms beside it.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress

from attrs import evolve

from callfire_async.errors import InboxError
from callfire_async.notifications.inbox.base import SUSPECT_CRASHES, Delivery, Lease, parse_row_id
from callfire_async.notifications.inbox.jetstream._consumer import PulledMessage
from callfire_async.notifications.inbox.jetstream._records import DEAD, LEASED, READY, DeliveryRecord, Message
from callfire_async.notifications.inbox.jetstream._store import DeliveryStore, gather_all
from callfire_async.notifications.inbox.jetstream._stream import PendingMessage


class LeaseManager:
    """
    Gives leases, and settles them by what the ledger says.

    Args:
        ledger: What is known of each delivery.
    """

    def __init__(self, ledger: DeliveryStore) -> None:
        self._ledger = ledger
        # What this process has leased, as it last wrote it: spares a question before each answer.
        self._held: dict[int, DeliveryRecord] = {}
        # Writes that nobody answered for, by the token of their lease: each may be done when later ones are under way.
        self._doubtful: dict[str, set[str]] = {}

    async def claim(self, limit: int, *, lease: float) -> list[Lease]:
        """Hand out what is due: of what the queue has to offer, in order of due time, then arrival."""
        leases: list[Lease] = []
        while not leases and (pulled := await self._ledger.opened.queue.take(limit)):
            leases = await self._claim(pulled, lease)
        return leases

    async def _claim(self, pulled: Sequence[PulledMessage], lease: float) -> list[Lease]:
        looked_at = await gather_all([self._due(one) for one in pulled])
        due = [(record, one) for record, one in zip(looked_at, pulled, strict=True) if record is not None]
        due.sort(key=lambda pair: (pair[0].due_at, pair[0].id))
        chosen = _without_suspects(due)
        for _, one in due[len(chosen) :]:
            await self._ledger.opened.queue.hand_out_after(one.reply, 0)
        leases = await asyncio.gather(*(self._lease(*pair, lease) for pair in chosen), return_exceptions=True)
        handed_out = [one for one in leases if isinstance(one, Lease)]
        # What is leased must reach the caller, whatever became of the others.
        for error in leases:
            if isinstance(error, BaseException) and not handed_out:
                raise error
        return handed_out

    async def _due(self, handed_out: PulledMessage) -> DeliveryRecord | None:
        """Return the record of what was handed out; None where it is not to be handled now."""
        message = handed_out.message
        if handed_out.is_first and not message.replays:
            return DeliveryRecord.new(message)
        record = await self._ledger.record(message.id)
        if record is None:
            return DeliveryRecord.new(message)
        if not record.is_of(message):
            return evolve(DeliveryRecord.new(message), revision=record.revision)
        if record.state == DEAD and record.revision == message.replays:
            return record.reset(message.sequence, message.crashes, self._ledger.now())
        return await self._due_by_record(record, handed_out)

    async def _due_by_record(self, record: DeliveryRecord, handed_out: PulledMessage) -> DeliveryRecord | None:
        message, pulled_from = handed_out.message, self._ledger.opened.queue
        if record.message != message.sequence:
            # A later message has taken its place; unless what was read is older than this message.
            if record.revision > message.replays:
                await pulled_from.finish(handed_out.reply, is_dead=False)
            return None
        if not record.is_open:
            await self._finish(record, handed_out.reply, message.delivery.body)
            return None
        early = record.due_at - self._ledger.now()
        if early > 0:
            await pulled_from.hand_out_after(handed_out.reply, early)
            return None
        return record

    async def _lease(self, record: DeliveryRecord, handed_out: PulledMessage, seconds: float) -> Lease | None:
        """Note that a delivery is leased; None: another was first."""
        leased = evolve(
            record,
            state=LEASED,
            due_at=self._ledger.now() + seconds,
            updated_at=self._ledger.now(),
            crashes=record.crashes + (record.state == LEASED),
            token=f"{secrets.token_hex(8)} {handed_out.reply}",
            write=secrets.token_hex(8),
        )
        # Whoever has replayed it may have died over it; what is buried later is another letter.
        letter = await self._ledger.letter(record.id) if handed_out.message.replays else None
        written = await self._ledger.write(leased)
        if written is None or written.write != leased.write:
            return None
        self._held[written.id] = written
        leased_now = _lease(written, handed_out.message.delivery)
        if seconds != self._ledger.opened.queue.ack_wait:
            await self.hand_out_after(written, leased_now, seconds)
        # The lease is given all the same: else it would end unhandled, and count as a crash.
        with suppress(InboxError):
            await self._ledger.discard(letter)
        return leased_now

    async def settle(self, lease: Lease, change: Callable[[DeliveryRecord], DeliveryRecord]) -> DeliveryRecord | None:
        """Change a delivery's record, if the lease is still its own."""
        id = parse_row_id(lease.id)
        record = self._held.get(id)
        if record is None or record.token != lease.token:
            record = await self._ledger.record(id)
        else:
            del self._held[id]
        while record is not None and record.token == lease.token:
            changed = evolve(change(record), updated_at=self._ledger.now(), write=secrets.token_hex(8))
            if record.state != LEASED:
                # Settled already: by the same words, to which nobody had answered?
                happened = record.write in self._doubtful.pop(lease.token, ()) and record.state == changed.state
                return record if happened else None
            try:
                record = await self._ledger.write(changed)
            except BaseException:
                self._doubtful.setdefault(lease.token, set()).add(changed.write)
                raise
            if record is not None and record.write == changed.write:
                self._doubtful.pop(lease.token, None)
                if record.state == LEASED:
                    self._held[id] = record
                else:
                    # Where the lease was extended at the same time.
                    self._held.pop(id, None)
                return record
        self._doubtful.pop(lease.token, None)
        return None

    async def hand_out_after(self, record: DeliveryRecord | None, lease: Lease, seconds: float) -> bool:
        """Have a message handed out again so many seconds from now, if its lease was settled; tell whether it was."""
        if record is not None:
            # Where this cannot be said, the consumer asks when the lease would have ended.
            with suppress(InboxError):
                await self._ledger.opened.queue.hand_out_after(_reply(lease), seconds)
        return record is not None

    async def finished(self, record: DeliveryRecord | None, lease: Lease) -> bool:
        """Complete what a lease was settled with, if it was; tell whether it was."""
        if record is not None:
            # What cannot be completed now is by whoever is handed the message next.
            with suppress(InboxError):
                await self._finish(record, _reply(lease), lease.delivery.body)
        return record is not None

    async def _finish(self, record: DeliveryRecord, reply: str, body: bytes) -> None:
        """Complete what a record says: done, or dead."""
        opened = self._ledger.opened
        if record.state == DEAD:
            letter = Message.written(evolve(record.delivery, body=body))
            await opened.dead.publish(PendingMessage(self._ledger.dead_subject(record.id), letter, {}))
        elif record.event_key:
            await opened.records.publish(
                PendingMessage(self._ledger.event_subject(record.event_key, record.id), b"", self._ledger.lasting())
            )
        await opened.queue.finish(reply, is_dead=record.state == DEAD)

    async def release_all(self, timeout: float) -> None:
        """Have ready for others at once what nobody settled; it counts as crashes."""
        held = list(self._held.values())
        with suppress(InboxError, TimeoutError):
            async with asyncio.timeout(timeout):
                await asyncio.gather(*map(self._lose, held), return_exceptions=True)
        self._held.clear()
        self._doubtful.clear()

    async def _lose(self, record: DeliveryRecord) -> None:
        lease = _lease(record, record.delivery)
        now = self._ledger.now()
        lost = await self.settle(lease, lambda held: evolve(held, state=READY, due_at=now, crashes=held.crashes + 1))
        if lost is not None:
            await self._ledger.opened.queue.hand_out_after(_reply(lease), 0)


def _lease(record: DeliveryRecord, delivery: Delivery) -> Lease:
    return Lease(record.id, record.token, record.attempt, record.crashes, delivery, record.completed)


def _reply(lease: Lease) -> str:
    """Return where the server is told what became of a lease's message."""
    return lease.token.partition(" ")[2]


def _without_suspects(due: list[tuple[DeliveryRecord, PulledMessage]]) -> list[tuple[DeliveryRecord, PulledMessage]]:
    """Cut a list before the first that has crashed too often; where that is the first of all, it goes alone."""
    for number, (record, _) in enumerate(due):
        if record.crashes + (record.state == LEASED) >= SUSPECT_CRASHES:
            return due[: max(1, number)]
    return due
