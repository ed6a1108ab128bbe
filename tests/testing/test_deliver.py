"""`deliver`: post one event to an application or receiver, and return when its handlers have finished."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Mount, Route

from callfire_async import HandlerErrors
from callfire_async.notifications import (
    MemoryInbox,
    Notification,
    Receiver,
    Reject,
    Reply,
    RetryPolicy,
    Router,
    TextFinished,
    TextSent,
)
from callfire_async.notifications.aiohttp import add_notification_routes
from callfire_async.notifications.asgi import NotificationApp
from callfire_async.notifications.fastapi import notification_routes
from callfire_async.testing import deliver, make_call_finished, make_text_finished, make_text_sent

TOKEN = "a-token-for-tests-only"


class Service:
    """A receiver, and the events that its handler has received."""

    def __init__(self, *, tokens=TOKEN, **options) -> None:
        self.handled: list[Notification] = []
        self.router = Router()
        self.router.on(TextFinished, name="record")(self.record)
        self.receiver = Receiver(self.router, tokens=tokens, **options)

    async def record(self, event) -> None:
        self.handled.append(event)


def fastapi_app(receiver):
    app = FastAPI()
    app.include_router(notification_routes(receiver), prefix="/callfire")
    return app


def nested_fastapi_app(receiver):
    routes = APIRouter()
    routes.include_router(notification_routes(receiver), prefix="/callfire")
    app = FastAPI()
    app.include_router(routes, prefix="/hooks")
    return app


def mounted_app(receiver):
    app = NotificationApp(receiver)
    return Starlette(routes=[Route("/", lambda _: None), Mount("/callfire", app)], lifespan=app.lifespan)


def app_with_middleware(receiver):
    return GZipMiddleware(mounted_app(receiver))


def aiohttp_app(receiver):
    app = web.Application()
    add_notification_routes(app, receiver, "/callfire")
    return app


def nested_aiohttp_app(receiver):
    app = web.Application()
    app.add_subapp("/hooks", aiohttp_app(receiver))
    return app


TARGETS = [
    fastapi_app,
    nested_fastapi_app,
    NotificationApp,
    mounted_app,
    app_with_middleware,
    aiohttp_app,
    nested_aiohttp_app,
    lambda receiver: TestServer(aiohttp_app(receiver)),
    lambda receiver: TestClient(TestServer(aiohttp_app(receiver))),
    lambda receiver: receiver,
]
each_target = pytest.mark.parametrize(
    "make_target",
    TARGETS,
    ids="fastapi nested-fastapi asgi mount middleware aiohttp nested-aiohttp server client bare".split(),
)


@each_target
@pytest.mark.parametrize("inbox", [None, MemoryInbox], ids=["inline", "inbox"])
async def test_deliver_returns_when_the_handlers_have_finished(make_target, inbox):
    """The endpoint is found, and its application is started and stopped."""
    service = Service(inbox=inbox and inbox())
    event = make_text_finished(result="CARRIER_ERROR")
    target = make_target(service.receiver)

    reply = await deliver(target, event)

    assert (reply.status, service.handled, service.receiver.is_running) == (204, [event], False)
    if isinstance(target, TestClient):
        await target.close()


@each_target
async def test_another_token(make_target):
    """The response to a wrong token can be tested."""
    service = Service()
    target = make_target(service.receiver)

    reply = await deliver(target, make_text_sent(), token="wrong")

    assert (reply.status, service.handled) == (404, [])
    if isinstance(target, TestClient):
        await target.close()


@each_target
async def test_a_receiver_that_verifies_signatures(make_target):
    """`deliver` signs with the receiver's own secret."""
    service = Service(signing_secrets="a-secret-for-tests-only")

    target = make_target(service.receiver)

    reply = await deliver(target, make_text_sent())

    assert (reply.status, len(service.handled)) == (204, 1)
    if isinstance(target, TestClient):
        await target.close()


@each_target
async def test_an_endpoint_without_token(make_target):
    """The event is posted without a token."""
    service = Service(tokens=None)
    target = make_target(service.receiver)

    reply = await deliver(target, make_text_sent())

    assert (reply.status, len(service.handled)) == (204, 1)
    if isinstance(target, TestClient):
        await target.close()


@pytest.mark.parametrize("inbox", [None, MemoryInbox])
@pytest.mark.parametrize(
    ("event", "api", "name"),
    [
        (make_text_sent(webhook_id=7), None, "OutboundText.Finished"),
        (make_text_sent(webhook_id=7), "1.1", "TextSent"),
        (make_text_sent(), "v2", "OutboundText.Finished"),
    ],
)
async def test_each_generation(inbox, event, api, name):
    """The default is that of the event; a receiver that verifies signatures gets one."""
    service = Service(signing_secrets="a-secret-for-tests-only", inbox=inbox and inbox())

    reply = await deliver(service.receiver, event, api=api)

    assert reply.status == 204
    assert [(received.name, received.key) for received in service.handled] == [(name, event.key)]


@pytest.mark.parametrize("format", ["XML", "JSON", "SOAP"])
async def test_each_format(format):
    """The handler receives the same event."""
    service = Service()
    event = make_text_sent()

    await deliver(service.receiver, event, format=format)

    assert service.handled == [event]


async def test_several_events():
    """An application that is not running is started for each event."""
    service = Service()
    app = fastapi_app(service.receiver)

    for _ in range(2):
        await deliver(app, make_text_sent())

    assert len(service.handled) == 2


