"""`FakeCallFire` as a whole: the real client against it, and what it posts to endpoints."""

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
)
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
    """One postback as an endpoint saw it."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes
    whole: bool


class Endpoint:
    """An ASGI application that keeps what is posted to it."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.status = 204
        self.under_way = self.most_under_way = 0
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
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self.answer(scope, receive, send)
        finally:
            self.under_way -= 1

    async def answer(self, scope, receive, send) -> None:
        """Keep one request, and answer once the gate is open."""
        request = Request(scope, receive)
        body, whole = b"", False
        while not whole:
            message = await receive()
            if message["type"] == "http.disconnect":
                break
            body += message["body"]
            whole = not message.get("more_body")
        self.clients.add(scope["client"])
        headers = [(name.decode().title(), value.decode()) for name, value in request.headers.raw]
        self.received.append(Received(request.method, request.url.path, headers, body, whole))
        await self.gate.wait()
        await Response(status_code=self.status)(scope, receive, send)


@pytest.fixture
def endpoint() -> Endpoint:
    """Give an endpoint."""
    return Endpoint()


@pytest.fixture
async def fake(endpoint) -> AsyncIterator[FakeCallFire]:
    """Give a fake that posts to the endpoint in process."""
    async with FakeCallFire(transport=httpx.ASGITransport(endpoint)) as fake:
        yield fake


async def subscribe(
    fake: FakeCallFire, trigger_event: TriggerEvent = OUTBOUND, endpoint: str = ENDPOINT, **fields
) -> int:
    """Subscribe, and return the id."""
    async with fake.client() as callfire:
        return (await callfire.subscriptions.create(endpoint, trigger_event, **fields)).id


# --- the client against it --------------------------------------------------------------------------------


@each_format
@pytest.mark.parametrize("list_of_one", ["object", "array"])
@pytest.mark.parametrize("update_status", [204, 200])
@pytest.mark.filterwarnings("ignore:non_strict_ssl")
async def test_a_whole_life_of_a_subscription(response_format, list_of_one, update_status):
    """Created, found, changed and deleted by the real client."""
    fake = FakeCallFire(list_of_one=list_of_one, update_status=update_status)
    chosen = SubscriptionFilter(broadcast_id=896807881003, to_number="67076:KEYWORD")

    async with fake.client(response_format=response_format) as callfire:
        subscriptions = callfire.subscriptions
        made = await subscriptions.create(
            ENDPOINT, OUTBOUND, notification_format=NotificationFormat.JSON, filter=chosen, non_strict_ssl=True
        )
        found = await subscriptions.get(made.id)
        await subscriptions.update(made.id, enabled=False)
        listed = [one async for one in subscriptions.all()]
        await subscriptions.delete(made.id)
        left = await subscriptions.query()

    assert made.location == f"https://www.callfire.com/api/1.1/rest/subscription/{made.id}"
    assert found == Subscription(made.id, True, ENDPOINT, True, NotificationFormat.JSON, OUTBOUND, chosen)  # noqa: FBT003
    assert listed == [evolve(found, enabled=False)]
    assert (left.items, left.total_results) == ((), 0)


@each_format
async def test_a_thousand_subscriptions_are_one_page(response_format):
    """As many as CallFire gives at once can be read at once."""
    fake = FakeCallFire()
    async with fake.client(response_format=response_format, max_connections=100) as callfire:
        for number in range(1000):
            await callfire.subscriptions.create(
                f"{ENDPOINT}{number}", OUTBOUND, filter=SubscriptionFilter(1, 2, "67076", "67076:A", inbound=False)
            )
        page = await callfire.subscriptions.query()

    assert (page.items, page.total_results) == (fake.subscriptions, 1000)


@each_format
async def test_errors_of_the_fake_are_errors_of_the_client(response_format):
    """With CallFire's own words."""
    fake = FakeCallFire(max_subscriptions=0)

    async with fake.client(response_format=response_format) as callfire:
        with pytest.raises(BadRequestError) as refused:
            await callfire.subscriptions.create(ENDPOINT, OUTBOUND)
        with pytest.raises(NotFoundError) as missing:
            await callfire.subscriptions.get(42)
    async with fake.client(response_format=response_format, password="wrong") as callfire:
        with pytest.raises(AuthenticationError) as unknown:
            await callfire.subscriptions.get(42)

    messages = [caught.value.message for caught in (refused, missing, unknown)]
    assert messages == ["An account has at most 0 subscriptions", "Subscription 42 not found", "Unauthorized"]


@each_format
async def test_it_can_be_served_for_real(response_format, fake):
    """It is an ASGI application like any other, and its lifespan is handled."""
    async with uvicorn_server(fake) as port:
        base_url = f"http://127.0.0.1:{port}/api/1.1/rest"
        async with CallFire("login", "password", base_url=base_url, response_format=response_format) as callfire:
            made = await callfire.subscriptions.create(ENDPOINT, OUTBOUND)

    assert made.location == f"{base_url}/subscription/{made.id}"
    assert [subscription.id for subscription in fake.subscriptions] == [made.id]


