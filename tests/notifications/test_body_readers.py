"""Middlewares that read a request's body before the receiver, each behind a real server."""

import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager

import pytest
from aiohttp import web
from fastapi import Depends, FastAPI, HTTPException, Request
from notifications.servers import Endpoint, Sender, aiohttp_server, connection, uvicorn_server
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.routing import Mount

from callfire_async.notifications import Observer, Postback, Receiver, RequestRecord, Router
from callfire_async.notifications.aiohttp import add_notification_routes
from callfire_async.notifications.asgi import NotificationApp
from callfire_async.notifications.fastapi import notification_routes

TOKEN = "0123456789abcdef"
BODY = b'{"TextSent":{"SubscriptionId":1,"Text":{"@id":42}}}'
LENGTH = f"Content-Length: {len(BODY)}"
CHUNKED = "Transfer-Encoding: chunked"


@pytest.fixture
def receiver(router: Router) -> Receiver:
    return Receiver(router, tokens=TOKEN, body_timeout=0.5, max_body_bytes=2000)


async def post(endpoint: Endpoint, body: bytes = BODY, content_type: str = "application/json") -> int:
    async with connection(endpoint) as sender:
        sender.head(endpoint.path(TOKEN), f"Content-Length: {len(body)}", f"Content-Type: {content_type}")
        sender.send(body)
        return await sender.status()


async def post_chunked(endpoint: Endpoint, body: bytes = BODY) -> int:
    async with connection(endpoint) as sender:
        sender.head(endpoint.path(TOKEN), CHUNKED)
        sender.chunk(body)
        sender.send(b"0\r\n\r\n")
        return await sender.status()


class RequestRecords(Observer, list[RequestRecord]):
    """Collects the record of each request."""

    def request(self, record: RequestRecord) -> AbstractContextManager[None]:
        self.append(record)
        return super().request(record)


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    return [(one.levelno, one.getMessage()) for one in caplog.records if one.name == "callfire_async.receiver"]


# --- aiohttp ----------------------------------------------------------------------------------------------

Read = Callable[[web.Request], Awaitable[object]]


@asynccontextmanager
async def serve_aiohttp(receiver: Receiver, read: Read, **options: int) -> AsyncIterator[Endpoint]:
    @web.middleware
    async def middleware(request: web.Request, handler: Callable) -> web.StreamResponse:
        await read(request)
        return await handler(request)

    app = web.Application(middlewares=[middleware], **options)
    add_notification_routes(app, receiver, "/callfire")
    async with aiohttp_server(app) as port:
        yield Endpoint(port, "/callfire")


AIOHTTP_READERS = {
    "text": lambda request: request.text(),
    "read": lambda request: request.read(),
    "json": lambda request: request.json(),
}


@pytest.mark.parametrize("send", [post, post_chunked])
@pytest.mark.parametrize("read", AIOHTTP_READERS.values(), ids=AIOHTTP_READERS)
async def test_an_aiohttp_middleware_may_read_the_body(receiver, events, read, send):
    """The receiver uses the bytes that aiohttp has kept."""
    async with serve_aiohttp(receiver, read) as endpoint:
        assert (await send(endpoint), [event.key for event in events]) == (204, [("text", 42, "")])


async def test_an_aiohttp_middleware_may_read_a_form(receiver, events):
    """Request.post() reads the body only if its content type is that of a form."""
    async with serve_aiohttp(receiver, lambda request: request.post()) as endpoint:
        statuses = [await post(endpoint, BODY, kind) for kind in ("application/x-www-form-urlencoded", "text/xml")]

    assert (statuses, len(events)) == ([204, 204], 2)


async def test_an_aiohttp_middleware_that_does_not_read_changes_nothing(receiver, events):
    """The receiver reads the stream."""

    async def skip(_: web.Request) -> None: ...

    async with serve_aiohttp(receiver, skip) as endpoint:
        assert (await post(endpoint), await post_chunked(endpoint), len(events)) == (204, 204, 2)


