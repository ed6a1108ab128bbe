"""What a receiver that is stopped under load leaves to the next one, and how the next one takes over."""

import asyncio
import random
import socket
import time

from attrs import evolve
from notifications.crash.ledger import Ledger
from notifications.crash.poster import Poster
from notifications.crash.processes import ReceiverProcess, until

GRACE_SECONDS = 0.05


async def test_nothing_is_lost_or_done_again_when_the_process_is_stopped(processes, ledger, chance, torture, tell):
    """What SIGTERM finds running goes back as it was: no attempt is counted, and what was done is not done again."""
    processes.settings = evolve(processes.settings, shutdown_timeout=GRACE_SECONDS)
    poster = Poster(processes.settings.port, at_times_long)
    process = await processes.start_ready()
    stopping, starting = [], []

    async with poster.posting():
        for _ in range(20 if torture else 5):
            await long_handler_begins(ledger, poster, chance)
            stopping.append(await stop(process))
            process = await processes.start()
            starting.append(await process.ready())
    lost = await ledger.lost(poster.acknowledged)
    await ledger.drained()

    states = {(entry.state, entry.attempt, entry.crashes) for entry in await ledger.entries()}
    tell(
        f"{len(poster.acknowledged)} acknowledged, {len(lost)} lost, {ledger.counts['cut'].total()} handlers cut off,"
        f" {len(stopping)} stops of {max(stopping):.2f} s at most, starts of {max(starting):.2f} s at most"
    )
    assert (lost, states) == (set(), {("done", 1, 0)})
    assert ledger.counts["cut"], "no stop has found a handler that took long"
    assert max(ledger.counts["first"].values()) == 1
    assert ledger.repeated == 0


def at_times_long(number: int) -> str:
    """Let one handler in a hundred take longer than the grace."""
    return "" if number % 100 else "wait 0.5"


async def long_handler_begins(ledger: Ledger, poster: Poster, chance: random.Random) -> None:
    await poster.acknowledges_more(chance.randrange(200, 800))
    before = ledger.counts["begun"].total()
    await until(lambda: ledger.counts["begun"].total() > before)


async def stop(process: ReceiverProcess) -> float:
    """Stop a process as a supervisor does; return how many seconds it took."""
    begun = time.monotonic()
    process.terminate()
    await process.ended()
    return time.monotonic() - begun


async def test_the_next_process_takes_over_from_the_last(processes, ledger, torture, tell):
    """
    Started while another owns the file, a process waits until that is gone; nobody who posts is refused meanwhile.

    Both accept from one listening socket that outlives them, as a supervisor's does.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        processes.settings = evolve(processes.settings, listener=listener.fileno())
        poster = Poster(listener.getsockname()[1])
        process = await processes.start_ready()
        taking_over = []

        async with poster.posting():
            for _ in range(20 if torture else 3):
                following = await processes.start()
                taking_over.append(await hand_over(process, following, poster))
                process = following
        lost = await ledger.lost(poster.acknowledged)
    await ledger.drained()

    tell(
        f"{len(poster.acknowledged)} acknowledged, {len(lost)} lost, {poster.unanswered} broken off, the next ready"
        f" {max(taking_over):.2f} s after the last one's end at most, no answer for {poster.longest_gap:.2f} s at most"
    )
    assert (lost, poster.refused, poster.other_statuses) == (set(), 0, {})
    assert ledger.repeated == 0


async def hand_over(last: ReceiverProcess, following: ReceiverProcess, poster: Poster) -> float:
    """Stop a process once the next one waits for it; return how long after its end that one was ready."""
    await following.said("starting")
    ready = asyncio.create_task(following.said("ready"))
    await poster.acknowledges_more(500)
    assert not ready.done()
    await stop(last)
    ended_at = time.monotonic()
    await ready
    return time.monotonic() - ended_at
