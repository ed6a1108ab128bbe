"""
An answer becomes a value or an error, and tells what that means for another attempt.

No input or output, no clock and no randomness: who calls hands in what time it is. It imports `_protocol` and what
stands above that.
"""

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

from callfire_async._codec.converters import ConversionError
from callfire_async._codec.documents import InvalidDocumentError
from callfire_async._codec.scalars import normalize
from callfire_async.client._operations.api_1_1 import Operation, Problems, parse_root
from callfire_async.errors import (
    APIError,
    AuthenticationError,
    BadRequestError,
    CallFireError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ResponseError,
    ServerError,
)
from callfire_async.models import masked_endpoint, masked_number

T = TypeVar("T")

# The longest list has 1000 subscriptions, half a megabyte at most; the rest is for what nobody foresaw.
MAX_ANSWER_BYTES = 16 * 1024 * 1024

# A server that asks for a longer pause is obeyed by whoever called: nobody wants a call to sleep for minutes.
MAX_RETRY_AFTER_SECONDS = 60.0
_INITIAL_DELAY_SECONDS = 0.5
# A doubling more has little to give to whoever waits, and nothing to a server that takes so long to recover.
_MAX_DELAY_SECONDS = 16.0
# Longer than anybody means, and short enough for a timedelta.
_MAX_PARSED_SECONDS = timedelta(days=365).total_seconds()


@frozen
class HttpResponse:
    """An HTTP response, as far as it matters: a body of up to one byte more than `MAX_ANSWER_BYTES` among it."""

    status: int
    body: bytes = field(default=b"", repr=False)
    content_type: str | None = None
    content_encoding: str = ""
    retry_after: str | None = None


class RetrySafety(Enum):
    """What a failed attempt means for another one."""

    NOT_DONE = auto()  # it never left, or was turned away: repeating is always safe
    UNKNOWN = auto()  # it may have been carried out
    FINAL = auto()  # the same will be answered again


class RequestFailedError(Exception):
    """An exchange failed: why, while what, and what that means for another attempt."""

    def __init__(self, reason: str, *, outcome: RetrySafety, timed_out: bool) -> None:
        super().__init__(reason)
        self.outcome = outcome
        self.timed_out = timed_out


# --- what it means ----------------------------------------------------------------------------------------------


def parse_response(
    operation: Operation[T], answer: HttpResponse, *, attempts: int, in_doubt: bool, now: datetime
) -> tuple[T, Problems]:
    """
    Turn an answer into a value, or raise what it means.

    Args:
        operation: What was asked.
        answer: What was answered.
        attempts: How often it was sent, this time included.
        in_doubt: Whether an earlier attempt may have been carried out.
        now: The present, aware, to tell how far off a date in ``Retry-After`` is.

    Returns:
        The value, and what in it could not be read and was left out, as ``kind @ path``.

    Raises:
        APIError: The answer says that it failed.
        ResponseError: The answer is not what API 1.1 promises.
    """
    repeated = operation.success_if_repeated if in_doubt else frozenset[int]()
    if answer.status not in operation.success | repeated:
        _raise_error(operation, answer, attempts, now)
    try:
        return operation.read(_decompress(answer), answer.content_type)
    except (InvalidDocumentError, ConversionError) as error:
        raise _response_error(operation, answer, attempts, str(error)) from error


def _raise_error(operation: Operation[T], answer: HttpResponse, attempts: int, now: datetime) -> NoReturn:
    if 400 <= answer.status < 600:
        raise _api_error(operation, answer, attempts, now)
    if 300 <= answer.status < 400:
        raise _response_error(operation, answer, attempts, "a redirect, which is never followed")
    reason = "a status that says neither that it was done nor that it failed"
    raise _response_error(operation, answer, attempts, reason)


def _answered(operation: Operation[T], answer: HttpResponse, attempts: int) -> str:
    which = f", at attempt {attempts}" if attempts > 1 else ""
    return f"{operation} answered {answer.status}{which}"


def _response_error(operation: Operation[T], answer: HttpResponse, attempts: int, reason: str) -> ResponseError:
    return ResponseError(
        f"{_answered(operation, answer, attempts)}: {reason}",
        status_code=answer.status,
        method=operation.method,
        path=operation.path,
        body=answer.body[:MAX_ANSWER_BYTES],
    )


