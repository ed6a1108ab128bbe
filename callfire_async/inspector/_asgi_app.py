"""
The inspector as an ASGI application: static files, and a JSON API that requires the inspector's key.

The key is in the fragment of the URL, which browsers do not send, and then in the memory of the tab. Other pages, other
programs on the machine and DNS names that resolve to it have no access to the API.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

from attrs import evolve, frozen
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from callfire_async._arguments import check_instance, check_integer, check_methods, type_name
from callfire_async.errors import InboxError
from callfire_async.inspector._server import LOOPBACK, serve
from callfire_async.inspector.history import DeliveryView
from callfire_async.inspector.sources import NO_DEAD_LETTER, Source, view_of
from callfire_async.inspector.views import to_detail, to_row
from callfire_async.notifications.inbox.base import parse_row_id

__all__ = ["BindAddress", "InspectorApp", "serve_inspector"]

# Changes within this time are sent in one message.
_BATCH_SECONDS = 0.1
_HEARTBEAT_SECONDS = 1.0

_SOURCE_METHODS = ("counts", "dead_letters", "get", "replay", "replay_dead_letters")
_STATIC_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/inspector.js": ("inspector.js", "text/javascript; charset=utf-8"),
    "/inspector.css": ("inspector.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script';"
        " trusted-types 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}


class InspectorApp:
    """
    The inspector of one source, as an ASGI application.

    Args:
        source: The deliveries to show.
        key: The key that clients must send; a random one by default.
        host: The host name of the page, in addition to those of loopback; ``*`` for any.

    Raises:
        TypeError: *source* is not a source.
    """

    def __init__(self, source: Source, *, key: str | None = None, host: str = LOOPBACK) -> None:
        check_methods("source", source, _SOURCE_METHODS, "a source, such as ReceiverSource(inbox, receiver)")
        self.key: str = key or secrets.token_urlsafe(24)
        self._source = source
        self._stopped = False
        # Rejects the name of another site that resolves to this machine (DNS rebinding).
        is_any = ":" in host or host in ("*", "0.0.0.0")  # noqa: S104  # compared only
        hosts = ["*"] if is_any else ["127.0.0.1", "localhost", host]
        self._app = Starlette(
            routes=self._routes(),
            middleware=[
                Middleware(_SecurityHeaders),
                Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False),
                Middleware(_RequireKey, key=self.key),
            ],
            exception_handlers={InboxError: _inbox_error},
        )

    def _routes(self) -> list[Route]:
        get, post = ["GET"], ["POST"]
        return [
            *(Route(path, _static(*content), methods=get) for path, content in _STATIC_FILES.items()),
            Route("/api/events", self._events, methods=get),
            Route("/api/deliveries/{number}", self._delivery, methods=get),
            Route("/api/deliveries/{number}/reveal", self._reveal, methods=post),
            Route("/api/deliveries/{number}/replay", self._replay, methods=post),
            Route("/api/dead-letters", self._dead_letters, methods=get),
            Route("/api/dead-letters/replay", self._replay_dead_letters, methods=post),
            Route("/api/dead-letters/{id:path}/reveal", self._reveal_dead_letter, methods=post),
            Route("/api/dead-letters/{id:path}/replay", self._replay_dead_letter, methods=post),
            Route("/api/dead-letters/{id:path}", self._dead_letter, methods=get),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        await self._app(scope, receive, send)

    def stop(self) -> None:
        """End the event streams, so that the server can shut down."""
        self._stopped = True

    # --- live updates -------------------------------------------------------------------------------------

    async def _events(self, request: Request) -> Response:
        history_id, _, version = request.query_params.get("after", "").partition(":")
        if history_id != self._source.history.id:
            version = "0"
        # Longer numbers cannot be versions, and int() rejects very long ones.
        if not (version.isascii() and version.isdecimal() and len(version) <= 18):
            return _error("after must be the id of a message, for example 0a1b2c3d:17", 400)
        return StreamingResponse(self._event_stream(int(version)), media_type="text/event-stream")

    async def _event_stream(self, version: int) -> AsyncIterator[str]:
        """Yield messages with the changes and, every second, the counts."""
        last_heartbeat = float("-inf")
        while not self._stopped:
            history = self._source.history
            is_due = time.monotonic() - last_heartbeat >= _HEARTBEAT_SECONDS
            if history.version != version or is_due:
                message = {"history": history.id, "items": [to_row(item) for item in history.changed_since(version)]}
                version = history.version
                if is_due:
                    last_heartbeat = time.monotonic()
                    message |= await self._heartbeat()
                yield f"id: {history.id}:{version}\ndata: {json.dumps(message)}\n\n"
            await asyncio.sleep(_BATCH_SECONDS)

    async def _heartbeat(self) -> dict[str, Any]:
        source = self._source
        seconds = source.history.last_minute()
        return {
            "title": source.title,
            "readOnly": source.read_only,
            "minute": [[received, failed, latency and 1000 * latency] for received, failed, latency in seconds],
            "counts": await source.counts(),
        }

    # --- deliveries ---------------------------------------------------------------------------------------

    async def _delivery(self, request: Request) -> Response:
        return _detail(self._item(request))

    async def _reveal(self, request: Request) -> Response:
        return _detail(self._item(request), revealed=True)

    async def _replay(self, request: Request) -> Response:
        item = self._item(request)
        return _not_found() if item is None else _replayed(await self._source.replay(item))

    def _item(self, request: Request) -> DeliveryView | None:
        return self._source.history.get(parse_row_id(request.path_params["number"]))

    # --- dead letters -------------------------------------------------------------------------------------

    async def _dead_letters(self, request: Request) -> Response:  # noqa: ARG002  # takes no parameters
        entries = await self._source.dead_letters()
        return _AsciiJSONResponse({"items": [to_row(view_of(entry)) for entry in entries]})

    async def _dead_letter(self, request: Request) -> Response:
        return _detail(await self._dead_letter_item(request))

    async def _reveal_dead_letter(self, request: Request) -> Response:
        return _detail(await self._dead_letter_item(request), revealed=True)

    async def _replay_dead_letter(self, request: Request) -> Response:
        replayed = await self._source.replay_dead_letters([request.path_params["id"]])
        return _replayed(None if replayed else self._source.read_only or NO_DEAD_LETTER)

    async def _replay_dead_letters(self, request: Request) -> Response:  # noqa: ARG002  # takes no parameters
        if self._source.read_only:
            return _replayed(self._source.read_only)
        return _AsciiJSONResponse({"replayed": await self._source.replay_dead_letters(None)})

    async def _dead_letter_item(self, request: Request) -> DeliveryView | None:
        entry = await self._source.get(request.path_params["id"])
        if entry is None:
            return None
        stored, known = view_of(entry), self._source.history.by_id(entry.id)
        if known is None:
            return stored
        # The history has each attempt; the inbox keeps the body for longer.
        return known if known.body or not stored.body else evolve(stored, attempts=known.attempts)


# --- responses --------------------------------------------------------------------------------------------


class _AsciiJSONResponse(JSONResponse):
    """JSON in ASCII: a body may contain half a surrogate pair, which UTF-8 cannot encode."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content).encode("ascii")


