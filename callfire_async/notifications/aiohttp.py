"""The receiver in an aiohttp application. It imports the receiver, and aiohttp."""

from __future__ import annotations

from collections.abc import AsyncIterator

from aiohttp import web
from attrs import frozen

from callfire_async.notifications.receiver import Postback, Receiver

__all__ = ["add_notification_routes"]


@frozen
class _Endpoint:
    """Whoever holds a route finds the receiver here."""

    receiver: Receiver

    async def take(self, request: web.Request) -> web.StreamResponse:
        token = request.match_info.get("token")
        body = request.content.iter_any()
        reply = await self.receiver.receive(Postback(request.method, token, request.headers, body))
        response = web.Response(status=reply.status, headers=reply.headers, body=reply.body or None)
        return await _cut_off(request, response) if reply.close else response


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
    take = _Endpoint(receiver).take
    for path in ("/{token}", "/{token}/", *(["", "/"] if receiver.is_open else [])):
        app.router.add_route("*", prefix + path or "/", take)


async def _cut_off(request: web.Request, response: web.Response) -> web.Response:
    # aiohttp reads on for ten seconds after an early answer; closing the transport ends that.
    response.force_close()
    await response.prepare(request)
    await response.write_eof()
    request.protocol.force_close()
    return response
