"""Clocks that only move when a test moves them."""

from engines.postgres import SettableClock

from callfire_async.notifications.inbox import Clock

DAY = 86_400.0


class Clocks:
    """The monotonic and the system clock of a machine, in whole seconds, so that sums are exact."""

    def __init__(self) -> None:
        self.monotonic = 1_000.0
        self.system = 1_700_000_000.0

    def clock(self) -> Clock:
        """Return the clock of a process that starts now."""
        return Clock(monotonic=lambda: self.monotonic, system=lambda: self.system)

    def advance(self, seconds: float) -> None:
        """Move both clocks forward."""
        self.monotonic += seconds
        self.system += seconds

    def set_back(self, seconds: float) -> None:
        """Set the system clock back, as an administrator may do."""
        self.system -= seconds


class ServerClocks(Clocks):
    """The clocks of a database server and its clients."""

    def __init__(self, server_clock: SettableClock) -> None:
        super().__init__()
        self._server_clock = server_clock
        server_clock.show(self.system)

    def advance(self, seconds: float) -> None:
        """Move both clocks forward."""
        super().advance(seconds)
        self._server_clock.show(self.system)
