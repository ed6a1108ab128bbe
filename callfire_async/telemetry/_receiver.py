"""
Spans and metrics of a receiver, by OpenTelemetry's messaging conventions.

The attributes of metrics have few values, all chosen by the library or by the author of the handlers. Nothing that a
sender chooses (an id, a number, the name of a root element) is an attribute of a metric.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from datetime import UTC, datetime
from time import perf_counter

from attrs import define, field
from opentelemetry.context import Context
from opentelemetry.metrics import Meter, MeterProvider
from opentelemetry.trace import (
    Link,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    Tracer,
    TracerProvider,
    get_current_span,
    use_span,
)

from callfire_async._arguments import check_instance
from callfire_async.notifications.observers import AttemptRecord, Observer, RequestRecord, has_failed
from callfire_async.notifications.receiver import Receiver
from callfire_async.telemetry._common import Attributes, create_histogram, create_meter, create_tracer, error_type
from callfire_async.telemetry._inbox_metrics import InboxMetrics

__all__ = ["instrument_receiver"]

_SYSTEM: Attributes = {"messaging.system": "callfire"}
_RECEIVE: Attributes = _SYSTEM | {"messaging.operation.name": "receive", "messaging.operation.type": "receive"}
_PROCESS: Attributes = _SYSTEM | {"messaging.operation.name": "process"}
# The path below which an application mounts the receiver is not known here.
_ROUTE = "/{token}"
_METHODS = frozenset(["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"])

# From deliveries that are handled at once to those that are retried for a day.
_AGE_BUCKETS_SECONDS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 43200.0, 86400.0)
_ATTEMPT_BUCKETS = (1, 2, 3, 4, 6, 8, 12)

# About 3 MB.
_MAX_LINKS = 10_000


def instrument_receiver(
    receiver: Receiver,
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
) -> None:
    """
    Report each request, each attempt at a delivery and each handler call to OpenTelemetry.

    A request is a span. With an inbox, each attempt at its delivery is a span in a trace of its own that links to the
    request; without an inbox it is a child of the request. Each handler call is a child of the attempt. The inbox is
    counted every five seconds, less often if counting is slow; if counting fails, the gauges are not reported. No
    metric has an id, and neither metrics nor spans have a token, a phone number, a text or a body.

    Args:
        receiver: The receiver, which must not be running. A second call reports everything twice.
        tracer_provider: Provider for spans. Default: OpenTelemetry's global provider.
        meter_provider: Provider for metrics. Default: OpenTelemetry's global provider.

    Raises:
        TypeError: *receiver* is not a `Receiver`.
        RuntimeError: The receiver is running.
    """
    check_instance("receiver", receiver, Receiver, "Receiver(router, tokens=tokens)")
    if receiver.is_running:
        raise RuntimeError("receiver is already running: call instrument_receiver before it is started")
    meter = create_meter(meter_provider)
    receiver.observe(_ReceiverTelemetry(create_tracer(tracer_provider), meter, InboxMetrics(receiver.stats, meter)))


class _ReceiverTelemetry(Observer):
    """Report one receiver."""

    def __init__(self, tracer: Tracer, meter: Meter, inbox_metrics: InboxMetrics) -> None:
        self._tracer = tracer
        self._inbox_metrics = inbox_metrics
        self._request_links = RequestSpanLinks()
        self._request_duration = create_histogram(
            meter, "callfire.receiver.request.duration", "Duration of requests, until the response."
        )
        self._attempt_duration = create_histogram(
            meter, "messaging.process.duration", "Duration of attempts at handling a delivery."
        )
        self._handler_duration = create_histogram(
            meter, "callfire.receiver.handler.duration", "Duration of handler calls."
        )
        self._delivery_age = create_histogram(
            meter,
            "callfire.receiver.delivery.age",
            "Age of deliveries when they were handled, or became dead letters.",
            buckets=_AGE_BUCKETS_SECONDS,
        )
        self._delivery_attempts = create_histogram(
            meter,
            "callfire.receiver.delivery.attempts",
            "Attempts until deliveries were handled, or became dead letters.",
            unit="{attempt}",
            buckets=_ATTEMPT_BUCKETS,
        )

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Count the inbox while the receiver runs."""
        async with self._inbox_metrics.refreshing():
            yield

    @contextmanager
    def request(self, record: RequestRecord) -> Iterator[None]:
        """Report a request."""
        method = record.method if record.method in _METHODS else "_OTHER"
        request: Attributes = {"http.request.method": method, "http.route": _ROUTE}
        # If the framework is instrumented too, the current span is its server span.
        kind = SpanKind.INTERNAL if _is_valid(get_current_span()) else SpanKind.SERVER
        name = f"{'HTTP' if method == '_OTHER' else method} {_ROUTE}"
        with self._span(name, kind, _RECEIVE | request) as span:
            self._request_links.begin(record, span.get_span_context())
            started = perf_counter()
            try:
                yield
            finally:
                self._report_request(record, span, perf_counter() - started, request)
                self._request_links.end(record)

    def _report_request(self, record: RequestRecord, span: Span, seconds: float, request: Attributes) -> None:
        response = _response_attributes(record)
        self._request_duration.record(seconds, request | response)
        span.set_attributes(response | _request_span_attributes(record))
        if record.reply is not None and record.reply.status >= 500:
            span.set_status(StatusCode.ERROR)

    @contextmanager
    def attempt(self, record: AttemptRecord) -> Iterator[None]:
        """Report an attempt at a delivery."""
        # Without an inbox the attempt is made inside the request. With one, the worker's context is that of the code
        # which started the receiver, so it must not become the parent.
        is_queued = record.id is not None
        link = self._request_links.of(record.delivery.key) if is_queued else None
        with self._span(
            "process",
            SpanKind.CONSUMER if is_queued else SpanKind.INTERNAL,
            _PROCESS | {"messaging.operation.type": "process"},
            context=Context() if is_queued else None,
            links=[Link(link)] if link else (),
        ) as span:
            started = perf_counter()
            try:
                yield
            finally:
                self._report_attempt(record, span, perf_counter() - started)

    def _report_attempt(self, record: AttemptRecord, span: Span, seconds: float) -> None:
        event_type, outcome = _event_type(record), record.outcome or "unsettled"
        attributes = event_type | {"callfire.handling.outcome": outcome}
        error: Attributes = {"error.type": outcome} if has_failed(record) else {}
        self._attempt_duration.record(seconds, _PROCESS | attributes | error)
        span.update_name(" ".join(["process", *map(str, event_type.values())]))
        span.set_attributes(attributes | error | _attempt_span_attributes(record))
        if error:
            span.set_status(StatusCode.ERROR, record.reason)
        if outcome in ("handled", "dead"):
            self._delivery_age.record(_age_seconds(record), attributes)
            self._delivery_attempts.record(record.attempt, attributes)
        if outcome == "handled":
            self._request_links.discard(record.delivery.key)

    @contextmanager
    def handler(self, record: AttemptRecord, handler: str) -> Iterator[None]:
        """Report a handler call."""
        attributes: Attributes = {"callfire.handler.name": handler, **_event_type(record)}
        with self._span(f"handle {handler}", SpanKind.INTERNAL, attributes) as span:
            started = perf_counter()
            try:
                yield
            except BaseException as error:
                attributes["error.type"] = error_type(error)
                span.set_attribute("error.type", attributes["error.type"])
                span.set_status(StatusCode.ERROR)
                raise
            finally:
                self._handler_duration.record(perf_counter() - started, attributes)

    def _span(
        self,
        name: str,
        kind: SpanKind,
        attributes: Attributes,
        *,
        context: Context | None = None,
        links: Sequence[Link] = (),
    ) -> AbstractContextManager[Span]:
        # The message of a handler's exception may contain a phone number or a text.
        options = {"record_exception": False, "set_status_on_exception": False}
        span = self._tracer.start_span(name, context=context, kind=kind, attributes=attributes, links=links, **options)
        if not (_is_valid(span) or _is_valid(get_current_span())):
            # There are metrics only; making three empty spans current would cost as much as a histogram.
            return nullcontext(span)
        return use_span(span, end_on_exit=True, **options)


