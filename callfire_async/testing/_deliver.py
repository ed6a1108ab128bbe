"""
One event to an application or a receiver, and waiting until it is handled.

It imports `notifications` and `endpoints`.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from typing import Any, TypeAlias

import httpx
from asgi_lifespan import LifespanManager
from attrs import define, field

from callfire_async.errors import HandlerErrors
from callfire_async.models import NotificationFormat
from callfire_async.notifications.encoding import encode
from callfire_async.notifications.events import Notification
from callfire_async.notifications.inbox.base import Delivery
from callfire_async.notifications.observers import AttemptRecord, Observer
from callfire_async.notifications.receiver import Receiver
from callfire_async.notifications.security.request_validation import Postback, Reply
from callfire_async.testing._endpoint_discovery import Endpoint, find_endpoint, is_aiohttp_target

__all__ = ["deliver"]

_Post: TypeAlias = Callable[[dict[str, str], bytes], Awaitable[Reply]]


async def deliver(
    target: Any,
    event: Notification,
    *,
    format: NotificationFormat | str = NotificationFormat.XML,
    path: str | None = None,
    token: str | None = None,
    receiver: Receiver | None = None,
    timeout: float = 5.0,
) -> Reply:
    """
    Post an event as CallFire would, and come back when its handlers are done.

    An application that is not running is started for this one event, its own lifespan included, and stopped again; one
    that runs already is left as it is.

    Args:
        target: A FastAPI, Starlette or other ASGI application, a `NotificationApp`, an aiohttp application, one of
            aiohttp's ``TestServer`` or ``TestClient``, or a `Receiver`. What runs must run in this event loop.
        event: Made by one of the factories, or by yourself.
        format: ``XML``, ``JSON`` or ``SOAP``.
        path: Where the endpoint is without its token, as in ``/callfire``; found by itself where there is only one.
        token: Another one than the receiver's own.
        receiver: For an application in which it cannot be found, with *path*.
        timeout: Seconds for the handlers. What waits for another attempt is not waited for.

    Returns:
        What was answered.

    Raises:
        HandlerErrors: What the handlers raised.
        AssertionError: The event became a dead letter for another reason, which it says.
        LookupError: Which endpoint is meant cannot be seen.
        TimeoutError: The handlers were not done in time.
    """
    endpoint = Endpoint(target, "") if isinstance(target, Receiver) else find_endpoint(target, path, receiver)
    content_type, body = encode(event, format)
    watch = _AttemptRecorder(Delivery(body).key)
    async with _transport_for(target, endpoint, token) as post:
        endpoint.receiver.observe(watch)
        try:
            reply = await post({"Content-Type": content_type}, body)
            await endpoint.receiver.idle(timeout)
        finally:
            endpoint.receiver.stop_observing(watch)
    watch.check()
    return reply


# --- what became of it ------------------------------------------------------------------------------------


@define(eq=False)
class _AttemptRecorder(Observer):
    """Sees how the attempts at one delivery end."""

    _key: str
    _handling: AttemptRecord | None = None
    _completed: list[str] = field(factory=list)
    _failed: dict[str, Exception] = field(factory=dict)

    def attempt(self, record: AttemptRecord) -> AbstractContextManager[None]:
        if record.delivery.key == self._key:
            self._handling, self._failed = record, {}
        return super().attempt(record)

    @contextmanager
    def handler(self, record: AttemptRecord, handler: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if record is self._handling:
                self._failed[handler] = error
            raise
        if record is self._handling:
            self._completed.append(handler)

    def check(self) -> None:
        """Raise what the last attempt ended with, if that is not success."""
        if self._handling is None or self._handling.outcome not in ("failed", "dead"):
            return
        ended = f"the event {_ENDS[self._handling.outcome]}: {self._handling.reason}"
        if not self._failed:
            raise AssertionError(ended)
        errors = HandlerErrors(
            ended, [*self._failed.values()], completed=frozenset(self._completed), failed=[*self._failed]
        )
        raise errors


_ENDS = {"failed": "was not handled", "dead": "became a dead letter"}


# --- the ways in ------------------------------------------------------------------------------------------


def _transport_for(target: Any, endpoint: Endpoint, token: str | None) -> AbstractAsyncContextManager[_Post]:
    if isinstance(target, Receiver):
        return _call_receiver(target, token)
    way = _through_aiohttp if is_aiohttp_target(target) else _through_asgi
    return way(target, endpoint, endpoint.path(token))


@asynccontextmanager
async def _call_receiver(receiver: Receiver, token: str | None) -> AsyncIterator[_Post]:
    own = Endpoint(receiver, "").path(token).removeprefix("/")
    async with receiver:
        yield lambda headers, body: receiver.receive(Postback("POST", own or None, headers, body))


@asynccontextmanager
async def _through_asgi(application: Any, endpoint: Endpoint, path: str) -> AsyncIterator[_Post]:
    async with AsyncExitStack() as stack:
        running = application
        if not endpoint.receiver.is_running:
            # As long as it takes: a receiver that stops gives its handlers their grace.
            lifespan = LifespanManager(application, startup_timeout=None, shutdown_timeout=None)
            running = (await stack.enter_async_context(lifespan)).app
        transport = httpx.ASGITransport(running, raise_app_exceptions=False)
        yield await stack.enter_async_context(_over_http(f"https://testserver{path}", transport))


@asynccontextmanager
async def _through_aiohttp(target: Any, endpoint: Endpoint, path: str) -> AsyncIterator[_Post]:
    from aiohttp import test_utils, web

    # A client for tests has the server.
    server = getattr(target, "server", target)
    async with AsyncExitStack() as stack:
        if isinstance(server, web.Application):
            if endpoint.receiver.is_running:
                raise TypeError("this application runs already: hand over its TestServer or TestClient")
            server = test_utils.TestServer(server)
        if not server.started:
            await stack.enter_async_context(server)
        yield await stack.enter_async_context(_over_http(str(server.make_url(path))))


@asynccontextmanager
async def _over_http(url: str, transport: httpx.AsyncBaseTransport | None = None) -> AsyncIterator[_Post]:
    async with httpx.AsyncClient(transport=transport, trust_env=False) as client:

        async def post(headers: dict[str, str], body: bytes) -> Reply:
            response = await client.post(url, headers=headers, content=body)
            return Reply(response.status_code, tuple(response.headers.items()), response.content)

        yield post
