"""`FakeCallFire`: the client connected to it, and its postbacks."""

import asyncio
import inspect
import itertools
from collections.abc import AsyncIterator

import httpx
import pytest
from attrs import evolve, frozen
from notifications.servers import uvicorn_server
from starlette.requests import Request
from starlette.responses import Response

from callfire_async import (
    AuthenticationError,
    BadRequestError,
    CallFire,
    NotFoundError,
    NotificationFormat,
    Subscription,
    SubscriptionFilter,
    TriggerEvent,
    WebhookResource,
)
from callfire_async.models import WEBHOOK_EVENTS
from callfire_async.notifications import parse
from callfire_async.testing import (
    FakeCallFire,
    PostbackFault,
    PostbackResult,
    make_call_finished,
    make_campaign_notification,
    make_campaign_started,
    make_text_finished,
    make_text_notification,
    make_text_received,
    make_text_sent,
    samples,
)

ENDPOINT = "https://hooks.example.com/callfire/token"
OUTBOUND = TriggerEvent.OUTBOUND_TEXT_FINISHED

each_format = pytest.mark.parametrize("response_format", ["json", "xml"])


@frozen
class Received:
    """One postback as received by an endpoint."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes
    is_complete: bool


class Endpoint:
    """An ASGI application that records postbacks."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.status = 204
        self.active = self.max_active = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.clients: set[object] = set()

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        self.active += 1
        self.max_active = max(self.max_active, self.active)
        try:
            await self.respond(scope, receive, send)
        finally:
            self.active -= 1

    async def respond(self, scope, receive, send) -> None:
        """Record one request, and respond once the gate is open."""
        request = Request(scope, receive)
        body, is_complete = b"", False
        while not is_complete:
            message = await receive()
            if message["type"] == "http.disconnect":
                break
            body += message["body"]
            is_complete = not message.get("more_body")
        self.clients.add(scope["client"])
        headers = [(name.decode().title(), value.decode()) for name, value in request.headers.raw]
        self.received.append(Received(request.method, request.url.path, headers, body, is_complete))
        await self.gate.wait()
        await Response(status_code=self.status)(scope, receive, send)


@pytest.fixture
def endpoint() -> Endpoint:
    """Return an endpoint."""
    return Endpoint()


@pytest.fixture
async def fake(endpoint) -> AsyncIterator[FakeCallFire]:
    """Yield a fake that posts to the endpoint in process."""
    async with FakeCallFire(transport=httpx.ASGITransport(endpoint)) as fake:
        yield fake


async def subscribe(
    fake: FakeCallFire, trigger_event: TriggerEvent = OUTBOUND, endpoint: str = ENDPOINT, **fields
) -> int:
    """Create a subscription, and return its ID."""
    async with fake.client() as callfire:
        return (await callfire.subscriptions.create(endpoint, trigger_event, **fields)).id


# --- client -----------------------------------------------------------------------------------------------


@each_format
@pytest.mark.parametrize("list_of_one", ["object", "array"])
@pytest.mark.parametrize("update_status", [204, 200])
@pytest.mark.filterwarnings("ignore:non_strict_ssl")
async def test_the_life_cycle_of_a_subscription(response_format, list_of_one, update_status):
    """The client creates, finds, updates and deletes it."""
    fake = FakeCallFire(list_of_one=list_of_one, update_status=update_status)
    filter = SubscriptionFilter(broadcast_id=896807881003, to_number="67076:KEYWORD")

    async with fake.client(response_format=response_format) as callfire:
        subscriptions = callfire.subscriptions
        created = await subscriptions.create(
            ENDPOINT, OUTBOUND, notification_format=NotificationFormat.JSON, filter=filter, non_strict_ssl=True
        )
        found = await subscriptions.get(created.id)
        await subscriptions.update(created.id, enabled=False)
        listed = [subscription async for subscription in subscriptions.all()]
        await subscriptions.delete(created.id)
        remaining = await subscriptions.query()

    assert created.location == f"https://www.callfire.com/api/1.1/rest/subscription/{created.id}"
    assert found == Subscription(created.id, True, ENDPOINT, True, NotificationFormat.JSON, OUTBOUND, filter)  # noqa: FBT003
    assert listed == [evolve(found, enabled=False)]
    assert (remaining.items, remaining.total_results) == ((), 0)