def _is_valid(span: Span) -> bool:
    return span.get_span_context().is_valid


# --- attributes -------------------------------------------------------------------------------------------


def _response_attributes(record: RequestRecord) -> Attributes:
    """Return the status and the outcome of a request, for metrics and spans."""
    if record.reply is None:
        return {"callfire.request.outcome": "cancelled"}
    status: Attributes = {"http.response.status_code": record.reply.status}
    if record.refused is not None:
        return status | {"callfire.request.outcome": "refused", "error.type": record.refused}
    if record.reply.status >= 500:
        return status | {"callfire.request.outcome": "failed", "error.type": "failed"}
    is_duplicate = record.appended is not None and record.appended.duplicate
    return status | {"callfire.request.outcome": "duplicate" if is_duplicate else "accepted"}


def _request_span_attributes(record: RequestRecord) -> Attributes:
    """Return the attributes of one request, for its span only."""
    attributes: Attributes = {}
    if record.delivery is not None:
        attributes["messaging.message.body.size"] = len(record.delivery.body)
    if record.appended is not None:
        attributes["messaging.message.id"] = str(record.appended.id)
    return attributes


def _attempt_span_attributes(record: AttemptRecord) -> Attributes:
    """Return the attributes of one attempt, for its span only."""
    attributes: Attributes = {
        "callfire.delivery.attempt": record.attempt,
        "messaging.message.body.size": len(record.delivery.body),
    }
    if record.id is not None:
        attributes["messaging.message.id"] = str(record.id)
    if record.event is not None:
        ids = {"subscription": record.event.subscription_id, "webhook": record.event.webhook_id}
        # As text, because the number in a body may exceed the 64 bits of an integer attribute.
        attributes |= {f"callfire.{kind}.id": str(id) for kind, id in ids.items() if id is not None}
    return attributes


