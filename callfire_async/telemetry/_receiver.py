"""
What a receiver does, as spans and measurements in the words of OpenTelemetry's messaging conventions.

Attributes of measurements have few values, all of them chosen by the library or by whoever wrote the handlers: what a
sender chooses (an id, a number, the name of a root) is none. It imports the receiver and what stands above it.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from datetime import UTC, datetime
from time import perf_counter

from attrs import define, field, frozen
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Histogram, Meter, MeterProvider, Observation, get_meter
from opentelemetry.trace import (
    Link,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    Tracer,
    TracerProvider,
    get_current_span,
    get_tracer,
)

from callfire_async.client.connection import own_version
from callfire_async.notifications.inbox.base import InboxStats
from callfire_async.notifications.observers import AttemptRecord, Observer, RequestRecord
from callfire_async.notifications.receiver import Receiver, ReceiverStats
from callfire_async.telemetry._common import SCOPE, Attributes, class_name

__all__ = ["instrument_receiver"]

_SYSTEM: Attributes = {"messaging.system": "callfire"}
_RECEIVE: Attributes = _SYSTEM | {"messaging.operation.name": "receive", "messaging.operation.type": "receive"}
_PROCESS: Attributes = _SYSTEM | {"messaging.operation.name": "process"}
# The receiver does not know where an application has put it.
_ROUTE = "/{token}"
_METHODS = frozenset(["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"])

# The boundaries that the conventions ask for.
_BUCKETS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
# From the age of what is handled at once to that of what was tried again for a day.
_AGE_BUCKETS_SECONDS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 43200.0, 86400.0)
_ATTEMPT_BUCKETS = (1, 2, 3, 4, 6, 8, 12)

_REFRESH_SECONDS = 5.0
# Counting may take so large a part of an inbox's time, however much it holds.
_COUNTING_SHARE = 0.02
# What was counted so many refreshes ago is not reported any more.
_FRESH_REFRESHES = 3
# So many deliveries that wait are linked to the requests that brought them; about 3 MB.
_MOST_LINKS = 10_000


def instrument_receiver(
    receiver: Receiver,
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
) -> None:
    """
    Report each request, each attempt at a delivery and each run of a handler to OpenTelemetry.

    A request is a span, with an inbox the handling of its delivery is another one that links to it, and each handler
    is a child of that. What the inbox holds is counted every five seconds, less often where that takes long; where it
    cannot be counted, nothing is reported of it. No measurement has an id, and nothing at all has a token, a number, a
    text or a body.

    Args:
        receiver: The receiver, before it is started. To instrument it twice is to report twice.
        tracer_provider: Where spans go; OpenTelemetry's global one unless given.
        meter_provider: Where measurements go; likewise.

    Raises:
        RuntimeError: It runs already.
    """
    if receiver.is_running:
        raise RuntimeError("instrument a receiver before it is started")
    tracer = get_tracer(SCOPE, own_version(), tracer_provider)
    meter = get_meter(SCOPE, own_version(), meter_provider)
    receiver.observe(_ReceiverTelemetry(tracer, meter, InboxMetrics(receiver.stats, meter)))


def _durations(meter: Meter, name: str, description: str) -> Histogram:
    return meter.create_histogram(
        name, unit="s", description=description, explicit_bucket_boundaries_advisory=_BUCKETS_SECONDS
    )


class _ReceiverTelemetry(Observer):
    """Tells of one receiver."""

    def __init__(self, tracer: Tracer, meter: Meter, gauges: InboxMetrics) -> None:
        self._tracer = tracer
        self._gauges = gauges
        self._origins = RequestSpanLinks()
        self._requests = _durations(
            meter, "callfire.receiver.request.duration", "Duration of requests, until they were answered."
        )
        self._processed = _durations(
            meter, "messaging.process.duration", "Duration of attempts at handling a delivery."
        )
        self._handlers = _durations(meter, "callfire.receiver.handler.duration", "Duration of runs of handlers.")
        self._ages = meter.create_histogram(
            "callfire.receiver.delivery.age",
            unit="s",
            description="Age of deliveries when they were handled, or buried.",
            explicit_bucket_boundaries_advisory=_AGE_BUCKETS_SECONDS,
        )
        self._attempts = meter.create_histogram(
            "callfire.receiver.delivery.attempts",
            unit="{attempt}",
            description="Attempts that it took until deliveries were handled, or buried.",
            explicit_bucket_boundaries_advisory=_ATTEMPT_BUCKETS,
        )

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Have the inbox counted meanwhile."""
        async with self._gauges.refreshing():
            yield

    @contextmanager
    def request(self, record: RequestRecord) -> Iterator[None]:
        """Report a request."""
        method = record.method if record.method in _METHODS else "_OTHER"
        asked: Attributes = {"http.request.method": method, "http.route": _ROUTE}
        # A server's span is there already where the framework is instrumented too.
        kind = SpanKind.INTERNAL if get_current_span().get_span_context().is_valid else SpanKind.SERVER
        name = f"{'HTTP' if method == '_OTHER' else method} {_ROUTE}"
        with self._span(name, kind, _RECEIVE | asked) as span:
            self._origins.begin(record, span.get_span_context())
            started = perf_counter()
            try:
                yield
            finally:
                answered = _answered(record)
                self._requests.record(perf_counter() - started, asked | answered)
                span.set_attributes(answered | _known(record))
                if record.reply is not None and record.reply.status >= 500:
                    span.set_status(StatusCode.ERROR)
                self._origins.end(record)

    @contextmanager
    def attempt(self, record: AttemptRecord) -> Iterator[None]:
        """Report an attempt at a delivery."""
        # Without an inbox it takes place inside the request. With one the worker's own context is that of whoever
        # has started the receiver, which is nobody's parent.
        kept = record.id is not None
        origin = self._origins.of(record.delivery.key) if kept else None
        with self._span(
            "process",
            SpanKind.CONSUMER if kept else SpanKind.INTERNAL,
            _PROCESS | {"messaging.operation.type": "process"},
            context=Context() if kept else None,
            links=[Link(origin)] if origin else (),
        ) as span:
            started = perf_counter()
            try:
                yield
            finally:
                self._report(record, span, perf_counter() - started)

    def _report(self, record: AttemptRecord, span: Span, seconds: float) -> None:
        kind, outcome = _event_type(record), record.outcome or "unsettled"
        came = kind | {"callfire.handling.outcome": outcome}
        failed: Attributes = {} if outcome in ("handled", "released") else {"error.type": outcome}
        self._processed.record(seconds, _PROCESS | came | failed)
        span.update_name(" ".join(["process", *map(str, kind.values())]))
        span.set_attributes(came | failed | _identified(record))
        if failed:
            span.set_status(StatusCode.ERROR, record.reason)
        if outcome in ("handled", "dead"):
            self._ages.record(_age_seconds(record), came)
            self._attempts.record(record.attempt, came)
        if outcome == "handled":
            self._origins.forget(record.delivery.key)

    @contextmanager
    def handler(self, record: AttemptRecord, handler: str) -> Iterator[None]:
        """Report a run of a handler."""
        attributes: Attributes = {"callfire.handler.name": handler, **_event_type(record)}
        with self._span(f"handle {handler}", SpanKind.INTERNAL, attributes) as span:
            started = perf_counter()
            try:
                yield
            except BaseException as error:
                attributes["error.type"] = class_name(error)
                span.set_attribute("error.type", attributes["error.type"])
                span.set_status(StatusCode.ERROR)
                raise
            finally:
                self._handlers.record(perf_counter() - started, attributes)

    def _span(
        self,
        name: str,
        kind: SpanKind,
        attributes: Attributes,
        *,
        context: Context | None = None,
        links: Sequence[Link] = (),
    ) -> AbstractContextManager[Span]:
        return self._tracer.start_as_current_span(
            name,
            context=context,
            kind=kind,
            attributes=attributes,
            links=links,
            # What is raised inside is the users' own, and may quote a number or a message.
            record_exception=False,
            set_status_on_exception=False,
        )


