"""What OpenTelemetry is told of a client: each attempt, in the words of its HTTP conventions, and nothing private."""

import asyncio

import httpx
import pytest
from attrs import evolve
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from callfire_async.client import CallFire
from callfire_async.errors import NotFoundError, ResponseError, ServerError, TransportError
from callfire_async.models import SubscriptionFilter, TriggerEvent
from callfire_async.telemetry import instrument_client
from callfire_async.testing import FakeCallFire
from callfire_async.testing.faults import Fault

ROUTE = "/api/1.1/rest/subscription"
SERVER = {"server.address": "www.callfire.com", "server.port": 443, "url.scheme": "https"}
EVENT = TriggerEvent.OUTBOUND_TEXT_FINISHED


class Observed:
    """Providers that keep in memory what they are told."""

    def __init__(self):
        self.exporter = InMemorySpanExporter()
        self.tracer_provider = TracerProvider()
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meter_provider = MeterProvider([self.reader])

    def instrument_client(self, callfire):
        instrument_client(callfire, tracer_provider=self.tracer_provider, meter_provider=self.meter_provider)

    @property
    def spans(self):
        return self.exporter.get_finished_spans()

    @property
    def measured(self):
        """Map what the values of each series have in common to the series."""
        (resource,) = self.reader.get_metrics_data().resource_metrics
        (scope,) = resource.scope_metrics
        (metric,) = scope.metrics
        assert (scope.scope.name, metric.name, metric.unit) == ("callfire_async", "http.client.request.duration", "s")
        return {frozenset(point.attributes.items()): point for point in metric.data.data_points}


@pytest.fixture
def observed():
    """Somebody who listens."""
    observed = Observed()
    yield observed
    observed.tracer_provider.shutdown()
    observed.meter_provider.shutdown()


async def at_once(_):
    """Let no time pass between attempts."""


@pytest.fixture
def fake():
    """A CallFire in memory."""
    return FakeCallFire()


@pytest.fixture
async def callfire(fake, observed):
    """A client of it that is observed."""
    async with fake.client() as callfire:
        callfire._connection._retry_hooks = evolve(callfire._connection._retry_hooks, sleep=at_once)
        observed.instrument(callfire)
        yield callfire


async def test_an_attempt_is_a_span(callfire, observed):
    """Its name is the method and the route; the URL is its own, without the query."""
    await callfire.subscriptions.query()

    (span,) = observed.spans
    assert (span.name, span.kind, span.status.status_code) == (f"GET {ROUTE}", SpanKind.CLIENT, StatusCode.UNSET)
    assert span.instrumentation_scope.name == "callfire_async"
    assert dict(span.attributes) == SERVER | {
        "http.request.method": "GET",
        "url.template": ROUTE,
        "url.full": f"https://www.callfire.com{ROUTE}.json",
        "http.response.status_code": 200,
    }


async def test_no_id_is_in_a_name(callfire, observed):
    """A route stands for all subscriptions, in the name of the span and in the measurement."""
    for number in (41, 42):
        with pytest.raises(NotFoundError):
            await callfire.subscriptions.get(number)

    assert {span.name for span in observed.spans} == {f"GET {ROUTE}/{{id}}"}
    assert [span.attributes["url.full"][-8:] for span in observed.spans] == ["/41.json", "/42.json"]
    ((attributes, point),) = observed.measured.items()
    assert (point.count, dict(attributes)["url.template"]) == (2, f"{ROUTE}/{{id}}")


async def test_each_attempt_is_measured_in_seconds(callfire, observed):
    """In the buckets of the conventions, by what was asked and what came of it."""
    await callfire.subscriptions.query()

    ((attributes, point),) = observed.measured.items()
    assert dict(attributes) == SERVER | {
        "http.request.method": "GET",
        "url.template": ROUTE,
        "http.response.status_code": 200,
    }
    assert (point.count, point.explicit_bounds[0], point.explicit_bounds[-1]) == (1, 0.005, 10.0)
    assert 0 < point.sum < 60


async def test_a_retry_is_a_span_of_its_own(callfire, fake, observed):
    """It says how often it was sent before; the first one failed, by the status of its answer."""
    fake.fail_next(Fault(status=503))

    await callfire.subscriptions.query()

    failed, succeeded = observed.spans
    assert (failed.status.status_code, failed.status.description) == (StatusCode.ERROR, None)
    assert (failed.attributes["error.type"], failed.attributes["http.response.status_code"]) == ("503", 503)
    assert "http.request.resend_count" not in failed.attributes
    assert "error.type" not in succeeded.attributes
    assert succeeded.attributes["http.request.resend_count"] == 1
    assert len(observed.measured) == 2


async def test_an_attempt_without_an_answer_says_what_went_wrong(callfire, fake, observed):
    """There is no status, and the kind of the error is its name."""
    fake.fail_next(Fault(cut="answer"))

    with pytest.raises(TransportError):
        await callfire.with_options(max_retries=0).subscriptions.query()

    (span,) = observed.spans
    assert span.attributes["error.type"] == "callfire_async.errors.TransportError"
    assert "http.response.status_code" not in span.attributes
    assert span.status.description.startswith("GET /subscription failed with RemoteProtocolError after ")
    assert not span.events


