"""The two intake modes: store a delivery and respond (queued), or run the handlers and respond (inline)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack

from attrs import define, field

from callfire_async.errors import EventLoopError, HandlerErrors, InboxError, NotificationError
from callfire_async.notifications._eager_start import start_task
from callfire_async.notifications.attempt import around_attempt
from callfire_async.notifications.events import Notification, UnknownNotification
from callfire_async.notifications.inbox._cancellation import StopProgress, finish_within
from callfire_async.notifications.inbox.base import Delivery, Inbox, InboxStats, safe_message
from callfire_async.notifications.observers import AttemptRecord, RequestRecord, _CompositeObserver
from callfire_async.notifications.parsing import parse_or_split
from callfire_async.notifications.routing._failures import FailureLog, UnhandledEventLog, failure_reason
from callfire_async.notifications.routing._user_code import exceptions_by_name, inbox_result
from callfire_async.notifications.routing.router import Router
from callfire_async.notifications.security.request_validation import RETRY_AFTER_HEADER, Reply
from callfire_async.notifications.worker import SETTLE_SECONDS, Worker
from callfire_async.notifications.worker._envelope_splitter import deliveries_of
from callfire_async.notifications.worker._known_sources import KnownSources

_log = logging.getLogger("callfire_async.receiver")

# Only another append shows whether the inbox accepts writes again, so the receiver becomes ready after a while.
_RETRY_STORE_SECONDS = 30.0
# How long closing the inbox may take, in addition to the `drain_timeout` of an inbox with a spool.
CLOSE_SECONDS = 3.5

_STORED = Reply(204)
_NOT_STORED = Reply(503, (RETRY_AFTER_HEADER,))


@define(eq=False)
class _Append:
    """An append in progress, and the reply for which its request waits."""

    record: RequestRecord
    reply: asyncio.Future[Reply]


_OTHER_LOOP = (
    "the receiver is running in another event loop: start it in the event loop that serves the requests, or create one "
    "receiver for each event loop"
)
_NOT_STOPPED = (
    "the receiver was not stopped before its event loop was closed: use `async with receiver`, and create a new "
    "receiver for this event loop"
)


@define(eq=False)
class OwnEventLoop:
    """The event loop that runs a receiver. A receiver that has stopped may be started in another one."""

    _loop: asyncio.AbstractEventLoop | None = None
    _lock: asyncio.Lock = field(factory=asyncio.Lock)

    def lock(self, *, is_running: bool) -> asyncio.Lock:
        """
        Return the lock of the receiver's starts and stops, which belongs to one event loop.

        Raises:
            EventLoopError: The receiver is running, starting or stopping in another event loop.
        """
        if not self.is_current:
            if is_running or self._lock.locked():
                raise EventLoopError(self.advice)
            self._loop, self._lock = asyncio.get_running_loop(), asyncio.Lock()
        return self._lock

    @property
    def is_current(self) -> bool:
        """Whether the current event loop is the receiver's."""
        return self._loop is asyncio.get_running_loop()

    @property
    def advice(self) -> str:
        """Why the receiver cannot be used in another event loop, and what to do."""
        return _NOT_STOPPED if self._loop is not None and self._loop.is_closed() else _OTHER_LOOP


