"""A receiver that is killed while it splits envelopes of API v2, and while it handles their events."""

import asyncio
import hashlib
import json
import random
import socket
import time

from attrs import evolve
from notifications.crash.poster import exchange
from notifications.crash.processes import Processes, wait_until
from notifications.crash.results import HandlerResults

EVENTS = 50
# Each once, and then at random.
PLACES = ["before", "after", "handling", "during"]


async def test_events_of_envelopes_survive_kills(processes, results, rng, torture, report_figure):
    """Each event is handled, and none twice unless the process was killed during its lease."""
    kills = 20 if torture else 6
    places = [*PLACES, *rng.choices(PLACES, k=kills - len(PLACES))]
    started = time.monotonic()
    for number, place in enumerate(places):
        await kill_during_envelope(envelope(number), place, processes, results, rng)
        await finish(processes, results, number)
    dead = await results.wait_until_drained()

    handled, crashes = results.counts["handled"], await crashes_by_event(results, kills)
    repeated = {event for event, count in handled.items() if count > 1}
    report_figure(
        f"{len(crashes)} events of {kills} envelopes, {len(repeated)} handled again, {dead} dead, {kills} kills"
        f" ({places.count('handling')} while handling), {time.monotonic() - started:.0f} s"
    )
    assert (handled.keys(), crashes.keys(), dead) == ({*range(kills * EVENTS)}, {*range(kills * EVENTS)}, 0)
    assert repeated <= {event for event, count in crashes.items() if count}
    assert max(results.counts["first"].values()) <= 2
    assert results.check_integrity() == {"ok"}


def envelope(number: int) -> bytes:
    """Return the body of an envelope, whose handlers wait, so that some are running when the process is killed."""
    events = [
        {"eventType": "Finished", "resource": {"id": number * EVENTS + index, "message": "wait 0.005"}}
        for index in range(EVENTS)
    ]
    return json.dumps({"webhookId": 7, "resourceType": "OutboundText", "events": events}).encode()


async def kill_during_envelope(
    body: bytes, place: str, processes: Processes, results: HandlerResults, rng: random.Random
) -> None:
    """Post an envelope to a new process, and kill the process in its split, or while it handles the events."""
    in_split = "" if place == "handling" else place
    processes.settings = evolve(processes.settings, killed_in_split=in_split)
    process = await processes.start_ready()
    enough = results.counts["started"].total() + rng.randrange(1, EVENTS)
    assert await post(processes.settings.port, body) == 204
    if in_split:
        await wait_until(lambda: process.has_exited)
    else:
        await wait_until(lambda: results.counts["started"].total() >= enough)
        await process.kill()


async def post(port: int, body: bytes) -> int:
    """Post a body; return the status."""
    head = ["POST / HTTP/1.1", "Host: localhost", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    with socket.socket() as connection:
        connection.settimeout(0)
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
        return await exchange(connection, "\r\n".join([*head, "", ""]).encode() + body)


async def finish(processes: Processes, results: HandlerResults, number: int) -> None:
    """Start a process that handles all events up to an envelope, and stop it."""
    processes.settings = evolve(processes.settings, killed_in_split="")
    process = await processes.start_ready()
    assert await results.find_lost(range((number + 1) * EVENTS)) == set()
    await results.wait_until_drained()
    process.terminate()
    await process.wait_for_exit()


async def crashes_by_event(results: HandlerResults, count: int) -> dict[int, int]:
    """Return how often a lease of each event ended with its process; the key of a delivery names its event."""
    numbers = {hashlib.sha256(envelope(number)).hexdigest(): number for number in range(count)}
    crashes = {}
    for entry in await results.entries():
        parent, slash, index = entry.delivery.key.partition("/")
        if slash:
            crashes[numbers[parent] * EVENTS + int(index)] = entry.crashes
    return crashes
