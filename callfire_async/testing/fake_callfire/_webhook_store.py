"""
The fake account's webhooks, and the rules of API v2 for changing them.

CallFire does not document which keys are required, what an update does to keys that it leaves out, or how a wrong pair
of resource and event is refused: the rules here are the most plausible ones.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Literal

from callfire_async._codec.converters_v2 import structure_v2
from callfire_async.models import WEBHOOK_EVENTS, Webhook, WebhookEvent, WebhookResource
from callfire_async.testing.fake_callfire._api_error import ApiErrorResponse

__all__ = ["WebhookStore", "WebhookUpdate", "supported_events"]

#: What an update does to keys that it leaves out: see `FakeCallFire`.
WebhookUpdate = Literal["merge", "replace"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
# The year 9999, the last that a datetime can hold.
_MAX_MILLISECONDS = 253_402_300_799_999

_REQUIRED = ("resource", "events", "callback")
_READ_ONLY = ("id", "createdAt", "updatedAt")
_DEFAULTS = {"enabled": True, "singleUse": False, "nonStrictSsl": False}
_TYPE_NAMES = {str: "a string", bool: "a boolean", int: "an integer", list: "an array"}
_TYPES: dict[str, type] = {
    "name": str,
    "enabled": bool,
    "resource": str,
    "events": list,
    "callback": str,
    "secret": str,
    "fields": str,
    "singleUse": bool,
    "expiresAt": int,
    "nonStrictSsl": bool,
}

Content = dict[str, Any]


class WebhookStore:
    """The webhooks of one account, as the JSON objects of API v2."""

    def __init__(self, *, update: WebhookUpdate, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._contents: dict[int, Content] = {}
        self._webhooks: dict[int, Webhook] = {}
        self._update = update
        self._now = now
        # CallFire's real ids have 9 to 13 digits.
        self._ids = count(7_420_600_003, 1000)

    @property
    def webhooks(self) -> tuple[Webhook, ...]:
        """The webhooks, in the order of their creation."""
        return tuple(self._webhooks.values())

    @property
    def contents(self) -> list[Content]:
        """The webhooks as JSON objects, in the order of their creation."""
        return [*self._contents.values()]

    def create(self, content: object) -> int:
        """Create a webhook from a JSON object; return its id."""
        checked = _checked_webhook(_DEFAULTS | _checked_keys(content))
        webhook_id, now = next(self._ids), self._timestamp()
        self._keep({"id": webhook_id, **checked, "createdAt": now, "updatedAt": now})
        return webhook_id

    def update(self, webhook_id: int, content: object) -> None:
        """Change the keys that a JSON object has."""
        before = self.get(webhook_id)
        kept = before if self._update == "merge" else _DEFAULTS
        checked = _checked_webhook(_writable(kept) | _checked_keys(content))
        dates = {"createdAt": before["createdAt"], "updatedAt": self._timestamp()}
        self._keep({"id": webhook_id, **checked, **dates})

    def get(self, webhook_id: int) -> Content:
        """Return a webhook as a JSON object."""
        if webhook_id not in self._contents:
            raise ApiErrorResponse(404, "Not Found")
        return self._contents[webhook_id]

    def delete(self, webhook_id: int) -> None:
        """Delete a webhook."""
        del self._contents[self.get(webhook_id)["id"]], self._webhooks[webhook_id]

    def _keep(self, content: Content) -> None:
        self._contents[content["id"]] = content
        self._webhooks[content["id"]] = _webhook(content)

    def _timestamp(self) -> int:
        return (self._now() - _EPOCH) // _MILLISECOND


def supported_events(resource: str) -> tuple[WebhookEvent, ...]:
    """Return the events of a resource; raise KeyError for one that API v2 does not have."""
    return WEBHOOK_EVENTS[WebhookResource(resource)]


def _writable(content: Content) -> Content:
    return {name: value for name, value in content.items() if name not in _READ_ONLY}


def _checked_keys(content: object) -> Content:
    """Return the writable keys that are not null; keys that API v2 does not have are ignored."""
    if not isinstance(content, dict):
        raise ApiErrorResponse(400, "The body must be a JSON object")
    known = {name: content[name] for name in _TYPES if content.get(name) is not None}
    for name, value in known.items():
        # A boolean is an integer in Python.
        if type(value) is not _TYPES[name]:
            raise ApiErrorResponse(400, f"{name} must be {_TYPE_NAMES[_TYPES[name]]}")
    return known


def _checked_webhook(content: Content) -> Content:
    """Return a webhook's content, with resource and events as CallFire writes them."""
    for name in _REQUIRED:
        if not content.get(name):
            raise ApiErrorResponse(400, f"{name} is required")
    if not 0 <= content.get("expiresAt", 0) <= _MAX_MILLISECONDS:
        raise ApiErrorResponse(400, "expiresAt must be Unix time in milliseconds")
    resource = WebhookResource(content["resource"])
    if resource not in WEBHOOK_EVENTS:
        raise ApiErrorResponse(400, f"resource is unknown: {resource}")
    events = [_checked_event(resource, event) for event in content["events"]]
    found = content | {"resource": str(resource), "events": [*dict.fromkeys(events)]}
    return {name: found[name] for name in _TYPES if name in found}


def _checked_event(resource: WebhookResource, event: object) -> str:
    supported = supported_events(resource)
    if not isinstance(event, str) or not event or WebhookEvent(event) not in supported:
        raise ApiErrorResponse(400, f"events must be of {', '.join(supported)} for the resource {resource}")
    return str(WebhookEvent(event))


def _webhook(content: Mapping[str, Any]) -> Webhook:
    webhook, _ = structure_v2(Webhook, dict(content), "webhook")
    return webhook
