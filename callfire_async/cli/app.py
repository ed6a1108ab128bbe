"""
The Typer application: one module of `commands` for each command or group.

The module of a command is imported when the command is called, so that ``--help`` and shell completion are fast.
"""

from importlib import import_module
from importlib.metadata import version as version_of
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from callfire_async.cli._exit import ErrorHandlingGroup
from callfire_async.cli._output import echo

__all__ = ["LazyCommand", "app"]

# The first line of each command's help, which `--help` shows without an import, by group.
_SUMMARIES = {
    "Development": {
        "demo": "Run an end-to-end demo on localhost; no account needed.",
        "listen": "Print the postbacks that arrive on a local port, and forward them to a URL.",
        "trigger": "Post an event to a receiver as CallFire does; status 1 if any postback is rejected.",
        "sandbox": "Serve an in-memory fake of CallFire's API on localhost.",
        "parse": "Print the events in a postback body as JSON; status 2 if the body is not a notification.",
    },
    "Service": {
        "doctor": "Check the credentials, the endpoint and this machine.",
        "inbox": "Inspect, back up and restore an inbox; replay or delete its deliveries.",
        "inspect": "Show the deliveries of a SQLite inbox on a local web page.",
    },
    "Account": {
        "webhooks": "List and change an account's webhooks, and replace its subscriptions with webhooks.",
        "subscriptions": "List and change an account's subscriptions.",
    },
}


class LazyCommand(TyperCommand):
    """A command with nothing but a name and a summary until it is called."""

    def load(self) -> Any:
        """Import the command's module and return the complete command or group."""
        command = typer.main.get_command(import_module(f"callfire_async.cli.commands.{self.name}").app)
        command.name = self.name
        return command

    def make_context(self, *args: Any, **extra: Any) -> Any:
        """Return the context of the complete command."""
        return self.load().make_context(*args, **extra)


app: typer.Typer = typer.Typer(
    cls=ErrorHandlingGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _print_version(is_given: bool) -> None:  # noqa: FBT001  # typer passes the value of the option
    if is_given:
        echo(f"callfire-async {version_of('callfire-async')}")
        raise typer.Exit


@app.callback(
    help="""
    Work with CallFire's webhooks, subscriptions and notifications.

    - `callfire-async demo`
    - `callfire-async listen --forward-to http://127.0.0.1:8000/callfire/secret`
    - `callfire-async trigger TextReceived --api v2 --set text.message=yes`
    - `callfire-async inbox list callfire.db --state dead`
    """,
    epilog="`callfire-async COMMAND --help` shows an example first. Documentation: https://callfire-async.readthedocs.io",
)
def callfire_async(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None: ...


def _placeholder() -> None: ...


for _panel, _commands in _SUMMARIES.items():
    for _name, _summary in _commands.items():
        app.command(_name, cls=LazyCommand, help=_summary, rich_help_panel=_panel)(_placeholder)
