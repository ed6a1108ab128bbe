"""Inspect an inbox; replay or delete its deliveries; back it up and restore it."""

import asyncio
import re
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any

import typer
from attrs import asdict, astuple, evolve, frozen

from callfire_async.cli._client_options import AsJson, Yes
from callfire_async.cli._exit import FAILED, WRONG_USE, CliError, confirm
from callfire_async.cli._help import CommandApp
from callfire_async.cli._inbox_target import connect_to, inbox_files, open_for_writing, open_read_only
from callfire_async.cli._output import echo, echo_json, echo_pairs, echo_table, escape_control_characters
from callfire_async.cli._validators import load_router
from callfire_async.cli.commands.inbox._inbox_backup import backup, restore
from callfire_async.errors import InboxLockedError, NotificationError
from callfire_async.inspector.views import describe_event
from callfire_async.notifications import Receiver, Router
from callfire_async.notifications.inbox.base import Inbox, InboxEntry
from callfire_async.notifications.parsing import parse_each

app: typer.Typer = CommandApp(
    panel="Inspect",
    no_args_is_help=True,
    help="Inspect, back up and restore an inbox; replay or delete its deliveries.",
)


class State(StrEnum):
    """The state of a delivery."""

    ready = "ready"
    delayed = "delayed"
    leased = "leased"
    done = "done"
    dead = "dead"


Target = Annotated[
    str, typer.Argument(metavar="INBOX", help="SQLite file, directory of SQLite files, postgresql://… or nats://… URL.")
]

_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_COLUMNS = ("id", "state", "kind", "attempt", "crashes", "received_at", "reason")


# --- queries ----------------------------------------------------------------------------------------------


@app.command(
    epilog="Example: `callfire-async inbox stats callfire.db --json`",
    help="Show counts by state. Safe while the service is running.",
)
def stats(inbox: Target, *, as_json: AsJson = False) -> None:
    asyncio.run(_stats(inbox, as_json=as_json))


async def _stats(target: str, *, as_json: bool) -> None:
    async with open_read_only(target) as inbox:
        counts = asdict(await inbox.stats())
    if as_json:
        echo_json(counts)
        return
    age = counts.pop("oldest_ready_age")
    echo_pairs(counts | ({} if age is None else {"oldest ready": f"{age:.0f} s"}))


@app.command(
    "list",
    epilog="Example: `callfire-async inbox list callfire.db --state dead`",
    help="List the deliveries in order of arrival. Safe while the service is running.",
)
def list_all(
    inbox: Target,
    *,
    state: Annotated[State | None, typer.Option(help="Only deliveries in this state.")] = None,
    as_json: AsJson = False,
) -> None:
    asyncio.run(_list_all(inbox, state, as_json=as_json))


async def _list_all(target: str, state: str | None, *, as_json: bool) -> None:
    async with open_read_only(target) as inbox:
        if as_json:
            async for entry in inbox.entries(state):
                echo_json(_summarize(entry))
            return
        rows = [_summarize(entry) async for entry in inbox.entries(state)]
    if rows:
        echo_table(_COLUMNS, ([row[name] for name in _COLUMNS] for row in rows))
    else:
        echo("no deliveries")


