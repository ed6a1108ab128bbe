"""
`HttpTransport`: sends requests through httpx or httpx2, with a concurrency limit and a total timeout, safe to cancel.

The only module of the client that imports httpx, which takes long: `Connection` imports it on first use. It never
imports httpx2: a client of it exists only if the application has. httpx2 has the interface of httpx, so the code is
written for httpx, and `_classes` finds the classes of both.
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
from contextlib import aclosing, suppress
from contextvars import ContextVar
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import httpx

from callfire_async.client._responses import MAX_BODY_BYTES, HttpResponse, RequestFailedError, RetrySafety
from callfire_async.client.failure_reasons import causes, failure_reason
from callfire_async.errors import ClientClosedError
from callfire_async.models import wrong_type

if TYPE_CHECKING:
    import httpx2

    HttpClient: TypeAlias = httpx.AsyncClient | httpx2.AsyncClient

_PACKAGE = __name__.partition(".")[0]
# Enough for most responses to arrive; a hung server blocks a connection only this much longer.
ABANDONED_SECONDS = 2.0
_MAX_IDLE_CONNECTIONS = 10


def make_transport(
    max_connections: int,
    *,
    trust_env: bool,
    ssl_context: ssl.SSLContext | None,
    http_client: HttpClient | None,
) -> HttpTransport:
    """Create a transport over an HTTP client of its own or over *http_client*, or raise ValueError or TypeError."""
    for library in ("httpx", "httpx2"):
        logging.getLogger(library).addFilter(_redact_query)
    if ssl_context is not None and not isinstance(ssl_context, ssl.SSLContext):
        raise wrong_type("ssl_context", "an ssl.SSLContext", ssl_context)
    if ssl_context is not None and ssl_context.verify_mode is not ssl.CERT_REQUIRED:
        raise ValueError("ssl_context must verify certificates: to trust an authority of your own, load it into it")
    if http_client is None:
        own_client = _http_client(max_connections, ssl_context, trust_env=trust_env)
        return HttpTransport(own_client, max_connections, owned=True)
    if not isinstance(http_client, _classes("AsyncClient")):
        raise wrong_type("http_client", "an httpx.AsyncClient or an httpx2.AsyncClient", http_client)
    if ssl_context is not None or trust_env:
        raise TypeError("ssl_context and trust_env cannot be used with http_client: configure that client instead")
    return HttpTransport(cast(httpx.AsyncClient, http_client), max_connections, owned=False)


def _classes(*names: str) -> tuple[Any, ...]:
    """Return the classes of these names of httpx, and of httpx2 if the application has imported it."""
    libraries = [library for name in ("httpx", "httpx2") if (library := sys.modules.get(name))]
    return tuple(getattr(library, name) for library in libraries for name in names)


def check_url(name: str, url: str) -> None:
    """Raise ValueError if a URL cannot be requested, for example because its host is the IPv4 address 10.0.0.256."""
    try:
        httpx.URL(url)
    except httpx.InvalidURL:
        raise ValueError(f"{name} is not a URL") from None


def _http_client(max_connections: int, ssl_context: ssl.SSLContext | None, *, trust_env: bool) -> httpx.AsyncClient:
    # httpx's own connection limit can deadlock when waiting requests are cancelled, so it is off. httpcore checks all
    # idle connections on each request: with 100 of them a request takes four times as long.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=min(max_connections, _MAX_IDLE_CONNECTIONS))
    no_cookies = CookieJar(policy=DefaultCookiePolicy(allowed_domains=[]))
    return httpx.AsyncClient(verify=ssl_context or True, trust_env=trust_env, limits=limits, cookies=no_cookies)


# True in the task that sends a request of this library: httpx's log line about any other request is left unchanged.
_is_own_request: ContextVar[bool] = ContextVar("_is_own_request", default=False)


def _redact_query(record: logging.LogRecord) -> bool:
    """Remove the query, which can contain phone numbers, from the library's INFO line about a request."""
    if _is_own_request.get() and isinstance(record.args, tuple):
        record.args = tuple(map(_without_query, record.args))
    return True


def _without_query(arg: Any) -> Any:
    return arg.copy_with(query=None) if isinstance(arg, _classes("URL")) else arg


def _creation_site() -> tuple[str, int]:
    """Return the file and line, outside this library, that create the client."""
    frame = sys._getframe()  # noqa: SLF001  # inspect.stack reads source files
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == _PACKAGE:
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


# --- one request ------------------------------------------------------------------------------------------

