"""
Exit statuses of commands, and the line on standard error for a failure.

The status is 0 on success, 1 on failure, 2 for wrong usage or unreadable input, 3 if the credentials are missing or
rejected, and 130 after Ctrl-C.
"""

import asyncio
import errno
import sys
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, Never, TypeVar

import typer
from typer.core import TyperGroup

from callfire_async.cli._log_output import logs_to_stderr
from callfire_async.cli._output import escape_control_characters
from callfire_async.errors import AuthenticationError, CallFireError, PermissionDeniedError

__all__ = [
    "FAILED",
    "MISSING_CREDENTIALS",
    "REMEDIES",
    "WRONG_USE",
    "CliError",
    "ErrorHandlingGroup",
    "confirm",
    "port_errors",
    "usage_errors",
]

T = TypeVar("T")

#: What to do about the response of an endpoint that should be a receiver, by HTTP status.
REMEDIES = {
    404: "wrong token or path: check CALLFIRE_TOKEN and the path",
    405: "a different application responds, which does not accept POST",
    503: "the receiver is not running: start its application",
}
FAILED, WRONG_USE, MISSING_CREDENTIALS, INTERRUPTED = 1, 2, 3, 130


class CliError(Exception):
    """Ends the command with a message for the user and an exit status."""

    def __init__(self, message: str, status: int = FAILED) -> None:
        super().__init__(message)
        self.status = status


@contextmanager
def usage_errors() -> Iterator[None]:
    """Report a `ValueError` of the library as wrong usage."""
    try:
        yield
    except ValueError as error:
        raise CliError(str(error), WRONG_USE) from None


@asynccontextmanager
async def port_errors(server: AbstractAsyncContextManager[T], option: str = "--port") -> AsyncIterator[T]:
    """Enter a server; report an address that is not available, with the option that changes it."""
    async with AsyncExitStack() as stack:
        try:
            entered = await stack.enter_async_context(server)
        except OSError as error:
            raise CliError(f"{error.strerror}; choose another with {option}") from None
        yield entered


class ErrorHandlingGroup(TyperGroup):
    """A group that turns the exceptions of its commands into a message and an exit status."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        with _handled_errors():
            return super().invoke(ctx)


@contextmanager
def _handled_errors() -> Iterator[None]:
    with warnings.catch_warnings(), logs_to_stderr():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = _print_warning  # type: ignore[assignment]  # the other arguments name a line of code
        try:
            yield
            # Detects a closed pipe here, not while Python exits.
            sys.stdout.flush()
        except (KeyboardInterrupt, asyncio.CancelledError):
            sys.exit(INTERRUPTED)
        except CliError as error:
            _exit(str(error), error.status)
        except (AuthenticationError, PermissionDeniedError) as error:
            _exit(str(error), MISSING_CREDENTIALS)
        except CallFireError as error:
            _exit(str(error), FAILED)
        except OSError as error:
            # Typer ends the command after a closed pipe.
            if error.errno == errno.EPIPE:
                raise
            _exit(f"{error.filename}: {error.strerror}" if error.filename else str(error), FAILED)


def confirm(question: str) -> None:
    """Ask for a confirmation; end the command without one."""
    try:
        typer.confirm(question, abort=True)
    except typer.Abort as error:
        # The cause is hidden: Typer raises the same exception after an answer, Ctrl-C and the end of standard input.
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        if isinstance(error.__context__, EOFError):
            typer.echo(err=True)
            raise CliError("standard input has no answer: confirm with --yes") from None
        raise


def _exit(message: str, status: int) -> Never:
    typer.echo(f"error: {escape_control_characters(message)}", err=True)
    sys.exit(status)


def _print_warning(message: Warning | str, *_: object) -> None:
    typer.echo(f"warning: {escape_control_characters(str(message))}", err=True)