async def test_the_kept_body_has_the_limit_of_the_receiver(receiver, events):
    """A middleware that reads more than max_body_bytes does not make it acceptable."""
    async with serve_aiohttp(receiver, lambda request: request.read()) as endpoint:
        assert (await post(endpoint, BODY + b" " * 2000), events) == (413, [])


async def test_the_limit_of_aiohttp_applies_to_the_middleware_alone(router, events):
    """A client_max_size below max_body_bytes: 413 from aiohttp if a middleware reads, 204 otherwise."""

    async def skip(_: web.Request) -> None: ...

    statuses = []
    for read in (skip, lambda request: request.read()):
        receiver = Receiver(router, tokens=TOKEN, max_body_bytes=100_000)
        async with serve_aiohttp(receiver, read, client_max_size=1000) as endpoint:
            statuses.append(await post(endpoint, BODY + b" " * 2000))

    assert (statuses, len(events)) == ([204, 413], 1)


async def read_stream(request: web.Request) -> None:
    await request.content.read()


async def read_some(request: web.Request) -> None:
    await request.content.readexactly(10)


@pytest.mark.parametrize("send", [post, post_chunked])
@pytest.mark.parametrize("read", [read_stream, read_some])
async def test_a_body_that_an_aiohttp_middleware_has_consumed_is_not_taken_for_an_empty_one(
    receiver, events, caplog, read, send
):
    """503 and one ERROR that names the cause; the body is not stored in part."""
    async with serve_aiohttp(receiver, read) as endpoint:
        statuses = [await send(endpoint) for _ in range(3)]

    ((level, message),) = logged(caplog)
    assert (statuses, events, level) == ([503] * 3, [], logging.ERROR)
    assert "middleware" in message
    assert receiver._validator.refused == {"consumed": 3}


# --- ASGI -------------------------------------------------------------------------------------------------

Serve = Callable[[Receiver, list[Middleware]], AbstractAsyncContextManager[Endpoint]]


@asynccontextmanager
async def serve_fastapi(receiver: Receiver, middleware: list[Middleware]) -> AsyncIterator[Endpoint]:
    app = FastAPI(middleware=middleware)
    app.include_router(notification_routes(receiver), prefix="/callfire")
    async with uvicorn_server(app) as port:
        yield Endpoint(port, "/callfire")


@asynccontextmanager
async def serve_starlette(receiver: Receiver, middleware: list[Middleware]) -> AsyncIterator[Endpoint]:
    notification_app = NotificationApp(receiver)
    app = Starlette(
        routes=[Mount("/callfire", notification_app)], middleware=middleware, lifespan=notification_app.lifespan
    )
    async with uvicorn_server(app) as port:
        yield Endpoint(port, "/callfire")


@asynccontextmanager
async def serve_asgi(receiver: Receiver, middleware: list[Middleware]) -> AsyncIterator[Endpoint]:
    app = NotificationApp(receiver)
    for one in middleware:
        app = one.cls(app, *one.args, **one.kwargs)
    async with uvicorn_server(app) as port:
        yield Endpoint(port, "")


@pytest.fixture(params=[serve_fastapi, serve_starlette, serve_asgi])
def serve(request: pytest.FixtureRequest) -> Serve:
    return request.param


async def read_body(request: Request, call_next: Callable) -> object:
    await request.body()
    return await call_next(request)


async def read_body_as_stream(request: Request, call_next: Callable) -> object:
    await request.body()
    async for _ in request.stream():
        pass
    return await call_next(request)


async def consume_stream(request: Request, call_next: Callable) -> object:
    async for _ in request.stream():
        pass
    return await call_next(request)


def pure(*, replay: bool) -> type:
    """Return a pure ASGI middleware that reads the body, and replays it or not."""

    class PureMiddleware:
        def __init__(self, app: Callable) -> None:
            self.app = app

        async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
            messages = []
            while scope["type"] == "http":
                messages.append(await receive())
                if not messages[-1].get("more_body"):
                    break

            async def replayed() -> dict:
                return messages.pop(0) if messages and replay else await receive()

            await self.app(scope, replayed, send)

    return PureMiddleware


