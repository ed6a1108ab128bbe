"""
What is decided before anything is read for its meaning: who may post, how, how much and how slowly.

It imports `tokens` and `stepping`.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from typing import Any, TypeAlias

from attrs import field, frozen

from callfire_async.notifications._eager import going_on
from callfire_async.notifications.security.tokens import EndpointTokens

__all__ = ["Postback", "Reply", "RequestValidator"]

_log = logging.getLogger("callfire_async.receiver")

Headers: TypeAlias = Mapping[str, str] | Iterable[tuple[str, str]]

# How much of a refused body is read and dropped, and for how long, so that its sender sees the answer instead of a
# reset connection. Whoever sends more, or more slowly, is cut off.
_DROPPED_BYTES = 2 * 1024 * 1024
_DROPPING_SECONDS = 0.5
_WARNED_EVERY_SECONDS = 60.0
#: The headers that decide anything, by their names in lower case: an adapter may leave out all others.
DECISIVE = frozenset(["content-encoding", "content-length", "content-type", "expect"])
# CallFire documents no second delivery; what stands before us (a proxy with a queue, a test) may well try again.
TRY_AGAIN = ("Retry-After", "5")


@frozen(slots=False)
class Postback:
    """
    One HTTP request as an adapter hands it over.

    The body is bytes, or an asynchronous iterable of chunks that the receiver reads under its own limits.
    """

    #: The HTTP method; any but POST is refused.
    method: str
    #: The last segment of the path, decoded; None where there is none.
    token: str | None = field(repr=False)
    #: A mapping, or pairs; their names in any case.
    headers: Headers = field(repr=False)
    #: A stream that breaks off must raise, not end.
    body: bytes | AsyncIterable[bytes] = field(repr=False)


@frozen(slots=False)
class Reply:
    """What to answer."""

    #: The HTTP status.
    status: int
    #: Names and values; without a ``Content-Length``.
    headers: tuple[tuple[str, str], ...] = ()
    #: Empty but for health.
    body: bytes = b""
    #: Whether the connection must be closed within a second: the request was not read to its end.
    close_connection: bool = False


@frozen
class Rejection:
    """Why a request does not come in, and what to answer."""

    reason: str
    reply: Reply


class RequestValidator:
    """
    Lets in the bodies of requests that may come in, and answers the others.

    Args:
        tokens: What opens it; None leaves it open to anyone.
        max_body_bytes: A larger body is answered 413.
        body_timeout: Seconds for the whole body; a slower one is answered 408.
        clock: Tells the time in seconds.
    """

    def __init__(
        self,
        tokens: EndpointTokens | None,
        *,
        max_body_bytes: int,
        body_timeout: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.tokens = tokens
        #: How many requests were refused, by reason.
        self.refused: Counter[str] = Counter()
        self._max_body_bytes = max_body_bytes
        self._body_timeout = body_timeout
        self._clock = clock
        self._warned_at = float("-inf")
        self._unsaid = 0

    async def read_request(
        self, postback: Postback, headers: Mapping[str, str], *, is_running: bool
    ) -> bytes | Rejection:
        """Read a body under the limits, or answer instead; *headers* are the decisive ones."""
        body = _BoundedBody(postback.body)
        try:
            self._check(postback, headers, is_running=is_running)
            content = await _read_with_timeout(body.read(self._max_body_bytes), self._body_timeout)
        except _RequestRejected as refusal:
            return await self._reject(refusal, headers, body)
        return content or await self._reject(_RequestRejected(400, "empty"), headers, body)

    async def _reject(self, refusal: "_RequestRejected", headers: Mapping[str, str], body: "_BoundedBody") -> Rejection:
        self._note(refusal.reason)
        return Rejection(refusal.reason, await _early_response(refusal, headers, body))

    def _note(self, reason: str) -> None:
        """Count a refusal; warn of wrong tokens once a minute, of how many and not of which: one may be a near miss."""
        self.refused[reason] += 1
        self._unsaid += reason == "token"
        if self._unsaid and self._clock() - self._warned_at >= _WARNED_EVERY_SECONDS:
            _log.warning("requests with a wrong token, or none, were answered 404: %d", self._unsaid)
            self._warned_at, self._unsaid = self._clock(), 0

    def _check(self, postback: Postback, headers: Mapping[str, str], *, is_running: bool) -> None:
        """Refuse what can be refused before the body is read."""
        if self.tokens is not None and not self.tokens.verify(postback.token):
            raise _RequestRejected(404, "token")
        if postback.method.upper() != "POST":
            raise _RequestRejected(405, "method", ("Allow", "POST"))
        if (headers.get("content-encoding") or "identity").lower() != "identity":
            raise _RequestRejected(415, "encoding", ("Accept-Encoding", "identity"))
        if not is_running:
            raise _RequestRejected(503, "not running", TRY_AGAIN)
        length = headers.get("content-length", "")
        # What says more than it should is caught when it is read; 19 digits are as many as any length has.
        if length.isdecimal() and int(length[:19]) > self._max_body_bytes:
            raise _RequestRejected(413, "size")


class _RequestRejected(Exception):  # a signal inside this room
    """A request is answered without being handled."""

    def __init__(self, status: int, reason: str, *headers: tuple[str, str], drop: bool = True) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = headers
        self.drop = drop


class _BoundedBody:
    """A request's body, which knows whether it was read to its end."""

    def __init__(self, source: bytes | AsyncIterable[bytes]) -> None:
        self.ended = isinstance(source, bytes)
        self._source = source
        self._chunks: Any = None if isinstance(source, bytes) else aiter(source)

    async def read(self, limit: int) -> bytes:
        """Read it all; refuse more than *limit* bytes, and a stream that breaks off."""
        if isinstance(self._source, bytes):
            _check_size(len(self._source), limit)
            return self._source
        # Most bodies come in one piece: that is not copied.
        first, rest = b"", bytearray()
        try:
            async for chunk in self._chunks:
                if first:
                    rest += chunk
                else:
                    first = bytes(chunk)
                _check_size(len(first) + len(rest), limit)
        except _RequestRejected:
            raise
        except Exception:  # noqa: BLE001  # each server has its own error for a sender that went away
            raise _RequestRejected(400, "broken off", drop=False) from None
        self.ended = True
        return first + rest if rest else first

    async def drop(self, limit: int) -> None:
        """Read up to *limit* bytes and keep none."""
        async for chunk in self._chunks:
            limit -= len(chunk)
            if limit <= 0:
                return
        self.ended = True


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise _RequestRejected(413, "size")


