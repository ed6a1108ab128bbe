"""The commands on inboxes, and their options; what they do stands in `inbox`."""

import asyncio
import sys
from enum import StrEnum
from typing import Annotated

import typer

from callfire_async.cli._options import AsJson, Yes

inbox = typer.Typer(no_args_is_help=True, help="Look into an inbox; try dead letters again.")


class State(StrEnum):
    """Where a delivery stands."""

    ready = "ready"
    leased = "leased"
    done = "done"
    dead = "dead"


Place = Annotated[
    str, typer.Argument(metavar="INBOX", help="A SQLite file, a folder of them, or postgresql://… or nats://…")
]


@inbox.command(epilog="Example: `callfire-async inbox stats callfire.db --json`")
def stats(place: Place, *, as_json: AsJson = False) -> None:
    """Count what is in it; somebody may own it meanwhile."""
    from callfire_async.cli.commands import inbox as work

    asyncio.run(work.stats(place, as_json=as_json))


@inbox.command("list", epilog="Example: `callfire-async inbox list callfire.db --state dead`")
def list_all(
    place: Place,
    *,
    state: Annotated[State | None, typer.Option(help="Only these.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the deliveries, in order of arrival; somebody may own it meanwhile."""
    from callfire_async.cli.commands import inbox as work

    asyncio.run(work.list_all(place, state, as_json=as_json))


@inbox.command(epilog="Example: `callfire-async inbox show callfire.db 1`")
def show(
    place: Place,
    id: Annotated[str, typer.Argument(help="As `inbox list` has it.")],
    *,
    raw: Annotated[bool, typer.Option("--raw", help="With numbers and messages, and the body as it came.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show one delivery, numbers and messages masked; somebody may own the inbox meanwhile."""
    from callfire_async.cli.commands import inbox as work

    asyncio.run(work.show(place, id, raw=raw, as_json=as_json))


@inbox.command(epilog="Example: `callfire-async inbox replay callfire.db --app service:router`")
def replay(
    place: Place,
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Dead letters; all unless named.")] = None,
    *,
    app: Annotated[
        str | None,
        typer.Option(metavar="MODULE:ROUTER", help="Run these handlers here, on all that is ready, until it is quiet."),
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.0, help="Seconds to wait for that.")] = 600.0,
    as_json: AsJson = False,
) -> None:
    """
    Try dead letters again.

    Without `--app` they are ready for whoever runs the inbox next. With it, the table says what became of each, and the
    exit status is 0 only if all are done. Nobody else may own the file.
    """
    from callfire_async.cli.commands import inbox as work

    sys.exit(asyncio.run(work.replay(place, ids or [], app, timeout, as_json=as_json)))


@inbox.command(epilog="Example: `callfire-async inbox purge callfire.db --dead-before 90d --yes`")
def purge(
    place: Place,
    *,
    done_before: Annotated[str | None, typer.Option(metavar="TIME", help="90d, 12h, 5m ago, or 2026-01-31.")] = None,
    dead_before: Annotated[str | None, typer.Option(metavar="TIME", help="Likewise; dead letters.")] = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Delete for good what was done, or became a dead letter, before a time."""
    from callfire_async.cli.commands import inbox as work

    if done_before is None and dead_before is None:
        raise typer.BadParameter("say --done-before, --dead-before or both")
    limits = [None if words is None else work.parse_time(words) for words in (done_before, dead_before)]
    if not yes:
        if as_json:
            raise typer.BadParameter("with --json nobody is asked: say --yes too")
        typer.confirm(f"Is it to go from {place} for good?", abort=True)
    asyncio.run(work.purge(place, *limits, as_json=as_json))
