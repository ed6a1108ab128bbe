"""Logs and summarizes what handlers raise, without exception messages, which may quote a number or a text."""

import logging
import traceback
from collections.abc import Sequence
from typing import TypeAlias

from callfire_async.errors import HandlerErrors

#: Exceptions with the names of the handlers that raised them.
Failures: TypeAlias = Sequence[tuple[str, BaseException]]

_log = logging.getLogger("callfire_async.worker")


def failures_by_name(errors: HandlerErrors) -> Failures:
    """Return the exceptions of a dispatch with the names of their handlers."""
    return list(zip(errors.failed, errors.exceptions, strict=True))


def failure_reason(failures: Failures) -> str:
    """Return the names of failed handlers and the types of their exceptions."""
    return ", ".join(f"{name}: {type(error).__name__}" for name, error in failures)


def log_handler_failures(failures: Failures) -> None:
    """Log each failed handler."""
    for name, error in failures:
        log_failure(f"handler {name}", error)


def log_failure(subject: str, error: BaseException) -> None:
    """Log the type and the traceback of an exception."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    _log.error("%s failed: %s\n%s", subject, type(error).__name__, frames)
