"""
What the browser is answered: the page, which holds nothing, and what it asks for with the inspector's own key.

The key stands in the fragment of the address, which no browser sends, and then in the page's memory: no other page, no
other program on this machine and no name that points here gets at what is shown.
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

from callfire_async.cli._server import LOOPBACK, serve
from callfire_async.errors import InboxError
from callfire_async.inspector.history import DeliveryView
from callfire_async.inspector.sources import Source, item_of
from callfire_async.inspector.views import detail, row
from callfire_async.notifications.inbox.base import parse_row_id

__all__ = ["BindAddress", "InspectorApp", "serve_inspector"]

# The eye follows no more; what happens in between is one message.
_BATCH_SECONDS = 0.1
# The chart moves on, and whoever has gone is noticed.
_BEAT_SECONDS = 1.0

_PAGE = {
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
        source: What is shown.
        key: What a browser must know; one of its own unless given.
        host: The name under which it is reached, beside loopback's; ``*`` for any.
    """

    def __init__(self, source: Source, *, key: str | None = None, host: str = LOOPBACK) -> None:
        self.key = key or secrets.token_urlsafe(24)
        self._source = source
        self._stopped = False
        get, post = ["GET"], ["POST"]
        routes = [
            *(Route(path, _static(*content), methods=get) for path, content in _PAGE.items()),
            Route("/api/events", self._events, methods=get),
            Route("/api/deliveries/{number}", self._delivery, methods=get),
            Route("/api/deliveries/{number}/reveal", self._reveal, methods=post),
            Route("/api/deliveries/{number}/replay", self._replay, methods=post),
            Route("/api/dead", self._dead, methods=get),
            Route("/api/dead/replay", self._replay_all, methods=post),
            Route("/api/dead/{id:path}/reveal", self._reveal_dead, methods=post),
            Route("/api/dead/{id:path}/replay", self._replay_dead, methods=post),
            Route("/api/dead/{id:path}", self._dead_letter, methods=get),
        ]
        # Whatever name somebody makes point at this machine, a page under that name is not answered.
        hosts = ["*"] if ":" in host or host in ("*", "0.0.0.0") else ["127.0.0.1", "localhost", host]  # noqa: S104  # told
        self._app = Starlette(
            routes=routes,
            middleware=[
                Middleware(_SecurityHeaders),
                Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False),
                Middleware(_RequireKey, key=self.key),
            ],
            exception_handlers={InboxError: _inbox_failed},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection of the server's."""
        await self._app(scope, receive, send)

    def stop(self) -> None:
        """End what is being told to browsers; the server can stop then."""
        self._stopped = True

    # --- live ---------------------------------------------------------------------------------------------

    async def _events(self, request: Request) -> Response:
        name, _, version = request.query_params.get("after", "").partition(":")
        if name != self._source.recent.name:
            version = "0"
        # Of more digits than this nothing is counted, and Python reads some thousands only.
        if not (version.isascii() and version.isdecimal() and len(version) <= 18):
            return _AsciiJSONResponse({"error": "after is the id of a message: a name, a colon and a number"}, 400)
        return StreamingResponse(self._told(int(version)), media_type="text/event-stream")

    async def _told(self, version: int) -> AsyncIterator[str]:
        """Tell what has changed, gathered into few messages, and the time."""
        beaten = float("-inf")
        while not self._stopped:
            recent = self._source.recent
            is_due = time.monotonic() - beaten >= _BEAT_SECONDS
            if recent.version != version or is_due:
                told = {"run": recent.name, "items": [row(item) for item in recent.changed_since(version)]}
                version = recent.version
                if is_due:
                    beaten = time.monotonic()
                    told |= await self._heartbeat()
                yield f"id: {recent.name}:{version}\ndata: {json.dumps(told)}\n\n"
            await asyncio.sleep(_BATCH_SECONDS)

    async def _heartbeat(self) -> dict[str, Any]:
        source = self._source
        minute = [[came, failed, latency and 1000 * latency] for came, failed, latency in source.recent.minute()]
        said = {"title": source.title, "readOnly": source.read_only, "most": source.recent.most}
        return said | {"minute": minute, "counts": await source.counts()}

    # --- deliveries ---------------------------------------------------------------------------------------

    async def _delivery(self, request: Request) -> Response:
        return _answer(self._item(request))

    async def _reveal(self, request: Request) -> Response:
        return _answer(self._item(request), revealed=True)

    async def _replay(self, request: Request) -> Response:
        item = self._item(request)
        if item is None:
            return _gone()
        return _replayed(await self._source.replay(item))

    def _item(self, request: Request) -> DeliveryView | None:
        return self._source.recent.get(parse_row_id(request.path_params["number"]))

    # --- dead letters -------------------------------------------------------------------------------------

    async def _dead(self, request: Request) -> Response:  # noqa: ARG002  # all are asked for
        return _AsciiJSONResponse({"items": [row(item_of(entry)) for entry in await self._source.dead()]})

    async def _dead_letter(self, request: Request) -> Response:
        return _answer(await self._letter(request))

    async def _reveal_dead(self, request: Request) -> Response:
        return _answer(await self._letter(request), revealed=True)

    async def _replay_dead(self, request: Request) -> Response:
        replayed = await self._source.replay_dead([request.path_params["id"]])
        return _replayed(None if replayed else self._source.read_only or "it is no dead letter any more")

    async def _replay_all(self, request: Request) -> Response:  # noqa: ARG002  # likewise
        if self._source.read_only:
            return _replayed(self._source.read_only)
        return _AsciiJSONResponse({"replayed": await self._source.replay_dead(None)})

    async def _letter(self, request: Request) -> DeliveryView | None:
        entry = await self._source.entry(request.path_params["id"])
        if entry is None:
            return None
        read, known = item_of(entry), self._source.recent.by_id(entry.id)
        if known is None:
            return read
        # What was seen here is known better than from the inbox, which holds bodies for longer.
        return known if known.body or not read.body else evolve(read, attempts=known.attempts)