# --- what is posted ---------------------------------------------------------------------------------------


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
    """It bears the headers that a real one bore, the subscription's id, and the format that was asked for."""
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


async def test_what_was_posted_is_told():
    """The subscription, the status, the seconds that it took, and the key."""
    endpoint = Endpoint()
    fake = FakeCallFire(transport=httpx.ASGITransport(endpoint), clock=itertools.count(step=0.25).__next__)
    first, second = await subscribe(fake), await subscribe(fake)
    event = make_text_sent()

    posted = await fake.emit(event)

    assert [(one.subscription_id, one.status, one.key) for one in posted] == [
        (first, 204, event.key),
        (second, 204, event.key),
    ]
    assert all(one.latency in (0.25, 0.5, 0.75) for one in posted)


async def test_the_root_is_the_name_of_the_event(fake, endpoint):
    """An event that is called otherwise than production's is posted that way."""
    await subscribe(fake)

    await fake.emit(samples.EVENTS["TextSent"])

    assert b"<n:TextSent " in endpoint.received[0].body


async def test_only_what_matches_is_posted(fake, endpoint):
    """By trigger and by filter."""
    await subscribe(fake, TriggerEvent.INBOUND_TEXT_FINISHED)
    await subscribe(fake, filter=SubscriptionFilter(broadcast_id=6))
    await subscribe(fake, filter=SubscriptionFilter(to_number="67076:OTHER"))
    matching = await subscribe(fake, filter=SubscriptionFilter(broadcast_id=5))

    posted = await fake.emit(make_text_sent(broadcast_id=5))

    assert [one.subscription_id for one in posted] == [matching]
    assert len(endpoint.received) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"enabled": False},
        {"notification_format": NotificationFormat.EMAIL},
        {"notification_format": NotificationFormat.LEGACY},
        {"endpoint": "somebody@example.com"},
        {"endpoint": "mailto:somebody@example.com"},
    ],
)
async def test_some_subscriptions_get_nothing(fake, endpoint, fields):
    """Those that are not enabled, and those that mails go to."""
    await subscribe(fake, **fields)

    assert (await fake.emit(make_text_sent()), endpoint.received) == ([], [])


@pytest.mark.parametrize("event", [make_text_notification(), make_campaign_notification()])
async def test_what_is_not_finished_is_not_posted(fake, endpoint, event):
    """It triggers nothing."""
    for trigger_event in TriggerEvent:
        await subscribe(fake, trigger_event)

    assert (await fake.emit(event), endpoint.received) == ([], [])


async def test_a_subscription_that_was_changed_or_deleted(fake, endpoint):
    """What counts is what is there when the event happens."""
    changed, deleted = await subscribe(fake), await subscribe(fake)
    async with fake.client() as callfire:
        await callfire.subscriptions.update(changed, endpoint=f"{ENDPOINT}/new")
        await callfire.subscriptions.delete(deleted)

    await fake.emit(make_text_sent())

    assert [received.path for received in endpoint.received] == ["/callfire/token/new"]


@pytest.mark.parametrize("status", [500, 503, 404, 307, 200])
async def test_nothing_is_posted_twice(fake, endpoint, status):
    """Whatever the endpoint answers: the real one is not known to try again, or to follow."""
    endpoint.status = status
    await subscribe(fake)

    posted = await fake.emit(make_text_sent())

    assert ([one.status for one in posted], len(endpoint.received)) == ([status], 1)


async def test_an_endpoint_that_is_not_there(unused_tcp_port):
    """No answer is a status of None."""
    async with FakeCallFire() as fake:
        await subscribe(fake, endpoint=f"http://127.0.0.1:{unused_tcp_port}/token")

        (posted,) = await fake.emit(make_text_sent())

    assert posted.status is None


async def test_an_endpoint_that_says_nothing(endpoint):
    """The fake waits as long as it was told to."""
    endpoint.gate.clear()
    async with uvicorn_server(endpoint) as port, FakeCallFire(postback_timeout=0.05) as fake:
        await subscribe(fake, endpoint=f"http://127.0.0.1:{port}/token")

        (posted,) = await fake.emit(make_text_sent())
        endpoint.gate.set()

    assert (posted.status, len(endpoint.received)) == (None, 1)


async def test_a_real_endpoint_hears_what_the_real_one_would_send(endpoint):
    """Over a connection, nothing is added to the headers."""
    async with uvicorn_server(endpoint) as port, FakeCallFire() as fake:
        await subscribe(fake, TriggerEvent.OUTBOUND_CALL_FINISHED, endpoint=f"http://127.0.0.1:{port}/token")

        (posted,) = await fake.emit(make_call_finished())

    assert (posted.status, [name for name, _ in endpoint.received[0].headers]) == (
        204,
        ["Host", "User-Agent", "Content-Type", "Content-Length", "Connection"],
    )


async def test_connections_are_kept_while_it_is_open(endpoint):
    """Within `async with` there is one for all that is posted one after the other; it may be entered twice."""
    async with uvicorn_server(endpoint) as port, FakeCallFire() as fake:
        await subscribe(fake, endpoint=f"http://127.0.0.1:{port}/token")
        async with fake:
            await fake.emit(make_text_sent())
        await fake.emit(make_text_sent())

    assert (len(endpoint.received), len(endpoint.clients)) == (2, 1)


