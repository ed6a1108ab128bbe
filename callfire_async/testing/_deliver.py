"""`deliver`: post one event to an application or a receiver, and wait until it is handled."""

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

from callfire_async._arguments import check_instance
from callfire_async.errors import HandlerErrors
from callfire_async.models import NotificationFormat
from callfire_async.notifications.encoding import ApiGeneration, encode, generation_of
from callfire_async.notifications.events import Notification
from callfire_async.notifications.inbox.base import Delivery
from callfire_async.notifications.observers import AttemptRecord, Observer
from callfire_async.notifications.receiver import Receiver
from callfire_async.notifications.security.request_validation import Postback, Reply
from callfire_async.notifications.security.signatures import SIGNATURE_HEADER
from callfire_async.testing._endpoint_discovery import Endpoint, find_endpoint, is_aiohttp_target
from callfire_async.testing._recorded_completions import keep_recording

__all__ = ["deliver"]

_Post: TypeAlias = Callable[[dict[str, str], bytes], Awaitable[Reply]]


async def deliver(
    target: Any,
    event: Notification,
    *,
    format: NotificationFormat | str | None = None,
    api: ApiGeneration | None = None,
    path: str | None = None,
    token: str | None = None,
    receiver: Receiver | None = None,
    timeout: float = 5.0,
) -> Reply:
    """
    Post an event as CallFire does, and return once its handlers have finished.

    An application that is not running is started for this event, including its lifespan, and stopped afterwards. A
    running application is left running.

    Args:
        target: A FastAPI, Starlette or other ASGI application, a `NotificationApp`, an aiohttp application,
            ``TestServer`` or ``TestClient``, or a `Receiver`. A running target must run in the current event loop.
        event: The event, for example from a factory.
        format: ``XML`` (the default), ``JSON`` or ``SOAP`` for API 1.1; ``JSON`` for API v2.
        api: ``1.1`` or ``v2``; defaults to that of the event.
        path: The endpoint's path without the token, for example ``/callfire``; required if there are several endpoints.
        token: The token to send; defaults to the receiver's own.
        receiver: The receiver, if it cannot be found in the application; *path* is then required too.
        timeout: Seconds to wait for the handlers. Retries that are not due yet are not awaited.

    Returns:
        The endpoint's response.

    Raises:
        TypeError: *event* is not an event.
        HandlerErrors: Handlers raised exceptions.
        AssertionError: The event became a dead letter for another reason, given in the message.
        LookupError: The endpoint cannot be determined.
        TimeoutError: The handlers did not finish in time.
    """
    check_instance("event", event, Notification, "make_text_received()")
    endpoint = Endpoint(target, "") if isinstance(target, Receiver) else find_endpoint(target, path, receiver)
    content_type, body = encode(event, format, api=api or generation_of(event))
    attempts = _AttemptRecorder(Delivery(body).key)
    async with _transport_for(target, endpoint, token) as post:
        endpoint.receiver.observe(attempts)
        try:
            reply = await post({"Content-Type": content_type, **_signature(endpoint.receiver, body)}, body)
            await endpoint.receiver.idle(timeout)
        finally:
            endpoint.receiver.stop_observing(attempts)
    attempts.raise_failure()
    return reply


def _signature(receiver: Receiver, body: bytes) -> dict[str, str]:
    """Return the header with the signature of a body, if the receiver verifies signatures."""
    secrets = receiver.signing_secrets
    return {} if secrets is None else {SIGNATURE_HEADER: secrets.sign(body)}


# --- outcome ----------------------------------------------------------------------------------------------


@define(eq=False)
class _AttemptRecorder(Observer):
    """Records the attempts at one delivery."""

    _key: str
    _last: AttemptRecord | None = None
    _completed: list[str] = field(factory=list)
    _failed: dict[str, Exception] = field(factory=dict)
    #: A running application has a context of its own.
    _recording: Callable[[], AbstractContextManager[None]] = field(factory=keep_recording)

    def attempt(self, record: AttemptRecord) -> AbstractContextManager[None]:
        if record.delivery.key == self._key:
            self._last, self._failed = record, {}
        return super().attempt(record)

    @contextmanager
    def handler(self, record: AttemptRecord, handler: str) -> Iterator[None]:
        try:
            with self._recording():
                yield
        except Exception as error:
            if record is self._last:
                self._failed[handler] = error
            raise
        if record is self._last:
            self._completed.append(handler)

    def raise_failure(self) -> None:
        """Raise an exception if the last attempt did not succeed."""
        if self._last is None or self._last.outcome not in _FAILURES:
            return
        message = f"the event {_FAILURES[self._last.outcome]}: {self._last.reason}"
        if not self._failed:
            raise AssertionError(message)
        raise HandlerErrors(
            message, [*self._failed.values()], completed=frozenset(self._completed), failed=[*self._failed]
        )


_FAILURES = {"failed": "was not handled", "dead": "became a dead letter"}


# --- transports -------------------------------------------------------------------------------------------


def _transport_for(target: Any, endpoint: Endpoint, token: str | None) -> AbstractAsyncContextManager[_Post]:
    if isinstance(target, Receiver):
        return _call_receiver(target, token)
    transport = _aiohttp_transport if is_aiohttp_target(target) else _asgi_transport
    return transport(target, endpoint, endpoint.path(token))


@asynccontextmanager
async def _call_receiver(receiver: Receiver, token: str | None) -> AsyncIterator[_Post]:
    path_token = Endpoint(receiver, "").path(token).removeprefix("/")
    async with receiver:
        yield lambda headers, body: receiver.receive(Postback("POST", path_token or None, headers, body))


@asynccontextmanager
async def _asgi_transport(application: Any, endpoint: Endpoint, path: str) -> AsyncIterator[_Post]:
    async with AsyncExitStack() as stack:
        running = application
        if not endpoint.receiver.is_running:
            # No time limit: a stopping receiver waits for its handlers up to its shutdown_timeout.
            lifespan = LifespanManager(application, startup_timeout=None, shutdown_timeout=None)
            running = (await stack.enter_async_context(lifespan)).app
        transport = httpx.ASGITransport(running, raise_app_exceptions=False)
        yield await stack.enter_async_context(_http_transport(f"https://testserver{path}", transport))


@asynccontextmanager
async def _aiohttp_transport(target: Any, endpoint: Endpoint, path: str) -> AsyncIterator[_Post]:
    from aiohttp import test_utils, web

    # A TestClient has its TestServer as `server`.
    server = getattr(target, "server", target)
    async with AsyncExitStack() as stack:
        if isinstance(server, web.Application):
            if endpoint.receiver.is_running:
                raise TypeError("target is a running aiohttp application: pass its TestServer or TestClient")
            server = test_utils.TestServer(server)
        if not server.started:
            await stack.enter_async_context(server)
        yield await stack.enter_async_context(_http_transport(str(server.make_url(path))))


@asynccontextmanager
async def _http_transport(url: str, transport: httpx.AsyncBaseTransport | None = None) -> AsyncIterator[_Post]:
    async with httpx.AsyncClient(transport=transport, trust_env=False) as client:

        async def post(headers: dict[str, str], body: bytes) -> Reply:
            response = await client.post(url, headers=headers, content=body)
            return Reply(response.status_code, tuple(response.headers.items()), response.content)

        yield post