class _AsciiJSONResponse(JSONResponse):
    """JSON in ASCII, since half a character, which a body may hold, has no other encoding."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content).encode("ascii")


def _answer(item: DeliveryView | None, *, revealed: bool = False) -> Response:
    return _gone() if item is None else _AsciiJSONResponse(detail(item, revealed=revealed))


def _gone() -> Response:
    return _AsciiJSONResponse({"error": "it is not held any more"}, 404)


def _replayed(why_not: str | None) -> Response:
    return _AsciiJSONResponse({"replayed": 1}) if why_not is None else _AsciiJSONResponse({"error": why_not}, 409)


async def _inbox_failed(_: Request, error: Exception) -> Response:
    return _AsciiJSONResponse({"error": str(error)}, 503)


def _static(name: str, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    async def answer(_: Request) -> Response:
        return Response(files("callfire_async.inspector").joinpath("static", name).read_bytes(), media_type=media_type)

    return answer


# --- what is asked of every request -----------------------------------------------------------------------


class _SecurityHeaders:
    """Forbids the browser whatever the page does not need."""

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
    Answers what is behind ``/api/`` only to who knows the key.

    It comes in a header, which no form and no other origin can send without being asked about it first.
    """

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._expected = f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope.get("headers", ()))
        if scope["type"] == "http" and scope["path"].startswith("/api/") and not self._opens(headers):
            await _AsciiJSONResponse({"error": "open the address that the command has printed"}, 401)(
                scope, receive, send
            )
            return
        await self._app(scope, receive, send)

    def _opens(self, headers: dict[bytes, bytes]) -> bool:
        return hmac.compare_digest(headers.get(b"authorization", b""), self._expected)


# --- serving ----------------------------------------------------------------------------------------------


@frozen
class BindAddress:
    """Where the inspector is served."""

    #: Whoever reaches another than loopback needs the key all the same; but nothing is encrypted on the way.
    host: str = LOOPBACK
    #: 0 for any that is free.
    port: int = 0

    @property
    def is_open(self) -> bool:
        """Whether other machines may reach it."""
        return self.host not in (LOOPBACK, "localhost", "::1")


@asynccontextmanager
async def serve_inspector(
    source: Source, place: BindAddress = BindAddress(), *, key: str | None = None
) -> AsyncIterator[str]:
    """
    Serve the inspector of a source.

    Args:
        source: What is shown.
        place: Where.
        key: What a browser must know; one of its own unless given.

    Returns:
        The address to open, with the key in it.
    """
    inspector = InspectorApp(source, key=key, host=place.host)
    async with serve(inspector, place.port, host=place.host, stopping=inspector.stop) as port:
        shown = f"[{place.host}]" if ":" in place.host else place.host
        yield f"http://{shown}:{port}/#{inspector.key}"
