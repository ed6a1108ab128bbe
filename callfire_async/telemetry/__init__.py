"""
OpenTelemetry, put on from outside: what a client and a receiver do, as spans and measurements.

Needs the extra ``otel``. It imports `client`, the receiver and what stands above them, and OpenTelemetry; nothing else
of the package imports that.
"""

from callfire_async.telemetry._client import instrument_client
from callfire_async.telemetry._receiver import instrument_receiver

__all__ = ["instrument_client", "instrument_receiver"]
