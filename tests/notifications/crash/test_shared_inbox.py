"""Several receivers that share an inbox on a server: killed receivers, and crashes of the server."""

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from attrs import evolve, frozen
from engines.nats import NatsServer
from engines.postgres import PostgresServer, running_postgres
from notifications.crash.poster import Poster, make_request
from notifications.crash.processes import Processes, free_port, run_processes, wait_until
from notifications.crash.results import SharedInboxResults
from notifications.crash.server import Settings, make_inbox

PROCESSES = 4
# The receiver's default concurrency: one crash repeats at most this number of deliveries.
CONCURRENCY = 16
LEASE_SECONDS = 4.0


@frozen
class Shared:
    """Processes that share an inbox, and their results."""

    processes: Processes
    results: SharedInboxResults

    @property
    def port(self) -> int:
        return self.processes.settings.port


@asynccontextmanager
async def run_shared(folder: Path, address: str) -> AsyncIterator[Shared]:
    settings = Settings(str(folder / "journal"), address, lease_seconds=LEASE_SECONDS, handler_timeout=1.0)
    results = SharedInboxResults(folder / "journal", lambda: make_inbox(settings))
    with free_port() as port:
        async with run_processes(evolve(settings, port=port)) as processes:
            yield Shared(processes, results)


@pytest.fixture(params=["postgres", "jetstream"])
def address(request: pytest.FixtureRequest) -> str:
    """Return the address of a new inbox, on each kind of server."""
    name = f"crash_{secrets.token_hex(4)}"
    if request.param == "jetstream":
        server: NatsServer = request.getfixturevalue("nats_server")
        return f"{server.url()}/{name}"
    postgres: PostgresServer = request.getfixturevalue("postgres")
    postgres.execute(f"CREATE DATABASE {name}")
    return postgres.dsn(database=name)


@pytest.fixture
async def shared(tmp_path: Path, address: str) -> AsyncIterator[Shared]:
    async with run_shared(tmp_path, address) as shared:
        yield shared


async def test_deliveries_of_killed_receivers_are_handled_by_others(shared, rng, torture, report_figure):
    """If receivers are killed at random under load, nothing is lost or repeated before its lease has expired."""
    kills = 200 if torture else 20
    results, poster = shared.results, Poster(shared.port, short_wait)
    running = [await shared.processes.start_ready() for _ in range(PROCESSES)]

    async with poster.post_continuously():
        for _ in range(kills):
            await poster.wait_for_more(rng.randrange(20, 100))
            # Without the pause, each kill would directly follow a response.
            await asyncio.sleep(rng.uniform(0, 0.02))
            await running.pop(rng.randrange(PROCESSES)).kill()
            running.append(await shared.processes.start())
        await poster.wait_for_more(100)
    lost = await results.find_lost(poster.acknowledged)
    dead = await results.wait_until_drained()

    entries = await results.entries()
    report_figure(
        f"{len(poster.acknowledged)} acknowledged, {len(lost)} lost, {results.repeated} handled again, {dead} dead,"
        f" {kills} kills, {poster.unanswered} interrupted, {sum(entry.crashes for entry in entries)} leases expired"
    )
    assert (lost, dead, set(poster.other_statuses) - {503}) == (set(), 0, set())
    assert {entry.state for entry in entries} == {"done"}
    crashes = {entry.delivery.key: entry.crashes for entry in entries}
    handled = results.counts["handled"]
    assert {number for number, times in handled.items() if times > 1 + crashes[key_of(number)]} == set()
    assert results.repeated <= kills * CONCURRENCY


def short_wait(number: int) -> str:
    """Let one handler in ten wait, so that some are running when the process is killed."""
    return "" if number % 10 else "wait 0.01"


def key_of(number: int) -> str:
    """Return the key of a delivery, which the inbox keeps after it deletes the body."""
    _, _, body = make_request(number, short_wait(number)).partition(b"\r\n\r\n")
    return hashlib.sha256(body).hexdigest()


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


async def test_nothing_acknowledged_is_lost_if_the_server_crashes(own_postgres, tmp_path, rng, torture, report_figure):
    """If PostgreSQL crashes under load and restarts, each acknowledged notification is handled."""
    stops = 30 if torture else 3
    async with run_shared(tmp_path, own_postgres.dsn()) as shared:
        poster = Poster(shared.port, short_wait)
        await shared.processes.start_ready()
        async with poster.post_continuously():
            for _ in range(stops):
                await poster.wait_for_more(rng.randrange(100, 400))
                await crash(own_postgres, poster)
            await poster.wait_for_more(100)
        lost = await shared.results.find_lost(poster.acknowledged)
        dead = await shared.results.wait_until_drained()

        report_figure(
            f"{len(poster.acknowledged)} acknowledged, {len(lost)} lost, {shared.results.repeated} handled again,"
            f" {dead} dead, {stops} shutdowns, {poster.other_statuses[503]} refused"
        )
        assert (lost, dead, set(poster.other_statuses)) == (set(), 0, {503})


async def crash(server: PostgresServer, poster: Poster) -> None:
    """Stop a server immediately, and restart it once a notification has been refused."""
    refused = poster.other_statuses[503]
    await asyncio.to_thread(server.stop, immediate=True)
    await wait_until(lambda: poster.other_statuses[503] > refused)
    await asyncio.to_thread(server.start)