READERS = {
    "body": Middleware(BaseHTTPMiddleware, dispatch=read_body),
    "body and stream": Middleware(BaseHTTPMiddleware, dispatch=read_body_as_stream),
    "pure": Middleware(pure(replay=True)),
}


@pytest.mark.parametrize("send", [post, post_chunked])
@pytest.mark.parametrize("middleware", READERS.values(), ids=READERS)
async def test_an_asgi_middleware_may_read_the_body(serve, receiver, events, middleware, send):
    """If it passes the body on, as Starlette's do."""
    async with serve(receiver, [middleware]) as endpoint:
        assert (await send(endpoint), [event.key for event in events]) == (204, [("text", 42, "")])


async def test_a_body_that_an_asgi_middleware_has_read_has_the_limit_of_the_receiver(serve, receiver, events):
    """413, as without the middleware."""
    async with serve(receiver, [READERS["body"]]) as endpoint:
        assert (await post(endpoint, BODY + b" " * 2000), events) == (413, [])


async def test_a_body_that_an_asgi_middleware_has_consumed_is_not_taken_for_an_empty_one(
    serve, receiver, events, caplog
):
    """503 and one ERROR that names the cause."""
    async with serve(receiver, [Middleware(BaseHTTPMiddleware, dispatch=consume_stream)]) as endpoint:
        statuses = [await post(endpoint) for _ in range(3)]

    ((level, message),) = logged(caplog)
    assert (statuses, events, level) == ([503] * 3, [], logging.ERROR)
    assert "middleware" in message


async def test_an_empty_body_without_a_length_is_logged_with_its_possible_cause(serve, receiver, events, caplog):
    """Whether the sender or a middleware is the cause is unknown: 400, and a WARNING that names both."""
    async with serve(receiver, [Middleware(BaseHTTPMiddleware, dispatch=consume_stream)]) as endpoint:
        status = await post_chunked(endpoint)

    ((level, message),) = logged(caplog)
    assert (status, events, level, "middleware" in message) == (400, [], logging.WARNING, True)


async def test_a_body_that_never_arrives_is_logged_with_its_possible_cause(serve, receiver, events, caplog):
    """A pure ASGI middleware that does not replay leaves the receiver waiting, as a sender that sends nothing does."""
    async with serve(receiver, [Middleware(pure(replay=False))]) as endpoint:
        status = await post(endpoint)

    ((level, message),) = logged(caplog)
    assert (status, events, level, "middleware" in message) == (408, [], logging.WARNING, True)


async def test_a_part_of_a_body_is_not_stored(receiver, events):
    """A middleware that passes on only the first bytes must not make an event of them."""

    async def chunks() -> AsyncIterator[bytes]:
        yield BODY

    headers = {"Content-Length": str(len(BODY) + 1)}
    async with receiver:
        reply = await receiver.receive(Postback("POST", TOKEN, headers, chunks()))

    assert (reply.status, reply.headers, events) == (503, (("Retry-After", "5"),), [])


async def test_an_adapter_that_passes_no_bytes_of_a_body_is_reported(receiver, caplog):
    """The same for an adapter that reads the body itself; bytes that are shorter than the header are accepted."""
    headers = {"Content-Length": str(len(BODY) + 1)}
    async with receiver:
        statuses = [(await receiver.receive(Postback("POST", TOKEN, headers, body))).status for body in (b"", BODY)]

    assert (statuses, [level for level, _ in logged(caplog)]) == ([503, 204], [logging.ERROR])


async def test_a_receiver_outside_the_middlewares_has_its_limits(receiver, events):
    """As documented for an application whose middlewares read bodies; its own lifespan runs, too."""
    started = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        started.append(True)
        yield

    api = FastAPI(middleware=[READERS["body"]], lifespan=lifespan)

    @asynccontextmanager
    async def both(_: Starlette) -> AsyncIterator[None]:
        async with receiver, api.router.lifespan_context(api):
            yield

    app = Starlette(routes=[Mount("/callfire", NotificationApp(receiver)), Mount("/", api)], lifespan=both)
    async with uvicorn_server(app) as port:
        endpoint = Endpoint(port, "/callfire")
        async with connection(endpoint) as sender:
            sender.head(endpoint.path("wrong-wrong-wrong"), LENGTH)
            status = await sender.status()

        assert (status, await post(endpoint), len(events), started) == (404, 204, 1, [True])


