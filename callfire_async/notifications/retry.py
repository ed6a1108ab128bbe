"""Retry policy of deliveries whose handlers fail."""

from attrs import frozen

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