async def test_nothing_stays_open_where_nobody_closes_it(endpoint):
    """Outside of `async with`, and after `aclose`, each event has connections of its own."""
    async with uvicorn_server(endpoint) as port:
        fake = FakeCallFire()
        await subscribe(fake, endpoint=f"http://127.0.0.1:{port}/token")
        await fake.emit(make_text_sent())
        await fake.emit(make_text_sent())
        await fake.aclose()
        await fake.aclose()

    assert (len(endpoint.received), len(endpoint.clients)) == (2, 2)


async def test_postbacks_under_way_are_bounded(endpoint):
    """Across events too."""
    async with FakeCallFire(transport=httpx.ASGITransport(endpoint), concurrency=3) as fake:
        for _ in range(4):
            await subscribe(fake)

        endpoint.gate.clear()

        emitting = asyncio.gather(*(fake.emit(make_text_sent()) for _ in range(5)))
        async with asyncio.timeout(20):
            while endpoint.under_way < 3:  # noqa: ASYNC110  # the endpoint counts, and tells nobody
                await asyncio.sleep(0)
        endpoint.gate.set()
        await emitting

    assert (len(endpoint.received), endpoint.most_under_way) == (20, 3)


# --- faults -----------------------------------------------------------------------------------------------


async def test_a_postback_that_is_dropped(fake, endpoint):
    """It was not posted, and is not told."""
    await subscribe(fake)
    fake.postback_faults.append(PostbackFault.DROPPED)

    posted = [await fake.emit(make_text_sent()), await fake.emit(make_text_sent())]

    assert ([len(one) for one in posted], len(endpoint.received)) == ([0, 1], 1)


async def test_a_postback_that_is_duplicated(fake, endpoint):
    """The same bytes come twice, and both are told."""
    await subscribe(fake)
    fake.postback_faults.extend([None, PostbackFault.DUPLICATED])

    posted = [await fake.emit(make_text_sent()), await fake.emit(make_text_sent())]

    assert [len(one) for one in posted] == [1, 2]
    assert endpoint.received[1] == endpoint.received[2] != endpoint.received[0]


async def test_a_postback_that_is_late(fake, endpoint):
    """It comes after those of the next event, whatever that is."""
    await subscribe(fake)
    await subscribe(fake, TriggerEvent.CAMPAIGN_STARTED)
    first, second, other = make_text_sent(), make_text_finished(result="DNT"), make_text_received()
    fake.postback_faults.append(PostbackFault.LATE)

    posted = [await fake.emit(event) for event in (first, second, other)]

    assert [[one.key for one in some] for some in posted] == [[], [second.key, first.key], []]
    assert [parse(received.body).key for received in endpoint.received] == [second.key, first.key]


async def test_a_late_postback_comes_even_where_nobody_waits_for_the_next_event(fake):
    """An event that matches nothing lets it through."""
    await subscribe(fake)
    fake.postback_faults.append(PostbackFault.LATE)
    await fake.emit(event := make_text_sent())

    assert [one.key for one in await fake.emit(make_campaign_started())] == [event.key]


async def test_a_postback_that_is_cut(endpoint):
    """The endpoint sees a body that breaks off; no answer comes."""
    async with uvicorn_server(endpoint) as port, FakeCallFire() as fake:
        await subscribe(fake, endpoint=f"http://127.0.0.1:{port}/token")
        fake.postback_faults.append(PostbackFault.CUT)

        (cut,) = await fake.emit(make_text_sent())
        (whole,) = await fake.emit(make_text_sent())

    assert (cut.status, whole.status) == (None, 204)
    assert sorted(received.whole for received in endpoint.received) == [False, True]


def test_results_are_values():
    """They can be compared and counted."""
    assert (
        len({PostbackResult(1, 204, 0.5, ("text", 1, "SENT")), PostbackResult(1, 204, 0.5, ("text", 1, "SENT"))}) == 1
    )


def test_every_option_has_a_word_of_documentation():
    """None is there that nobody can find."""
    options = inspect.signature(FakeCallFire).parameters

    assert all(f"{name}:" in FakeCallFire.__doc__ for name in options)


async def test_a_share_of_the_postbacks_is_dropped_or_comes_twice(fake, endpoint):
    """By a chance that a seed repeats; what was dropped can be asked for."""
    lossy = [
        FakeCallFire(seed=1, drop_rate=0.2, duplicate_rate=0.1, transport=httpx.ASGITransport(endpoint)) for _ in "ab"
    ]
    events = [make_text_sent() for _ in range(200)]
    posted = []
    for one in lossy:
        await subscribe(one)
        posted.append([[again.key for again in await one.emit(event)] for event in events])

    assert posted[0] == posted[1]
    counts = [len(keys) for keys in posted[0]]
    assert [counts.count(times) / 200 for times in (0, 2)] == pytest.approx([0.2, 0.1], abs=0.08)
    assert [key for _, key in lossy[0].dropped] == [
        event.key for event, times in zip(events, counts, strict=True) if not times
    ]
