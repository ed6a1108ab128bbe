"""The fields of an event that `listen` prints: type, name, key and source."""

from typing import Any

from callfire_async.errors import NotificationError
from callfire_async.notifications import Notification, UnknownNotification
from callfire_async.notifications.inbox.base import Delivery
from callfire_async.notifications.parsing import parse_each

__all__ = ["delivery_fields", "event_fields", "format_event"]


def delivery_fields(delivery: Delivery) -> dict[str, Any]:
    """Return the fields of the event; for several only their number, and for none the kind None."""
    try:
        first, *others = parse_each(delivery.body, delivery.content_type)
    except NotificationError:
        return {"kind": None}
    if others:
        return {"kind": f"{1 + len(others)} events"}
    return event_fields(first) if isinstance(first, Notification) else {"kind": None}


def event_fields(event: Notification) -> dict[str, Any]:
    """Return type, name, key and source of an event; nothing private."""
    return {
        "kind": "unknown" if isinstance(event, UnknownNotification) else type(event).__name__,
        "name": event.name,
        "key": list(event.key),
        "subscription_id": event.subscription_id,
        "webhook_id": event.webhook_id,
    }


def format_event(fields: dict[str, Any]) -> str:
    """Return the fields of an event as words of a line."""
    if "key" not in fields:
        return fields["kind"] or "no notification"
    name = "" if fields["name"] == fields["kind"] else f" ({fields['name']})"
    # The beginning of a fingerprint identifies an event.
    key = ":".join(str(part)[:20] for part in fields["key"])
    sources = {"subscription": fields["subscription_id"], "webhook": fields["webhook_id"]}
    source = "".join(f" {name} {id}" for name, id in sources.items() if id is not None)
    attempt = f" attempt {fields['attempt']}" if "attempt" in fields else ""
    return f"{fields['kind']}{name} {key}{source}{attempt}"
