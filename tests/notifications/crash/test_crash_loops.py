"""Deliveries that kill the process that handles them, and handlers that hang."""

from attrs import evolve
from notifications.crash.poster import Poster
from notifications.crash.processes import Processes, ReceiverProcess, wait_until

CRASHES = 4
KILLER = 100
HANGING = 8
OTHERS = 200
HANDLER_TIMEOUT = 3.0


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
    """If half of the running handlers hang, others are handled; after the timeout the hanging ones are dead."""
    processes.settings = evolve(processes.settings, handler_timeout=HANDLER_TIMEOUT, max_attempts=1)
    port = processes.settings.port
    await processes.start_ready()

    await Poster(port, lambda _: "wait 3600", range(HANGING)).post_all()
    await wait_until(lambda: len(results.counts["started"]) == HANGING)
    await Poster(port, numbers=range(HANGING, HANGING + OTHERS)).post_all()
    await wait_until(lambda: len(results.counts["cancelled"]) == HANGING)
    dead = await results.wait_until_drained()

    words = [line[0] for line in results.lines]
    assert words[: words.index("cancelled")].count("handled") == OTHERS
    assert dead == HANGING
