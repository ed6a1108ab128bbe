"""The operations of API v2."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

from callfire_async._arguments import MIN_SECRET_LENGTH, is_weak_secret
from callfire_async._codec.converters import form_value
from callfire_async._codec.converters_v2 import json_fields, structure_v2, wire_name_v2
from callfire_async._codec.document_limits import InvalidDocumentError, UnexpectedDocumentError
from callfire_async._codec.json_documents import read_object
from callfire_async._codec.model_reader import ConversionError
from callfire_async._codec.scalars import as_list, format_scalar, normalize, read_integer
from callfire_async.client._operations.operation import ErrorDetails, Operation, Problems
from callfire_async.client._operations.validation import (
    checked_aware_time,
    checked_count,
    checked_name,
    checked_names,
    insecure_settings,
)
from callfire_async.models import (
    WEBHOOK_EVENTS,
    Page,
    ResourceReference,
    Webhook,
    WebhookEvent,
    WebhookResource,
    WebhookResourceInfo,
    checked_boolean,
    checked_text,
)

T = TypeVar("T")

DEFAULT_LIMIT = 100
# CallFire publishes no maximum; this is its default of 2019.
MAX_LIMIT = 1000
# A webhook has two brackets and a dozen commas.
_MAX_VALUES = 20 * MAX_LIMIT
_MAX_PROBLEMS = 5 * MAX_LIMIT

_CREATED = frozenset([200, 201])
_CHANGED = frozenset(range(200, 300))
_PAGE_KEYS = frozenset(["items", "limit", "offset", "totalCount"])


# --- webhooks ---------------------------------------------------------------------------------------------


def create_webhook(values: Mapping[str, object]) -> Operation[ResourceReference]:
    """
    Create a webhook from its field values by name; not idempotent, and API v2 has no ``RequestId``.

    If ``events`` is None, all events of the resource are sent.
    """
    checked = _checked(values, _WEBHOOK_CHECKS, "callback", "resource")
    if "events" not in checked:
        checked["events"] = default_events(str(checked["resource"]))
    return Operation(
        "POST",
        "/webhooks",
        _read_reference,
        api_version="2",
        json=json_fields(checked),
        success_statuses=_CREATED,
        is_idempotent=False,
    )


def query_webhooks(filters: Mapping[str, object], *, limit: int, offset: int) -> Operation[Page[Webhook]]:
    """Return one page of webhooks, given the filters by name; None is not sent."""
    values = {
        "limit": _checked_limit("limit", limit),
        "offset": checked_count("offset", offset, minimum=0),
        **checked_webhook_filters(filters),
    }
    return Operation("GET", "/webhooks", partial(_read_page, offset), api_version="2", query=_query(values))


def get_webhook(webhook_id: int, *, fields: str | None = None) -> Operation[Webhook]:
    """Return one webhook; *fields* limits what CallFire returns."""
    query = _query(_checked({"fields": fields}, _FILTER_CHECKS))
    # With "fields" the ID may be missing.
    read = partial(_read_webhook, {"id": webhook_id} if query else {})
    return Operation("GET", _webhook_path(webhook_id), read, api_version="2", query=query)


def update_webhook(webhook_id: int, values: Mapping[str, object]) -> Operation[None]:
    """Change a webhook, given the new field values by name; None is not sent."""
    path, json = _webhook_path(webhook_id), json_fields(_checked(values, _WEBHOOK_CHECKS))
    return Operation("PUT", path, _read_nothing, api_version="2", json=json, success_statuses=_CHANGED)


def delete_webhook(webhook_id: int) -> Operation[None]:
    """Delete a webhook; a 404 is a success if an earlier attempt may have deleted it."""
    return Operation(
        "DELETE",
        _webhook_path(webhook_id),
        _read_nothing,
        api_version="2",
        success_statuses=_CHANGED,
        repeat_success_statuses=frozenset([404]),
    )


def list_resources() -> Operation[tuple[WebhookResourceInfo, ...]]:
    """Return the resources that webhooks can watch."""
    return Operation("GET", "/webhooks/resources", _read_resources, api_version="2")


def checked_resource(resource: object) -> WebhookResource:
    """Return a resource, or raise TypeError or ValueError."""
    return checked_name("resource", resource, WebhookResource)


def checked_events(events: object) -> tuple[WebhookEvent, ...] | None:
    """Return events, or None for None, or raise TypeError or ValueError."""
    return None if events is None else checked_names("events", events, WebhookEvent)


def default_events(resource: str) -> tuple[WebhookEvent, ...]:
    """Return all events of a resource, or raise ValueError if CallFire has not published them."""
    try:
        return WEBHOOK_EVENTS[WebhookResource(resource)]
    except KeyError:
        raise ValueError("events must be given, because the events of this resource are not known") from None


def same_webhook(json: Mapping[str, Any], webhook: Webhook) -> bool:
    """Return whether *webhook* has the callback, resource, events and, if it is given, name of a create request."""
    return (
        (webhook.callback or "").strip() == json["callback"].strip()
        and webhook.resource == WebhookResource(json["resource"])
        and set(webhook.events) == set(map(WebhookEvent, json["events"]))
        and ("name" not in json or (webhook.name or "").strip() == json["name"].strip())
    )


# --- parameters -------------------------------------------------------------------------------------------

Check = Callable[[str, object], object]

_SCHEME = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*):\S", re.IGNORECASE | re.ASCII)


def _checked(values: Mapping[str, object], checks: Mapping[str, Check], *required: str) -> dict[str, object]:
    """Return the checked values without those that are None and not required, or raise TypeError or ValueError."""
    return {name: checks[name](name, value) for name, value in values.items() if value is not None or name in required}


def _checked_limit(name: str, limit: int) -> int:
    return checked_count(name, limit, minimum=1, maximum=MAX_LIMIT)


def checked_webhook_page_size(page_size: int) -> int:
    """Return the number of webhooks to fetch at a time, or raise TypeError or ValueError."""
    return _checked_limit("page_size", page_size)


def _webhook_path(webhook_id: int) -> str:
    return f"/webhooks/{checked_count('webhook_id', webhook_id, minimum=1)}"


def _checked_callback(name: str, value: object) -> str:
    # Any scheme: an example of CallFire has the callback "sms:callfire".
    callback = checked_text(name, value)
    found = _SCHEME.match(callback.strip())
    if not found or (found["scheme"].lower() in ("http", "https") and not _has_host(callback.strip())):
        raise ValueError(f"{name} must be a URL, such as https://hooks.example.com/callfire/TOKEN")
    return callback


def _has_host(url: str) -> bool:
    try:
        return bool(urlsplit(url).hostname)
    except ValueError:
        return False


def _checked_secret(name: str, value: object) -> str:
    # A blank one causes a warning, as any other secret that can be guessed.
    return value if isinstance(value, str) and not value.strip() else checked_text(name, value)


_WEBHOOK_CHECKS: Mapping[str, Check] = {
    "callback": _checked_callback,
    "resource": partial(checked_name, kind=WebhookResource),
    "events": partial(checked_names, kind=WebhookEvent),
    "name": checked_text,
    "enabled": checked_boolean,
    "secret": _checked_secret,
    "single_use": checked_boolean,
    "expires_at": checked_aware_time,
    "non_strict_ssl": checked_boolean,
    "fields": checked_text,
}
_FILTER_CHECKS: Mapping[str, Check] = {
    "name": checked_text,
    "resource": partial(checked_name, kind=WebhookResource),
    "event": partial(checked_name, kind=WebhookEvent),
    "callback": checked_text,
    "enabled": checked_boolean,
    "fields": checked_text,
}


def checked_webhook_filters(filters: Mapping[str, object]) -> dict[str, object]:
    """Return the filters of webhooks that are not None, or raise TypeError or ValueError."""
    return _checked(filters, _FILTER_CHECKS)


def _query(values: Mapping[str, object]) -> dict[str, str]:
    return {wire_name_v2(object, name): form_value(value) for name, value in values.items()}


def weak_settings(json: Mapping[str, Any]) -> Iterator[str]:
    """Yield a warning for each setting of a create or update request that lets others read or forge postbacks."""
    yield from insecure_settings("callback", json.get("callback", ""), non_strict_ssl=json.get("nonStrictSsl", False))
    if warning := weak_secret_warning(json.get("secret")):
        yield warning


def weak_secret_warning(secret: str | None) -> str | None:
    """Return a warning for a secret that can be guessed, or None."""
    if secret is None or not is_weak_secret(secret):
        return None
    return f"secret has fewer than {MIN_SECRET_LENGTH} characters and can be guessed: use SigningSecrets.generate()"


# --- responses --------------------------------------------------------------------------------------------


def _read_nothing(_: bytes, __: str | None) -> tuple[None, Problems]:
    return None, ()


def _read_reference(body: bytes, content_type: str | None) -> tuple[ResourceReference, Problems]:
    return structure_v2(ResourceReference, {"id": _read(body, content_type).get("id")}, "ResourceId")


def _read_webhook(defaults: Mapping[str, object], body: bytes, content_type: str | None) -> tuple[Webhook, Problems]:
    return structure_v2(Webhook, {**defaults, **_read(body, content_type)}, "Webhook")


def _read_page(offset: int, body: bytes, content_type: str | None) -> tuple[Page[Webhook], Problems]:
    content = _read(body, content_type)
    # With the parameter "fields" any of them may be missing.
    if not content.keys() & _PAGE_KEYS:
        raise UnexpectedDocumentError("not a page of webhooks")
    total, total_problems = _read_total(content.get("totalCount"))
    items, item_problems = _read_items(Webhook, content)
    return Page(items, total, offset), total_problems + item_problems


def _read_resources(body: bytes, content_type: str | None) -> tuple[tuple[WebhookResourceInfo, ...], Problems]:
    content = _read(body, content_type)
    if "items" not in content:
        raise UnexpectedDocumentError("not a list of resources")
    return _read_items(WebhookResourceInfo, {"items": [_with_events(item) for item in as_list(content["items"])]})


def _with_events(item: object) -> object:
    """Return a resource's content with its events under one key; older descriptions have another one."""
    return {**item, "events": item.get("supportedEvents") or item.get("events")} if isinstance(item, dict) else item