# --- what is said of each ---------------------------------------------------------------------------------


def _answered(record: RequestRecord) -> Attributes:
    """Say what came of a request, in words of which there are few."""
    if record.reply is None:
        return {"callfire.request.outcome": "cancelled"}
    status: Attributes = {"http.response.status_code": record.reply.status}
    if record.refused is not None:
        return status | {"callfire.request.outcome": "refused", "error.type": record.refused}
    if record.reply.status >= 500:
        return status | {"callfire.request.outcome": "failed", "error.type": "failed"}
    repeated = record.appended is not None and record.appended.duplicate
    return status | {"callfire.request.outcome": "duplicate" if repeated else "accepted"}


def _known(record: RequestRecord) -> Attributes:
    """Say what is this request's own."""
    known: Attributes = {}
    if record.delivery is not None:
        known["messaging.message.body.size"] = len(record.delivery.body)
    if record.appended is not None:
        known["messaging.message.id"] = str(record.appended.id)
    return known


def _identified(record: AttemptRecord) -> Attributes:
    """Say what is this attempt's own."""
    known: Attributes = {
        "callfire.delivery.attempt": record.attempt,
        "messaging.message.body.size": len(record.delivery.body),
    }
    if record.id is not None:
        known["messaging.message.id"] = str(record.id)
    if record.event is not None and record.event.subscription_id is not None:
        # Whatever number a body says; as text it fits whoever keeps spans.
        known["callfire.subscription.id"] = str(record.event.subscription_id)
    return known


