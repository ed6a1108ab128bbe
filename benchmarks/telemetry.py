"""The cost of OpenTelemetry metrics and traces of a receiver."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import NoOpTracerProvider
from opentelemetry.trace import TracerProvider as AnyTracerProvider

from benchmarks.rows import Costs, Effort, Row, compare_async
from callfire_async.notifications import Notification, Postback, Receiver, Router, SqliteInbox
from callfire_async.telemetry import instrument_receiver
from callfire_async.testing import samples

TOKEN = "0123456789abcdef"  # noqa: S105  # not reachable
# Deliveries handled at once, as by a busy receiver.
BATCH = 16


class _NullExporter(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:  # noqa: ARG002  # discarded
        return SpanExportResult.SUCCESS


class _Service:
    """A receiver that reports when all postbacks are handled."""

    def __init__(self, path: Path) -> None:
        router = Router()
        self._remaining = 0
        self._numbers = itertools.count()
        self._done = asyncio.Event()
        router.on(Notification, name="handle")(self._handle)
        self.receiver = Receiver(router, tokens=TOKEN, inbox=SqliteInbox(path, dedupe_window=0.0))

    async def _handle(self, _: Notification) -> None:
        self._remaining -= 1
        if not self._remaining:
            self._done.set()

    async def post(self) -> None:
        """Post a batch and wait until it is handled."""
        body = samples.body("TextSent", "JSON")
        self._remaining = BATCH
        self._done.clear()
        await asyncio.gather(*(self.receiver.receive(Postback("POST", TOKEN, {}, body)) for _ in range(BATCH)))
        await self._done.wait()


async def _measured(effort: Effort, tracer_provider: AnyTracerProvider) -> Costs:
    meter_provider = MeterProvider([InMemoryMetricReader()])
    with tempfile.TemporaryDirectory() as directory:
        instrumented, plain = (_Service(Path(directory, name)) for name in ("instrumented.db", "plain.db"))
        instrument_receiver(instrumented.receiver, tracer_provider=tracer_provider, meter_provider=meter_provider)
        async with instrumented.receiver, plain.receiver:
            costs = await compare_async(instrumented.post, plain.post, effort)
    meter_provider.shutdown()
    return costs


def _metrics(effort: Effort) -> Costs:
    return asyncio.run(_measured(effort, NoOpTracerProvider()))


def _metrics_and_traces(effort: Effort) -> Costs:
    tracer_provider = TracerProvider()
    tracer_provider.add_span_processor(BatchSpanProcessor(_NullExporter()))
    costs = asyncio.run(_measured(effort, tracer_provider))
    tracer_provider.shutdown()
    return costs


ROWS = (
    Row("postback, from request to handled delivery, with metrics", "without OpenTelemetry", 1.25, _metrics),
    Row(
        "postback, from request to handled delivery, with metrics and traces",
        "without OpenTelemetry",
        1.6,
        _metrics_and_traces,
    ),
)
