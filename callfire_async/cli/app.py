"""The commands and their options; what they do stands in a module of each."""

import asyncio
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from callfire_async.cli._client_options import ClientOptions
from callfire_async.cli._exit import ErrorHandlingGroup
from callfire_async.cli._options import AsJson, BaseUrl, Login
from callfire_async.cli.commands.inbox_options import inbox
from callfire_async.cli.commands.subscriptions_options import subscriptions
from callfire_async.models import NotificationFormat

if TYPE_CHECKING:
    from callfire_async.inspector import BindAddress

# Where `listen` is found by whoever does not say otherwise.
LISTEN_PORT = 8484
INSPECT_PORT = 8485
LOOPBACK = "127.0.0.1"

InspectHost = Annotated[str, typer.Option(metavar="HOST", help="Where the page is served; beyond loopback with care.")]
InspectPort = Annotated[int, typer.Option(min=0, max=65535, help="The page's; 0 for any that is free.")]

app = typer.Typer(
    cls=ErrorHandlingGroup, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="markdown"
)
app.add_typer(subscriptions, name="subscriptions")
app.add_typer(inbox, name="inbox")


class Format(StrEnum):
    """How a postback is worded."""

    xml = "xml"
    json = "json"
    soap = "soap"


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
    *,
    inspect: Annotated[
        bool, typer.Option("--inspect", help="Show the deliveries on a page; it stays until Enter.")
    ] = False,
) -> None:
    """
    Do the whole job on this machine, with no account.

    A fake CallFire and a receiver meet over loopback HTTP: subscribe, run a campaign, count what became of it.
    What is posted while the receiver is down is refused, and CallFire does not repeat it. The exit status is 0 only
    if nothing that was acknowledged was lost, and with `--drop` only if every text and call was handled all the same.
    """
    from rich.console import Console

    from callfire_async.cli.commands.demo import run

    lost = asyncio.run(run(events, Console(highlight=False), crashes=crash, drop=drop, inspect=inspect))
    sys.exit(1 if lost else 0)


@app.command(epilog="Example: `callfire-async parse postback.xml --json`")
def parse(
    file: Annotated[Path, typer.Argument(help="A body as it was posted; - for standard input.")],
    *,
    content_type: Annotated[str | None, typer.Option(help="Its Content-Type: a hint, the body decides.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="On one line, for scripts; the error too.")] = False,
) -> None:
    """Show the event in a body as JSON, with its numbers and messages, or say why there is none (status 2)."""
    from callfire_async.cli.commands import parse as parsing

    parsing.show(file, content_type, as_json=as_json)


@app.command(epilog="Example: `callfire-async sandbox --port 8480`")
def sandbox(
    *,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any that is free.")] = 8480,
    as_json: AsJson = False,
) -> None:
    """Serve a CallFire in memory on loopback: subscribe at it, send texts to nobody, and get the postbacks."""
    from callfire_async.cli.commands.sandbox import run

    asyncio.run(run(port, as_json=as_json))


@app.command(epilog="Example: `callfire-async listen --forward-to http://127.0.0.1:8000/callfire/secret`")
def listen(
    *,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any that is free.")] = LISTEN_PORT,
    forward_to: Annotated[
        str | None, typer.Option(metavar="URL", help="Hand each postback on, as it came; what is not taken has failed.")
    ] = None,
    events: Annotated[
        list[str] | None, typer.Option(metavar="EVENT", help="Only these, as in TextSent; may be said several times.")
    ] = None,
    subscription: Annotated[int | None, typer.Option(min=1, metavar="ID", help="Only what this one sends.")] = None,
    inbox: Annotated[
        str | None, typer.Option(metavar="FILE", help="Keep postbacks first; what fails is tried again.")
    ] = None,
    inspect: Annotated[bool, typer.Option("--inspect", help="Show them on a page too, and replay from there.")] = False,
    inspect_host: InspectHost = LOOPBACK,
    inspect_port: InspectPort = INSPECT_PORT,
    as_json: AsJson = False,
) -> None:
    """
    Show what CallFire posts, and hand it on to a program of yours.

    A receiver on loopback. Its token is the environment's CALLFIRE_TOKEN, or one of its own that `trigger` finds too.
    Each event is a line with `-->`, each answer to one that was handed on a line with `<--`. Other lines have a word:
    `dup` came before, `dead` is a dead letter, `refused` was not let in; an event is `unknown` where API 1.1 does not
    name it.
    """
    from callfire_async.cli.commands.listen import ListenOptions, run

    place = _place(inspect_host, inspect_port) if inspect else None
    asyncio.run(run(ListenOptions(port, forward_to, tuple(events or ()), subscription, inbox, as_json, place)))


@app.command(epilog="Example: `callfire-async inspect callfire.db`")
def inspect(
    file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="A SQLite inbox; somebody may own it meanwhile.")
    ],
    *,
    host: InspectHost = LOOPBACK,
    port: InspectPort = INSPECT_PORT,
    as_json: AsJson = False,
) -> None:
    """
    Show what is in an inbox on a page, as it changes: what waits, what is dead, and why.

    It only reads. What was handled has no body any more, unless its inbox keeps bodies; for what handlers do, and to
    replay, use `listen --inspect`, or put the inspector on the receiver itself.
    """
    from callfire_async.cli.commands.inspect import run

    asyncio.run(run(file, _place(host, port), as_json=as_json))


