"""What a receiver that is killed under load leaves to the next one."""

import asyncio
import random
import time
from collections.abc import Iterable

from notifications.crash.poster import Poster
from notifications.crash.processes import Processes

# What a receiver handles at once unless it is told otherwise: what one crash may repeat.
CONCURRENCY = 16
# How often a process is killed again before it is ready.
KILLED_STARTING = 0.2


async def test_nothing_acknowledged_is_lost_when_the_process_is_killed(processes, ledger, chance, torture, tell):
    """Killed at random moments under load, every notification that was answered 204 is handled, and none is buried."""
    kills, total = (100, 1_000_000) if torture else (10, 20_000)
    poster = Poster(processes.settings.port, short_wait)
    begun = time.monotonic()

    async with poster.posting():
        kills += await kill_at(sorted(chance.sample(range(total), kills)), processes, poster, chance)
        await poster.acknowledges(total)
    lost = await ledger.lost(poster.acknowledged)
    dead = await ledger.drained()

    tell(
        f"{len(poster.acknowledged)} acknowledged, {len(lost)} lost, {ledger.repeated} handled again, {dead} dead,"
        f" {kills} kills, {poster.unanswered} broken off, {time.monotonic() - begun:.0f} s"
    )
    assert (lost, dead, poster.other_statuses) == (set(), 0, {})
    assert ledger.check_integrity() == {"ok"}
    assert ledger.repeated <= kills * CONCURRENCY


async def kill_at(moments: Iterable[int], processes: Processes, poster: Poster, chance: random.Random) -> int:
    """
    Kill the receiver whenever so many are acknowledged; start it again each time.

    Returns:
        How often it was killed besides, while it was starting.
    """
    killed_starting = 0
    process = await processes.start_ready()
    for moment in moments:
        await poster.acknowledges(moment)
        # Else every kill would follow upon an answer.
        await asyncio.sleep(chance.uniform(0, 0.02))
        await process.killed()
        if chance.random() < KILLED_STARTING:
            killed_starting += 1
            process = await processes.start()
            await asyncio.sleep(chance.uniform(0, 1))
            await process.killed()
        process = await processes.start_ready()
    return killed_starting


def short_wait(number: int) -> str:
    """Let one handler in ten take a moment, so that a kill finds some begun."""
    return "" if number % 10 else "wait 0.01"
