"""The deliveries that the inspector shows: those of a running receiver, or those in the file of an inbox."""

import asyncio
import logging
import os
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from attrs import define, evolve, field

from callfire_async._arguments import check_instance
from callfire_async.errors import InboxError, InvalidNotificationError, NotificationError
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
)
from callfire_async.notifications.inbox._inbox_arguments import check_inbox
from callfire_async.notifications.inbox.base import parse_row_id
from callfire_async.notifications.observers import has_failed
from callfire_async.notifications.parsing import parse_each, parse_or_split

__all__ = ["NO_DEAD_LETTER", "FileSource", "ReceiverSource", "Source", "view_of"]

I = TypeVar("I", bound=Inbox | None)  # noqa: E741  # an inbox

_log = logging.getLogger("callfire_async.inspector")

#: Why a dead letter cannot be replayed.
NO_DEAD_LETTER = "the delivery is no longer a dead letter"
_MAX_DEAD_LETTERS = 500
_POLL_SECONDS = 1.0
_REFUSAL_REASONS = {
    "token": "wrong or missing token",
    "method": "not a POST request",
    "encoding": "Content-Encoding is not supported",
    "not running": "the receiver is not running",
    "size": "body too large",
    "time": "body not received in time",
    "empty": "empty body",
    "broken off": "body incomplete",
    "signature": "signature wrong or missing",
    "consumed": "a middleware had read the body",
    "framework": "a dependency of the route responded",
    "storage": "the inbox could not store the delivery",
    None: "the client disconnected",
}
_OUTCOMES = {"ready": "waiting", "delayed": "waiting", "leased": "running", "done": "handled", "dead": "dead"}

#: Without an inbox, the deliveries that the current request handles: one for each event of an envelope.
_handled_in_request: ContextVar[list[DeliveryView]] = ContextVar("_handled_in_request")


class Source(Protocol):
    """The deliveries that the inspector shows and can replay."""

    #: The title of the page.
    title: str
    history: DeliveryHistory
    #: Why replaying is not possible; None if it is.
    read_only: str | None

    async def counts(self) -> dict[str, int]:
        """Return the numbers of waiting, done and dead deliveries; empty if they are not available."""
        ...

    async def dead_letters(self) -> list[InboxEntry]:
        """Return the newest dead letters, newest first."""
        ...

    async def get(self, id: str) -> InboxEntry | None:
        """Return one delivery of the inbox."""
        ...

    async def replay_dead_letters(self, ids: list[str] | None) -> int:
        """Make dead letters ready again, all if *ids* is None; return how many."""
        ...

    async def replay(self, item: DeliveryView) -> str | None:
        """Replay a delivery; return why that is not possible, or None."""
        ...


def view_of(entry: InboxEntry) -> DeliveryView:
    """Return the view of a delivery of an inbox."""
    outcome, number, reason = _state(entry)
    delivery, attempt = entry.delivery, Attempt(number, outcome, reason)
    item = DeliveryView(delivery.received_at, outcome, delivery, entry.id, reason=reason, attempts=[attempt])
    item.body_size = len(delivery.body)
    if delivery.body:
        _parse_event(item, delivery)
    return item


def _state(entry: InboxEntry) -> tuple[str, int, str]:
    """Return outcome, attempt and reason; a delivery that waits after an attempt has failed."""
    outcome = _OUTCOMES[entry.state]
    return ("failed" if outcome == "waiting" and entry.attempt > 1 else outcome), entry.attempt, entry.reason


def _parse_event(item: DeliveryView, delivery: Delivery) -> None:
    try:
        parsed = parse_or_split(delivery.body, delivery.content_type)
    except NotificationError as error:
        item.parse_error = str(error)
        item.has_several_events = isinstance(error, InvalidNotificationError) and _has_several_events(delivery)
        return
    if isinstance(parsed, tuple):
        item.has_several_events = True
    else:
        item.event = parsed


def _has_several_events(delivery: Delivery) -> bool:
    """Return whether a body that cannot be split is an envelope of several events."""
    try:
        return len(parse_each(delivery.body, delivery.content_type)) > 1
    except NotificationError:
        return False


