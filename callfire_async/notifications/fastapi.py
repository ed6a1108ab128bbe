"""FastAPI routers for a receiver and for its health checks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from attrs import define, frozen
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.routing import APIRoute

from callfire_async.notifications.asgi import NO_LIFESPAN_EVENTS, Message, Receive, Scope, Send, send_reply, to_postback
from callfire_async.notifications.health import HealthCheck, health_reply
from callfire_async.notifications.inbox._inbox_arguments import check_seconds
from callfire_async.notifications.receiver import Receiver, Reply
from callfire_async.notifications.receiver._receiver_arguments import check_receiver
from callfire_async.notifications.security.signatures import SIGNATURE_HEADER

__all__ = ["health_routes", "notification_routes"]

_NOT_STARTED = f"""\
the receiver is not running, because the lifespan of the FastAPI application has not run. The cause is one of these:
    {NO_LIFESPAN_EVENTS}
    the application is mounted in another one: include the routes in the outer application,
    or run the receiver in the lifespan of the outer application: async with receiver: yield
    a test uses TestClient without `with`, or a transport: with TestClient(app) as client: ..."""
# The key in a request's scope of the function that stores or handles the request.
_ACCEPT = "callfire_async.accept"

_RESPONSES: dict[int | str, dict[str, object]] = {
    400: {"description": "The body is empty, incomplete, or neither XML nor JSON"},
    401: {"description": "The signature is wrong, repeated or missing"},
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
    "parameters": [
        {"name": "token", "in": "path", "required": True, "schema": {"type": "string"}},
        {"name": SIGNATURE_HEADER, "in": "header", "required": False, "schema": {"type": "string"}},
    ],
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
        await request.body()  # in memory; FastAPI's own limits apply here, before the postback is stored
        reply: Reply = await request.scope[_ACCEPT]()
        return Response(reply.body, reply.status, dict(reply.headers))


class NotificationRoute(APIRoute):
    """
    A route whose requests the receiver validates and reads before FastAPI.

    Error trackers wrap FastAPI's request handler and read the body in it, without a limit. With this route they, and
    the dependencies, get the body that was read under the receiver's limits.
    """

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the receiver read a request; run FastAPI's handler if it is valid, otherwise send the error response."""
        endpoint: FastapiEndpoint = self.endpoint.__self__  # type: ignore[attr-defined]
        response = _Response(send)
        run = super().handle

        async def run_endpoint(body: bytes, accept: Callable[[], Awaitable[Reply]]) -> Reply:
            scope[_ACCEPT] = accept
            await run(scope, _replay(body, receive), response.send)
            return Reply(response.status)

        postback = to_postback(scope, scope["path_params"].get("token"), receive)
        reply = await endpoint.receiver.receive(postback, around=run_endpoint)
        if not response.status:
            await send_reply(reply, send)


@define
class _Response:
    """Sends a response and records its status; 0 before it is sent."""

    _send: Send
    status: int = 0

    async def send(self, message: Message) -> None:
        self.status = message.get("status", self.status)
        await self._send(message)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a function that returns *body* as one message, and then what *receive* returns."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


def notification_routes(receiver: Receiver) -> APIRouter:
    """
    Return a router for postbacks at ``/{token}``, which starts and stops the receiver with the application.

    If the receiver requires no token, the router also accepts postbacks at its bare prefix: include it with one.

    Raises:
        TypeError: *receiver* is not a `Receiver`.
    """
    check_receiver(receiver)

    @asynccontextmanager
    async def run_receiver(_: FastAPI) -> AsyncIterator[None]:
        async with receiver:
            yield

    receiver.redact("uvicorn.access")
    receiver.start_advice = _NOT_STARTED
    routes = APIRouter(lifespan=run_receiver)
    endpoint = FastapiEndpoint(receiver)
    for path in ("/{token}", "/{token}/", *([] if receiver.requires_token else ["", "/"])):
        routes.add_api_route(
            path, endpoint.handle, methods=["POST"], status_code=204, response_class=Response, responses=_RESPONSES,
            name="callfire_notification", summary="Receive a CallFire postback", include_in_schema=path == "/{token}",
            openapi_extra=_REQUEST, route_class_override=NotificationRoute,
        )  # fmt: skip
    return routes


def health_routes(receiver: Receiver, *, max_age: float = 300.0) -> APIRouter:
    """
    Return a router with health checks at ``/health``, ``/health/live`` and ``/health/ready``.

    They return 200, or 503 with the reasons as text.

    Args:
        receiver: The receiver; it is not started by these routes.
        max_age: Seconds that a due delivery may wait before the receiver is unhealthy.

    Raises:
        TypeError, ValueError: An argument has the wrong type, or *max_age* is negative.
    """
    check_receiver(receiver)
    check_seconds(max_age=max_age)

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
