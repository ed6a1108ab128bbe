"""Print the library's log records on standard error."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import typer

from callfire_async.cli._output import escape_control_characters

__all__ = ["logs_to_stderr", "silenced"]


class _StderrHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        # The command prints the exception when it ends.
        if getattr(record, "also_raised", False):
            return
        first, *rest = record.getMessage().rstrip().splitlines() or [""]
        for line in (f"{record.levelname.lower()}: {first}", *rest):
            typer.echo(escape_control_characters(line), err=True)


@contextmanager
def logs_to_stderr() -> Iterator[None]:
    """Print the library's warnings and errors."""
    logger, handler = logging.getLogger("callfire_async"), _StderrHandler(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


@contextmanager
def silenced(*names: str) -> Iterator[None]:
    """Drop the records of these loggers."""
    with ExitStack() as stack:
        for logger in map(logging.getLogger, names):
            logger.addFilter(_reject)
            stack.callback(logger.removeFilter, _reject)
        yield


def _reject(_: logging.LogRecord) -> bool:
    return False
