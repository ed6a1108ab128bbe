"""
What comes after the answer: claims deliveries, parses, dispatches, settles.

It imports what stands above it in this folder.
"""

from __future__ import annotations

import asyncio
import logging
import random
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import suppress
from typing import ClassVar, TypeAlias

from attrs import define, field, frozen

from callfire_async.errors import HandlerErrors, InboxError, NotificationError
from callfire_async.notifications._dead_letter_log import DeadLetterLog
from callfire_async.notifications.events import Notification, UnknownNotification
from callfire_async.notifications.inbox.base import SUSPECT_CRASHES, Inbox, InboxEntry, Lease
from callfire_async.notifications.observers import AttemptRecord, _CompositeObserver
from callfire_async.notifications.parsing import parse
from callfire_async.notifications.retry import Reject, RetryPolicy
from callfire_async.notifications.routing.router import Router
from callfire_async.notifications.security._allowlist import SubscriptionAllowList

__all__ = ["Worker"]

OnDeadLetter: TypeAlias = Callable[[InboxEntry], Awaitable[None]]

_log = logging.getLogger("callfire_async.worker")

# Two crashes may be an accident of others; four alone are the delivery's own.
_MOST_CRASHES = 4
_SHORTEST_LEASE_SECONDS = 60.0
# How often an inbox is looked at that has nothing to tell.
_IDLE_SECONDS = 30.0
_WRITE_AGAIN_SECONDS = 1.0


# --- what becomes of a delivery ---------------------------------------------------------------------------


@frozen
class _Ack:
    event_key: str
    reason: str = ""
    name: ClassVar[str] = "handled"


@frozen
class _Retry:
    completed: frozenset[str]
    reason: str
    name: ClassVar[str] = "failed"


@frozen
class _DeadLetter:
    reason: str
    name: ClassVar[str] = "dead"


@frozen
class _Release:
    completed: frozenset[str]
    reason: str = ""
    name: ClassVar[str] = "released"


_Outcome: TypeAlias = _Ack | _Retry | _DeadLetter | _Release


def event_key(event: Notification) -> str:
    """Word an event's key as an inbox keeps it."""
    return ":".join(map(str, event.key))


