"""Spans and metrics of a client, by OpenTelemetry's HTTP conventions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from urllib.parse import urlsplit

from opentelemetry.metrics import Meter, MeterProvider
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, TracerProvider

from callfire_async._arguments import check_instance
from callfire_async.client import CallFire
from callfire_async.client._operations.operation import ResponseFormat
from callfire_async.client.connection import Connection, RequestAttempt
from callfire_async.errors import APIError, ResponseError, TransportError
from callfire_async.telemetry._common import Attributes, create_histogram, create_meter, create_tracer, error_type

__all__ = ["instrument_client"]

_PORTS = {"https": 443, "http": 80}


def instrument_client(
    callfire: CallFire,
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
) -> None:
    """
    Report each request attempt of a client to OpenTelemetry.

    An attempt is a span of kind client, which is current during the attempt, and a value of the histogram
    ``http.client.request.duration`` in seconds, which includes waiting for a connection. Both have the route
    (``/api/1.1/rest/subscription/{id}``, ``/v2/webhooks/{id}``); only the span's ``url.full`` has the id. Neither has
    credentials, the query or a body, and no header is added to requests.

    Args:
        callfire: The client. Views that `CallFire.with_options` creates afterwards report too. A second call replaces
            the providers of the first.
        tracer_provider: Provider for spans. Default: OpenTelemetry's global provider.
        meter_provider: Provider for metrics. Default: OpenTelemetry's global provider.

    Raises:
        TypeError: *callfire* is not a `CallFire`.
    """
    check_instance("callfire", callfire, CallFire, "CallFire()")
    connection = callfire._connection  # noqa: SLF001  # of this package
    telemetry = _ClientTelemetry(connection, create_tracer(tracer_provider), create_meter(meter_provider))
    connection._watch = telemetry.observe  # noqa: SLF001  # of this package


class _ClientTelemetry:
    """Report the attempts of one connection."""

    def __init__(self, connection: Connection, tracer: Tracer, meter: Meter) -> None:
        self._connection = connection
        self._response_format: ResponseFormat = connection._response_format  # noqa: SLF001  # of this package
        self._tracer = tracer
        self._duration = create_histogram(meter, "http.client.request.duration", "Duration of HTTP client requests.")

    @contextmanager
    def observe(self, attempt: RequestAttempt) -> Iterator[None]:
        """Report the attempt that is made inside the context."""
        attributes = self._request_attributes(attempt)
        with (
            self._tracer.start_as_current_span(
                f"{attributes['http.request.method']} {attributes['url.template']}",
                kind=SpanKind.CLIENT,
                attributes=attributes | self._span_attributes(attempt),
                # A recorded exception includes the messages of its causes, which may be private.
                record_exception=False,
                set_status_on_exception=False,
            ) as span,
            self._recording(attempt, attributes, span),
        ):
            yield

    @contextmanager
    def _recording(self, attempt: RequestAttempt, attributes: Attributes, span: Span) -> Iterator[None]:
        started = perf_counter()
        try:
            yield
        except BaseException as error:
            attributes["error.type"] = str(error.status_code) if isinstance(error, APIError) else error_type(error)
            span.set_status(StatusCode.ERROR, _status_description(error))
            raise
        finally:
            if attempt.status is not None:
                attributes["http.response.status_code"] = attempt.status
            span.set_attributes(attributes)
            self._duration.record(perf_counter() - started, attributes)

    def _request_attributes(self, attempt: RequestAttempt) -> Attributes:
        """Return the attributes that are equal for all requests of an operation."""
        base = urlsplit(self._connection.base_url_of(attempt.operation))
        return {
            "server.address": base.hostname or "",
            "server.port": base.port or _PORTS[base.scheme],
            "url.scheme": base.scheme,
            "http.request.method": attempt.operation.method,
            "url.template": base.path + attempt.operation.route,
        }

    def _span_attributes(self, attempt: RequestAttempt) -> Attributes:
        """Return the attributes of this request only."""
        operation = attempt.operation
        url = {"url.full": self._connection.base_url_of(operation) + operation.address(self._response_format)}
        return url | ({"http.request.resend_count": attempt.number - 1} if attempt.number > 1 else {})


def _status_description(error: BaseException) -> str | None:
    """Return the error's message; None for an API error, whose message is CallFire's, and for a foreign exception."""
    return str(error) if isinstance(error, TransportError | ResponseError) else None
