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
                                                          event's key for ``seen``, and deletes the message
``nack``,     the record says *ready*                     it is handed out again when its lease would have ended
``release``
``bury``      the record says *dead*                      the body is still in the queue: whoever is handed the message
                                                          puts it among the dead letters, and deletes it then
``bury``      the dead letter is stored                   whoever is handed the message deletes it
``replay``    a new message is queued                     whoever is handed it completes this: the message names the
                                                          revision that was dead
============  ==========================================  ============================================================

What JetStream cannot keep of the protocol, or not in this way:

- Of what is due, what was put back comes before what was never handed out. Within one list the order is due time, then
  arrival; so it is for all that never failed.
- ``append_many`` keeps all or none of a thousand, but each by itself where one of them is a repeat.
- An operation that raises `InboxUnavailableError` may have happened: an append that is repeated is then a duplicate,
  and a lease that is settled again knows that it was.
- A repeat is recognised by the servers' memory of ``dedupe_window``; what was done by then is forgotten when all of
  them are started anew.
- ``entries``, ``stats`` and ``purge`` look at one delivery after the other: what changes meanwhile may be counted in
  the state before or after; in a cluster they may be a moment behind.
- A host that dies loses its leases when they end, not before.

It imports `errors`, the protocol and the rooms beside it.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
import secrets
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Self, TypeVar

from attrs import evolve, frozen

from callfire_async.errors import InboxError
from callfire_async.notifications.inbox import (
    SUSPECT_CRASHES,
    Appended,
    Clock,
    Delivery,
    Entry,
    Lease,
    Stats,
    row_number,
)
from callfire_async.notifications.inbox._jetstream_link import Link
from callfire_async.notifications.inbox._jetstream_queue import HandedOut, Queue
from callfire_async.notifications.inbox._jetstream_records import (
    DEAD,
    DONE,
    LEASED,
    READY,
    Message,
    Record,
    Stored,
    digestible,
)
from callfire_async.notifications.inbox._jetstream_settings import HEAD_BYTES, Settings, prepare, server_clock
from callfire_async.notifications.inbox._jetstream_streams import Stream, Taken, Write, WrongRevision

__all__ = ["JetStreamInbox"]

T = TypeVar("T")

# So many questions about single deliveries are under way at once.
_AT_ONCE = 64


