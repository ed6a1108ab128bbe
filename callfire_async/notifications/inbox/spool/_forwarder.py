"""
What empties a spool into the inbox that it stands in for.

It imports `errors`, `dead_letters`, the protocol and the primary as a spool sees it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TypeAlias

from callfire_async.errors import InboxError, InboxUnavailableError
from callfire_async.notifications._dead_letter_log import DeadLetterLog
from callfire_async.notifications.inbox.base import Inbox, Lease
from callfire_async.notifications.inbox.spool._circuit_breaker import (
    CLOSING_SECONDS,
    CircuitBreaker,
    ended,
    safe_message,
)

__all__ = ["SpoolForwarder"]

Sleep: TypeAlias = Callable[[float], Awaitable[None]]

_log = logging.getLogger("callfire_async.inbox")

_BATCH = 100
# A spool has one owner, and whoever opens it next ends all its leases: within a process they need no end.
_HELD_SECONDS = 365 * 86400.0
_IDLE_SECONDS = 30.0
# However long an outage was, its end is noticed within this.
_LONGEST_PAUSE_SECONDS = 30.0
_MOST_REFUSALS = 5
# Doubled with each refusal: a minute or so in all, in which a primary that was full may have been emptied.
_REFUSED_SECONDS = 5.0
_FOR_EVER = datetime.max.replace(tzinfo=UTC)


class SpoolForwarder:
    """
    Opens the primary as soon as it can be opened, and sends it what is spooled, in order of arrival.

    What the primary has is deleted from the spool, and not before. What it is sent is held until then, so that nothing
    overtakes it; only what is held when this is stopped, or killed, comes after what came later. All of this is one
    task, which opens the primary and closes it.

    Args:
        spool: What is emptied; it is open.
        primary: What is sent to.
        operation_timeout: Seconds for the primary to take what it is sent.
        recovery_timeout: Seconds after a failure until the next attempt; doubled with each failure in a row.
        sleep: Lets time pass.
    """

    def __init__(
        self, spool: Inbox, primary: CircuitBreaker, *, operation_timeout: float, recovery_timeout: float, sleep: Sleep
    ) -> None:
        self._spool = spool
        self._primary = primary
        self._operation_timeout = operation_timeout
        self._recovery_timeout = recovery_timeout
        self._sleep = sleep
        self._pause_seconds = recovery_timeout
        self._dead_letters = DeadLetterLog()
        self._held: list[Lease] = []
        self._was_taken = False

    # --- lifecycle ----------------------------------------------------------------------------------------

    async def start(self, wait: float) -> None:
        """Begin; wait so many seconds for the primary to be opened, and let that go on where they do not suffice."""
        self._tried, self._stopping = asyncio.Event(), asyncio.Event()
        self._pause_seconds = self._recovery_timeout
        self._primary.renew()
        self._task = asyncio.create_task(self._run())
        try:
            async with asyncio.timeout(wait):
                await self._tried.wait()
        except TimeoutError:
            self._primary.log_not_open(f"it has taken more than {wait:g} s")
        except asyncio.CancelledError:
            await self.stop(0)
            raise

    async def stop(self, grace: float) -> None:
        """Send what is spooled, for so many seconds and as far as the primary takes it; then close the primary."""
        self._stopping.set()
        if self._primary.is_open:
            await asyncio.wait([self._task], timeout=grace)
        # It bounds by itself how long closing takes; this is for an inbox that cannot be interrupted.
        await ended([self._task], 3 * CLOSING_SECONDS)

    def note_taken(self) -> None:
        """Note that the primary takes deliveries from others: what it does not take from here is to blame itself."""
        self._was_taken = True

    async def _run(self) -> None:
        try:
            await self._open()
            await self._keep_forwarding()
        finally:
            await self._put_back()
            if self._primary.is_open:
                await self._primary.close()
            self._dead_letters.flush()

    async def _open(self) -> None:
        while not await self._primary.open():
            self._tried.set()
            await self._pause()
        self._tried.set()

    async def _put_back(self) -> None:
        held, self._held = self._held, []
        # Where it fails, the next start makes them ready.
        with suppress(Exception):
            await _all(self._spool.release(lease) for lease in held)

    def held_ages(self) -> list[float]:
        """Return for how many seconds each delivery has waited that is about to be sent."""
        now = datetime.now(UTC)
        return [max(0.0, (now - lease.delivery.received_at).total_seconds()) for lease in self._held]

    # --- going on -----------------------------------------------------------------------------------------

    async def _keep_forwarding(self) -> None:
        while True:
            went_on = await self._try()
            self._dead_letters.flush_if_due()
            if not went_on:
                if self._stopping.is_set():
                    return
                await self._wait()

    async def _try(self) -> bool:
        """Forward, or find out that it cannot be done now. False: there is nothing to do, or no time for more."""
        is_last = self._stopping.is_set()
        try:
            went_on = await self._forward()
        except Exception as error:  # noqa: BLE001  # either may be the user's own; what is spooled is kept
            if self._primary.is_reachable:
                _log.error("what is spooled cannot be forwarded now: %s", safe_message(error))
            await self._pause()
            return not is_last
        self._pause_seconds = self._recovery_timeout
        return went_on

    async def _pause(self) -> None:
        """Let the primary be, longer each time; not where this is being stopped."""
        seconds = self._pause_seconds
        self._pause_seconds = min(2 * seconds, max(_LONGEST_PAUSE_SECONDS, self._recovery_timeout))
        await wait_any(self._stopping.wait(), self._sleep(seconds))

    async def _wait(self) -> None:
        """Wait until there is something to forward, or to find out."""
        self._primary.lost.clear()
        # It may have been lost since it was last asked.
        if self._primary.is_reachable:
            await wait_any(self._stopping.wait(), self._primary.lost.wait(), self._spool.wait(_IDLE_SECONDS))

    # --- forwarding ---------------------------------------------------------------------------------------

    async def _forward(self) -> bool:
        """Send what comes next; find out first how a primary is that has failed. False: there is nothing to do."""
        if not self._primary.is_well:
            await self._probe()
        self._held += await self._spool.claim(_BATCH - len(self._held), lease=_HELD_SECONDS)
        if not self._held:
            return False
        try:
            await self._send(self._held)
        except InboxError:
            # Whether it is away, or full, or does not take one of these, only shows one by one.
            await self._send_each()
        else:
            await self._forget(self._held)
        return True

    async def _probe(self) -> None:
        await self._primary.probe(lambda primary: primary.stats(), self._operation_timeout)

    async def _send(self, leases: Sequence[Lease]) -> None:
        deliveries = [lease.delivery for lease in leases]
        await self._primary.probe(lambda primary: primary.append_many(deliveries), self._operation_timeout)

    async def _forget(self, leases: Sequence[Lease]) -> None:
        """Delete what the primary has."""
        await _all(self._spool.ack(lease) for lease in leases)
        self._held = [lease for lease in self._held if lease not in leases]
        # With its key: whether a repeat makes a dead letter ready again, only the primary can tell.
        await self._spool.purge(done_before=_FOR_EVER)

    async def _send_each(self) -> None:
        """Send one by one; note what a primary refuses that takes others."""
        await self._probe()
        was_taken, self._was_taken = self._was_taken, False
        failed: list[tuple[Lease, InboxError]] = []
        for lease in list(self._held):
            try:
                await self._send([lease])
            except InboxError as error:
                failed.append((lease, error))
                await self._probe()
            else:
                was_taken = True
                await self._forget([lease])
        refused = [one for one in failed if was_taken or not isinstance(one[1], InboxUnavailableError)]
        for lease, refusal in refused:
            await self._note_refusal(lease, safe_message(refusal))
        if failed and not refused:
            raise failed[0][1]

    async def _note_refusal(self, lease: Lease, words: str) -> None:
        self._held.remove(lease)
        if lease.attempt < _MOST_REFUSALS:
            delay = _REFUSED_SECONDS * 2 ** (lease.attempt - 1)
            await self._spool.nack(lease, delay=delay, reason=words)
            return
        reason = f"the primary inbox refused it {lease.attempt} times, at last: {words}"
        await self._spool.dead_letter(lease, reason)
        self._dead_letters.record(f"spool/{lease.id}", reason)


async def _all(settling: Iterable[Awaitable[bool]]) -> None:
    """Settle leases in one go: an inbox commits together what is asked together."""
    for settled in await asyncio.gather(*settling, return_exceptions=True):
        if isinstance(settled, BaseException):
            raise settled


async def wait_any(*events: Awaitable[object]) -> None:
    """Wait until one of these is over; what it has raised will show again."""
    waits = [asyncio.ensure_future(event) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waits:
            one.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
