"""`deliver`: one event to whatever takes postbacks, and back when its handlers are done."""

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
    """Handlers that write down what they were given, and a receiver that runs them."""

    def __init__(self, *, tokens=TOKEN, **options) -> None:
        self.handled: list[Notification] = []
        self.router = Router()
        self.router.on(TextFinished, name="note")(self.note)
        self.receiver = Receiver(self.router, tokens=tokens, **options)

    async def note(self, event) -> None:
        self.handled.append(event)


def by_fastapi(receiver):
    app = FastAPI()
    app.include_router(notification_routes(receiver), prefix="/callfire")
    return app


def by_nested_fastapi(receiver):
    routes = APIRouter()
    routes.include_router(notification_routes(receiver), prefix="/callfire")
    app = FastAPI()
    app.include_router(routes, prefix="/hooks")
    return app


def by_mount(receiver):
    app = NotificationApp(receiver)
    return Starlette(routes=[Route("/", lambda _: None), Mount("/callfire", app)], lifespan=app.lifespan)


def by_middleware(receiver):
    return GZipMiddleware(by_mount(receiver))


def by_aiohttp(receiver):
    app = web.Application()
    add_notification_routes(app, receiver, "/callfire")
    return app


def by_nested_aiohttp(receiver):
    app = web.Application()
    app.add_subapp("/hooks", by_aiohttp(receiver))
    return app


WAYS = [
    by_fastapi,
    by_nested_fastapi,
    NotificationApp,
    by_mount,
    by_middleware,
    by_aiohttp,
    by_nested_aiohttp,
    lambda receiver: TestServer(by_aiohttp(receiver)),
    lambda receiver: TestClient(TestServer(by_aiohttp(receiver))),
    lambda receiver: receiver,
]
each_way = pytest.mark.parametrize(
    "embed", WAYS, ids="fastapi nested-fastapi asgi mount middleware aiohttp nested-aiohttp server client bare".split()
)


@each_way
@pytest.mark.parametrize("inbox", [None, MemoryInbox], ids=["at once", "inbox"])
async def test_the_handlers_are_done_when_it_comes_back(embed, inbox):
    """Whatever takes postbacks: it is found, started, posted to, waited for, and stopped."""
    service = Service(inbox=inbox and inbox())
    event = make_text_finished(result="CARRIER_ERROR")
    target = embed(service.receiver)

    reply = await deliver(target, event)

    assert (reply.status, service.handled, service.receiver.is_running) == (204, [event], False)
    if isinstance(target, TestClient):
        await target.close()


@each_way
async def test_a_token_of_ones_own(embed):
    """What is answered to a stranger is to be had too."""
    service = Service()
    target = embed(service.receiver)

    reply = await deliver(target, make_text_sent(), token="wrong")

    assert (reply.status, service.handled) == (404, [])
    if isinstance(target, TestClient):
        await target.close()


@each_way
async def test_an_open_endpoint(embed):
    """There is no token to find."""
    service = Service(tokens=None)
    target = embed(service.receiver)

    reply = await deliver(target, make_text_sent())

    assert (reply.status, len(service.handled)) == (204, 1)
    if isinstance(target, TestClient):
        await target.close()


@pytest.mark.parametrize("format", ["XML", "JSON", "SOAP"])
async def test_in_the_format_that_is_asked_for(format):
    """The event is the same."""
    service = Service()
    event = make_text_sent()

    await deliver(service.receiver, event, format=format)

    assert service.handled == [event]


async def test_one_event_after_the_other():
    """An application that is not running is started for each."""
    service = Service()
    app = by_fastapi(service.receiver)

    for _ in range(2):
        await deliver(app, make_text_sent())

    assert len(service.handled) == 2


async def test_an_application_that_runs_is_left_running():
    """Its lifespan is not begun again."""
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


async def test_a_test_server_that_runs_is_left_running():
    """As aiohttp's own fixtures start it."""
    service = Service()

    async with TestClient(TestServer(by_aiohttp(service.receiver))) as client:
        await deliver(client, make_text_sent())
        await deliver(client.server, make_text_sent())
        assert service.receiver.is_running

    assert len(service.handled) == 2


