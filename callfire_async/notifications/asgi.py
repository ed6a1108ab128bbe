"""The receiver, and its health, as ASGI applications. It imports both, `door`, and no framework."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Self

from callfire_async.notifications.health import health_reply
from callfire_async.notifications.receiver import Postback, Receiver, Reply
from callfire_async.notifications.security.request_validation import DECISIVE

__all__ = ["HealthApp", "NotificationApp"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_DECISIVE = {name.encode(): name for name in DECISIVE}


class NotificationApp:
    """
    An ASGI application that hands postbacks to a receiver, at ``/{token}`` and ``/{token}/``.

    Served at the top it starts and stops the receiver itself. Mounted, it is told nothing of starting and stopping:
    pass ``lifespan`` to the outer application. Starlette redirects the bare path of a mount: the endpoint of an open
    receiver ends with a slash there.
    """

    def __init__(self, receiver: Receiver) -> None:
        #: What takes the postbacks.
        self.receiver = receiver
        receiver.redact("uvicorn.access")

    @asynccontextmanager
    async def lifespan(self, app: object) -> AsyncIterator[None]:  # noqa: ARG002  # what frameworks call it with
        """Run the receiver while the outer application runs."""
        async with self.receiver:
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection of the server's."""
        if scope["type"] == "lifespan":
            await self._run(receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
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

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = relevant_headers(scope["headers"])
        token = scope["path"].removeprefix(scope.get("root_path", "")).removeprefix("/").removesuffix("/")
        reply = await self.receiver.receive(Postback(scope["method"], token or None, headers, _RequestBody(receive)))
        await _send(reply, send)


class HealthApp:
    """
    An ASGI application that says how a receiver is: all of it at its bare path, and ``/live`` and ``/ready``.

    It is mounted beside the receiver's, and starts nothing. Answers 200, or 503 with the reasons as text.

    Args:
        receiver: The receiver.
        max_age: Seconds for which a delivery that is due may wait.
    """

    def __init__(self, receiver: Receiver, *, max_age: float = 300.0) -> None:
        self._receiver = receiver
        self._max_age = max_age

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # nothing is read
        """Answer one request."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
            return
        asked = scope["path"].removeprefix(scope.get("root_path", "")).strip("/")
        if asked == "":
            reply = health_reply(await self._receiver.health(max_age=self._max_age))
        elif asked == "live" or asked == "ready":  # noqa: PLR1714  # so that the type checkers know which
            reply = health_reply(await self._receiver.health(max_age=self._max_age), asked)
        else:
            reply = Reply(404)
        await _send(reply, send)


def relevant_headers(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    """Decode the headers that a receiver reads; their names come in lower case."""
    return [(_DECISIVE[name], value.decode("latin-1")) for name, value in headers if name in _DECISIVE]


async def _send(reply: Reply, send: Send) -> None:
    fields = [(name.lower().encode(), value.encode()) for name, value in reply.headers]
    if reply.close_connection:
        fields.append((b"connection", b"close"))
    if reply.status != 204:  # No Content has no length
        fields.append((b"content-length", b"%d" % len(reply.body)))
    await send({"type": "http.response.start", "status": reply.status, "headers": fields})
    await send({"type": "http.response.body", "body": reply.body})


class _RequestBody:
    """The body of a request; a class, since a generator would be registered with the event loop for each."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._more = True

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if not self._more:
            raise StopAsyncIteration
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError
        self._more = message.get("more_body", False)
        chunk: bytes = message.get("body", b"")
        return chunk
