"""
Every policy of receiving: who may post, what is answered, and when.

An adapter hands over a `Postback` and turns the `Reply` into a response; it decides nothing. It imports `errors`,
`parsing`, `routing` and `tokens`.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from types import TracebackType
from typing import Self, TypeAlias

from attrs import field, frozen

from callfire_async.errors import HandlerErrors, NotificationError
from callfire_async.notifications.events import Notification
from callfire_async.notifications.parsing import parse
from callfire_async.notifications.routing import Router
from callfire_async.notifications.tokens import EndpointTokens

__all__ = ["Postback", "Receiver", "Reply"]

Headers: TypeAlias = Mapping[str, str] | Iterable[tuple[str, str]]

_log = logging.getLogger(__name__)

# How much of a refused body is read and dropped, and for how long, so that its sender sees the answer instead of a
# reset connection. Whoever sends more, or more slowly, is cut off.
_DROPPED_BYTES = 2 * 1024 * 1024
_DROPPING_SECONDS = 0.5
# CallFire documents no second delivery; what stands before us (a proxy with a queue, a test) may well try again.
_RETRY_AFTER_SECONDS = 5

_NOT_RUNNING = """\
a postback was answered 503 because the receiver is not running; start and stop it with the application:
    app.include_router(notification_routes(receiver), prefix="/callfire")                      # FastAPI
    add_notification_routes(app, receiver, "/callfire")                                        # aiohttp
    Starlette(routes=[Mount("/callfire", notification_app)], lifespan=notification_app.lifespan)   # mounted
    async with receiver: ...                                                                   # anything else"""


@frozen
class Postback:
    """
    One HTTP request as an adapter hands it over.

    The body is bytes, or an asynchronous iterable of chunks that the receiver reads under its own limits.
    """

    method: str
    #: The last segment of the path; None where there is none.
    token: str | None = field(repr=False)
    headers: Headers = field(repr=False)
    body: bytes | AsyncIterable[bytes] = field(repr=False)


@frozen
class Reply:
    """What to answer; where ``close`` is set, the connection must be closed within a second."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    close: bool = False


class Receiver:
    """
    Takes postbacks, and gives their events to a router's handlers.

    Handlers run before the answer: 204 when all succeeded or none took the event, 500 when one failed or took too
    long, 400 or 422 for a body that is no notification. CallFire documents no second delivery.

    ``async with receiver`` starts it at the first entry and stops it at the last exit, and may be entered more than
    once. A receiver that is not running answers 503.

    Args:
        router: The handlers.
        tokens: What opens the endpoint; a string is one token, None leaves it open to anyone.
        max_body_bytes: A larger body is answered 413.
        body_timeout: Seconds for the whole body; a slower one is answered 408.
        handler_timeout: Seconds for each handler; None for no limit.

    Raises:
        ValueError: The router is empty, or a limit is not positive.
        TypeError: *tokens* is none of these.
    """

    def __init__(
        self,
        router: Router,
        *,
        tokens: EndpointTokens | str | None,
        max_body_bytes: int = 1024 * 1024,
        body_timeout: float = 10.0,
        handler_timeout: float | None = 30.0,
    ) -> None:
        if router.is_empty:
            raise ValueError("the router has no handler; register the handlers before making the receiver")
        limits = {"max_body_bytes": max_body_bytes, "body_timeout": body_timeout, "handler_timeout": handler_timeout}
        for name, limit in limits.items():
            if limit is not None and not limit > 0:
                raise ValueError(f"{name} must be more than 0")
        self._router = router
        self._tokens = _tokens(tokens)
        self._max_body_bytes = max_body_bytes
        self._body_timeout = body_timeout
        self._handler_timeout = handler_timeout
        self._entries = 0
        self._said_not_running = False
        self._unhandled: set[type[Notification]] = set()

    @property
    def is_open(self) -> bool:
        """Whether there is no token: anyone may post, and an adapter routes the bare prefix too."""
        return self._tokens is None

    async def __aenter__(self) -> Self:
        """Start with the first entry."""
        self._entries += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop with the last exit."""
        self._entries -= 1

    async def receive(self, postback: Postback) -> Reply:
        """
        Take one request.

        Never raises but when it is cancelled: what the sender did wrong, and what handlers raised, is the status of
        the reply.
        """
        body = _Body(postback.body)
        try:
            self._check(postback)
            content = await self._content(body)
        except _Refusal as refusal:
            return await _refused(refusal, postback, body)
        return await self._handle(content, _header(postback, "content-type"))

    def _check(self, postback: Postback) -> None:
        """Refuse what can be refused before the body is read."""
        if self._tokens is not None and not self._tokens.opens(postback.token):
            raise _Refusal(404)
        if postback.method.upper() != "POST":
            raise _Refusal(405, ("Allow", "POST"))
        if (_header(postback, "content-encoding") or "identity").lower() != "identity":
            raise _Refusal(415, ("Accept-Encoding", "identity"))
        if self._entries < 1:
            self._say_not_running()
            raise _Refusal(503, ("Retry-After", str(_RETRY_AFTER_SECONDS)))
        length = _header(postback, "content-length") or ""
        # What says more than it should is caught when it is read; 19 digits are as many as any length has.
        if length.isdecimal() and int(length[:19]) > self._max_body_bytes:
            raise _Refusal(413)

    async def _content(self, body: _Body) -> bytes:
        """Read the body under the limits of size and time."""
        try:
            async with asyncio.timeout(self._body_timeout):
                content = await body.read(self._max_body_bytes)
        except TimeoutError:
            raise _Refusal(408, drop=False) from None
        if not content:
            raise _Refusal(400)
        return content

    async def _handle(self, content: bytes, content_type: str | None) -> Reply:
        """Parse and dispatch before the answer."""
        try:
            event = parse(content, content_type)
        except NotificationError as error:
            _log.warning("a body that is no notification was answered %d: %s", error.status_hint, error)
            return Reply(error.status_hint)
        try:
            ran = await self._router.dispatch(event, handler_timeout=self._handler_timeout)
        except HandlerErrors as errors:
            _log_failures(errors)
            return Reply(500)
        if not ran:
            self._say_unhandled(event)
        return Reply(204)

    def _say_not_running(self) -> None:
        if not self._said_not_running:
            self._said_not_running = True
            _log.error(_NOT_RUNNING)

    def _say_unhandled(self, event: Notification) -> None:
        if type(event) not in self._unhandled:
            self._unhandled.add(type(event))
            _log.warning("no handler takes this %s; further ones are passed over in silence", type(event).__name__)


