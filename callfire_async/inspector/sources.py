"""Where the inspector's deliveries come from: a receiver that is watched, or an inbox's file that is read."""

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from attrs import define, evolve, field

from callfire_async.errors import InboxError, NotificationError
from callfire_async.inspector.history import Attempt, DeliveryHistory, DeliveryView, HandlerRun
from callfire_async.notifications import (
    AttemptRecord,
    Delivery,
    Inbox,
    InboxEntry,
    Observer,
    Receiver,
    RequestRecord,
    SqliteInbox,
    parse,
)
from callfire_async.notifications.inbox.base import parse_row_id

__all__ = ["FileSource", "ReceiverSource", "Source", "item_of"]

I = TypeVar("I", bound=Inbox | None)  # noqa: E741  # an inbox

_log = logging.getLogger("callfire_async.inspector")

_MOST_DEAD = 500
_POLL_SECONDS = 1.0
# What the door says in a word.
_REFUSED = {
    "token": "the token is wrong, or there is none",
    "method": "it was no POST",
    "encoding": "the body was encoded",
    "not running": "the receiver was not running",
    "size": "the body was too large",
    "time": "the body came too slowly",
    "empty": "there was no body",
    "broken off": "the body broke off",
    "consumed": "a middleware had read the body",
    "framework": "a dependency of the route responded",
    "storage": "the inbox could not keep it",
    None: "the sender went away",
}
_STATES = {"ready": "waiting", "delayed": "waiting", "leased": "running", "done": "handled", "dead": "dead"}


class Source(Protocol):
    """What the inspector shows, and whether it can try again."""

    #: What the page is headed with.
    title: str
    recent: DeliveryHistory
    #: Why nothing can be tried again here; None where it can.
    read_only: str | None

    async def counts(self) -> dict[str, int]:
        """Count what waits, and what is dead; nothing where it cannot be counted."""
        ...

    async def dead(self) -> list[InboxEntry]:
        """Return the newest dead letters, the newest first."""
        ...

    async def entry(self, id: str) -> InboxEntry | None:
        """Return one of them."""
        ...

    async def replay_dead(self, ids: list[str] | None) -> int:
        """Make dead letters ready again, all unless named; return how many."""
        ...

    async def replay(self, item: DeliveryView) -> str | None:
        """Try a delivery again; return why not."""
        ...


def _read(item: DeliveryView, delivery: Delivery) -> None:
    """Note which event a delivery is, or why it is none."""
    try:
        item.event = parse(delivery.body, delivery.content_type)
    except NotificationError as error:
        item.unreadable = str(error)


def item_of(entry: InboxEntry) -> DeliveryView:
    """Make an item of what an inbox knows."""
    outcome, number, reason = _state(entry)
    attempt = Attempt(number, outcome, reason)
    item = DeliveryView(
        entry.delivery.received_at, outcome, entry.delivery, entry.id, reason=reason, attempts=[attempt]
    )
    item.size = len(entry.delivery.body)
    if entry.delivery.body:
        _read(item, entry.delivery)
    return item


# --- an inbox, whoever owns it ----------------------------------------------------------------------------


@define(eq=False)
class _InboxReader(Generic[I]):
    """What can be asked of an inbox."""

    inbox: I

    async def counts(self) -> dict[str, int]:
        try:
            stats = None if self.inbox is None else await self.inbox.stats()
        except InboxError:
            stats = None
        if stats is None:
            return {}
        waiting = stats.ready + stats.delayed + stats.leased
        return {"waiting": waiting, "done": stats.done, "dead": stats.dead}

    async def dead(self) -> list[InboxEntry]:
        if self.inbox is None:
            return []
        newest: deque[InboxEntry] = deque(maxlen=_MOST_DEAD)
        async for entry in self.inbox.entries("dead"):
            newest.append(entry)
        return list(reversed(newest))

    async def entry(self, id: str) -> InboxEntry | None:
        return None if self.inbox is None else await self.inbox.get(id)