@define(eq=False)
class _InboxReader(Generic[I]):
    """Read-only queries of an inbox."""

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

    async def dead_letters(self) -> list[InboxEntry]:
        if self.inbox is None:
            return []
        newest: deque[InboxEntry] = deque(maxlen=_MAX_DEAD_LETTERS)
        async for entry in self.inbox.entries("dead"):
            newest.append(entry)
        return list(reversed(newest))

    async def get(self, id: str) -> InboxEntry | None:
        return None if self.inbox is None else await self.inbox.get(id)


# --- a receiver -------------------------------------------------------------------------------------------


@define(eq=False)
class ReceiverSource(_InboxReader[Inbox | None], Observer):
    """
    A running receiver of this process.

    Args:
        inbox: The receiver's inbox; None if it has none.
        receiver: The receiver. Pass the source to its `Receiver.observe`.
        title: The title of the page.

    Raises:
        TypeError: *inbox* or *receiver* has the wrong type.
    """

    receiver: Receiver
    title: str = "receiver"
    history: DeliveryHistory = field(factory=DeliveryHistory)
    read_only: str | None = None
    #: The running attempts within a request (without an inbox).
    _inline: dict[AttemptRecord, DeliveryView] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        """Check the inbox and the receiver."""
        if self.inbox is not None:
            check_inbox("inbox", self.inbox)
        check_instance("receiver", self.receiver, Receiver, "Receiver(router, tokens=tokens)")

    # --- observation --------------------------------------------------------------------------------------

    @contextmanager
    def request(self, record: RequestRecord) -> Iterator[None]:
        """Record the response to a request."""
        at, started = datetime.now(UTC), time.perf_counter()
        items: list[DeliveryView] = []
        token = _handled_in_request.set(items)
        try:
            yield
        finally:
            _handled_in_request.reset(token)
            self.history.count_received()
            for item in items or [self._item_of_request(record, at)]:
                item.status = None if record.reply is None else record.reply.status
                item.response_seconds = time.perf_counter() - started
                self.history.touch(item)

    def _item_of_request(self, record: RequestRecord, at: datetime) -> DeliveryView:
        if record.delivery is None:
            return self.history.add(DeliveryView(at, "refused", reason=_refusal_reason(record)))
        if record.appended is None:
            return self._add_not_stored(record, record.delivery)
        if record.appended.duplicate:
            return self._add(record.delivery, "duplicate", record.appended.id)
        # A worker may have started an attempt already.
        item = self.history.by_id(record.appended.id)
        return item or self._add(record.delivery, "waiting", record.appended.id)

    def _add_not_stored(self, record: RequestRecord, delivery: Delivery) -> DeliveryView:
        item = self._add(delivery, "refused" if record.refused else "cancelled", None)
        item.reason = _refusal_reason(record)
        return item

    def _add(self, delivery: Delivery, outcome: str, id: int | str | None) -> DeliveryView:
        item = DeliveryView(delivery.received_at, outcome, delivery, id)
        _parse_event(item, delivery)
        return self.history.add(item)

    @contextmanager
    def attempt(self, record: AttemptRecord) -> Iterator[None]:
        """Record an attempt and its outcome."""
        item, attempt = self._item_of_attempt(record), Attempt(record.attempt)
        item.attempts.append(attempt)
        item.outcome = "running"
        self.history.touch(item)
        started = time.perf_counter()
        try:
            yield
        finally:
            attempt.seconds = time.perf_counter() - started
            attempt.outcome, attempt.reason = record.outcome, record.reason
            item.outcome, item.reason = record.outcome or "unsettled", record.reason
            age = (datetime.now(UTC) - record.delivery.received_at).total_seconds()
            self.history.count_settled(max(0.0, age), failed=has_failed(record))
            self.history.touch(item)
            self._inline.pop(record, None)

    def _item_of_attempt(self, record: AttemptRecord) -> DeliveryView:
        if record.id is not None:
            return self.history.by_id(record.id) or self._add(record.delivery, "running", record.id)
        item = self._inline[record] = self._add(record.delivery, "running", None)
        _handled_in_request.get().append(item)
        return item

    @contextmanager
    def handler(self, record: AttemptRecord, handler: str) -> Iterator[None]:
        """Record one run of a handler."""
        run = HandlerRun(handler)
        self._current_attempt(record).runs.append(run)
        started = time.perf_counter()
        try:
            yield
        except BaseException as error:
            run.error = type(error).__name__
            raise
        finally:
            run.seconds = time.perf_counter() - started

    def _current_attempt(self, record: AttemptRecord) -> Attempt:
        item = self._inline.get(record) if record.id is None else self.history.by_id(record.id)
        return item.attempts[-1] if item is not None and item.attempts else Attempt(record.attempt)

    # --- replay -------------------------------------------------------------------------------------------

    async def replay_dead_letters(self, ids: list[str] | None) -> int:
        """Make dead letters ready again, all if *ids* is None; return how many."""
        return 0 if self.inbox is None else await self.inbox.replay(ids)

    async def replay(self, item: DeliveryView) -> str | None:
        """Replay a dead letter; submit any other delivery as a new one with the same body."""
        if item.outcome == "dead" and item.id is not None:
            # Another process may have replayed it: a copy of it would be handled as well.
            return None if await self.replay_dead_letters([str(item.id)]) else NO_DEAD_LETTER
        if item.delivery is None or not item.body:
            return "the body is no longer available"
        key = f"{item.delivery.key}:replayed:{secrets.token_hex(8)}"
        reply = await self.receiver.redeliver(evolve(item.delivery, received_at=datetime.now(UTC), key=key))
        return None if reply.status != 503 else "the receiver cannot accept deliveries now"


