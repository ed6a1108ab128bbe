"""Several receivers at one port that share an inbox on JetStream, killed again and again."""

import asyncio
import random
import secrets
import time
from collections.abc import AsyncIterator

import pytest
from engines.nats import NatsServer
from notifications.crash.ledger import Ledger
from notifications.crash.poster import Poster
from notifications.crash.processes import DEADLINE, POLL_SECONDS, Processes, ReceiverProcess, free_port, no_survivors
from notifications.crash.server import Settings, jetstream_inbox

PROCESSES = 4
CONCURRENCY = 16
# A host's leases end with it only when they end: what others wait for.
LEASE_SECONDS = 2.0


@pytest.fixture
async def processes(ledger: Ledger, nats_server: NatsServer) -> AsyncIterator[Processes]:
    address = f"{nats_server.url()}/crash_{secrets.token_hex(8)}"
    with free_port() as port:
        settings = Settings(str(ledger.journal), address, port, handler_timeout=1.0, lease_seconds=LEASE_SECONDS)
        async with no_survivors(settings) as processes:
            yield processes


async def test_nothing_acknowledged_is_lost_when_one_of_several_is_killed(processes, ledger, chance, torture, tell):
    """Of four processes under load one after the other is killed and started again: all is handled, none is buried."""
    kills, total = (200, 40_000) if torture else (20, 2_000)
    started = await asyncio.gather(*[processes.start_ready() for _ in range(PROCESSES)])
    poster = Poster(processes.settings.port, lambda number: "" if number % 10 else "wait 0.01")
    begun = time.monotonic()

    async with poster.posting():
        for moment in sorted(chance.sample(range(total), kills)):
            await poster.acknowledges(moment)
            await asyncio.sleep(chance.uniform(0, 0.02))
            await replace_one(started, processes, chance)
        await poster.acknowledges(total)
    lost = await ledger.lost(poster.acknowledged)
    dead = await drained(processes.settings)

    tell(
        f"{len(poster.acknowledged)} acknowledged, {len(lost)} lost, {ledger.repeated} handled again, {dead} dead,"
        f" {kills} kills, {poster.unanswered} broken off, {time.monotonic() - begun:.0f} s"
    )
    assert (lost, dead, poster.other_statuses) == (set(), 0, {})
    assert ledger.repeated <= kills * CONCURRENCY


async def replace_one(started: list[ReceiverProcess], processes: Processes, chance: random.Random) -> None:
    """Kill one, and start another in its place; the others go on meanwhile."""
    number = chance.randrange(PROCESSES)
    await started[number].killed()
    started[number] = await processes.start()


async def drained(settings: Settings) -> int:
    """Wait until nothing is left but what is done or dead; return how many are dead."""
    async with jetstream_inbox(settings.inbox) as inbox, asyncio.timeout(DEADLINE):
        while (left := await inbox.stats()).ready + left.delayed + left.leased:  # noqa: ASYNC110  # others' doing
            await asyncio.sleep(POLL_SECONDS)
    return left.dead