def _place(host: str, port: int) -> "BindAddress":
    """Make a place of what was typed; warn of one that others can reach."""
    from callfire_async.inspector import BindAddress

    place = BindAddress(host, port)
    if place.is_open:
        typer.echo(
            f"warning: {host} may be reached by others; without the key they see nothing, but what you see, and the"
            " key, can be read on the way",
            err=True,
        )
    return place


@app.command(epilog="Example: `callfire-async trigger CallFinished --set call.result=AM --print`")
def trigger(
    event: Annotated[str | None, typer.Argument(help="The root; without one, there is a list of them.")] = None,
    *,
    to: Annotated[
        str, typer.Option(metavar="URL", help="Where to; {token} at its end is the token that `listen` has.")
    ] = f"http://127.0.0.1:{LISTEN_PORT}/callfire/{{token}}",
    format: Annotated[Format, typer.Option(help="How it is worded.")] = Format.xml,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="As in call.result=AM; may be said several times."),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="How many different ones.")] = 1,
    duplicate: Annotated[int, typer.Option(min=0, help="How often each is posted once more.")] = 0,
    only_print: Annotated[bool, typer.Option("--print", help="Show the bodies, and post nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Post an event as CallFire would: to `listen`, or to your own receiver. Status 1 unless all are taken."""
    from callfire_async.cli.commands import trigger as triggering

    if event is None:
        triggering.list_events(as_json=as_json)
        return
    wanted = triggering.TriggerOptions(
        event, to, NotificationFormat(format.name.upper()), tuple(settings or ()), count, duplicate, as_json
    )
    if only_print:
        triggering.show(wanted)
    else:
        sys.exit(asyncio.run(triggering.run(wanted)))


@app.command(epilog="Example: `callfire-async doctor --endpoint 'https://hooks.example.com/callfire/{token}'`")
def doctor(
    *,
    endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="Your receiver's, with {token} for the token in CALLFIRE_TOKEN.")
    ] = None,
    inbox: Annotated[str | None, typer.Option(metavar="FILE", help="Your inbox's file, or folder.")] = None,
    login: Login = None,
    base_url: BaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """
    Check what a service needs, and say what to do where something is wrong.

    A check is well (✓), or not (✗), or was not made. Nothing is changed: the endpoint gets postbacks with nothing in
    them, which are refused. Status 1 where something is wrong, 3 where that is the credentials alone.
    """
    from callfire_async.cli.commands.doctor import run

    sys.exit(asyncio.run(run(ClientOptions(login, base_url), endpoint, inbox, as_json=as_json)))