def _refusal_reason(record: RequestRecord) -> str:
    return _REFUSAL_REASONS.get(record.refused, str(record.refused))


# --- a file -----------------------------------------------------------------------------------------------


@define(eq=False)
class FileSource(_InboxReader[SqliteInbox]):
    """The file of an inbox, which another process may own: polled every second and never written."""

    title: str
    history: DeliveryHistory = field(factory=DeliveryHistory)
    read_only: str | None = "Replay is not available for a read-only file. Use the inspector of the receiver."
    #: The highest id that was read.
    _last_id: int = 0

    @classmethod
    @asynccontextmanager
    async def watching(cls, path: str | os.PathLike[str]) -> AsyncIterator["FileSource"]:
        """
        Open a file and poll it.

        Raises:
            InboxError: The file does not exist, or is not an inbox of this version.
        """
        async with SqliteInbox(path, read_only=True) as inbox:
            source = cls(inbox, Path(path).name)
            await source.refresh()
            polling = asyncio.create_task(source._poll())
            try:
                yield source
            finally:
                polling.cancel()
                await asyncio.wait([polling])

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            try:
                await self.refresh()
            except Exception as error:  # noqa: BLE001  # a file may contain anything, and the next poll may succeed
                message = "cannot read inbox %s, retrying in %g s: %s"
                _log.warning(message, self.title, _POLL_SECONDS, type(error).__name__)

    async def refresh(self) -> None:
        """Read what has changed in the file."""
        for entry in reversed(await self.inbox.newest(self.history.max_items, bodies_after=self._last_id)):
            known, number = self.history.by_id(entry.id), parse_row_id(entry.id)
            # A delivery that is older than the last one and unknown was beyond the limit at an earlier poll.
            if number > self._last_id:
                self._last_id = number
                self._add(entry)
            elif known is not None and (known.outcome, known.attempts[-1].number, known.reason) != _state(entry):
                self._update(known, entry)

    def _add(self, entry: InboxEntry) -> None:
        self.history.count_received(entry.delivery.received_at.timestamp())
        self._update(self.history.add(view_of(entry)), entry)

    def _update(self, item: DeliveryView, entry: InboxEntry) -> None:
        item.outcome, number, item.reason = _state(entry)
        if number != item.attempts[-1].number:
            item.attempts.append(Attempt(number))
        item.attempts[-1].outcome, item.attempts[-1].reason = item.outcome, item.reason
        if entry.state in ("done", "dead"):
            age = max(0.0, (entry.updated_at - entry.delivery.received_at).total_seconds())
            self.history.count_settled(age, failed=entry.state == "dead", at=entry.updated_at.timestamp())
        self.history.touch(item)

    async def replay_dead_letters(self, ids: list[str] | None) -> int:  # noqa: ARG002  # never possible
        """Return 0: the file is read-only."""
        return 0

    async def replay(self, item: DeliveryView) -> str | None:  # noqa: ARG002  # never possible
        """Return why replay is not available."""
        return self.read_only
