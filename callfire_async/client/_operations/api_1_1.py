"""
An operation becomes a request, and knows how its success is read.

What else an answer means is in `_answers`. No input or output, no clock and no randomness. It imports `models`, `_wire`
and `_convert`.
"""

from __future__ import annotations

import ipaddress
import math
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Generic, Literal, TypeVar
from urllib.parse import urlsplit

from attrs import field, fields, frozen

from callfire_async._codec.converters import ConversionError, form_fields, read_id, structure
from callfire_async._codec.documents import UnexpectedDocumentError, read, write_form
from callfire_async.models import Call, Page, ResourceReference, Subscription, Text

T = TypeVar("T")
A = TypeVar("A", Text, Call)
Problems = tuple[str, ...]
ResponseFormat = Literal["json", "xml"]

MAX_RESULTS = 1000
# A call with ten records has a hundred elements, each with two tags.
_MAX_TAGS = 200 * MAX_RESULTS

# Each costs a tenth of a millisecond. A page of 1000 subscriptions, five fields of each unreadable, is the API no more.
_MOST_PROBLEMS = 5 * MAX_RESULTS


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


def insecure_settings(form: Mapping[str, str]) -> Iterator[str]:
    """Word what in the form of a create or an update lets strangers read the postbacks, and the token with them."""
    if _is_plain_http(form.get("Endpoint", "").strip()):
        yield "an http:// endpoint: phone numbers, messages and the endpoint's token travel in the open; use https://"
    if form.get("NonStrictSsl") == "true":
        yield "non_strict_ssl=True: CallFire will post to whoever claims to be the endpoint, whatever its certificate"


def _is_plain_http(endpoint: str) -> bool:
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
    return _fields_equal(names, wanted, seen)


def matches_update(wanted: Mapping[str, str], found: Subscription) -> bool:
    """Tell whether all that the form of an update says is so in *found*."""
    seen = form_fields({field.name: getattr(found, field.name) for field in fields(Subscription)})
    return _fields_equal(wanted.keys() - {"RequestId"}, wanted, seen)


def _fields_equal(names: Iterable[str], one: Mapping[str, str], other: Mapping[str, str]) -> bool:
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
    query = form_fields({**_checked_page(max_results, first_result), **_normalize_filters(filters)})
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
    form = form_fields({"type": "TEXT", **values, "to": _string_tuple("to", values["to"])})
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


def _normalize_filters(filters: Mapping[str, object]) -> dict[str, object]:
    """Make values of the filters that are given: lists as tuples, times to the second, from within to without."""
    given = {name: value for name, value in filters.items() if value is not None}
    for name in given.keys() & {*_IDS}:
        checked_count(name, int(str(given[name])), least=1)
    given |= {name: _string_tuple(name, given[name]) for name in _LISTS if name in given}
    if isinstance(begin := given.get("interval_begin"), datetime):
        given["interval_begin"] = begin.replace(microsecond=0)
    if isinstance(end := given.get("interval_end"), datetime):
        given["interval_end"] = end.replace(microsecond=0) + timedelta(seconds=end.microsecond > 0)
    return given


def _string_tuple(name: str, value: object) -> tuple[str, ...]:
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
    content = parse_root("ResourceReference", body, content_type)
    return structure(ResourceReference, content, "ResourceReference")


def _resource_reader(kind: type[T]) -> Callable[[bytes, str | None], tuple[T, Problems]]:
    """Make the reader of one resource, called after its model."""

    def read_resource(body: bytes, content_type: str | None) -> tuple[T, Problems]:
        items = _items(parse_root("Resource", body, content_type).get(kind.__name__))
        if len(items) != 1:
            raise UnexpectedDocumentError(f"{len(items)} resources, not one")
        return structure(kind, items[0], f"Resource.{kind.__name__}")

    return read_resource


def _page_reader(kind: type[T], first_result: int) -> Callable[[bytes, str | None], tuple[Page[T], Problems]]:
    """Make the reader of a list of resources, each called after its model."""

    def read_page(body: bytes, content_type: str | None) -> tuple[Page[T], Problems]:
        content = parse_root("ResourceList", body, content_type)
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
            raise ConversionError(tuple(problems))
    return tuple(items), tuple(problems)


def _read_total(value: object) -> tuple[int | None, Problems]:
    try:
        return read_id(value, "ResourceList.@totalResults"), ()
    except ConversionError as error:
        return None, error.problems


def _items(value: object) -> list[object]:
    """Make one list of a list of none, of one bare or in an array, and of many."""
    return value if isinstance(value, list) else [value] if value else []


def parse_root(root: str, body: bytes, content_type: str | None) -> Mapping[str, object]:
    """Read a document of this name."""
    found, content = read(body, content_type, max_elements=_MAX_TAGS)
    if found != root:
        raise UnexpectedDocumentError(f"not a {root}")
    return content
