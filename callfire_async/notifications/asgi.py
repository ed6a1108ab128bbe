"""ASGI applications for a receiver and for its health checks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from callfire_async.notifications.health import HealthCheck, health_reply
from callfire_async.notifications.inbox._inbox_arguments import check_seconds
from callfire_async.notifications.receiver import Postback, Receiver, Reply
from callfire_async.notifications.receiver._receiver_arguments import check_receiver
from callfire_async.notifications.security.request_validation import RELEVANT_HEADERS

__all__ = ["HealthApp", "NotificationApp"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

NO_LIFESPAN_EVENTS = """\
the server sends no lifespan events: start uvicorn without --lifespan off; hypercorn and granian send them, daphne does
    not; a function that dispatches to Django or another application must pass on scopes of the type "lifespan", too"""
_NOT_STARTED = f"""\
the receiver is not running, because its application has not received a lifespan event:
    {NO_LIFESPAN_EVENTS}
    anything else must run it: async with receiver: ..."""
_MOUNTED = f"""\
the receiver is not running, because a mounted application receives no lifespan events:
    start it with the outer application: Starlette(routes=[...], lifespan=notification_app.lifespan),
    or in a lifespan of your own: async with receiver: yield
    if the outer application does that, {NO_LIFESPAN_EVENTS}"""

_RELEVANT_HEADERS = {name.encode(): name for name in RELEVANT_HEADERS}
_CHECKS: dict[str, HealthCheck] = {"": None, "live": "live", "ready": "ready"}


class NotificationApp:
    """
    An ASGI application that passes postbacks to a receiver, at ``/{token}`` and ``/{token}/``.

    Served directly, it starts and stops the receiver itself. A mounted application gets no lifespan events: pass
    ``lifespan`` to the outer application. Starlette redirects the bare path of a mount, so the URL of a mounted
    endpoint without a token must end with a slash.

    Raises:
        TypeError: *receiver* is not a `Receiver`.
    """

    def __init__(self, receiver: Receiver) -> None:
        check_receiver(receiver)
        #: The receiver of the postbacks.
        self.receiver = receiver
        receiver.redact("uvicorn.access")

    @asynccontextmanager
    async def lifespan(self, app: object) -> AsyncIterator[None]:  # noqa: ARG002  # part of the frameworks' signature
        """Run the receiver while the outer application runs."""
        async with self.receiver:
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a lifespan, a request or a WebSocket connection, which is closed."""
        if scope["type"] == "lifespan":
            await self._run(receive, send)
        elif scope["type"] == "http":
            await self._respond(scope, receive, send)
        else:
            await send({"type": "websocket.close"})

    async def _run(self, receive: Receive, send: Send) -> None:
        await receive()
        async with AsyncExitStack() as running:
            try:
                await running.enter_async_context(self.receiver)
            except Exception as error:
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                raise
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Frameworks put the application that has mounted this one into the scope.
        self.receiver.start_advice = _MOUNTED if "app" in scope else _NOT_STARTED
        token = _path(scope).removeprefix("/").removesuffix("/")
        reply = await self.receiver.receive(to_postback(scope, token or None, receive))
        await send_reply(reply, send)


class HealthApp:
    """
    An ASGI application with a receiver's health checks: health at its bare path, ``/live`` and ``/ready``.

    Mount it beside the receiver's application; it does not start the receiver. Returns 200, or 503 with the reasons
    as text.

    Args:
        receiver: The receiver.
        max_age: Seconds that a due delivery may wait before the receiver is unhealthy.

    Raises:
        TypeError, ValueError: *max_age* is not a number, or is negative.
    """

    def __init__(self, receiver: Receiver, *, max_age: float = 300.0) -> None:
        check_seconds(max_age=max_age)
        self._receiver = receiver
        self._max_age = max_age

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # no body is read
        """Handle a request, or a WebSocket connection, which is closed."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
            return
        name = _path(scope).strip("/")
        if name in _CHECKS:
            reply = health_reply(await self._receiver.health(max_age=self._max_age), _CHECKS[name])
        else:
            reply = Reply(404)
        await send_reply(reply, send)


def to_postback(scope: Scope, token: str | None, receive: Receive) -> Postback:
    """Return the request of a scope, whose body is read from *receive*."""
    return Postback(scope["method"], token, _decode_headers(scope["headers"]), _chunks(receive))


def _decode_headers(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    """Decode the headers that a receiver reads; ASGI servers pass their names in lower case."""
    return [(_RELEVANT_HEADERS[name], value.decode("latin-1")) for name, value in headers if name in _RELEVANT_HEADERS]


def _path(scope: Scope) -> str:
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    return path


async def send_reply(reply: Reply, send: Send) -> None:
    """Send a reply as the response of a request."""
    headers = [(name.lower().encode(), value.encode()) for name, value in reply.headers]
    if reply.close_connection:
        headers.append((b"connection", b"close"))
    if reply.status != 204:  # a 204 response must not have a Content-Length
        headers.append((b"content-length", b"%d" % len(reply.body)))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})


async def _chunks(receive: Receive) -> AsyncIterator[bytes]:
    has_more = True
    while has_more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError
        has_more = message.get("more_body", False)
        yield message.get("body", b"")
