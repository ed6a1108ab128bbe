"""Functions that the instrumentations of the client and the receiver share."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.metrics import Histogram, Meter, MeterProvider, get_meter
from opentelemetry.trace import Tracer, TracerProvider, get_tracer

from callfire_async.client.connection import own_version

__all__ = ["Attributes", "create_histogram", "create_meter", "create_tracer", "error_type"]

Attributes = dict[str, str | int]

_SCOPE = "callfire_async"
# The boundaries that the semantic conventions specify.
_DURATION_BUCKETS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)


def create_tracer(provider: TracerProvider | None) -> Tracer:
    """Create the library's tracer, from the global provider if None is given."""
    return get_tracer(_SCOPE, own_version(), provider)


def create_meter(provider: MeterProvider | None) -> Meter:
    """Create the library's meter, from the global provider if None is given."""
    return get_meter(_SCOPE, own_version(), provider)


def create_histogram(
    meter: Meter,
    name: str,
    description: str,
    *,
    unit: str = "s",
    buckets: Sequence[float] = _DURATION_BUCKETS_SECONDS,
) -> Histogram:
    """Create a histogram; its default unit and buckets are those of a duration."""
    return meter.create_histogram(name, unit, description, explicit_bucket_boundaries_advisory=buckets)


def error_type(error: BaseException) -> str:
    """Return the value of ``error.type`` for an exception: the full name of its class."""
    return f"{type(error).__module__}.{type(error).__qualname__}"
