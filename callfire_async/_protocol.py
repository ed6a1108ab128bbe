"""
An operation becomes a request; an answer becomes a value or an error.

No input or output, no clock and no randomness: who calls hands in what time it is. It imports `errors`, `models`,
`_wire` and `_convert`.
"""

from __future__ import annotations

import ipaddress
import math
import operator
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from textwrap import shorten
from typing import Generic, Literal, NoReturn, TypeVar
from urllib.parse import urlsplit

from attrs import field, fields, frozen

from callfire_async._convert import Unreadable, form_fields, read_id, structure
from callfire_async._wire import NotADocument, NotOneObject, normalised, read, write_form
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
from callfire_async.models import (
    Call,
    Page,
    ResourceReference,
    Subscription,
    Text,
    masked_endpoint,
    masked_number,
)

T = TypeVar("T")
A = TypeVar("A", Text, Call)
Problems = tuple[str, ...]
ResponseFormat = Literal["json", "xml"]

# The longest list has 1000 subscriptions, half a megabyte at most; the rest is for what nobody foresaw.
MAX_ANSWER_BYTES = 16 * 1024 * 1024
MAX_RESULTS = 1000
# A call with ten records has a hundred elements, each with two tags.
_MAX_TAGS = 200 * MAX_RESULTS

# Each costs a tenth of a millisecond. A page of 1000 subscriptions, five fields of each unreadable, is the API no more.
_MOST_PROBLEMS = 5 * MAX_RESULTS

# A server that asks for a longer pause is obeyed by whoever called: nobody wants a call to sleep for minutes.
MAX_RETRY_AFTER_SECONDS = 60.0
_INITIAL_DELAY_SECONDS = 0.5
# A doubling more has little to give to whoever waits, and nothing to a server that takes so long to recover.
_MAX_DELAY_SECONDS = 16.0
# Longer than anybody means, and short enough for a timedelta.
_MAX_PARSED_SECONDS = timedelta(days=365).total_seconds()


@frozen
class Operation(Generic[T]):
    """
    One thing to ask of CallFire.

    Attributes:
        method: The HTTP method.
        path: The path below the base URL, in the words of the reference: ``/subscription/42``.
        read: Reads the body of a success, given its content type: a value, and what in it could not be read.
        query: The parameters in the URL.
        form: The fields of the body; None for a request without one.
        success: The statuses that mean that it was done.
        repeatable: Whether doing it twice is the same as doing it once.
        success_if_repeated: Further statuses that mean so, if an earlier attempt may have done it.
        at_most_once: Whether it is never sent again once a byte may have left, not even where it was turned away.
        doubt: What an error is to say where it may have been done all the same.
    """

    method: str
    path: str
    read: Callable[[bytes, str | None], tuple[T, Problems]]
    query: Mapping[str, str] = field(factory=dict, repr=False)
    form: Mapping[str, str] | None = field(default=None, repr=False)
    success: frozenset[int] = frozenset([200])
    repeatable: bool = True
    success_if_repeated: frozenset[int] = frozenset()
    at_most_once: bool = False
    doubt: str = "may have been carried out all the same"

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def request_id(self) -> str | None:
        """The ``RequestId`` that is sent, or None."""
        return (self.form or {}).get("RequestId")

    @property
    def route(self) -> str:
        """The path with ``{id}`` for each id: what all requests of this kind have in common."""
        return re.sub(r"/[0-9]+", "/{id}", self.path)

    def address(self, response_format: ResponseFormat) -> str:
        """Return the path; its ending asks for the format of the answer."""
        return f"{self.path}.json" if response_format == "json" else self.path

    def target(self, response_format: ResponseFormat) -> str:
        """Return path and query."""
        query = f"?{write_form(self.query).decode()}" if self.query else ""
        return f"{self.address(response_format)}{query}"

    def content(self) -> bytes | None:
        """Return the body to send, or None."""
        return None if self.form is None else write_form(self.form)