def _event_type(record: AttemptRecord) -> Attributes:
    # The class, because the sender chooses the name of the root element.
    return {} if record.event is None else {"callfire.event.type": type(record.event).__name__}


def _age_seconds(record: AttemptRecord) -> float:
    # The system clock may have been set back since the delivery was received.
    return max(0.0, (datetime.now(UTC) - record.delivery.received_at).total_seconds())


# --- links ------------------------------------------------------------------------------------------------


@define(eq=False)
class RequestSpanLinks:
    """
    Store the request spans of unhandled deliveries, by the deliveries' keys.

    Only requests of this process are known, and only the most recent *limit* of them.
    """

    limit: int = _MAX_LINKS
    _active: dict[RequestRecord, SpanContext] = field(factory=dict)
    _stored: OrderedDict[str, SpanContext] = field(factory=OrderedDict)

    def begin(self, record: RequestRecord, span: SpanContext) -> None:
        """Add a request; its delivery may be handled before the response is sent."""
        if span.is_valid:
            self._active[record] = span

    def end(self, record: RequestRecord) -> None:
        """Store the span of a finished request if the request added a delivery."""
        span = self._active.pop(record, None)
        if span is None or record.delivery is None or record.appended is None or record.appended.duplicate:
            return
        self._stored[record.delivery.key] = span
        if len(self._stored) > self.limit:
            self._stored.popitem(last=False)

    def of(self, key: str) -> SpanContext | None:
        """Return the span of the request that stored a delivery, or the envelope of which it is an event, if known."""
        # The worker adds a slash and a number to the key of an envelope.
        return self._find(key) or self._find(key.rpartition("/")[0])

    def _find(self, key: str) -> SpanContext | None:
        if key in self._stored:
            return self._stored[key]
        matching = (span for record, span in self._active.items() if record.delivery and record.delivery.key == key)
        return next(matching, None)

    def discard(self, key: str) -> None:
        """Remove the span of a delivery that has been handled."""
        self._stored.pop(key, None)
