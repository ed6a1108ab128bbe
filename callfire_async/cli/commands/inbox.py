"""What an inbox holds: counted, listed, shown, tried again, deleted."""

import re
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any

from attrs import asdict, astuple, evolve, frozen

from callfire_async.cli._exit import FAILED, WRONG_USE, CliError
from callfire_async.cli._inbox_target import inbox_files, open_for_writing, open_read_only
from callfire_async.cli._output import echo, escape_control_characters, say_json, say_pairs, say_table
from callfire_async.cli.commands.parse import described
from callfire_async.errors import InboxLockedError, NotificationError
from callfire_async.notifications import Receiver, Router, parse
from callfire_async.notifications.inbox.base import InboxEntry

__all__ = ["list_all", "load_router", "parse_time", "purge", "replay", "show", "stats"]

_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_COLUMNS = ("id", "state", "kind", "attempt", "crashes", "received_at", "reason")


async def stats(place: str, *, as_json: bool) -> None:
    """Count."""
    async with open_read_only(place) as inbox:
        counts = asdict(await inbox.stats())
    if as_json:
        say_json(counts)
        return
    age = counts.pop("oldest_ready_age")
    say_pairs(counts | ({} if age is None else {"oldest ready": f"{age:.0f} s"}))


async def list_all(place: str, state: str | None, *, as_json: bool) -> None:
    """Show a line for each delivery."""
    async with open_read_only(place) as inbox:
        if as_json:
            async for entry in inbox.entries(state):
                say_json(_summary(entry))
            return
        rows = [_summary(entry) async for entry in inbox.entries(state)]
    if rows:
        say_table(_COLUMNS, ([row[name] for name in _COLUMNS] for row in rows))
    else:
        echo("no deliveries")


async def show(place: str, id: str, *, raw: bool, as_json: bool) -> None:
    """Show all that is known of one delivery; numbers and messages are masked unless *raw*."""
    async with open_read_only(place) as inbox:
        entry = await inbox.get(id)
    if entry is None:
        raise CliError(f"there is no delivery {id}")
    known = _summary(entry) | {"content_type": entry.delivery.content_type, "bytes": len(entry.delivery.body)}
    event = _event(entry, masked=not raw)
    body = entry.delivery.body.decode("utf-8", "backslashreplace") if raw else None
    if as_json:
        say_json(known | {"event": event} | ({} if body is None else {"body": body}))
        return
    say_pairs(known)
    if event is not None:
        echo("")
        say_json(event, indent=2)
    if body:
        echo("")
        for line in body.splitlines():
            echo(escape_control_characters(line))


def _summary(entry: InboxEntry) -> dict[str, Any]:
    event = _event(entry, masked=True)
    return {
        "id": entry.id,
        "state": entry.state,
        "kind": event["kind"] if event else None,
        "attempt": entry.attempt,
        "crashes": entry.crashes,
        "received_at": entry.delivery.received_at.isoformat(timespec="seconds"),
        "updated_at": entry.updated_at.isoformat(timespec="seconds"),
        "reason": entry.reason,
    }


def _event(entry: InboxEntry, *, masked: bool) -> dict[str, Any] | None:
    """Describe what is in a delivery; None where it is no notification, or its body is gone."""
    try:
        return described(parse(entry.delivery.body, entry.delivery.content_type), masked=masked)
    except NotificationError:
        return None


# --- trying again -----------------------------------------------------------------------------------------


@frozen
class _ReplayResult:
    """What became of one dead letter."""

    id: str
    state: str
    attempt: int
    #: Why it is not done.
    reason: str