async def test_the_life_cycle_of_a_webhook():
    """The client reaches API v2 of the fake too."""
    fake = FakeCallFire()

    async with fake.client() as callfire:
        webhooks = callfire.webhooks
        created = await webhooks.create(ENDPOINT, WebhookResource.TEXT_BROADCAST, name="texts", secret="s" * 16)
        found = await webhooks.get(created.id)
        await webhooks.update(created.id, enabled=False)
        listed = [webhook async for webhook in webhooks.all(enabled=False)]
        resources = await webhooks.resources()
        await webhooks.delete(created.id)
        with pytest.raises(NotFoundError, match="Not Found"):
            await webhooks.get(created.id)

    assert (found.callback, found.name, found.events) == (ENDPOINT, "texts", WEBHOOK_EVENTS[found.resource])
    assert [(webhook.id, webhook.enabled) for webhook in listed] == [(created.id, False)]
    assert {info.resource: info.events for info in resources} == WEBHOOK_EVENTS
    assert fake.webhooks == ()


@each_format
async def test_a_page_of_a_thousand_subscriptions(response_format):
    """The client reads the largest page of CallFire."""
    fake = FakeCallFire()
    async with fake.client(response_format=response_format, max_connections=100) as callfire:
        for number in range(1000):
            await callfire.subscriptions.create(
                f"{ENDPOINT}{number}", OUTBOUND, filter=SubscriptionFilter(1, 2, "67076", "67076:A", inbound=False)
            )
        page = await callfire.subscriptions.query()

    assert (page.items, page.total_results) == (fake.subscriptions, 1000)


@each_format
async def test_error_responses_are_errors_of_the_client(response_format):
    """The errors have the fake's messages."""
    fake = FakeCallFire(max_subscriptions=0)

    async with fake.client(response_format=response_format) as callfire:
        with pytest.raises(BadRequestError) as bad_request:
            await callfire.subscriptions.create(ENDPOINT, OUTBOUND)
        with pytest.raises(NotFoundError) as not_found:
            await callfire.subscriptions.get(42)
    async with fake.client(response_format=response_format, password="wrong") as callfire:
        with pytest.raises(AuthenticationError) as unauthorized:
            await callfire.subscriptions.get(42)

    messages = [raised.value.message for raised in (bad_request, not_found, unauthorized)]
    assert messages == [
        "An account has at most 0 subscriptions",
        "Not Found",
        "Unauthorized, API Key missing or invalid",
    ]


@each_format
async def test_a_server_can_run_the_fake(response_format, fake):
    """It is an ASGI application with a lifespan."""
    async with uvicorn_server(fake) as port:
        base_url = f"http://127.0.0.1:{port}/api/1.1/rest"
        async with CallFire("login", "password", base_url=base_url, response_format=response_format) as callfire:
            created = await callfire.subscriptions.create(ENDPOINT, OUTBOUND)

    assert created.location == f"{base_url}/subscription/{created.id}"
    assert [subscription.id for subscription in fake.subscriptions] == [created.id]


async def test_a_server_serves_both_generations(fake):
    """Each below a base URL of its own."""
    async with uvicorn_server(fake) as port:
        url = f"http://127.0.0.1:{port}"
        async with CallFire("login", "password", base_url=f"{url}/rest", webhooks_base_url=f"{url}/v2") as callfire:
            subscription = await callfire.subscriptions.create(ENDPOINT, OUTBOUND)
            webhook = await callfire.webhooks.create(ENDPOINT, WebhookResource.INBOUND_TEXT)

    assert [item.id for item in (*fake.subscriptions, *fake.webhooks)] == [subscription.id, webhook.id]


# --- postbacks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("notification_format", "content_type", "start"),
    [
        (None, "text/xml; charset=UTF-8", b"<?xml"),
        ("XML", "text/xml; charset=UTF-8", b"<?xml"),
        ("JSON", "application/json", b'{"TextNotification":'),
        ("SOAP", "text/xml; charset=UTF-8", b"<?xml"),
    ],
)
async def test_a_postback(fake, endpoint, notification_format, content_type, start):
    """It has the headers of a real postback, the subscription's ID and its format."""
    event = make_text_sent()
    subscription_id = await subscribe(fake, notification_format=notification_format)

    await fake.emit(event)

    (received,) = endpoint.received
    assert (received.method, received.path) == ("POST", "/callfire/token")
    assert received.headers == [
        ("Host", "hooks.example.com"),
        ("User-Agent", "CallFire-HTTP/1.0"),
        ("Content-Type", content_type),
        ("Content-Length", str(len(received.body))),
        ("Connection", "Keep-Alive"),
    ]
    assert received.body.startswith(start)
    assert (b"Envelope" in received.body) is (notification_format == "SOAP")
    assert parse(received.body) == evolve(event, subscription_id=subscription_id)


