"""What becomes of a delivery that kills the process that handles it, and of one whose handler hangs."""

from attrs import evolve
from notifications.crash.poster import Poster
from notifications.crash.processes import Processes, ReceiverProcess, until

CRASHES = 4
DEADLY = 100
HANGING = 8
OTHERS = 200
HANDLER_TIMEOUT = 3.0


async def test_a_delivery_that_kills_its_process_ends_alone(processes, ledger, tell):
    """After two crashes nothing runs beside it, after four it is buried; all others are handled and none is buried."""
    # The others take a while, so that the first crashes find some of them under way.
    message = {DEADLY: "kill"}
    poster = Poster(processes.settings.port, lambda number: message.get(number, "wait 0.02"), range(600))
    process = await processes.start_ready()

    async with poster.posting():
        for _ in range(CRASHES):
            process = await follow(process, processes)
        lost = await ledger.lost({*poster.acknowledged} - {DEADLY})
    await ledger.drained()

    beside = [int(line[2]) - 1 for line in ledger.lines if line[0] == "killing"]
    tell(f"{len(poster.acknowledged)} acknowledged, {len(lost)} lost; beside the deadly one ran {beside}")
    (buried,) = await ledger.entries("dead")
    assert (lost, len(beside), beside[2:]) == (set(), CRASHES, [0, 0])
    assert b'"kill"' in buried.delivery.body
    assert buried.reason == "4 processes crashed while handling it"


async def follow(process: ReceiverProcess, processes: Processes) -> ReceiverProcess:
    """Wait until a process has died of itself, and start the next."""
    await until(lambda: process.has_ended)
    return await processes.start_ready()


async def test_handlers_that_hang_do_not_stop_others(processes, ledger):
    """While half of what may run hangs, all else is handled; what hangs is cut off by its timeout and buried."""
    processes.settings = evolve(processes.settings, handler_timeout=HANDLER_TIMEOUT, max_attempts=1)
    port = processes.settings.port
    await processes.start_ready()

    await Poster(port, lambda _: "wait 3600", range(HANGING)).post_all()
    await until(lambda: len(ledger.counts["begun"]) == HANGING)
    await Poster(port, numbers=range(HANGING, HANGING + OTHERS)).post_all()
    await until(lambda: len(ledger.counts["cut"]) == HANGING)
    dead = await ledger.drained()

    words = [line[0] for line in ledger.lines]
    assert words[: words.index("cut")].count("handled") == OTHERS
    assert dead == HANGING
