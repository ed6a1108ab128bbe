"""A receiver that is stopped under load, and its successor."""

import asyncio
import random
import socket
import time

from attrs import evolve
from notifications.crash.poster import Poster
from notifications.crash.processes import ReceiverProcess, wait_until
from notifications.crash.results import HandlerResults

SHUTDOWN_SECONDS = 0.05


async def test_nothing_is_lost_or_repeated_when_the_process_is_stopped(processes, results, rng, torture, report_figure):
    """SIGTERM releases running deliveries without counting an attempt; completed handlers do not run again."""
    processes.settings = evolve(processes.settings, shutdown_timeout=SHUTDOWN_SECONDS)
    poster = Poster(processes.settings.port, occasional_long_wait)
    process = await processes.start_ready()
    stopping, starting = [], []

    async with poster.post_continuously():
        for _ in range(20 if torture else 5):
            await wait_for_long_handler(results, poster, rng)
            stopping.append(await stop(process))
            process = await processes.start()
            starting.append(await process.wait_until_ready())
    lost = await results.find_lost(poster.acknowledged)
    await results.wait_until_drained()

    states = {(entry.state, entry.attempt, entry.crashes) for entry in await results.entries()}
    report_figure(
        f"{len(poster.acknowledged)} acknowledged, {len(lost)} lost,"
        f" {results.counts['cancelled'].total()} handlers cancelled, {len(stopping)} stops"
        f" of {max(stopping):.2f} s at most, starts of {max(starting):.2f} s at most"
    )
    assert (lost, states) == (set(), {("done", 1, 0)})
    assert results.counts["cancelled"], "no handler was cancelled by a stop"
    assert max(results.counts["first"].values()) == 1
    assert results.repeated == 0


def occasional_long_wait(number: int) -> str:
    """Let one handler in a hundred wait for longer than the shutdown timeout."""
    return "" if number % 100 else "wait 0.5"


async def wait_for_long_handler(results: HandlerResults, poster: Poster, rng: random.Random) -> None:
    await poster.wait_for_more(rng.randrange(200, 800))
    before = results.counts["started"].total()
    await wait_until(lambda: results.counts["started"].total() > before)


async def stop(process: ReceiverProcess) -> float:
    """Stop a process with SIGTERM; return how many seconds it took."""
    started = time.monotonic()
    process.terminate()
    await process.wait_for_exit()
    return time.monotonic() - started


async def test_the_next_process_takes_over(processes, results, torture, report_figure):
    """
    A process that starts while another owns the file waits for it to exit; no postback is refused meanwhile.

    Both processes accept from one listening socket that outlives them, like a supervisor's.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        processes.settings = evolve(processes.settings, listener=listener.fileno())
        poster = Poster(listener.getsockname()[1])
        process = await processes.start_ready()
        takeover_seconds = []

        async with poster.post_continuously():
            for _ in range(20 if torture else 3):
                following = await processes.start()
                takeover_seconds.append(await stop_once_next_waits(process, following, poster))
                process = following
        lost = await results.find_lost(poster.acknowledged)
    await results.wait_until_drained()

    report_figure(
        f"{len(poster.acknowledged)} acknowledged, {len(lost)} lost, {poster.unanswered} interrupted,"
        f" next process ready after {max(takeover_seconds):.2f} s at most,"
        f" no response for {poster.longest_gap:.2f} s at most"
    )
    assert (lost, poster.refused, poster.other_statuses) == (set(), 0, {})
    assert results.repeated == 0


async def stop_once_next_waits(last: ReceiverProcess, following: ReceiverProcess, poster: Poster) -> float:
    """Stop a process once the next one waits for it; return the seconds from its exit until the next one is ready."""
    await following.wait_for_line("starting")
    ready = asyncio.create_task(following.wait_for_line("ready"))
    await poster.wait_for_more(500)
    assert not ready.done()
    await stop(last)
    ended_at = time.monotonic()
    await ready
    return time.monotonic() - ended_at