async def test_the_results_of_postbacks():
    """A result has the subscription, the status, the latency and the event's key."""
    endpoint = Endpoint()
    fake = FakeCallFire(transport=httpx.ASGITransport(endpoint), clock=itertools.count(step=0.25).__next__)
    first, second = await subscribe(fake), await subscribe(fake)
    event = make_text_sent()

    results = await fake.emit(event)

    assert [(result.subscription_id, result.status, result.key) for result in results] == [
        (first, 204, event.key),
        (second, 204, event.key),
    ]
    assert all(result.latency in (0.25, 0.5, 0.75) for result in results)


async def test_the_root_is_the_name_of_the_event(fake, endpoint):
    """A name that differs from that of real postbacks is posted too."""
    await subscribe(fake)

    await fake.emit(samples.EVENTS["TextSent"])

    assert b"<n:TextSent " in endpoint.received[0].body


async def test_only_matching_events_are_posted(fake, endpoint):
    """The trigger and the filter decide."""
    await subscribe(fake, TriggerEvent.INBOUND_TEXT_FINISHED)
    await subscribe(fake, filter=SubscriptionFilter(broadcast_id=6))
    await subscribe(fake, filter=SubscriptionFilter(to_number="67076:OTHER"))
    matching = await subscribe(fake, filter=SubscriptionFilter(broadcast_id=5))

    results = await fake.emit(make_text_sent(broadcast_id=5))

    assert [result.subscription_id for result in results] == [matching]
    assert len(endpoint.received) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"enabled": False},
        {"notification_format": NotificationFormat.EMAIL},
        {"notification_format": NotificationFormat.LEGACY},
        {"endpoint": "someone@example.com"},
        {"endpoint": "mailto:someone@example.com"},
    ],
)
async def test_disabled_and_mail_subscriptions_get_no_postbacks(fake, endpoint, fields):
    """Only enabled subscriptions with an HTTP endpoint get postbacks."""
    await subscribe(fake, **fields)

    assert (await fake.emit(make_text_sent()), endpoint.received) == ([], [])


@pytest.mark.parametrize("event", [make_text_notification(), make_campaign_notification()])
async def test_unfinished_events_are_not_posted(fake, endpoint, event):
    """They match no trigger."""
    for trigger_event in TriggerEvent:
        await subscribe(fake, trigger_event)

    assert (await fake.emit(event), endpoint.received) == ([], [])


@pytest.mark.parametrize(
    ("expires_at", "count"),
    [
        ("946684800000", 0),
        ("2000-01-01T00:00:00Z", 0),
        ("2000-01-01T00:00:00", 0),
        ("4102444800000", 1),
        ("2100-01-01T00:00:00", 1),
    ],
)
async def test_a_subscription_that_expires(fake, endpoint, expires_at, count):
    """It gets the events until then; a time without an offset is in UTC."""
    parameters = {"Endpoint": ENDPOINT, "TriggerEvent": OUTBOUND, "ExpiresAt": expires_at}
    transport = httpx.ASGITransport(fake)
    async with httpx.AsyncClient(transport=transport, auth=("login", "password")) as http:
        (await http.post("https://callfire/subscription", data=parameters)).raise_for_status()

    await fake.emit(make_text_sent())

    assert len(endpoint.received) == count


async def test_a_changed_or_deleted_subscription(fake, endpoint):
    """The subscriptions at the time of the event count."""
    changed, deleted = await subscribe(fake), await subscribe(fake)
    async with fake.client() as callfire:
        await callfire.subscriptions.update(changed, endpoint=f"{ENDPOINT}/new")
        await callfire.subscriptions.delete(deleted)

    await fake.emit(make_text_sent())

    assert [received.path for received in endpoint.received] == ["/callfire/token/new"]


@pytest.mark.parametrize("status", [500, 503, 404, 307, 200])
async def test_a_postback_is_not_retried(fake, endpoint, status):
    """CallFire documents neither retries nor redirects, whatever the endpoint's status."""
    endpoint.status = status
    await subscribe(fake)

    results = await fake.emit(make_text_sent())

    assert ([result.status for result in results], len(endpoint.received)) == ([status], 1)


async def test_an_unreachable_endpoint(unused_tcp_port):
    """Without a response the status is None."""
    async with FakeCallFire() as fake:
        await subscribe(fake, endpoint=f"http://127.0.0.1:{unused_tcp_port}/token")

        (result,) = await fake.emit(make_text_sent())

    assert result.status is None


