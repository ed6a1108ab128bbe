"""Checks of arguments: each raises an error that begins with the parameter's name."""

import inspect
import math
import re
import typing
from collections.abc import Awaitable, Container, Iterable, Sized
from functools import partial
from numbers import Integral, Real
from typing import Any

# A return annotation that cannot be resolved, for example a name that is imported only for type checkers.
_AWAITABLE_NAME = re.compile(r"([\w.]+\.)?(Awaitable|Coroutine)(\[.*\])?", re.DOTALL)
# An object may return another object for any attribute, so a chain of wrappers may have no end.
_MAX_WRAPPERS = 100
# Shorter signing secrets can be guessed.
MIN_SECRET_LENGTH = 16


# --- numbers ----------------------------------------------------------------------------------------------


def check_number(name: str, value: object, *, minimum: float = 0, is_exclusive: bool = False) -> None:
    """
    Raise an error unless a value is a finite number of at least *minimum*, or more than it if *is_exclusive*.

    Raises:
        TypeError: It is not a number; a bool is not one.
        ValueError: It is NaN, infinite or too small.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, not {type_name(value)}")
    if not _is_finite(value):
        raise ValueError(f"{name} must be a finite number")
    _check_minimum(name, value, minimum, is_exclusive=is_exclusive)


def check_integer(name: str, value: object, *, minimum: int = 0) -> None:
    """
    Raise an error unless a value is an integer of at least *minimum*.

    Raises:
        TypeError: It is not an integer; neither a bool nor 1.0 is one.
        ValueError: It is too small.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer, not {type_name(value)}")
    _check_minimum(name, value, minimum, is_exclusive=False)


def _is_finite(value: Real) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond the range of a float
        return False


def _check_minimum(name: str, value: Any, minimum: float, *, is_exclusive: bool) -> None:
    if value > minimum or (value == minimum and not is_exclusive):
        return
    if is_exclusive:
        raise ValueError(f"{name} must be more than {minimum}")
    raise ValueError(f"{name} must not be negative" if minimum == 0 else f"{name} must be at least {minimum}")


def type_name(value: object) -> str:
    """Return the name of a value's type for an error message, or of the class if a class was given."""
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


# --- ids --------------------------------------------------------------------------------------------------


def is_id_container(value: object) -> bool:
    """Return whether a value is a container that may have ids, which are integers."""
    return isinstance(value, Container) and not isinstance(value, str | bytes | bytearray | memoryview)


def check_ids(name: str, ids: object) -> None:
    """
    Raise a `TypeError` if a container that can be counted has an element that is not an id.

    An empty container is valid, because it may be filled later.
    """
    if isinstance(ids, range) or not (isinstance(ids, Iterable) and isinstance(ids, Sized)):
        return
    for id in ids:
        if isinstance(id, bool) or not isinstance(id, Integral):
            raise TypeError(f"{name} must have only integers, such as {{41001}}, but an element is {type_name(id)}")


# --- secrets ----------------------------------------------------------------------------------------------


def is_weak_secret(secret: str) -> bool:
    """Return whether a signing secret can be guessed: it is empty or has fewer than 16 characters."""
    return len(secret) < MIN_SECRET_LENGTH


# --- objects ----------------------------------------------------------------------------------------------


def check_instance(name: str, value: object, expected: type, example: str) -> None:
    """Raise a `TypeError` unless a value is an instance of a class; *example* is code that makes one."""
    if not isinstance(value, expected):
        article = "an" if expected.__name__[0] in "AEIO" else "a"
        raise TypeError(f"{name} must be {article} {expected.__name__}, such as {example}, not {type_name(value)}")


def check_bool(name: str, value: object) -> None:
    """Raise a `TypeError` unless a value is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {type_name(value)}")


def check_methods(name: str, value: object, methods: Iterable[str], expected: str) -> None:
    """Raise a `TypeError` if a value is a class, or lacks a method of what is *expected*."""
    if isinstance(value, type):
        raise TypeError(f"{name} must be {expected}, not {type_name(value)}; create an instance")
    if missing := [method for method in methods if not callable(getattr(value, method, None))]:
        raise TypeError(f"{name} must be {expected}, not {type_name(value)}, which has no {', '.join(missing)}")


# --- functions --------------------------------------------------------------------------------------------


def check_async_function(name: str, function: object, example: str, *arguments: object) -> None:
    """
    Raise a `TypeError` unless a function is asynchronous and accepts these arguments.

    It may be an ``async def``, a partial or a wrapper of one, an object with an async ``__call__``, or a function that
    is annotated to return an `Awaitable` or a `Coroutine`.
    """
    if not is_async(function):
        raise TypeError(f"{name} must be a coroutine function, such as {example}, not {_described(function)}")
    check_accepts(name, function, *arguments)


def check_plain_function(name: str, function: object, *arguments: object) -> None:
    """Raise a `TypeError` unless a function is not asynchronous and accepts these arguments."""
    if not callable(function):
        raise TypeError(f"{name} must be a function, not {type_name(function)}")
    if is_async(function):
        raise TypeError(f"{name} must be a plain function, because it is not awaited; not a coroutine function")
    check_accepts(name, function, *arguments)


def check_accepts(name: str, function: Any, *arguments: object) -> None:
    """Raise a `TypeError` if a function cannot be called with these arguments."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some functions that are written in C have no signature
        return
    try:
        signature.bind(*arguments)
    except TypeError as error:
        count = "one argument" if arguments else "a call without arguments"
        raise TypeError(f"{name} must accept {count}: {error}") from None


def _described(value: object) -> str:
    if callable(value) and not isinstance(value, type):
        return f"{getattr(value, '__name__', type(value).__name__)}, which is not asynchronous"
    return type_name(value)


def is_async(function: object) -> bool:
    """Return whether calling a function, or an object with ``__call__``, returns something to await."""
    for _ in range(_MAX_WRAPPERS):
        if not callable(function) or isinstance(function, type):
            return False
        if _is_async_function(function) or _is_async_function(type(function).__call__):
            return True
        function = function.func if isinstance(function, partial) else getattr(function, "__wrapped__", None)
    return False


def _is_async_function(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or _returns_awaitable(function)


def _returns_awaitable(function: Any) -> bool:
    annotation = _return_annotation(function)
    if isinstance(annotation, str):
        return _AWAITABLE_NAME.fullmatch(annotation.strip()) is not None
    annotation = getattr(annotation, "__value__", annotation)  # of an alias that a `type` statement defines
    origin = typing.get_origin(annotation) or annotation
    return isinstance(origin, type) and issubclass(origin, Awaitable)


def _return_annotation(function: Any) -> object:
    """Return the annotation of the result; its source if it cannot be resolved; None without an annotation."""
    try:
        return typing.get_type_hints(function).get("return")
    except Exception:  # noqa: BLE001  # an annotation may be any expression
        annotations = getattr(function, "__annotations__", None)
        return annotations.get("return") if isinstance(annotations, dict) else None
