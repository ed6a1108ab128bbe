"""The operations of API 1.1."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, TypeVar

from attrs import asdict, fields

from callfire_async._codec.converters import form_fields, read_id, structure
from callfire_async._codec.document_limits import InvalidDocumentError, UnexpectedDocumentError
from callfire_async._codec.documents import read
from callfire_async._codec.model_reader import ConversionError
from callfire_async._codec.scalars import normalize
from callfire_async.client._operations.operation import ErrorDetails, Operation, Problems
from callfire_async.client._operations.validation import (
    checked_aware_time,
    checked_begin,
    checked_choice,
    checked_choices,
    checked_count,
    checked_end,
    checked_strings,
    comparable_number,
)
from callfire_async.models import (
    ActionState,
    Call,
    IvrBroadcastConfig,
    NotificationFormat,
    OpenEnum,
    Page,
    ResourceReference,
    Result,
    Subscription,
    SubscriptionFilter,
    Text,
    TriggerEvent,
    VoiceBroadcastConfig,
    checked_boolean,
    checked_text,
    wrong_type,
)

T = TypeVar("T")
A = TypeVar("A", Text, Call)

MAX_RESULTS = 1000
# A call with ten records has a hundred elements, each with two tags.
_MAX_TAGS = 200 * MAX_RESULTS
# Each problem takes 0.1 ms to describe. A full page with five unreadable fields per item is no longer API 1.1.
_MAX_PROBLEMS = 5 * MAX_RESULTS

_CREATED = frozenset([200, 201])
_CHANGED = frozenset([200, 204])


# --- subscriptions ----------------------------------------------------------------------------------------


def create_subscription(values: Mapping[str, object]) -> Operation[ResourceReference]:
    """Create a subscription from its field values by name; not idempotent."""
    form = form_fields(_checked(values, _SUBSCRIPTION_CHECKS, "endpoint", "trigger_event"))
    return Operation(
        "POST", "/subscription", _read_reference, form=form, success_statuses=_CREATED, is_idempotent=False
    )


def query_subscriptions(*, max_results: int, first_result: int) -> Operation[Page[Subscription]]:
    """Return one page of subscriptions."""
    query = form_fields(_checked_page(max_results, first_result))
    return Operation("GET", "/subscription", partial(_read_page, Subscription, first_result), query=query)


def get_subscription(subscription_id: int) -> Operation[Subscription]:
    """Return one subscription."""
    return Operation("GET", _subscription_path(subscription_id), partial(_read_resource, Subscription))


def update_subscription(subscription_id: int, values: Mapping[str, object]) -> Operation[Subscription | None]:
    """
    Change a subscription, given the new field values by name; None is not sent.

    CallFire's response has no content, so the value is None unless the caller looked the subscription up.
    """
    path, form = _subscription_path(subscription_id), form_fields(_checked(values, _SUBSCRIPTION_CHECKS))
    if values.get("filter") == SubscriptionFilter():
        raise ValueError("filter must have at least one field: an update cannot remove a filter")
    return Operation("PUT", path, _read_nothing, form=form, success_statuses=_CHANGED)


def delete_subscription(subscription_id: int) -> Operation[None]:
    """Delete a subscription; a 404 is a success if an earlier attempt may have deleted it."""
    path = _subscription_path(subscription_id)
    return Operation("DELETE", path, _read_nothing, success_statuses=_CHANGED, repeat_success_statuses=frozenset([404]))


def _checked_page(max_results: int, first_result: int) -> dict[str, object]:
    return {
        "max_results": checked_count("max_results", max_results, minimum=1, maximum=MAX_RESULTS),
        "first_result": checked_count("first_result", first_result, minimum=0),
    }


def checked_page_size(page_size: int) -> int:
    """Return the number of items to fetch at a time, or raise TypeError or ValueError."""
    return checked_count("page_size", page_size, minimum=1, maximum=MAX_RESULTS)


def _subscription_path(subscription_id: int) -> str:
    return f"/subscription/{checked_count('subscription_id', subscription_id, minimum=1)}"


Check = Callable[[str, object], object]


def _checked(values: Mapping[str, object], checks: Mapping[str, Check], *required: str) -> dict[str, object]:
    """Return the checked values without those that are None and not required, or raise TypeError or ValueError."""
    return {name: checks[name](name, value) for name, value in values.items() if value is not None or name in required}


def _checked_id(name: str, value: Any) -> int:
    return checked_count(name, value, minimum=1)


def _checked_endpoint(name: str, value: object) -> str:
    if isinstance(value, str) and not value.strip():
        raise ValueError(f"{name} must be a URL or an e-mail address, not empty")
    return checked_text(name, value)


def _checked_filter(name: str, value: object) -> SubscriptionFilter:
    if not isinstance(value, SubscriptionFilter):
        raise wrong_type(name, "a SubscriptionFilter", value)
    for field in ("broadcast_id", "batch_id"):
        if (id := getattr(value, field)) is not None:
            _checked_id(f"{name}.{field}", id)
    return value


def _choice(kind: type[OpenEnum]) -> Check:
    return partial(checked_choice, kind=kind)


def _choices(kind: type[OpenEnum]) -> Check:
    return partial(checked_choices, kind=kind)


_SUBSCRIPTION_CHECKS: Mapping[str, Check] = {
    "endpoint": _checked_endpoint,
    "trigger_event": _choice(TriggerEvent),
    "notification_format": _choice(NotificationFormat),
    "enabled": checked_boolean,
    "non_strict_ssl": checked_boolean,
    "filter": _checked_filter,
    "expires_at": checked_aware_time,
    "request_id": checked_text,
}


def same_subscription(form: Mapping[str, str], subscription: Subscription) -> bool:
    """Return whether *subscription* has the endpoint, trigger and filter of a create form."""
    existing = _form_of(subscription, "endpoint", "trigger_event", "filter")
    names = (form.keys() | existing.keys()) - {
        "NotificationFormat",
        "Enabled",
        "NonStrictSsl",
        "ExpiresAt",
        "RequestId",
    }
    return _fields_equal(names, form, existing)


def matches_update(form: Mapping[str, str], subscription: Subscription) -> bool:
    """Return whether *subscription* has all values of an update form."""
    existing = _form_of(subscription, *(attribute.name for attribute in fields(Subscription)))
    # CallFire is not known to return the time at which a subscription ends.
    unknown = {"RequestId"} if subscription.expires_at else {"RequestId", "ExpiresAt"}
    return _fields_equal(form.keys() - unknown, form, existing)


def _form_of(subscription: Subscription, *names: str) -> dict[str, str]:
    return form_fields({name: getattr(subscription, name) for name in names})


def _fields_equal(names: Iterable[str], first: Mapping[str, str], second: Mapping[str, str]) -> bool:
    return all(_comparable(name, first) == _comparable(name, second) for name in names)


def _comparable(name: str, form: Mapping[str, str]) -> str:
    text = form.get(name, "").strip()
    return comparable_number(text) if name in ("FromNumber", "ToNumber") else text


# --- texts and calls --------------------------------------------------------------------------------------


def query_actions(
    kind: type[A], filters: Mapping[str, object], *, max_results: int, first_result: int
) -> Operation[Page[A]]:
    """Return one page of texts or calls, given the filters by name; None is not sent."""
    query = form_fields({**_checked_page(max_results, first_result), **checked_filters(filters)})
    return Operation("GET", _actions_path(kind), partial(_read_page, kind, first_result), query=query)


def get_action(kind: type[A], id: int) -> Operation[A]:
    """Return one text or call."""
    return Operation(
        "GET", f"{_actions_path(kind)}/{checked_count('id', id, minimum=1)}", partial(_read_resource, kind)
    )


def send_text(values: Mapping[str, object]) -> Operation[ResourceReference]:
    """
    Send a text, given its values by name: ``to``, ``message`` and optional ones that may be None.

    CallFire does not document what a repeated ``RequestId`` does to this operation, so it is sent at most once.
    """
    checked = _checked(values, _TEXT_CHECKS, "to", "message")
    form = {"type": "TEXT", "from": checked.pop("from_number", None), **checked}
    return _send(Text, form, "the text may have been sent")


def send_call(values: Mapping[str, object]) -> Operation[ResourceReference]:
    """
    Place a call, given its values by name: ``to``, ``config`` and optional ones that may be None.

    The form has the fields of the configuration and of its parts at the top level, as CallFire's Java client sends
    them. As `send_text`, it is sent at most once.
    """
    checked = _checked(values, _CALL_CHECKS, "to", "config")
    config: Any = checked.pop("config")
    return _send(
        Call, {**_CALL_TYPES[type(config)], **checked, **_flat_fields(config)}, "the call may have been placed"
    )


def _send(kind: type[Text | Call], form: Mapping[str, object], ambiguity: str) -> Operation[ResourceReference]:
    return Operation(
        "POST",
        _actions_path(kind),
        _read_reference,
        form=form_fields(form),
        success_statuses=_CREATED,
        is_idempotent=False,
        is_at_most_once=True,
        ambiguity_note=f"may have been executed: {ambiguity}",
    )


def _flat_fields(config: VoiceBroadcastConfig | IvrBroadcastConfig) -> dict[str, object]:
    """Return the fields of a configuration and of its parts by name; those that CallFire sets are left out."""
    values = asdict(config, recurse=False)
    parts = [values.pop("retry_config"), values.pop("local_time_zone_restriction")]
    flat = {"from": values.pop("from_number"), **values}
    for part in parts:
        flat |= asdict(part, recurse=False) if part else {}
    named = {_SEND_NAMES.get(name, name): value for name, value in flat.items()}
    return {name: value for name, value in named.items() if value != () and name not in ("id", "created")}


# The parameters of a send whose names are not those of the fields.
_SEND_NAMES = {"begin_time": "local_restrict_begin", "end_time": "local_restrict_end"}


class _BigMessageStrategy(OpenEnum):
    SEND_MULTIPLE = "SEND_MULTIPLE"
    DO_NOT_SEND = "DO_NOT_SEND"
    TRIM = "TRIM"


def _checked_recipients(name: str, value: object) -> tuple[str, ...]:
    # The values of a mapping would be dropped.
    return checked_strings(name, [value] if isinstance(value, Mapping) else value)


_TEXT_CHECKS: Mapping[str, Check] = {
    "to": _checked_recipients,
    "message": checked_text,
    "from_number": checked_text,
    "broadcast_name": checked_text,
    "big_message_strategy": partial(checked_choice, kind=_BigMessageStrategy, expected="a string"),
}


def _checked_call_config(name: str, value: object) -> VoiceBroadcastConfig | IvrBroadcastConfig:
    if not isinstance(value, VoiceBroadcastConfig | IvrBroadcastConfig):
        raise wrong_type(name, "a VoiceBroadcastConfig or an IvrBroadcastConfig", value)
    return value


_CALL_TYPES = {VoiceBroadcastConfig: {"type": "VOICE"}, IvrBroadcastConfig: {"type": "IVR"}}
_CALL_CHECKS: Mapping[str, Check] = {
    "to": _checked_recipients,
    "config": _checked_call_config,
    "broadcast_name": checked_text,
    "max_active": _checked_id,
    "scrub_broadcast_duplicates": checked_boolean,
}


def _actions_path(kind: type[Text | Call]) -> str:
    return f"/{kind.__name__.lower()}"


_FILTER_CHECKS: Mapping[str, Check] = {
    "broadcast_id": _checked_id,
    "batch_id": _checked_id,
    "state": _choices(ActionState),
    "result": _choices(Result),
    "inbound": checked_boolean,
    "interval_begin": checked_begin,
    "interval_end": checked_end,
    "from_number": checked_text,
    "to_number": checked_strings,
    "label_name": checked_text,
}


def checked_filters(filters: Mapping[str, object]) -> dict[str, object]:
    """
    Return the filters of texts or calls that are not None, or raise TypeError or ValueError.

    Lists become tuples, and the interval is rounded outwards to whole seconds.
    """
    for name in filters.keys() - _FILTER_CHECKS.keys():
        raise TypeError(f"{name} is not a filter of texts or calls")
    return _checked(filters, _FILTER_CHECKS)


# --- responses --------------------------------------------------------------------------------------------


def _read_nothing(_: bytes, __: str | None) -> tuple[None, Problems]:
    return None, ()


def _read_reference(body: bytes, content_type: str | None) -> tuple[ResourceReference, Problems]:
    content = parse_root("ResourceReference", body, content_type)
    return structure(ResourceReference, content, "ResourceReference")


def _read_resource(kind: type[T], body: bytes, content_type: str | None) -> tuple[T, Problems]:
    items = _items(parse_root("Resource", body, content_type).get(kind.__name__))
    if len(items) != 1:
        raise UnexpectedDocumentError(f"expected one resource, got {len(items)}")
    return structure(kind, items[0], f"Resource.{kind.__name__}")


def _read_page(kind: type[T], first_result: int, body: bytes, content_type: str | None) -> tuple[Page[T], Problems]:
    content = parse_root("ResourceList", body, content_type)
    total, total_problems = _read_total(content.get("@totalResults"))
    items, item_problems = _read_items(kind, _items(content.get(kind.__name__)))
    return Page(items, total, first_result), total_problems + item_problems


def _read_items(kind: type[T], contents: list[object]) -> tuple[tuple[T, ...], Problems]:
    items: list[T] = []
    problems: list[str] = []
    for index, content in enumerate(contents):
        item, item_problems = structure(kind, content, f"ResourceList.{kind.__name__}[{index}]")
        items.append(item)
        problems += item_problems
        if len(problems) > _MAX_PROBLEMS:
            raise ConversionError(tuple(problems))
    return tuple(items), tuple(problems)


def _read_total(value: object) -> tuple[int | None, Problems]:
    """Return the number of items in the whole list, or None if it is missing, or negative for unknown as in API v2."""
    try:
        total = read_id(value, "ResourceList.@totalResults")
    except ConversionError as error:
        return None, error.problems
    return (None if total is None or total < 0 else total), ()


def _items(value: object) -> list[object]:
    """Return a list of items, which CallFire sends as a list, as a bare item, or not at all."""
    return value if isinstance(value, list) else [value] if value else []


def parse_root(root: str, body: bytes, content_type: str | None) -> Mapping[str, object]:
    """Parse a document and return the content of its root, which must be called *root*."""
    found, content, _ = read(body, content_type, max_elements=_MAX_TAGS)
    if found != root:
        raise UnexpectedDocumentError(f"not a {root} document")
    return content


def read_error_1_1(body: bytes, content_type: str | None) -> ErrorDetails:
    """Return the message of a ``ResourceException``; None for any other body, such as a proxy's HTML page."""
    try:
        message = parse_root("ResourceException", body, content_type).get("Message")
    except InvalidDocumentError:
        return ErrorDetails()
    return ErrorDetails(normalize(message) if isinstance(message, str) else None)