@frozen(eq=False)
class _Opened:
    """What an inbox has while it is open."""

    link: Link
    clock: Clock
    queue: Queue
    messages: Stream
    records: Stream
    dead: Stream


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
        retention: Seconds for which the keys of what is done are kept.
        keep_bodies: Whether what is done keeps its body.
        timeout: Seconds that an operation may take, as far as the servers are concerned.
        tls: For servers that want it.
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
        self._settings = Settings(name, replicas, dedupe_window)
        self._dedupe_window = dedupe_window
        self._retention = retention
        self._keep_bodies = keep_bodies
        self._timeout = timeout
        self._tls = tls
        self._closing = AsyncExitStack()
        self._state: _Opened | None = None
        # What this process has leased, as it last wrote it: spares a question before each answer.
        self._held: dict[int, Record] = {}
        # Writes that nobody answered for.
        self._doubtful: dict[int, str] = {}

    def __repr__(self) -> str:
        return f"<JetStreamInbox {self._settings.name!r}>"

    @property
    def retention(self) -> float:
        """Seconds for which the keys of what is done are kept: how far back ``seen`` knows everything."""
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
            link = Link(self._servers, self._timeout, self._tls)
            await opening.enter_async_context(link.opened())
            await prepare(link, self._settings)
            clock = await server_clock(link, self._settings)
            names = (self._settings.queue, self._settings.records, self._settings.dead)
            streams = [Stream(link, name) for name in names]
            for stream in streams:
                await opening.enter_async_context(_running(stream))
            pulling = Queue(link, self._settings.queue, self._settings.consumer)
            await opening.enter_async_context(pulling.opened())
            opening.push_async_callback(self._give_up)
            self._state = _Opened(link, clock, pulling, *streams)
            self._closing = opening.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it; leases that nobody settled are ready for others at once, and count as crashes."""
        await self._closing.aclose()

    async def _give_up(self) -> None:
        held = list(self._held.values())
        with suppress(InboxError, TimeoutError):
            async with asyncio.timeout(self._timeout):
                await asyncio.gather(*map(self._lose, held), return_exceptions=True)
        self._held.clear()
        self._doubtful.clear()
        self._state = None

    async def _lose(self, record: Record) -> None:
        lease = _lease(record, record.delivery)
        now = self._now()
        lost = await self._settle(lease, lambda held: evolve(held, state=READY, due_at=now, crashes=held.crashes + 1))
        if lost is not None:
            await self._opened.queue.hand_out_after(_reply(lease), 0)

    @property
    def _opened(self) -> _Opened:
        if self._state is None:
            raise InboxError("this inbox is not open; use it inside 'async with'")
        return self._state

    def _now(self) -> float:
        return self._opened.clock.seconds()

    # --- taking in ----------------------------------------------------------------------------------------

    async def append(self, delivery: Delivery) -> Appended:
        """Keep a delivery; the servers have said that they have it when this returns."""
        (appended,) = await self.append_many([delivery])
        return appended

    async def append_many(self, deliveries: Sequence[Delivery]) -> list[Appended]:
        """Keep several, a thousand at a time all or none; each by itself where one is a repeat."""
        opened = self._opened
        writes = [self._queued(delivery) for delivery in deliveries]
        taken: list[Taken] = []
        for first in range(0, len(writes), 1000):
            taken += await opened.messages.publish(*writes[first : first + 1000])
        return [await self._appended(*pair) for pair in zip(writes, taken, strict=True)]

    def _queued(self, delivery: Delivery) -> Write:
        data = Message.written(delivery)
        largest = self._opened.link.client.max_payload - HEAD_BYTES
        if len(data) > largest:
            raise InboxError(f"a delivery of {len(data)} bytes is too large; NATS here takes {largest} (max_payload)")
        id = _digest(delivery.key) if self._dedupe_window > 0 else secrets.token_hex(16)
        return Write(self._settings.new, data, {"Nats-Msg-Id": id})

    async def _appended(self, write: Write, taken: Taken) -> Appended:
        if not taken.duplicate:
            return Appended(taken.sequence, duplicate=False)
        # In this order: what is settled meanwhile has left the queue and has a record.
        queued = await self._opened.messages.at(taken.sequence)
        record = await self._record(taken.sequence)
        if queued is None and record is None:
            return await self._append_anew(write, taken.sequence)
        if record is not None and record.state == DEAD:
            await self._begin_again(record, crashes=record.crashes)
        return Appended(taken.sequence, duplicate=True)

    async def _append_anew(self, write: Write, forgotten: int) -> Appended:
        """Keep what repeats a delivery that was purged; the server still knows that one's name."""
        anew = evolve(write, headers={"Nats-Msg-Id": f"{write.headers['Nats-Msg-Id']}.{forgotten}"})
        (taken,) = await self._opened.messages.publish(anew)
        return await self._appended(anew, taken)

    # --- handing out --------------------------------------------------------------------------------------

    async def claim(self, limit: int, *, lease: float) -> list[Lease]:
        """Hand out what is due: of what the queue has to offer, in order of due time, then arrival."""
        leases: list[Lease] = []
        while not leases and (pulled := await self._opened.queue.take(limit)):
            leases = await self._claim(pulled, lease)
        return leases

    async def _claim(self, pulled: Sequence[HandedOut], lease: float) -> list[Lease]:
        looked_at = await _all([self._due(one) for one in pulled])
        due = [(record, one) for record, one in zip(looked_at, pulled, strict=True) if record is not None]
        due.sort(key=lambda pair: (pair[0].due_at, pair[0].id))
        chosen = _without_suspects(due)
        for _, one in due[len(chosen) :]:
            await self._opened.queue.hand_out_after(one.reply, 0)
        leases = await asyncio.gather(*(self._lease(*pair, lease) for pair in chosen), return_exceptions=True)
        handed_out = [one for one in leases if isinstance(one, Lease)]
        # What is leased must reach the caller, whatever became of the others.
        for error in leases:
            if isinstance(error, BaseException) and not handed_out:
                raise error
        return handed_out

    async def _due(self, handed_out: HandedOut) -> Record | None:
        """Return the record of what was handed out; None where it is not to be handled now."""
        message = handed_out.message
        if handed_out.is_first and not message.replays:
            return Record.new(message)
        record = await self._record(message.id)
        if record is None:
            return Record.new(message)
        if not record.is_of(message):
            return evolve(Record.new(message), revision=record.revision)
        if record.state == DEAD and record.revision == message.replays:
            return record.begun_again(message.sequence, message.crashes, self._now())
        return await self._due_by_record(record, handed_out)

    async def _due_by_record(self, record: Record, handed_out: HandedOut) -> Record | None:
        message, pulled_from = handed_out.message, self._opened.queue
        if record.message != message.sequence:
            # A later message has taken its place; unless what was read is older than this message.
            if record.revision > message.replays:
                await pulled_from.finish(handed_out.reply, is_dead=False)
            return None
        if not record.is_open:
            await self._finish(record, handed_out.reply, message.delivery.body)
            return None
        early = record.due_at - self._now()
        if early > 0:
            await pulled_from.hand_out_after(handed_out.reply, early)
            return None
        return record

    async def _lease(self, record: Record, handed_out: HandedOut, seconds: float) -> Lease | None:
        """Note that a delivery is leased; None: another was first."""
        leased = evolve(
            record,
            state=LEASED,
            due_at=self._now() + seconds,
            updated_at=self._now(),
            crashes=record.crashes + (record.state == LEASED),
            token=f"{secrets.token_hex(8)} {handed_out.reply}",
            write=secrets.token_hex(8),
        )
        # Whoever has replayed it may have died over it; what is buried later is another letter.
        is_replayed = handed_out.message.replays == record.revision != 0
        letter = await self._letter(record.id) if is_replayed else None
        written = await self._write(leased)
        if written is None or written.write != leased.write:
            return None
        self._held[written.id] = written
        leased_now = _lease(written, handed_out.message.delivery)
        if seconds != self._opened.queue.ack_wait:
            await self._hand_out_after(written, leased_now, seconds)
        await self._discard(letter)
        return leased_now

    # --- settling -----------------------------------------------------------------------------------------

    async def extend(self, lease: Lease, seconds: float) -> bool:
        """Let a lease end so many seconds from now."""
        until = self._now() + seconds
        extended = await self._settle(lease, lambda record: evolve(record, due_at=until))
        return await self._hand_out_after(extended, lease, seconds)

    async def ack(self, lease: Lease, *, event_key: str = "") -> bool:
        """Note that a delivery was handled."""
        body = lease.delivery.body if self._keep_bodies else b""

        def done(record: Record) -> Record:
            return evolve(record, state=DONE, event_key=event_key, delivery=evolve(record.delivery, body=body))

        return await self._finished(await self._settle(lease, done), lease)

    async def nack(
        self, lease: Lease, *, delay: float, completed: frozenset[str] = frozenset(), reason: str = ""
    ) -> bool:
        """Put a delivery back for another attempt."""
        due_at = self._now() + delay

        def failed(record: Record) -> Record:
            names = record.completed | completed
            attempt = record.attempt + 1
            return evolve(record, state=READY, attempt=attempt, due_at=due_at, completed=names, reason=reason)

        return await self._hand_out_after(await self._settle(lease, failed), lease, delay)

    async def release(self, lease: Lease, *, completed: frozenset[str] = frozenset()) -> bool:
        """Put a delivery back at once."""
        now = self._now()

        def released(record: Record) -> Record:
            return evolve(record, state=READY, due_at=now, completed=record.completed | completed)

        return await self._hand_out_after(await self._settle(lease, released), lease, 0)

    async def bury(self, lease: Lease, reason: str) -> bool:
        """Make a delivery a dead letter."""
        buried = await self._settle(lease, lambda record: evolve(record, state=DEAD, reason=reason))
        return await self._finished(buried, lease)

    async def _settle(self, lease: Lease, change: Callable[[Record], Record]) -> Record | None:
        """Change a delivery's record, if the lease is still its own."""
        id = row_number(lease.id)
        record = self._held.get(id)
        if record is None or record.token != lease.token:
            record = await self._record(id)
        else:
            del self._held[id]
        while record is not None and record.token == lease.token:
            changed = evolve(change(record), updated_at=self._now(), write=secrets.token_hex(8))
            if record.state != LEASED:
                # Settled already: by the same words, to which nobody had answered?
                happened = self._doubtful.pop(id, None) == record.write and record.state == changed.state
                return record if happened else None
            self._doubtful[id] = changed.write
            record = await self._write(changed)
            del self._doubtful[id]
            if record is not None and record.write == changed.write:
                if record.state == LEASED:
                    self._held[id] = record
                return record
        return None

    async def _hand_out_after(self, record: Record | None, lease: Lease, seconds: float) -> bool:
        if record is not None:
            # Where this cannot be said, the consumer asks when the lease would have ended.
            with suppress(InboxError):
                await self._opened.queue.hand_out_after(_reply(lease), seconds)
        return record is not None

    async def _finished(self, record: Record | None, lease: Lease) -> bool:
        if record is not None:
            # What cannot be completed now is by whoever is handed the message next.
            with suppress(InboxError):
                await self._finish(record, _reply(lease), lease.delivery.body)
        return record is not None

    async def _finish(self, record: Record, reply: str, body: bytes) -> None:
        """Complete what a record says: done, or dead."""
        opened = self._opened
        if record.state == DEAD:
            letter = Message.written(evolve(record.delivery, body=body))
            await opened.dead.publish(Write(self._dead_subject(record.id), letter, {}))
        elif record.event_key:
            await opened.records.publish(Write(self._event_subject(record.event_key, record.id), b"", self._lasting()))
        await opened.queue.finish(reply, is_dead=record.state == DEAD)

    # --- records ------------------------------------------------------------------------------------------

    async def _record(self, id: int) -> Record | None:
        stored = await self._opened.records.last(self._record_subject(id)) if id else None
        try:
            return None if stored is None else Record.read(stored)
        except (KeyError, ValueError) as error:
            raise InboxError(
                f"the record of delivery {id} cannot be read; a later version may have written it"
            ) from error

    async def _write(self, changed: Record) -> Record | None:
        """
        Write a record, if nobody has since it was read.

        Returns:
            What the record is then: this one, which is to be told from another's by its ``write``.
        """
        headers = {"Nats-Expected-Last-Subject-Sequence": str(changed.revision)}
        if changed.state == DONE:
            headers |= self._lasting()
        write = Write(self._record_subject(changed.id), changed.written(), headers)
        try:
            (taken,) = await self._opened.records.publish(write)
        except WrongRevision:
            return await self._record(changed.id)
        return evolve(changed, revision=taken.sequence)

    async def _letter(self, id: int) -> Stored | None:
        return await self._opened.dead.last(self._dead_subject(id))

    async def _discard(self, letter: Stored | None) -> None:
        """Delete a dead letter as it was read: what was buried since stays."""
        if letter is not None:
            await self._opened.dead.delete(letter.sequence)

    def _lasting(self) -> dict[str, str]:
        return {"Nats-TTL": f"{max(1, math.ceil(self._retention))}s"}

    def _record_subject(self, id: int | str) -> str:
        return f"{self._settings.records}.record.{id}"

    def _event_subject(self, event_key: str, id: int | str) -> str:
        return f"{self._settings.records}.event.{_digest(event_key)}.{id}"

    def _dead_subject(self, id: int) -> str:
        return f"{self._settings.dead}.{id}"

    # --- looking after it ---------------------------------------------------------------------------------

    async def seen(self, event_keys: Iterable[str]) -> frozenset[str]:
        """Return which of these events were acked, within ``retention``."""
        keys = [key for key in dict.fromkeys(event_keys) if key]
        found = [key for page in _pages(keys) for key in await _all([self._seen(key) for key in page])]
        return frozenset(key for key in found if key is not None)

    async def _seen(self, event_key: str) -> str | None:
        count, _ = await self._opened.records.count(self._event_subject(event_key, "*"))
        return event_key if count else None

    async def get(self, id: int | str) -> Entry | None:
        """Return what is known of one delivery."""
        number = row_number(id)
        return await self._entry(number) if number else None

    async def _entry(self, id: int) -> Entry | None:
        # In this order: what is settled meanwhile has left the queue and has a record.
        stored = await self._opened.messages.at(id)
        record = await self._record(id)
        if record is not None:
            return self._told(record, await self._delivery(record))
        if stored is None or (message := Message.read(stored)).id != id:
            return None
        return self._told(Record.new(message), message.delivery)

    async def _delivery(self, record: Record) -> Delivery:
        """Return a delivery with its body, from wherever that is."""
        if record.state == DONE:
            return record.delivery
        letter = await self._letter(record.id) if record.state == DEAD else None
        stored = letter or await self._opened.messages.at(record.message)
        return record.delivery if stored is None else Message.read(stored).delivery

    def _told(self, record: Record, delivery: Delivery) -> Entry:
        expired = record.state == LEASED and record.due_at <= self._now()
        state = READY if expired else record.state
        updated_at = datetime.fromtimestamp(record.updated_at, UTC)
        return Entry(record.id, state, delivery, record.attempt, record.crashes, record.reason, updated_at)

    async def entries(self, state: str | None = None) -> AsyncIterator[Entry]:
        """Iterate over the deliveries that there are now, in order of arrival."""
        opened = self._opened
        # In this order: what is settled meanwhile has left the one and is in the other.
        ids = {Message.read(stored).id async for stored in opened.messages.listed(self._settings.queued)}
        ids |= {Record.read(stored).id async for stored in opened.records.listed(self._record_subject("*"))}
        for page in _pages(sorted(ids)):
            for entry in await _all([self._entry(id) for id in page]):
                if entry is not None and state in (None, entry.state):
                    yield entry

    async def replay(self, ids: Iterable[int | str] | None = None) -> int:
        """Make dead letters ready again."""
        if ids is None:
            dead = [record.id for record in await self._records_in(DEAD)]
        else:
            dead = [id for id in dict.fromkeys(map(row_number, ids)) if id]
        replayed = 0
        for id in dead:
            record = await self._record(id)
            replayed += record is not None and record.state == DEAD and await self._begin_again(record, crashes=0)
        return replayed

    async def _records_in(self, state: str) -> list[Record]:
        """Return the records in a state, in order of arrival."""
        listed = self._opened.records.listed(self._record_subject("*"))
        records = [record async for stored in listed if (record := Record.read(stored)).state == state]
        return sorted(records, key=lambda record: record.id)

    async def _begin_again(self, record: Record, *, crashes: int) -> bool:
        """Queue a dead letter anew; False: another has."""
        delivery, letter = await self._delivery(record), await self._letter(record.id)
        # Named after the revision that was dead: of several who do this, one does.
        id = f"{record.id}@{record.revision}"
        message = Write(self._settings.again, Message.written(delivery, record, crashes), {"Nats-Msg-Id": id})
        (taken,) = await self._opened.messages.publish(message)
        # Where this is refused, whoever was handed the message has been quicker.
        await self._write(evolve(record.begun_again(taken.sequence, crashes, self._now()), write=secrets.token_hex(8)))
        await self._discard(letter)
        return not taken.duplicate

    async def purge(self, *, done_before: datetime | None = None, dead_before: datetime | None = None) -> int:
        """Delete what was done, or buried, before a time."""
        before = {DONE: done_before, DEAD: dead_before}
        limits = {state: moment.timestamp() for state, moment in before.items() if moment is not None}
        if not limits:
            raise TypeError("say done_before, dead_before or both")
        listed = self._opened.records.listed(self._record_subject("*"))
        records = [record async for stored in listed if (record := Record.read(stored)).state in limits]
        old = [record for record in records if record.updated_at < limits[record.state]]
        return sum([sum(await _all([self._purge(record) for record in page])) for page in _pages(old)])

    async def _purge(self, record: Record) -> bool:
        """Delete a record as it was read, and what belongs to it."""
        letter = await self._letter(record.id) if record.state == DEAD else None
        if not await self._opened.records.delete(record.revision):
            return False
        await self._discard(letter)
        if record.event_key:
            await self._opened.records.delete_all(self._event_subject(record.event_key, record.id))
        return True

    async def stats(self) -> Stats:
        """Count; what was handed out before and is not settled is looked at, the rest is counted by the servers."""
        opened, settings = self._opened, self._settings
        with opened.link.told():
            consumer = await opened.link.jetstream.consumer_info(settings.queue, settings.consumer)
        last = consumer.delivered.stream_seq if consumer.delivered is not None else 0
        waiting, first = await opened.messages.count(settings.queued, after=last)
        again, _ = await opened.messages.count(settings.again, after=last)
        open_records = await self._handed_out_until(last)
        recorded, _ = await opened.records.count(self._record_subject("*"))
        dead, _ = await opened.dead.count(f"{settings.dead}.*")
        now = self._now()
        due = [record.due_at for record in open_records if record.due_at <= now]
        later = [record.state for record in open_records if record.due_at > now]
        ready_since = [*due, *([] if first is None else [first.at])]
        return Stats(
            ready=len(due) + waiting,
            delayed=later.count(READY),
            leased=later.count(LEASED),
            done=max(0, recorded - dead - again - sum(record.revision > 0 for record in open_records)),
            dead=dead,
            oldest_ready_age=max(0.0, now - min(ready_since)) if ready_since else None,
        )

    async def _handed_out_until(self, last: int) -> list[Record]:
        """Return the open records of what was handed out up to a message."""
        messages = []
        async for stored in self._opened.messages.listed(self._settings.queued):
            if stored.sequence > last:
                break
            messages.append(Message.read(stored))
        found = [record for page in _pages(messages) for record in await _all([self._known(one) for one in page])]
        return [record for record in found if record.is_open]

    async def _known(self, message: Message) -> Record:
        return await self._record(message.id) or Record.new(message)

    async def wait(self, timeout: float) -> None:
        """Wait until there may be work; the servers tell."""
        await self._opened.queue.wait(timeout)


