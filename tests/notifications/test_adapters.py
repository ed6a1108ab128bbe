"""The conformance suite of the adapters, each behind a real server."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
from fastapi import Depends, FastAPI, HTTPException
from notifications.servers import ADAPTERS, DEADLINE, Endpoint, Serve, connection, uvicorn_server
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


@pytest.fixture(params=ADAPTERS)
def serve(request: pytest.FixtureRequest) -> Serve:
    return ADAPTERS[request.param]


@pytest.fixture
async def endpoint(serve: Serve, receiver: Receiver) -> AsyncIterator[Endpoint]:
    async with serve(receiver) as endpoint:
        yield endpoint


async def post(endpoint: Endpoint, body: bytes = BODY, *, token: str = TOKEN, method: str = "POST") -> int:
    async with connection(endpoint) as sender:
        sender.head(endpoint.path(token), f"Content-Length: {len(body)}", method=method)
        sender.send(body)
        return await sender.status()


async def test_a_notification_is_handled_before_the_response(endpoint, events):
    """204 is sent after the handlers have returned."""
    status = await post(endpoint)

    assert (status, [event.key for event in events]) == (204, [("text", 42, "SENT")])


async def test_a_trailing_slash_is_accepted(endpoint, events):
    """A redirect would lose the event, because CallFire is not known to follow redirects."""
    status = await post(endpoint, token=f"{TOKEN}/")

    assert (status, len(events)) == (204, 1)


@pytest.mark.parametrize("token", ["wrong-wrong-wrong", "", "%C3%A9", f"{TOKEN}/more", "%F0%9F%98%80"])
async def test_a_wrong_or_missing_token_is_not_found(endpoint, events, token):
    """The response is 404 and nothing is handled."""
    status = await post(endpoint, token=token)

    assert (status, events) == (404, [])


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_only_post_is_allowed(endpoint, events, method):
    """Any other method gets 405."""
    status = await post(endpoint, method=method)

    assert (status, events) == (405, [])


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_another_method_with_a_wrong_token_is_not_found(endpoint, method):
    """The token is checked first, so that the response does not show that the path exists."""
    assert await post(endpoint, method=method, token="wrong-wrong-wrong") == 404


async def test_a_web_socket_is_refused(endpoint):
    """Like any request that is not a POST."""
    async with connection(endpoint) as sender:
        upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
        sender.head(endpoint.path(TOKEN), *upgrade, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", method="GET")

        assert await sender.status() in (403, 404, 405)


async def test_a_percent_encoded_token_is_valid(endpoint, events):
    """The path is decoded before the comparison."""
    status = await post(endpoint, token="".join(f"%{ord(letter):02x}" for letter in TOKEN))

    assert (status, len(events)) == (204, 1)


async def test_http_1_0_is_accepted(endpoint, events):
    """Some proxies use it towards the service."""
    async with connection(endpoint) as sender:
        sender.send(f"POST {endpoint.path(TOKEN)} HTTP/1.0\r\n{LENGTH}\r\n\r\n".encode() + BODY)

        assert (await sender.status(), len(events)) == (204, 1)


async def test_a_sender_that_expects_100_continue_gets_an_interim_response(endpoint, events):
    """It sends the body after an interim response."""
    async with connection(endpoint) as sender:
        sender.head(endpoint.path(TOKEN), LENGTH, "Expect: 100-continue")
        interim = await sender.status()
        sender.send(BODY)

        assert (interim, await sender.status(), len(events)) == (100, 204, 1)


async def test_an_encoded_body_is_not_supported(endpoint, events):
    """415, without any attempt to decode the body."""
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
async def test_the_status_depends_on_the_result(endpoint, body, status):
    """For a body that is empty, malformed or no notification, a failing handler, and an unknown event."""
    assert await post(endpoint, body) == status


async def test_a_body_of_the_maximum_size_is_accepted(endpoint, events):
    """The limit is inclusive."""
    status = await post(endpoint, BODY + b" " * (LIMIT - len(BODY)))

    assert (status, len(events)) == (204, 1)


async def test_a_body_with_a_too_large_content_length_is_rejected(endpoint, events):
    """413, which the sender of a body slightly beyond the limit can read."""
    status = await post(endpoint, BODY + b" " * LIMIT)

    assert (status, events) == (413, [])


async def test_an_endless_body_is_rejected_and_its_sender_disconnected(endpoint, events):
    """413 at the limit, and then the connection is closed although the sender continues."""
    async with connection(endpoint) as sender:
        sender.head(endpoint.path(TOKEN), CHUNKED)

        sent = await sender.send_until_disconnected(256 * LIMIT)

        assert (sent < 64 * LIMIT, events) == (True, [])


async def test_a_sender_that_continues_after_a_wrong_token_is_disconnected(endpoint):
    """A rejected body does not use more of the network."""
    async with connection(endpoint) as sender:
        sender.head(endpoint.path("wrong-wrong-wrong"), CHUNKED)

        assert await sender.send_until_disconnected(256 * LIMIT) < 64 * LIMIT


async def test_a_rejected_sender_of_a_moderate_body_gets_its_response(endpoint):
    """The body is drained, so that the response is not lost with a connection reset."""
    assert await post(endpoint, b" " * (3 * LIMIT // 2), token="wrong-wrong-wrong") == 404


async def test_a_slow_body_times_out(endpoint, events):
    """408 after body_timeout, and the connection is closed."""
    async with connection(endpoint) as sender:
        sender.head(endpoint.path(TOKEN), LENGTH)
        sender.send(BODY[:10])

        assert (await sender.status(), await sender.is_closed(), events) == (408, True, [])


async def test_an_incomplete_body_is_not_handled(endpoint, events):
    """Nothing is handled, and the server continues."""
    async with connection(endpoint) as sender:
        sender.head(endpoint.path(TOKEN), LENGTH)
        sender.send(BODY[:50])
        sender.abort()

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
    """No other setup is needed, and a stopped application handles nothing."""
    postback = Postback("POST", TOKEN, {}, BODY)
    async with serve(receiver):
        served = await receiver.receive(postback)

    assert (served.status, (await receiver.receive(postback)).status) == (204, 503)


# Starlette itself redirects the bare path of a mount.
OPEN_PATHS = [
    (adapter, path) for adapter in ADAPTERS for path in ("", "/", "/anything") if (adapter, path) != ("mounted", "")
]


@pytest.mark.parametrize(("adapter", "path"), OPEN_PATHS)
async def test_a_receiver_without_tokens_accepts_the_bare_prefix(adapter, path, events, router):
    """Without a token, the URL may be the prefix alone."""
    serve = ADAPTERS[adapter]
    receiver = Receiver(router, tokens=None)
    async with serve(receiver) as endpoint, connection(endpoint) as sender:
        sender.head((endpoint.prefix + path) or "/", LENGTH)
        sender.send(BODY)

        assert (await sender.status(), len(events)) == (204, 1)


async def test_a_mounted_application_without_a_lifespan_responds_503(receiver, caplog):
    """It is not started by a request; one log line explains how to start it."""
    app = Starlette(routes=[Mount("/callfire", NotificationApp(receiver))])
    async with uvicorn_server(app) as port:
        statuses = [await post(Endpoint(port, "/callfire")) for _ in range(2)]

    levels = [record.levelno for record in caplog.records if "notification_app.lifespan" in record.getMessage()]
    assert (statuses, levels) == ([503, 503], [logging.ERROR])


async def test_a_router_may_be_included_twice(receiver, events):
    """The receiver runs until its last exit."""
    app = FastAPI()
    app.include_router(notification_routes(receiver), prefix="/callfire")
    app.include_router(notification_routes(receiver), prefix="/other")
    async with uvicorn_server(app) as port:
        statuses = [await post(Endpoint(port, prefix)) for prefix in ("/callfire", "/other")]

    assert (statuses, len(events)) == ([204, 204], 2)


async def test_a_sender_that_expects_100_continue_is_rejected_before_it_sends(receiver):
    """With a wrong token, the body is not requested."""
    requested = []

    async def chunks() -> AsyncIterator[bytes]:
        requested.append(True)
        yield b""

    postback = Postback("POST", "wrong", {"Expect": "100-continue"}, chunks())
    async with receiver:
        reply = await receiver.receive(postback)

    assert (reply.status, reply.close_connection, requested) == (404, True, [])


async def test_an_asgi_application_refuses_web_sockets(receiver):
    """They are closed."""
    messages = []

    async def send(message: dict) -> None:
        messages.append(message)

    await NotificationApp(receiver)({"type": "websocket"}, None, send)

    assert messages == [{"type": "websocket.close"}]


async def test_the_server_does_not_start_if_the_receiver_cannot(router):
    """A server that cannot store postbacks must not appear to be running."""
    app = NotificationApp(FailingReceiver(router, tokens=TOKEN))
    incoming, outgoing = asyncio.Queue(), asyncio.Queue()
    incoming.put_nowait({"type": "lifespan.startup"})

    with pytest.raises(OSError, match="no disk"):
        await asyncio.wait_for(app({"type": "lifespan"}, incoming.get, outgoing.put), DEADLINE)

    assert outgoing.get_nowait()["type"] == "lifespan.startup.failed"


async def test_a_cancelled_lifespan_stops_the_receiver(receiver):
    """The inbox is closed even without a shutdown message."""
    incoming, outgoing = asyncio.Queue(), asyncio.Queue()
    incoming.put_nowait({"type": "lifespan.startup"})
    serving = asyncio.create_task(NotificationApp(receiver)({"type": "lifespan"}, incoming.get, outgoing.put))
    async with asyncio.timeout(DEADLINE):
        started = await outgoing.get()
        serving.cancel()
        await asyncio.wait([serving])

    assert (started["type"], receiver.is_running) == ("lifespan.startup.complete", False)


class FailingReceiver(Receiver):
    """A receiver that cannot start."""

    async def __aenter__(self) -> Receiver:
        raise OSError("no disk")


async def test_fastapi_dependencies_run_before_the_receiver(receiver, events):
    """A dependency of the included routes can reject a postback, for example by its address."""

    def refuse() -> None:
        raise HTTPException(403)

    app = FastAPI()
    app.include_router(notification_routes(receiver), prefix="/open")
    app.include_router(notification_routes(receiver), prefix="/closed", dependencies=[Depends(refuse)])
    async with uvicorn_server(app) as port:
        statuses = [await post(Endpoint(port, prefix)) for prefix in ("/open", "/closed")]

    assert (statuses, len(events)) == ([204, 403], 1)
