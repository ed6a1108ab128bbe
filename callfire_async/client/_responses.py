"""Turn HTTP responses into values or errors, and decide whether and when to retry; without I/O, clock or randomness."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from textwrap import shorten
from typing import NoReturn, TypeVar

from attrs import field, frozen

from callfire_async._codec.document_limits import InvalidDocumentError
from callfire_async._codec.model_reader import ConversionError
from callfire_async.client._operations.api_1_1 import read_error_1_1
from callfire_async.client._operations.api_2 import read_error_v2
from callfire_async.client._operations.operation import ApiVersion, ErrorDetails, Operation, Problems
from callfire_async.errors import (
    APIError,
    AuthenticationError,
    BadRequestError,
    CallFireError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    RequestTimeoutError,
    ResponseError,
    ServerError,
    TransportError,
)
from callfire_async.models import masked_endpoint, masked_number

T = TypeVar("T")

# The longest list, 1000 subscriptions, takes half a megabyte at most.
MAX_BODY_BYTES = 16 * 1024 * 1024

# A caller expects a call to return within minutes, so with a longer Retry-After the error is raised instead.
MAX_RETRY_AFTER_SECONDS = 60.0
_INITIAL_DELAY_SECONDS = 0.5
_MAX_DELAY_SECONDS = 16.0
# Longer than any real Retry-After, and within the range of a timedelta.
_MAX_PARSED_SECONDS = timedelta(days=365).total_seconds()


@frozen
class HttpResponse:
    """An HTTP response; its body is cut after `MAX_BODY_BYTES` + 1 bytes."""

    status: int
    body: bytes = field(default=b"", repr=False)
    content_type: str | None = None
    content_encoding: str = ""
    retry_after: str | None = None


class RetrySafety(Enum):
    """Whether a failed attempt can be repeated."""

    SAFE = auto()  # it was not executed
    UNKNOWN = auto()  # it may have been executed
    POINTLESS = auto()  # the response would be the same


class RequestFailedError(Exception):
    """Internal signal: no complete response arrived."""

    def __init__(self, reason: str, *, retry_safety: RetrySafety, timed_out: bool) -> None:
        super().__init__(reason)
        self.retry_safety = retry_safety
        self.timed_out = timed_out


# --- values and errors ------------------------------------------------------------------------------------


def parse_response(
    operation: Operation[T], response: HttpResponse, *, attempts: int, maybe_executed: bool, now: datetime
) -> tuple[T, Problems]:
    """
    Return the value of a successful response, or raise an error.

    Args:
        operation: The operation that was sent.
        response: Its response.
        attempts: Number of attempts made so far, including this one.
        maybe_executed: Whether an earlier attempt may have been executed.
        now: The current time, aware; ``Retry-After`` can be a date.

    Returns:
        The value, and the fields that could not be read and were left out, as ``problem @ path``.

    Raises:
        APIError: The response has an error status.
        ResponseError: The response does not match the API's specification.
    """
    repeated = operation.repeat_success_statuses if maybe_executed else frozenset[int]()
    if response.status not in operation.success_statuses | repeated:
        _raise_error(operation, response, attempts, now)
    try:
        return operation.read(_decompress(response), response.content_type)
    except (InvalidDocumentError, ConversionError) as error:
        raise _response_error(operation, response, attempts, str(error)) from error


def _raise_error(operation: Operation[T], response: HttpResponse, attempts: int, now: datetime) -> NoReturn:
    if 400 <= response.status < 600:
        raise _api_error(operation, response, attempts, now)
    is_redirect = 300 <= response.status < 400
    reason = "redirects are never followed" if is_redirect else "unexpected status code"
    raise _response_error(operation, response, attempts, reason)


def _summary(operation: Operation[T], response: HttpResponse, attempts: int) -> str:
    suffix = f" (attempt {attempts})" if attempts > 1 else ""
    return f"{operation} returned {response.status}{suffix}"


def _response_error(operation: Operation[T], response: HttpResponse, attempts: int, reason: str) -> ResponseError:
    return ResponseError(
        f"{_summary(operation, response, attempts)}: {reason}",
        status_code=response.status,
        method=operation.method,
        path=operation.path,
        body=response.body[:MAX_BODY_BYTES],
    )


_ERRORS: Mapping[int, type[APIError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    429: RateLimitError,
}
_ERROR_READERS: Mapping[ApiVersion, Callable[[bytes, str | None], ErrorDetails]] = {
    "1.1": read_error_1_1,
    "2": read_error_v2,
}
_HINTS = {
    401: "check the API login and password",
    403: "the account lacks the permission",
    429: "too many requests, retry later",
}


def _api_error(operation: Operation[T], response: HttpResponse, attempts: int, now: datetime) -> APIError:
    message, code = _error_details(operation, response)
    details = (redact(message) if message else None, _HINTS.get(response.status))
    error_class = _ERRORS.get(response.status, ServerError if response.status >= 500 else APIError)
    return error_class(
        ": ".join([_summary(operation, response, attempts), *filter(None, details)]),
        status_code=response.status,
        method=operation.method,
        path=operation.path,
        message=message,
        code=code,
        body=response.body[:MAX_BODY_BYTES],
        request_id=operation.request_id,
        attempts=attempts,
        retry_after=parse_retry_after(response.retry_after, now),
    )


def _error_details(operation: Operation[T], response: HttpResponse) -> ErrorDetails:
    """Return the readable parts of an error response; nothing if the body cannot be decompressed."""
    try:
        return _ERROR_READERS[operation.api_version](_decompress(response), response.content_type)
    except InvalidDocumentError:
        return ErrorDetails()


def _decompress(response: HttpResponse) -> bytes:
    """Return the decoded body; a proxy may compress it although only ``identity`` is accepted."""
    if not response.body:
        return b""  # a proxy may leave the header of a response whose body it removes, or that never had one
    encoding = response.content_encoding.strip().lower()
    if encoding in ("gzip", "x-gzip", "deflate"):
        body = _inflate(response.body)
    elif encoding in ("", "identity"):
        body = response.body
    else:
        raise InvalidDocumentError("unsupported content encoding")
    if len(body) > MAX_BODY_BYTES:
        raise InvalidDocumentError(f"the body is longer than {MAX_BODY_BYTES} bytes")
    return body


def _inflate(body: bytes) -> bytes:
    # 32 added to the window's size: zlib detects gzip or zlib by the header.
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        plain = inflater.decompress(body, MAX_BODY_BYTES + 1)
    except zlib.error:
        raise InvalidDocumentError("the body does not match its content encoding") from None
    if not inflater.eof and len(plain) <= MAX_BODY_BYTES:
        raise InvalidDocumentError("the compressed body is truncated")
    return plain


def transport_error(operation: Operation[T], failure: RequestFailedError, attempts: int) -> TransportError:
    """Return the error for an attempt without a complete response."""
    return (RequestTimeoutError if failure.timed_out else TransportError)(
        f"{operation} {failure} (attempt {attempts})",
        method=operation.method,
        path=operation.path,
        attempts=attempts,
    )


_SECRET = re.compile(
    r"(?P<endpoint>\S+(?:://|@|/)\S*)"
    # Probably a token: at least 16 characters, with letters and digits.
    r"|(?P<token>\b(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[\w-]{16,})"
    r"|(?P<number>\+?\(?\d[\d ().-]{3,}\d)"
)


def redact(message: str) -> str:
    """Mask possible phone numbers, endpoints and tokens in CallFire's message, and shorten it."""
    # Cut at white space, so that no half of a secret escapes the pattern. The slice bounds the time that this takes.
    return _SECRET.sub(_mask, shorten(message[:1000], 300, placeholder=" ...", break_on_hyphens=False))