def _error(message: str, status: int) -> Response:
    return _AsciiJSONResponse({"error": message}, status)


def _detail(item: DeliveryView | None, *, revealed: bool = False) -> Response:
    return _not_found() if item is None else _AsciiJSONResponse(to_detail(item, revealed=revealed))


def _not_found() -> Response:
    return _error("the delivery is no longer available", 404)


def _replayed(problem: str | None) -> Response:
    return _AsciiJSONResponse({"replayed": 1}) if problem is None else _error(problem, 409)


async def _inbox_error(_: Request, error: Exception) -> Response:
    return _error(str(error), 503)


def _static(name: str, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    async def respond(_: Request) -> Response:
        return Response(files("callfire_async.inspector").joinpath("static", name).read_bytes(), media_type=media_type)

    return respond


# --- middleware -------------------------------------------------------------------------------------------


class _SecurityHeaders:
    """Adds headers that make the browser deny everything that the page does not need."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *headers]}
            await send(message)

        await self._app(scope, receive, send_with_headers)


class _RequireKey:
    """
    Requires the key for every path under ``/api/``.

    The key is sent in a header that forms cannot set, and that other origins cannot set without a CORS preflight.
    """

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._expected = f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_api = scope["type"] == "http" and scope["path"].startswith("/api/")
        if is_api and not self._is_authorized(scope):
            response = _error("missing or wrong key: open the URL that the command printed", 401)
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _is_authorized(self, scope: Scope) -> bool:
        return hmac.compare_digest(dict(scope["headers"]).get(b"authorization", b""), self._expected)


# --- server -----------------------------------------------------------------------------------------------


@frozen
class BindAddress:
    """
    The address on which the inspector listens.

    Raises:
        TypeError: *host* is not a string, or *port* is not an integer.
        ValueError: *port* is not from 0 to 65535.
    """

    #: Beyond loopback the key is still required, but the traffic is not encrypted.
    host: str = LOOPBACK
    #: 0 for any free port.
    port: int = 0

    def __attrs_post_init__(self) -> None:
        """Check the values."""
        if not isinstance(self.host, str):
            raise TypeError(f"host must be a string, not {type_name(self.host)}")
        check_integer("port", self.port)
        if self.port > 65535:
            raise ValueError("port must be at most 65535")

    @property
    def is_open(self) -> bool:
        """Whether other machines may be able to connect."""
        return self.host not in (LOOPBACK, "localhost", "::1")


@asynccontextmanager
async def serve_inspector(
    source: Source, place: BindAddress = BindAddress(), *, key: str | None = None
) -> AsyncIterator[str]:
    """
    Serve the inspector of a source.

    Args:
        source: The deliveries to show.
        place: The address to listen on.
        key: The key that clients must send; a random one by default.

    Returns:
        The URL to open, including the key.

    Raises:
        TypeError: *source* or *place* has the wrong type.
        OSError: The port is not available.
    """
    check_instance("place", place, BindAddress, "BindAddress(port=8485)")
    inspector = InspectorApp(source, key=key, host=place.host)
    async with serve(inspector, place.port, host=place.host, on_shutdown=inspector.stop) as port:
        host = f"[{place.host}]" if ":" in place.host else place.host
        yield f"http://{host}:{port}/#{inspector.key}"
