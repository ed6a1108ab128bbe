"""`instrument_client` reports each request attempt by OpenTelemetry's HTTP conventions, and nothing private."""

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
from callfire_async.models import SubscriptionFilter, TriggerEvent, WebhookResource
from callfire_async.telemetry import instrument_client
from callfire_async.testing import FakeCallFire
from callfire_async.testing.faults import Fault

ROUTE = "/api/1.1/rest/subscription"
SERVER = {"server.address": "www.callfire.com", "server.port": 443, "url.scheme": "https"}
EVENT = TriggerEvent.OUTBOUND_TEXT_FINISHED


class Recorder:
    """Providers that record spans and metrics in memory."""

    def __init__(self):
        self.exporter = InMemorySpanExporter()
        self.tracer_provider = TracerProvider()
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meter_provider = MeterProvider([self.reader])

    def instrument(self, callfire):
        instrument_client(callfire, tracer_provider=self.tracer_provider, meter_provider=self.meter_provider)

    @property
    def spans(self):
        return self.exporter.get_finished_spans()

    @property
    def series(self):
        """The series of the histogram, by their attributes."""
        (resource,) = self.reader.get_metrics_data().resource_metrics
        (scope,) = resource.scope_metrics
        (metric,) = scope.metrics
        assert (scope.scope.name, metric.name, metric.unit) == ("callfire_async", "http.client.request.duration", "s")
        return {frozenset(point.attributes.items()): point for point in metric.data.data_points}


@pytest.fixture
def recorder():
    recorder = Recorder()
    yield recorder
    recorder.tracer_provider.shutdown()
    recorder.meter_provider.shutdown()


async def no_sleep(_):
    """Return at once."""


@pytest.fixture
def fake():
    return FakeCallFire()


@pytest.fixture
async def callfire(fake, recorder):
    """An instrumented client of the fake."""
    async with fake.client() as callfire:
        callfire._connection._retry_hooks = evolve(callfire._connection._retry_hooks, sleep=no_sleep)
        recorder.instrument(callfire)
        yield callfire


async def test_attempt_is_a_span(callfire, recorder):
    """The span is named after the method and the route, and has the URL without the query."""
    await callfire.subscriptions.query()

    (span,) = recorder.spans
    assert (span.name, span.kind, span.status.status_code) == (f"GET {ROUTE}", SpanKind.CLIENT, StatusCode.UNSET)
    assert span.instrumentation_scope.name == "callfire_async"
    assert dict(span.attributes) == SERVER | {
        "http.request.method": "GET",
        "url.template": ROUTE,
        "url.full": f"https://www.callfire.com{ROUTE}.json",
        "http.response.status_code": 200,
    }


async def test_span_names_and_metrics_contain_no_id(callfire, recorder):
    """They have the route; only the span's ``url.full`` has the id."""
    for number in (41, 42):
        with pytest.raises(NotFoundError):
            await callfire.subscriptions.get(number)

    assert {span.name for span in recorder.spans} == {f"GET {ROUTE}/{{id}}"}
    assert [span.attributes["url.full"][-8:] for span in recorder.spans] == ["/41.json", "/42.json"]
    ((attributes, point),) = recorder.series.items()
    assert (point.count, dict(attributes)["url.template"]) == (2, f"{ROUTE}/{{id}}")


async def test_attempt_duration_is_recorded_in_seconds(callfire, recorder):
    """The histogram has the buckets of the conventions, and the attributes of request and response."""
    await callfire.subscriptions.query()

    ((attributes, point),) = recorder.series.items()
    assert dict(attributes) == SERVER | {
        "http.request.method": "GET",
        "url.template": ROUTE,
        "http.response.status_code": 200,
    }
    assert (point.count, point.explicit_bounds[0], point.explicit_bounds[-1]) == (1, 0.005, 10.0)
    assert 0 < point.sum < 60


async def test_retry_is_a_separate_span(callfire, fake, recorder):
    """It has the number of earlier attempts; the first span has the failed response's status as its error type."""
    fake.fail_next(Fault(status=503))

    await callfire.subscriptions.query()

    failed, succeeded = recorder.spans
    assert (failed.status.status_code, failed.status.description) == (StatusCode.ERROR, None)
    assert (failed.attributes["error.type"], failed.attributes["http.response.status_code"]) == ("503", 503)
    assert "http.request.resend_count" not in failed.attributes
    assert "error.type" not in succeeded.attributes
    assert succeeded.attributes["http.request.resend_count"] == 1
    assert len(recorder.series) == 2


async def test_attempt_without_response_has_the_error_class(callfire, fake, recorder):
    """There is no status code; the error type is the exception's class."""
    fake.fail_next(Fault(cut="answer"))

    with pytest.raises(TransportError):
        await callfire.with_options(max_retries=0).subscriptions.query()

    (span,) = recorder.spans
    assert span.attributes["error.type"] == "callfire_async.errors.TransportError"
    assert "http.response.status_code" not in span.attributes
    assert span.status.description.startswith("GET /subscription failed with RemoteProtocolError after ")
    assert not span.events


