"""Several receivers on one port, each with its own file in the same folder."""

import asyncio

from attrs import evolve
from notifications.crash.poster import Poster

PROCESSES = 4
CONCURRENCY = 16
TOTAL = 3000


async def test_surviving_processes_take_over_the_files_of_killed_ones(processes, results, report_figure):
    """Two of four processes under load are killed and not restarted: the others drain their files, nothing is lost."""
    processes.settings = evolve(processes.settings, take_over_seconds=0.5)
    started = await asyncio.gather(*[processes.start_ready() for _ in range(PROCESSES)])
    # The handlers wait, so that the killed processes leave pending deliveries.
    poster = Poster(processes.settings.port, lambda _: "wait 0.04")

    async with poster.post_continuously(connections=32):
        for number, process in enumerate(started[:2], 1):
            await poster.wait_for_acknowledged(number * TOTAL // 3)
            await process.kill()
        await poster.wait_for_acknowledged(TOTAL)
    handled_before = len(results.counts["handled"])
    lost = await results.find_lost(poster.acknowledged)
    dead = await results.wait_until_drained()

    report_figure(
        f"{len(poster.acknowledged)} acknowledged, {len(lost)} lost, {results.repeated} handled again, {dead} dead,"
        f" {len(poster.acknowledged) - handled_before} pending when the last was acknowledged"
    )
    assert (len(results.files), lost, dead) == (PROCESSES, set(), 0)
    assert results.check_integrity() == {"ok"}
    assert results.repeated <= 2 * CONCURRENCY
