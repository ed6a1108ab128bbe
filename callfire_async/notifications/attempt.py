"""`current_attempt`: the attempt of the running handler, and exactly-once effects."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from contextvars import ContextVar, Token
from datetime import UTC, datetime
from types import TracebackType
from typing import TypeAlias

from attrs import define, field, frozen

from callfire_async.notifications.events import Notification, event_key
from callfire_async.notifications.inbox.base import Inbox, Lease, complete_in

__all__ = ["CurrentAttempt", "LeaseEnd", "around_attempt", "completion_recorder", "current_attempt"]

Around: TypeAlias = Callable[[str], AbstractContextManager[object]]


@define
class LeaseEnd:
    """When a lease ends, in seconds since 1970; later after each extension."""

    seconds: float


@frozen(eq=False)
class CurrentAttempt:
    """
    The attempt at a delivery that a handler is part of; returned by `current_attempt`.

    It stays usable in tasks that the handler starts.
    """

    #: ID of the delivery; None without an inbox.
    delivery_id: int | str | None
    #: Number of the attempt, starting at 1.
    number: int
    #: Name of the handler.
    handler: str
    _event: Notification | None = field(default=None, repr=False)
    _inbox: Inbox | None = field(default=None, repr=False)
    _lease: Lease | None = field(default=None, repr=False)
    _lease_end: LeaseEnd | None = field(default=None, repr=False)

    @property
    def event_key(self) -> str:
        """Key of the event as text, as for `Inbox.handled`."""
        return "" if self._event is None else event_key(self._event)

    @property
    def lease_expires_at(self) -> datetime | None:
        """
        When the lease ends at the earliest, with a UTC offset; later each time the lease is extended.

        The receiver extends it until the handler has returned. None without an inbox.
        """
        return None if self._lease_end is None else datetime.fromtimestamp(self._lease_end.seconds, UTC)

    async def complete_in(self, connection: object) -> None:
        """
        Record, in the open transaction of *connection*, that this handler is done with this delivery.

        Once the transaction has committed, no later attempt runs the handler again, even if the handler raises after
        that, times out, or its process crashes. If the transaction is rolled back, nothing is recorded. Until the
        transaction ends, no other worker can claim the delivery, even if the lease expires. In one transaction, further
        calls have no effect. Exceptions of the driver, such as serialization failures, are raised unchanged.

        Args:
            connection: An `asyncpg.Connection`, a `psycopg.AsyncConnection`, or SQLAlchemy's `AsyncConnection` or
                `AsyncSession`, of the database of the `PostgresInbox`.

        Raises:
            LeaseLostError: The lease was lost or has ended: roll back, because another worker may handle the delivery.
            InboxError: An earlier transaction has completed this handler: roll back.
            TypeError: The inbox is not a `PostgresInbox`, or *connection* is of another type.
            ValueError: *connection* is to another database.
            RuntimeError: No transaction is open.
        """
        record = completion_recorder.get()
        if record is not None:
            record(self, connection)
        else:
            await complete_in(self._inbox, self._lease, self.handler, connection)


_current: ContextVar[CurrentAttempt] = ContextVar("callfire_async.current_attempt")
#: Set in tests: called instead of an inbox's ``complete_in``.
completion_recorder: ContextVar[Callable[[CurrentAttempt, object], None] | None] = ContextVar(
    "callfire_async.completion_recorder", default=None
)


def current_attempt() -> CurrentAttempt:
    """
    Return the attempt that runs the current handler.

    Raises:
        RuntimeError: The caller is not a handler that a receiver runs, or a task of one.
    """
    try:
        return _current.get()
    except LookupError:
        raise RuntimeError(
            "current_attempt must be called in a handler that a receiver runs; in a test of a handler, use"
            " callfire_async.testing.record_completions"
        ) from None


@define(eq=False)
class _Running(AbstractContextManager[None]):
    """The time in which an attempt is the current one, inside another context."""

    _attempt: CurrentAttempt
    _outer: AbstractContextManager[object]
    _token: Token[CurrentAttempt] = field(init=False)

    def __enter__(self) -> None:
        self._outer.__enter__()
        self._token = _current.set(self._attempt)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # This is another context if the coroutine is closed instead of awaited.
        with suppress(ValueError):
            _current.reset(self._token)
        self._outer.__exit__(kind, error, trace)


def running(attempt: CurrentAttempt) -> AbstractContextManager[None]:
    """Return a context in which an attempt is the current one."""
    return _Running(attempt, nullcontext())


def around_attempt(
    observed: Around,
    event: Notification,
    inbox: Inbox | None = None,
    lease: Lease | None = None,
    lease_end: LeaseEnd | None = None,
) -> Around:
    """Return a function like *observed*, which also makes the handler's attempt the current one."""
    id, number = (None, 1) if lease is None else (lease.id, lease.attempt)
    return lambda name: _Running(CurrentAttempt(id, number, name, event, inbox, lease, lease_end), observed(name))
