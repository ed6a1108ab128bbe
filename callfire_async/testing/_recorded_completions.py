"""`record_completions`: tests of handlers that call `CurrentAttempt.complete_in`, without PostgreSQL."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import TypeAlias

from attrs import frozen

from callfire_async.notifications.attempt import CurrentAttempt, completion_recorder, running
from callfire_async.notifications.events import Notification

__all__ = ["RecordedCompletion", "record_completions"]

Recorder: TypeAlias = Callable[[CurrentAttempt, object], None]


@frozen(eq=False)
class RecordedCompletion:
    """A call of `CurrentAttempt.complete_in`."""

    #: The attempt.
    attempt: CurrentAttempt
    #: The connection that was passed.
    connection: object


@contextmanager
def record_completions(event: Notification | None = None, *, number: int = 1) -> Iterator[list[RecordedCompletion]]:
    """
    Record calls of `CurrentAttempt.complete_in` instead of carrying them out; yield the list of them.

    In the block, any connection is accepted, and a handler may be called directly. It applies to handlers
    that are called in the block, to receivers that are started in it, with any inbox, and to those of `deliver`. It
    records the call only: whether the transaction commits makes no difference, and a retry runs the handler again.

    Args:
        event: The event of the current attempt, if handlers are called directly.
        number: Number of the current attempt, if handlers are called directly.
    """
    completions: list[RecordedCompletion] = []

    def record(attempt: CurrentAttempt, connection: object) -> None:
        completions.append(RecordedCompletion(attempt, connection))

    attempt = CurrentAttempt(1, number, "handler", event)
    with record_with(record), running(attempt):
        yield completions


@contextmanager
def record_with(recorder: Recorder) -> Iterator[None]:
    """Record calls of `complete_in` in the current context."""
    token = completion_recorder.set(recorder)
    try:
        yield
    finally:
        # In another context if the coroutine is closed instead of awaited.
        with suppress(ValueError):
            completion_recorder.reset(token)


def keep_recording() -> Callable[[], AbstractContextManager[None]]:
    """Return a function whose context managers record as the current context does, in the contexts of other tasks."""
    recorder = completion_recorder.get()
    return nullcontext if recorder is None else lambda: record_with(recorder)


RecordedCompletion.__module__ = "callfire_async.testing"