async def test_a_running_application_is_left_running():
    """Its lifespan is not started again."""
    started = []

    @asynccontextmanager
    async def lifespan(_):
        started.append(True)
        yield

    service = Service(inbox=MemoryInbox())
    app = FastAPI(lifespan=lifespan)
    app.include_router(notification_routes(service.receiver))

    async with app.router.lifespan_context(app):
        await deliver(app, make_text_sent())
        await deliver(app, make_text_sent())
        assert service.receiver.is_running

    assert (len(started), len(service.handled)) == (1, 2)


async def test_a_running_test_server_is_left_running():
    """The fixtures of aiohttp start it."""
    service = Service()

    async with TestClient(TestServer(aiohttp_app(service.receiver))) as client:
        await deliver(client, make_text_sent())
        await deliver(client.server, make_text_sent())
        assert service.receiver.is_running

    assert len(service.handled) == 2


async def test_a_running_aiohttp_application_is_rejected():
    """It has no reference to its server."""
    app = aiohttp_app(Service().receiver)

    async with TestServer(app):
        with pytest.raises(TypeError, match="pass its TestServer"):
            await deliver(app, make_text_sent())


# --- which endpoint ---------------------------------------------------------------------------------------


async def test_the_path_selects_the_endpoint():
    """It can end with a slash."""
    first, second = Service(), Service()
    app = FastAPI()
    app.include_router(notification_routes(first.receiver), prefix="/first")
    app.include_router(notification_routes(second.receiver), prefix="/second")

    await deliver(app, make_text_sent(), path="/second/")

    assert (len(first.handled), len(second.handled)) == (0, 1)
    with pytest.raises(LookupError, match="found: /first, /second"):
        await deliver(app, make_text_sent())


async def test_an_endpoint_that_cannot_be_found():
    """The receiver and the path can be passed."""
    service = Service()
    inner = fastapi_app(service.receiver)

    async def app(scope, receive, send) -> None:
        await inner(scope, receive, send)

    await deliver(app, make_text_sent(), receiver=service.receiver, path="/callfire")

    assert len(service.handled) == 1
    with pytest.raises(LookupError, match="endpoints found: none"):
        await deliver(app, make_text_sent())


# --- failures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inbox", [None, MemoryInbox], ids=["inline", "inbox"])
async def test_a_handlers_exception_is_raised(inbox):
    """The error has the handler's exception, for the test's output."""
    service = Service(inbox=inbox and inbox())

    @service.router.on(TextSent, name="charge")
    async def charge(event: TextSent) -> None:
        raise ZeroDivisionError("no customers")

    with pytest.raises(HandlerErrors, match="was not handled: charge: ZeroDivisionError") as raised:
        await deliver(fastapi_app(service.receiver), make_text_sent())

    (error,) = raised.value.exceptions
    assert str(error) == "no customers"
    assert (raised.value.failed, raised.value.completed) == (("charge",), frozenset(["record"]))


async def test_a_retry_that_succeeds():
    """The last attempt counts; a retry without a delay is awaited."""
    service = Service(inbox=MemoryInbox(), retry=RetryPolicy(initial_delay=0, max_delay=0))
    attempts = []

    @service.router.on(TextSent, name="charge")
    async def charge(event: TextSent) -> None:
        attempts.append(event)
        if len(attempts) == 1:
            raise ZeroDivisionError

    await deliver(service.receiver, make_text_sent())

    assert len(attempts) == 2


async def test_a_dead_letter_is_an_assertion_error():
    """The message has the reason."""
    service = Service(inbox=MemoryInbox())

    with pytest.raises(AssertionError, match="became a dead letter: no handler matches CallFinished"):
        await deliver(service.receiver, make_call_finished())


async def test_a_rejected_event_is_a_handler_error():
    """The event is a dead letter, and the handler raised."""
    service = Service(inbox=MemoryInbox())

    @service.router.on(TextSent, name="charge")
    async def charge(event: TextSent) -> None:
        raise Reject("no account")

    with pytest.raises(HandlerErrors, match="became a dead letter: rejected: no account"):
        await deliver(service.receiver, make_text_sent())


async def test_an_event_without_a_handler():
    """Without an inbox it is not a failure; the response is 204."""
    reply = await deliver(Service().receiver, make_call_finished())

    assert reply.status == 204


@pytest.mark.parametrize("inbox", [None, MemoryInbox], ids=["inline", "inbox"])
async def test_failures_of_other_events_are_ignored(inbox):
    """A concurrent event that fails does not affect it."""
    service = Service(inbox=inbox and inbox())
    good, bad = make_text_sent(), make_text_sent()

    @service.router.on(TextSent, where=lambda event: event == bad, name="fail")
    async def fail(event: TextSent) -> None:
        raise ZeroDivisionError

    async with service.receiver:
        outcomes = await asyncio.gather(
            *(deliver(service.receiver, event) for event in (good, bad)), return_exceptions=True
        )

    assert [type(outcome) for outcome in outcomes] == [Reply, HandlerErrors]


async def test_a_repeated_event_is_acknowledged_and_not_handled():
    """The inbox deduplicates it."""
    service = Service(inbox=MemoryInbox())
    event = make_text_sent()

    async with service.receiver:
        replies = [await deliver(service.receiver, event) for _ in range(2)]

    assert ([reply.status for reply in replies], len(service.handled)) == ([204, 204], 1)