async def _read_with_timeout(reading: Coroutine[Any, Any, bytes], seconds: float) -> bytes:
    """Read under a limit of time; what is there already is read without one, since one takes a tenth of the way in."""
    try:
        waits_for = reading.send(None)
    except StopIteration as read:
        content: bytes = read.value
        return content
    try:
        async with asyncio.timeout(seconds):
            return await going_on(reading, waits_for)
    except TimeoutError:
        raise _RequestRejected(408, "time", drop=False) from None


async def _early_response(refusal: "_RequestRejected", headers: Mapping[str, str], body: "_BoundedBody") -> Reply:
    """Answer early; see to it that the sender reads the answer, or is cut off."""
    # A sender that waits to be told to go on has sent nothing yet, and is not told.
    if refusal.drop and not body.ended and "expect" not in headers:
        # A sender that goes away meanwhile, each server says in its own words.
        with suppress(Exception):
            async with asyncio.timeout(_DROPPING_SECONDS):
                await body.drop(_DROPPED_BYTES)
    return Reply(refusal.status, refusal.headers, close_connection=not body.ended)


def relevant_headers(postback: Postback) -> dict[str, str]:
    """Return the headers that decide anything, by their names in lower case; what a repeated one says is one list."""
    headers: Any = postback.headers
    pairs: Iterable[tuple[str, str]] = headers.items() if isinstance(headers, Mapping) else headers
    found: dict[str, str] = {}
    for key, value in pairs:
        name = key.lower()
        if name in DECISIVE:
            found[name] = f"{found[name]}, {value.strip()}" if name in found else value.strip()
    return found