def _read_items(kind: type[T], content: Mapping[str, object]) -> tuple[tuple[T, ...], Problems]:
    items: list[T] = []
    problems: list[str] = []
    for index, item_content in enumerate(as_list(content.get("items"))):
        item, item_problems = structure_v2(kind, item_content, f"items[{index}]")
        items.append(item)
        problems += item_problems
        if len(problems) > _MAX_PROBLEMS:
            raise ConversionError(tuple(problems))
    return tuple(items), tuple(problems)


def _read_total(value: object) -> tuple[int | None, Problems]:
    """Return the number of items in the whole list, or None if it is missing, or -1 for unknown."""
    try:
        total = read_integer(value)
    except ValueError as error:
        return None, (f"{error} @ totalCount",)
    return (None if total is None or total < 0 else total), ()


def _read(body: bytes, content_type: str | None) -> dict[str, Any]:
    return read_object(body, content_type, max_values=_MAX_VALUES)


def read_error_v2(body: bytes, content_type: str | None) -> ErrorDetails:
    """Return message and code of an ``ErrorResponse``; None for any other body, such as a proxy's HTML page."""
    try:
        content = _read(body, content_type)
    except InvalidDocumentError:
        return ErrorDetails()
    return ErrorDetails(*(_short_text(content.get(name)) for name in ("message", "internalCode")))


def _short_text(value: object) -> str | None:
    """Return a string, or a number as text: CallFire's description and its clients differ in the type of the code."""
    is_readable = isinstance(value, str | int | float) and not isinstance(value, bool)
    return normalize(format_scalar(value)) if is_readable else None
