"""What the library logs while a command runs: lines on standard error, as a person reads them."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import typer

from callfire_async.cli._output import escape_control_characters

__all__ = ["logs_to_stderr", "silenced"]

_ROOT = "callfire_async"


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
    """Say warnings and errors of the library's."""
    logger, handler = logging.getLogger(_ROOT), _StderrHandler(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


@contextmanager
def silenced(*names: str) -> Iterator[None]:
    """Say nothing of what these loggers log: the command shows it in words of its own."""
    with ExitStack() as stack:
        for logger in map(logging.getLogger, names):
            logger.addFilter(_nothing)
            stack.callback(logger.removeFilter, _nothing)
        yield


def _nothing(_: logging.LogRecord) -> bool:
    return False
