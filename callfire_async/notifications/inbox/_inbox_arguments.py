"""Checks of the arguments of inboxes and of their operations: each raises an error that begins with the name."""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike
from typing import Any, TypeVar

from callfire_async._arguments import check_methods, type_name

__all__ = [
    "check_clock",
    "check_flags",
    "check_inbox",
    "check_positive",
    "check_primary",
    "check_seconds",
    "checked_list",
]

T = TypeVar("T")

# The methods that a receiver, its worker and a spool call.
_INBOX_METHODS = (
    *("__aenter__", "__aexit__", "append", "append_many", "claim", "extend", "ack", "nack", "release"),
    *("dead_letter", "get", "stats", "wait"),
)


def check_inbox(name: str, value: object) -> None:
    """Raise a `TypeError` if a value is a class, or lacks a method of an inbox."""
    check_methods(name, value, _INBOX_METHODS, 'an inbox, such as SqliteInbox("callfire.db")')


def check_primary(primary: object) -> None:
    """Raise a `TypeError` for None, an address or a class in place of an inbox."""
    if primary is None or isinstance(primary, str | bytes | PathLike | type):
        raise TypeError(f"primary must be an inbox, such as PostgresInbox(url), not {type_name(primary)}")


def check_clock(clock: object) -> None:
    """Raise a `TypeError` unless *clock* is None or a clock."""
    if clock is not None and not callable(getattr(clock, "seconds", None)):
        raise TypeError(f"clock must be a Clock, not {type_name(clock)}")


def check_seconds(**values: object) -> None:
    """Raise `TypeError` for the first value that is not a number, `ValueError` for one that is negative or NaN."""
    for name, value in values.items():
        if not _number(name, value) >= 0:
            raise ValueError(f"{name} must be 0 or more seconds, not {value}")


def check_positive(**values: object) -> None:
    """Raise `TypeError` for the first value that is not a number, `ValueError` for one that is not more than 0."""
    for name, value in values.items():
        if not _number(name, value) > 0:
            raise ValueError(f"{name} must be more than 0 seconds, not {value}")


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number of seconds, not {type_name(value)}")
    return value


def check_flags(**values: object) -> None:
    """Raise `TypeError` for the first value that is not a bool."""
    for name, value in values.items():
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False, not {type_name(value)}")


def checked_list(name: str, values: Iterable[T]) -> list[T]:
    """
    Return values as a list.

    Raises:
        TypeError: They are not several values. A single text is not: its characters would be the values.
    """
    given: Any = values
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise TypeError(f"{name} must be a list or another iterable, not a single {type_name(given)}")
    return list(values)
