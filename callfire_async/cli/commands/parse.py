"""Print the events in a postback body."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from callfire_async.cli._exit import WRONG_USE, CliError
from callfire_async.cli._help import CommandApp
from callfire_async.cli._output import echo_json
from callfire_async.errors import InvalidNotificationError, NotificationError
from callfire_async.inspector.views import describe_event
from callfire_async.notifications import parse_all

app: typer.Typer = CommandApp()


@app.command(
    epilog="Example: `callfire-async parse postback.xml --json`",
    help="""
    Print the events in a postback body as JSON; status 2 if the body is not a notification.

    A postback of API v2 can have several. Numbers and messages are not masked.
    """,
)
def parse(
    file: Annotated[Path, typer.Argument(help="File with the body of a postback; - for standard input.")],
    *,
    content_type: Annotated[
        str | None, typer.Option(help="Content-Type of the postback. A hint only: the format is detected.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Output for scripts: each event on one line, and an error as JSON.")
    ] = False,
) -> None:
    name = "standard input" if str(file) == "-" else str(file)
    try:
        body = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise CliError(f"cannot read {name}: {error.strerror}", WRONG_USE) from None
    try:
        events = parse_all(body, content_type)
    except NotificationError as error:
        problems = error.problems if isinstance(error, InvalidNotificationError) else ()
        if as_json:
            echo_json({"error": str(error), "problems": list(problems)})
        raise CliError(f"{name}: {error}", WRONG_USE) from None
    for event in events:
        echo_json(describe_event(event, masked=False), indent=None if as_json else 2)
