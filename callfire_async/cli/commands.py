"""The commands and their options; what they do stands in a module of each."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from callfire_async.cli.commands_inbox import inbox
from callfire_async.cli.commands_subscriptions import subscriptions
from callfire_async.cli.ending import Commands
from callfire_async.cli.options import AsJson

app = typer.Typer(cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="markdown")
app.add_typer(subscriptions, name="subscriptions")
app.add_typer(inbox, name="inbox")


def share(text: str | float) -> float:
    """Read a share: ``5%`` or ``0.05``."""
    words = str(text).strip()
    try:
        number = float(words.removesuffix("%")) / (100 if words.endswith("%") else 1)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1:
        raise typer.BadParameter("a share is from 0 to less than 1, or so many %")
    return number


@app.callback()
def callfire_async() -> None:
    """CallFire's subscriptions and notifications."""


@app.command(epilog="Example: `callfire-async demo --events 2000 --crash 3`")
def demo(
    events: Annotated[int, typer.Option(min=1, max=1_000_000, help="How many texts and calls there are.")] = 3000,
    crash: Annotated[
        int,
        typer.Option(min=0, max=100, help="How often the receiver is killed in the middle of it, and started again."),
    ] = 0,
    drop: Annotated[
        float,
        typer.Option(parser=share, metavar="SHARE", help="How many postbacks never come, as in 5%; then reconcile."),
    ] = 0.0,
) -> None:
    """
    Do the whole job on this machine, with no account.

    A fake CallFire and a receiver meet over loopback HTTP: subscribe, run a campaign, count what became of it.
    What is posted while the receiver is down is refused, and CallFire does not repeat it. The exit status is 0 only
    if nothing that was acknowledged was lost, and with --drop only if every text and call was handled all the same.
    """
    from rich.console import Console

    from callfire_async.cli.demo import run

    lost = asyncio.run(run(events, Console(highlight=False), crashes=crash, drop=drop))
    sys.exit(1 if lost else 0)


@app.command(epilog="Example: `callfire-async parse postback.xml --json`")
def parse(
    file: Annotated[Path, typer.Argument(help="A body as it was posted; - for standard input.")],
    *,
    content_type: Annotated[str | None, typer.Option(help="Its Content-Type: a hint, the body decides.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="On one line, for scripts; the error too.")] = False,
) -> None:
    """Show the event in a body as JSON, with its numbers and messages, or say why there is none (status 2)."""
    from callfire_async.cli import parsing

    parsing.show(file, content_type, as_json=as_json)


@app.command(epilog="Example: `callfire-async sandbox --port 8480`")
def sandbox(
    *,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any that is free.")] = 8480,
    as_json: AsJson = False,
) -> None:
    """Serve a CallFire in memory on loopback: subscribe at it, send texts to nobody, and get the postbacks."""
    from callfire_async.cli.sandbox import run

    asyncio.run(run(port, as_json=as_json))