async def test_an_endpoint_that_does_not_respond(endpoint):
    """The fake waits for `postback_timeout`."""
    endpoint.gate.clear()
    async with uvicorn_server(endpoint) as port, FakeCallFire(postback_timeout=1) as fake:
        await subscribe(fake, endpoint=f"http://127.0.0.1:{port}/token")

        (result,) = await fake.emit(make_text_sent())
        endpoint.gate.set()

    assert (result.status, len(endpoint.received)) == (None, 1)


async def test_the_headers_over_a_connection(endpoint):
    """No header of the HTTP library is added."""
    async with uvicorn_server(endpoint) as port, FakeCallFire() as fake:
        await subscribe(fake, TriggerEvent.OUTBOUND_CALL_FINISHED, endpoint=f"http://127.0.0.1:{port}/token")

        (result,) = await fake.emit(make_call_finished())

    assert (result.status, [name for name, _ in endpoint.received[0].headers]) == (
        204,
        ["Host", "User-Agent", "Content-Type", "Content-Length", "Connection"],
    )


async def test_connections_are_reused_inside_async_with(endpoint):
    """Sequential postbacks share a connection, also if the fake is entered twice."""
    async with uvicorn_server(endpoint) as port, FakeCallFire() as fake:
        await subscribe(fake, endpoint=f"http://127.0.0.1:{port}/token")
        async with fake:
            await fake.emit(make_text_sent())
        await fake.emit(make_text_sent())

    assert (len(endpoint.received), len(endpoint.clients)) == (2, 1)


async def test_connections_are_closed_outside_async_with(endpoint):
    """Each event then has its own connections."""
    async with uvicorn_server(endpoint) as port:
        fake = FakeCallFire()
        await subscribe(fake, endpoint=f"http://127.0.0.1:{port}/token")
        await fake.emit(make_text_sent())
        await fake.emit(make_text_sent())
        await fake.aclose()
        await fake.aclose()

    assert (len(endpoint.received), len(endpoint.clients)) == (2, 2)


async def test_the_concurrency_of_postbacks_is_limited(endpoint):
    """The limit applies across events."""
    async with FakeCallFire(transport=httpx.ASGITransport(endpoint), concurrency=3) as fake:
        for _ in range(4):
            await subscribe(fake)

        endpoint.gate.clear()

        emitting = asyncio.gather(*(fake.emit(make_text_sent()) for _ in range(5)))
        async with asyncio.timeout(20):
            while endpoint.active < 3:  # noqa: ASYNC110  # the endpoint only counts
                await asyncio.sleep(0)
        endpoint.gate.set()
        await emitting

    assert (len(endpoint.received), endpoint.max_active) == (20, 3)


# --- faults -----------------------------------------------------------------------------------------------


async def test_a_dropped_postback(fake, endpoint):
    """It is not posted, and has no result."""
    await subscribe(fake)
    fake.postback_faults.append(PostbackFault.DROPPED)

    results = [await fake.emit(make_text_sent()), await fake.emit(make_text_sent())]

    assert ([len(of_event) for of_event in results], len(endpoint.received)) == ([0, 1], 1)


async def test_a_duplicated_postback(fake, endpoint):
    """The same bytes are posted twice, and both have a result."""
    await subscribe(fake)
    fake.postback_faults.extend([None, PostbackFault.DUPLICATED])

    results = [await fake.emit(make_text_sent()), await fake.emit(make_text_sent())]

    assert [len(of_event) for of_event in results] == [1, 2]
    assert endpoint.received[1] == endpoint.received[2] != endpoint.received[0]


async def test_a_late_postback(fake, endpoint):
    """It is posted after those of the next event."""
    await subscribe(fake)
    await subscribe(fake, TriggerEvent.CAMPAIGN_STARTED)
    first, second, other = make_text_sent(), make_text_finished(result="DNT"), make_text_received()
    fake.postback_faults.append(PostbackFault.LATE)

    results = [await fake.emit(event) for event in (first, second, other)]

    assert [[result.key for result in of_event] for of_event in results] == [[], [second.key, first.key], []]
    assert [parse(received.body).key for received in endpoint.received] == [second.key, first.key]


async def test_a_late_postback_after_an_event_without_subscriptions(fake):
    """The next event need not match a subscription."""
    await subscribe(fake)
    fake.postback_faults.append(PostbackFault.LATE)
    await fake.emit(event := make_text_sent())

    assert [result.key for result in await fake.emit(make_campaign_started())] == [event.key]