@define(eq=False)
class Worker:
    """
    Handles what an inbox holds, a number of deliveries at once.

    It claims no more than it has free slots, extends its leases while handlers run, and settles each delivery: acked,
    put back for another attempt, or buried.
    """

    inbox: Inbox
    router: Router
    concurrency: int
    handler_timeout: float | None
    retry: RetryPolicy
    shutdown_timeout: float
    subscriptions: SubscriptionAllowList
    on_dead_letter: OnDeadLetter | None
    observers: _CompositeObserver = field(factory=_CompositeObserver)
    lease_seconds: float | None = None
    random: Callable[[], float] = random.random

    dead_letters: DeadLetterLog = field(factory=DeadLetterLog)
    #: How many were ``handled``, ``failed`` (attempts), ``dead``, ``unhandled`` and ``unknown``.
    counts: Counter[str] = field(factory=Counter)
    _running: dict[asyncio.Task[None], Lease] = field(factory=dict)
    _settling: set[int | str] = field(factory=set)
    _unwritten: set[int | str] = field(factory=set)
    #: The one that claims, and the one that extends.
    _tasks: list[asyncio.Task[None]] = field(factory=list)
    _changed: asyncio.Event = field(factory=asyncio.Event)
    _claiming: bool = False
    _stopping: bool = False

    # --- lifecycle ----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to claim."""
        self._stopping = False
        self._changed = asyncio.Event()  # of this event loop: an application may be started again in another
        if self.concurrency:
            self._tasks = [asyncio.create_task(work()) for work in (self._claim_loop, self._renew_leases_loop)]

    async def stop(self) -> None:
        """Claim nothing more; give running handlers their grace, then put back what they have not finished."""
        self._stopping = True
        claiming, extending = self._tasks[:1], self._tasks[1:]
        try:
            await _cancel_and_wait(claiming)
            await _wait_for_tasks(self._running, self.shutdown_timeout)
        finally:
            # Whoever cancels this ends the shutdown_timeout: what is leased is put back all the same.
            await _wait_for_tasks(claiming)
            await _cancel_and_wait(self._running)
            await _cancel_and_wait(extending)
            self.dead_letters.flush()

    @property
    def is_busy(self) -> bool:
        """Whether a handler runs, or waits to; or deliveries are being claimed for more."""
        return bool(self._running) or self._claiming

    @property
    def is_working(self) -> bool:
        """Whether what claims and what extends go on."""
        return not any(task.done() for task in self._tasks)

    @property
    def can_write(self) -> bool:
        """Whether the inbox took what was last written to it."""
        return not self._unwritten

    async def wait_for_change(self, timeout: float) -> None:
        """Wait until a delivery was settled, *timeout* seconds at most."""
        self._changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._changed.wait()

    # --- claiming -----------------------------------------------------------------------------------------

    async def _claim_loop(self) -> None:
        while True:
            await self._wait_until(lambda: self._free > 0 and not self._unwritten)
            leases = await self._claim(self._free)
            if self._unwritten:
                # It turned out meanwhile that nothing can be written; they are begun when something can be.
                await self._put_back(leases)
            elif leases and leases[0].crashes >= SUSPECT_CRASHES:
                await self._run_isolated(leases[0])
            else:
                for lease in leases:
                    self._start(lease)
            if not leases:
                self._changed.set()
                self.dead_letters.look()
                await self._wait()

    @property
    def _free(self) -> int:
        """
        How many more may be begun.

        What is being settled has had its turn, so that the next are claimed in the transaction that notes it, and not
        in one of their own after it. What cannot be noted in time must not pile up.
        """
        return min(self.concurrency + len(self._settling), 2 * self.concurrency) - len(self._running)

    async def _claim(self, limit: int) -> list[Lease]:
        """Claim; what comes to hand while the worker is being stopped goes back at once."""
        claiming = asyncio.ensure_future(self.inbox.claim(limit, lease=self._lease))
        self._claiming = True
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            with suppress(Exception):
                await self._put_back(await claiming)
            raise
        except Exception as error:  # noqa: BLE001  # the inbox may be the user's own; the worker goes on
            _log.error("nothing can be claimed: %s", safe_message(error))
            await asyncio.sleep(_WRITE_AGAIN_SECONDS)
            return []
        finally:
            self._claiming = False

    async def _wait(self) -> None:
        try:
            await self.inbox.wait(_IDLE_SECONDS)
        except Exception:  # noqa: BLE001  # likewise; the next claim says what is wrong
            await asyncio.sleep(_WRITE_AGAIN_SECONDS)

    async def _run_isolated(self, lease: Lease) -> None:
        """Let what runs end, and run nothing beside what may kill the process."""
        claiming = self._tasks[0]
        self._running[claiming] = lease  # so that it is extended while it waits
        try:
            await self._wait_until(lambda: len(self._running) == 1)
        except asyncio.CancelledError:
            await self._put_back([lease])
            raise
        finally:
            del self._running[claiming]
        self._start(lease)
        await self._wait_until(lambda: not self._running)

    async def _put_back(self, leases: Sequence[Lease]) -> None:
        """Put back what is not begun, each by itself; what cannot be is ready again when its lease ends."""
        for lease in leases:
            with suppress(Exception):
                await self.inbox.release(lease)

    def _start(self, lease: Lease) -> None:
        task = asyncio.create_task(self._handle(lease))
        self._running[task] = lease
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        id = self._running.pop(task).id
        self._settling.discard(id)
        self._unwritten.discard(id)
        self._changed.set()

    async def _wait_until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            self._changed.clear()
            await self._changed.wait()

    async def _renew_leases_loop(self) -> None:
        """Extend every lease that is held, at each third of it."""
        while True:
            await asyncio.sleep(self._lease / 3)
            for task, lease in list(self._running.items()):
                if self._is_held(task, lease) and not await self._extend(lease) and self._is_held(task, lease):
                    _log.warning("the lease of delivery %s was lost; another worker may handle it too", lease.id)

    def _is_held(self, task: asyncio.Task[None], lease: Lease) -> bool:
        """Tell whether a lease is still needed: what is settled, or is being, has none to lose."""
        return task in self._running and lease.id not in self._settling

    async def _extend(self, lease: Lease) -> bool:
        try:
            return await self.inbox.extend(lease, self._lease)
        except Exception as error:  # noqa: BLE001  # likewise
            _log.error("the lease of delivery %s cannot be extended: %s", lease.id, safe_message(error))
            return True

    @property
    def _lease(self) -> float:
        return self.lease_seconds or max(_SHORTEST_LEASE_SECONDS, 2 * (self.handler_timeout or 0))

    # --- handling -----------------------------------------------------------------------------------------

    async def _handle(self, lease: Lease) -> None:
        record = AttemptRecord(lease.delivery, lease.id, lease.attempt)
        with self.observers.attempt(record):
            outcome = await self._outcome(lease, record)
            record.reason = outcome.reason
            record.outcome = outcome.name if await self._settle_with_retry(lease, outcome) else "lost"

    async def _settle_with_retry(self, lease: Lease, outcome: _Outcome) -> bool:
        """Settle as soon as the inbox takes it; tell whether the lease was still ours."""
        self._settling.add(lease.id)
        self._changed.set()
        while True:
            try:
                return await self._settle(lease, outcome)
            except Exception as error:  # noqa: BLE001  # likewise
                # What is done and cannot be noted would be done again: nothing more is begun until it can be.
                if lease.id not in self._unwritten:
                    _log.error("what became of delivery %s cannot be written yet: %s", lease.id, safe_message(error))
                self._unwritten.add(lease.id)
                await asyncio.sleep(_WRITE_AGAIN_SECONDS)

    async def _outcome(self, lease: Lease, record: AttemptRecord) -> _Outcome:
        if lease.crashes >= _MOST_CRASHES:
            return _DeadLetter(f"{lease.crashes} processes ended while it was handled")
        completed = set(lease.completed)
        try:
            return await self._parse_and_dispatch(lease, completed, record)
        except NotificationError as error:
            return _DeadLetter(str(error))
        except HandlerErrors as errors:
            failures = list(zip(errors.failed, errors.exceptions, strict=True))
            return self._after(failures, lease, frozenset(completed))
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # whatever it was, the delivery is kept
            if self._stopping and isinstance(error, asyncio.CancelledError):
                return _Release(frozenset(completed))
            return self._after([("(unknown)", error)], lease, frozenset(completed))

    async def _parse_and_dispatch(self, lease: Lease, completed: set[str], record: AttemptRecord) -> _Outcome:
        event = record.event = parse(lease.delivery.body, lease.delivery.content_type)
        if not await self.subscriptions.include(event.subscription_id):
            return _DeadLetter(f"subscription {event.subscription_id} is not one of ours")
        self.counts["unknown"] += isinstance(event, UnknownNotification) and lease.attempt == 1
        await self.router.dispatch(
            event,
            skip=lease.completed,
            handler_timeout=self.handler_timeout,
            completed=completed,
            around=self.observers.handler(record),
        )
        if not completed:
            self.counts["unhandled"] += 1
            return _DeadLetter(f"no handler takes this {type(event).__name__}")
        return _Ack(event_key(event))

    def _after(
        self, failures: Sequence[tuple[str, BaseException]], lease: Lease, completed: frozenset[str]
    ) -> _Outcome:
        """Choose between another attempt and the end of all."""
        self.counts["failed"] += 1
        for name, error in failures:
            log_failure(name, error)
        rejections = [error for _, error in failures if isinstance(error, Reject)]
        if rejections:
            return _DeadLetter(f"rejected: {rejections[0]}")
        reason = failure_reason(failures)
        if lease.attempt >= self.retry.max_attempts:
            ended = "the only attempt failed:" if lease.attempt == 1 else f"{lease.attempt} attempts failed, at last"
            return _DeadLetter(f"{ended} {reason}")
        return _Retry(completed, reason)

    async def _settle(self, lease: Lease, outcome: _Outcome) -> bool:
        if not await self._write(lease, outcome):
            _log.warning("delivery %s was handed to another worker before it was settled", lease.id)
            return False
        if isinstance(outcome, _Ack):
            self.counts["handled"] += 1
        if isinstance(outcome, _DeadLetter):
            await self._report_dead_letter(lease, outcome.reason)
        return True

    def _write(self, lease: Lease, outcome: _Outcome) -> Awaitable[bool]:
        if isinstance(outcome, _Ack):
            return self.inbox.ack(lease, event_key=outcome.event_key)
        if isinstance(outcome, _DeadLetter):
            return self.inbox.dead_letter(lease, outcome.reason)
        if isinstance(outcome, _Release):
            return self.inbox.release(lease, completed=outcome.completed)
        delay = self.retry.delay(lease.attempt, self.random())
        return self.inbox.nack(lease, delay=delay, completed=outcome.completed, reason=outcome.reason)

    async def _report_dead_letter(self, lease: Lease, reason: str) -> None:
        self.counts["dead"] += 1
        self.dead_letters.note(lease.id, reason)
        if self.on_dead_letter is None:
            return
        try:
            entry = await self.inbox.get(lease.id)
            if entry is not None:
                await self.on_dead_letter(entry)
        except Exception as error:  # noqa: BLE001  # the letter is buried, whoever could not be told
            log_failure("on_dead_letter", error)


def log_failure(name: str, error: BaseException) -> None:
    """Log where something of the user's failed, without its own words: they may quote a number or a message."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    _log.error("handler %s failed: %s\n%s", name, _kind(error), frames)


def failure_reason(failures: Sequence[tuple[str, BaseException]]) -> str:
    """Word why handlers failed: whose names, and the types of what they raised."""
    return ", ".join(f"{name}: {_kind(error)}" for name, error in failures)


def _kind(error: BaseException) -> str:
    return type(error).__name__


def safe_message(error: Exception) -> str:
    """Word what an inbox raised: our own words are safe to print, another's need not be."""
    return str(error) if isinstance(error, InboxError) else _kind(error)


async def _cancel_and_wait(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait for their ends."""
    ending = list(tasks)
    for task in ending:
        task.cancel()
    await _wait_for_tasks(ending)


async def _wait_for_tasks(tasks: Collection[asyncio.Task[None]], timeout: float | None = None) -> None:
    """Wait for the ends of tasks, *timeout* seconds at most."""
    if tasks:
        await asyncio.wait(tasks, timeout=timeout)