# The errors that prove by themselves that nothing was sent. ConnectTimeout does not: some transports raise it for a
# connection that ends after the request was executed.
_NEVER_SENT = ("ConnectError", "PoolTimeout")
_CONNECTING = "connecting to"
_WAITING = "waiting for the response from"
_READING = "reading the response from"
# The phase that each trace event of httpcore starts; the events are prefixed with the protocol.
_PHASES: Mapping[str, str] = {
    "connect_tcp.started": _CONNECTING,
    "connect_unix_socket.started": _CONNECTING,
    "start_tls.started": _CONNECTING,
    "send_request_headers.started": "sending the request to",
    "receive_response_headers.started": _WAITING,
    "receive_response_body.started": _READING,
}
_CONNECTED = frozenset(["connect_tcp.complete", "connect_unix_socket.complete"])


class _InFlightRequest:
    """One request: its current phase and its deadline."""

    def __init__(self, client: httpx.AsyncClient, request: httpx.Request, started: float, timeout: float) -> None:
        self._client = client
        self._request = request
        # A transport without trace events may have sent the whole request.
        self._phase = _WAITING
        self._limit: asyncio.Timeout | None = None
        self._socket: Any = None
        self._peer = _server_of(request.url)
        self._started = started
        self._timeout = timeout
        self.deadline = started + timeout
        request.extensions["trace"] = self._trace

    async def run(self) -> HttpResponse:
        """Send the request and read the whole response."""
        _is_own_request.set(True)
        async with asyncio.timeout_at(self.deadline) as self._limit:
            response = await self._client.send(self._request, stream=True, auth=None, follow_redirects=False)
            self._phase = _READING
            try:
                return await _read(response)
            finally:
                await response.aclose()

    def abandon(self, deadline: float) -> None:
        """Move the deadline forward to *deadline*: the caller was cancelled."""
        self.deadline = min(self.deadline, deadline)
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(self.deadline)

    def to_error(self, error: BaseException, now: float) -> RequestFailedError:
        """Convert an exception of `run`."""
        expired = self._limit is not None and self._limit.expired()
        timed_out = expired or isinstance(error, _classes("TimeoutException"))
        never_sent = self._phase == _CONNECTING or isinstance(error, _classes(*_NEVER_SENT))
        failure = f"failed with {type(error).__name__} after {now - self._started:.3f} s"
        summary = f"got no complete response within {self._timeout:g} s" if timed_out else failure
        reason = None if timed_out else failure_reason(error)
        phase = f"{_CONNECTING if never_sent else self._phase} {self._peer}"
        return RequestFailedError(
            f"{summary}, while {phase}{f': {reason}' if reason else ''}",
            retry_safety=RetrySafety.SAFE if never_sent else RetrySafety.UNKNOWN,
            timed_out=timed_out,
        )

    async def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        step, request = event.partition(".")[2], info.get("request")
        # The request for a tunnel through a proxy precedes the one that is to be sent.
        is_tunnel = request is not None and request.method == b"CONNECT"
        self._phase = _CONNECTING if is_tunnel else _PHASES.get(step, self._phase)
        if step == "connect_tcp.started":
            # A proxy's address, if there is one.
            self._peer = _host_and_port(info["host"], info["port"])
        elif step in _CONNECTED:
            self._socket = info["return_value"]
            self._peer = _server_of(self._request.url)
        elif step == "start_tls.failed":
            # httpcore 1.0.9 does not close the socket if it is cancelled during a TLS handshake.
            await self._socket.aclose()


def _server_of(url: httpx.URL) -> str:
    return _host_and_port(url.host, url.port or (443 if url.scheme == "https" else 80))


def _host_and_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


# The repr of bytes, as in h11's messages; if the bytes contain quotes of both kinds, one kind is escaped.
_BYTES_REPR = re.compile(r"""b(?:'(?:[^'\\]|\\.)*'|"[^"]*")""")


def _scrub_exception(error: BaseException) -> None:
    """Mask the parts of a response that protocol errors and their causes quote: they can contain a phone number."""
    for cause in causes(error):
        masked = tuple(_BYTES_REPR.sub("***", arg) if isinstance(arg, str) else arg for arg in cause.args)
        # An exception that a hook of the user raised can be immutable.
        with suppress(AttributeError):
            cause.args = masked


async def _read(response: httpx.Response) -> HttpResponse:
    # A hook or a custom transport may have read and decoded the body already.
    is_decoded = response.is_stream_consumed
    headers = response.headers
    return HttpResponse(
        status=response.status_code,
        body=response.content if is_decoded else await _read_capped(response),
        content_type=headers.get("Content-Type"),
        content_encoding="" if is_decoded else headers.get("Content-Encoding", ""),
        retry_after=headers.get("Retry-After"),
    )


async def _read_capped(response: httpx.Response) -> bytes:
    body = bytearray()
    async with aclosing(response.aiter_raw()) as chunks:  # type: ignore[type-var]  # a generator, typed as an iterator
        async for chunk in chunks:
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                break
    return bytes(body[: MAX_BODY_BYTES + 1])


# --- all requests -----------------------------------------------------------------------------------------


