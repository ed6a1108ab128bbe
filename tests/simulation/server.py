"""A simulated inbox server, and the network between it and its clients."""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, TypeAlias

from attrs import define
from simulation.history import SETTLING, History

from callfire_async.errors import InboxError
from callfire_async.notifications.inbox.base import Clock, InboxEntry, Lease
from callfire_async.notifications.inbox.memory import MemoryInbox

Operation: TypeAlias = Callable[[MemoryInbox], Coroutine[Any, Any, Any]]


@define(eq=False)
class Network:
    """The faults between one client and its server. Rates are from 0 to 1."""

    #: Range of the latency in each direction, in seconds.
    latency: tuple[float, float] = (0.0005, 0.02)
    #: The server rejects the request, without an effect.
    error_rate: float = 0.0
    #: The request is lost.
    lost_request_rate: float = 0.0
    #: The request has its effect, and the response is lost.
    lost_response_rate: float = 0.0
    #: All requests and responses are lost.
    is_cut: bool = False
    #: The client crashes before the response to a request that had its effect.
    crash_rate: float = 0.0
    crash: Callable[[], None] = lambda: None

    def heal(self) -> None:
        """Remove all faults."""
        self.error_rate = self.lost_request_rate = self.lost_response_rate = self.crash_rate = 0.0
        self.is_cut = False


class AdjustableClock(Clock):
    """The clock of a server, which can jump."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(monotonic=loop.time, system=loop.time)
        self.offset = 0.0

    def seconds(self) -> float:
        """Return the seconds since the start of the simulation, plus all jumps."""
        return super().seconds() + self.offset


class Server:
    """
    A durable inbox that outlives the processes that use it.

    The state is a `MemoryInbox`. Each operation is atomic, and is recorded in the history.
    """

    def __init__(self, name: str, history: History, rng: Random) -> None:
        self.name = name
        self.history = history
        self.rng = rng
        self.clock = AdjustableClock()
        self.inbox = MemoryInbox(clock=self.clock, dedupe_window=1e9)
        # An operation that was requested runs to its end, even if the process that requested it crashes meanwhile.
        self._context = contextvars.copy_context()

    def call_later(self, seconds: float, function: Callable[..., object], *arguments: object) -> None:
        """Call a function that belongs to no process."""
        asyncio.get_running_loop().call_later(seconds, function, *arguments, context=self._context)

    def request(
        self, network: Network, name: str, operation: Operation, lease: Lease | None, response: asyncio.Future[Any]
    ) -> None:
        """Receive a request from a network, and send the response."""
        request = _Request(self, network, name, operation, lease, response)
        if not (network.is_cut or self._happens(network.lost_request_rate)):
            self.call_later(self.rng.uniform(*network.latency), request.execute)

    def _happens(self, rate: float) -> bool:
        return self.rng.random() < rate

    async def entries(self) -> list[InboxEntry]:
        """Return all deliveries."""
        return [entry async for entry in self.inbox.entries()]

    async def count_pending(self) -> int:
        """Return the number of deliveries that are neither done nor dead."""
        stats = await self.inbox.stats()
        return stats.ready + stats.delayed + stats.leased


@define(eq=False)
class _Request:
    _server: Server
    _network: Network
    _name: str
    _operation: Operation
    _lease: Lease | None
    _response: asyncio.Future[Any]

    def execute(self) -> None:
        """Carry out the operation, and send its result or its error."""
        rng, network = self._server.rng, self._network
        is_rejected, is_response_lost = rng.random() < network.error_rate, rng.random() < network.lost_response_rate
        result, error = self._attempt(is_rejected=is_rejected)
        if network.crash_rate and rng.random() < network.crash_rate:
            network.crash()
        elif is_response_lost or network.is_cut:
            self._server.history.record_lost_response(self._server.name, self._name, self._lease, result)
        else:
            self._server.call_later(rng.uniform(*network.latency), self._respond, result, error)

    def _attempt(self, *, is_rejected: bool) -> tuple[Any, InboxError | None]:
        if is_rejected:
            return None, InboxError("rejected by the server")
        history, name = self._server.history, self._server.name
        token = history.token(name, self._lease)
        try:
            result = run_without_waiting(self._operation(self._server.inbox))
        except InboxError as error:
            return None, error
        if self._name == "claim":
            history.record_claim(name, result)
        if self._lease is not None and result and self._name in {*SETTLING, "extend"}:
            history.record_change(name, self._name, self._lease, token)
        return result, None

    def _respond(self, result: Any, error: InboxError | None) -> None:
        if self._response.done():
            return
        if error is None:
            self._response.set_result(result)
        else:
            self._response.set_exception(error)


def run_without_waiting(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Return the result of a coroutine that does not wait."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise RuntimeError("the operation waits")
