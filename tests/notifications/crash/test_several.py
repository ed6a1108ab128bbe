"""Several receivers at one port, each with a file of its own in one folder."""

import asyncio

from attrs import evolve
from notifications.crash.poster import Poster

PROCESSES = 4
CONCURRENCY = 16
TOTAL = 3000


async def test_those_that_stay_take_over_what_the_dead_have_left(processes, ledger, tell):
    """Of four processes under load two are killed for good: the others drain their files, and nothing is lost."""
    processes.settings = evolve(processes.settings, take_over_seconds=0.5)
    started = await asyncio.gather(*[processes.start_ready() for _ in range(PROCESSES)])
    # With handlers that take a while something is left in the files of those that die.
    poster = Poster(processes.settings.port, lambda _: "wait 0.04")

    async with poster.posting(connections=32):
        for number, process in enumerate(started[:2], 1):
            await poster.acknowledges(number * TOTAL // 3)
            await process.killed()
        await poster.acknowledges(TOTAL)
    handled_before = len(ledger.counts["handled"])
    lost = await ledger.lost(poster.acknowledged)
    dead = await ledger.drained()

    tell(
        f"{len(poster.acknowledged)} acknowledged, {len(lost)} lost, {ledger.repeated} handled again, {dead} dead,"
        f" {len(poster.acknowledged) - handled_before} left when the last was acknowledged"
    )
    assert (len(ledger.files), lost, dead) == (PROCESSES, set(), 0)
    assert ledger.check_integrity() == {"ok"}
    assert ledger.repeated <= 2 * CONCURRENCY