async def test_an_answer_that_cannot_be_read_is_a_failure_with_a_status(observed):
    """The status says that it was done, the error that nobody knows what."""
    transport = httpx.MockTransport(lambda _: httpx.Response(200, text="<html>"))
    async with httpx.AsyncClient(transport=transport) as http_client:
        callfire = CallFire("login", "password", http_client=http_client, max_retries=0)
        observed.instrument(callfire)
        with pytest.raises(ResponseError):
            await callfire.subscriptions.query()

    (span,) = observed.spans
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["http.response.status_code"] == 200
    assert span.attributes["error.type"] == "callfire_async.errors.ResponseError"


async def test_a_404_that_is_a_success_is_no_error(callfire, fake, observed):
    """A delete that is repeated finds nothing: that is what was wanted."""
    created = await callfire.subscriptions.create("me@example.com", EVENT)
    fake.fail_next(Fault(cut="answer"))

    await callfire.subscriptions.delete(created.id)

    span = observed.spans[-1]
    assert (span.attributes["http.response.status_code"], span.status.status_code) == (404, StatusCode.UNSET)
    assert "error.type" not in span.attributes


async def test_a_caller_who_gives_up_ends_the_span(callfire, fake, observed):
    """It is not left open, and the cancellation goes its way."""
    arrived = asyncio.Event()

    async def hold():
        arrived.set()
        await asyncio.Event().wait()

    fake.fail_next(Fault(hold=hold))
    task = asyncio.create_task(callfire.subscriptions.query())
    await arrived.wait()
    task.cancel()
    await asyncio.wait([task])

    (span,) = observed.spans
    assert task.cancelled()
    assert (span.attributes["error.type"], span.status.description) == ("asyncio.exceptions.CancelledError", None)


async def test_nothing_private_is_reported(callfire, fake, observed):
    """No credentials, no endpoint, no number, and none of CallFire's words."""
    filter = SubscriptionFilter(from_number="12135551212")
    fake.fail_next(Fault(cut="answer"), Fault(status=500))

    with pytest.raises((ServerError, TransportError)):
        await callfire.with_options(max_retries=1).subscriptions.create(
            "https://h.example/Tok3n", EVENT, filter=filter, request_id="Requ3st"
        )

    told = "".join(span.to_json() for span in observed.spans) + repr(observed.measured)
    assert f"POST {ROUTE}" in told
    secrets = ("login", "password", "bG9naW", "Tok3n", "h.example", "12135551212", "Requ3st", "This was asked for")
    assert not [secret for secret in secrets if secret in told]


async def test_a_span_is_current_while_its_attempt_lasts(fake, observed):
    """What the caller's own httpx reports stands below it, and it below what the caller was doing."""
    seen = []

    async def hook(_):
        seen.append(trace.get_current_span().get_span_context().span_id)

    tracer = observed.tracer_provider.get_tracer("test")
    async with fake.client() as callfire:
        callfire._connection._transport.client.event_hooks = {"request": [hook]}
        observed.instrument(callfire)
        with tracer.start_as_current_span("outer") as outer:
            await callfire.subscriptions.query()

    span = observed.spans[0]
    assert seen == [span.context.span_id]
    assert span.parent.span_id == outer.get_span_context().span_id


async def test_views_made_later_report_and_twice_is_once(callfire, observed):
    """A view is the same client, and no attempt is reported two times."""
    observed.instrument(callfire)

    await callfire.with_options(timeout=5).subscriptions.query()

    assert len(observed.spans) == 1


async def test_a_client_that_is_not_instrumented_reports_nothing(fake, observed):
    """It is put on from outside, one by one."""
    async with fake.client() as callfire:
        await callfire.subscriptions.query()

    assert not observed.spans


async def test_the_global_providers_are_the_default(fake):
    """Where none are set up, nothing is reported and nothing fails."""
    async with fake.client() as callfire:
        instrument_client(callfire)

        page = await callfire.subscriptions.query()

    assert page.total_results == 0


@pytest.mark.parametrize(
    ("base_url", "address", "port"),
    [
        ("http://127.0.0.1:8080", "127.0.0.1", 8080),
        ("http://[::1]/rest", "::1", 80),
        ("https://callfire.example:8443/rest", "callfire.example", 8443),
    ],
)
async def test_the_server_is_that_of_the_base_url(fake, observed, base_url, address, port):
    """With the port of its scheme unless it says another."""
    async with fake.client(base_url=base_url, response_format="xml") as callfire:
        observed.instrument(callfire)
        await callfire.subscriptions.query()

    (span,) = observed.spans
    assert (span.attributes["server.address"], span.attributes["server.port"]) == (address, port)
    assert span.attributes["url.full"] == f"{base_url}/subscription"
