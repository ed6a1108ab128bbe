"""`instrument_receiver` reports requests, attempts, handler calls and the inbox, and nothing private."""

import asyncio
import json
from collections import defaultdict

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, get_current_span

from callfire_async import InboxUnavailableError
from callfire_async.notifications import (
    AppendResult,
    CallFinished,
    Delivery,
    InboxStats,
    MemoryInbox,
    Postback,
    Receiver,
    Reject,
    RetryPolicy,
    Router,
    TextFinished,
)
from callfire_async.notifications.observers import RequestRecord
from callfire_async.telemetry import instrument_receiver
from callfire_async.telemetry._inbox_metrics import InboxMetrics
from callfire_async.telemetry._receiver import RequestSpanLinks

TOKEN = "0123456789abcdef"
DEADLINE = 60
NUMBER = "12135551212"


def text(number: int, subscription: int = 1, name: str = "TextSent") -> bytes:
    return (
        f'{{"{name}": {{"SubscriptionId": {subscription}, "Text": '
        f'{{"@id": {number}, "FromNumber": "{NUMBER}", "Message": "secret words"}}}}}}'
    ).encode()


class Recorder:
    """Providers that record spans and metrics in memory."""

    def __init__(self):
        self.exporter = InMemorySpanExporter()
        self.tracer_provider = TracerProvider()
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meter_provider = MeterProvider([self.reader])

    def instrument(self, receiver):
        instrument_receiver(receiver, tracer_provider=self.tracer_provider, meter_provider=self.meter_provider)
        return receiver

    def spans(self, start):
        return [span for span in self.exporter.get_finished_spans() if span.name.startswith(start)]

    def series(self, name):
        """Return the series of a metric by their attributes."""
        data = self.reader.get_metrics_data()
        metrics = data.resource_metrics[0].scope_metrics[0].metrics if data else ()
        return {
            frozenset(point.attributes.items()): point
            for metric in metrics
            if metric.name == name
            for point in metric.data.data_points
        }

    def counts(self, name, *attributes):
        """Count the values of a histogram by some of their attributes."""
        counts = defaultdict(int)
        for key, point in self.series(name).items():
            counts[tuple(dict(key).get(attribute) for attribute in attributes)] += point.count
        return dict(counts)


@pytest.fixture
def recorder():
    recorder = Recorder()
    yield recorder
    recorder.tracer_provider.shutdown()
    recorder.meter_provider.shutdown()


@pytest.fixture
def router():
    """Handlers of which one fails for subscriptions 13 and 14."""
    router = Router()

    @router.on(TextFinished, name="keep")
    async def keep(event: TextFinished) -> None:
        if event.subscription_id == 13:
            raise ValueError(event.text.message)
        if event.subscription_id == 14:
            raise Reject("not one of ours")

    @router.on(TextFinished, name="count")
    async def count(event: TextFinished) -> None: ...

    return router


async def post(receiver, *bodies, method="POST", token=TOKEN):
    return [await receiver.receive(Postback(method, token, {}, body)) for body in bodies]


class FullInbox(MemoryInbox):
    """An inbox that rejects every delivery."""

    async def append(self, delivery: Delivery) -> AppendResult:
        raise InboxUnavailableError("the inbox is full")


