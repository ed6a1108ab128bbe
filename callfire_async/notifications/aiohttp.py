"""The receiver, and its health, in an aiohttp application. It imports both, and aiohttp."""

from __future__ import annotations

from collections.abc import AsyncIterator

from aiohttp import web
from aiohttp.typedefs import Handler
from attrs import frozen

from callfire_async.notifications.health import Question, health_reply
from callfire_async.notifications.receiver import Postback, Receiver

__all__ = ["add_health_routes", "add_notification_routes"]


@frozen
class AiohttpEndpoint:
    """Whoever holds a route finds the receiver here."""

    receiver: Receiver

    async def take(self, request: web.Request) -> web.StreamResponse:
        token = request.match_info.get("token")
        body = request.content.iter_any()
        reply = await self.receiver.receive(Postback(request.method, token, request.headers, body))
        response = web.Response(status=reply.status, headers=reply.headers, body=reply.body or None)
        return await _cut_off(request, response) if reply.close_connection else response


def add_notification_routes(app: web.Application, receiver: Receiver, prefix: str = "") -> None:
    """
    Take postbacks at ``{prefix}/{token}``, and start and stop the receiver with the application.

    Args:
        app: The application, before it is started.
        receiver: What takes them.
        prefix: A path that begins with a slash, or nothing.
    """

    async def running(_: web.Application) -> AsyncIterator[None]:
        async with receiver:
            yield

    # The second quotes what it cannot read of a request.
    receiver.redact("aiohttp.access", "aiohttp.server")
    app.cleanup_ctx.append(running)
    prefix = prefix.rstrip("/")
    take = AiohttpEndpoint(receiver).take
    for path in ("/{token}", "/{token}/", *([] if receiver.requires_token else ["", "/"])):
        app.router.add_route("*", prefix + path or "/", take)


def add_health_routes(
    app: web.Application, receiver: Receiver, path: str = "/health", *, max_age: float = 300.0
) -> None:
    """
    Say at ``{path}``, ``{path}/live`` and ``{path}/ready`` how a receiver is: 200, or 503 with the reasons as text.

    Args:
        app: The application, before it is started.
        receiver: The receiver; it is not started here.
        path: A path that begins with a slash.
        max_age: Seconds for which a delivery that is due may wait.
    """

    def asking(question: Question) -> Handler:
        async def ask(_: web.Request) -> web.StreamResponse:
            reply = health_reply(await receiver.health(max_age=max_age), question)
            return web.Response(status=reply.status, headers=dict(reply.headers), body=reply.body)

        return ask

    app.router.add_get(path, asking(None))
    app.router.add_get(f"{path}/live", asking("live"))
    app.router.add_get(f"{path}/ready", asking("ready"))


async def _cut_off(request: web.Request, response: web.Response) -> web.Response:
    # aiohttp reads on for ten seconds after an early answer; closing the transport ends that.
    response.force_close()
    await response.prepare(request)
    await response.write_eof()
    request.protocol.force_close()
    return response