async def replay(place: str, ids: Sequence[str], app: str | None, seconds: float, *, as_json: bool) -> int:
    """
    Make dead letters ready again; with *app*, handle them here and show what became of each.

    Returns:
        The exit status: 1 where one that was named is no dead letter, a file has another owner, or one was handled
        here and is not done.
    """
    router = None if app is None else load_router(app)
    replayed: list[_ReplayResult] = []
    problems: list[str] = []
    for prefix, part in inbox_files(place).items():
        chosen = [id.removeprefix(prefix) for id in ids if id.startswith(prefix)]
        if ids and not chosen:
            continue
        try:
            found = await _replay(part, chosen or None, router, seconds)
            replayed += [evolve(one, id=f"{prefix}{one.id}") for one in found]
        except InboxLockedError as error:
            problems.append(f"{error}; or replay them from inside it")
    missing = [id for id in ids if id not in {one.id for one in replayed}]
    problems += [f"{id} is no dead letter" for id in missing if not problems]
    if replayed or not problems:
        _show_replayed(replayed, was_handled=router is not None, as_json=as_json)
    if problems:
        raise CliError("; ".join(problems))
    return FAILED if router and any(one.state != "done" for one in replayed) else 0


async def _replay(part: str, ids: Sequence[str] | None, router: Router | None, seconds: float) -> list[_ReplayResult]:
    inbox = await open_for_writing(part)
    async with inbox if router is None else Receiver(router, tokens=None, inbox=inbox) as running:
        chosen = [str(entry.id) async for entry in inbox.entries("dead") if ids is None or str(entry.id) in ids]
        await inbox.replay(chosen)
        if isinstance(running, Receiver):
            # What is not done by then is shown as it stands.
            with suppress(TimeoutError):
                await running.idle(timeout=seconds)
        entries = [await inbox.get(id) for id in chosen]
    return [_ReplayResult(str(one.id), one.state, one.attempt, one.reason) for one in entries if one is not None]


def _show_replayed(replayed: Sequence[_ReplayResult], *, was_handled: bool, as_json: bool) -> None:
    if as_json:
        for one in replayed:
            say_json(asdict(one))
        return
    if was_handled and replayed:
        say_table(("id", "state", "attempt", "reason"), (astuple(one) for one in replayed))
    words = ", ".join(f"{count} {state}" for state, count in Counter(one.state for one in replayed).items())
    echo(f"{len(replayed)} replayed" + (f": {words}" if was_handled and replayed else ""))


def load_router(app: str) -> Router:
    """Import the router that ``module:router`` names, from the working directory too."""
    name, colon, attribute = app.partition(":")
    if not (name and colon and attribute):
        raise CliError("--app names a router, as in service:router", WRONG_USE)
    sys.path.insert(0, "")
    try:
        module = import_module(name)
    except ModuleNotFoundError as error:
        raise CliError(f"--app {app}: there is no module {error.name}", WRONG_USE) from None
    router = getattr(module, attribute, None)
    if not isinstance(router, Router):
        raise CliError(f"--app {app}: {attribute} is not a Router", WRONG_USE)
    if router.is_empty:
        raise CliError(f"--app {app}: the router has no handler", WRONG_USE)
    return router


# --- deleting ---------------------------------------------------------------------------------------------


async def purge(place: str, done_before: datetime | None, dead_before: datetime | None, *, as_json: bool) -> None:
    """Delete what was done, or buried, before a time."""
    purged, locked = 0, []
    for part in inbox_files(place).values():
        try:
            async with await open_for_writing(part) as inbox:
                purged += await inbox.purge(done_before=done_before, dead_before=dead_before)
        except InboxLockedError as error:
            locked.append(f"{error}; or purge it from inside it")
    if as_json:
        say_json({"purged": purged})
    elif purged or not locked:
        echo(f"{purged} deleted")
    if locked:
        raise CliError("; ".join(locked))


def parse_time(words: str) -> datetime:
    """Read a time: so long ago, as in ``90d``, ``12h`` or ``5m``, or ISO 8601, in UTC where it has no offset."""
    age = re.fullmatch(r"(\d{1,6})([mhd])", words)
    try:
        if age:
            return datetime.now(UTC) - timedelta(**{_UNITS[age[2]]: int(age[1])})
        at = datetime.fromisoformat(words)
    except (ValueError, OverflowError):
        # The latter is before the year 1.
        raise CliError(f"{words!r} is no time; say 90d, 12h, 5m or 2026-01-31", WRONG_USE) from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
