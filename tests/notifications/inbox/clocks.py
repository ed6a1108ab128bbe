"""Clocks that stand still until they are turned."""

from engines.postgres import TurnedClock

from callfire_async.notifications.inbox import Clock

DAY = 86_400.0


class Clocks:
    """A machine's two clocks; whole seconds, so that sums are exact."""

    def __init__(self) -> None:
        self.monotonic = 1_000.0
        self.system = 1_700_000_000.0

    def clock(self) -> Clock:
        """Return the time of a process that starts now."""
        return Clock(monotonic=lambda: self.monotonic, system=lambda: self.system)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.monotonic += seconds
        self.system += seconds

    def set_back(self, seconds: float) -> None:
        """Set the system's clock, as an administrator does."""
        self.system -= seconds


class ServerClocks(Clocks):
    """The clocks of a server, which those who ask it share."""

    def __init__(self, turned: TurnedClock) -> None:
        super().__init__()
        self._turned = turned
        turned.show(self.system)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        super().advance(seconds)
        self._turned.show(self.system)