@asynccontextmanager
async def _running(stream: Stream) -> AsyncIterator[None]:
    """Let a stream write what gathers."""
    writing = asyncio.create_task(stream.keep_writing())
    try:
        yield
    finally:
        writing.cancel()
        await asyncio.wait([writing])


def _lease(record: Record, delivery: Delivery) -> Lease:
    return Lease(record.id, record.token, record.attempt, record.crashes, delivery, record.completed)


def _reply(lease: Lease) -> str:
    """Return where the server is told what became of a lease's message."""
    return lease.token.partition(" ")[2]


def _without_suspects(due: list[tuple[Record, HandedOut]]) -> list[tuple[Record, HandedOut]]:
    """Cut a list before the first that has crashed too often; where that is the first of all, it goes alone."""
    for number, (record, _) in enumerate(due):
        if record.crashes + (record.state == LEASED) >= SUSPECT_CRASHES:
            return due[: max(1, number)]
    return due


def _digest(text: str) -> str:
    return hashlib.sha256(digestible(text)).hexdigest()


def _pages(items: Sequence[T]) -> Iterable[Sequence[T]]:
    return (items[first : first + _AT_ONCE] for first in range(0, len(items), _AT_ONCE))


async def _all(questions: Sequence[Awaitable[T]]) -> list[T]:
    """
    Ask several things at once, and wait for all answers.

    Raises:
        InboxError: The first of those that there were, where nothing else was answered.
    """
    answers = await asyncio.gather(*questions, return_exceptions=True)
    errors = [answer for answer in answers if isinstance(answer, BaseException)]
    if errors:
        raise errors[0]
    return [answer for answer in answers if not isinstance(answer, BaseException)]
