"""Which exceptions of user code are failures of that code, and which must propagate."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from callfire_async.errors import HandlerErrors, InboxError
from callfire_async.notifications.routing._failures import types_and_lines

T = TypeVar("T")

#: They end the process.
_EXITS = (KeyboardInterrupt, SystemExit)


class _HandlerRaised(RuntimeError):
    """Replaces an exception that an `ExceptionGroup` cannot have; the exception is its ``__cause__``."""


class CallingTask:
    """The task that calls user code, with the number of its cancellations before the call."""

    __slots__ = ("_cancellations", "_task")

    def __init__(self) -> None:
        self._task = asyncio.current_task()
        self._cancellations = _cancellations(self._task)

    def raise_unless_failure(self, error: BaseException) -> None:
        """
        Raise an exception of user code again if it is not a failure of that code.

        It is not if the process ends, or if this task is being cancelled or its coroutine closed. A CancelledError of
        another task that user code awaits is a failure.
        """
        if isinstance(error, asyncio.CancelledError) and _cancellations(self._task) > self._cancellations:
            raise error
        if isinstance(error, GeneratorExit) and not self._is_running:
            raise error
        raise_exit(error)

    @property
    def _is_running(self) -> bool:
        try:
            return asyncio.current_task() is self._task
        except RuntimeError:  # there is no longer an event loop
            return False


def _cancellations(task: asyncio.Task[object] | None) -> int:
    return task.cancelling() if task is not None else 0


async def call_within(
    seconds: float | None, subject: str, function: Callable[..., Awaitable[T]], *arguments: object
) -> T:
    """
    Call a function of the user.

    Raises:
        TimeoutError: It took longer than *seconds*, and was cancelled. A note names it by *subject*.
    """
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await function(*arguments)
    except BaseException as error:
        if limit.expired():
            error.add_note(f"{subject} took longer than {seconds} seconds")
            if error.__suppress_context__ and error.__cause__ is None and error.__context__ is not None:
                # `raise ... from None` hides where the function was interrupted.
                error.add_note(f"it was interrupted in:\n{types_and_lines(error.__context__)}")
        raise


async def user_result(seconds: float | None, name: str, function: Callable[..., Awaitable[T]], *arguments: object) -> T:
    """
    Call a function of the user that is not a handler.

    Raises:
        HandlerErrors: The function failed, or took longer than *seconds*; *name* is its name.
    """
    task = CallingTask()
    try:
        return await call_within(seconds, name, function, *arguments)
    except BaseException as error:  # noqa: BLE001  # user code may raise anything
        task.raise_unless_failure(error)
        raise HandlerErrors(f"{name} failed", [as_exception(error, name)], failed=[name]) from None


async def inbox_result(operation: Callable[[], Awaitable[T]]) -> T:
    """
    Call an operation of an inbox.

    Raises:
        InboxError: The operation raised CancelledError, as a driver may, although the current task is not cancelled.
    """
    task = CallingTask()
    try:
        return await operation()
    except asyncio.CancelledError as error:
        task.raise_unless_failure(error)
        raise InboxError("the operation was cancelled") from error


def raise_exit(error: BaseException) -> None:
    """Raise the KeyboardInterrupt or SystemExit in an exception, which may be a group."""
    if isinstance(error, _EXITS):
        raise error
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            raise_exit(member)


def as_exception(error: BaseException, subject: str) -> Exception:
    """Return an exception that an `ExceptionGroup` accepts: *error*, or one with *error* as its cause."""
    if isinstance(error, Exception):
        return error
    replacement = _HandlerRaised(f"{subject} raised {type(error).__name__}")
    replacement.__cause__ = error
    return replacement


def exceptions_by_name(errors: HandlerErrors) -> dict[str, BaseException]:
    """Return the exceptions of a dispatch's handlers, by the handlers' names."""
    raised = (error.__cause__ if isinstance(error, _HandlerRaised) else error for error in errors.exceptions)
    return {name: error for name, error in zip(errors.failed, raised, strict=True) if error is not None}
