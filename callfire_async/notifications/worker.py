"""Claims deliveries from an inbox, parses and dispatches them, and settles each one."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeAlias

from attrs import define, field

from callfire_async.errors import HandlerErrors, NotificationError
from callfire_async.notifications._dead_letter_log import DeadLetterLog, FailedClaimLog
from callfire_async.notifications.events import Notification, UnknownNotification
from callfire_async.notifications.inbox.base import SUSPECT_CRASHES, Inbox, InboxEntry, Lease, safe_message
from callfire_async.notifications.observers import AttemptRecord, _CompositeObserver
from callfire_async.notifications.parsing import parse
from callfire_async.notifications.retry import Outcome, Reject, RetryPolicy, rejection_reason
from callfire_async.notifications.routing._failures import FailureLog, Failures, UnhandledEventLog, failure_reason
from callfire_async.notifications.routing._user_code import exceptions_by_name, inbox_result, user_result
from callfire_async.notifications.routing.router import Router
from callfire_async.notifications.security._allowlist import SubscriptionAllowList

__all__ = ["Worker"]

OnDeadLetter: TypeAlias = Callable[[InboxEntry], Awaitable[None]]

_log = logging.getLogger("callfire_async.worker")

# Up to two crashes may be caused by another delivery; later attempts run in isolation, so those crashes are its own.
_MAX_CRASHES = 4
_MIN_LEASE_SECONDS = 60.0
# How long to wait for an inbox that reports no new work before it is asked again.
_MAX_WAIT_SECONDS = 30.0
_RETRY_INTERVAL_SECONDS = 1.0


def event_key(event: Notification) -> str:
    """Format an event's key as inboxes store it."""
    return ":".join(map(str, event.key))


