"""Deliveries that kill the process that handles them, and handlers that hang."""

from attrs import evolve
from notifications.crash.poster import Poster
from notifications.crash.processes import Processes, ReceiverProcess, wait_until
from notifications.crash.results import HandlerResults

CRASHES = 4
KILLER = 100
HANGING = 8
OTHERS = 200


async def test_a_delivery_that_kills_its_process_is_handled_alone(processes, results, report_figure):
    """After two crashes it is handled alone, after four it is a dead letter; all other deliveries are handled."""
    # The other handlers wait, so that some of them are running during the first crashes.
    message = {KILLER: "kill"}
    poster = Poster(processes.settings.port, lambda number: message.get(number, "wait 0.02"), range(600))
    process = await processes.start_ready()

    async with poster.post_continuously():
        for _ in range(CRASHES):
            process = await restart_after_crash(process, processes)
        lost = await results.find_lost({*poster.acknowledged} - {KILLER})
    await results.wait_until_drained()

    concurrent = [int(line[2]) - 1 for line in results.lines if line[0] == "killing"]
    report_figure(
        f"{len(poster.acknowledged)} acknowledged, {len(lost)} lost; concurrent handlers at each crash: {concurrent}"
    )
    (dead,) = await results.entries("dead")
    assert (lost, len(concurrent), concurrent[2:]) == (set(), CRASHES, [0, 0])
    assert b'"kill"' in dead.delivery.body
    assert dead.reason == "4 processes crashed while handling it"


async def restart_after_crash(process: ReceiverProcess, processes: Processes) -> ReceiverProcess:
    """Wait until a process has crashed, and start the next one, which may crash before it is ready."""
    await wait_until(lambda: process.has_exited)
    return await processes.start()


async def test_hanging_handlers_do_not_block_others(processes, results):
    """If half of the running handlers hang, all others are handled meanwhile."""
    processes.settings = evolve(processes.settings, handler_timeout=3600.0)
    await start_hanging_handlers(processes, results)

    await Poster(processes.settings.port, numbers=range(HANGING, HANGING + OTHERS)).post_all()
    await wait_until(lambda: len(results.counts["handled"]) == OTHERS)


async def test_hanging_handlers_are_dead_letters_after_their_timeout(processes, results):
    """They are cancelled, and there is no further attempt."""
    processes.settings = evolve(processes.settings, handler_timeout=1.0, max_attempts=1)
    await start_hanging_handlers(processes, results)

    await wait_until(lambda: len(results.counts["cancelled"]) == HANGING)
    assert await results.wait_until_drained() == HANGING


async def start_hanging_handlers(processes: Processes, results: HandlerResults) -> None:
    """Start a process, and post events whose handlers hang."""
    await processes.start_ready()
    await Poster(processes.settings.port, lambda _: "wait 3600", range(HANGING)).post_all()
    await wait_until(lambda: len(results.counts["started"]) == HANGING)