async def test_attempt_span_links_to_the_request_span(recorder, router):
    """The attempt begins a trace of its own, since retries may take a day; handler calls are its children."""
    async with recorder.instrument(Receiver(router, tokens=TOKEN, inbox=MemoryInbox())) as receiver:
        await post(receiver, text(42))
        await receiver.idle(timeout=DEADLINE)

    (request,), (attempt,) = recorder.spans("POST"), recorder.spans("process")
    assert (request.name, request.kind) == ("POST /{token}", SpanKind.SERVER)
    assert dict(request.attributes) == {
        "messaging.system": "callfire",
        "messaging.operation.name": "receive",
        "messaging.operation.type": "receive",
        "http.request.method": "POST",
        "http.route": "/{token}",
        "http.response.status_code": 204,
        "callfire.request.outcome": "accepted",
        "messaging.message.id": "1",
        "messaging.message.body.size": len(text(42)),
    }
    assert (attempt.name, attempt.kind, attempt.parent) == ("process TextSent", SpanKind.CONSUMER, None)
    assert [link.context.span_id for link in attempt.links] == [request.context.span_id]
    assert dict(attempt.attributes) == {
        "messaging.system": "callfire",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.message.id": "1",
        "messaging.message.body.size": len(text(42)),
        "callfire.event.type": "TextSent",
        "callfire.handling.outcome": "handled",
        "callfire.delivery.attempt": 1,
        "callfire.subscription.id": "1",
    }
    handlers = recorder.spans("handle ")
    assert [(span.name, span.parent.span_id) for span in handlers] == [
        ("handle keep", attempt.context.span_id),
        ("handle count", attempt.context.span_id),
    ]


async def test_split_envelope_is_reported(recorder, router):
    """Its events are attempts of their own, which link to the request; their spans have the webhook's id."""
    events = [{"eventType": "Finished", "resource": {"id": number}} for number in (1, 2)]
    body = json.dumps({"webhookId": 7, "resourceType": "InboundText", "events": events}).encode()
    async with recorder.instrument(Receiver(router, tokens=TOKEN, inbox=MemoryInbox())) as receiver:
        await post(receiver, body)
        await receiver.idle(timeout=DEADLINE)

    (request,), attempts = recorder.spans("POST"), recorder.spans("process")
    outcomes = sorted(span.attributes["callfire.handling.outcome"] for span in attempts)
    (split,) = [span for span in attempts if span.attributes["callfire.handling.outcome"] == "split"]
    assert outcomes == ["handled", "handled", "split"]
    assert [link.context.span_id for span in attempts for link in span.links] == [request.context.span_id] * 3
    assert ("error.type" in split.attributes, split.status.status_code) == (False, StatusCode.UNSET)
    assert [span.attributes.get("callfire.webhook.id") for span in attempts if span is not split] == ["7", "7"]


async def test_failures_are_reported_without_exception_messages(recorder, router):
    """A handler's span has the exception's class, an attempt's span the outcome and the reason."""
    retry = RetryPolicy(max_attempts=1)
    async with recorder.instrument(Receiver(router, tokens=TOKEN, inbox=MemoryInbox(), retry=retry)) as receiver:
        await post(receiver, text(42, 13), text(43, 14), b"{")
        await receiver.idle(timeout=DEADLINE)

    failed, rejected, unreadable = sorted(
        recorder.spans("process"), key=lambda span: span.attributes["messaging.message.id"]
    )
    assert (failed.status.status_code, failed.status.description) == (
        StatusCode.ERROR,
        "the only attempt failed: keep: ValueError",
    )
    assert rejected.status.description == "rejected: not one of ours"
    assert (unreadable.name, unreadable.attributes["error.type"]) == ("process", "dead")
    errors = {span.attributes.get("error.type") for span in recorder.spans("handle keep")}
    assert errors == {"builtins.ValueError", "callfire_async.notifications.Reject"}
    assert not any(span.events for span in recorder.exporter.get_finished_spans())


async def test_attempt_is_a_child_of_the_request_without_an_inbox(recorder, router):
    """A failed handler makes the request an error; an unreadable body does not."""
    async with recorder.instrument(Receiver(router, tokens=TOKEN)) as receiver:
        await post(receiver, text(42), text(43, 13), b"{")

    first, second, third = recorder.spans("POST")
    attempt = recorder.spans("process")[0]
    assert (attempt.parent.span_id, attempt.kind, attempt.links) == (first.context.span_id, SpanKind.INTERNAL, ())
    assert (second.status.status_code, second.attributes["callfire.request.outcome"]) == (StatusCode.ERROR, "failed")
    assert (third.status.status_code, third.attributes["error.type"]) == (StatusCode.UNSET, "no notification")
    assert recorder.counts("messaging.process.duration", "callfire.handling.outcome") == {
        ("handled",): 1,
        ("failed",): 1,
        ("refused",): 1,
    }


