"""
What a client does, as spans and measurements in the words of OpenTelemetry's HTTP conventions.

It imports `client` and what stands above it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from urllib.parse import urlsplit

from opentelemetry.metrics import Meter, MeterProvider, get_meter
from opentelemetry.trace import SpanKind, StatusCode, Tracer, TracerProvider, get_tracer

from callfire_async.client import CallFire
from callfire_async.client._operations.operation import ResponseFormat
from callfire_async.client.connection import Connection, RequestAttempt, own_version
from callfire_async.errors import APIError, ResponseError, TransportError
from callfire_async.telemetry._common import SCOPE, Attributes, class_name

__all__ = ["instrument_client"]

# The boundaries that the conventions ask for.
_BUCKETS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_PORTS = {"https": 443, "http": 80}


def instrument_client(
    callfire: CallFire,
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
) -> None:
    """
    Report each attempt of each call of a client to OpenTelemetry.

    An attempt is a span of kind client, current while it lasts, and a value of the histogram
    ``http.client.request.duration``, in seconds, waiting for a connection included. Both bear the route
    (``/api/1.1/rest/subscription/{id}``); only the span's ``url.full`` has the id. Neither has credentials, the query,
    the form or a body, and nothing is added to what CallFire is sent.

    Args:
        callfire: The client; views that `CallFire.with_options` makes of it from now on report too. To instrument it
            again is to report to other providers instead.
        tracer_provider: Where spans go; OpenTelemetry's global one unless given.
        meter_provider: Where measurements go; likewise.
    """
    connection = callfire._connection  # noqa: SLF001  # our own
    tracer = get_tracer(SCOPE, own_version(), tracer_provider)
    meter = get_meter(SCOPE, own_version(), meter_provider)
    connection._watch = _ClientTelemetry(connection, tracer, meter).watch  # noqa: SLF001  # our own


class _ClientTelemetry:
    """What is told of the attempts of one connection."""

    def __init__(self, connection: Connection, tracer: Tracer, meter: Meter) -> None:
        self._base_url = connection._base_url  # noqa: SLF001  # our own
        self._response_format: ResponseFormat = connection._response_format  # noqa: SLF001  # our own
        base = urlsplit(self._base_url)
        self._base_path = base.path
        self._server: Attributes = {
            "server.address": base.hostname or "",
            "server.port": base.port or _PORTS[base.scheme],
            "url.scheme": base.scheme,
        }
        self._tracer = tracer
        self._duration = meter.create_histogram(
            "http.client.request.duration",
            unit="s",
            description="Duration of HTTP client requests.",
            explicit_bucket_boundaries_advisory=_BUCKETS_SECONDS,
        )

    @contextmanager
    def watch(self, attempt: RequestAttempt) -> Iterator[None]:
        """Report the attempt that takes place inside."""
        attributes = self._asked(attempt)
        with self._tracer.start_as_current_span(
            f"{attributes['http.request.method']} {attributes['url.template']}",
            kind=SpanKind.CLIENT,
            attributes=attributes | self._span_attributes(attempt),
            # It would tell the causes' messages, which are not ours.
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            started = perf_counter()
            try:
                yield
            except BaseException as error:
                attributes["error.type"] = _kind(error)
                span.set_status(StatusCode.ERROR, _description(error))
                raise
            finally:
                attributes |= _answered(attempt)
                span.set_attributes(attributes)
                self._duration.record(perf_counter() - started, attributes)

    def _asked(self, attempt: RequestAttempt) -> Attributes:
        """Say what is asked, alike for all requests of a kind."""
        return self._server | {
            "http.request.method": attempt.operation.method,
            "url.template": self._base_path + attempt.operation.route,
        }

    def _span_attributes(self, attempt: RequestAttempt) -> Attributes:
        """Say what is asked, as far as it is this request's own."""
        url = {"url.full": self._base_url + attempt.operation.address(self._response_format)}
        return url | ({"http.request.resend_count": attempt.number - 1} if attempt.number > 1 else {})


def _answered(attempt: RequestAttempt) -> Attributes:
    return {} if attempt.status is None else {"http.response.status_code": attempt.status}


def _kind(error: BaseException) -> str:
    """Name what went wrong in a word of which there are few."""
    if isinstance(error, APIError):
        return str(error.status_code)
    return class_name(error)


def _description(error: BaseException) -> str | None:
    """Put what went wrong in words, unless the status of the answer says it all."""
    return str(error) if isinstance(error, TransportError | ResponseError) else None