async def test_a_cut_postback(endpoint):
    """The endpoint receives half of the body; there is no response."""
    async with uvicorn_server(endpoint) as port, FakeCallFire() as fake:
        await subscribe(fake, endpoint=f"http://127.0.0.1:{port}/token")
        fake.postback_faults.append(PostbackFault.CUT)

        (cut,) = await fake.emit(make_text_sent())
        (whole,) = await fake.emit(make_text_sent())

    assert (cut.status, whole.status) == (None, 204)
    assert sorted(received.is_complete for received in endpoint.received) == [False, True]


async def test_a_cut_postback_in_process(endpoint):
    """The application fails to read the body; there is no response."""
    async with FakeCallFire(transport=httpx.ASGITransport(endpoint)) as fake:
        await subscribe(fake)
        fake.postback_faults.append(PostbackFault.CUT)

        (cut,) = await fake.emit(make_text_sent())
        (whole,) = await fake.emit(make_text_sent())

    assert (cut.status, whole.status) == (None, 204)
    assert [received.is_complete for received in endpoint.received] == [True]


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:1/token", "https://[token", "https://callfire.invalid/token"])
async def test_an_endpoint_that_cannot_be_reached(endpoint):
    """There is no response; an invalid URL is no error of the fake."""
    async with FakeCallFire() as fake:
        await subscribe(fake, endpoint=endpoint)

        (result,) = await fake.emit(make_text_sent())

    assert result.status is None


@pytest.mark.parametrize("url", ["https://[token", "https://127.0.0.256/token", f"https://{'a' * 64}.invalid/token"])
@pytest.mark.parametrize("in_process", [True, False])
async def test_an_endpoint_that_cannot_be_a_host(endpoint, url, in_process):
    """It gets no postback, and others do."""
    transport = httpx.ASGITransport(endpoint) if in_process else None
    async with uvicorn_server(endpoint) as port, FakeCallFire(transport=transport) as fake:
        await subscribe(fake, endpoint=url)
        await subscribe(fake, endpoint=f"http://127.0.0.1:{port}/token")

        *_, valid = await fake.emit(make_text_sent())

    assert (valid.status, endpoint.received[-1].path) == (204, "/token")


def test_results_are_values():
    """They can be compared and hashed."""
    assert (
        len({PostbackResult(1, 204, 0.5, ("text", 1, "SENT")), PostbackResult(1, 204, 0.5, ("text", 1, "SENT"))}) == 1
    )


@pytest.mark.parametrize(
    ("option", "error"),
    [
        ({"repeated_request_id": "reject"}, ValueError),
        ({"list_of_one": "list"}, ValueError),
        ({"update_status": 201}, ValueError),
        ({"webhook_update": "Replace"}, ValueError),
        ({"postback_shape": 2015}, ValueError),
        ({"max_subscriptions": -1}, ValueError),
        ({"concurrency": 0}, ValueError),
        ({"postback_timeout": 0}, ValueError),
        ({"postback_timeout": "30"}, TypeError),
        ({"drop_rate": 5}, ValueError),
        ({"duplicate_rate": -0.1}, ValueError),
        ({"duplicate_rate": None}, TypeError),
    ],
)
def test_an_invalid_option(option, error):
    """It is refused where it is given: ignored, it would hide what a test is about."""
    (name,) = option

    with pytest.raises(error, match=f"^{name} must "):
        FakeCallFire(**option)


def test_every_option_is_documented():
    """The docstring has each parameter."""
    options = inspect.signature(FakeCallFire).parameters

    assert all(f"{name}:" in FakeCallFire.__doc__ for name in options)


async def test_drop_and_duplicate_rates(endpoint):
    """A seed makes the random choice repeatable; dropped postbacks are recorded."""
    fakes = [
        FakeCallFire(seed=1, drop_rate=0.2, duplicate_rate=0.1, transport=httpx.ASGITransport(endpoint)) for _ in "ab"
    ]
    events = [make_text_sent() for _ in range(200)]
    keys = []
    for fake in fakes:
        await subscribe(fake)
        keys.append([[result.key for result in await fake.emit(event)] for event in events])

    assert keys[0] == keys[1]
    counts = [len(of_event) for of_event in keys[0]]
    assert [counts.count(number) / 200 for number in (0, 2)] == pytest.approx([0.2, 0.1], abs=0.08)
    assert [key for _, key in fakes[0].dropped] == [
        event.key for event, count in zip(events, counts, strict=True) if not count
    ]