@pytest.mark.parametrize(
    ("options", "error"),
    [({"inbox": MemoryInbox(), "unhandled": "ignore"}, None), ({}, "unhandled")],
    ids=["ignored on request", "without an inbox"],
)
async def test_an_event_that_is_ignored_on_request_is_no_error(recorder, options, error):
    """An event that is lost because nothing handles it is one."""
    router = Router()

    @router.on(CallFinished)
    async def unused(event): ...

    async with recorder.instrument(Receiver(router, tokens=TOKEN, **options)) as receiver:
        await post(receiver, text(42))
        await receiver.idle(timeout=DEADLINE)

    (attempt,) = recorder.spans("process")
    assert attempt.attributes["callfire.handling.outcome"] == "unhandled"
    assert attempt.attributes.get("error.type") == error
    assert attempt.status.status_code == (StatusCode.ERROR if error else StatusCode.UNSET)
    assert recorder.counts("messaging.process.duration", "error.type") == {(error,): 1}


async def test_request_duration_has_the_outcome(recorder, router):
    """Refusals have their reason; unknown methods share one value."""
    async with recorder.instrument(Receiver(router, tokens=TOKEN, inbox=MemoryInbox())) as receiver:
        await post(receiver, text(42), text(42), b"")
        await post(receiver, text(42), token="wrong")
        await post(receiver, text(42), method="BREW")
    async with recorder.instrument(Receiver(router, tokens=TOKEN, inbox=FullInbox())) as receiver:
        await post(receiver, text(42))

    attributes = ("http.request.method", "callfire.request.outcome", "error.type")
    assert recorder.counts("callfire.receiver.request.duration", *attributes) == {
        ("POST", "accepted", None): 1,
        ("POST", "duplicate", None): 1,
        ("POST", "refused", "empty"): 1,
        ("POST", "refused", "token"): 1,
        ("_OTHER", "refused", "method"): 1,
        ("POST", "refused", "storage"): 1,
    }
    assert recorder.spans("HTTP")[0].name == "HTTP /{token}"


async def test_cancelled_request_is_reported(recorder, router):
    """It has no status; a delivery that was received completely is still handled."""
    proceed = asyncio.Event()

    class SlowInbox(MemoryInbox):
        async def append(self, delivery: Delivery) -> AppendResult:
            await proceed.wait()
            return await super().append(delivery)

    async with recorder.instrument(Receiver(router, tokens=TOKEN, inbox=SlowInbox())) as receiver:
        task = asyncio.create_task(post(receiver, text(42)))
        while not receiver._intake._storing:  # noqa: ASYNC110  # no event for it
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        proceed.set()
        await receiver.idle(timeout=DEADLINE)

    assert recorder.counts("callfire.receiver.request.duration", "callfire.request.outcome") == {("cancelled",): 1}
    assert recorder.counts("messaging.process.duration", "callfire.handling.outcome") == {("handled",): 1}


async def test_handled_deliveries_are_reported(recorder, router):
    """Metrics have their age, the number of attempts, and each handler call by name and event type."""
    retry = RetryPolicy(max_attempts=2, initial_delay=0.0)
    async with recorder.instrument(Receiver(router, tokens=TOKEN, inbox=MemoryInbox(), retry=retry)) as receiver:
        await post(receiver, text(42), text(43, 13))
        async with asyncio.timeout(DEADLINE):
            while (await receiver.stats()).dead < 1:  # noqa: ASYNC110  # idle does not wait for retries
                await asyncio.sleep(0)
        await receiver.idle(timeout=DEADLINE)

    attempts = recorder.series("callfire.receiver.delivery.attempts")
    by_outcome = {dict(key)["callfire.handling.outcome"]: point.sum for key, point in attempts.items()}
    assert by_outcome == {"handled": 1, "dead": 2}
    assert recorder.counts("callfire.receiver.delivery.age", "callfire.event.type", "callfire.handling.outcome") == {
        ("TextSent", "handled"): 1,
        ("TextSent", "dead"): 1,
    }
    handlers = recorder.counts(
        "callfire.receiver.handler.duration", "callfire.handler.name", "callfire.event.type", "error.type"
    )
    assert handlers == {
        ("keep", "TextSent", None): 1,
        ("keep", "TextSent", "builtins.ValueError"): 2,
        ("count", "TextSent", None): 2,
    }