@define(eq=False)
class QueuedIntake:
    """Intake with an inbox: a delivery is stored before the response, and a worker handles it."""

    _inbox: Inbox
    _worker: Worker
    _is_writable: bool = True
    _failed_at: float = float("-inf")
    _storing: dict[_Append, asyncio.Task[None]] = field(factory=dict)

    async def start(self) -> None:
        """Open the inbox and start the worker."""
        await self._inbox.__aenter__()
        self._worker.start()

    async def stop(self, progress: StopProgress) -> None:
        """
        Stop the worker, wait for appends in progress, and close the inbox, even if this is cancelled.

        Each step is bounded.
        """
        deadline = asyncio.get_running_loop().time() + self._worker.shutdown_timeout + SETTLE_SECONDS
        async with AsyncExitStack() as steps:
            steps.push_async_callback(self._close_inbox, progress.unfinished)
            steps.callback(self._abandon_appends, progress.unfinished)
            steps.push_async_callback(self._wait_for_appends, deadline)
            await self._worker.stop(progress)

    async def _wait_for_appends(self, deadline: float) -> None:
        # A cancelled stop is long before its deadline, and must not wait for that.
        seconds = min(deadline - asyncio.get_running_loop().time(), SETTLE_SECONDS)
        if self._storing:
            await asyncio.wait(self._storing.values(), timeout=max(0.0, seconds))

    def _abandon_appends(self, unfinished: list[str]) -> None:
        """Cancel the appends in progress, and respond 503 now: an append may ignore its cancellation."""
        for append, storing in self._storing.items():
            storing.cancel()
            self._refuse(append)
        if self._storing:
            unfinished.append(f"postbacks that were not stored in time and got 503: {len(self._storing)}")

    async def _close_inbox(self, unfinished: list[str]) -> None:
        seconds = CLOSE_SECONDS + getattr(self._inbox, "drain_timeout", 0.0)
        try:
            if not await finish_within(seconds, self._exit_inbox()):
                unfinished.append(f"the inbox, which did not close within {seconds:g} s")
        except InboxError as error:
            unfinished.append(f"the inbox, which failed to close ({error})")

    async def _exit_inbox(self) -> None:
        await self._inbox.__aexit__(None, None, None)

    async def accept(self, delivery: Delivery, record: RequestRecord) -> Reply:
        """Store a delivery; return 204 once it is stored, or 503 if it cannot be stored."""
        # A server may cancel the request if its client disconnects; a body that was read completely is stored anyway.
        append = _Append(record, asyncio.get_running_loop().create_future())
        storing = start_task(self._store_and_reply(delivery, append))
        if not storing.done():
            self._storing[append] = storing
        return await append.reply

    async def _store_and_reply(self, delivery: Delivery, append: _Append) -> None:
        try:
            reply = await self._store(delivery, append.record)
            if not append.reply.done():
                append.reply.set_result(reply)
        finally:
            self._storing.pop(append, None)
            self._refuse(append)  # if this was cancelled

    def _refuse(self, append: _Append) -> None:
        """Respond 503 to a postback, unless it has its reply or its request was cancelled."""
        if not append.reply.done():
            append.reply.set_result(self._count_refused(append.record))

    def _count_refused(self, record: RequestRecord) -> Reply:
        record.refused = "storage"
        self.counts["not stored"] += 1
        return _NOT_STORED

    async def _store(self, delivery: Delivery, record: RequestRecord) -> Reply:
        try:
            record.appended = await inbox_result(lambda: self._inbox.append(delivery))
        except Exception as error:  # noqa: BLE001  # a custom inbox may raise anything; nothing was stored
            self._is_writable, self._failed_at = False, time.monotonic()
            _log.error("cannot store a postback, responded 503: %s", safe_message(error))
            return self._count_refused(record)
        self._is_writable = True
        self.counts["duplicates"] += record.appended.duplicate
        return _STORED

    @property
    def counts(self) -> Counter[str]:
        """The worker's counts, which include those of the intake."""
        return self._worker.counts

    @property
    def is_working(self) -> bool:
        """Whether the worker is running."""
        return self._worker.is_working

    @property
    def last_store_succeeded(self) -> bool:
        """Whether the last append, claim and settle operations succeeded, and the inbox's file is in its place."""
        return self._is_writable and self._can_work and self._is_inbox_available

    @property
    def _can_work(self) -> bool:
        return self._worker.can_write and self._worker.can_claim

    @property
    def _is_inbox_available(self) -> bool:
        # Only inboxes in files have this attribute; an inbox on a server fails when it is called.
        return bool(getattr(self._inbox, "is_available", True))

    @property
    def can_accept(self) -> bool:
        """Whether the next append may succeed: the last one did, or it was a while ago."""
        retry_is_due = time.monotonic() - self._failed_at >= _RETRY_STORE_SECONDS
        # An inbox with a spool accepts deliveries while nothing can be claimed or settled.
        has_storage = self._can_work or getattr(self._inbox, "accepts_during_outage", False)
        return has_storage and self._is_inbox_available and (self._is_writable or retry_is_due)

    @property
    def has_recent_dead_letters(self) -> bool:
        """Whether a delivery became a dead letter within the last 15 minutes."""
        return self._worker.dead_letters.has_recent

    async def inbox_stats(self) -> InboxStats | None:
        """Return the inbox's counts."""
        return await inbox_result(self._inbox.stats)

    async def is_idle(self) -> bool:
        """Return whether no delivery is due, leased or being stored; False if the inbox cannot be read."""
        if self._is_busy:  # counting an inbox may take longer than handling its deliveries
            return False
        try:
            stats = await inbox_result(self._inbox.stats)
        except InboxError:
            return False
        return not (stats.ready or stats.leased or self._is_busy)

    @property
    def _is_busy(self) -> bool:
        return self._worker.is_busy or bool(self._storing)

    async def wait_for_change(self, timeout: float) -> None:
        """Wait up to *timeout* seconds for a delivery to be settled."""
        await self._worker.wait_for_change(timeout)


