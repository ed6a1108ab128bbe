"""
When a delivery whose handlers fail is tried again, and when no more.

This module imports nothing of the package.
"""

from attrs import frozen

__all__ = ["Reject", "RetryPolicy"]


class Reject(Exception):  # a verdict, said by a handler, not an error of this library
    """Raised by a handler to end the retries at once: the delivery becomes a dead letter for this reason."""


@frozen
class RetryPolicy:
    """
    How often, and how long apart, a delivery whose handlers fail is tried again.

    The delay before each attempt is drawn between nothing and a limit that starts at *initial_delay* and is five times
    as long each time, up to *max_delay*. The defaults try for about a day at the longest.

    Raises:
        ValueError: Less than one attempt, or a negative delay.
    """

    #: The first one included.
    max_attempts: int = 12
    #: Seconds; the limit of the delay before the second attempt.
    initial_delay: float = 5.0
    #: Seconds; four hours, unless given.
    max_delay: float = 14400.0

    def __attrs_post_init__(self) -> None:
        """Refuse what would retry nothing, or into the past."""
        if self.max_attempts < 1 or self.initial_delay < 0 or self.max_delay < 0:
            raise ValueError("max_attempts is 1 or more, a delay 0 or more")

    def delay(self, attempt: int, chance: float) -> float:
        """Return how many seconds to wait after an attempt, from 1; *chance* is between 0 and 1."""
        # A float grows no further than 10 ** 308, and attempts are as many as the caller likes.
        return chance * min(self.max_delay, self.initial_delay * 5.0 ** min(attempt - 1, 50))
