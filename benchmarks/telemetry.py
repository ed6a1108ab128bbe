"""What it costs to tell OpenTelemetry of each request, delivery and handler."""

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

TOKEN = "0123456789abcdef"  # noqa: S105  # nobody else can reach it
# What is handled at once: a busy receiver's.
BATCH = 16


class _Nowhere(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:  # noqa: ARG002  # what is sent where is not ours
        return SpanExportResult.SUCCESS


class _Handled:
    """A receiver, and what tells that all that was posted is handled."""

    def __init__(self, path: Path) -> None:
        router = Router()
        self._left = 0
        self._numbers = itertools.count()
        self._done = asyncio.Event()
        router.on(Notification, name="handle")(self._handle)
        self.receiver = Receiver(router, tokens=TOKEN, inbox=SqliteInbox(path, dedupe_window=0.0))

    async def _handle(self, _: Notification) -> None:
        self._left -= 1
        if not self._left:
            self._done.set()

    async def post(self) -> None:
        """Post a batch, and wait until it is handled."""
        body = samples.body("TextSent", "JSON")
        self._left = BATCH
        self._done.clear()
        await asyncio.gather(*(self.receiver.receive(Postback("POST", TOKEN, {}, body)) for _ in range(BATCH)))
        await self._done.wait()


async def _measured(effort: Effort, tracer_provider: AnyTracerProvider) -> Costs:
    meter_provider = MeterProvider([InMemoryMetricReader()])
    with tempfile.TemporaryDirectory() as folder:
        watched, plain = (_Handled(Path(folder, name)) for name in ("watched.db", "plain.db"))
        instrument_receiver(watched.receiver, tracer_provider=tracer_provider, meter_provider=meter_provider)
        async with watched.receiver, plain.receiver:
            costs = await compare_async(watched.post, plain.post, effort)
    meter_provider.shutdown()
    return costs


def _metrics(effort: Effort) -> Costs:
    return asyncio.run(_measured(effort, NoOpTracerProvider()))


def _metrics_and_traces(effort: Effort) -> Costs:
    tracer_provider = TracerProvider()
    tracer_provider.add_span_processor(BatchSpanProcessor(_Nowhere()))
    costs = asyncio.run(_measured(effort, tracer_provider))
    tracer_provider.shutdown()
    return costs


ROWS = (
    Row(
        "a receiver that reports metrics: from the request to the handled delivery", "one that does not", None, _metrics
    ),
    Row("a receiver that reports metrics and every trace, likewise", "one that does not", None, _metrics_and_traces),
)
