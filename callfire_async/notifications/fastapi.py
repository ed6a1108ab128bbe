"""The receiver, and its health, in a FastAPI application. It imports both, `asgi` and FastAPI."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from attrs import frozen
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.routing import APIRoute

from callfire_async.notifications.asgi import relevant_headers
from callfire_async.notifications.health import Question, health_reply
from callfire_async.notifications.receiver import Postback, Receiver

__all__ = ["health_routes", "notification_routes"]

_RESPONSES: dict[int | str, dict[str, object]] = {
    400: {"description": "Empty, broken off, or neither XML nor JSON"},
    404: {"description": "The token is wrong"},
    405: {"description": "Not a POST"},
    408: {"description": "The body came too slowly"},
    413: {"description": "The body is too large"},
    415: {"description": "The body is encoded"},
    422: {"description": "Not a notification"},
    500: {"description": "A handler failed"},
    503: {"description": "The receiver is not running, or cannot store it"},
}

# What FastAPI cannot see in a function that takes the request as it is.
_REQUEST: dict[str, object] = {
    "parameters": [{"name": "token", "in": "path", "required": True, "schema": {"type": "string"}}],
    "requestBody": {
        "required": True,
        "content": {kind: {"schema": {"type": "string"}} for kind in ("application/xml", "text/xml")}
        | {"application/json": {"schema": {"type": "object"}}},
    },
}


@frozen
class FastapiEndpoint:
    """Whoever holds a route finds the receiver here."""

    receiver: Receiver

    async def take(self, request: Request) -> Response:
        token = request.path_params.get("token")
        headers = relevant_headers(request.scope["headers"])
        reply = await self.receiver.receive(Postback(request.method, token, headers, request.stream()))
        closing = {"Connection": "close"} if reply.close_connection else {}
        return Response(reply.body, reply.status, {**dict(reply.headers), **closing})


class _RawRequestRoute(APIRoute):
    """
    A route whose function takes the request as it is: nothing is to be solved, validated or serialized for it.

    FastAPI's own way to find that out is a fifth of what a postback costs.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Call the function directly, unless the application, or whoever includes it, depends on something before."""
        handler = super().get_route_handler()
        # Only what FastAPI has made knows all of it; where it cannot be asked, it is used.
        dependant = inspect.getclosurevars(handler).nonlocals.get("dependant")
        return self.endpoint if dependant is not None and not dependant.dependencies else handler


def notification_routes(receiver: Receiver) -> APIRouter:
    """
    Return a router that takes postbacks at ``/{token}``, and starts and stops the receiver with the application.

    An open receiver's postbacks are taken at the bare prefix too: include its router with one.
    """

    @asynccontextmanager
    async def running(_: FastAPI) -> AsyncIterator[None]:
        async with receiver:
            yield

    receiver.redact("uvicorn.access")
    routes = APIRouter(lifespan=running, route_class=_RawRequestRoute)
    take = FastapiEndpoint(receiver).take
    for path in ("/{token}", "/{token}/", *([] if receiver.requires_token else ["", "/"])):
        routes.add_api_route(
            path, take, methods=["POST"], status_code=204, response_class=Response, responses=_RESPONSES,
            name="callfire_notification", summary="Take a CallFire postback", include_in_schema=path == "/{token}",
            openapi_extra=_REQUEST,
        )  # fmt: skip
    return routes


def health_routes(receiver: Receiver, *, max_age: float = 300.0) -> APIRouter:
    """
    Return a router that says at ``/health``, ``/health/live`` and ``/health/ready`` how a receiver is.

    Answers 200, or 503 with the reasons as text.

    Args:
        receiver: The receiver; it is not started here.
        max_age: Seconds for which a delivery that is due may wait.
    """

    def asking(question: Question) -> Callable[[], Awaitable[Response]]:
        async def ask() -> Response:
            reply = health_reply(await receiver.health(max_age=max_age), question)
            return Response(reply.body, reply.status, dict(reply.headers))

        return ask

    routes = APIRouter()
    questions: dict[str, Question] = {"/health": None, "/health/live": "live", "/health/ready": "ready"}
    for path, question in questions.items():
        routes.add_api_route(path, asking(question), methods=["GET", "HEAD"], include_in_schema=False)
    return routes