@app.command(
    epilog="Example: `callfire-async inbox show callfire.db 1`",
    help="""
    Show one delivery with masked numbers and messages. Safe while the service is running.

    For a postback of API v2 with several events, each event is shown, until the service splits the postback.
    """,
)
def show(
    inbox: Target,
    id: Annotated[str, typer.Argument(help="Delivery id, as listed by `inbox list`.")],
    *,
    raw: Annotated[
        bool, typer.Option("--raw", help="Show numbers and messages without masks, and the body of the postback.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    asyncio.run(_show(inbox, id, raw=raw, as_json=as_json))


async def _show(target: str, id: str, *, raw: bool, as_json: bool) -> None:
    async with open_read_only(target) as inbox:
        entry = await inbox.get(id)
    if entry is None:
        raise CliError(f"delivery {id} does not exist")
    fields = _summarize(entry) | {"content_type": entry.delivery.content_type, "bytes": len(entry.delivery.body)}
    events = _describe_events(entry, masked=not raw)
    body = entry.delivery.body.decode("utf-8", "backslashreplace") if raw else None
    if as_json:
        several = {"events": events} if len(events) > 1 else {}
        event = events[0] if len(events) == 1 else None
        echo_json(fields | {"event": event} | several | ({} if body is None else {"body": body}))
    else:
        _print_delivery(fields, events, body)


def _print_delivery(fields: dict[str, Any], events: Sequence[dict[str, Any]], body: str | None) -> None:
    echo_pairs(fields)
    for event in events:
        echo("")
        echo_json(event, indent=2)
    if body:
        echo("")
        for line in body.splitlines():
            echo(escape_control_characters(line))


def _summarize(entry: InboxEntry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "state": entry.state,
        "kind": _kind(_describe_events(entry, masked=True)),
        "attempt": entry.attempt,
        "crashes": entry.crashes,
        "received_at": entry.delivery.received_at.isoformat(timespec="seconds"),
        "updated_at": entry.updated_at.isoformat(timespec="seconds"),
        "reason": entry.reason,
    }


def _kind(events: Sequence[dict[str, Any]]) -> str | None:
    """Return the kind of the event, or the number of several, as `listen` does."""
    if len(events) > 1:
        return f"{len(events)} events"
    return events[0]["kind"] if events else None


def _describe_events(entry: InboxEntry, *, masked: bool) -> list[dict[str, Any]]:
    """Return the events, of several also the unreadable; none if the body is not a notification, or was dropped."""
    try:
        parsed = parse_each(entry.delivery.body, entry.delivery.content_type)
    except NotificationError:
        return []
    if len(parsed) == 1 and isinstance(parsed[0], NotificationError):
        return []
    return [
        {"kind": None, "error": str(event)}
        if isinstance(event, NotificationError)
        else describe_event(event, masked=masked)
        for event in parsed
    ]


# --- replay -----------------------------------------------------------------------------------------------


@app.command(
    rich_help_panel="Change",
    epilog="Example: `callfire-async inbox replay callfire.db --router service:router`",
    help="""
    Make dead letters ready again.

    Without `--router`, the service handles them, at once or after its next start. With `--router`, a table shows the
    result of each, and the status is 0 only if all are done. A SQLite file has one owner at a time:
    stop the service before you use `--router`. If an ID is not a dead letter, nothing is replayed.
    """,
)
def replay(
    inbox: Target,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Dead letters to replay. Default: all.")
    ] = None,
    *,
    router: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:ROUTER",
            help="Process the replayed dead letters AND all other due deliveries in this process with this router.",
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.0, help="Seconds to wait for the handlers of --router.")] = 600.0,
    as_json: AsJson = False,
) -> None:
    if router is None and timeout != 600.0:  # the default
        raise typer.BadParameter("--timeout requires --router")
    sys.exit(asyncio.run(_replay(inbox, ids or [], router, timeout, as_json=as_json)))


@frozen
class _ReplayResult:
    """A replayed dead letter, and its state at the end of the command."""

    id: str
    state: str
    attempt: int
    #: Why the last attempt failed.
    reason: str


async def _replay(target: str, ids: Sequence[str], router_name: str | None, timeout: float, *, as_json: bool) -> int:
    """Replay dead letters, print the results and return the exit status."""
    router = None if router_name is None else load_router(router_name)
    await _check_ids(target, ids)
    results: list[_ReplayResult] = []
    locked: list[str] = []
    for prefix, file in inbox_files(target).items():
        file_ids = [id.removeprefix(prefix) for id in ids if id.startswith(prefix)]
        if ids and not file_ids:
            continue
        try:
            found = await _replay_file(file, file_ids or None, router, timeout)
            results += [evolve(result, id=f"{prefix}{result.id}") for result in found]
        except InboxLockedError as error:
            locked.append(_locked(error, "replay"))
    if results or not locked:
        _print_results(results, was_handled=router is not None, as_json=as_json)
    if locked:
        raise CliError("; ".join(locked))
    # Another process may have replayed or deleted a dead letter since the check.
    is_complete = len(results) >= len(set(ids)) and not (router and any(result.state != "done" for result in results))
    return 0 if is_complete else FAILED


def _locked(error: InboxLockedError, method: str) -> str:
    return f"{error}; stop the service first, or call inbox.{method}() in the service"


async def _check_ids(target: str, ids: Sequence[str]) -> None:
    """Raise an error unless all of the ids are dead letters."""
    if not ids:
        return
    async with open_read_only(target) as inbox:
        entries = {id: await inbox.get(id) for id in ids}
    problems = [
        f"delivery {id} does not exist" if entry is None else f"delivery {id} is not a dead letter, but {entry.state}"
        for id, entry in entries.items()
        if entry is None or entry.state != "dead"
    ]
    if problems:
        raise CliError(f"nothing was replayed: {'; '.join(problems)}")


