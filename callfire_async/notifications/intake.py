"""
The two ways of what the door lets in: it is kept before it is answered, or handled before it is answered.

This room imports what stands above it in this folder.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Sequence

from attrs import define, field

from callfire_async.errors import HandlerErrors, InboxError, NotificationError
from callfire_async.notifications.events import Notification, UnknownNotification
from callfire_async.notifications.inbox.base import Delivery, Inbox, InboxStats
from callfire_async.notifications.observers import AttemptRecord, RequestRecord, _CompositeObserver
from callfire_async.notifications.parsing import parse
from callfire_async.notifications.routing.router import Router
from callfire_async.notifications.security._allowlist import SubscriptionAllowList
from callfire_async.notifications.security.request_validation import TRY_AGAIN, Reply
from callfire_async.notifications.worker import Worker, failure_reason, log_failure, safe_message

# In the receiver's name: whoever looks for that in his log need not know of this room.
_log = logging.getLogger("callfire_async.receiver")

# Only the next postback shows whether an inbox can be written to again.
_STORE_AGAIN_SECONDS = 30.0

_KEPT = Reply(204)


@define(eq=False)
class QueuedIntake:
    """The way with an inbox: what is answered 204 is stored, and handled by a worker."""

    _inbox: Inbox
    _worker: Worker
    _is_writable: bool = True
    _failed_at: float = float("-inf")
    _storing: set[asyncio.Task[Reply]] = field(factory=set)

    async def start(self) -> None:
        """Open the inbox, and start the worker."""
        await self._inbox.__aenter__()
        self._worker.start()

    async def stop(self) -> None:
        """Stop the worker, let what is being stored be stored, and close the inbox."""
        try:
            await self._worker.stop()
            if self._storing:
                await asyncio.wait(self._storing)
        finally:
            # Where this is cancelled too: an inbox that stays open is nobody else's.
            await self._inbox.__aexit__(None, None, None)

    async def accept(self, delivery: Delivery, record: RequestRecord) -> Reply:
        """Store a delivery; 204 once it is kept, 503 where it cannot be."""
        # A server may cancel the request if its client disconnects; a body that was read completely is stored anyway.
        storing = asyncio.create_task(self._store(delivery, record))
        self._storing.add(storing)
        storing.add_done_callback(self._storing.discard)
        return await asyncio.shield(storing)

    async def _store(self, delivery: Delivery, record: RequestRecord) -> Reply:
        try:
            appended = record.appended = await self._inbox.append(delivery)
        except Exception as error:  # noqa: BLE001  # the inbox may be the user's own; nothing was stored
            self._is_writable, self._failed_at = False, time.monotonic()
            record.refused = "storage"
            self.counts["not stored"] += 1
            _log.error("a postback cannot be stored and was answered 503: %s", safe_message(error))
            return Reply(503, (TRY_AGAIN,))
        self._is_writable = True
        self.counts["duplicates"] += appended.duplicate
        return _KEPT

    @property
    def counts(self) -> Counter[str]:
        """How often what happened; the worker's own, in which both count."""
        return self._worker.counts

    @property
    def is_working(self) -> bool:
        """Whether what claims and what extends go on."""
        return self._worker.is_working

    @property
    def last_store_succeeded(self) -> bool:
        """Whether the inbox took what was last written to it."""
        return self._is_writable and self._worker.can_write

    @property
    def can_accept(self) -> bool:
        """Whether the next may be stored: it can, or that has not been tried for a while."""
        again = time.monotonic() - self._failed_at >= _STORE_AGAIN_SECONDS
        # A spool takes in what comes while nothing can be settled.
        settles = self._worker.can_write or getattr(self._inbox, "accepts_during_outage", False)
        return settles and (self._is_writable or again)

    @property
    def has_recent_dead_letters(self) -> bool:
        """Whether something was buried within the last quarter of an hour."""
        return self._worker.dead_letters.has_recent

    async def inbox_stats(self) -> InboxStats | None:
        """Count what the inbox holds."""
        return await self._inbox.stats()

    async def is_idle(self) -> bool:
        """Tell whether nothing is ready, leased or being stored."""
        if self._is_busy:
            # To count what an inbox holds may take longer than to handle it.
            return False
        try:
            stats = await self._inbox.stats()
        except InboxError:
            # It cannot be reached now: who knows what waits there.
            return False
        return not (stats.ready or stats.leased or self._is_busy)

    @property
    def _is_busy(self) -> bool:
        return self._worker.is_busy or bool(self._storing)

    async def wait_for_change(self, timeout: float) -> None:
        """Wait until a delivery was settled, *timeout* seconds at most."""
        await self._worker.wait_for_change(timeout)


@define(eq=False)
class InlineIntake:
    """The way without an inbox: handlers run before the answer."""

    _router: Router
    _subscriptions: SubscriptionAllowList
    _handler_timeout: float | None
    _observers: _CompositeObserver
    counts: Counter[str] = field(factory=Counter)
    _unhandled: set[type[Notification]] = field(factory=set)

    is_working = last_store_succeeded = can_accept = True
    has_recent_dead_letters = False

    async def start(self) -> None:
        """Have nothing to start."""

    async def stop(self) -> None:
        """Have nothing to stop."""

    async def accept(self, delivery: Delivery, record: RequestRecord) -> Reply:
        """Handle a delivery; the reply says what became of it."""
        attempt = AttemptRecord(delivery)
        with self._observers.attempt(attempt):
            try:
                event = attempt.event = parse(delivery.body, delivery.content_type)
            except NotificationError as error:
                _log.warning("a body that is no notification was answered %d: %s", error.status_hint, error)
                attempt.outcome, attempt.reason = "refused", str(error)
                record.refused = "no notification"
                return Reply(error.status_hint)
            self.counts["unknown"] += isinstance(event, UnknownNotification)
            return await self._dispatch(event, attempt)

    async def _dispatch(self, event: Notification, record: AttemptRecord) -> Reply:
        try:
            ran = await self._subscriptions.include(event.subscription_id) and await self._router.dispatch(
                event, handler_timeout=self._handler_timeout, around=self._observers.handler(record)
            )
        except HandlerErrors as errors:
            return self._failed(list(zip(errors.failed, errors.exceptions, strict=True)), record)
        except Exception as error:  # noqa: BLE001  # known_subscriptions is the user's own
            return self._failed([("known_subscriptions", error)], record)
        record.outcome = "handled" if ran else "unhandled"
        self.counts[record.outcome] += 1
        if not ran:
            self._log_unhandled(event)
        return Reply(204)

    def _failed(self, failures: Sequence[tuple[str, Exception]], record: AttemptRecord) -> Reply:
        self.counts["failed"] += 1
        for name, error in failures:
            log_failure(name, error)
        record.outcome, record.reason = "failed", failure_reason(failures)
        return Reply(500)

    def _log_unhandled(self, event: Notification) -> None:
        if type(event) not in self._unhandled:
            self._unhandled.add(type(event))
            _log.warning("no handler takes this %s; further ones are passed over in silence", type(event).__name__)

    async def inbox_stats(self) -> InboxStats | None:
        """Return None: there is no inbox."""
        return None

    async def is_idle(self) -> bool:
        """Return True: nothing waits to be handled."""
        return True

    async def wait_for_change(self, timeout: float) -> None:
        """Wait *timeout* seconds: nothing tells of a change."""
        await asyncio.sleep(timeout)
