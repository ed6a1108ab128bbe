"""
The pool: one HTTP client, whose turn it is, and what is under way.

The one importer of httpx in the client, and slow to import for that (httpx brings in rich and click where they are
installed): `connection` imports it when the first connection is made. It imports `_answers` and `errors`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import ssl
import sys
import warnings
from collections.abc import Mapping
from contextlib import aclosing
from functools import lru_cache
from typing import Any, TypeAlias

import httpx

from callfire_async.client._responses import MAX_ANSWER_BYTES, HttpResponse, RequestFailedError, RetrySafety
from callfire_async.errors import ClientClosedError

HttpClient: TypeAlias = httpx.AsyncClient

_PACKAGE = __name__.partition(".")[0]
# Long enough for an answer that is on its way; short enough that a hung server does not keep the others waiting.
ABANDONED_SECONDS = 2.0
_MOST_IDLE = 10
# What httpx sends of itself, and a limit that is not its own business.
_USUAL = {"Accept": "*/*", "Connection": "keep-alive"}
_NO_TIMEOUT = httpx.Timeout(None).as_dict()


def make_pool(
    max_connections: int,
    *,
    trust_env: bool,
    ssl_context: ssl.SSLContext | None,
    http_client: httpx.AsyncClient | None,
) -> HttpTransport:
    """Make a pool on a client of our own or of the caller's; an error where the settings do not fit."""
    logging.getLogger("httpx").addFilter(_without_query)
    if ssl_context is not None and ssl_context.verify_mode is not ssl.CERT_REQUIRED:
        raise ValueError("ssl_context must verify certificates: load the authority of yours into it instead")
    if http_client is None:
        return HttpTransport(
            _http_client(max_connections, ssl_context, trust_env=trust_env), max_connections, owned=True
        )
    if not isinstance(http_client, httpx.AsyncClient):
        raise TypeError("http_client must be an httpx.AsyncClient")
    if ssl_context is not None or trust_env:
        raise TypeError("ssl_context and trust_env belong to the pool: give them to http_client instead")
    return HttpTransport(http_client, max_connections, owned=False)


def _http_client(max_connections: int, ssl_context: ssl.SSLContext | None, *, trust_env: bool) -> httpx.AsyncClient:
    # The pool's own limit is off: a slot of it can stick for ever, and what waits in it makes every request dearer. So
    # does what is idle: httpcore counts all its connections for each of them, and a request after a hundred at once
    # would be four times as dear.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=min(max_connections, _MOST_IDLE))
    return _CookielessClient(verify=ssl_context or True, trust_env=trust_env, limits=limits)


class _NullCookies(httpx.Cookies):
    """Stays empty: none is sent back, and to look for some in each answer takes a fourteenth of a request's time."""

    def extract_cookies(self, response: httpx.Response) -> None:
        """Leave them where they are."""


_NO_COOKIES = _NullCookies()


class _CookielessClient(httpx.AsyncClient):
    """httpx's client, which keeps no cookies here."""

    cookies = property(lambda _: _NO_COOKIES)  # pyright: ignore[reportIncompatibleMethodOverride]  # nobody sets them


class _QueryRedactedURL(httpx.URL):
    """Marks a URL as ours, so that httpx's log shows it without its query."""


@lru_cache(maxsize=64)
def _parsed(url: str) -> _QueryRedactedURL:
    """Parse a URL without a query, of which there are few; httpx takes a twentieth of a request's time for one."""
    return _QueryRedactedURL(url)


def _build_request(method: str, url: str, headers: Mapping[str, str], content: bytes | None) -> httpx.Request:
    """Make a request as a client of ours would, with nothing to merge into it; httpx makes the headers twice."""
    parsed = _parsed(url) if "?" not in url else _QueryRedactedURL(url)
    length = {} if content is None else {"Content-Length": str(len(content))}
    request = httpx.Request(
        method,
        parsed,
        headers={"Host": parsed.netloc.decode(), **_USUAL, **headers, **length},
        stream=httpx.ByteStream(content or b""),
        extensions={"timeout": _NO_TIMEOUT},
    )
    request.url = parsed
    return request


def _without_query(record: logging.LogRecord) -> bool:
    """Drop the query, which may hold phone numbers, from what httpx logs of our requests at INFO."""
    if isinstance(record.args, tuple):
        record.args = tuple(
            value.copy_with(query=None) if isinstance(value, _QueryRedactedURL) else value for value in record.args
        )
    return True


def _creation_site() -> tuple[str, int]:
    """Find the file and line, outside of this library, that a pool is being made for."""
    frame = sys._getframe()  # noqa: SLF001  # a whole stack, as inspect makes it, reads files
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == _PACKAGE:
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


