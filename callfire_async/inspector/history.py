"""The last deliveries, each with all that is known of it, and how many there were in each of the last seconds."""

from __future__ import annotations

import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import takewhile

from attrs import define, evolve, field

from callfire_async.notifications.events import Notification
from callfire_async.notifications.inbox.base import Delivery

__all__ = ["Attempt", "DeliveryHistory", "DeliveryView", "HandlerRun"]

MOST_ITEMS = 1000
# The bodies of large ones go first: a thousand of the largest would be a gigabyte.
MOST_BODY_BYTES = 32 * 1024 * 1024
SECONDS = 60
# Enough for a percentile, and no more however many there are.
_LATENCIES_A_SECOND = 500


@define(eq=False)
class HandlerRun:
    """One run of a handler."""

    name: str
    seconds: float | None = None
    #: The class of what it raised.
    error: str | None = None


@define(eq=False)
class Attempt:
    """One attempt at a delivery."""

    number: int
    outcome: str | None = None
    reason: str = ""
    seconds: float | None = None
    runs: list[HandlerRun] = field(factory=list)


@define(eq=False)
class DeliveryView:
    """One delivery, or one request that was refused."""

    at: datetime
    #: Why it is as it is: ``waiting``, ``running``, ``handled``, ``failed``, ``dead``, ``refused``, ``duplicate``, …
    outcome: str
    delivery: Delivery | None = None
    #: As the inbox knows it.
    id: int | str | None = None
    event: Notification | None = None
    #: Why the body is no notification, in words that are safe to print.
    unreadable: str = ""
    reason: str = ""
    #: What was answered, and after how many seconds.
    status: int | None = None
    answer_seconds: float | None = None
    attempts: list[Attempt] = field(factory=list)
    #: How large the body was, which may be gone.
    size: int = 0
    #: The inspector's own, from 1, in order of arrival.
    number: int = 0
    #: When it last changed, as a count of changes.
    version: int = 0

    @property
    def body(self) -> bytes:
        """What was posted; empty where it is not held."""
        return b"" if self.delivery is None else self.delivery.body


@define(eq=False)
class _Bucket:
    """What happened within one second."""

    received: int = 0
    failed: int = 0
    latencies: list[float] = field(factory=list)

    @property
    def percentile(self) -> float | None:
        ordered = sorted(self.latencies)
        return ordered[math.ceil(0.95 * len(ordered)) - 1] if ordered else None


@define(eq=False)
class DeliveryHistory:
    """
    The last thousand deliveries.

    Whoever shows them asks for what has changed since a version; so nothing gathers for those who do not ask.
    """

    most: int = MOST_ITEMS
    most_bytes: int = MOST_BODY_BYTES
    clock: Callable[[], float] = time.time
    #: Unlike that of any other: what was said of another is no more.
    name: str = field(factory=lambda: secrets.token_hex(4))
    version: int = 0
    _added: int = 0
    _bytes: int = 0
    #: By number, in order of change.
    _items: OrderedDict[int, DeliveryView] = field(factory=OrderedDict)
    #: By number, in order of arrival.
    _arrived: OrderedDict[int, DeliveryView] = field(factory=OrderedDict)
    #: By number, those whose bodies are held.
    _held: OrderedDict[int, tuple[DeliveryView, Delivery]] = field(factory=OrderedDict)
    _by_id: dict[int | str, DeliveryView] = field(factory=dict)
    _seconds: OrderedDict[int, _Bucket] = field(factory=OrderedDict)

    # --- keeping ------------------------------------------------------------------------------------------

    def add(self, item: DeliveryView) -> DeliveryView:
        """Keep one more, and forget the oldest of too many."""
        self._added += 1
        item.number = self._added
        self._arrived[item.number] = item
        if item.id is not None and item.outcome != "duplicate":
            self._by_id[item.id] = item
        if item.delivery is not None:
            self._hold(item, item.delivery)
        self.touch(item)
        while len(self._arrived) > self.most:
            self._forget(self._arrived.popitem(last=False)[1])
        return item

    def touch(self, item: DeliveryView) -> None:
        """Note that one has changed."""
        if item.number in self._arrived:
            self.version += 1
            item.version = self.version
            self._items[item.number] = item
            self._items.move_to_end(item.number)

    def _hold(self, item: DeliveryView, delivery: Delivery) -> None:
        item.size = item.size or len(delivery.body)
        self._held[item.number] = item, delivery
        self._bytes += len(delivery.body)
        while self._bytes > self.most_bytes:
            self._drop(*self._held.popitem(last=False)[1])

    def _drop(self, item: DeliveryView, delivery: Delivery) -> None:
        self._bytes -= len(delivery.body)
        item.delivery = evolve(delivery, body=b"")
        item.event = None if item.event is None else evolve(item.event, payload={})

    def _forget(self, item: DeliveryView) -> None:
        del self._items[item.number]
        held = self._held.pop(item.number, None)
        if held is not None:
            self._drop(*held)
        if item.id is not None and self._by_id.get(item.id) is item:
            del self._by_id[item.id]

    # --- asking -------------------------------------------------------------------------------------------

    def get(self, number: int) -> DeliveryView | None:
        """Return one by its number."""
        return self._arrived.get(number)

    def by_id(self, id: int | str) -> DeliveryView | None:
        """Return one by the inbox's id."""
        return self._by_id.get(id)

    def changed_since(self, version: int) -> list[DeliveryView]:
        """Return what has changed since a version, in order of arrival."""
        changed: Iterator[DeliveryView] = takewhile(lambda item: item.version > version, reversed(self._items.values()))
        return sorted(changed, key=lambda item: item.number)

    # --- the last minute ----------------------------------------------------------------------------------

    def note_received(self, at: float | None = None) -> None:
        """Count one that came."""
        self._second(at).received += 1

    def note_settled(self, seconds: float, *, failed: bool, at: float | None = None) -> None:
        """Count one that was handled, that long after it came, or has failed."""
        second = self._second(at)
        second.failed += failed
        if not failed and len(second.latencies) < _LATENCIES_A_SECOND:
            second.latencies.append(seconds)

    def _second(self, at: float | None) -> _Bucket:
        number = int(self.clock() if at is None else at)
        second = self._seconds.setdefault(number, _Bucket())
        while len(self._seconds) > 2 * SECONDS:
            self._seconds.popitem(last=False)
        return second

    def minute(self) -> list[tuple[int, int, float | None]]:
        """Return, for each of the last seconds, how many came, how many failed, and the 95th percentile's latency."""
        now = int(self.clock())
        seconds = (self._seconds.get(number, _Bucket()) for number in range(now - SECONDS + 1, now + 1))
        return [(second.received, second.failed, second.percentile) for second in seconds]