# --- FastAPI's dependencies -------------------------------------------------------------------------------


async def test_a_dependency_may_read_the_body(receiver, events):
    """It gets the bytes that the receiver has read under its limits, and the receiver handles them."""
    seen = []

    async def read(request: Request) -> None:
        seen.append(await request.body())

    app = FastAPI(dependencies=[Depends(read)])
    app.include_router(notification_routes(receiver), prefix="/callfire")
    async with uvicorn_server(app) as port:
        endpoint = Endpoint(port, "/callfire")
        statuses = [await post(endpoint), await post(endpoint, BODY + b" " * 2000)]

    assert (statuses, seen, len(events)) == ([204, 413], [BODY], 1)


async def test_a_dependency_that_rejects_a_postback_is_counted(receiver, events):
    """Its response is sent, and nothing is stored; a wrong token gets 404 before the dependency runs."""

    def refuse() -> None:
        raise HTTPException(403)

    records = RequestRecords()
    receiver.observe(records)
    app = FastAPI()
    app.include_router(notification_routes(receiver), prefix="/callfire", dependencies=[Depends(refuse)])
    async with uvicorn_server(app) as port, connection(endpoint := Endpoint(port, "/callfire")) as sender:
        status = await post(endpoint)
        sender.head(endpoint.path("wrong-wrong-wrong"), LENGTH)
        statuses = [status, await sender.status()]

    seen = [(record.refused, record.reply.status, record.delivery) for record in records]
    assert (statuses, events) == ([403, 404], [])
    assert seen == [("framework", 403, None), ("token", 404, None)]
    assert (await receiver.stats()).refused == {"framework": 1, "token": 1}


async def test_own_routes_may_be_added_to_the_router(receiver, events):
    """They are ordinary routes."""
    routes = notification_routes(receiver)

    @routes.post("/own/status")
    async def status() -> str:
        return "fine"

    app = FastAPI()
    app.include_router(routes, prefix="/callfire")
    async with uvicorn_server(app) as port, connection(endpoint := Endpoint(port, "/callfire")) as sender:
        sender.head("/callfire/own/status", "Content-Length: 0")

        assert (await sender.status(), await post(endpoint), len(events)) == (200, 204, 1)


needs_body_limits = pytest.mark.skipif(
    "max_body_size" not in inspect.signature(FastAPI).parameters, reason="this FastAPI has no limits of its own"
)


@needs_body_limits
@pytest.mark.parametrize("send", [post, post_chunked])
@pytest.mark.parametrize("at_include", [True, False])
async def test_a_lower_limit_of_fastapi_applies(receiver, events, at_include, send):
    """413, and nothing is stored; a body within the limit is accepted."""
    app = FastAPI() if at_include else FastAPI(max_body_size=len(BODY))
    limit = {"max_body_size": len(BODY)} if at_include else {}
    app.include_router(notification_routes(receiver), prefix="/callfire", **limit)
    async with uvicorn_server(app) as port:
        endpoint = Endpoint(port, "/callfire")
        statuses = [await send(endpoint, BODY), await send(endpoint, BODY + b" ")]

    assert (statuses, len(events)) == ([204, 413], 1)


async def slow(sender: Sender, endpoint: Endpoint) -> int:
    sender.head(endpoint.path(TOKEN), LENGTH)
    sender.send(BODY[:10])
    return await sender.status()


async def test_a_dependency_that_reads_the_body_does_not_wait_for_ever(receiver):
    """The receiver's time limit applies before the dependency runs."""

    async def read(request: Request) -> None:
        await request.body()

    app = FastAPI()
    app.include_router(notification_routes(receiver), prefix="/callfire", dependencies=[Depends(read)])
    async with uvicorn_server(app) as port, connection(Endpoint(port, "/callfire")) as sender:
        assert await slow(sender, Endpoint(port, "/callfire")) == 408