async def test_unreadable_response_is_an_error_with_a_status_code(recorder):
    """The span has the status 200 and the error type ResponseError."""
    transport = httpx.MockTransport(lambda _: httpx.Response(200, text="<html>"))
    async with httpx.AsyncClient(transport=transport) as http_client:
        callfire = CallFire("login", "password", http_client=http_client, max_retries=0)
        recorder.instrument(callfire)
        with pytest.raises(ResponseError):
            await callfire.subscriptions.query()

    (span,) = recorder.spans
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["http.response.status_code"] == 200
    assert span.attributes["error.type"] == "callfire_async.errors.ResponseError"


async def test_404_of_a_repeated_delete_is_not_an_error(callfire, fake, recorder):
    """The subscription was deleted by the attempt whose response was lost."""
    created = await callfire.subscriptions.create("me@example.com", EVENT)
    fake.fail_next(Fault(cut="answer"))

    await callfire.subscriptions.delete(created.id)

    span = recorder.spans[-1]
    assert (span.attributes["http.response.status_code"], span.status.status_code) == (404, StatusCode.UNSET)
    assert "error.type" not in span.attributes


async def test_cancellation_ends_the_span(callfire, fake, recorder):
    """The span has the error type CancelledError, and the task is cancelled."""
    arrived = asyncio.Event()

    async def hold():
        arrived.set()
        await asyncio.Event().wait()

    fake.fail_next(Fault(hold=hold))
    task = asyncio.create_task(callfire.subscriptions.query())
    await arrived.wait()
    task.cancel()
    await asyncio.wait([task])

    (span,) = recorder.spans
    assert task.cancelled()
    assert (span.attributes["error.type"], span.status.description) == ("asyncio.exceptions.CancelledError", None)


async def test_nothing_private_is_reported(callfire, fake, recorder):
    """Spans and metrics contain no credentials, endpoint, number, request id or message of CallFire."""
    filter = SubscriptionFilter(from_number="12135551212")
    fake.fail_next(Fault(cut="answer"), Fault(status=500))

    with pytest.raises((ServerError, TransportError)):
        await callfire.with_options(max_retries=1).subscriptions.create(
            "https://h.example/Tok3n", EVENT, filter=filter, request_id="Requ3st"
        )

    reported = "".join(span.to_json() for span in recorder.spans) + repr(recorder.series)
    assert f"POST {ROUTE}" in reported
    secrets = ("login", "password", "bG9naW", "Tok3n", "h.example", "12135551212", "Requ3st", "Injected fault")
    assert not [secret for secret in secrets if secret in reported]


async def test_span_is_current_during_its_attempt(fake, recorder):
    """It is a child of the caller's span, and the parent of spans that httpx creates."""
    current_ids = []

    async def hook(_):
        current_ids.append(trace.get_current_span().get_span_context().span_id)

    tracer = recorder.tracer_provider.get_tracer("test")
    async with fake.client() as callfire:
        callfire._connection._transport.client.event_hooks = {"request": [hook]}
        recorder.instrument(callfire)
        with tracer.start_as_current_span("outer") as outer:
            await callfire.subscriptions.query()

    span = recorder.spans[0]
    assert current_ids == [span.context.span_id]
    assert span.parent.span_id == outer.get_span_context().span_id


async def test_later_views_report_and_repeated_instrumentation_does_not_double(callfire, recorder):
    """A view shares its client's instrumentation, and each attempt is reported once."""
    recorder.instrument(callfire)

    await callfire.with_options(timeout=5).subscriptions.query()

    assert len(recorder.spans) == 1


async def test_client_without_instrumentation_reports_nothing(fake, recorder):
    """Instrumentation is per client, not global."""
    async with fake.client() as callfire:
        await callfire.subscriptions.query()

    assert not recorder.spans


async def test_default_providers_are_the_global_ones(fake):
    """If none are configured, nothing is reported and calls succeed."""
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
async def test_server_attributes_are_those_of_the_base_url(fake, recorder, base_url, address, port):
    """Without a port in the URL, the port is the default of the scheme."""
    async with fake.client(base_url=base_url, response_format="xml") as callfire:
        recorder.instrument(callfire)
        await callfire.subscriptions.query()

    (span,) = recorder.spans
    assert (span.attributes["server.address"], span.attributes["server.port"]) == (address, port)
    assert span.attributes["url.full"] == f"{base_url}/subscription"


async def test_webhooks_are_reported_below_the_url_of_api_v2(fake, recorder):
    """Span and metric have its route; only the span has the ID, and neither has callback or secret."""
    async with fake.client(webhooks_base_url="https://api.callfire.example:8443/v2") as callfire:
        recorder.instrument(callfire)
        reference = await callfire.webhooks.create(
            "https://h.example/Tok3n", WebhookResource.INBOUND_TEXT, secret="a-secret-of-enough-letters"
        )
        await callfire.webhooks.get(reference.id)

    create, get = recorder.spans
    assert (create.name, get.name) == ("POST /v2/webhooks", "GET /v2/webhooks/{id}")
    assert get.attributes["url.full"] == f"https://api.callfire.example:8443/v2/webhooks/{reference.id}"
    assert (get.attributes["server.address"], get.attributes["server.port"]) == ("api.callfire.example", 8443)
    assert create.attributes["http.response.status_code"] == 201
    assert "Tok3n" not in repr(create.attributes)
    assert "a-secret" not in repr(create.attributes)
