"""aiohttp routes for a receiver and for its health checks."""

from __future__ import annotations

from collections.abc import AsyncIterator

from aiohttp import web
from aiohttp.typedefs import Handler
from attrs import frozen

from callfire_async._arguments import check_instance, type_name
from callfire_async.notifications.health import HealthCheck, health_reply
from callfire_async.notifications.inbox._inbox_arguments import check_seconds
from callfire_async.notifications.receiver import Postback, Receiver
from callfire_async.notifications.receiver._receiver_arguments import check_receiver
from callfire_async.notifications.security.request_validation import BodyConsumedError

__all__ = ["add_health_routes", "add_notification_routes"]

_NOT_STARTED = """\
the receiver is not running, because the application has not been started:
    start it with web.run_app or web.AppRunner, and in a test with aiohttp.test_utils.TestServer"""


@frozen
class AiohttpEndpoint:
    """The handler of a receiver's routes; tools find the receiver of a route here."""

    receiver: Receiver

    async def handle(self, request: web.Request) -> web.StreamResponse:
        token = request.match_info.get("token")
        reply = await self.receiver.receive(Postback(request.method, token, request.headers, _body(request)))
        response = web.Response(status=reply.status, headers=reply.headers, body=reply.body or None)
        return await _respond_and_disconnect(request, response) if reply.close_connection else response


def add_notification_routes(app: web.Application, receiver: Receiver, prefix: str = "") -> None:
    """
    Add routes for postbacks at ``{prefix}/{token}``; start and stop the receiver with the application.

    Args:
        app: The application, before it is started.
        receiver: The receiver of the postbacks.
        prefix: A path that starts with a slash, or an empty string.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: *prefix* does not start with a slash.
    """
    _check_arguments(app, receiver, prefix=prefix)

    async def run_receiver(_: web.Application) -> AsyncIterator[None]:
        async with receiver:
            yield

    # aiohttp.server quotes the parts of a request that it cannot parse.
    receiver.redact("aiohttp.access", "aiohttp.server")
    receiver.start_advice = _NOT_STARTED
    app.cleanup_ctx.append(run_receiver)
    prefix = prefix.rstrip("/")
    endpoint = AiohttpEndpoint(receiver)
    for path in ("/{token}", "/{token}/", *([] if receiver.requires_token else ["", "/"])):
        app.router.add_route("*", prefix + path or "/", endpoint.handle)


def add_health_routes(
    app: web.Application, receiver: Receiver, path: str = "/health", *, max_age: float = 300.0
) -> None:
    """
    Add health checks at ``{path}``, ``{path}/live`` and ``{path}/ready``: 200, or 503 with the reasons as text.

    Args:
        app: The application, before it is started.
        receiver: The receiver; it is not started by these routes.
        path: A path that starts with a slash.
        max_age: Seconds that a due delivery may wait before the receiver is unhealthy.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: *path* does not start with a slash, or *max_age* is negative.
    """
    _check_arguments(app, receiver, path=path)
    check_seconds(max_age=max_age)

    def make_handler(check: HealthCheck) -> Handler:
        async def handle(_: web.Request) -> web.StreamResponse:
            reply = health_reply(await receiver.health(max_age=max_age), check)
            return web.Response(status=reply.status, headers=dict(reply.headers), body=reply.body)

        return handle

    app.router.add_get(path, make_handler(None))
    app.router.add_get(f"{path}/live", make_handler("live"))
    app.router.add_get(f"{path}/ready", make_handler("ready"))


def _check_arguments(app: object, receiver: object, **paths: object) -> None:
    check_instance("app", app, web.Application, "web.Application()")
    check_receiver(receiver)
    for name, path in paths.items():
        if not isinstance(path, str):
            raise TypeError(f"{name} must be a string, not {type_name(path)}")
        if path and not path.startswith("/"):
            raise ValueError(f"{name} must start with a slash, as in /callfire")


async def _body(request: web.Request) -> AsyncIterator[bytes]:
    """Yield the body; if a middleware has read it, yield what aiohttp has kept of it."""
    size = 0
    # At the end of the stream `read` returns the kept bytes, or nothing if the stream was read in another way.
    chunks = _kept_body(request) if request.content.at_eof() else request.content.iter_any()
    async for chunk in chunks:
        size += len(chunk)
        yield chunk
    if size < request.content.total_bytes:
        raise BodyConsumedError


async def _kept_body(request: web.Request) -> AsyncIterator[bytes]:
    yield await request.read()


async def _respond_and_disconnect(request: web.Request, response: web.Response) -> web.Response:
    # After an early response aiohttp reads the body for up to ten seconds, unless the transport is closed.
    response.force_close()
    await response.prepare(request)
    await response.write_eof()
    request.protocol.force_close()
    return response
