"""Handlers that complete in their own transactions take effect exactly once, whatever happens to their processes."""

import asyncio
import random
import time
from collections.abc import Iterator

import pytest
from attrs import frozen
from engines.postgres import PostgresServer, running_postgres
from notifications.crash.exactly_once import publisher_process
from notifications.crash.exactly_once.disturbances import prepared
from notifications.crash.exactly_once.publisher_process import PublisherSettings
from notifications.crash.exactly_once.worker_process import HANDLERS
from notifications.crash.processes import Processes, run_processes


@frozen
class Size:
    """The size of a run."""

    events: int
    kills: int
    crashes: int


SIZES = {"short": Size(400, 5, 1), "full": Size(20_000, 200, 3), "torture": Size(200_000, 2_000, 30)}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "size" in metafunc.fixturenames:
        names = ["full", "torture"] if metafunc.config.option.torture else ["short"]
        metafunc.parametrize("size", [SIZES[name] for name in names], ids=names)


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


async def test_every_effect_happens_exactly_once(own_postgres, rng, size, report_figure):
    """Workers are killed, the server crashes, leases are cut short and the clock changes."""
    started = time.monotonic()
    async with prepared(own_postgres, size.events, rng) as run:
        await run.handle(kills=size.kills, crashes=size.crashes)
        missing, duplicates = await run.missing(), await run.duplicates()

        report_figure(
            f"{size.events} events, {missing} effects missing, {duplicates} repeated, {run.kills} kills,"
            f" {run.crashes} crashes of the server, {run.cuts} leases cut short, {await run.expired()} leases expired,"
            f" {run.clock_changes} clock changes, {time.monotonic() - started:.0f} s"
        )
        assert (missing, duplicates) == (0, 0)


async def test_the_same_handlers_repeat_effects_without_complete_in(own_postgres, rng, report_figure):
    """Otherwise the test above would show nothing. Enough handlers raise after their commit to be certain."""
    events = 150
    async with prepared(own_postgres, events, rng, is_exactly_once=False, failure_rate=0.2) as run:
        await run.handle(kills=2, crashes=0)
        missing, duplicates = await run.missing(), await run.duplicates()

        report_figure(f"{events} events, {missing} effects missing, {duplicates} repeated")
        assert missing == 0
        assert duplicates > 0


async def test_an_outbox_publishes_each_effect_under_one_id(own_postgres, rng, tmp_path, report_figure):
    """A row is published again if the publisher crashes before it deletes the row, but no effect has two rows."""
    events, journal = 150, tmp_path / "journal"
    settings = PublisherSettings(own_postgres.dsn(), str(journal))
    async with (
        prepared(own_postgres, events, rng, table="outbox") as run,
        run_processes(settings, publisher_process.__file__) as publishers,
        asyncio.TaskGroup() as tasks,
    ):
        restarting = tasks.create_task(restart_repeatedly(publishers, rng))
        await run.handle(kills=2, crashes=0)
        await run.wait_until_empty("outbox")
        restarting.cancel()
    published = [line.split(maxsplit=1) for line in journal.read_text().splitlines()]

    ids = dict(map(tuple, published))
    repeated = len(published) - len(ids)
    report_figure(f"{events} events, {len(published)} published, {repeated} of them again under the same id")
    assert sorted(ids.values()) == sorted(f"{event} {handler}" for event in range(events) for handler in HANDLERS)


async def restart_repeatedly(publishers: Processes, rng: random.Random) -> None:
    while True:
        publisher = await publishers.start()
        await publisher.wait_for_line("starting")
        await asyncio.sleep(rng.uniform(0.2, 1))
        await publisher.kill()
