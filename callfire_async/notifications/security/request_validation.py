"""Request checks that need no parsing: token, method, encoding, size limit, read timeout and signature."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, TypeAlias

from attrs import field, frozen

from callfire_async.notifications._eager_start import run_within
from callfire_async.notifications.security._rejection_log import RejectionLog
from callfire_async.notifications.security.signatures import SIGNATURE_HEADER, SignaturePolicy, SigningSecrets
from callfire_async.notifications.security.tokens import EndpointTokens

__all__ = ["Postback", "Reply", "RequestValidator"]

Headers: TypeAlias = Mapping[str, str] | Iterable[tuple[str, str]]

# The rest of a rejected body is read and discarded up to these limits, so that its sender gets the response instead of
# a connection reset. A sender that exceeds them is disconnected.
_MAX_DRAINED_BYTES = 2 * 1024 * 1024
_DRAIN_TIMEOUT_SECONDS = 0.5
# Values of Content-Encoding that some senders use although the body is not encoded: no encoding, or a charset.
_UNENCODED = frozenset(["", "none", "identity", "7bit", "8bit", "binary"]) | frozenset(
    ["utf-8", "utf8", "utf-16", "us-ascii", "ascii", "iso-8859-1", "latin-1", "latin1", "windows-1252"]
)
#: The headers that the receiver reads, in lower case; an adapter may omit all others.
RELEVANT_HEADERS = frozenset(["content-encoding", "content-length", "content-type", "expect", SIGNATURE_HEADER.lower()])
# CallFire does not document retries, but a proxy with a queue may retry.
RETRY_AFTER_HEADER = ("Retry-After", "5")


@frozen(slots=False)
class Postback:
    """
    One HTTP request, as an adapter passes it to the receiver.

    The body is bytes, or an asynchronous iterable of chunks that the receiver reads under its own limits.
    """

    #: The HTTP method; only POST is accepted.
    method: str
    #: The last segment of the path, percent-decoded; None for an empty path.
    token: str | None = field(repr=False)
    #: A mapping, or pairs of names and values; names in upper or lower case.
    headers: Headers = field(repr=False)
    #: A stream that ends early must raise.
    body: bytes | AsyncIterable[bytes] = field(repr=False)


@frozen(slots=False)
class Reply:
    """An HTTP response, for an adapter to send."""

    #: The HTTP status.
    status: int
    #: Names and values, without ``Content-Length``.
    headers: tuple[tuple[str, str], ...] = ()
    #: Empty, except for health checks.
    body: bytes = b""
    #: Whether the connection must be closed within a second, because the request's body was not read completely.
    close_connection: bool = False


@frozen
class Rejection:
    """The reason why a request was rejected, and the response."""

    reason: str
    reply: Reply


class RequestValidator:
    """
    Validates requests and reads their bodies.

    Args:
        tokens: The valid tokens; None accepts requests without a token.
        max_body_bytes: A larger body is rejected with 413.
        body_timeout: Seconds to read the whole body; a slower sender gets 408.
        signatures: Which signatures are accepted; None ignores them.
        clock: Returns the time in seconds.
    """

    def __init__(
        self,
        tokens: EndpointTokens | None,
        *,
        max_body_bytes: int,
        body_timeout: float,
        signatures: SignaturePolicy | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.tokens = tokens
        self._rejections = RejectionLog(clock)
        #: Number of rejected requests, by reason.
        self.refused: Counter[str] = self._rejections.counts
        self._max_body_bytes = max_body_bytes
        self._body_timeout = body_timeout
        self._signatures = signatures

    @property
    def signing_secrets(self) -> SigningSecrets | None:
        """The secrets that verify signatures; None if signatures are ignored."""
        return None if self._signatures is None else self._signatures.secrets

    async def read_request(
        self, postback: Postback, headers: Mapping[str, str], *, is_running: bool
    ) -> bytes | Rejection:
        """Validate a request and read its body, or return an error response. *headers* are its relevant headers."""
        body = _BoundedBody(postback.body)
        try:
            self._check(postback, headers, is_running=is_running)
            return await self._read(body, headers)
        except _RequestRejected as rejected:
            self._rejections.add(rejected.reason, needs_hint=_needs_hint(rejected.reason, postback, body))
            return Rejection(rejected.reason, await _early_response(rejected, headers, body))

    def _check(self, postback: Postback, headers: Mapping[str, str], *, is_running: bool) -> None:
        """Reject what can be rejected before the body is read."""
        if self.tokens is not None and not self.tokens.verify(postback.token):
            raise _RequestRejected(404, "token")
        if postback.method.upper() != "POST":
            raise _RequestRejected(405, "method", ("Allow", "POST"))
        if not _is_unencoded(headers.get("content-encoding", "")):
            raise _RequestRejected(415, "encoding", ("Accept-Encoding", "identity"))
        if not is_running:
            raise _RequestRejected(503, "not running", RETRY_AFTER_HEADER)
        # A header that understates the length is detected during the read.
        _check_size(_declared_length(headers), self._max_body_bytes)

    async def _read(self, body: "_BoundedBody", headers: Mapping[str, str]) -> bytes:
        content = await self._read_in_time(body)
        if body.size < _declared_length(headers) and (body.is_stream or not content):
            raise _body_consumed()
        if not content:
            raise _RequestRejected(400, "empty")
        self._check_signature(content, headers)
        return content

    async def _read_in_time(self, body: "_BoundedBody") -> bytes:
        # Most bodies have arrived when their requests are handled.
        try:
            return await run_within(self._body_timeout, body.read(self._max_body_bytes))
        except TimeoutError:
            raise _RequestRejected(408, "time", drain=False) from None

    def _check_signature(self, content: bytes, headers: Mapping[str, str]) -> None:
        # A repeated header is joined with a comma, which no signature contains.
        if self._signatures and not self._signatures.accepts(content, headers.get(SIGNATURE_HEADER.lower())):
            raise _RequestRejected(401, "signature", ("WWW-Authenticate", "CallFire-Signature"))


class BodyConsumedError(Exception):
    """Raised by the body of a request if a part of it was read before, so that the rest must not be stored."""


class _RequestRejected(Exception):  # internal signal; never raised to the caller
    """Raised to respond with an error."""

    def __init__(self, status: int, reason: str, *headers: tuple[str, str], drain: bool = True) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = headers
        self.drain = drain


def _body_consumed() -> _RequestRejected:
    return _RequestRejected(503, "consumed", RETRY_AFTER_HEADER)


class _BoundedBody:
    """A request's body, which records how much of it was read, and whether it was read completely."""

    def __init__(self, source: bytes | AsyncIterable[bytes]) -> None:
        self.is_stream = not isinstance(source, bytes)
        self.is_complete = not self.is_stream
        #: Number of bytes that were read.
        self.size = len(source) if isinstance(source, bytes) else 0
        self._source = source
        self._chunks: Any = None if isinstance(source, bytes) else aiter(source)

    async def read(self, limit: int) -> bytes:
        """Return the whole body; reject more than *limit* bytes and a stream that raises."""
        if isinstance(self._source, bytes):
            _check_size(self.size, limit)
            return self._source
        content = bytearray()
        try:
            async for chunk in self._chunks:
                content += chunk
                self.size = len(content)
                _check_size(self.size, limit)
        except _RequestRejected:
            raise
        except BodyConsumedError:
            raise _body_consumed() from None
        except Exception as error:  # noqa: BLE001  # each server raises its own error for a lost connection
            # A lower limit of the framework raises its HTTP error.
            if getattr(error, "status_code", None) == 413:
                raise _RequestRejected(413, "size") from None
            raise _RequestRejected(400, "broken off", drain=False) from None
        self.is_complete = True
        return bytes(content)

    async def drain(self, limit: int) -> None:
        """Read and discard up to *limit* bytes."""
        async for chunk in self._chunks:
            limit -= len(chunk)
            if limit <= 0:
                return
        self.is_complete = True