async def _replay_file(
    file: str, ids: Sequence[str] | None, router: Router | None, timeout: float
) -> list[_ReplayResult]:
    if router is None and (owner := await connect_to(file)) is not None:
        async with owner, open_read_only(file) as view:
            return await _results(view, await _replay_dead(view, ids, owner.replay))
    inbox = await open_for_writing(file)
    async with inbox if router is None else Receiver(router, tokens=None, inbox=inbox) as running:
        dead_ids = await _replay_dead(inbox, ids, inbox.replay)
        if isinstance(running, Receiver):
            # Deliveries that are not done by then are reported in their current state.
            with suppress(TimeoutError):
                await running.idle(timeout=timeout)
        return await _results(inbox, dead_ids)


async def _replay_dead(
    inbox: Inbox, ids: Sequence[str] | None, replay: Callable[[Sequence[str]], Awaitable[int]]
) -> list[str]:
    """Replay these dead letters of an inbox, or all; return their IDs."""
    dead_ids = [str(entry.id) async for entry in inbox.entries("dead") if ids is None or str(entry.id) in ids]
    await replay(dead_ids)
    return dead_ids


async def _results(inbox: Inbox, ids: Sequence[str]) -> list[_ReplayResult]:
    entries = [await inbox.get(id) for id in ids]
    return [
        _ReplayResult(str(entry.id), entry.state, entry.attempt, entry.reason) for entry in entries if entry is not None
    ]


def _print_results(results: Sequence[_ReplayResult], *, was_handled: bool, as_json: bool) -> None:
    if as_json:
        for result in results:
            echo_json(asdict(result))
        return
    if was_handled and results:
        echo_table(("id", "state", "attempt", "reason"), (astuple(result) for result in results))
    counts = ", ".join(f"{count} {state}" for state, count in Counter(result.state for result in results).items())
    echo(f"{len(results)} replayed" + (f": {counts}" if was_handled and results else ""))


# --- purge ------------------------------------------------------------------------------------------------


@app.command(
    rich_help_panel="Change",
    epilog="Example: `callfire-async inbox purge callfire.db --dead-before 90d --yes`",
    help="Permanently delete old deliveries: those that are done, dead letters, or both.",
)
def purge(
    inbox: Target,
    *,
    done_before: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Delete deliveries done before TIME: an age (90d, 12h, 5m) or 2026-01-31."),
    ] = None,
    dead_before: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Delete dead letters from before TIME: an age (90d, 12h, 5m) or 2026-01-31."),
    ] = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    if done_before is None and dead_before is None:
        raise typer.BadParameter("pass --done-before, --dead-before or both")
    limits = [None if time is None else parse_time(time) for time in (done_before, dead_before)]
    if not yes:
        if as_json:
            raise typer.BadParameter("--json requires --yes")
        confirm(f"Permanently delete these deliveries from {inbox}?")
    asyncio.run(_purge(inbox, *limits, as_json=as_json))


async def _purge(target: str, done_before: datetime | None, dead_before: datetime | None, *, as_json: bool) -> None:
    purged, locked = 0, []
    for file in inbox_files(target).values():
        try:
            async with await open_for_writing(file) as inbox:
                purged += await inbox.purge(done_before=done_before, dead_before=dead_before)
        except InboxLockedError as error:
            locked.append(_locked(error, "purge"))
    if as_json:
        echo_json({"purged": purged})
    elif purged or not locked:
        echo(f"{purged} deleted")
    if locked:
        raise CliError("; ".join(locked))


def parse_time(text: str) -> datetime:
    """Parse an age, such as ``90d``, ``12h`` or ``5m``, or an ISO 8601 time, which is in UTC without an offset."""
    age = re.fullmatch(r"(\d{1,6})([mhd])", text)
    try:
        if age:
            return datetime.now(UTC) - timedelta(**{_UNITS[age[2]]: int(age[1])})
        time = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        # OverflowError: before the year 1.
        raise CliError(f"invalid time {text!r}: use 90d, 12h, 5m or 2026-01-31", WRONG_USE) from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


# --- backups ----------------------------------------------------------------------------------------------

app.command(
    rich_help_panel="Back up",
    epilog="Example: `callfire-async inbox backup callfire.db callfire-backup.db`",
    help="""
    Copy an inbox to one file, check the copy and sync it to disk. Safe while the service is running.

    For a directory, each of its files is copied. Run the command as the user that runs the service.
    """,
)(backup)
app.command(
    rich_help_panel="Back up",
    epilog="Example: `callfire-async inbox restore callfire.db backups/callfire.db`",
    help="""
    Replace an inbox with a backup. Stop the service first.

    The old file and its log are kept next to the new one, under another name. Deliveries that were pending when the
    backup was made are handled again. Files of a directory that have no backup are not changed.
    """,
)(restore)
