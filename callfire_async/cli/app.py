"""
The Typer application: one module of `commands` for each command or group.

The module of a command is imported when the command is called, so that ``--help`` and shell completion are fast.
"""

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand

from callfire_async.cli._exit import ErrorHandlingGroup

__all__ = ["LazyCommand", "app"]

# The first line of each command's help, which `--help` shows without an import.
_SUMMARIES = {
    "subscriptions": "List and change an account's subscriptions.",
    "webhooks": "List and change an account's webhooks, and replace its subscriptions by webhooks.",
    "inbox": "Inspect, back up and restore an inbox; replay or delete its deliveries.",
    "demo": "Run an end-to-end demo on localhost; no account needed.",
    "parse": "Print the events in a postback body as JSON; status 2 if the body is not a notification.",
    "sandbox": "Serve an in-memory fake of CallFire's API on localhost.",
    "listen": "Print the postbacks that arrive on a local port, and forward them to a URL.",
    "inspect": "Show the deliveries of a SQLite inbox on a local web page.",
    "trigger": "Post an event to a receiver as CallFire does; status 1 if any postback is rejected.",
    "doctor": "Check the credentials, the endpoint and this machine.",
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
    cls=ErrorHandlingGroup, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="markdown"
)


@app.callback(help="Work with CallFire's subscriptions, webhooks and notifications.")
def callfire_async() -> None: ...


for _name, _summary in _SUMMARIES.items():
    app.command(_name, cls=LazyCommand, help=_summary)(callfire_async)
