"""The help of commands: the example is shown before the details, and the options are in groups."""

from copy import copy
from typing import Any

import typer
from typer.core import TyperCommand

__all__ = ["ACCOUNT_PANEL", "CommandApp", "CommandWithExample"]

#: The group of the options of the API client.
ACCOUNT_PANEL = "Account"


class CommandWithExample(TyperCommand):
    """A command whose help shows the example, which is the epilog, below the first line."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        summary, _, details = (self.help or "").partition("\n\n")
        shown = copy(self)
        shown.help, shown.epilog = f"{summary}\n\n{self.epilog}\n\n{details}", None
        TyperCommand.format_help(shown, ctx, formatter)


class CommandApp(typer.Typer):
    """
    The application of a command, or of a group of commands.

    Args:
        panel: The heading of the group's commands in ``--help``, except for those that have another one.
        options: Other options of `typer.Typer`.
    """

    def __init__(self, *, panel: str | None = None, **options: Any) -> None:
        super().__init__(add_completion=False, rich_markup_mode="markdown", **options)
        self._panel = panel

    def command(self, *args: Any, rich_help_panel: str | None = None, **options: Any) -> Any:
        """Register a command, by default in the panel of the group."""
        panel = rich_help_panel or self._panel
        return super().command(*args, cls=CommandWithExample, rich_help_panel=panel, **options)
