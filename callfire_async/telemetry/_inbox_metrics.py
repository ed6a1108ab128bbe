"""Gauges of an inbox: deliveries by state, and the age of the oldest one that is due."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager

from attrs import frozen
from opentelemetry.metrics import CallbackOptions, Meter, Observation

from callfire_async.notifications.inbox.base import InboxStats
from callfire_async.notifications.receiver import ReceiverStats

__all__ = ["InboxMetrics"]

_REFRESH_SECONDS = 5.0
# Limits the load on an inbox in which counting is slow: counting takes at most 2 % of the time.
_MAX_COUNTING_RATIO = 0.02
# A snapshot that is older than this many refreshes is not reported.
_MAX_AGE_REFRESHES = 3


@frozen
class _Snapshot:
    stats: InboxStats
    expires_at: float


class InboxMetrics:
    """
    Count an inbox in the receiver's event loop, and report the latest counts from any thread.

    OpenTelemetry's callbacks read a snapshot and never wait for the event loop, because they may run in the loop's own
    thread, or while it stops. If the snapshot is too old, or counting failed, nothing is reported.
    """

    def __init__(
        self,
        stats: Callable[[], Awaitable[ReceiverStats]],
        meter: Meter,
        *,
        refresh_seconds: float = _REFRESH_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stats = stats
        self._refresh_seconds = refresh_seconds
        self._clock = clock
        self._snapshot: _Snapshot | None = None
        meter.create_observable_gauge(
            "callfire.inbox.deliveries", [self._observe_deliveries], "{delivery}", "Deliveries in the inbox, by state."
        )
        meter.create_observable_gauge(
            "callfire.inbox.oldest_ready.age",
            [self._observe_oldest_age],
            "s",
            "Time for which the oldest ready delivery has been due; 0 if no delivery is ready.",
        )

    @asynccontextmanager
    async def refreshing(self) -> AsyncIterator[None]:
        """Refresh the counts periodically inside the context."""
        task = asyncio.create_task(self._refresh_loop())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            self._snapshot = None

    async def _refresh_loop(self) -> None:
        while True:
            started = self._clock()
            stats = await self._count()
            finished = self._clock()
            pause = max(self._refresh_seconds, (finished - started) / _MAX_COUNTING_RATIO)
            self._snapshot = None if stats is None else _Snapshot(stats, finished + _MAX_AGE_REFRESHES * pause)
            await asyncio.sleep(pause)

    async def _count(self) -> InboxStats | None:
        try:
            return (await self._stats()).inbox
        except Exception:  # noqa: BLE001  # a user's own inbox may raise anything; the missing gauges show the failure
            return None

    def _current_stats(self) -> InboxStats | None:
        snapshot = self._snapshot
        return None if snapshot is None or self._clock() > snapshot.expires_at else snapshot.stats

    def _observe_deliveries(self, _: CallbackOptions) -> Iterable[Observation]:
        stats = self._current_stats()
        if stats is None:
            return
        for state in ("ready", "delayed", "leased", "done", "dead"):
            yield Observation(getattr(stats, state), {"callfire.inbox.state": state})

    def _observe_oldest_age(self, _: CallbackOptions) -> Iterable[Observation]:
        stats = self._current_stats()
        if stats is not None:
            yield Observation(stats.oldest_ready_age or 0.0)
