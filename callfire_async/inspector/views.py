"""Words for the page: what is private is masked here, on the server, unless it is asked for by itself."""

from __future__ import annotations

from typing import Any

from callfire_async.cli.commands.parse import described
from callfire_async.inspector.history import Attempt, DeliveryView
from callfire_async.notifications import Notification, UnknownNotification

__all__ = ["detail", "row", "to_nodes"]

# A page cannot show more of it with profit, and a browser must not be stopped by it.
_MOST_SHOWN = 200_000


def row(item: DeliveryView) -> dict[str, Any]:
    """Word one line of the list."""
    event = item.event
    return {
        "number": item.number,
        "id": None if item.id is None else str(item.id),
        "at": item.at.timestamp(),
        "kind": _kind(item),
        "subject": _subject(event),
        "subscription": None if event is None or event.subscription_id is None else str(event.subscription_id),
        "outcome": item.outcome,
        "reason": item.reason,
        "status": item.status,
        "answer": _milliseconds(item.answer_seconds),
        "attempts": len(item.attempts),
        "problems": 0 if event is None else len(event.problems),
        "version": item.version,
    }


def detail(item: DeliveryView, *, revealed: bool = False) -> dict[str, Any]:
    """Word all that is known of a delivery; its body, and what is private in the event, only where *revealed*."""
    shown = row(item) | {
        "size": item.size,
        "contentType": None if item.delivery is None else item.delivery.content_type,
        "held": bool(item.body),
        "unreadable": item.unreadable,
        "problemList": [] if item.event is None else list(item.event.problems),
        "tries": [_attempt(attempt) for attempt in item.attempts],
        "event": None if item.event is None else _event(item.event, revealed=revealed),
        "revealed": revealed,
    }
    if revealed:
        shown["body"] = _text(item.body)
        shown["payload"] = None if item.event is None else to_nodes({item.event.name: item.event.payload})
    return shown


def _kind(item: DeliveryView) -> str:
    if item.event is not None:
        return type(item.event).__name__
    if item.unreadable:
        return "not a notification"
    # What was refused at the door was not read; what is done has no body any more.
    return "request" if item.delivery is None else "body dropped"


def _subject(event: Notification | None) -> str:
    if event is None:
        return ""
    if isinstance(event, UnknownNotification):
        # A root can be as long as a body.
        return event.name[:60]
    return " ".join(map(str, event.key[:2]))


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "number": attempt.number,
        "outcome": attempt.outcome,
        "reason": attempt.reason,
        "took": _milliseconds(attempt.seconds),
        "runs": [{"name": run.name, "took": _milliseconds(run.seconds), "error": run.error} for run in attempt.runs],
    }


# What stands elsewhere on the page already.
_SAID = ("kind", "problems", "payload")


def _event(event: Notification, *, revealed: bool) -> dict[str, Any]:
    clear, masked = (
        {name: value for name, value in described(event, masked=masked).items() if name not in _SAID}
        for masked in (False, True)
    )
    return to_nodes(clear if revealed else masked, clear)


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * seconds, 1)


def _text(body: bytes) -> str:
    return body.decode("utf-8", "backslashreplace")[:_MOST_SHOWN]


def to_nodes(shown: Any, clear: Any = ...) -> dict[str, Any]:
    """
    Make nodes of a value: objects as lists of pairs, so that no name in it means anything to a browser.

    Args:
        shown: What is shown.
        clear: The same, not masked: where the two differ, a leaf is marked as masked.
    """
    clear = shown if clear is ... else clear
    if isinstance(shown, dict):
        others = clear if isinstance(clear, dict) else {}
        return {"pairs": [[str(name), to_nodes(value, others.get(name, value))] for name, value in shown.items()]}
    if isinstance(shown, list):
        beside = clear if isinstance(clear, list) and len(clear) == len(shown) else shown
        return {"list": [to_nodes(value, other) for value, other in zip(shown, beside, strict=True)]}
    kind = "none" if shown is None else "text" if isinstance(shown, str) else "value"
    # As text: a browser's numbers are not ours.
    leaf = {"leaf": "" if shown is None else str(shown), "kind": kind}
    return leaf | ({"masked": True} if shown != clear else {})
