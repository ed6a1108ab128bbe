"""FastAPI routers for a receiver and for its health checks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from attrs import frozen
from fastapi import APIRouter, FastAPI, Request, Response

from callfire_async.notifications.asgi import decode_headers
from callfire_async.notifications.health import HealthCheck, health_reply
from callfire_async.notifications.receiver import Postback, Receiver

__all__ = ["health_routes", "notification_routes"]

_RESPONSES: dict[int | str, dict[str, object]] = {
    400: {"description": "The body is empty, incomplete, or neither XML nor JSON"},
    404: {"description": "The token is wrong"},
    405: {"description": "The method is not POST"},
    408: {"description": "The body was sent too slowly"},
    413: {"description": "The body is too large"},
    415: {"description": "The body has a Content-Encoding"},
    422: {"description": "The body is not a notification"},
    500: {"description": "A handler failed"},
    503: {"description": "The receiver is not running, or cannot store the postback"},
}

# FastAPI cannot derive these from an endpoint that takes the request itself.
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
    """The endpoint of a receiver's routes; tools find the receiver of a route here."""

    receiver: Receiver

    async def handle(self, request: Request) -> Response:
        token = request.path_params.get("token")
        headers = decode_headers(request.scope["headers"])
        reply = await self.receiver.receive(Postback(request.method, token, headers, request.stream()))
        connection = {"Connection": "close"} if reply.close_connection else {}
        return Response(reply.body, reply.status, {**dict(reply.headers), **connection})


def notification_routes(receiver: Receiver) -> APIRouter:
    """
    Return a router for postbacks at ``/{token}``, which starts and stops the receiver with the application.

    If the receiver requires no token, the router also accepts postbacks at its bare prefix: include it with one.
    """

    @asynccontextmanager
    async def run_receiver(_: FastAPI) -> AsyncIterator[None]:
        async with receiver:
            yield

    receiver.redact("uvicorn.access")
    routes = APIRouter(lifespan=run_receiver)
    endpoint = FastapiEndpoint(receiver)
    for path in ("/{token}", "/{token}/", *([] if receiver.requires_token else ["", "/"])):
        routes.add_api_route(
            path, endpoint.handle, methods=["POST"], status_code=204, response_class=Response, responses=_RESPONSES,
            name="callfire_notification", summary="Receive a CallFire postback", include_in_schema=path == "/{token}",
            openapi_extra=_REQUEST,
        )  # fmt: skip
    return routes


def health_routes(receiver: Receiver, *, max_age: float = 300.0) -> APIRouter:
    """
    Return a router with health checks at ``/health``, ``/health/live`` and ``/health/ready``.

    They return 200, or 503 with the reasons as text.

    Args:
        receiver: The receiver; it is not started by these routes.
        max_age: Seconds that a due delivery may wait before the receiver is unhealthy.
    """

    def make_endpoint(check: HealthCheck) -> Callable[[], Awaitable[Response]]:
        async def respond() -> Response:
            reply = health_reply(await receiver.health(max_age=max_age), check)
            return Response(reply.body, reply.status, dict(reply.headers))

        return respond

    routes = APIRouter()
    checks: dict[str, HealthCheck] = {"/health": None, "/health/live": "live", "/health/ready": "ready"}
    for path, check in checks.items():
        routes.add_api_route(path, make_endpoint(check), methods=["GET", "HEAD"], include_in_schema=False)
    return routes