class _Refusal(Exception):  # a signal inside this room
    """A request is answered without being handled."""

    def __init__(self, status: int, *headers: tuple[str, str], drop: bool = True) -> None:
        super().__init__(status)
        self.status = status
        self.headers = headers
        self.drop = drop


class _Body:
    """A request's body, which knows whether it was read to its end."""

    def __init__(self, source: bytes | AsyncIterable[bytes]) -> None:
        self.ended = isinstance(source, bytes)
        self._chunks = aiter(_once(source) if isinstance(source, bytes) else source)

    async def read(self, limit: int) -> bytes:
        """Read it all; refuse more than *limit* bytes, and a stream that breaks off."""
        content = bytearray()
        while (chunk := await self._next()) is not None:
            content += chunk
            if len(content) > limit:
                raise _Refusal(413)
        return bytes(content)

    async def drop(self, limit: int) -> None:
        """Read up to *limit* bytes and keep none."""
        while limit > 0 and (chunk := await self._next()) is not None:
            limit -= len(chunk)

    async def _next(self) -> bytes | None:
        try:
            return await anext(self._chunks)
        except StopAsyncIteration:
            self.ended = True
            return None
        except Exception:  # noqa: BLE001  # each server has its own error for a sender that went away
            raise _Refusal(400, drop=False) from None


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def _refused(refusal: _Refusal, postback: Postback, body: _Body) -> Reply:
    """Answer early; see to it that the sender reads the answer, or is cut off."""
    # A sender that waits to be told to go on has sent nothing yet, and is not told.
    if refusal.drop and not body.ended and _header(postback, "expect") is None:
        try:
            async with asyncio.timeout(_DROPPING_SECONDS):
                await body.drop(_DROPPED_BYTES)
        except (TimeoutError, _Refusal):
            pass
    return Reply(refusal.status, refusal.headers, close=not body.ended)


def _header(postback: Postback, name: str) -> str | None:
    """Return a header, whatever its case; of a repeated one the first."""
    headers = postback.headers
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return next((value.strip() for key, value in pairs if key.lower() == name), None)


def _tokens(tokens: EndpointTokens | str | None) -> EndpointTokens | None:
    if isinstance(tokens, str):
        return EndpointTokens(tokens)
    if tokens is None or isinstance(tokens, EndpointTokens):
        return tokens
    raise TypeError("tokens must be an EndpointTokens, a string, or None for an endpoint that anyone may post to")


def _log_failures(errors: HandlerErrors) -> None:
    """Log where each handler failed, without the exception's own words: they may quote a number or a message."""
    for name, error in zip(errors.failed, errors.exceptions, strict=True):
        frames = "".join(traceback.format_tb(error.__traceback__))
        _log.error("handler %s failed: %s\n%s", name, type(error).__name__, frames)
