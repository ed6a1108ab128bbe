"""The documented dashboard and alert rules query metrics and labels that the code emits."""

import asyncio
import json
import re
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import httpx
import promql_parser
import pytest
import yaml
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.parser import text_string_to_metric_families
from reference_tables import Metric, attributes_table, metrics, metrics_list

from callfire_async import CallFire, InboxUnavailableError, NotFoundError, TriggerEvent
from callfire_async.cli.commands.demo import campaign
from callfire_async.inspector._server import serve
from callfire_async.notifications import (
    AppendResult,
    CallFinished,
    CampaignNotification,
    Delivery,
    EndpointTokens,
    MemoryInbox,
    Notification,
    Receiver,
    Router,
    TextFinished,
)
from callfire_async.notifications.asgi import NotificationApp
from callfire_async.telemetry import instrument_client, instrument_receiver
from callfire_async.testing import FakeCallFire

MONITORING = Path(__file__).parents[2] / "docs/monitoring"
DASHBOARD = json.loads((MONITORING / "grafana-dashboard.json").read_text(encoding="utf-8"))
RULES = yaml.safe_load((MONITORING / "prometheus-rules.yml").read_text(encoding="utf-8"))
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"]]
TOKEN = "0123456789abcdef"
DEADLINE = 60


class Sample(NamedTuple):
    """One sample of a scrape."""

    name: str
    labels: dict[str, str]


class Panel(NamedTuple):
    """One query of a panel."""

    title: str
    expression: str


PANELS = [
    Panel(panel["title"], target["expr"].replace("$instance", ".*").replace("$__rate_interval", "1m"))
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
]


# --- emitted metrics --------------------------------------------------------------------------------------


class LimitedInbox(MemoryInbox):
    """An inbox that rejects deliveries while ``is_full`` is set."""

    is_full = False

    async def append(self, delivery: Delivery) -> AppendResult:
        if self.is_full:
            raise InboxUnavailableError("no space")
        return await super().append(delivery)


def make_router() -> Router:
    router = Router()

    @router.on(TextFinished, name="text")
    async def text(event: TextFinished) -> None:
        if event.text.message == "something else":
            raise LookupError

    async def ignore(event: Notification) -> None: ...

    for event_type in (CallFinished, CampaignNotification):
        router.on(event_type, name=event_type.__name__)(ignore)
    return router


async def run_campaign(meter_provider: MeterProvider, port: int) -> str:
    """Run the demo's campaign and provoke each kind of failure; return the scrapes."""
    inbox, fake = LimitedInbox(), FakeCallFire()
    receiver = Receiver(make_router(), tokens=TOKEN, inbox=inbox)
    instrument_receiver(receiver, meter_provider=meter_provider)
    app = NotificationApp(receiver)
    async with serve(fake) as callfire_port, serve(app) as own_port, httpx.AsyncClient() as client:
        own = f"http://127.0.0.1:{own_port}"
        base_url = f"http://127.0.0.1:{callfire_port}/api/1.1/rest"
        async with CallFire("login", "password", base_url=base_url) as callfire:
            instrument_client(callfire, meter_provider=meter_provider)
            await subscribe(callfire, EndpointTokens(TOKEN).url(own))
        async with fake:
            for event in campaign(20):
                await fake.emit(event)
        for path, body in ((TOKEN, b"{"), (TOKEN, b"{"), ("guess", b"{"), (TOKEN, b"")):
            await client.post(f"{own}/{path}", content=body)
        inbox.is_full = True
        await client.post(f"{own}/{TOKEN}", content=b"{}")
        await receiver.idle(timeout=DEADLINE)
        metrics = await scrape(client, port)
    await post_to_stopped(NotificationApp(receiver))
    async with httpx.AsyncClient() as client:
        return metrics + (await client.get(f"http://127.0.0.1:{port}/metrics")).text


async def subscribe(callfire: CallFire, endpoint: str) -> None:
    for trigger in TriggerEvent:
        if trigger != TriggerEvent.UNDEFINED_EVENT:
            await callfire.subscriptions.create(endpoint, trigger)
    with pytest.raises(NotFoundError):
        await callfire.subscriptions.get(1)


async def scrape(client: httpx.AsyncClient, port: int) -> str:
    """Scrape until the dead letters have been counted."""
    async with asyncio.timeout(DEADLINE):
        while True:
            metrics = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
            if re.search(r'callfire_inbox_deliveries{.*"dead".*} [1-9]', metrics):
                return metrics
            await asyncio.sleep(0.1)


async def post_to_stopped(app: NotificationApp) -> None:
    """Post to a receiver that is not running."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://receiver") as client:
        await client.post(f"/{TOKEN}", content=b"{}")


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    """The samples of a campaign, scraped over HTTP and parsed by Prometheus' own parser."""
    registry = CollectorRegistry()
    meter_provider = MeterProvider([PrometheusMetricReader(registry=registry)])
    server, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        metrics = asyncio.run(run_campaign(meter_provider, server.server_port))
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        meter_provider.shutdown()
    # Prometheus adds these labels when it scrapes.
    return [
        Sample(sample.name, sample.labels | {"instance": "127.0.0.1", "job": "callfire"})
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
    ]


