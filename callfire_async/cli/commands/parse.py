"""One body to the event in it, as JSON."""

import sys
from pathlib import Path
from typing import Any

from callfire_async.cli._exit import WRONG_USE, CliError
from callfire_async.cli._output import say_json, to_jsonable
from callfire_async.errors import InvalidNotificationError, NotificationError
from callfire_async.notifications import Notification, UnknownNotification, parse

__all__ = ["described", "show"]


def show(path: Path, content_type: str | None, *, as_json: bool) -> None:
    """Show the event in a file, or in standard input where the path is ``-``."""
    name = "standard input" if str(path) == "-" else str(path)
    try:
        body = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise CliError(f"{name} cannot be read: {error.strerror}", WRONG_USE) from None
    try:
        event = parse(body, content_type)
    except NotificationError as error:
        problems = error.problems if isinstance(error, InvalidNotificationError) else ()
        if as_json:
            say_json({"error": str(error), "problems": list(problems)})
        raise CliError(f"{name}: {error}", WRONG_USE) from None
    say_json(described(event, masked=False), indent=None if as_json else 2)


def described(event: Notification, *, masked: bool) -> dict[str, Any]:
    """Describe an event in words that JSON has; the payload only of one that nothing else is known of."""
    described = {"kind": type(event).__name__, "key": list(event.key), **to_jsonable(event, masked=masked)}
    if isinstance(event, UnknownNotification) and not masked:
        described["payload"] = event.payload
    return described
