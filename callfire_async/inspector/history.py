"""The most recent deliveries in memory, and counts for each second of the last minute."""

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

MAX_ITEMS = 1000
# A thousand bodies of the maximum size would take a gigabyte.
MAX_BODY_BYTES = 32 * 1024 * 1024
SECONDS = 60
# Enough for a percentile, whatever the load.
_MAX_LATENCIES_PER_SECOND = 500


@define(eq=False)
class HandlerRun:
    """One run of a handler."""

    name: str
    seconds: float | None = None
    #: The name of the exception's class.
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
    """One delivery, or one refused request."""

    received_at: datetime
    #: ``waiting``, ``running``, ``handled``, ``failed``, ``dead``, ``refused``, ``duplicate``, …
    outcome: str
    delivery: Delivery | None = None
    #: The inbox's id.
    id: int | str | None = None
    event: Notification | None = None
    #: Whether the body is an envelope of several events, which become deliveries of their own, unless it is too large.
    has_several_events: bool = False
    #: Why the body is not a notification, or cannot be split; safe to print.
    parse_error: str = ""
    reason: str = ""
    #: The status of the response.
    status: int | None = None
    response_seconds: float | None = None
    attempts: list[Attempt] = field(factory=list)
    #: The size of the body in bytes, even if the body has been dropped.
    body_size: int = 0
    #: The position in order of arrival, starting at 1.
    number: int = 0
    #: The history's version at the last change.
    version: int = 0

    @property
    def body(self) -> bytes:
        """The body; empty if it has been dropped."""
        return b"" if self.delivery is None else self.delivery.body


@define(eq=False)
class _Bucket:
    """The counts of one second."""

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
    The most recent deliveries.

    Readers poll for the changes since a version, so a slow reader needs no buffer.
    """

    max_items: int = MAX_ITEMS
    max_body_bytes: int = MAX_BODY_BYTES
    clock: Callable[[], float] = time.time
    #: A random name: versions and numbers of another history mean nothing in this one.
    id: str = field(factory=lambda: secrets.token_hex(4))
    version: int = 0
    _last_number: int = 0
    _body_bytes: int = 0
    #: By number, in order of change.
    _changed: OrderedDict[int, DeliveryView] = field(factory=OrderedDict)
    #: By number, in order of arrival.
    _items: OrderedDict[int, DeliveryView] = field(factory=OrderedDict)
    #: By number, the items that have their bodies.
    _bodies: OrderedDict[int, tuple[DeliveryView, Delivery]] = field(factory=OrderedDict)
    _by_id: dict[int | str, DeliveryView] = field(factory=dict)
    _buckets: OrderedDict[int, _Bucket] = field(factory=OrderedDict)

    # --- changes ------------------------------------------------------------------------------------------

    def add(self, item: DeliveryView) -> DeliveryView:
        """Add an item; remove the oldest one if there are too many."""
        self._last_number += 1
        item.number = self._last_number
        self._items[item.number] = item
        if item.id is not None and item.outcome != "duplicate":
            self._by_id[item.id] = item
        if item.delivery is not None:
            self._add_body(item, item.delivery)
        self.touch(item)
        while len(self._items) > self.max_items:
            self._remove(self._items.popitem(last=False)[1])
        return item

    def touch(self, item: DeliveryView) -> None:
        """Mark an item as changed."""
        if item.number in self._items:
            self.version += 1
            item.version = self.version
            self._changed[item.number] = item
            self._changed.move_to_end(item.number)

    def _add_body(self, item: DeliveryView, delivery: Delivery) -> None:
        item.body_size = item.body_size or len(delivery.body)
        self._bodies[item.number] = item, delivery
        self._body_bytes += len(delivery.body)
        while self._body_bytes > self.max_body_bytes:
            self._drop_body(*self._bodies.popitem(last=False)[1])

    def _drop_body(self, item: DeliveryView, delivery: Delivery) -> None:
        self._body_bytes -= len(delivery.body)
        item.delivery = evolve(delivery, body=b"")
        item.event = None if item.event is None else evolve(item.event, payload={})

    def _remove(self, item: DeliveryView) -> None:
        del self._changed[item.number]
        with_body = self._bodies.pop(item.number, None)
        if with_body is not None:
            self._drop_body(*with_body)
        if item.id is not None and self._by_id.get(item.id) is item:
            del self._by_id[item.id]

    # --- queries ------------------------------------------------------------------------------------------

    def get(self, number: int) -> DeliveryView | None:
        """Return the item with a number."""
        return self._items.get(number)

    def by_id(self, id: int | str) -> DeliveryView | None:
        """Return the item with an inbox's id."""
        return self._by_id.get(id)

    def changed_since(self, version: int) -> list[DeliveryView]:
        """Return the items that have changed since a version, in order of arrival."""
        newest_first = reversed(self._changed.values())
        changed: Iterator[DeliveryView] = takewhile(lambda item: item.version > version, newest_first)
        return sorted(changed, key=lambda item: item.number)

    # --- the last minute ----------------------------------------------------------------------------------

    def count_received(self, at: float | None = None) -> None:
        """Count a received delivery."""
        self._bucket(at).received += 1

    def count_settled(self, seconds: float, *, failed: bool, at: float | None = None) -> None:
        """Count a delivery that was handled, or has failed, *seconds* after it was received."""
        bucket = self._bucket(at)
        bucket.failed += failed
        if not failed and len(bucket.latencies) < _MAX_LATENCIES_PER_SECOND:
            bucket.latencies.append(seconds)

    def _bucket(self, at: float | None) -> _Bucket:
        second = int(self.clock() if at is None else at)
        bucket = self._buckets.setdefault(second, _Bucket())
        while len(self._buckets) > 2 * SECONDS:
            self._buckets.popitem(last=False)
        return bucket

    def last_minute(self) -> list[tuple[int, int, float | None]]:
        """Return received, failed and the 95th percentile of the latency for each of the last 60 seconds."""
        now = int(self.clock())
        buckets = (self._buckets.get(second, _Bucket()) for second in range(now - SECONDS + 1, now + 1))
        return [(bucket.received, bucket.failed, bucket.percentile) for bucket in buckets]