@define(eq=False)
class Worker:
    """
    Handles an inbox's deliveries, up to *concurrency* at once.

    It claims only as many deliveries as it has free slots, extends their leases while handlers run, and settles each
    delivery with an ack, a nack, a release or as a dead letter.
    """

    inbox: Inbox
    router: Router
    concurrency: int
    handler_timeout: float | None
    retry: RetryPolicy
    shutdown_timeout: float
    subscriptions: SubscriptionAllowList
    on_dead_letter: OnDeadLetter | None
    #: Whether events that match no handler are acked instead of becoming dead letters.
    ignores_unhandled: bool = False
    failure_log: FailureLog = field(factory=FailureLog)
    unhandled_log: UnhandledEventLog = field(factory=UnhandledEventLog)
    observers: _CompositeObserver = field(factory=_CompositeObserver)
    lease_seconds: float | None = None
    random: Callable[[], float] = random.random

    dead_letters: DeadLetterLog = field(factory=DeadLetterLog)
    failed_claims: FailedClaimLog = field(factory=FailedClaimLog)
    #: Deliveries that were ``handled``, ``dead``, ``unhandled`` and ``unknown``, and attempts that ``failed``.
    counts: Counter[str] = field(factory=Counter)
    _running: dict[asyncio.Task[None], Lease] = field(factory=dict)
    _settling: set[int | str] = field(factory=set)
    #: Ids of the deliveries whose last settle operation failed.
    _unsettled: set[int | str] = field(factory=set)
    #: The claim loop and the lease renewal loop.
    _tasks: list[asyncio.Task[None]] = field(factory=list)
    _changed: asyncio.Event = field(factory=asyncio.Event)
    _claiming: bool = False
    _stopping: bool = False

    # --- lifecycle ----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start to claim and handle deliveries."""
        self._stopping = False
        self._changed = asyncio.Event()  # an event belongs to one event loop; a restart may run in another
        if self.concurrency:
            self._tasks = [asyncio.create_task(loop()) for loop in (self._claim_loop, self._renew_leases_loop)]

    async def stop(self) -> None:
        """Stop to claim, wait for running handlers up to the shutdown timeout, then release unfinished deliveries."""
        self._stopping = True
        claiming, renewing = self._tasks[:1], self._tasks[1:]
        try:
            await _cancel_and_wait(claiming)
            await _wait_for_tasks(self._running, self.shutdown_timeout)
        finally:
            # A cancelled stop skips the shutdown timeout; leased deliveries are released anyway.
            await _wait_for_tasks(claiming)
            await _cancel_and_wait(self._running)
            await _cancel_and_wait(renewing)
            self.dead_letters.flush()

    @property
    def is_busy(self) -> bool:
        """Whether handlers run or wait to run, or deliveries are being claimed."""
        return bool(self._running) or self._claiming

    @property
    def is_working(self) -> bool:
        """Whether the claim loop and the lease renewal loop are running."""
        return not any(task.done() for task in self._tasks)

    @property
    def can_write(self) -> bool:
        """Whether no settle operation is waiting for a retry."""
        return not self._unsettled

    async def wait_for_change(self, timeout: float) -> None:
        """Wait up to *timeout* seconds for a delivery to be settled or for a claim that returns nothing."""
        self._changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._changed.wait()

    # --- claiming -----------------------------------------------------------------------------------------

    async def _claim_loop(self) -> None:
        while True:
            await self._wait_until(lambda: self._free_slots > 0 and self.can_write)
            leases = await self._claim()
            if leases:
                await self._start_all(leases)
            else:
                self._changed.set()
                self.dead_letters.flush_if_due()
            if leases is None:
                await asyncio.sleep(_RETRY_INTERVAL_SECONDS)
            elif not leases:
                await self._wait_for_work()

    @property
    def _free_slots(self) -> int:
        """
        How many more deliveries may be started.

        A delivery that is being settled needs no slot, so that the next claim shares a transaction with its ack. Twice
        the concurrency is the limit, because settle operations may take long.
        """
        return min(self.concurrency + len(self._settling), 2 * self.concurrency) - len(self._running)

    async def _claim(self) -> list[Lease] | None:
        """
        Claim deliveries for the free slots; return None if that fails.

        If the worker is stopped meanwhile, release them.
        """
        limit = self._free_slots
        claiming = asyncio.ensure_future(inbox_result(lambda: self.inbox.claim(limit, lease=self._lease_duration)))
        self._claiming = True
        try:
            leases = await asyncio.shield(claiming)
        except asyncio.CancelledError:
            with suppress(Exception):
                await self._release_all(await claiming)
            raise
        except Exception as error:  # noqa: BLE001  # a custom inbox may raise anything, and the worker must continue
            self.failed_claims.record(safe_message(error), _RETRY_INTERVAL_SECONDS)
            return None
        else:
            self.failed_claims.clear()
            return leases
        finally:
            self._claiming = False

    async def _wait_for_work(self) -> None:
        try:
            await inbox_result(lambda: self.inbox.wait(_MAX_WAIT_SECONDS))
        except Exception:  # noqa: BLE001  # the next claim fails for the same reason and logs it
            await asyncio.sleep(_RETRY_INTERVAL_SECONDS)

    async def _start_all(self, leases: Sequence[Lease]) -> None:
        if not self.can_write:
            # A settle operation failed during the claim; nothing is started until the inbox accepts writes again.
            await self._release_all(leases)
        elif leases[0].crashes >= SUSPECT_CRASHES:
            await self._run_isolated(leases[0])
        else:
            for lease in leases:
                self._start(lease)

    async def _run_isolated(self, lease: Lease) -> None:
        """Wait for running handlers, then run a delivery that may crash the process while nothing else runs."""
        claiming = self._tasks[0]
        self._running[claiming] = lease  # so that the lease is extended during the wait
        try:
            await self._wait_until(lambda: len(self._running) == 1)
        except asyncio.CancelledError:
            await self._release_all([lease])
            raise
        finally:
            del self._running[claiming]
        self._start(lease)
        await self._wait_until(lambda: not self._running)

    async def _release_all(self, leases: Sequence[Lease]) -> None:
        """Release leases that were not started. A lease that cannot be released expires on its own."""
        for lease in leases:
            with suppress(Exception):
                await inbox_result(partial(self.inbox.release, lease))

    def _start(self, lease: Lease) -> None:
        task = asyncio.create_task(self._handle(lease))
        self._running[task] = lease
        task.add_done_callback(self._finish)

    def _finish(self, task: asyncio.Task[None]) -> None:
        id = self._running.pop(task).id
        self._settling.discard(id)
        self._unsettled.discard(id)
        self._changed.set()

    async def _wait_until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    # --- leases -------------------------------------------------------------------------------------------

    @property
    def _lease_duration(self) -> float:
        return self.lease_seconds or max(_MIN_LEASE_SECONDS, 2 * (self.handler_timeout or 0))

    async def _renew_leases_loop(self) -> None:
        """Extend all leases each time a third of the lease duration has passed."""
        while True:
            await asyncio.sleep(self._lease_duration / 3)
            for task, lease in list(self._running.items()):
                if self._needs_lease(task, lease) and not await self._extend(lease) and self._needs_lease(task, lease):
                    _log.warning("lost the lease of delivery %s; another worker may handle it too", lease.id)

    def _needs_lease(self, task: asyncio.Task[None], lease: Lease) -> bool:
        return task in self._running and lease.id not in self._settling

    async def _extend(self, lease: Lease) -> bool:
        """Extend a lease; return False if it was lost, True also if the inbox failed: two thirds are left to retry."""
        try:
            return await inbox_result(lambda: self.inbox.extend(lease, self._lease_duration))
        except Exception as error:  # noqa: BLE001  # a custom inbox may raise anything, and the worker must continue
            interval = self._lease_duration / 3
            _log.error(
                "cannot extend the lease of delivery %s, retrying in %g s: %s", lease.id, interval, safe_message(error)
            )
            return True

    # --- handling -----------------------------------------------------------------------------------------

    async def _handle(self, lease: Lease) -> None:
        record = AttemptRecord(lease.delivery, lease.id, lease.attempt)
        with self.observers.attempt(record):
            outcome = await self._outcome(lease, record)
            record.reason = outcome.reason
            record.outcome = outcome.name if await self._settle_with_retry(lease, outcome) else "lost"

    async def _outcome(self, lease: Lease, record: AttemptRecord) -> Outcome:
        if lease.crashes >= _MAX_CRASHES:
            return Outcome.dead_letter(f"{lease.crashes} processes crashed while handling it")
        completed = set(lease.completed)
        try:
            return await self._parse_and_dispatch(lease, completed, record)
        except NotificationError as error:
            return Outcome.dead_letter(str(error))
        except HandlerErrors as errors:
            record.exceptions = exceptions_by_name(errors)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # no exception may lose the delivery
            if self._stopping and isinstance(error, asyncio.CancelledError):
                return Outcome.release(frozenset(completed))
            record.exceptions = {"(unknown)": error}
        return self._outcome_after_failure(record.exceptions, lease, frozenset(completed))

    async def _parse_and_dispatch(self, lease: Lease, completed: set[str], record: AttemptRecord) -> Outcome:
        event = record.event = parse(lease.delivery.body, lease.delivery.content_type)
        if not await user_result("known_subscriptions", self.subscriptions.allows, event.subscription_id):
            return Outcome.dead_letter(f"subscription {event.subscription_id} is not in known_subscriptions")
        self.counts["unknown"] += isinstance(event, UnknownNotification) and lease.attempt == 1
        await self.router.dispatch(
            event,
            skip=lease.completed,
            handler_timeout=self.handler_timeout,
            completed=completed,
            around=self.observers.handler(record),
        )
        return Outcome.ack(event_key(event)) if completed else self._outcome_without_handler(event)

    def _outcome_without_handler(self, event: Notification) -> Outcome:
        self.counts["unhandled"] += 1
        if self.ignores_unhandled:
            self.unhandled_log.record(event)
            return Outcome.ignore(event_key(event))
        return Outcome.dead_letter(f"no handler matches {type(event).__name__}")

    def _outcome_after_failure(self, failures: Failures, lease: Lease, completed: frozenset[str]) -> Outcome:
        self.counts["failed"] += 1
        outcome = self._retry_or_dead_letter(failures, lease, completed)
        attempt = f"delivery {lease.id}, attempt {lease.attempt} of {self.retry.max_attempts}"
        self.failure_log.log_handlers(
            failures, f"{attempt}, {outcome.next_step}", delivery_id=lease.id, attempt=lease.attempt
        )
        return outcome

    def _retry_or_dead_letter(self, failures: Failures, lease: Lease, completed: frozenset[str]) -> Outcome:
        for name, error in failures.items():
            if isinstance(error, Reject):
                return Outcome.dead_letter(rejection_reason(error, name))
        reason = failure_reason(failures)
        if lease.attempt < self.retry.max_attempts:
            return Outcome.nack(self.retry.delay(lease.attempt, self.random()), completed, reason)
        if lease.attempt == 1:
            return Outcome.dead_letter(f"the only attempt failed: {reason}")
        return Outcome.dead_letter(f"{lease.attempt} attempts failed, the last with {reason}")

    # --- settling -----------------------------------------------------------------------------------------

    async def _settle_with_retry(self, lease: Lease, outcome: Outcome) -> bool:
        """Settle a delivery, retrying until the inbox accepts the outcome; return False if the lease was lost."""
        self._settling.add(lease.id)
        self._changed.set()
        while True:
            try:
                return await self._settle(lease, outcome)
            except Exception as error:  # noqa: BLE001  # a custom inbox may raise anything, and the worker must continue
                if lease.id not in self._unsettled:
                    _log.error(
                        "cannot %s delivery %s, retrying every %g s: %s",
                        *(outcome.operation, lease.id, _RETRY_INTERVAL_SECONDS, safe_message(error)),
                    )
                # Handlers whose outcome cannot be written would run again, so nothing more is started meanwhile.
                self._unsettled.add(lease.id)
                await asyncio.sleep(_RETRY_INTERVAL_SECONDS)

    async def _settle(self, lease: Lease, outcome: Outcome) -> bool:
        if not await inbox_result(lambda: outcome.settle(self.inbox, lease)):
            _log.warning(
                "cannot %s delivery %s: its lease was lost; another worker handles it", outcome.operation, lease.id
            )
            return False
        if outcome.name == "handled":
            self.counts["handled"] += 1
        if outcome.name == "dead":
            await self._report_dead_letter(lease, outcome.reason)
        return True

    async def _report_dead_letter(self, lease: Lease, reason: str) -> None:
        self.counts["dead"] += 1
        self.dead_letters.record(lease.id, reason)
        if self.on_dead_letter is None:
            return
        try:
            entry = await inbox_result(lambda: self.inbox.get(lease.id))
        except Exception as error:  # noqa: BLE001  # a custom inbox may raise anything, and the delivery is settled
            _log.error("cannot read dead letter %s, not calling on_dead_letter: %s", lease.id, safe_message(error))
            return
        if entry is not None:
            await self._call_on_dead_letter(self.on_dead_letter, entry)

    async def _call_on_dead_letter(self, on_dead_letter: OnDeadLetter, entry: InboxEntry) -> None:
        try:
            await user_result("on_dead_letter", on_dead_letter, entry)
        except HandlerErrors as errors:
            (error,) = exceptions_by_name(errors).values()
            self.failure_log.log(
                "on_dead_letter", error, f"delivery {entry.id} remains a dead letter", delivery_id=entry.id
            )


async def _cancel_and_wait(tasks: Iterable[asyncio.Task[None]]) -> None:
    cancelled = list(tasks)
    for task in cancelled:
        task.cancel()
    await _wait_for_tasks(cancelled)


async def _wait_for_tasks(tasks: Collection[asyncio.Task[None]], timeout: float | None = None) -> None:
    if tasks:
        await asyncio.wait(tasks, timeout=timeout)
