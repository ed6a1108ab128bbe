"""A circuit breaker around the primary inbox of a spool."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeAlias, TypeVar

from callfire_async.errors import InboxError, InboxUnavailableError
from callfire_async.notifications.inbox._cancellation import cancel_repeatedly, finish_within
from callfire_async.notifications.inbox.base import Inbox, safe_message

__all__ = ["CircuitBreaker"]

T = TypeVar("T")
Operation: TypeAlias = Callable[[Inbox], Awaitable[T]]
Undo: TypeAlias = Callable[[T], Awaitable[None]]

_log = logging.getLogger("callfire_async.inbox")

# Less than a receiver waits for its inbox to close, so that the spool is closed too.
CLOSE_TIMEOUT_SECONDS = 1.5

_UNAVAILABLE = "the primary inbox is unavailable; it is probed in the background"


class CircuitBreaker:
    """
    Pass operations to an inbox, and fail at once while the inbox is unavailable.

    While the breaker is closed, `call` passes operations to the inbox. After *failure_threshold* consecutive failures
    it is open, and `call` fails at once. `probe` calls the inbox in any state, which makes the breaker half-open: a
    success closes it.

    An inbox that can be read may still not store anything. Therefore an outage, in which `store` fails at once, begins
    when the breaker opens, and ends when the caller has found that the inbox stores deliveries.

    Each call is bounded by its timeout even if the inbox ignores cancellation: an overdue operation is left running
    until `close`.

    Args:
        inbox: The primary inbox, opened and closed by this class.
        failure_threshold: Number of consecutive failures that open the breaker.
        operation_timeout: Seconds for opening the inbox, and for undoing an operation that finished too late.
    """

    def __init__(self, inbox: Inbox, *, failure_threshold: int, operation_timeout: float) -> None:
        self.inbox = inbox
        self._failure_threshold = failure_threshold
        self._operation_timeout = operation_timeout
        #: Whether the inbox has been opened.
        self.is_primary_open = False
        self._pending: set[asyncio.Task[Any]] = set()
        self.reset()

    # --- lifecycle ----------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Reset all state for a new start, with new events, because an `asyncio.Event` belongs to one event loop."""
        #: Set when the primary becomes available.
        self.recovered = asyncio.Event()
        #: Set when the breaker opens.
        self.tripped = asyncio.Event()
        #: Whether the breaker has opened, and `end_outage` was not called since then.
        self.is_in_outage = False
        self._failures = 0
        self._has_logged_not_open = False

    @property
    def is_closed(self) -> bool:
        """Whether `call` passes operations to the inbox: it has been opened, and the threshold is not reached."""
        return self.is_primary_open and self._failures < self._failure_threshold

    @property
    def can_store(self) -> bool:
        """Whether `store` passes operations to the inbox."""
        return self.is_closed and not self.is_in_outage

    @property
    def has_failed(self) -> bool:
        """Whether the most recent call failed."""
        return self._failures > 0

    async def open(self) -> bool:
        """Open the inbox; return False, and log the first time, if that fails."""
        try:
            async with asyncio.timeout(self._operation_timeout):
                await self.inbox.__aenter__()
        except (Exception, asyncio.CancelledError) as error:  # the spool accepts deliveries whatever the cause
            if _is_being_cancelled():
                raise
            self.log_not_open(safe_message(error))
            return False
        self.is_primary_open = True
        self.recovered.set()
        if self._has_logged_not_open:
            _log.warning("opened the primary inbox")
        return True

    def log_not_open(self, cause: str) -> None:
        """Log, once, that the inbox is not open."""
        if not self._has_logged_not_open:
            self._has_logged_not_open = True
            _log.error("cannot open the primary inbox, retrying; deliveries are stored in the spool: %s", cause)

    async def close(self) -> None:
        """Cancel all pending operations, then close the inbox."""
        self.is_primary_open = False
        await cancel_repeatedly(self._pending)
        try:
            if not await finish_within(CLOSE_TIMEOUT_SECONDS, self._close_inbox()):
                _log.error("cannot close the primary inbox within %g s, ignoring it", CLOSE_TIMEOUT_SECONDS)
        except Exception as error:  # noqa: BLE001  # the spool must be closed in any case
            _log.error("cannot close the primary inbox: %s", safe_message(error))

    async def _close_inbox(self) -> None:
        await self.inbox.__aexit__(None, None, None)

    # --- calls --------------------------------------------------------------------------------------------

    async def call(self, operation: Operation[T], timeout: float, *, undo: Undo[T] | None = None) -> T:
        """
        Call the inbox if the breaker is closed.

        Args:
            operation: Called with the inbox.
            timeout: Seconds to wait for the result.
            undo: Called with a result that arrives after the timeout, or after the caller's cancellation. If omitted,
                the operation is cancelled instead.

        Raises:
            InboxUnavailableError: The breaker is open, or the call failed or timed out; it may have had its effect.
            InboxError: The inbox rejected the operation.
        """
        if not self.is_closed:
            raise InboxUnavailableError(_UNAVAILABLE)
        return await self.probe(operation, timeout, undo=undo)

    async def store(self, operation: Operation[T], timeout: float) -> T:
        """Call the inbox to store deliveries, as `call` does; fail at once during an outage."""
        if not self.can_store:
            raise InboxUnavailableError(_UNAVAILABLE)
        return await self.probe(operation, timeout)

    async def probe(self, operation: Operation[T], timeout: float, *, undo: Undo[T] | None = None) -> T:
        """Call the inbox as `call` does, but in any state of the breaker; a success closes it."""
        task = self._start(_invoke(operation, self.inbox))
        try:
            await asyncio.wait([task], timeout=timeout)
        except asyncio.CancelledError:
            self._abandon(task, undo)
            raise
        if not task.done():
            self._abandon(task, undo)
            raise self._record_failure(f"the primary inbox did not respond within {timeout:g} s", None)
        return self._result(task)

    def _start(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(coroutine)
        self._pending.add(task)
        task.add_done_callback(self._on_finished)
        return task

    def _on_finished(self, task: asyncio.Task[Any]) -> None:
        self._pending.discard(task)
        # Retrieve the exception of an abandoned task, which asyncio would otherwise log.
        _ = task.cancelled() or task.exception()

    def _abandon(self, task: asyncio.Task[T], undo: Undo[T] | None) -> None:
        if undo is None:
            task.cancel()
        else:
            # The task may be done already: it can finish at the moment in which the caller is cancelled.
            self._start(self._undo_late(task, undo))

    async def _undo_late(self, task: asyncio.Task[T], undo: Undo[T]) -> None:
        with suppress(Exception):
            async with asyncio.timeout(self._operation_timeout):
                await undo(await task)

    def _result(self, task: asyncio.Task[T]) -> T:
        if task.cancelled():
            # Nothing here cancels a task that is still awaited: the driver raised CancelledError.
            raise self._record_failure("the primary inbox cancelled the operation", None)
        error = task.exception()
        if isinstance(error, InboxUnavailableError):
            raise self._record_failure(str(error), error)
        if isinstance(error, InboxError):
            raise error
        if error is not None:
            raise self._record_failure(f"the primary inbox failed: {safe_message(error)}", error)
        self._record_success()
        return task.result()

    def _record_failure(self, message: str, cause: BaseException | None) -> InboxUnavailableError:
        self._failures += 1
        if self._failures == self._failure_threshold:
            self._begin_outage(message)
            self.tripped.set()
        unavailable = InboxUnavailableError(message)
        unavailable.__cause__ = cause
        return unavailable

    def _record_success(self) -> None:
        if self._failures >= self._failure_threshold:
            self.recovered.set()
        self._failures = 0

    # --- outages ------------------------------------------------------------------------------------------

    def _begin_outage(self, message: str) -> None:
        if not self.is_in_outage:
            self.is_in_outage = True
            _log.warning("the primary inbox is unavailable, storing deliveries in the spool: %s", message)

    def end_outage(self) -> None:
        """Record that the inbox stores deliveries, or that no delivery waits which could show this."""
        if self.is_in_outage:
            self.is_in_outage = False
            _log.warning("the primary inbox is available again")


def _is_being_cancelled() -> bool:
    """Return whether the current task is being cancelled; a driver may raise CancelledError without that."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _invoke(operation: Operation[T], inbox: Inbox) -> T:
    return await operation(inbox)
