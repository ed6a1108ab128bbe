"""OpenTelemetry spans and metrics of a client and of a receiver. Needs the extra ``otel``."""

from callfire_async.telemetry._client import instrument_client
from callfire_async.telemetry._receiver import instrument_receiver

__all__ = ["instrument_client", "instrument_receiver"]