def _event_type(record: AttemptRecord) -> Attributes:
    # The class, not the root's name: that is whatever somebody has posted.
    return {} if record.event is None else {"callfire.event.type": type(record.event).__name__}


def _age_seconds(record: AttemptRecord) -> float:
    # The clock may have been set back since.
    return max(0.0, (datetime.now(UTC) - record.delivery.received_at).total_seconds())


# --- which request brought a delivery ---------------------------------------------------------------------


@define(eq=False)
class RequestSpanLinks:
    """
    The spans of the requests that brought the deliveries which wait, by the deliveries' keys.

    Only those of this process, and of the newest so many.
    """

    most: int = _MOST_LINKS
    _under_way: dict[RequestRecord, SpanContext] = field(factory=dict)
    _stored: OrderedDict[str, SpanContext] = field(factory=OrderedDict)

    def begin(self, record: RequestRecord, span: SpanContext) -> None:
        """Note a request; its delivery may be handled before it is answered."""
        if span.is_valid:
            self._under_way[record] = span

    def end(self, record: RequestRecord) -> None:
        """Remember the request as long as its delivery may be handled; a repeat has brought nothing."""
        span = self._under_way.pop(record, None)
        if span is None or record.delivery is None or record.appended is None or record.appended.duplicate:
            return
        self._stored[record.delivery.key] = span
        if len(self._stored) > self.most:
            self._stored.popitem(last=False)

    def of(self, key: str) -> SpanContext | None:
        """Return the request that brought a delivery, where it is known."""
        if key in self._stored:
            return self._stored[key]
        bringing = (span for one, span in self._under_way.items() if one.delivery and one.delivery.key == key)
        return next(bringing, None)

    def forget(self, key: str) -> None:
        """Forget what was handled."""
        self._stored.pop(key, None)


# --- what the inbox holds ---------------------------------------------------------------------------------


@frozen
class _Snapshot:
    stats: InboxStats
    good_until: float


class InboxMetrics:
    """
    What the inbox holds, counted in the receiver's event loop and told to whoever asks, in whatever thread.

    Who asks never waits for the loop: that could be asked by the loop itself, or while it stops. What is too old, and
    what could not be counted, is not told.
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
        self._sample: _Snapshot | None = None
        meter.create_observable_gauge(
            "callfire.inbox.deliveries", [self._deliveries], "{delivery}", "Deliveries in the inbox, by state."
        )
        meter.create_observable_gauge(
            "callfire.inbox.oldest_ready.age",
            [self._oldest],
            "s",
            "For how long the first of the deliveries that are due has waited; 0 where none waits.",
        )

    @asynccontextmanager
    async def refreshing(self) -> AsyncIterator[None]:
        """Count again and again meanwhile."""
        counting = asyncio.create_task(self._refresh_loop())
        try:
            yield
        finally:
            counting.cancel()
            await asyncio.wait([counting])
            self._sample = None

    async def _refresh_loop(self) -> None:
        while True:
            began = self._clock()
            stats = await self._counted()
            ended = self._clock()
            pause = max(self._refresh_seconds, (ended - began) / _COUNTING_SHARE)
            self._sample = None if stats is None else _Snapshot(stats, ended + _FRESH_REFRESHES * pause)
            await asyncio.sleep(pause)

    async def _counted(self) -> InboxStats | None:
        try:
            return (await self._stats()).inbox
        except Exception:  # noqa: BLE001  # the inbox may be the user's own; that it is not counted is seen
            return None

    def _current(self) -> InboxStats | None:
        sample = self._sample
        return None if sample is None or self._clock() > sample.good_until else sample.stats

    def _deliveries(self, _: CallbackOptions) -> Iterable[Observation]:
        stats = self._current()
        if stats is None:
            return
        for state in ("ready", "delayed", "leased", "done", "dead"):
            yield Observation(getattr(stats, state), {"callfire.inbox.state": state})

    def _oldest(self, _: CallbackOptions) -> Iterable[Observation]:
        stats = self._current()
        if stats is not None:
            yield Observation(stats.oldest_ready_age or 0.0)