def _mask(match: re.Match[str]) -> str:
    if match["endpoint"]:
        # The parts of an endpoint that stay visible can contain a phone number.
        return re.sub(r"\d{5,}", _mask_number, masked_endpoint(match[0]).strip("'\""))
    return _mask_number(match) if match["number"] else "***"


def _mask_number(match: re.Match[str]) -> str:
    return masked_number(match[0]).strip("'")


# --- retries ----------------------------------------------------------------------------------------------


def retry_safety_of(error: CallFireError) -> RetrySafety:
    """Return whether an attempt can be repeated whose response was *error*."""
    if isinstance(error, RateLimitError):
        return RetrySafety.SAFE
    if isinstance(error, ServerError) or (isinstance(error, ResponseError) and 200 <= error.status_code < 300):
        return RetrySafety.UNKNOWN
    return RetrySafety.POINTLESS


def should_retry(
    operation: Operation[T],
    error: BaseException,
    retry_safety: RetrySafety,
    *,
    retry_after: float | None,
    is_recoverable: bool,
) -> bool:
    """
    Return whether another attempt is safe and can succeed.

    Args:
        operation: The operation that failed.
        error: The error of the last attempt.
        retry_safety: Whether the last attempt can be repeated.
        retry_after: The server's Retry-After in seconds, if it sent one.
        is_recoverable: Whether a lookup finds out if an earlier attempt was executed.
    """
    if not isinstance(error, CallFireError) or (retry_after or 0) > MAX_RETRY_AFTER_SECONDS:
        return False
    if operation.is_at_most_once and isinstance(error, APIError):
        return False
    if retry_safety is RetrySafety.UNKNOWN:
        return operation.is_idempotent or is_recoverable
    return retry_safety is RetrySafety.SAFE


def retry_after_of(error: BaseException | None) -> float | None:
    """Return the Retry-After of an error response, in seconds."""
    return error.retry_after if isinstance(error, APIError) else None


_SECONDS = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?")


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Parse ``Retry-After``, a number of seconds or an HTTP date, into 0 seconds to a year; None if it is neither."""
    if not value:
        return None
    value = value.strip()
    seconds = float(value) if _SECONDS.fullmatch(value) else _seconds_until(value, now)
    return None if seconds is None else min(max(seconds, 0.0), _MAX_PARSED_SECONDS)


def _seconds_until(date: str, now: datetime) -> float | None:
    try:
        time = parsedate_to_datetime(date)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() - now.timestamp()
    except (ValueError, OverflowError):
        return None


def retry_delay(attempt: int, retry_after: float | None, random: Callable[[], float]) -> float:
    """
    Return how long to wait before the next attempt, in seconds.

    Args:
        attempt: Number of attempts made so far, starting at 1.
        retry_after: The server's Retry-After in seconds, if it sent one.
        random: Returns a number from 0 up to 1.

    Returns:
        *retry_after*; otherwise an exponential backoff with full jitter.
    """
    if retry_after is not None:
        return retry_after
    # Ten doublings exceed the maximum already; 2.0 ** 10_000 would overflow.
    return random() * min(_MAX_DELAY_SECONDS, _INITIAL_DELAY_SECONDS * 2.0 ** min(attempt - 1, 10))