# --- a receiver -------------------------------------------------------------------------------------------


@define(eq=False)
class ReceiverSource(_InboxReader[Inbox | None], Observer):
    """
    A receiver of this process, watched while it works.

    Args:
        inbox: The inbox that the receiver has; None where it has none.
        receiver: The receiver; it is to be told to `Receiver.observe` this.
        title: What the page is headed with.
    """

    receiver: Receiver
    title: str = "receiver"
    recent: DeliveryHistory = field(factory=DeliveryHistory)
    read_only: str | None = None
    #: What is handled within its request, as it is without an inbox; by the delivery's identity.
    _inside: dict[int, DeliveryView] = field(factory=dict)

    # --- watching -----------------------------------------------------------------------------------------

    @contextmanager
    def request(self, record: RequestRecord) -> Iterator[None]:
        """Keep a request once it is answered; its delivery may be there already."""
        at, started = datetime.now(UTC), time.perf_counter()
        try:
            yield
        finally:
            self.recent.note_received()
            item = self._requested(record, at)
            item.status = None if record.reply is None else record.reply.status
            item.answer_seconds = time.perf_counter() - started
            self.recent.touch(item)

    def _requested(self, record: RequestRecord, at: datetime) -> DeliveryView:
        if record.delivery is None:
            return self.recent.add(DeliveryView(at, "refused", reason=_why(record)))
        if record.appended is None:
            return self._inside.pop(id(record.delivery), None) or self._not_kept(record, record.delivery)
        if record.appended.duplicate:
            return self._new(record.delivery, "duplicate", record.appended.id)
        known = self.recent.by_id(record.appended.id)
        return known or self._new(record.delivery, "waiting", record.appended.id)

    def _not_kept(self, record: RequestRecord, delivery: Delivery) -> DeliveryView:
        item = self._new(delivery, "refused" if record.refused else "cancelled", None)
        item.reason = _why(record)
        return item

    def _new(self, delivery: Delivery, outcome: str, id: int | str | None) -> DeliveryView:
        item = DeliveryView(delivery.received_at, outcome, delivery, id)
        _read(item, delivery)
        return self.recent.add(item)

    @contextmanager
    def attempt(self, record: AttemptRecord) -> Iterator[None]:
        """Keep an attempt, and what came of it."""
        item = self._item(record)
        attempt = Attempt(record.attempt)
        item.attempts.append(attempt)
        item.outcome = "running"
        self.recent.touch(item)
        started = time.perf_counter()
        try:
            yield
        finally:
            attempt.seconds = time.perf_counter() - started
            attempt.outcome, attempt.reason = record.outcome, record.reason
            item.outcome, item.reason = record.outcome or "unsettled", record.reason
            age = (datetime.now(UTC) - record.delivery.received_at).total_seconds()
            self.recent.note_settled(max(0.0, age), failed=record.outcome not in ("handled", "released"))
            self.recent.touch(item)

    def _item(self, record: AttemptRecord) -> DeliveryView:
        known = None if record.id is None else self.recent.by_id(record.id)
        item = known or self._new(record.delivery, "running", record.id)
        if record.id is None:
            self._inside[id(record.delivery)] = item
        return item

    @contextmanager
    def handler(self, record: AttemptRecord, handler: str) -> Iterator[None]:
        """Keep a run of a handler."""
        run = HandlerRun(handler)
        self._attempt(record).runs.append(run)
        started = time.perf_counter()
        try:
            yield
        except BaseException as error:
            run.error = type(error).__name__
            raise
        finally:
            run.seconds = time.perf_counter() - started

    def _attempt(self, record: AttemptRecord) -> Attempt:
        item = self._inside.get(id(record.delivery)) if record.id is None else self.recent.by_id(record.id)
        return item.attempts[-1] if item is not None and item.attempts else Attempt(record.attempt)

    # --- trying again -------------------------------------------------------------------------------------

    async def replay_dead(self, ids: list[str] | None) -> int:
        """Make dead letters ready again, all unless named; return how many."""
        return 0 if self.inbox is None else await self.inbox.replay(ids)

    async def replay(self, item: DeliveryView) -> str | None:
        """Try a delivery again: a dead letter as itself, anything else as a new one with the same body."""
        if item.outcome == "dead" and item.id is not None and await self.replay_dead([str(item.id)]):
            return None
        if item.delivery is None or not item.body:
            return "its body is not held any more"
        key = f"{item.delivery.key}:replayed:{secrets.token_hex(8)}"
        reply = await self.receiver.redeliver(evolve(item.delivery, received_at=datetime.now(UTC), key=key))
        return None if reply.status != 503 else "the receiver cannot take it now"