def _is_unencoded(content_encoding: str) -> bool:
    return all(value.strip(' \t"').lower() in _UNENCODED for value in content_encoding.split(","))


def _declared_length(headers: Mapping[str, str]) -> int:
    """Return the Content-Length; 0 without a valid header."""
    length = headers.get("content-length", "")
    # No real length has more than 19 digits.
    return int(length[:19]) if length.isdecimal() else 0


def _needs_hint(reason: str, postback: Postback, body: _BoundedBody) -> bool:
    """Return whether the log line should name a cause that this request suggests."""
    return "/" in (postback.token or "") if reason == "token" else reason in ("time", "broken off") and not body.size


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise _RequestRejected(413, "size")


async def _early_response(rejected: _RequestRejected, headers: Mapping[str, str], body: _BoundedBody) -> Reply:
    """Return the error response, after the body has been drained as far as the limits allow."""
    # A client that sent "Expect: 100-continue" has not sent its body, and does not send one after an error.
    if rejected.drain and not body.is_complete and "expect" not in headers:
        with suppress(Exception):  # each server raises its own error for a lost connection
            async with asyncio.timeout(_DRAIN_TIMEOUT_SECONDS):
                await body.drain(_MAX_DRAINED_BYTES)
    return Reply(rejected.status, rejected.headers, close_connection=not body.is_complete)


def relevant_headers(postback: Postback) -> dict[str, str]:
    """Return the headers that the receiver reads, with names in lower case; repeated headers are joined with commas."""
    headers: Any = postback.headers
    pairs: Iterable[tuple[str, str]] = headers.items() if isinstance(headers, Mapping) else headers
    found: dict[str, str] = {}
    for key, value in pairs:
        name = key.lower()
        if name in RELEVANT_HEADERS:
            found[name] = f"{found[name]}, {value.strip()}" if name in found else value.strip()
    return found
