"""Forwarding of spooled deliveries to the primary inbox, in the background."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TypeAlias

from attrs import evolve

from callfire_async.errors import InboxError, InboxUnavailableError
from callfire_async.notifications._dead_letter_log import DeadLetterLog
from callfire_async.notifications.inbox._cancellation import CANCEL_SECONDS, cancel_all
from callfire_async.notifications.inbox.base import Delivery, Inbox, Lease, safe_message, wait_any
from callfire_async.notifications.inbox.spool._circuit_breaker import CLOSE_TIMEOUT_SECONDS, CircuitBreaker

__all__ = ["SpoolForwarder"]

Sleep: TypeAlias = Callable[[float], Awaitable[None]]

_log = logging.getLogger("callfire_async.inbox")

_BATCH_SIZE = 100
# Only one process owns a spool, and the next one to open it ends all leases: no lease needs to expire.
_LEASE_SECONDS = 365 * 86400.0
_IDLE_WAIT_SECONDS = 30.0
# The end of an outage is noticed within this time, however long it lasted.
_MAX_BACKOFF_SECONDS = 30.0
_MAX_REJECTIONS = 5
# Doubled with each rejection, to 75 s in all: time to free space in a primary that is full.
_REJECTION_DELAY_SECONDS = 5.0
_MAX_TIME = datetime.max.replace(tzinfo=UTC)


class SpoolForwarder:
    """
    Open the primary as soon as possible, and forward spooled deliveries to it in order of arrival.

    A delivery is deleted from the spool after the primary has stored it. Until then it is leased, so that no later
    delivery overtakes it; the order is lost only for deliveries that are leased when the forwarder stops or the process
    crashes. One background task does all of this, from opening the primary to closing it.

    Args:
        spool: The spool, which must be open.
        breaker: The primary.
        operation_timeout: Seconds for the primary to store a batch.
        recovery_timeout: Seconds between a failure and the next attempt; doubled with each consecutive failure.
        sleep: Called to wait between attempts.
    """

    def __init__(
        self, spool: Inbox, breaker: CircuitBreaker, *, operation_timeout: float, recovery_timeout: float, sleep: Sleep
    ) -> None:
        self._spool = spool
        self._breaker = breaker
        self._operation_timeout = operation_timeout
        self._recovery_timeout = recovery_timeout
        self._sleep = sleep
        self._dead_letters = DeadLetterLog()
        self._leases: list[Lease] = []
        self._has_primary_accepted = False
        #: The envelopes of spooled deliveries by key. The spool does not store them, so after a restart an event of an
        #: envelope makes its dead letter in the primary ready.
        self._envelope_ids: dict[str, int | str] = {}

    # --- lifecycle ----------------------------------------------------------------------------------------

    async def start(self, timeout: float) -> None:
        """Start the task, and wait up to *timeout* seconds for the first attempt to open the primary."""
        self._tried, self._stopping = asyncio.Event(), asyncio.Event()
        self._backoff_seconds = self._recovery_timeout
        self._breaker.reset()
        self._task = asyncio.create_task(self._run())
        try:
            async with asyncio.timeout(timeout):
                await self._tried.wait()
        except TimeoutError:
            self._breaker.log_not_open(f"not open after {timeout:g} s")
        except asyncio.CancelledError:
            await self.stop(0)
            raise

    async def stop(self, drain_timeout: float) -> None:
        """Forward for up to *drain_timeout* seconds, as long as the primary is available; then close the primary."""
        self._stopping.set()
        try:
            if self._breaker.is_primary_open:
                await asyncio.wait([self._task], timeout=drain_timeout)
        finally:
            # Once: after its cancellation the task closes the primary, in limited time.
            if await cancel_all([self._task], CLOSE_TIMEOUT_SECONDS + 2 * CANCEL_SECONDS):
                _log.error("cannot close the primary inbox, which ignores cancellation, ignoring it")

    def record_accepted(self) -> None:
        """Record that the primary stored a new delivery: a delivery that it rejects meanwhile is itself the cause."""
        self._has_primary_accepted = True

    def record_spooled(self, deliveries: Iterable[Delivery]) -> None:
        """Record the envelopes of deliveries that are about to be spooled."""
        for delivery in deliveries:
            self._envelope_ids.pop(delivery.key, None)
            if delivery.envelope_id is not None:
                self._envelope_ids[delivery.key] = delivery.envelope_id

    def leased_ages(self) -> list[float]:
        """Return the age in seconds of each delivery that is being forwarded."""
        now = datetime.now(UTC)
        return [max(0.0, (now - lease.delivery.received_at).total_seconds()) for lease in self._leases]

    async def _run(self) -> None:
        try:
            await self._open()
            await self._forward_all()
        finally:
            await self._release_leases()
            if self._breaker.is_primary_open:
                await self._breaker.close()
            self._dead_letters.flush()

    async def _open(self) -> None:
        while not await self._breaker.open():
            self._tried.set()
            await self._back_off()
        self._tried.set()

    async def _release_leases(self) -> None:
        leases, self._leases = self._leases, []
        # If this fails, the next start makes them ready.
        with suppress(Exception):
            await _settle_all(self._spool.release(lease) for lease in leases)

    # --- run loop -----------------------------------------------------------------------------------------

    async def _forward_all(self) -> None:
        while True:
            is_busy = await self._try_forward()
            self._dead_letters.flush_if_due()
            if not is_busy:
                if self._stopping.is_set():
                    return
                await self._wait_for_work()

    async def _try_forward(self) -> bool:
        """Forward a batch, or back off. Return whether to try again at once."""
        is_last_attempt = self._stopping.is_set()
        try:
            is_busy = await self._forward()
        except Exception as error:  # noqa: BLE001  # either inbox may be the user's; the deliveries stay spooled
            self._log_failure(safe_message(error))
            await self._back_off()
            return not is_last_attempt
        self._backoff_seconds = self._recovery_timeout
        return is_busy

    def _log_failure(self, message: str) -> None:
        # The circuit breaker has logged an outage.
        if not self._breaker.is_in_outage:
            _log.error("cannot forward spooled deliveries, retrying in %g s: %s", self._backoff_seconds, message)

    async def _back_off(self) -> None:
        """Wait before the next attempt, twice as long each time; return early when stopping."""
        seconds = self._backoff_seconds
        self._backoff_seconds = min(2 * seconds, max(_MAX_BACKOFF_SECONDS, self._recovery_timeout))
        await wait_any(self._stopping.wait(), self._sleep(seconds))

    async def _wait_for_work(self) -> None:
        """Wait until there may be deliveries to forward, or the breaker has opened and needs a probe."""
        self._breaker.tripped.clear()
        # The breaker may have opened since the primary was last called.
        if self._breaker.is_closed:
            await wait_any(self._stopping.wait(), self._breaker.tripped.wait(), self._spool.wait(_IDLE_WAIT_SECONDS))

    # --- forwarding ---------------------------------------------------------------------------------------

    async def _forward(self) -> bool:
        """Forward the next batch, after a probe if the last call failed. Return whether there was one."""
        if self._breaker.has_failed:
            await self._probe()
        await self._claim()
        if not self._leases:
            if not self._breaker.has_failed:
                self._breaker.end_outage()
            return False
        try:
            await self._send(self._leases)
        except InboxError:
            # The cause may be the primary or one of the deliveries: sending each on its own shows which.
            await self._send_each()
        else:
            await self._delete(self._leases)
        return True

    async def _claim(self) -> None:
        try:
            # At least one: the others may be those that the primary does not store.
            limit = max(1, _BATCH_SIZE - len(self._leases))
            self._leases += await self._spool.claim(limit, lease=_LEASE_SECONDS)
        except Exception:
            # The primary may store deliveries, which the spool does not.
            self._breaker.end_outage()
            raise

    async def _probe(self) -> None:
        await self._breaker.probe(lambda primary: primary.stats(), self._operation_timeout)

    async def _send(self, leases: Sequence[Lease]) -> None:
        deliveries = [self._to_forward(lease.delivery) for lease in leases]
        await self._breaker.probe(lambda primary: primary.append_many(deliveries), self._operation_timeout)
        self._breaker.end_outage()

    def _to_forward(self, delivery: Delivery) -> Delivery:
        return evolve(delivery, envelope_id=self._envelope_ids.get(delivery.key))

    async def _delete(self, leases: Sequence[Lease]) -> None:
        for lease in leases:
            self._envelope_ids.pop(lease.delivery.key, None)
        await _settle_all(self._spool.ack(lease) for lease in leases)
        self._leases = [lease for lease in self._leases if lease not in leases]
        # Delete the keys too: a repeat must reach the primary, which may have to revive a dead letter.
        await self._spool.purge(done_before=_MAX_TIME)

    async def _send_each(self) -> None:
        """Send each delivery on its own; record a rejection if the primary stores others, raise if it stores none."""
        await self._probe()
        has_accepted, self._has_primary_accepted = self._has_primary_accepted, False
        results = [(lease, await self._send_one(lease)) for lease in list(self._leases)]
        failed = [(lease, error) for lease, error in results if error is not None]
        await self._record_failures(failed, has_accepted=has_accepted or len(failed) < len(results))

    async def _send_one(self, lease: Lease) -> InboxError | None:
        """Forward one delivery; return the error if the primary is available but did not store it."""
        try:
            await self._send([lease])
        except InboxError as error:
            await self._probe()
            return error
        await self._delete([lease])
        return None

    async def _record_failures(self, failed: Sequence[tuple[Lease, InboxError]], *, has_accepted: bool) -> None:
        rejected = [
            (lease, error) for lease, error in failed if has_accepted or not isinstance(error, InboxUnavailableError)
        ]
        for lease, error in rejected:
            await self._record_rejection(lease, safe_message(error))
        if failed and not rejected:
            raise failed[0][1]

    async def _record_rejection(self, lease: Lease, message: str) -> None:
        self._leases.remove(lease)
        if lease.attempt < _MAX_REJECTIONS:
            delay = _REJECTION_DELAY_SECONDS * 2 ** (lease.attempt - 1)
            await self._spool.nack(lease, delay=delay, reason=message)
            return
        reason = f"the primary inbox rejected the delivery {lease.attempt} times, most recently: {message}"
        await self._spool.dead_letter(lease, reason)
        self._dead_letters.record(f"spool/{lease.id}", reason)


async def _settle_all(operations: Iterable[Awaitable[bool]]) -> None:
    """Settle leases concurrently, so that an inbox can commit them together; raise the first error."""
    for result in await asyncio.gather(*operations, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