async def test_inbox_is_reported_while_the_receiver_runs(recorder, router):
    """The gauges are absent before the start and after the stop."""
    receiver = recorder.instrument(Receiver(router, tokens=TOKEN, inbox=MemoryInbox(), concurrency=0))
    before = recorder.series("callfire.inbox.deliveries")
    async with receiver:
        await post(receiver, text(42))
    async with receiver, asyncio.timeout(DEADLINE):
        while not recorder.series("callfire.inbox.deliveries"):  # noqa: ASYNC110  # no event for it
            await asyncio.sleep(0)
        held = recorder.series("callfire.inbox.deliveries")
        oldest = recorder.series("callfire.inbox.oldest_ready.age")
    after = recorder.series("callfire.inbox.deliveries")

    assert (before, after) == ({}, {})
    states = {dict(key)["callfire.inbox.state"]: point.value for key, point in held.items()}
    assert states == {"ready": 1, "delayed": 0, "leased": 0, "done": 0, "dead": 0}
    (age,) = [point.value for point in oldest.values()]
    assert age > 0


class StubStats:
    """A `Receiver.stats` with a given result, and a clock that the test sets."""

    def __init__(self, result):
        self.result = result
        self.calls = 0
        self.now = 0.0

    async def stats(self):
        self.calls += 1
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def clock(self):
        return self.now


@pytest.mark.parametrize("result", [InboxUnavailableError("the disk is gone"), None], ids=["fails", "has no inbox"])
async def test_gauges_are_absent_if_counting_fails(recorder, result):
    """No value is reported rather than an old one."""
    stub = StubStats(result or type("Stats", (), {"inbox": None})())
    metrics = InboxMetrics(stub.stats, recorder.meter_provider.get_meter("test"), refresh_seconds=0.0)

    async with metrics.refreshing(), asyncio.timeout(DEADLINE):
        while stub.calls < 3:  # noqa: ASYNC110  # no event for it
            await asyncio.sleep(0)
        reported = recorder.series("callfire.inbox.deliveries") | recorder.series("callfire.inbox.oldest_ready.age")

    assert reported == {}


class CancellingInbox(MemoryInbox):
    """An inbox whose first count raises CancelledError, as a driver may."""

    counts = 0

    async def stats(self) -> InboxStats:
        self.counts += 1
        if self.counts == 1:
            raise asyncio.CancelledError
        return await super().stats()


async def test_gauges_return_after_a_count_that_was_cancelled(recorder, router):
    """Counting has failed, but was not ended by the receiver."""
    receiver = Receiver(router, tokens=TOKEN, inbox=CancellingInbox())
    metrics = InboxMetrics(receiver.stats, recorder.meter_provider.get_meter("test"), refresh_seconds=0.0)

    async with receiver, metrics.refreshing(), asyncio.timeout(DEADLINE):
        while not recorder.series("callfire.inbox.deliveries"):  # noqa: ASYNC110  # no event for it
            await asyncio.sleep(0)


async def test_gauges_are_absent_if_the_counts_are_too_old(recorder):
    """An inbox that hangs, or a blocked event loop, shows as missing gauges."""
    stub = StubStats(type("Stats", (), {"inbox": InboxStats(ready=3)})())
    metrics = InboxMetrics(
        stub.stats, recorder.meter_provider.get_meter("test"), refresh_seconds=600.0, clock=stub.clock
    )

    async with metrics.refreshing(), asyncio.timeout(DEADLINE):
        while not recorder.series("callfire.inbox.deliveries"):  # noqa: ASYNC110  # no event for it
            await asyncio.sleep(0)
        stub.now = 1800.0
        fresh = recorder.series("callfire.inbox.deliveries")
        stub.now = 1801.0
        stale = recorder.series("callfire.inbox.deliveries")

    assert (len(fresh), stale) == (5, {})


