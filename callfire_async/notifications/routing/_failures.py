"""Logs and summarizes the exceptions of user code."""

import logging
import traceback
from collections.abc import Iterator, Mapping
from typing import TypeAlias

from attrs import define, field, frozen

from callfire_async.notifications.events import Notification

#: Exceptions by the names of the handlers that raised them.
Failures: TypeAlias = Mapping[str, BaseException]

_log = logging.getLogger("callfire_async.worker")
_receiver_log = logging.getLogger("callfire_async.receiver")

# A sender can invent IDs, each of which would be logged.
_MAX_SOURCES = 100


def failure_reason(failures: Failures) -> str:
    """Return the names of failed handlers and the types of their exceptions, whose messages may be private."""
    return ", ".join(f"{name}: {type(error).__name__}" for name, error in failures.items())


@frozen
class FailureLog:
    """Logs exceptions of user code; *log_exceptions* is the argument of `Receiver`."""

    _log_exceptions: bool = True

    def log_handlers(self, failures: Failures, consequence: str, **fields: object) -> None:
        """Log each failed handler. *fields* become attributes of the log records, prefixed with ``callfire_``."""
        for name, error in failures.items():
            self.log(f"handler {name}", error, consequence, handler=name, **fields)

    def log(self, subject: str, error: BaseException, consequence: str, **fields: object) -> None:
        """Log an exception with its traceback; without messages if exceptions must not be logged."""
        extra = {f"callfire_{name}": value for name, value in fields.items()}
        line = "%s failed: %s (%s)"
        arguments = (subject, type(error).__name__, consequence)
        if self._log_exceptions:
            _log.error(line, *arguments, exc_info=error, extra=extra)
        else:
            _log.error(f"{line}\n%s", *arguments, types_and_lines(error), extra=extra)


def types_and_lines(error: BaseException) -> str:
    """Return the types and the source lines of an exception, of its causes and of its members, without messages."""
    return "".join(_types_and_lines(error, set())).rstrip()


def _types_and_lines(error: BaseException, seen: set[int]) -> Iterator[str]:
    """Yield them in the order of a traceback, in which causes come first."""
    seen.add(id(error))
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    members = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    if cause is not None and id(cause) not in seen:
        yield from _types_and_lines(cause, seen)
    yield f"{type(error).__name__}\n"
    yield from traceback.format_tb(error.__traceback__)
    for member in members:
        yield from _types_and_lines(member, seen)


@define(eq=False)
class UnhandledEventLog:
    """Logs ignored events: those that match no handler, once for each type, and those of unknown sources."""

    _types: set[type[Notification]] = field(factory=set)
    _sources: set[str] = field(factory=set)

    def record(self, event: Notification) -> None:
        """Log an event, unless one of its type was logged."""
        if type(event) not in self._types:
            self._types.add(type(event))
            name = type(event).__name__
            _receiver_log.warning("no handler matches %s; ignoring this and further events of this type", name)

    def record_unknown(self, reason: str) -> None:
        """Log why an event is not handled, once for each unknown subscription or webhook."""
        if reason not in self._sources and len(self._sources) < _MAX_SOURCES:
            self._sources.add(reason)
            _receiver_log.warning("%s; ignoring its events", reason)