# --- one exchange ---------------------------------------------------------------------------------------------

# What is believed of a transport that does not say how far it is. A timeout while connecting is not: httpcore says that
# it connects, and httpx-aiohttp raises ConnectTimeout for a connection that ends after the request was carried out.
_NEVER_SENT = (httpx.ConnectError, httpx.PoolTimeout)
_CONNECTING = "connecting"
_READING = "reading the answer"
# What httpcore says that it starts to do, after the name of its room.
_PHASES: Mapping[str, str] = {
    "connect_tcp.started": _CONNECTING,
    "start_tls.started": _CONNECTING,
    "send_request_headers.started": "sending the request",
    "receive_response_headers.started": "waiting for the answer",
    "receive_response_body.started": _READING,
}


# The representation of bytes, as h11 words them; where there are quotes of both kinds in it, one is escaped.
_QUOTED = re.compile(r"""b(?:'(?:[^'\\]|\\.)*'|"[^"]*")""")


class _InFlightRequest:
    """One request on its way, in a task of its own: how far it has come, and until when it may take."""

    def __init__(self, client: httpx.AsyncClient, request: httpx.Request, started: float, timeout: float) -> None:
        self._client = client
        self._request = request
        # A transport that does not say how far it is may have sent all of it.
        self._phase = "waiting for the answer"
        self._limit: asyncio.Timeout | None = None
        self._socket: Any = None
        self._started = started
        self._timeout = timeout
        self.deadline = started + timeout
        request.extensions["trace"] = self._follow

    async def run(self) -> HttpResponse:
        """Send the request and read the answer to its end."""
        async with asyncio.timeout_at(self.deadline) as self._limit:
            response = await self._client.send(self._request, stream=True, auth=None, follow_redirects=False)
            self._phase = _READING
            # What httpcore would say from here on is known, and each word is a coroutine.
            self._request.extensions.pop("trace", None)
            try:
                return await _read(response)
            finally:
                await response.aclose()

    def abandon(self, deadline: float) -> None:
        """End it at *deadline* from inside, if it has not ended by then: whoever asked is gone."""
        self.deadline = min(self.deadline, deadline)
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(self.deadline)

    def failure(self, error: Exception, now: float) -> RequestFailedError:
        """Put in words what *error*, raised by `run`, means."""
        expired = self._limit is not None and self._limit.expired()
        timed_out = expired or isinstance(error, httpx.TimeoutException)
        never_sent = self._phase == _CONNECTING or isinstance(error, _NEVER_SENT)
        failed = f"failed with {type(error).__name__} after {now - self._started:.3f} s"
        what = f"had no whole answer within {self._timeout:g} s" if timed_out else failed
        return RequestFailedError(
            f"{what}, while {_CONNECTING if never_sent else self._phase}",
            outcome=RetrySafety.NOT_DONE if never_sent else RetrySafety.UNKNOWN,
            timed_out=timed_out,
        )

    async def _follow(self, event: str, info: Mapping[str, Any]) -> None:
        """Note what httpcore says that it does."""
        step = event.partition(".")[2]
        self._phase = _PHASES.get(step, self._phase)
        if step == "connect_tcp.complete":
            self._socket = info["return_value"]
        elif step == "start_tls.failed":
            # httpcore 1.0.9 leaves the socket open when it is cancelled in the middle of a handshake.
            await self._socket.aclose()


