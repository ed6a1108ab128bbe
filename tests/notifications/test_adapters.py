"""One conformance suite over every way to embed a receiver, each behind its own real server."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
from fastapi import Depends, FastAPI, HTTPException
from notifications.servers import DEADLINE, WAYS, Endpoint, Serve, connection, uvicorn_server
from starlette.applications import Starlette
from starlette.routing import Mount

from callfire_async.notifications import Notification, Postback, Receiver, Router
from callfire_async.notifications.asgi import NotificationApp
from callfire_async.notifications.fastapi import notification_routes

TOKEN = "0123456789abcdef"
BODY = b'{"TextNotification":{"SubscriptionId":1,"Text":{"@id":"42","State":"FINISHED","FinalResult":"SENT"}}}'
LIMIT = 1024 * 1024
LENGTH = f"Content-Length: {len(BODY)}"
CHUNKED = "Transfer-Encoding: chunked"


@pytest.fixture
def events() -> list[Notification]:
    return []


@pytest.fixture
def router(events: list[Notification]) -> Router:
    router = Router()

    @router.on(Notification)
    async def collect(event: Notification) -> None:
        if event.subscription_id == 500:
            raise ValueError
        events.append(event)

    return router


@pytest.fixture
def receiver(router: Router) -> Receiver:
    return Receiver(router, tokens=TOKEN, body_timeout=0.3)


@pytest.fixture(params=WAYS)
def serve(request: pytest.FixtureRequest) -> Serve:
    return WAYS[request.param]


@pytest.fixture
async def endpoint(serve: Serve, receiver: Receiver) -> AsyncIterator[Endpoint]:
    async with serve(receiver) as endpoint:
        yield endpoint


async def post(endpoint: Endpoint, body: bytes = BODY, *, token: str = TOKEN, method: str = "POST") -> int:
    async with connection(endpoint) as sender:
        sender.head(endpoint.path(token), f"Content-Length: {len(body)}", method=method)
        sender.send(body)
        return await sender.status()


async def test_a_notification_reaches_its_handler_before_the_answer(endpoint, events):
    """204 comes after the handlers have returned."""
    status = await post(endpoint)

    assert (status, [event.key for event in events]) == (204, [("text", 42, "SENT")])


async def test_a_trailing_slash_is_taken_alike(endpoint, events):
    """A redirect would lose the event: CallFire follows none that is known of."""
    status = await post(endpoint, token=f"{TOKEN}/")

    assert (status, len(events)) == (204, 1)


@pytest.mark.parametrize("token", ["wrong-wrong-wrong", "", "%C3%A9", f"{TOKEN}/more", "%F0%9F%98%80"])
async def test_a_wrong_or_missing_token_is_not_found(endpoint, events, token):
    """Whoever does not know the token learns nothing and starts nothing."""
    status = await post(endpoint, token=token)

    assert (status, events) == (404, [])


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_only_post_is_allowed(endpoint, events, method):
    """Another method is answered 405."""
    status = await post(endpoint, method=method)

    assert (status, events) == (405, [])


async def test_an_encoded_body_is_not_supported(endpoint, events):
    """415, whether it is a bomb, broken or well."""
    async with connection(endpoint) as sender:
        sender.head(endpoint.path(TOKEN), LENGTH, "Content-Encoding: gzip")
        sender.send(BODY)

        assert (await sender.status(), events) == (415, [])


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"hello", 400),
        (b'{"a": 1}', 422),
        (b'{"TextSent": {"SubscriptionId": 500, "Text": {"@id": 1}}}', 500),
        (b'{"Surprise": {}}', 204),
    ],
)
async def test_the_answer_says_what_became_of_the_body(endpoint, body, status):
    """Empty, malformed, no notification, a handler that fails, a notification nobody has heard of."""
    assert await post(endpoint, body) == status


async def test_a_body_as_large_as_the_limit_is_taken(endpoint, events):
    """The limit itself is within it."""
    status = await post(endpoint, BODY + b" " * (LIMIT - len(BODY)))

    assert (status, len(events)) == (204, 1)


async def test_a_body_that_says_it_is_too_large_is_refused(endpoint, events):
    """413, and the sender of a body not far beyond the limit reads that answer."""
    status = await post(endpoint, BODY + b" " * LIMIT)

    assert (status, events) == (413, [])


async def test_an_endless_body_is_refused_and_its_sender_cut_off(endpoint, events):
    """413 at the limit, and then the connection ends although the sender goes on."""
    async with connection(endpoint) as sender:
        sender.head(endpoint.path(TOKEN), CHUNKED)

        sent = await sender.send_until_cut_off(256 * LIMIT)

        assert (sent < 64 * LIMIT, events) == (True, [])


async def test_a_sender_that_goes_on_after_a_wrong_token_is_cut_off(endpoint):
    """What is answered before its body was read does not go on taking the network."""
    async with connection(endpoint) as sender:
        sender.head(endpoint.path("wrong-wrong-wrong"), CHUNKED)

        assert await sender.send_until_cut_off(256 * LIMIT) < 64 * LIMIT


async def test_a_refused_sender_of_a_moderate_body_reads_its_answer(endpoint):
    """What was on its way is read and dropped, so that the answer is not lost with a reset connection."""
    assert await post(endpoint, b" " * (3 * LIMIT // 2), token="wrong-wrong-wrong") == 404


async def test_a_body_that_drips_is_timed_out(endpoint, events):
    """408 after body_timeout, and the connection is closed."""
    async with connection(endpoint) as sender:
        sender.head(endpoint.path(TOKEN), LENGTH)
        sender.send(BODY[:10])

        assert (await sender.status(), await sender.is_closed(), events) == (408, True, [])


async def test_a_body_that_breaks_off_is_not_handled(endpoint, events):
    """Half a notification is none, and the server goes on."""
    async with connection(endpoint) as sender:
        sender.head(endpoint.path(TOKEN), LENGTH)
        sender.send(BODY[:50])
        sender.hang_up()

    assert (await post(endpoint), len(events)) == (204, 1)


async def test_a_connection_is_kept_for_the_next_notification(endpoint, events):
    """CallFire sends Connection: Keep-Alive."""
    async with connection(endpoint) as sender:
        for _ in range(3):
            sender.head(endpoint.path(TOKEN), LENGTH)
            sender.send(BODY)
            assert await sender.status() == 204

    assert len(events) == 3


async def test_the_receiver_starts_and_stops_with_the_application(serve, receiver):
    """Nothing but the adapter has to be set up, and a stopped application handles nothing more."""
    postback = Postback("POST", TOKEN, {}, BODY)
    async with serve(receiver):
        while_served = await receiver.receive(postback)

    assert (while_served.status, (await receiver.receive(postback)).status) == (204, 503)


# Starlette itself redirects the bare path of a mount.
OPEN_PATHS = [(way, path) for way in WAYS for path in ("", "/", "/anything") if (way, path) != ("mounted", "")]


@pytest.mark.parametrize(("way", "path"), OPEN_PATHS)
async def test_an_open_receiver_takes_the_bare_prefix_too(way, path, events, router):
    """With no token there is nothing to put behind the prefix."""
    serve = WAYS[way]
    opened = Receiver(router, tokens=None)
    async with serve(opened) as endpoint, connection(endpoint) as sender:
        sender.head((endpoint.prefix + path) or "/", LENGTH)
        sender.send(BODY)

        assert (await sender.status(), len(events)) == (204, 1)


async def test_a_mounted_application_without_a_lifespan_answers_503(receiver, caplog):
    """It never starts by stealth; the log says once how to start it."""
    app = Starlette(routes=[Mount("/callfire", NotificationApp(receiver))])
    async with uvicorn_server(app) as port:
        statuses = [await post(Endpoint(port, "/callfire")) for _ in range(2)]

    said = [record.levelno for record in caplog.records if "notification_app.lifespan" in record.getMessage()]
    assert (statuses, said) == ([503, 503], [logging.ERROR])


async def test_a_router_may_be_included_twice(receiver, events):
    """The receiver runs until the last of its entries is left."""
    app = FastAPI()
    app.include_router(notification_routes(receiver), prefix="/callfire")
    app.include_router(notification_routes(receiver), prefix="/other")
    async with uvicorn_server(app) as port:
        statuses = [await post(Endpoint(port, prefix)) for prefix in ("/callfire", "/other")]

    assert (statuses, len(events)) == ([204, 204], 2)


async def test_a_sender_that_waits_to_go_on_is_refused_before_it_sends(receiver):
    """A wrong token is not told to continue."""
    sent = []

    async def chunks() -> AsyncIterator[bytes]:
        sent.append(b"asked for")
        yield b""

    postback = Postback("POST", "wrong", {"Expect": "100-continue"}, chunks())
    async with receiver:
        reply = await receiver.receive(postback)

    assert (reply.status, reply.close_connection, sent) == (404, True, [])


async def test_an_asgi_application_refuses_web_sockets(receiver):
    """Nothing but HTTP is spoken here."""
    messages = []

    async def send(message: dict) -> None:
        messages.append(message)

    await NotificationApp(receiver)({"type": "websocket"}, None, send)

    assert messages == [{"type": "websocket.close"}]


async def test_a_receiver_that_cannot_start_keeps_the_server_from_starting(router):
    """A server that could not store or handle anything must not seem to be up."""
    app = NotificationApp(FailingReceiver(router, tokens=TOKEN))
    incoming, outgoing = asyncio.Queue(), asyncio.Queue()
    incoming.put_nowait({"type": "lifespan.startup"})

    with pytest.raises(OSError, match="no disk"):
        await asyncio.wait_for(app({"type": "lifespan"}, incoming.get, outgoing.put), DEADLINE)

    assert outgoing.get_nowait()["type"] == "lifespan.startup.failed"


async def test_a_server_that_ends_without_a_word_stops_the_receiver(receiver):
    """It cancels what waits to be told: the inbox is given back all the same."""
    incoming, outgoing = asyncio.Queue(), asyncio.Queue()
    incoming.put_nowait({"type": "lifespan.startup"})
    serving = asyncio.create_task(NotificationApp(receiver)({"type": "lifespan"}, incoming.get, outgoing.put))
    async with asyncio.timeout(DEADLINE):
        started = await outgoing.get()
        serving.cancel()
        await asyncio.wait([serving])

    assert (started["type"], receiver.is_running) == ("lifespan.startup.complete", False)


class FailingReceiver(Receiver):
    """One that cannot start."""

    async def __aenter__(self) -> Receiver:
        raise OSError("no disk")


async def test_what_a_fastapi_application_depends_on_comes_first(receiver, events):
    """Whoever includes the routes with a dependency, to let in some addresses only say, is not passed over."""

    def refuse() -> None:
        raise HTTPException(403)

    app = FastAPI()
    app.include_router(notification_routes(receiver), prefix="/open")
    app.include_router(notification_routes(receiver), prefix="/shut", dependencies=[Depends(refuse)])
    async with uvicorn_server(app) as port:
        statuses = [await post(Endpoint(port, prefix)) for prefix in ("/open", "/shut")]

    assert (statuses, len(events)) == ([204, 403], 1)