# --- queries ----------------------------------------------------------------------------------------------


def nodes(expression: promql_parser.Expr):
    """Yield an expression and all its subexpressions."""
    yield expression
    parts = [getattr(expression, name, None) for name in ("expr", "lhs", "rhs", "vector_selector", "param")]
    for part in [*parts, *getattr(expression, "args", [])]:
        if isinstance(part, promql_parser.Expr):
            yield from nodes(part)


def selectors(expression: promql_parser.Expr) -> list[promql_parser.VectorSelector]:
    return [node for node in nodes(expression) if isinstance(node, promql_parser.VectorSelector)]


def grouped_by(expression: promql_parser.Expr) -> set[str]:
    modifiers = [node.modifier for node in nodes(expression) if isinstance(node, promql_parser.AggregateExpr)]
    return {label for modifier in modifiers if modifier for label in modifier.labels}


def is_match(matcher: promql_parser.Matcher, labels: dict[str, str]) -> bool:
    value, op = labels.get(matcher.name, ""), matcher.op
    if op == promql_parser.MatchOp.Equal:
        return value == matcher.value
    if op == promql_parser.MatchOp.NotEqual:
        return value != matcher.value
    matches = re.fullmatch(matcher.value, value) is not None
    return matches == (op == promql_parser.MatchOp.Re)


def select(selector: promql_parser.VectorSelector, samples: list[Sample]) -> list[Sample]:
    return [
        sample
        for sample in samples
        if sample.name == selector.name
        and all(is_match(matcher, sample.labels) for matcher in selector.matchers.matchers)
    ]


def check(expression: str, samples: list[Sample]) -> None:
    """Assert that all series and labels of a query exist."""
    parsed = promql_parser.parse(expression)
    series = [select(selector, samples) for selector in selectors(parsed)]
    assert series
    assert all(series)
    for label in grouped_by(parsed):
        assert any(label in sample.labels for sample in series[0]), label


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.title)
def test_panel_queries_existing_series(panel, samples):
    """Names, label values and grouping labels all exist."""
    check(panel.expression.replace("$__range", "1h"), samples)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_alert_queries_existing_series(alert, samples):
    """An alert on a series that does not exist would never fire."""
    check(alert["expr"], samples)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_alert_has_a_severity_and_valid_annotations(alert):
    """The annotations use only labels that the query keeps."""
    text = alert["annotations"]["summary"] + alert["annotations"]["description"]
    named = set(re.findall(r"\$labels\.(\w+)", text))

    assert alert["labels"]["severity"] in ("critical", "warning", "info")
    assert named <= grouped_by(promql_parser.parse(alert["expr"]))


def test_legends_use_existing_labels(samples):
    """Grafana writes them in double braces."""
    labels = {label for sample in samples for label in sample.labels}
    legends = " ".join(target["legendFormat"] for panel in DASHBOARD["panels"] for target in panel["targets"])

    assert set(re.findall(r"{{(\w+)}}", legends)) <= labels


def test_panels_do_not_overlap():
    """They also fit in the grid and have unique ids."""
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]

    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_labels_contain_nothing_that_a_sender_chose(samples):
    """Ids, numbers and tokens do not create series."""
    process_labels = ("le", "server_port", "service_instance_id")
    values = {value for sample in samples for name, value in sample.labels.items() if name not in process_labels}

    assert not [value for value in values if re.search(r"\d{5}", value) or TOKEN in value]


def test_the_page_has_the_metrics_and_their_attributes(samples):
    """The reference lists each metric that is emitted, with exactly the attributes that its series have."""
    emitted: dict[str, set[str]] = {}
    for sample in samples:
        name = re.sub(r"_(bucket|count|sum|created)$", "", sample.name)
        emitted.setdefault(name, set()).update(sample.labels)
    added = {"le", "instance", "job", "otel_scope_name", "otel_scope_schema_url", "otel_scope_version"}
    documented = {prometheus_name(metric): {*map(underscored, metric.attributes)} for metric in metrics()}

    assert {name: labels - added for name, labels in emitted.items() if name in documented} == documented
    assert metrics_list().count("\n: ") == len(documented) + len([*filter(None, documented.values())])
    assert attributes_table().count("\n") == len({*chain.from_iterable(documented.values())}) + 1


def underscored(name: str) -> str:
    """Return the form that a name has in Prometheus."""
    return name.replace(".", "_")


def prometheus_name(metric: Metric) -> str:
    """Return the name of a metric as the exporter forms it: with its unit, unless that is an annotation."""
    return underscored(metric.name) + ("_seconds" if metric.unit == "s" else "")
