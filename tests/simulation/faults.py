"""The faults of a simulated run: each begins at a random time and hits a random process."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from attrs import define
from simulation.environment import Environment, now
from simulation.process import RESTART_INTERVAL, Process

#: Range of the length of a partition, in seconds.
PARTITION = (0.5, 20.0)
#: By how many seconds the clock of the server jumps: some leases live longer, or all expire.
CLOCK_JUMPS = (-30.0, 90.0, 3600.0)
#: More than storing a postback takes if the server does not respond, in seconds.
STORE_SECONDS = 10.0


@define(eq=False)
class Faults:
    """The faults that a run's settings ask for."""

    env: Environment
    processes: Sequence[Process]

    async def run(self) -> None:
        """Cause all faults, and return when the last one has ended."""
        self._disturb_networks()
        settings = self.env.settings
        faults = [
            *[self._crash] * settings.crashes,
            *[self._restart] * settings.restarts,
            *[self._cut] * settings.partitions,
            *[self._jump] * settings.clock_jumps,
            *[self._stop_in_outage] * settings.outages,
            *[self._lose] * settings.losses,
        ]
        await asyncio.gather(*(self._cause(fault) for fault in faults))

    def _disturb_networks(self) -> None:
        settings, rng = self.env.settings, self.env.rng
        for process in self.processes:
            process.network.error_rate = rng.uniform(0.0, settings.error_rate)
            process.network.lost_request_rate = rng.uniform(0.0, settings.lost_rate)
            process.network.lost_response_rate = rng.uniform(0.0, settings.lost_rate)
            process.network.crash_rate = rng.uniform(0.0, settings.crash_rate)

    async def _cause(self, fault: Callable[[Process], Awaitable[None]]) -> None:
        await asyncio.sleep(self.env.rng.uniform(0.0, self.env.settings.duration))
        await fault(self.env.rng.choice(self.processes))

    async def _lose(self, process: Process) -> None:
        process.is_gone = True
        if self.env.happens(0.5):
            process.crash()
        else:
            await process.stop()

    async def _crash(self, process: Process) -> None:
        if process.is_ready:
            process.crash()

    async def _restart(self, process: Process) -> None:
        if process.is_ready:
            life = process.life
            await process.stop()
            if process.life == life and not (process.has_crashed or process.is_gone):
                process.start()

    async def _cut(self, process: Process) -> None:
        process.network.is_cut = True
        await asyncio.sleep(self.env.rng.uniform(*PARTITION))
        process.network.is_cut = False

    async def _stop_in_outage(self, _: Process) -> None:
        """Cut off all processes; each may be stopped at any time, before the server is back or after that."""
        cuts = asyncio.gather(*(self._cut(process) for process in self.processes))
        await asyncio.gather(*(self._stop_soon(process) for process in self.processes if self.env.happens(0.6)))
        await cuts

    async def _stop_soon(self, process: Process) -> None:
        await asyncio.sleep(self.env.rng.uniform(0.0, PARTITION[1]))
        await self._restart(process)

    async def _jump(self, _: Process) -> None:
        self.env.server.clock.offset += self.env.rng.choice(CLOCK_JUMPS)


async def restart_crashed(processes: Sequence[Process]) -> None:
    """Start crashed processes again, as a supervisor does, until this is cancelled."""
    while True:
        await asyncio.sleep(RESTART_INTERVAL)
        for process in processes:
            if process.has_crashed and not process.is_gone and now() >= process.restart_at:
                process.start()


async def wait_for_recovery(processes: Sequence[Process], timeout: float) -> bool:
    """Remove the faults of the networks, and wait until nothing is pending; return False if that takes too long."""
    for process in processes:
        process.network.heal()
    deadline = now() + timeout
    while not (await _has_recovered(processes) and await _has_recovered_for_good(processes)):
        if now() > deadline:
            return False
        await asyncio.sleep(1.0)
    return True


async def _has_recovered_for_good(processes: Sequence[Process]) -> bool:
    """Return whether nothing becomes pending: the postback of a cancelled request may still be stored."""
    await asyncio.sleep(STORE_SECONDS)
    return await _has_recovered(processes)


async def _has_recovered(processes: Sequence[Process]) -> bool:
    """Return whether all processes are ready, and no postback and no delivery is pending."""
    if not all(process.is_ready and not process.has_requests for process in processes):
        return False
    servers = [*processes[0].env.primaries, *(server for process in processes for server in process.servers)]
    return not any([await server.count_pending() for server in servers])