# --- a file -----------------------------------------------------------------------------------------------


@define(eq=False)
class FileSource(_InboxReader[SqliteInbox]):
    """
    The file of an inbox, which another process may own: looked at every second, and never written to.

    Args:
        path: The file.
    """

    title: str
    recent: DeliveryHistory = field(factory=DeliveryHistory)
    read_only: str | None = "An inbox that is only read cannot try anything again: use the receiver's own inspector."
    #: The id of the last that was read with its body.
    _last: int = 0

    @classmethod
    @asynccontextmanager
    async def watching(cls, path: Path) -> AsyncIterator["FileSource"]:
        """
        Look at a file meanwhile.

        Raises:
            InboxError: It is not there, or no inbox of this version.
        """
        async with SqliteInbox(path, read_only=True) as inbox:
            source = cls(inbox, path.name)
            await source.look()
            looking = asyncio.create_task(source._look_on())
            try:
                yield source
            finally:
                looking.cancel()
                await asyncio.wait([looking])

    async def _look_on(self) -> None:
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            # What cannot be read now may be read at the next look.
            try:
                await self.look()
            except Exception as error:  # noqa: BLE001  # whatever a file may hold: the next look is made
                told = "the inbox %s cannot be looked at now (%s); it is tried again"
                _log.warning(told, self.title, type(error).__name__)

    async def look(self) -> None:
        """Take over what has changed."""
        for entry in reversed(await self.inbox.newest(self.recent.most, bodies_after=self._last)):
            known, number = self.recent.by_id(entry.id), parse_row_id(entry.id)
            # What is older than the last and not known was too old at an earlier look.
            if number > self._last:
                self._last = number
                self._add(entry)
            elif known is not None and (known.outcome, known.attempts[-1].number, known.reason) != _state(entry):
                self._change(known, entry)

    def _add(self, entry: InboxEntry) -> None:
        self.recent.note_received(entry.delivery.received_at.timestamp())
        self._change(self.recent.add(item_of(entry)), entry)

    def _change(self, item: DeliveryView, entry: InboxEntry) -> None:
        item.outcome, number, item.reason = _state(entry)
        if number != item.attempts[-1].number:
            item.attempts.append(Attempt(number))
        item.attempts[-1].outcome, item.attempts[-1].reason = item.outcome, item.reason
        if entry.state in ("done", "dead"):
            age = max(0.0, (entry.updated_at - entry.delivery.received_at).total_seconds())
            self.recent.note_settled(age, failed=entry.state == "dead", at=entry.updated_at.timestamp())
        self.recent.touch(item)

    async def replay_dead(self, ids: list[str] | None) -> int:  # noqa: ARG002  # none can be
        """Try nothing again."""
        return 0

    async def replay(self, item: DeliveryView) -> str | None:  # noqa: ARG002  # likewise
        """Try nothing again."""
        return self.read_only


def _why(record: RequestRecord) -> str:
    return _REFUSED.get(record.refused, str(record.refused))


def _state(entry: InboxEntry) -> tuple[str, int, str]:
    outcome = _STATES[entry.state]
    # Put back for another attempt.
    return ("failed" if outcome == "waiting" and entry.attempt > 1 else outcome), entry.attempt, entry.reason
