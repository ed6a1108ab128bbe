"""Claims deliveries from an inbox, parses and dispatches them, and settles each one."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial

from attrs import define, field

from callfire_async.errors import HandlerErrors, NotificationError
from callfire_async.notifications._dead_letter_log import DeadLetterLog
from callfire_async.notifications.attempt import around_attempt
from callfire_async.notifications.events import Notification, UnknownNotification, event_key
from callfire_async.notifications.inbox import _cancellation
from callfire_async.notifications.inbox._cancellation import StopProgress
from callfire_async.notifications.inbox.base import SUSPECT_CRASHES, Inbox, Lease, safe_message, wait_for_event
from callfire_async.notifications.observers import AttemptRecord, _CompositeObserver
from callfire_async.notifications.parsing import parse_or_split
from callfire_async.notifications.retry import Outcome, RetryPolicy, outcome_after_failure
from callfire_async.notifications.routing._failures import FailureLog, Failures, UnhandledEventLog
from callfire_async.notifications.routing._user_code import exceptions_by_name, inbox_result
from callfire_async.notifications.routing.router import Router
from callfire_async.notifications.worker._dead_letter_callback import OnDeadLetter, report_dead_letter
from callfire_async.notifications.worker._envelope_splitter import store_events
from callfire_async.notifications.worker._failed_claim_log import FailedClaimLog
from callfire_async.notifications.worker._known_sources import KnownSources
from callfire_async.notifications.worker._work_in_progress import WorkInProgress

__all__ = ["Worker"]

_log = logging.getLogger("callfire_async.worker")

# Up to two crashes may be caused by another delivery; later attempts run in isolation, so those crashes are its own.
_MAX_CRASHES = 4
_MIN_LEASE_SECONDS = 60.0
# How long to wait for an inbox that reports no new work before the next claim.
_MAX_WAIT_SECONDS = 30.0
_RETRY_INTERVAL_SECONDS = 1.0
# How long a stop waits, after the shutdown timeout, until each delivery is settled or released.
SETTLE_SECONDS = 2.5


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
    known_sources: KnownSources
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
    _work: WorkInProgress = field(factory=WorkInProgress)
    #: Ids of the deliveries whose last settle operation failed.
    _unsettled: set[int | str] = field(factory=set)
    #: The claim loop and the lease renewal loop.
    _tasks: list[asyncio.Task[None]] = field(factory=list)
    _changed: asyncio.Event = field(factory=asyncio.Event)
    #: Set when a stop is about to give up: each delivery is settled or released now, with one attempt.
    _giving_up: asyncio.Event = field(factory=asyncio.Event)
    _claiming: bool = False
    _can_claim: bool = True
    _stopping: bool = False

    # --- lifecycle ----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start claiming and handling deliveries."""
        self._stopping = False
        # An event belongs to one event loop; a restart may run in another.
        self._changed, self._giving_up = asyncio.Event(), asyncio.Event()
        # The last stop may have left some work behind.
        self._work, self._unsettled = WorkInProgress(), set()
        if self.concurrency:
            renewal = self._work.renew_leases(self.inbox, self._lease_duration)
            self._tasks = [asyncio.create_task(loop) for loop in (self._claim_loop(), renewal)]

    async def stop(self, progress: StopProgress) -> None:
        """
        Stop claiming, wait for running handlers up to the shutdown timeout, then settle or release each delivery.

        The last step takes up to ``SETTLE_SECONDS``; a lease that remains expires on its own. A cancelled stop does not
        wait for handlers.
        """
        self._stopping = True
        async with AsyncExitStack() as steps:
            steps.callback(self._describe_unfinished, progress.unfinished)
            steps.push_async_callback(self._cancel_tasks)
            steps.push_async_callback(self._give_up)
            for task in self._tasks[:1]:
                task.cancel()
            seconds = 0.0 if progress.is_cancelled else self.shutdown_timeout
            await _cancellation.wait_for_tasks(self._work.running, seconds)

    async def _give_up(self) -> None:
        """Cancel the handlers, and make a last attempt to settle or release each delivery."""
        self._giving_up.set()
        for task, lease in self._work.running.items():
            if lease.id not in self._work.settling and task not in self._tasks:
                task.cancel()
        await _cancellation.wait_for_tasks({*self._tasks[:1], *self._work.running}, SETTLE_SECONDS)

    async def _cancel_tasks(self) -> None:
        self._work.has_ended = True
        await _cancellation.cancel_repeatedly([*self._tasks, *self._work.running])

    def _describe_unfinished(self, unfinished: list[str]) -> None:
        self.dead_letters.flush()
        if self._claiming:
            self._work.interrupted.append("claim")
        unfinished += self._work.describe()

    @property
    def is_busy(self) -> bool:
        """Whether handlers run or wait to run, or deliveries are being claimed."""
        return bool(self._work.running) or self._claiming

    @property
    def is_working(self) -> bool:
        """Whether the claim loop and the lease renewal loop are running."""
        return not any(task.done() for task in self._tasks)

    @property
    def can_write(self) -> bool:
        """Whether no settle operation is waiting for a retry."""
        return not self._unsettled

    @property
    def can_claim(self) -> bool:
        """Whether the inbox returns deliveries: its last operation for new work has not failed."""
        return self._can_claim

    async def wait_for_change(self, timeout: float) -> None:
        """Wait up to *timeout* seconds for a delivery to be settled or for a claim that returns nothing."""
        self._changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._changed.wait()

    # --- claiming -----------------------------------------------------------------------------------------

    async def _claim_loop(self) -> None:
        work = self._work
        # Also checked, because an inbox may ignore the cancellation of this loop.
        while not (self._stopping or work.has_ended):
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
        return min(self.concurrency + len(self._work.settling), 2 * self.concurrency) - len(self._work.running)

    async def _claim(self) -> Sequence[Lease] | None:
        """Claim deliveries for the free slots, and release them if the worker stops; return None if that fails."""
        claiming = asyncio.create_task(self._claim_from_inbox())
        self._claiming = True
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            with suppress(Exception):
                await self._release_all(await claiming)
            raise
        except Exception as error:  # noqa: BLE001  # a custom inbox may raise anything, and the worker must continue
            self.failed_claims.record(safe_message(error), _RETRY_INTERVAL_SECONDS)
            return None
        finally:
            self._claiming = False

    async def _claim_from_inbox(self) -> Sequence[Lease]:
        limit, lease_end = self._free_slots, self._work.clock.seconds() + self._lease_duration
        try:
            leases = await inbox_result(lambda: self.inbox.claim(limit, lease=self._lease_duration))
        except asyncio.CancelledError:
            self._work.interrupted.append("claim")
            raise
        except Exception:
            self._can_claim = False
            raise
        self._can_claim = True
        self.failed_claims.clear()
        return await self._work.add(self.inbox, leases, lease_end, self._lease_duration)

    async def _wait_for_work(self) -> None:
        try:
            await inbox_result(lambda: self.inbox.wait(_MAX_WAIT_SECONDS))
        except Exception:  # noqa: BLE001  # the next claim fails for the same reason and logs it
            self._can_claim = False
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
        self._work.running[claiming] = lease  # so that the lease is extended during the wait
        try:
            await self._wait_until(lambda: len(self._work.running) == 1)
        except asyncio.CancelledError:
            await self._release_all([lease])
            raise
        finally:
            self._work.running.pop(claiming, None)
        self._start(lease)
        await self._wait_until(lambda: not self._work.running)

    async def _release_all(self, leases: Sequence[Lease]) -> None:
        """Release leases that were not started. A lease that cannot be released expires on its own."""
        for lease in leases:
            with suppress(Exception):
                await inbox_result(partial(self.inbox.release, lease))
                self._work.remove(lease)

    def _start(self, lease: Lease) -> None:
        task = asyncio.create_task(self._handle(lease))
        self._work.running[task] = lease
        task.add_done_callback(self._finish)

    def _finish(self, task: asyncio.Task[None]) -> None:
        lease = self._work.running.pop(task, None)
        if lease is None:
            return  # of a run before the last start
        self._work.settling.discard(lease.id)
        self._unsettled.discard(lease.id)
        if not self._stopping:
            self._work.remove(lease)
        self._changed.set()

    async def _wait_until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    @property
    def _lease_duration(self) -> float:
        return self.lease_seconds or max(_MIN_LEASE_SECONDS, 2 * (self.handler_timeout or 0))

    # --- handling -----------------------------------------------------------------------------------------

    async def _handle(self, lease: Lease) -> None:
        record = AttemptRecord(lease.delivery, lease.id, lease.attempt)
        with self.observers.attempt(record):
            outcome = await self._outcome(lease, record)
            record.reason = outcome.reason
            record.outcome = await self._settle_with_retry(lease, outcome)

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
        parsed = parse_or_split(lease.delivery.body, lease.delivery.content_type)
        if isinstance(parsed, tuple):
            return await store_events(self.inbox, lease, parsed)
        event = record.event = parsed
        if unknown := await self.known_sources.find_unknown(event, self._work.naming(lease)):
            return Outcome.dead_letter(unknown)
        self.counts["unknown"] += isinstance(event, UnknownNotification) and lease.attempt == 1
        observed = self._work.around_handlers(lease, self.observers.handler(record))
        await self.router.dispatch(
            event,
            skip=lease.completed,
            handler_timeout=self.handler_timeout,
            completed=completed,
            around=around_attempt(observed, event, self.inbox, lease, self._work.end_of(lease)),
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
        outcome = outcome_after_failure(failures, lease.attempt, completed, self.retry, self.random)
        attempt = f"delivery {lease.id}, attempt {lease.attempt} of {self.retry.max_attempts}"
        self.failure_log.log_handlers(
            failures, f"{attempt}, {outcome.next_step}", delivery_id=lease.id, attempt=lease.attempt
        )
        return outcome

    # --- settling -----------------------------------------------------------------------------------------

    async def _settle_with_retry(self, lease: Lease, outcome: Outcome) -> str | None:
        """
        Settle a delivery, retrying until the inbox accepts the outcome, or a stop gives up.

        Returns:
            The outcome's name; "lost" if the lease was lost; None if the delivery could not be settled.
        """
        if asyncio.current_task() in self._work.running:  # otherwise it is of a run before the last start
            self._work.settling.add(lease.id)
        self._changed.set()
        while True:
            # A task that is cancelled without a stop belongs to an event loop that is about to be closed.
            is_last_attempt = self._giving_up.is_set() or _cancellation.count_cancellations() > 0
            try:
                return outcome.name if await self._settle(lease, outcome) else "lost"
            except Exception as error:  # noqa: BLE001  # a custom inbox may raise anything, and the worker must continue
                self._work.last_error = safe_message(error)
                if is_last_attempt:
                    return None
                self._record_unsettled(lease, outcome)
                await wait_for_event(self._giving_up, _RETRY_INTERVAL_SECONDS)

    def _record_unsettled(self, lease: Lease, outcome: Outcome) -> None:
        """Handlers whose outcome cannot be written would run again, so nothing more is started meanwhile."""
        if lease.id not in self._unsettled:
            _log.error(
                "cannot %s delivery %s, retrying every %g s: %s",
                *(outcome.operation, lease.id, _RETRY_INTERVAL_SECONDS, self._work.last_error),
            )
        self._unsettled.add(lease.id)

    async def _settle(self, lease: Lease, outcome: Outcome) -> bool:
        is_settled = await inbox_result(lambda: outcome.settle(self.inbox, lease))
        self._work.remove(lease)
        if not is_settled:
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
            await report_dead_letter(self.inbox, lease.id, self.on_dead_letter, self.handler_timeout, self.failure_log)
        except asyncio.CancelledError:
            self._work.interrupted.append(f"on_dead_letter of delivery {lease.id}")
            raise