async def test_where_an_aiohttp_application_runs_cannot_be_seen():
    """It knows nothing of its servers."""
    app = by_aiohttp(Service().receiver)

    async with TestServer(app):
        with pytest.raises(TypeError, match="hand over its TestServer"):
            await deliver(app, make_text_sent())


# --- which endpoint ---------------------------------------------------------------------------------------


async def test_the_path_says_which_endpoint():
    """With a slash at its end or without."""
    first, second = Service(), Service()
    app = FastAPI()
    app.include_router(notification_routes(first.receiver), prefix="/first")
    app.include_router(notification_routes(second.receiver), prefix="/second")

    await deliver(app, make_text_sent(), path="/second/")

    assert (len(first.handled), len(second.handled)) == (0, 1)
    with pytest.raises(LookupError, match="found: /first, /second"):
        await deliver(app, make_text_sent())


async def test_an_application_that_hides_its_endpoint():
    """The receiver and the path can be said."""
    service = Service()
    inner = by_fastapi(service.receiver)

    async def app(scope, receive, send) -> None:
        await inner(scope, receive, send)

    await deliver(app, make_text_sent(), receiver=service.receiver, path="/callfire")

    assert len(service.handled) == 1
    with pytest.raises(LookupError, match="none that can be seen"):
        await deliver(app, make_text_sent())


# --- what went wrong --------------------------------------------------------------------------------------


@pytest.mark.parametrize("inbox", [None, MemoryInbox], ids=["at once", "inbox"])
async def test_what_a_handler_raised_is_raised(inbox):
    """With the handler's own exception, to be read in the test's output."""
    service = Service(inbox=inbox and inbox())

    @service.router.on(TextSent, name="charge")
    async def charge(event: TextSent) -> None:
        raise ZeroDivisionError("no customers")

    with pytest.raises(HandlerErrors, match="was not handled: charge: ZeroDivisionError") as raised:
        await deliver(by_fastapi(service.receiver), make_text_sent())

    (error,) = raised.value.exceptions
    assert str(error) == "no customers"
    assert (raised.value.failed, raised.value.completed) == (("charge",), frozenset(["note"]))


async def test_a_handler_that_succeeds_at_last():
    """What counts is the last attempt; one that is due at once is waited for."""
    service = Service(inbox=MemoryInbox(), retry=RetryPolicy(initial_delay=0, max_delay=0))
    attempts = []

    @service.router.on(TextSent, name="charge")
    async def charge(event: TextSent) -> None:
        attempts.append(event)
        if len(attempts) == 1:
            raise ZeroDivisionError

    await deliver(service.receiver, make_text_sent())

    assert len(attempts) == 2


async def test_a_dead_letter_is_said():
    """With its reason."""
    service = Service(inbox=MemoryInbox())

    with pytest.raises(AssertionError, match="became a dead letter: no handler matches CallFinished"):
        await deliver(service.receiver, make_call_finished())


async def test_a_rejected_event_is_said():
    """It is what the handler raised, and a dead letter."""
    service = Service(inbox=MemoryInbox())

    @service.router.on(TextSent, name="charge")
    async def charge(event: TextSent) -> None:
        raise Reject("no account")

    with pytest.raises(HandlerErrors, match="became a dead letter: rejected: no account"):
        await deliver(service.receiver, make_text_sent())


async def test_what_nobody_takes_is_answered_all_the_same():
    """Without an inbox that is no failure; CallFire is answered 204."""
    reply = await deliver(Service().receiver, make_call_finished())

    assert reply.status == 204


@pytest.mark.parametrize("inbox", [None, MemoryInbox], ids=["at once", "inbox"])
async def test_others_failures_are_others(inbox):
    """An event that fails beside it is none of its business."""
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


async def test_a_repeat_is_answered_and_not_handled():
    """As the inbox has it already."""
    service = Service(inbox=MemoryInbox())
    event = make_text_sent()

    async with service.receiver:
        replies = [await deliver(service.receiver, event) for _ in range(2)]

    assert ([reply.status for reply in replies], len(service.handled)) == ([204, 204], 1)
