"""What OpenTelemetry is told of a receiver: requests, deliveries, handlers, what waits; and nothing private."""

import asyncio
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
from callfire_async.telemetry._receiver import InboxMetrics, RequestSpanLinks

TOKEN = "0123456789abcdef"
DEADLINE = 20
NUMBER = "12135551212"


def text(number: int, subscription: int = 1, name: str = "TextSent") -> bytes:
    return (
        f'{{"{name}": {{"SubscriptionId": {subscription}, "Text": '
        f'{{"@id": {number}, "FromNumber": "{NUMBER}", "Message": "secret words"}}}}}}'
    ).encode()


class Observed:
    """Providers that keep in memory what they are told."""

    def __init__(self):
        self.exporter = InMemorySpanExporter()
        self.tracer_provider = TracerProvider()
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meter_provider = MeterProvider([self.reader])

    def instrument_client(self, receiver):
        instrument_receiver(receiver, tracer_provider=self.tracer_provider, meter_provider=self.meter_provider)
        return receiver

    def spans(self, start):
        return [span for span in self.exporter.get_finished_spans() if span.name.startswith(start)]

    def series(self, name):
        """Map what the values of each series of a metric have in common to the series."""
        data = self.reader.get_metrics_data()
        metrics = data.resource_metrics[0].scope_metrics[0].metrics if data else ()
        return {
            frozenset(point.attributes.items()): point
            for metric in metrics
            if metric.name == name
            for point in metric.data.data_points
        }

    def counted(self, name, *attributes):
        """Count the values of a histogram by some of their attributes."""
        counts = defaultdict(int)
        for key, point in self.series(name).items():
            counts[tuple(dict(key).get(attribute) for attribute in attributes)] += point.count
        return dict(counts)


@pytest.fixture
def observed():
    """Somebody who listens."""
    observed = Observed()
    yield observed
    observed.tracer_provider.shutdown()
    observed.meter_provider.shutdown()


@pytest.fixture
def router():
    """Handlers that fail for some subscriptions."""
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
    """Takes nothing."""

    async def append(self, delivery: Delivery) -> AppendResult:
        raise InboxUnavailableError("the inbox is full")


