"""JSON views of events and deliveries; private fields are masked unless they are requested."""

from __future__ import annotations

import ast
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any

import attrs

from callfire_async.inspector.history import Attempt, DeliveryView
from callfire_async.notifications import Notification, UnknownNotification

__all__ = ["describe_event", "to_detail", "to_jsonable", "to_nodes", "to_row"]

# A longer text is of no use on a page and would slow the browser down.
_MAX_BODY_CHARACTERS = 200_000
# An unknown root element can be as long as the body.
_MAX_SUBJECT_CHARACTERS = 60
# Fields of an event that the page shows elsewhere.
_SHOWN_ELSEWHERE = ("kind", "problems", "payload")


def to_row(item: DeliveryView) -> dict[str, Any]:
    """Return an item as a row of the list."""
    event = item.event
    return {
        "number": item.number,
        "id": None if item.id is None else str(item.id),
        "receivedAt": item.received_at.timestamp(),
        "kind": _kind(item),
        "subject": _subject(event),
        "subscription": _id(None if event is None else event.subscription_id),
        "webhook": _id(None if event is None else event.webhook_id),
        "outcome": item.outcome,
        "reason": item.reason,
        "status": item.status,
        "responseMs": _milliseconds(item.response_seconds),
        "attemptCount": len(item.attempts),
        "problemCount": 0 if event is None else len(event.problems),
        "version": item.version,
    }


def to_detail(item: DeliveryView, *, revealed: bool = False) -> dict[str, Any]:
    """Return everything known about an item; the body and private fields only if *revealed*."""
    shown = to_row(item) | {
        "bodySize": item.body_size,
        "contentType": None if item.delivery is None else item.delivery.content_type,
        "hasBody": bool(item.body),
        "parseError": item.parse_error,
        "problems": [] if item.event is None else list(item.event.problems),
        "attempts": [_attempt(attempt) for attempt in item.attempts],
        "event": None if item.event is None else _event_nodes(item.event, revealed=revealed),
        "revealed": revealed,
    }
    if revealed:
        shown["body"] = item.body.decode("utf-8", "backslashreplace")[:_MAX_BODY_CHARACTERS]
        shown["payload"] = None if item.event is None else to_nodes({item.event.name: item.event.payload})
    return shown


def _kind(item: DeliveryView) -> str:
    if item.event is not None:
        return type(item.event).__name__
    if item.has_several_events:
        return "several events"
    if item.parse_error:
        return "not a notification"
    # A refused request has no delivery; the inbox drops the bodies of handled deliveries.
    return "request" if item.delivery is None else "body dropped"


def _id(id: int | None) -> str | None:
    return None if id is None else str(id)


def _subject(event: Notification | None) -> str:
    if event is None:
        return ""
    if isinstance(event, UnknownNotification):
        return event.name[:_MAX_SUBJECT_CHARACTERS]
    return " ".join(map(str, event.key[:2]))


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "number": attempt.number,
        "outcome": attempt.outcome,
        "reason": attempt.reason,
        "durationMs": _milliseconds(attempt.seconds),
        "handlers": [
            {"name": run.name, "durationMs": _milliseconds(run.seconds), "error": run.error} for run in attempt.runs
        ],
    }


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * seconds, 1)


def _event_nodes(event: Notification, *, revealed: bool) -> dict[str, Any]:
    clear, masked = (
        {name: value for name, value in describe_event(event, masked=masked).items() if name not in _SHOWN_ELSEWHERE}
        for masked in (False, True)
    )
    return to_nodes(clear if revealed else masked, clear)


def to_nodes(shown: Any, clear: Any = ...) -> dict[str, Any]:
    """
    Return a value as a tree of nodes; objects become lists of pairs, so that no key has a meaning in JavaScript.

    Args:
        shown: The value to show.
        clear: The same value without masks: a leaf that differs is marked as masked.
    """
    clear = shown if clear is ... else clear
    if isinstance(shown, dict):
        values = clear if isinstance(clear, dict) else {}
        return {"pairs": [[str(name), to_nodes(value, values.get(name, value))] for name, value in shown.items()]}
    if isinstance(shown, list):
        counterparts = clear if isinstance(clear, list) and len(clear) == len(shown) else shown
        return {"list": [to_nodes(value, other) for value, other in zip(shown, counterparts, strict=True)]}
    kind = "none" if shown is None else "text" if isinstance(shown, str) else "value"
    # As text: JavaScript's numbers are less precise.
    leaf = {"leaf": "" if shown is None else str(shown), "kind": kind}
    return leaf | ({"masked": True} if shown != clear else {})


# --- events and models as JSON ----------------------------------------------------------------------------


def describe_event(event: Notification, *, masked: bool) -> dict[str, Any]:
    """Return an event as a JSON object; the payload only of an unknown event that is not masked."""
    description = {"kind": type(event).__name__, "key": list(event.key), **to_jsonable(event, masked=masked)}
    if isinstance(event, UnknownNotification) and not masked:
        description["payload"] = event.payload
    return description


def to_jsonable(value: Any, *, masked: bool = True) -> Any:
    """
    Convert a value to objects, lists, strings and numbers that JSON can represent.

    Args:
        value: A model, an event, or a value of one of their fields.
        masked: Whether numbers, messages and endpoints are masked as in a ``repr``.
    """
    if attrs.has(type(value)):
        shown = (field for field in attrs.fields(type(value)) if field.repr)
        return {field.name: _field_to_jsonable(field, getattr(value, field.name), masked=masked) for field in shown}
    if isinstance(value, tuple | list | set | frozenset):
        return [to_jsonable(item, masked=masked) for item in value]
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, date | time):
        return value.isoformat()
    return str(value) if isinstance(value, str | Decimal) else value


def _field_to_jsonable(field: Any, value: Any, *, masked: bool) -> Any:
    mask: Any = field.repr
    if masked and callable(mask):
        return to_jsonable(ast.literal_eval(str(mask(value))))
    return to_jsonable(value, masked=masked)