@frozen
class Answer:
    """An HTTP response, as far as it matters: a body of up to one byte more than `MAX_ANSWER_BYTES` among it."""

    status: int
    body: bytes = field(default=b"", repr=False)
    content_type: str | None = None
    content_encoding: str = ""
    retry_after: str | None = None


class Outcome(Enum):
    """What a failed attempt means for another one."""

    NOT_DONE = auto()  # it never left, or was turned away: repeating is always safe
    UNKNOWN = auto()  # it may have been carried out
    FINAL = auto()  # the same will be answered again


class NoAnswerError(Exception):
    """An exchange failed: why, while what, and what that means for another attempt."""

    def __init__(self, reason: str, *, outcome: Outcome, timed_out: bool) -> None:
        super().__init__(reason)
        self.outcome = outcome
        self.timed_out = timed_out


# --- settings ---------------------------------------------------------------------------------------------


_HOST = re.compile(r"[\w.:-]+", re.ASCII)


def checked_base_url(base_url: str) -> str:
    """Return *base_url* without a slash at its end; ValueError (that does not quote it) where it is not fit."""
    try:
        parts = urlsplit(base_url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError("base_url is not a URL") from None
    if (
        parts.scheme not in ("https", "http")
        or not _HOST.fullmatch(host)
        or not base_url.isprintable()
        or " " in base_url
    ):
        raise ValueError("base_url must be a URL with https and a host, such as https://www.callfire.com/api/1.1/rest")
    if "@" in parts.netloc:
        raise ValueError("base_url must not hold credentials: pass them as login and password")
    if "?" in base_url or "#" in base_url:
        raise ValueError("base_url must not have a query or a fragment")
    if parts.scheme == "http" and not _is_loopback(host):
        raise ValueError("base_url must be https: the password would travel in the open (http is for loopback only)")
    return base_url.rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def checked_timeout(seconds: float) -> float:
    """Return *seconds*; ValueError unless it is a time that passes."""
    if not 0 < seconds < math.inf:
        raise ValueError("timeout must be a number of seconds above 0")
    return seconds


def checked_count(name: str, count: int, *, least: int) -> int:
    """Return *count*; ValueError unless it is a whole number from *least*."""
    if operator.index(count) < least:
        raise ValueError(f"{name} must be a whole number from {least}")
    return count


# --- the operations ---------------------------------------------------------------------------------------


def create_subscription(values: Mapping[str, object]) -> Operation[ResourceReference]:
    """Word the creation of a subscription from the values of its fields by name; it is not safe to repeat."""
    required = {name: values[name] or "" for name in ("endpoint", "trigger_event")}
    form = _subscription_form({**values, **required})
    return Operation(
        "POST", "/subscription", _read_reference, form=form, success=frozenset([200, 201]), repeatable=False
    )


def query_subscriptions(*, max_results: int, first_result: int) -> Operation[Page[Subscription]]:
    """Word a query for one page of subscriptions."""
    query = form_fields(_checked_page(max_results, first_result))
    return Operation("GET", "/subscription", _page_reader(Subscription, first_result), query=query)


def _checked_page(max_results: int, first_result: int) -> dict[str, object]:
    if checked_count("max_results", max_results, least=1) > MAX_RESULTS:
        raise ValueError(f"max_results must not be above {MAX_RESULTS}")
    return {"max_results": max_results, "first_result": checked_count("first_result", first_result, least=0)}


def get_subscription(subscription_id: int) -> Operation[Subscription]:
    """Word a look at one subscription."""
    return Operation("GET", _subscription_path(subscription_id), _resource_reader(Subscription))


def update_subscription(subscription_id: int, values: Mapping[str, object]) -> Operation[Subscription | None]:
    """
    Word a change of a subscription, given the values of its fields by name; None is not sent.

    The answer says nothing of the subscription; it is the value only where somebody had to look for it.
    """
    path, form = _subscription_path(subscription_id), _subscription_form(values)
    return Operation("PUT", path, _read_nothing, form=form, success=frozenset([200, 204]))


def delete_subscription(subscription_id: int) -> Operation[None]:
    """Word the deletion of a subscription: once it may have been done, that it is gone is what was wanted."""
    return Operation(
        "DELETE",
        _subscription_path(subscription_id),
        _read_nothing,
        success=frozenset([200, 204]),
        success_if_repeated=frozenset([404]),
    )


def _subscription_path(subscription_id: int) -> str:
    return f"/subscription/{checked_count('the id of a subscription', subscription_id, least=1)}"


def _subscription_form(values: Mapping[str, object]) -> dict[str, str]:
    form = form_fields(values)
    if not form.get("Endpoint", "some").strip():
        raise ValueError("endpoint must be a URL or an e-mail address, not empty")
    for name in ("TriggerEvent", "NotificationFormat"):
        if not form.get(name, "some"):
            raise ValueError(f"{name} must not be empty")
    for name in ("BroadcastId", "BatchId"):
        if name in form:
            checked_count(f"the filter's {name}", int(form[name]), least=1)
    return form


def risks(form: Mapping[str, str]) -> Iterator[str]:
    """Word what in the form of a create or an update lets strangers read the postbacks, and the token with them."""
    if _is_in_the_open(form.get("Endpoint", "").strip()):
        yield "an http:// endpoint: phone numbers, messages and the endpoint's token travel in the open; use https://"
    if form.get("NonStrictSsl") == "true":
        yield "non_strict_ssl=True: CallFire will post to whoever claims to be the endpoint, whatever its certificate"


def _is_in_the_open(endpoint: str) -> bool:
    if not endpoint.lower().startswith("http://"):
        return False
    try:
        return not _is_loopback(urlsplit(endpoint).hostname or "")
    except ValueError:
        return True


def same_subscription(wanted: Mapping[str, str], found: Subscription) -> bool:
    """Tell whether *found* has the endpoint, trigger and filter of the form of a create."""
    seen = form_fields({"endpoint": found.endpoint, "trigger_event": found.trigger_event, "filter": found.filter})
    names = (wanted.keys() | seen.keys()) - {"NotificationFormat", "Enabled", "NonStrictSsl", "RequestId"}
    return _alike(names, wanted, seen)


def as_updated(wanted: Mapping[str, str], found: Subscription) -> bool:
    """Tell whether all that the form of an update says is so in *found*."""
    seen = form_fields({field.name: getattr(found, field.name) for field in fields(Subscription)})
    return _alike(wanted.keys() - {"RequestId"}, wanted, seen)


def _alike(names: Iterable[str], one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    return all(_comparable(name, one) == _comparable(name, other) for name in names)


def _comparable(name: str, form: Mapping[str, str]) -> str:
    """Word a field so that what means the same is the same: CallFire may word a number in its own way."""
    text = form.get(name, "").strip()
    if name in ("FromNumber", "ToNumber"):
        return comparable_number(text)
    return text


def comparable_number(number: str) -> str:
    """Word a number, or ``SHORTCODE:KEYWORD``, so that what means the same is the same."""
    return re.sub(r"[^\w:]", "", number).upper()


# --- texts and calls --------------------------------------------------------------------------------------


def query_actions(
    kind: type[A], filters: Mapping[str, object], *, max_results: int, first_result: int
) -> Operation[Page[A]]:
    """Word a query for one page of texts or calls, given the filters by name; None is not sent."""
    query = form_fields({**_checked_page(max_results, first_result), **_worded(filters)})
    return Operation("GET", _actions_path(kind), _page_reader(kind, first_result), query=query)


def get_action(kind: type[A], id: int) -> Operation[A]:
    """Word a look at one text or call."""
    checked_count(f"the id of a {kind.__name__.lower()}", id, least=1)
    return Operation("GET", f"{_actions_path(kind)}/{id}", _resource_reader(kind))


def send_text(values: Mapping[str, object]) -> Operation[ResourceReference]:
    """
    Word the sending of a text from its values by name: ``to``, ``message`` and what else is not None.

    No ``RequestId`` is documented for it, and nobody wants a text twice.
    """
    if not values["message"]:
        raise ValueError("message must not be empty")
    form = form_fields({"type": "TEXT", **values, "to": _list_of_words("to", values["to"])})
    return Operation(
        "POST",
        "/text",
        _read_reference,
        form=form,
        success=frozenset([200, 201]),
        repeatable=False,
        at_most_once=True,
        doubt="may have been carried out: the text may have been sent",
    )


def _actions_path(kind: type[Text | Call]) -> str:
    return f"/{kind.__name__.lower()}"


_LISTS = ("state", "result", "to_number")
_IDS = ("broadcast_id", "batch_id")


def _worded(filters: Mapping[str, object]) -> dict[str, object]:
    """Make values of the filters that are given: lists as tuples, times to the second, from within to without."""
    given = {name: value for name, value in filters.items() if value is not None}
    for name in given.keys() & {*_IDS}:
        checked_count(name, int(str(given[name])), least=1)
    given |= {name: _list_of_words(name, given[name]) for name in _LISTS if name in given}
    if isinstance(begin := given.get("interval_begin"), datetime):
        given["interval_begin"] = begin.replace(microsecond=0)
    if isinstance(end := given.get("interval_end"), datetime):
        given["interval_end"] = end.replace(microsecond=0) + timedelta(seconds=end.microsecond > 0)
    return given


def _list_of_words(name: str, value: object) -> tuple[str, ...]:
    """Make a tuple of one word or many; none of them may hold what separates them on the wire."""
    words = tuple(map(str, value)) if isinstance(value, Iterable) and not isinstance(value, str) else (str(value),)
    if not words or not all(re.fullmatch(r"[^\s,]+", word) for word in words):
        raise ValueError(
            f"{name} must be at least one word, none of which is empty or has white space or a comma in it"
        )
    return words


# --- reading a success ------------------------------------------------------------------------------------


def _read_nothing(_: bytes, __: str | None) -> tuple[None, Problems]:
    return None, ()


def _read_reference(body: bytes, content_type: str | None) -> tuple[ResourceReference, Problems]:
    content = _content_of("ResourceReference", body, content_type)
    return structure(ResourceReference, content, "ResourceReference")


def _resource_reader(kind: type[T]) -> Callable[[bytes, str | None], tuple[T, Problems]]:
    """Make the reader of one resource, called after its model."""

    def read_resource(body: bytes, content_type: str | None) -> tuple[T, Problems]:
        items = _items(_content_of("Resource", body, content_type).get(kind.__name__))
        if len(items) != 1:
            raise NotOneObject(f"{len(items)} resources, not one")
        return structure(kind, items[0], f"Resource.{kind.__name__}")

    return read_resource


def _page_reader(kind: type[T], first_result: int) -> Callable[[bytes, str | None], tuple[Page[T], Problems]]:
    """Make the reader of a list of resources, each called after its model."""

    def read_page(body: bytes, content_type: str | None) -> tuple[Page[T], Problems]:
        content = _content_of("ResourceList", body, content_type)
        total, problems = _read_total(content.get("@totalResults"))
        at = f"ResourceList.{kind.__name__}"
        items, more = _read_items(kind, _items(content.get(kind.__name__)), at)
        return Page(items, total, first_result), problems + more

    return read_page


def _read_items(kind: type[T], contents: list[object], at: str) -> tuple[tuple[T, ...], Problems]:
    items: list[T] = []
    problems: list[str] = []
    for index, content in enumerate(contents):
        item, more = structure(kind, content, f"{at}[{index}]")
        items.append(item)
        problems += more
        if len(problems) > _MOST_PROBLEMS:
            raise Unreadable(tuple(problems))
    return tuple(items), tuple(problems)


def _read_total(value: object) -> tuple[int | None, Problems]:
    try:
        return read_id(value, "ResourceList.@totalResults"), ()
    except Unreadable as error:
        return None, error.problems


def _items(value: object) -> list[object]:
    """Make one list of a list of none, of one bare or in an array, and of many."""
    return value if isinstance(value, list) else [value] if value else []


def _content_of(root: str, body: bytes, content_type: str | None) -> Mapping[str, object]:
    found, content = read(body, content_type, max_elements=_MAX_TAGS)
    if found != root:
        raise NotOneObject(f"not a {root}")
    return content


# --- answers ----------------------------------------------------------------------------------------------


def interpret(
    operation: Operation[T], answer: Answer, *, attempts: int, in_doubt: bool, now: datetime
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
        return operation.read(_plain_body(answer), answer.content_type)
    except (NotADocument, Unreadable) as error:
        raise _response_error(operation, answer, attempts, str(error)) from error


def _raise_error(operation: Operation[T], answer: Answer, attempts: int, now: datetime) -> NoReturn:
    if 400 <= answer.status < 600:
        raise _api_error(operation, answer, attempts, now)
    if 300 <= answer.status < 400:
        raise _response_error(operation, answer, attempts, "a redirect, which is never followed")
    reason = "a status that says neither that it was done nor that it failed"
    raise _response_error(operation, answer, attempts, reason)


def _answered(operation: Operation[T], answer: Answer, attempts: int) -> str:
    which = f", at attempt {attempts}" if attempts > 1 else ""
    return f"{operation} answered {answer.status}{which}"


def _response_error(operation: Operation[T], answer: Answer, attempts: int, reason: str) -> ResponseError:
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


def _api_error(operation: Operation[T], answer: Answer, attempts: int, now: datetime) -> APIError:
    message = _callfire_message(answer)
    words = (masked(message) if message else None, _WAYS_OUT.get(answer.status))
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


def _callfire_message(answer: Answer) -> str | None:
    """Find CallFire's own words in a ``ResourceException``; a page of HTML from a proxy has none."""
    try:
        message = _content_of("ResourceException", _plain_body(answer), answer.content_type).get("Message")
    except NotADocument:
        return None
    return normalised(message) if isinstance(message, str) else None


def _plain_body(answer: Answer) -> bytes:
    """Undo a compression that nobody asked for, no further than `MAX_ANSWER_BYTES`."""
    encoding = answer.content_encoding.strip().lower()
    if encoding in ("gzip", "x-gzip", "deflate"):
        body = _inflated(answer.body)
    elif encoding in ("", "identity"):
        body = answer.body
    else:
        raise NotADocument("in a content encoding that was not asked for")
    if len(body) > MAX_ANSWER_BYTES:
        raise NotADocument(f"longer than {MAX_ANSWER_BYTES} bytes")
    return body


def _inflated(body: bytes) -> bytes:
    # 32 added to the window's size: the header says whether it is gzip or zlib.
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        plain = inflater.decompress(body, MAX_ANSWER_BYTES + 1)
    except zlib.error:
        raise NotADocument("not what its content encoding says") from None
    if not inflater.eof and len(plain) <= MAX_ANSWER_BYTES:
        raise NotADocument("cut short")
    return plain


_SECRET = re.compile(
    r"(?P<endpoint>\S+(?:://|@|/)\S*)"
    # What looks like a token: long, and letters and digits in it.
    r"|(?P<token>\b(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[\w-]{16,})"
    r"|(?P<number>\+?\(?\d[\d ().-]{3,}\d)"
)


def masked(message: str) -> str:
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


def outcome_of(error: CallFireError) -> Outcome:
    """Tell what an answer that became *error* means for another attempt."""
    if isinstance(error, RateLimitError):
        return Outcome.NOT_DONE
    # A success that cannot be read, or a failure on the way back, says nothing about what was done.
    if isinstance(error, ServerError) or (isinstance(error, ResponseError) and 200 <= error.status_code < 300):
        return Outcome.UNKNOWN
    return Outcome.FINAL


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
