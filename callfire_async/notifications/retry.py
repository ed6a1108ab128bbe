"""The outcome of an attempt, and the delay before a failed one is retried."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Self

from attrs import evolve, frozen

from callfire_async._arguments import check_integer, check_number
from callfire_async.notifications.inbox.base import Inbox, Lease
from callfire_async.notifications.routing._failures import Failures, failure_reason

__all__ = ["Reject", "RetryPolicy"]

# A NATS message may have headers of some kilobytes, and a reason is for reading.
_MAX_REASON_LENGTH = 2000


class Reject(Exception):  # raised by user code to make a decision, so not an error of this library
    """Raised by a handler to end the retries: the delivery becomes a dead letter with this message as its reason."""


def rejection_reason(error: Reject, handler: str) -> str:
    """Return the reason of a delivery that a handler has rejected."""
    try:
        message = str(error)
    except Exception:  # noqa: BLE001  # a subclass may define a __str__ that raises
        message = ""
    return f"rejected: {message}" if message.strip() else f"rejected by {handler}"


@frozen
class RetryPolicy:
    """
    How often, and after which delays, a delivery whose handlers fail is retried.

    The delay before each attempt is random, between 0 and a limit that starts at *initial_delay* and is multiplied by
    five with each attempt, up to *max_delay*. The defaults retry for about a day at most.

    Raises:
        TypeError: *max_attempts* is not an integer, or a delay is not a number.
        ValueError: *max_attempts* is less than 1, or a delay is negative or not finite.
    """

    #: Number of attempts, including the first.
    max_attempts: int = 12
    #: Limit of the delay before the second attempt, in seconds; multiplied by five with each attempt.
    initial_delay: float = 5.0
    #: Limit of all delays, in seconds. Default: four hours.
    max_delay: float = 14400.0

    def __attrs_post_init__(self) -> None:
        """Validate the values."""
        check_integer("max_attempts", self.max_attempts, minimum=1)
        for name in ("initial_delay", "max_delay"):
            check_number(name, getattr(self, name))

    def delay(self, attempt: int, chance: float) -> float:
        """
        Return how long to wait before the next attempt, in seconds.

        Args:
            attempt: Number of attempts made so far, starting at 1.
            chance: A random number between 0 and 1.
        """
        # The exponent is limited because 5.0 ** 500 is beyond the range of a float.
        return chance * min(self.max_delay, self.initial_delay * 5.0 ** min(attempt - 1, 50))


def _storable(reason: str) -> str:
    """Return a reason that any inbox can store: encodable, without NUL, and short."""
    text = reason.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
    return text if len(text) <= _MAX_REASON_LENGTH else f"{text[:_MAX_REASON_LENGTH]}…"


@frozen
class Outcome:
    """The outcome of an attempt, with the operation that settles the lease."""

    #: As `AttemptRecord.outcome`.
    name: str
    #: The inbox operation, for log lines.
    operation: str
    settle: Callable[[Inbox, Lease], Awaitable[bool]]
    reason: str = ""
    #: What happens next, for log lines.
    next_step: str = "no further attempt"

    @classmethod
    def ack(cls, event_key: str) -> Self:
        """Mark the delivery as done."""
        return cls("handled", "ack", lambda inbox, lease: inbox.ack(lease, event_key=event_key))

    @classmethod
    def ignore(cls, event_key: str) -> Self:
        """Mark the delivery as done although no handler matches its event."""
        return evolve(cls.ack(event_key), name="unhandled")

    @classmethod
    def split(cls) -> Self:
        """Mark the delivery of an envelope as done: each of its events has a delivery of its own."""
        return evolve(cls.ack(event_key=""), name="split")

    @classmethod
    def nack(cls, delay: float, completed: frozenset[str], reason: str) -> Self:
        """Retry after *delay* seconds, without the handlers that have completed."""
        reason = _storable(reason)

        def settle(inbox: Inbox, lease: Lease) -> Awaitable[bool]:
            return inbox.nack(lease, delay=delay, completed=completed, reason=reason)

        return cls("failed", "nack", settle, reason, f"next attempt in {delay:.{0 if delay >= 10 else 1}f} s")

    @classmethod
    def dead_letter(cls, reason: str, completed: frozenset[str] = frozenset()) -> Self:
        """Make the delivery a dead letter; once it is replayed, the handlers that have completed do not run again."""
        reason = _storable(reason)

        def settle(inbox: Inbox, lease: Lease) -> Awaitable[bool]:
            # An inbox of the user may lack the parameter, which only some deliveries with several handlers need.
            options = {"completed": completed} if completed else {}
            return inbox.dead_letter(lease, reason, **options)

        return cls("dead", "dead-letter", settle, reason)

    @classmethod
    def release(cls, completed: frozenset[str]) -> Self:
        """Return the delivery without counting the attempt, because the worker stops."""
        return cls("released", "release", lambda inbox, lease: inbox.release(lease, completed=completed))


def outcome_after_failure(
    failures: Failures, attempt: int, completed: frozenset[str], policy: RetryPolicy, random: Callable[[], float]
) -> Outcome:
    """
    Return whether a delivery is retried, or becomes a dead letter.

    Args:
        failures: The exceptions by handler name.
        attempt: The number of the attempt that failed, starting at 1.
        completed: Names of the handlers that have succeeded.
        policy: When deliveries are retried.
        random: Returns a number from 0 up to 1.
    """
    for name, error in failures.items():
        if isinstance(error, Reject):
            return Outcome.dead_letter(rejection_reason(error, name), completed)
    reason = failure_reason(failures)
    if attempt < policy.max_attempts:
        return Outcome.nack(policy.delay(attempt, random()), completed, reason)
    if attempt == 1:
        return Outcome.dead_letter(f"the only attempt failed: {reason}", completed)
    return Outcome.dead_letter(f"{attempt} attempts failed, the last with {reason}", completed)
