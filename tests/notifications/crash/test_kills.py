"""A receiver that is killed under load and restarted."""

import asyncio
import random
import time
from collections.abc import Iterable

from notifications.crash.poster import Poster
from notifications.crash.processes import Processes

# The receiver's default concurrency: one crash repeats at most this number of deliveries.
CONCURRENCY = 16
# The probability that a process is killed again before it is ready.
KILLED_STARTING = 0.2


async def test_nothing_acknowledged_is_lost_when_the_process_is_killed(processes, results, rng, torture, report_figure):
    """If the receiver is killed at random under load, each acknowledged notification is handled and none is dead."""
    kills, total = (100, 1_000_000) if torture else (10, 20_000)
    poster = Poster(processes.settings.port, short_wait)
    started = time.monotonic()

    async with poster.post_continuously():
        kills += await kill_at(sorted(rng.sample(range(total), kills)), processes, poster, rng)
        await poster.wait_for_acknowledged(total)
    lost = await results.find_lost(poster.acknowledged)
    dead = await results.wait_until_drained()

    report_figure(
        f"{len(poster.acknowledged)} acknowledged, {len(lost)} lost, {results.repeated} handled again, {dead} dead,"
        f" {kills} kills, {poster.unanswered} interrupted, {time.monotonic() - started:.0f} s"
    )
    assert (lost, dead, poster.other_statuses) == (set(), 0, {})
    assert results.check_integrity() == {"ok"}
    assert results.repeated <= kills * CONCURRENCY


async def kill_at(moments: Iterable[int], processes: Processes, poster: Poster, rng: random.Random) -> int:
    """
    Kill and restart the receiver each time the number of acknowledged notifications reaches one of *moments*.

    Returns:
        How often it was killed while it was starting, in addition.
    """
    killed_starting = 0
    process = await processes.start_ready()
    for moment in moments:
        await poster.wait_for_acknowledged(moment)
        # Without the pause, each kill would directly follow a response.
        await asyncio.sleep(rng.uniform(0, 0.02))
        await process.kill()
        if rng.random() < KILLED_STARTING:
            killed_starting += 1
            process = await processes.start()
            await asyncio.sleep(rng.uniform(0, 1))
            await process.kill()
        process = await processes.start_ready()
    return killed_starting


def short_wait(number: int) -> str:
    """Let one handler in ten wait, so that some are running when the process is killed."""
    return "" if number % 10 else "wait 0.01"