_ERRORS: Mapping[int, type[APIError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    429: RateLimitError,
}
_WAYS_OUT = {
    401: "check the API login and password",
    403: "the account may not do this",
    429: "too many requests, try again later",
}


def _api_error(operation: Operation[T], answer: HttpResponse, attempts: int, now: datetime) -> APIError:
    message = _callfire_message(answer)
    words = (redact(message) if message else None, _WAYS_OUT.get(answer.status))
    summary = ": ".join([_answered(operation, answer, attempts), *filter(None, words)])
    kind = _ERRORS.get(answer.status, ServerError if answer.status >= 500 else APIError)
    return kind(
        summary,
        status_code=answer.status,
        method=operation.method,
        path=operation.path,
        message=message,
        body=answer.body[:MAX_ANSWER_BYTES],
        request_id=operation.request_id,
        attempts=attempts,
        retry_after=parse_retry_after(answer.retry_after, now),
    )


def _callfire_message(answer: HttpResponse) -> str | None:
    """Find CallFire's own words in a ``ResourceException``; a page of HTML from a proxy has none."""
    try:
        message = parse_root("ResourceException", _decompress(answer), answer.content_type).get("Message")
    except InvalidDocumentError:
        return None
    return normalize(message) if isinstance(message, str) else None


def _decompress(answer: HttpResponse) -> bytes:
    """Undo a compression that nobody asked for, no further than `MAX_ANSWER_BYTES`."""
    encoding = answer.content_encoding.strip().lower()
    if encoding in ("gzip", "x-gzip", "deflate"):
        body = _inflated(answer.body)
    elif encoding in ("", "identity"):
        body = answer.body
    else:
        raise InvalidDocumentError("in a content encoding that was not asked for")
    if len(body) > MAX_ANSWER_BYTES:
        raise InvalidDocumentError(f"longer than {MAX_ANSWER_BYTES} bytes")
    return body


def _inflated(body: bytes) -> bytes:
    # 32 added to the window's size: the header says whether it is gzip or zlib.
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        plain = inflater.decompress(body, MAX_ANSWER_BYTES + 1)
    except zlib.error:
        raise InvalidDocumentError("not what its content encoding says") from None
    if not inflater.eof and len(plain) <= MAX_ANSWER_BYTES:
        raise InvalidDocumentError("cut short")
    return plain


_SECRET = re.compile(
    r"(?P<endpoint>\S+(?:://|@|/)\S*)"
    # What looks like a token: long, and letters and digits in it.
    r"|(?P<token>\b(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[\w-]{16,})"
    r"|(?P<number>\+?\(?\d[\d ().-]{3,}\d)"
)


def redact(message: str) -> str:
    """Mask what in CallFire's words may be a number, an endpoint or a token, and cut them to some lines' length."""
    # Cut between words, so that no secret loses the half by which it is known; and first roughly, for speed.
    return _SECRET.sub(_mask, shorten(message[:1000], 300, placeholder=" ...", break_on_hyphens=False))


def _mask(match: re.Match[str]) -> str:
    if match["endpoint"]:
        # What an endpoint may show of itself may be a number too.
        return re.sub(r"\d{5,}", _masked_number, masked_endpoint(match[0]).strip("'\""))
    return _masked_number(match) if match["number"] else "***"


def _masked_number(match: re.Match[str]) -> str:
    return masked_number(match[0]).strip("'")


# --- trying again -----------------------------------------------------------------------------------------


def retry_safety_of(error: CallFireError) -> RetrySafety:
    """Tell what an answer that became *error* means for another attempt."""
    if isinstance(error, RateLimitError):
        return RetrySafety.NOT_DONE
    # A success that cannot be read, or a failure on the way back, says nothing about what was done.
    if isinstance(error, ServerError) or (isinstance(error, ResponseError) and 200 <= error.status_code < 300):
        return RetrySafety.UNKNOWN
    return RetrySafety.FINAL


_SECONDS = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?")


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Read a ``Retry-After``: seconds (a fraction too) or an HTTP date; from 0 to a year, None where it is neither."""
    if not value:
        return None
    value = value.strip()
    seconds = float(value) if _SECONDS.fullmatch(value) else _seconds_until(value, now)
    return None if seconds is None else min(max(seconds, 0.0), _MAX_PARSED_SECONDS)


def _seconds_until(date: str, now: datetime) -> float | None:
    try:
        moment = parsedate_to_datetime(date)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now.timestamp()
    except (ValueError, OverflowError):
        return None


def retry_delay(attempt: int, retry_after: float | None, random: Callable[[], float]) -> float:
    """
    Choose how long to wait before the next attempt.

    Args:
        attempt: Attempts made so far, from 1.
        retry_after: What the server asked for, in seconds, or None.
        random: Gives a number from 0 up to 1.

    Returns:
        Seconds: what the server asked for, else a full-jitter exponential backoff.
    """
    if retry_after is not None:
        return retry_after
    # Ten doublings are past the ceiling; 2 ** 10_000 would be no float.
    return random() * min(_MAX_DELAY_SECONDS, _INITIAL_DELAY_SECONDS * 2.0 ** min(attempt - 1, 10))