class HttpTransport:
    """The state that a connection and its views share: the HTTP client, its free slots and the requests in flight."""

    def __init__(self, client: httpx.AsyncClient, max_connections: int, *, owned: bool) -> None:
        self.client = client
        self._owned = owned
        self._max_connections = max_connections
        # Serves waiting callers in order; a cancelled caller leaves the queue.
        self._slots = asyncio.Semaphore(max_connections)
        self._waiting = 0
        self._in_flight: dict[asyncio.Task[HttpResponse], _InFlightRequest] = {}
        self._process = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: asyncio.Task[None] | None = None
        self._created_at = _creation_site()

    def __del__(self) -> None:
        """Warn if the client was never closed, except in a forked child process."""
        if self._owned and self._closing is None and os.getpid() == self._process:
            file, line = self._created_at
            message = f"the CallFire client created at {file}:{line} was never closed: use async with or await aclose()"
            warnings.warn_explicit(message, ResourceWarning, file, line, source=self)

    def check_usable(self) -> None:
        """Raise `ClientClosedError` if no request can be sent from here."""
        if self._closing is not None:
            raise ClientClosedError("this client is closed: create a new one")
        self._check_process_and_loop()
        if self.client.is_closed:
            raise ClientClosedError("http_client is closed: close it after this client")

    def _check_process_and_loop(self) -> None:
        if os.getpid() != self._process:
            raise ClientClosedError(
                "this client was created before a fork and its connections belong to the parent: "
                "create one client in each process"
            )
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        if self._loop is not loop:
            raise ClientClosedError(
                "this client was used in another event loop and its connections belong to it: "
                "create one client in each loop"
            )

    async def request(
        self, method: str, url: str, *, headers: Mapping[str, str], content: bytes | None, timeout: float
    ) -> HttpResponse:
        """
        Send a request and return the complete response, within *timeout* seconds.

        If the caller is cancelled, it returns at once and the request gets `ABANDONED_SECONDS` to finish: httpcore's
        pool may not recover from a request that is cancelled in the middle.
        """
        self.check_usable()
        started = asyncio.get_running_loop().time()
        # httpx only knows timeouts of single phases; the total is enforced by _InFlightRequest.
        try:
            request = self.client.build_request(method, url, headers=headers, content=content, timeout=None)
        except _classes("InvalidURL"):
            # The base URL was checked, and all parameters are encoded.
            raise ValueError("the parameters are too long for a URL: pass fewer or shorter values") from None
        await self._acquire_slot(started + timeout, timeout)
        return await self._send_shielded(_InFlightRequest(self.client, request, started, timeout))

    async def _acquire_slot(self, deadline: float, timeout: float) -> None:
        ahead = self._waiting
        self._waiting += 1
        try:
            async with asyncio.timeout_at(deadline):
                await self._slots.acquire()
        except TimeoutError as error:
            reason = (
                f"got none of {self._max_connections} connections within {timeout:g} s, with {ahead} requests ahead"
            )
            raise RequestFailedError(reason, retry_safety=RetrySafety.SAFE, timed_out=True) from error
        finally:
            self._waiting -= 1
        try:
            self.check_usable()
        except ClientClosedError:
            self._slots.release()
            raise

    async def _send_shielded(self, request: _InFlightRequest) -> HttpResponse:
        loop = asyncio.get_running_loop()
        task = loop.create_task(request.run())
        self._in_flight[task] = request
        task.add_done_callback(self._finish)
        try:
            # Not a shield: from Python 3.14 on, it logs the failure of a request whose caller was cancelled.
            await asyncio.wait([task])
        except asyncio.CancelledError:
            if not task.done():
                request.abandon(loop.time() + ABANDONED_SECONDS)
            raise
        try:
            return task.result()
        # Any exception: httpx lets errors of ssl and anyio through, and hooks and transports can be the user's. A hook
        # that awaits a cancelled task raises CancelledError, although the caller is not cancelled.
        except (Exception, asyncio.CancelledError) as error:
            _scrub_exception(error)
            raise request.to_error(error, loop.time()) from error

    def _finish(self, task: asyncio.Task[HttpResponse]) -> None:
        del self._in_flight[task]
        self._slots.release()
        if not task.cancelled():
            # Without this, asyncio logs the exception if the caller was cancelled.
            task.exception()

    async def aclose(self) -> None:
        """Wait for requests in flight, then close the HTTP client if it is owned. Idempotent."""
        if self._closing is None:
            self._check_process_and_loop()
            # In a task, so that closing continues if the caller is cancelled.
            self._closing = asyncio.get_running_loop().create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        try:
            if self._in_flight:
                now = asyncio.get_running_loop().time()
                last = max(request.deadline for request in self._in_flight.values())
                # After its deadline a request only has to close its socket.
                await asyncio.wait(self._in_flight, timeout=last - now + ABANDONED_SECONDS)
        finally:
            if self._owned:
                await self.client.aclose()
