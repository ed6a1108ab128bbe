"""What becomes of a delivery after an attempt, and when a failed one is retried."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Self

from attrs import frozen

from callfire_async.notifications.inbox.base import Inbox, Lease

__all__ = ["Reject", "RetryPolicy"]


class Reject(Exception):  # raised by user code to make a decision, so not an error of this library
    """Raised by a handler to end the retries: the delivery becomes a dead letter with this message as its reason."""


@frozen
class RetryPolicy:
    """
    How often, and after which delays, a delivery whose handlers fail is retried.

    The delay before each attempt is random, between 0 and a limit that starts at *initial_delay* and is multiplied by
    five with each attempt, up to *max_delay*. The defaults retry for about a day at most.

    Raises:
        ValueError: *max_attempts* is less than 1, or a delay is negative.
    """

    #: Including the first attempt.
    max_attempts: int = 12
    #: Limit of the delay before the second attempt, in seconds.
    initial_delay: float = 5.0
    #: Limit of all delays, in seconds. Default: four hours.
    max_delay: float = 14400.0

    def __attrs_post_init__(self) -> None:
        """Validate the values."""
        if self.max_attempts < 1:
            raise ValueError("max_attempts must be at least 1")
        for name in ("initial_delay", "max_delay"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")

    def delay(self, attempt: int, chance: float) -> float:
        """
        Return how long to wait before the next attempt, in seconds.

        Args:
            attempt: Number of attempts made so far, starting at 1.
            chance: A random number between 0 and 1.
        """
        # The exponent is limited because 5.0 ** 500 is beyond the range of a float.
        return chance * min(self.max_delay, self.initial_delay * 5.0 ** min(attempt - 1, 50))


@frozen
class Outcome:
    """The outcome of an attempt, with the operation that settles the lease."""

    #: As `AttemptRecord.outcome`.
    name: str
    #: The inbox operation, for log lines.
    operation: str
    settle: Callable[[Inbox, Lease], Awaitable[bool]]
    reason: str = ""

    @classmethod
    def ack(cls, event_key: str) -> Self:
        """Mark the delivery as done."""
        return cls("handled", "ack", lambda inbox, lease: inbox.ack(lease, event_key=event_key))

    @classmethod
    def nack(cls, delay: float, completed: frozenset[str], reason: str) -> Self:
        """Retry after *delay* seconds, without the handlers that have completed."""

        def settle(inbox: Inbox, lease: Lease) -> Awaitable[bool]:
            return inbox.nack(lease, delay=delay, completed=completed, reason=reason)

        return cls("failed", "nack", settle, reason)

    @classmethod
    def dead_letter(cls, reason: str) -> Self:
        """Make the delivery a dead letter."""
        return cls("dead", "dead-letter", lambda inbox, lease: inbox.dead_letter(lease, reason), reason)

    @classmethod
    def release(cls, completed: frozenset[str]) -> Self:
        """Return the delivery without counting the attempt, because the worker stops."""
        return cls("released", "release", lambda inbox, lease: inbox.release(lease, completed=completed))
