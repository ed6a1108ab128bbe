"""What happens in a simulated run, and the promises that are checked while it happens."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from attrs import define, field, frozen

from callfire_async.notifications.inbox.base import Lease

#: Operations that end a lease.
SETTLING = frozenset(["ack", "nack", "release", "dead_letter"])


@define(eq=False)
class Run:
    """One run of a handler."""

    event: int
    handler: str
    #: One life of a process, from its start to its stop or crash.
    life: str
    is_suspect: bool
    outcome: str = "running"


@frozen
class DeliveryId:
    """A delivery of one server."""

    server: str
    #: A directory of files returns IDs as text.
    id: str = field(converter=str)


@define(eq=False)
class History:
    """Everything that the simulated parts report."""

    #: Numbers of the postbacks that got 204.
    acknowledged: set[int] = field(factory=set)
    runs: list[Run] = field(factory=list)
    #: Why a handler may succeed more than once, by server and key of the delivery.
    excuses: dict[tuple[str, str], set[str]] = field(factory=lambda: defaultdict(set))
    #: How often the lease of a delivery expired or was ended, by server and key.
    expirations: Counter[tuple[str, str]] = field(factory=Counter)
    #: Promises that were broken.
    violations: list[str] = field(factory=list)
    #: The token of the lease that holds a delivery.
    _tokens: dict[DeliveryId, str] = field(factory=dict)
    _keys: dict[DeliveryId, str] = field(factory=dict)

    # --- handlers -----------------------------------------------------------------------------------------

    def start_run(self, run: Run) -> None:
        """Record that a handler starts, and check that a suspect runs alone in its process."""
        others = [other for other in self._running(run.life) if other.event != run.event]
        if others and any(each.is_suspect for each in [run, *others]):
            self.violations.append(f"event {run.event} ran beside {others[0].event}, and one of them was a suspect")
        self.runs.append(run)

    def end_life(self, life: str) -> None:
        """Record that a process crashed."""
        for run in self._running(life):
            run.outcome = "crashed"

    def _running(self, life: str) -> list[Run]:
        return [run for run in self.runs if run.life == life and run.outcome == "running"]

    def successes(self) -> Counter[tuple[int, str]]:
        """Return how often each handler has succeeded with each event."""
        return Counter((run.event, run.handler) for run in self.runs if run.outcome == "succeeded")

    # --- operations of a server ---------------------------------------------------------------------------

    def token(self, server: str, lease: Lease | None) -> str | None:
        """Return the token of the lease that holds the delivery of *lease*."""
        return None if lease is None else self._tokens.get(DeliveryId(server, lease.id))

    def record_claim(self, server: str, leases: list[Lease]) -> None:
        """Record new leases; an older lease of the same delivery has expired."""
        for lease in leases:
            delivery = DeliveryId(server, lease.id)
            self._keys[delivery] = lease.delivery.key
            if delivery in self._tokens:
                self.expirations[server, lease.delivery.key] += 1
                self._excuse(delivery, "its lease expired")
            self._tokens[delivery] = lease.token

    def record_change(self, server: str, operation: str, lease: Lease, token: str | None) -> None:
        """Check that the worker that changed a delivery held it; *token* is that of the lease before the operation."""
        if token != lease.token:
            self.violations.append(f"{operation} of delivery {lease.id} by a worker that had lost its lease")
        if operation in SETTLING:
            self._tokens.pop(DeliveryId(server, lease.id), None)

    def end_leases(self, server: str) -> None:
        """Record that a server has ended all leases."""
        for delivery in [each for each in self._tokens if each.server == server]:
            del self._tokens[delivery]
            self.expirations[server, self._keys[delivery]] += 1
            self._excuse(delivery, "its lease was ended")

    def record_lost_response(self, server: str, operation: str, lease: Lease | None, result: Any) -> None:
        """Record that a worker does not know the result of an operation."""
        leases = result if operation == "claim" and result else [lease] if lease is not None else []
        for each in leases:
            self._excuse(DeliveryId(server, each.id), f"the response to {operation} was lost")

    def _excuse(self, delivery: DeliveryId, reason: str) -> None:
        self.excuses[delivery.server, self._keys[delivery]].add(reason)
