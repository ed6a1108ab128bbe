"""Several receivers with one inbox, on a server: what the killed leave to the others, and what the server survives."""

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from attrs import evolve, frozen
from engines.postgres import PostgresServer, running_postgres
from notifications.crash.ledger import SharedLedger
from notifications.crash.poster import Poster, request
from notifications.crash.processes import Processes, free_port, no_survivors, until
from notifications.crash.server import Settings, make_inbox

PROCESSES = 4
# What a receiver handles at once unless it is told otherwise: what one crash may repeat.
CONCURRENCY = 16
LEASE_SECONDS = 2.0


@frozen
class Shared:
    """Processes with one inbox, and what they leave."""

    processes: Processes
    ledger: SharedLedger

    @property
    def port(self) -> int:
        return self.processes.settings.port


@asynccontextmanager
async def sharing(folder: Path, address: str) -> AsyncIterator[Shared]:
    settings = Settings(str(folder / "journal"), address, lease_seconds=LEASE_SECONDS, handler_timeout=1.0)
    ledger = SharedLedger(folder / "journal", lambda: make_inbox(settings))
    with free_port() as port:
        async with no_survivors(evolve(settings, port=port)) as processes:
            yield Shared(processes, ledger)


@pytest.fixture(params=["postgres"])
def address(request: pytest.FixtureRequest) -> str:
    """Return the address of an inbox of one's own, on each kind of server."""
    server: PostgresServer = request.getfixturevalue(request.param)
    name = f"crash_{secrets.token_hex(4)}"
    server.execute(f"CREATE DATABASE {name}")
    return server.dsn(database=name)


@pytest.fixture
async def shared(tmp_path: Path, address: str) -> AsyncIterator[Shared]:
    async with sharing(tmp_path, address) as one:
        yield one


async def test_what_the_killed_had_in_hand_others_handle(shared, chance, torture, tell):
    """Killed at random under load, they lose nothing; and nothing is handled again before its lease has ended."""
    kills = 200 if torture else 20
    ledger, poster = shared.ledger, Poster(shared.port, short_wait)
    living = [await shared.processes.start_ready() for _ in range(PROCESSES)]

    async with poster.posting():
        for _ in range(kills):
            await poster.acknowledges_more(chance.randrange(20, 100))
            # Else every kill would follow upon an answer.
            await asyncio.sleep(chance.uniform(0, 0.02))
            await living.pop(chance.randrange(PROCESSES)).killed()
            living.append(await shared.processes.start())
        await poster.acknowledges_more(100)
    lost = await ledger.lost(poster.acknowledged)
    dead = await ledger.drained()

    entries = await ledger.entries()
    tell(
        f"{len(poster.acknowledged)} acknowledged, {len(lost)} lost, {ledger.repeated} handled again, {dead} dead,"
        f" {kills} kills, {poster.unanswered} broken off, {sum(entry.crashes for entry in entries)} leases ended"
    )
    assert (lost, dead, set(poster.other_statuses) - {503}) == (set(), 0, set())
    assert {entry.state for entry in entries} == {"done"}
    crashes = {entry.delivery.key: entry.crashes for entry in entries}
    handled = ledger.counts["handled"]
    assert {number for number, times in handled.items() if times > 1 + crashes[key_of(number)]} == set()
    assert ledger.repeated <= kills * CONCURRENCY


def short_wait(number: int) -> str:
    """Let one handler in ten take a moment, so that a kill finds some begun."""
    return "" if number % 10 else "wait 0.01"


def key_of(number: int) -> str:
    """Return what a delivery is known by when its body is gone."""
    _, _, body = request(number, short_wait(number)).partition(b"\r\n\r\n")
    return hashlib.sha256(body).hexdigest()


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


async def test_nothing_acknowledged_is_lost_when_the_server_crashes(own_postgres, tmp_path, chance, torture, tell):
    """PostgreSQL is shut down at once under load, and started again: all that was answered 204 is there."""
    stops = 30 if torture else 3
    async with sharing(tmp_path, own_postgres.dsn()) as shared:
        poster = Poster(shared.port, short_wait)
        await shared.processes.start_ready()
        async with poster.posting():
            for _ in range(stops):
                await poster.acknowledges_more(chance.randrange(100, 400))
                await crash(own_postgres, poster)
            await poster.acknowledges_more(100)
        lost = await shared.ledger.lost(poster.acknowledged)
        dead = await shared.ledger.drained()

        tell(
            f"{len(poster.acknowledged)} acknowledged, {len(lost)} lost, {shared.ledger.repeated} handled again,"
            f" {dead} dead, {stops} shutdowns, {poster.other_statuses[503]} refused"
        )
        assert (lost, dead, set(poster.other_statuses)) == (set(), 0, {503})


async def crash(server: PostgresServer, poster: Poster) -> None:
    """Shut a server down with all that it has under way; start it once somebody was refused for it."""
    refused = poster.other_statuses[503]
    await asyncio.to_thread(server.stop, immediate=True)
    await until(lambda: poster.other_statuses[503] > refused)
    await asyncio.to_thread(server.start)