def _scrub_exception(error: BaseException | None) -> None:
    """Take out of protocol errors, and their causes, what they quote of an answer: it may be a phone number."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:  # one may be its own cause
        seen.add(id(error))
        error.args = tuple(_QUOTED.sub("***", text) if isinstance(text, str) else text for text in error.args)
        error = error.__cause__ or error.__context__


async def _read(response: httpx.Response) -> HttpResponse:
    """Read a response, and no more than one byte above what is allowed."""
    headers = response.headers
    # A hook or a transport of the caller's may have read it all, and undone its encoding.
    consumed = response.is_stream_consumed
    return HttpResponse(
        status=response.status_code,
        body=response.content if consumed else await _read_capped(response),
        content_type=headers.get("Content-Type"),
        content_encoding="" if consumed else headers.get("Content-Encoding", ""),
        retry_after=headers.get("Retry-After"),
    )


async def _read_capped(response: httpx.Response) -> bytes:
    body = bytearray()
    async with aclosing(response.aiter_raw()) as chunks:  # type: ignore[type-var]  # a generator, typed as an iterator
        async for chunk in chunks:
            body += chunk
            if len(body) > MAX_ANSWER_BYTES:
                break
    return bytes(body[: MAX_ANSWER_BYTES + 1])


# --- the pool -------------------------------------------------------------------------------------------------


class HttpTransport:
    """What a connection and its views share: the client, whose turn it is, and what is under way."""

    def __init__(self, client: httpx.AsyncClient, max_connections: int, *, owned: bool) -> None:
        self.client = client
        self._owned = owned
        self._max_connections = max_connections
        # First come, first served; a caller that is cancelled while it waits leaves the queue.
        self._slots = asyncio.Semaphore(max_connections)
        self._waiting = 0
        self._under_way: dict[asyncio.Task[HttpResponse], _InFlightRequest] = {}
        self._process = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: asyncio.Task[None] | None = None
        self._made_at = _creation_site()

    def __del__(self) -> None:
        """Warn, as of a line of whoever made it, where it was never closed; a fork leaves that to the parent."""
        if self._owned and self._closing is None and os.getpid() == self._process:
            file, line = self._made_at
            message = f"a CallFire client made at {file}:{line} was never closed: use async with, or await aclose()"
            warnings.warn_explicit(message, ResourceWarning, file, line, source=self)

    def check(self) -> None:
        """Raise `ClientClosedError` unless requests can be sent from here."""
        if self._closing is not None:
            raise ClientClosedError("this client was closed: make another one")
        self._check_place()
        if self.client.is_closed:
            raise ClientClosedError("the http_client that was handed in was closed: close it after this client")

    def _check_place(self) -> None:
        if os.getpid() != self._process:
            raise ClientClosedError(
                "this client was made before a fork, and its connections belong to the parent: make one in each process"
            )
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        if self._loop is not loop:
            raise ClientClosedError(
                "this client was used in another event loop, to which its connections belong: make one in each loop"
            )

    async def exchange(
        self, method: str, url: str, *, headers: Mapping[str, str], content: bytes | None, timeout: float
    ) -> HttpResponse:
        """
        Send a request and read the answer, all within *timeout* seconds.

        A cancelled caller leaves at once; the exchange then has `ABANDONED_SECONDS` to end by itself, since one that
        is cancelled in the middle can leave the pool in a state from which it does not recover.
        """
        self.check()
        started = asyncio.get_running_loop().time()
        request = self._request(method, url, headers, content)
        if self._slots.locked():
            await self._wait_for_slot(started + timeout, timeout)
        else:
            await self._slots.acquire()
        return await self._shielded(_InFlightRequest(self.client, request, started, timeout))

    def _request(self, method: str, url: str, headers: Mapping[str, str], content: bytes | None) -> httpx.Request:
        if self._owned:
            return _build_request(method, url, headers, content)
        # The timeout of the attempt as a whole is kept in _Exchange; httpx knows only those of its phases.
        request = self.client.build_request(method, url, headers=headers, content=content, timeout=None)
        request.url = _QueryRedactedURL(request.url)
        return request

    async def _shielded(self, exchange: _InFlightRequest) -> HttpResponse:
        loop = asyncio.get_running_loop()
        task = loop.create_task(exchange.run())
        self._under_way[task] = exchange
        task.add_done_callback(self._settle)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.done():
                exchange.abandon(loop.time() + ABANDONED_SECONDS)
            raise
        except Exception as error:
            # Whatever it is: httpx lets errors of ssl and anyio pass, and a transport may be the caller's own.
            _scrub_exception(error)
            raise exchange.failure(error, loop.time()) from error

    async def _wait_for_slot(self, deadline: float, timeout: float) -> None:
        ahead = self._waiting
        self._waiting += 1
        try:
            async with asyncio.timeout_at(deadline):
                await self._slots.acquire()
        except TimeoutError as error:
            reason = f"waited {timeout:g} s for one of {self._max_connections} connections, with {ahead} requests ahead"
            raise RequestFailedError(reason, outcome=RetrySafety.NOT_DONE, timed_out=True) from error
        finally:
            self._waiting -= 1
        try:
            self.check()
        except ClientClosedError:
            self._slots.release()
            raise

    def _settle(self, task: asyncio.Task[HttpResponse]) -> None:
        """Give the slot to the next; take note of the outcome, which nobody may be there to take."""
        del self._under_way[task]
        self._slots.release()
        if not task.cancelled():
            task.exception()

    async def aclose(self) -> None:
        """Close, in a task of its own, so that a caller who is cancelled leaves nothing half closed."""
        if self._closing is None:
            self._check_place()
            self._closing = asyncio.get_running_loop().create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        try:
            if self._under_way:
                now = asyncio.get_running_loop().time()
                last = max(exchange.deadline for exchange in self._under_way.values())
                # Past its own limit an exchange has only its socket to close.
                await asyncio.wait(self._under_way, timeout=last - now + ABANDONED_SECONDS)
        finally:
            if self._owned:
                await self.client.aclose()
