"""One simulated run: receivers, postbacks and faults, until all deliveries are settled."""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING

from simulation.environment import Environment, set_task_order
from simulation.faults import Faults, restart_crashed, wait_for_recovery
from simulation.process import Process
from simulation.promises import find_broken_promises
from simulation.settings import Settings

if TYPE_CHECKING:
    import simloom

#: How long all deliveries may take after the last fault, in seconds: leases expire, and a spool backs off, meanwhile.
RECOVERY_TIMEOUT = 600.0
#: A loop that does not wait ends the run after this number of steps without any progress of time.
MAX_STEPS = 5_000
#: Garbage is not collected during a run, which would cost more time than the run.
NEVER = 10**9


def simulate(seed: int, settings: Settings, *, is_repeated: bool = False) -> list[str]:
    """
    Run one simulation; return the promises that were broken.

    Args:
        seed: The seed of everything random: the order of the tasks, the network, the faults and the handlers.
        settings: What happens.
        is_repeated: Whether to run it twice, and to raise an exception unless both runs are equal.

    Raises:
        simloom.SimloomError: An exception was not handled, all tasks waited for each other, or a task used up the time
            without waiting.
    """
    # Needs Python 3.12.
    import simloom

    async def main(world: simloom.World) -> list[str]:
        rng = Random(seed)
        set_task_order(rng)
        if not is_repeated:
            asyncio.get_running_loop()._log = NoLog()
        return await _run(Environment(world, settings, rng))

    return simloom.run(
        main,
        seed=seed,
        virtual_time=True,
        seed_randomness=True,
        gc_interval=NEVER,
        max_steps_per_instant=MAX_STEPS,
        check_determinism=is_repeated,
    ).value


class NoLog:
    """Replaces simloom's log of all steps, which takes a sixth of the time and is only needed to compare two runs."""

    def emit(self, *_: object, **__: object) -> None:
        pass


async def _run(env: Environment) -> list[str]:
    processes = [Process(env, f"receiver {number}") for number in range(env.settings.processes)]
    for process in processes:
        process.start()
    supervisor = asyncio.create_task(restart_crashed(processes))
    await asyncio.gather(_send_postbacks(env, processes), Faults(env, processes).run())
    processes = [process for process in processes if not process.is_gone]
    has_recovered = await wait_for_recovery(processes, RECOVERY_TIMEOUT)
    supervisor.cancel()
    if not has_recovered:
        return [*env.history.violations, await _describe_pending(env, processes)]
    for process in processes:
        await process.check_counters()
    for process in processes:
        await process.stop()
    return await find_broken_promises(env)


async def _send_postbacks(env: Environment, processes: list[Process]) -> None:
    for number in range(env.settings.postbacks):
        await asyncio.sleep(env.rng.uniform(0.0, 2 * env.settings.duration / env.settings.postbacks))
        env.rng.choice(processes).post(number)
        if env.happens(env.settings.repeated_rate):
            env.rng.choice(processes).post(env.rng.randint(0, number))


async def _describe_pending(env: Environment, processes: list[Process]) -> str:
    servers = [*env.primaries, *(server for process in processes for server in process.servers)]
    pending = {server.name: await server.count_pending() for server in servers}
    unready = [process.life for process in processes if not process.is_ready]
    return f"pending after {RECOVERY_TIMEOUT:g} s: {pending}; not ready: {unready}"