async def test_nothing_private_is_reported(recorder, router):
    """Spans and metrics contain no token, number or text, and no name that a sender chose."""
    async with recorder.instrument(Receiver(router, tokens=TOKEN, inbox=MemoryInbox())) as receiver:
        await post(receiver, text(42), text(43, 13), text(44, name="Whatever9"), method="POST")
        await receiver.idle(timeout=DEADLINE)

    spans = "".join(span.to_json() for span in recorder.exporter.get_finished_spans())
    metrics = recorder.reader.get_metrics_data().to_json()
    assert ("UnknownNotification" in spans, "UnknownNotification" in metrics) == (True, True)
    assert not [word for word in (TOKEN, NUMBER, "secret", "Whatever9") if word in spans + metrics]


async def test_request_is_an_internal_span_if_the_framework_is_instrumented(recorder, router):
    """The framework's span is the only one of kind server, and the parent of the request."""
    tracer = recorder.tracer_provider.get_tracer("framework")
    async with recorder.instrument(Receiver(router, tokens=TOKEN)) as receiver:
        with tracer.start_as_current_span("framework", kind=SpanKind.SERVER) as outer:
            await post(receiver, text(42))

    (request,) = recorder.spans("POST")
    assert (request.kind, request.parent.span_id) == (SpanKind.INTERNAL, outer.get_span_context().span_id)


async def test_handler_span_is_current_during_the_handler(recorder):
    """Spans that the handler creates become its children."""
    router, current_ids = Router(), []

    @router.on(TextFinished)
    async def record_span_id(event: TextFinished) -> None:
        current_ids.append(get_current_span().get_span_context().span_id)

    async with recorder.instrument(Receiver(router, tokens=TOKEN, inbox=MemoryInbox())) as receiver:
        await post(receiver, text(42))
        await receiver.idle(timeout=DEADLINE)

    assert current_ids == [recorder.spans("handle")[0].context.span_id]


async def test_default_providers_are_the_global_ones(router):
    """If none are configured, nothing is reported and deliveries are handled."""
    receiver = Receiver(router, tokens=TOKEN, inbox=MemoryInbox())
    instrument_receiver(receiver)

    async with receiver:
        (reply,) = await post(receiver, text(42))
        await receiver.idle(timeout=DEADLINE)

    assert reply.status == 204


async def test_running_receiver_cannot_be_instrumented(router):
    """The lifespan hook, which counts the inbox, would not run."""
    async with Receiver(router, tokens=TOKEN) as receiver:
        with pytest.raises(RuntimeError, match="before it is started"):
            instrument_receiver(receiver)


def request(key: str, recorder: Recorder, *, duplicate: bool = False):
    span = recorder.tracer_provider.get_tracer("test").start_span("request")
    record = RequestRecord("POST", Delivery(b"", key=key), AppendResult(1, duplicate=duplicate))
    return record, span.get_span_context()


def test_active_request_is_linked(recorder):
    """A delivery may be handled before the response to its request is sent."""
    links = RequestSpanLinks()
    record, span = request("a", recorder)
    links.begin(record, span)

    assert (links.of("a"), links.of("b")) == (span, None)


def test_links_are_limited_to_the_most_recent_requests(recorder):
    """Repeats are not remembered, and the link of a handled delivery is discarded."""
    links = RequestSpanLinks(limit=2)
    spans = {}
    for key, duplicate in (("a", False), ("b", False), ("b", True), ("c", False)):
        record, span = request(key, recorder, duplicate=duplicate)
        spans.setdefault(key, span)
        links.begin(record, span)
        links.end(record)

    assert [links.of(key) for key in "abc"] == [None, spans["b"], spans["c"]]
    links.discard("b")
    assert links.of("b") is None