def _events_of(delivery: Delivery) -> Iterator[tuple[Delivery, Notification | NotificationError]]:
    """Yield each event of a delivery, or why it cannot be read. Those of an envelope have deliveries of their own."""
    try:
        parsed = parse_or_split(delivery.body, delivery.content_type)
    except NotificationError as error:
        yield delivery, error
        return
    if not isinstance(parsed, tuple):
        yield delivery, parsed
        return
    for part in deliveries_of(delivery, parsed):
        yield from _events_of(part)


def _refuse(error: NotificationError, record: AttemptRecord) -> int:
    _log.warning("rejected an invalid notification with %d: %s", error.status_hint, error)
    record.outcome, record.reason = "refused", str(error)
    return error.status_hint


@define(eq=False)
class InlineIntake:
    """Intake without an inbox: handlers run before the response."""

    _router: Router
    _known_sources: KnownSources
    _handler_timeout: float | None
    _observers: _CompositeObserver
    _failure_log: FailureLog = field(factory=FailureLog)
    counts: Counter[str] = field(factory=Counter)
    _unhandled_log: UnhandledEventLog = field(factory=UnhandledEventLog)

    is_working = last_store_succeeded = can_accept = True
    has_recent_dead_letters = False

    async def start(self) -> None:
        """Do nothing."""

    async def stop(self, progress: StopProgress) -> None:
        """Do nothing: the server waits for requests in progress."""

    async def accept(self, delivery: Delivery, record: RequestRecord) -> Reply:
        """
        Handle all events of a delivery, one after the other; return 204 if all succeeded, else 500.

        An event that cannot be read does not prevent the others. A body without any readable event is rejected with 400
        or 422.
        """
        statuses = {await self._handle(one, event) for one, event in _events_of(delivery)}
        if len(statuses) > 1:
            return Reply(500)
        status = statuses.pop()
        if 400 <= status < 500:
            record.refused = "no notification"
        return Reply(status)

    async def _handle(self, delivery: Delivery, event: Notification | NotificationError) -> int:
        attempt = AttemptRecord(delivery)
        with self._observers.attempt(attempt):
            if isinstance(event, NotificationError):
                return _refuse(event, attempt)
            attempt.event = event
            self.counts["unknown"] += isinstance(event, UnknownNotification)
            return await self._dispatch(event, attempt)

    async def _dispatch(self, event: Notification, record: AttemptRecord) -> int:
        try:
            unknown = await self._known_sources.find_unknown(event)
            ran = not unknown and await self._router.dispatch(
                event,
                handler_timeout=self._handler_timeout,
                around=around_attempt(self._observers.handler(record), event),
            )
        except HandlerErrors as errors:
            return self._fail(errors, record)
        record.outcome, record.reason = "handled" if ran else "unhandled", unknown
        self.counts[record.outcome] += 1
        if unknown:
            self._unhandled_log.record_unknown(unknown)
        elif not ran:
            self._unhandled_log.record(event)
        return 204

    def _fail(self, errors: HandlerErrors, record: AttemptRecord) -> int:
        self.counts["failed"] += 1
        record.exceptions = exceptions_by_name(errors)
        record.outcome, record.reason = "failed", failure_reason(record.exceptions)
        self._failure_log.log_handlers(record.exceptions, "responded 500; without an inbox there is no retry")
        return 500

    async def inbox_stats(self) -> InboxStats | None:
        """Return None: there is no inbox."""
        return None

    async def is_idle(self) -> bool:
        """Return True: no delivery is stored."""
        return True

    async def wait_for_change(self, timeout: float) -> None:
        """Wait *timeout* seconds: changes are not signalled."""
        await asyncio.sleep(timeout)
