"""
How a command ends: its exit status, and the one line that says why.

0 fine, 1 failed, 2 wrong use or unreadable input, 3 credentials that are missing or refused; 130 after Ctrl-C.
"""

import asyncio
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Never

import typer
from typer.core import TyperGroup

from callfire_async.cli._log_output import logs_to_stderr
from callfire_async.cli._output import escape_control_characters
from callfire_async.errors import AuthenticationError, CallFireError, PermissionDeniedError

__all__ = ["FAILED", "MISSING_CREDENTIALS", "WRONG_USE", "CliError", "ErrorHandlingGroup", "usage_errors"]

FAILED, WRONG_USE, MISSING_CREDENTIALS, INTERRUPTED = 1, 2, 3, 130


class CliError(Exception):
    """A command cannot go on; its words are for whoever typed it."""

    def __init__(self, message: str, status: int = FAILED) -> None:
        super().__init__(message)
        self.status = status


@contextmanager
def usage_errors() -> Iterator[None]:
    """Let a `ValueError` of the library's be one of whoever typed the command."""
    try:
        yield
    except ValueError as error:
        raise CliError(str(error), WRONG_USE) from None


class ErrorHandlingGroup(TyperGroup):
    """A group of commands that end alike."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; whatever of ours it raises becomes a line and an exit status."""
        with _ending():
            return super().invoke(ctx)


@contextmanager
def _ending() -> Iterator[None]:
    with warnings.catch_warnings(), logs_to_stderr():
        # Whoever types a command has no line of code that a warning could point at.
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = _say_warning  # type: ignore[assignment]  # which takes more, and needs it not
        try:
            yield
            # Whoever reads may have gone: better to know it here than when Python exits.
            sys.stdout.flush()
        except (KeyboardInterrupt, asyncio.CancelledError):
            sys.exit(INTERRUPTED)
        except CliError as ended:
            _end(str(ended), ended.status)
        except (AuthenticationError, PermissionDeniedError) as error:
            _end(str(error), MISSING_CREDENTIALS)
        except CallFireError as error:
            _end(str(error), FAILED)


def _end(message: str, status: int) -> Never:
    typer.echo(f"error: {escape_control_characters(message)}", err=True)
    sys.exit(status)


def _say_warning(message: Warning | str, *_: object) -> None:
    typer.echo(f"warning: {escape_control_characters(str(message))}", err=True)
