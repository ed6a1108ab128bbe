"""
The inbox behind a spool: asked in bounded time, and not asked at all while it fails.

It imports `errors` and the protocol.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from typing import Any, TypeVar

from callfire_async.errors import InboxError, InboxUnavailableError
from callfire_async.notifications.inbox.base import Inbox

__all__ = ["CircuitBreaker"]

T = TypeVar("T")

_log = logging.getLogger("callfire_async.inbox")

CLOSING_SECONDS = 5.0


class CircuitBreaker:
    """
    An inbox that may be away, behind a circuit breaker.

    Whoever asks waits for so many seconds and no longer, also where the inbox cannot be interrupted: then what was
    asked is left behind, and looked after until the end. After some failures in a row the breaker is open, and ``ask``
    fails at once; then ``probe`` asks all the same, and closes it with the first answer.

    Args:
        inbox: It is opened and closed here.
        failure_threshold: How many in a row open the breaker.
        operation_timeout: Seconds for opening it, and for what comes too late.
    """

    def __init__(self, inbox: Inbox, *, failure_threshold: int, operation_timeout: float) -> None:
        self.inbox = inbox
        #: Set when it can be asked again.
        self.recovered = asyncio.Event()
        #: Set when it no longer can.
        self.lost = asyncio.Event()
        self._failure_threshold = failure_threshold
        self._failures = 0
        self._operation_timeout = operation_timeout
        self._is_open = False
        self._said_not_open = False
        self._asked: set[asyncio.Task[Any]] = set()

    # --- lifecycle ----------------------------------------------------------------------------------------

    def renew(self) -> None:
        """Forget what was, since it is opened anew: perhaps in another event loop, to which an event belongs."""
        self.recovered, self.lost = asyncio.Event(), asyncio.Event()
        self._failures = 0
        self._said_not_open = False

    @property
    def is_open(self) -> bool:
        """Whether it has been opened."""
        return self._is_open

    @property
    def is_reachable(self) -> bool:
        """Whether it may be asked."""
        return self._is_open and self._failures < self._failure_threshold

    @property
    def is_well(self) -> bool:
        """Whether it has answered what it was last asked."""
        return self._is_open and not self._failures

    async def open(self) -> bool:
        """Try to open it; say once where that fails."""
        try:
            async with asyncio.timeout(self._operation_timeout):
                await self.inbox.__aenter__()
        except (Exception, asyncio.CancelledError) as error:  # whatever it is, postbacks must be kept
            if _is_cancelled():
                raise
            self.log_not_open(safe_message(error))
            return False
        self._is_open = True
        self.recovered.set()
        if self._said_not_open:
            _log.warning("the primary inbox is open now")
        return True

    def log_not_open(self, why: str) -> None:
        """Log, once, that it is not open."""
        if not self._said_not_open:
            self._said_not_open = True
            _log.error("the primary inbox is not open yet, and deliveries are kept in the spool: %s", why)

    async def close(self) -> None:
        """Close it, once what was asked of it has ended, or has been ended."""
        self._is_open = False
        await ended(self._asked, CLOSING_SECONDS)
        try:
            async with asyncio.timeout(CLOSING_SECONDS):
                await self.inbox.__aexit__(None, None, None)
        except Exception as error:  # noqa: BLE001  # the spool is to be closed all the same
            _log.error("the primary inbox cannot be closed: %s", safe_message(error))

    # --- asking -------------------------------------------------------------------------------------------

    async def ask(
        self,
        question: Callable[[Inbox], Awaitable[T]],
        seconds: float,
        *,
        late: Callable[[T], Awaitable[None]] | None = None,
    ) -> T:
        """
        Ask, unless it is known to be away.

        Args:
            question: What to ask.
            seconds: How long to wait for the answer.
            late: What to do with an answer that comes after that; without it the question is cancelled.

        Raises:
            InboxUnavailableError: It is away, or does not answer in time; it may have done what was asked.
            InboxError: It says no.
        """
        if not self.is_reachable:
            raise InboxUnavailableError("the primary inbox cannot be reached now; it is tried again every few seconds")
        return await self.probe(question, seconds, late=late)

    async def probe(
        self,
        question: Callable[[Inbox], Awaitable[T]],
        seconds: float,
        *,
        late: Callable[[T], Awaitable[None]] | None = None,
    ) -> T:
        """Ask, even where it was away a moment ago."""
        asking = self._own(_asked(question, self.inbox))
        try:
            await asyncio.wait([asking], timeout=seconds)
        except asyncio.CancelledError:
            # It may have been answered in the very moment.
            self._abandon(asking, late)
            raise
        if not asking.done():
            self._abandon(asking, late)
            raise self._failed(f"the primary inbox has not answered within {seconds:g} s", None)
        return self._answer(asking)

    def _own(self, asking: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(asking)
        self._asked.add(task)
        task.add_done_callback(self._disown)
        return task

    def _disown(self, task: asyncio.Task[Any]) -> None:
        self._asked.discard(task)
        # Looked at, since nobody else may: who asked may be gone.
        _ = task.cancelled() or task.exception()

    def _abandon(self, asking: asyncio.Task[T], late: Callable[[T], Awaitable[None]] | None) -> None:
        if late is None:
            asking.cancel()
        else:
            self._own(self._take_late(asking, late))

    async def _take_late(self, asking: asyncio.Task[T], late: Callable[[T], Awaitable[None]]) -> None:
        with suppress(Exception):
            async with asyncio.timeout(self._operation_timeout):
                await late(await asking)

    def _answer(self, asked: asyncio.Task[T]) -> T:
        if asked.cancelled():
            # Nobody here has: a driver that gives up.
            raise self._failed("the primary inbox broke off", None)
        error = asked.exception()
        if isinstance(error, InboxUnavailableError):
            raise self._failed(str(error), error)
        if isinstance(error, InboxError):
            raise error
        if error is not None:
            raise self._failed(f"the primary inbox failed: {safe_message(error)}", error)
        self._succeeded()
        return asked.result()

    def _failed(self, words: str, cause: BaseException | None) -> InboxUnavailableError:
        self._failures += 1
        if self._failures == self._failure_threshold:
            _log.warning("the primary inbox cannot be reached, and deliveries are kept in the spool: %s", words)
            self.lost.set()
        unavailable = InboxUnavailableError(words)
        unavailable.__cause__ = cause
        return unavailable

    def _succeeded(self) -> None:
        if self._failures >= self._failure_threshold:
            _log.warning("the primary inbox can be reached again")
            self.recovered.set()
        self._failures = 0


def safe_message(error: BaseException) -> str:
    """Word an error: our own words are safe to print, another's need not be."""
    return str(error) if isinstance(error, InboxError) else type(error).__name__


def _is_cancelled() -> bool:
    """Tell whether somebody wants this task to end; a driver that gives up looks the same."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def ended(tasks: Iterable[asyncio.Task[Any]], seconds: float) -> None:
    """Cancel tasks and wait for their ends, so long at most: what cannot be interrupted must not hold up the rest."""
    ending = list(tasks)
    for task in ending:
        task.cancel()
    if ending:
        await asyncio.wait(ending, timeout=seconds)


async def _asked(question: Callable[[Inbox], Awaitable[T]], inbox: Inbox) -> T:
    return await question(inbox)