async def test_a_delivery_is_a_span_that_links_to_its_request(observed, router):
    """The handling begins a trace of its own, for it may take a day; each handler is a child of it."""
    async with observed.instrument(Receiver(router, tokens=TOKEN, inbox=MemoryInbox())) as receiver:
        await post(receiver, text(42))
        await receiver.idle(timeout=DEADLINE)

    (request,), (handling,) = observed.spans("POST"), observed.spans("process")
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
    assert (handling.name, handling.kind, handling.parent) == ("process TextSent", SpanKind.CONSUMER, None)
    assert [link.context.span_id for link in handling.links] == [request.context.span_id]
    assert dict(handling.attributes) == {
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
    handlers = observed.spans("handle ")
    assert [(span.name, span.parent.span_id) for span in handlers] == [
        ("handle keep", handling.context.span_id),
        ("handle count", handling.context.span_id),
    ]


async def test_what_fails_says_so_and_not_in_its_own_words(observed, router):
    """The handler's span has the kind of the error, the delivery's the outcome and the reason."""
    retry = RetryPolicy(max_attempts=1)
    async with observed.instrument(Receiver(router, tokens=TOKEN, inbox=MemoryInbox(), retry=retry)) as receiver:
        await post(receiver, text(42, 13), text(43, 14), b"{")
        await receiver.idle(timeout=DEADLINE)

    failed, rejected, none = sorted(observed.spans("process"), key=lambda span: span.attributes["messaging.message.id"])
    assert (failed.status.status_code, failed.status.description) == (
        StatusCode.ERROR,
        "the only attempt failed: keep: ValueError",
    )
    assert rejected.status.description == "rejected: not one of ours"
    assert (none.name, none.attributes["error.type"]) == ("process", "dead")
    errors = {span.attributes.get("error.type") for span in observed.spans("handle keep")}
    assert errors == {"builtins.ValueError", "callfire_async.notifications.Reject"}
    assert not any(span.events for span in observed.exporter.get_finished_spans())


async def test_without_an_inbox_the_handling_is_inside_the_request(observed, router):
    """One trace, and a request that failed."""
    async with observed.instrument(Receiver(router, tokens=TOKEN)) as receiver:
        await post(receiver, text(42), text(43, 13), b"{")

    first, second, third = observed.spans("POST")
    handling = observed.spans("process")[0]
    assert (handling.parent.span_id, handling.kind, handling.links) == (first.context.span_id, SpanKind.INTERNAL, ())
    assert (second.status.status_code, second.attributes["callfire.request.outcome"]) == (StatusCode.ERROR, "failed")
    assert (third.status.status_code, third.attributes["error.type"]) == (StatusCode.UNSET, "no notification")
    assert observed.counted("messaging.process.duration", "callfire.handling.outcome") == {
        ("handled",): 1,
        ("failed",): 1,
        ("refused",): 1,
    }


async def test_requests_are_measured_by_what_came_of_them(observed, router):
    """Refused by reason, repeated, stored; methods that somebody made up are one."""
    async with observed.instrument(Receiver(router, tokens=TOKEN, inbox=MemoryInbox())) as receiver:
        await post(receiver, text(42), text(42), b"")
        await post(receiver, text(42), token="wrong")
        await post(receiver, text(42), method="BREW")
    async with observed.instrument(Receiver(router, tokens=TOKEN, inbox=FullInbox())) as receiver:
        await post(receiver, text(42))

    attributes = ("http.request.method", "callfire.request.outcome", "error.type")
    assert observed.counted("callfire.receiver.request.duration", *attributes) == {
        ("POST", "accepted", None): 1,
        ("POST", "duplicate", None): 1,
        ("POST", "refused", "empty"): 1,
        ("POST", "refused", "token"): 1,
        ("_OTHER", "refused", "method"): 1,
        ("POST", "refused", "storage"): 1,
    }
    assert observed.spans("HTTP")[0].name == "HTTP /{token}"


async def test_a_request_that_the_server_gives_up_is_measured(observed, router):
    """It has no answer; what came whole is handled all the same, and links to it."""
    holding = asyncio.Event()

    class SlowInbox(MemoryInbox):
        async def append(self, delivery: Delivery) -> AppendResult:
            await holding.wait()
            return await super().append(delivery)

    async with observed.instrument(Receiver(router, tokens=TOKEN, inbox=SlowInbox())) as receiver:
        task = asyncio.create_task(post(receiver, text(42)))
        while not receiver._intake._storing:  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        holding.set()
        await receiver.idle(timeout=DEADLINE)

    assert observed.counted("callfire.receiver.request.duration", "callfire.request.outcome") == {("cancelled",): 1}
    assert observed.counted("messaging.process.duration", "callfire.handling.outcome") == {("handled",): 1}


async def test_what_was_handled_is_measured(observed, router):
    """Its age, how many attempts it took, and each handler, by name and kind of event."""
    retry = RetryPolicy(max_attempts=2, initial_delay=0.0)
    async with observed.instrument(Receiver(router, tokens=TOKEN, inbox=MemoryInbox(), retry=retry)) as receiver:
        await post(receiver, text(42), text(43, 13))
        async with asyncio.timeout(DEADLINE):
            while (await receiver.stats()).dead < 1:  # noqa: ASYNC110  # a retry is not waited for by idle
                await asyncio.sleep(0)
        await receiver.idle(timeout=DEADLINE)

    attempts = observed.series("callfire.receiver.delivery.attempts")
    by_outcome = {dict(key)["callfire.handling.outcome"]: point.sum for key, point in attempts.items()}
    assert by_outcome == {"handled": 1, "dead": 2}
    assert observed.counted("callfire.receiver.delivery.age", "callfire.event.type", "callfire.handling.outcome") == {
        ("TextSent", "handled"): 1,
        ("TextSent", "dead"): 1,
    }
    handlers = observed.counted(
        "callfire.receiver.handler.duration", "callfire.handler.name", "callfire.event.type", "error.type"
    )
    assert handlers == {
        ("keep", "TextSent", None): 1,
        ("keep", "TextSent", "builtins.ValueError"): 2,
        ("count", "TextSent", None): 2,
    }


async def test_what_waits_is_told_while_the_receiver_runs(observed, router):
    """And nothing of it before and after: what was true once is not reported."""
    receiver = observed.instrument(Receiver(router, tokens=TOKEN, inbox=MemoryInbox(), concurrency=0))
    before = observed.series("callfire.inbox.deliveries")
    async with receiver:
        await post(receiver, text(42))
    async with receiver, asyncio.timeout(DEADLINE):
        while not observed.series("callfire.inbox.deliveries"):  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(0)
        held = observed.series("callfire.inbox.deliveries")
        oldest = observed.series("callfire.inbox.oldest_ready.age")
    after = observed.series("callfire.inbox.deliveries")

    assert (before, after) == ({}, {})
    states = {dict(key)["callfire.inbox.state"]: point.value for key, point in held.items()}
    assert states == {"ready": 1, "delayed": 0, "leased": 0, "done": 0, "dead": 0}
    (age,) = [point.value for point in oldest.values()]
    assert age > 0


class Uncountable:
    """Stats that a test decides on."""

    def __init__(self, stats):
        self.answers = stats
        self.asked = 0
        self.now = 0.0

    async def stats(self):
        self.asked += 1
        if isinstance(self.answers, Exception):
            raise self.answers
        return self.answers

    def clock(self):
        return self.now


@pytest.mark.parametrize("answers", [InboxUnavailableError("the disk is gone"), None], ids=["fails", "has no inbox"])
async def test_what_cannot_be_counted_is_not_told(observed, answers):
    """There is no number rather than an old one."""
    inbox = Uncountable(answers or type("Answer", (), {"inbox": None})())
    gauges = InboxMetrics(inbox.stats, observed.meter_provider.get_meter("test"), refresh_seconds=0.0)

    async with gauges.refreshing(), asyncio.timeout(DEADLINE):
        while inbox.asked < 3:  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(0)
        told = observed.series("callfire.inbox.deliveries") | observed.series("callfire.inbox.oldest_ready.age")

    assert told == {}


async def test_what_was_counted_too_long_ago_is_not_told(observed):
    """An inbox that does not answer any more, or a loop that hangs, is seen by its silence."""
    inbox = Uncountable(type("Answer", (), {"inbox": InboxStats(ready=3)})())
    gauges = InboxMetrics(
        inbox.stats, observed.meter_provider.get_meter("test"), refresh_seconds=600.0, clock=inbox.clock
    )

    async with gauges.refreshing(), asyncio.timeout(DEADLINE):
        while not observed.series("callfire.inbox.deliveries"):  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(0)
        inbox.now = 1800.0
        fresh = observed.series("callfire.inbox.deliveries")
        inbox.now = 1801.0
        stale = observed.series("callfire.inbox.deliveries")

    assert (len(fresh), stale) == (5, {})


async def test_nothing_private_is_reported(observed, router):
    """No token, no number, no text, and no word that a sender has chosen in a measurement."""
    async with observed.instrument(Receiver(router, tokens=TOKEN, inbox=MemoryInbox())) as receiver:
        await post(receiver, text(42), text(43, 13), text(44, name="Whatever9"), method="POST")
        await receiver.idle(timeout=DEADLINE)

    spans = "".join(span.to_json() for span in observed.exporter.get_finished_spans())
    measured = observed.reader.get_metrics_data().to_json()
    assert ("UnknownNotification" in spans, "UnknownNotification" in measured) == (True, True)
    assert not [word for word in (TOKEN, NUMBER, "secret", "Whatever9") if word in spans + measured]


async def test_where_the_framework_tells_of_the_server_the_request_is_inside(observed, router):
    """There is one span of kind server."""
    tracer = observed.tracer_provider.get_tracer("framework")
    async with observed.instrument(Receiver(router, tokens=TOKEN)) as receiver:
        with tracer.start_as_current_span("framework", kind=SpanKind.SERVER) as outer:
            await post(receiver, text(42))

    (request,) = observed.spans("POST")
    assert (request.kind, request.parent.span_id) == (SpanKind.INTERNAL, outer.get_span_context().span_id)


async def test_a_handler_s_own_spans_stand_below_it(observed):
    """Whatever it uses."""
    router, seen = Router(), []

    @router.on(TextFinished)
    async def look(event: TextFinished) -> None:
        seen.append(get_current_span().get_span_context().span_id)

    async with observed.instrument(Receiver(router, tokens=TOKEN, inbox=MemoryInbox())) as receiver:
        await post(receiver, text(42))
        await receiver.idle(timeout=DEADLINE)

    assert seen == [observed.spans("handle")[0].context.span_id]


async def test_the_global_providers_are_the_default(router):
    """Where none are set up, nothing is reported and nothing fails."""
    receiver = Receiver(router, tokens=TOKEN, inbox=MemoryInbox())
    instrument_receiver(receiver)

    async with receiver:
        (reply,) = await post(receiver, text(42))
        await receiver.idle(timeout=DEADLINE)

    assert reply.status == 204


async def test_a_receiver_that_runs_is_refused(router):
    """What it holds could not be counted."""
    async with Receiver(router, tokens=TOKEN) as receiver:
        with pytest.raises(RuntimeError, match="before it is started"):
            instrument_receiver(receiver)


def request(key: str, observed: Observed, *, duplicate: bool = False):
    span = observed.tracer_provider.get_tracer("test").start_span("request")
    receiving = RequestRecord("POST", Delivery(b"", key=key), AppendResult(1, duplicate=duplicate))
    return receiving, span.get_span_context()


def test_a_delivery_that_is_handled_before_its_request_is_answered_has_its_link(observed):
    """The worker may be faster than whoever waits for the answer."""
    origins = RequestSpanLinks()
    receiving, span = request("a", observed)
    origins.begin(receiving, span)

    assert (origins.of("a"), origins.of("b")) == (span, None)


def test_only_so_many_requests_are_remembered(observed):
    """The newest; a repeat has brought nothing, and what was handled needs no link any more."""
    origins = RequestSpanLinks(most=2)
    spans = {}
    for key, duplicate in (("a", False), ("b", False), ("b", True), ("c", False)):
        receiving, span = request(key, observed, duplicate=duplicate)
        spans.setdefault(key, span)
        origins.begin(receiving, span)
        origins.end(receiving)

    assert [origins.of(key) for key in "abc"] == [None, spans["b"], spans["c"]]
    origins.forget("b")
    assert origins.of("b") is None
