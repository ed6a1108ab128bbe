"""Servers that crash under load behind a spool: no postback is refused and none is lost."""

import asyncio
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from engines.nats import NatsServer, running_cluster
from engines.postgres import PostgresServer, running_postgres
from notifications.inbox.posting import BOUND_SECONDS, Handled, Posting

from callfire_async.notifications import Receiver
from callfire_async.notifications.inbox import Inbox
from callfire_async.notifications.inbox.jetstream import JetStreamInbox, _consumer
from callfire_async.notifications.inbox.postgres import PostgresInbox
from callfire_async.notifications.inbox.spool import SpoolingInbox
from callfire_async.notifications.inbox.sqlite import SqliteInbox

pytestmark = pytest.mark.slow

# A lease that never reached the worker expires after this time.
LEASE_SECONDS = 2.0
_POLL_SECONDS = 0.01


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server that only these tests use, and may kill."""
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="module")
def cluster() -> Iterator[list[NatsServer]]:
    with running_cluster() as servers:
        yield servers


class OutageScenario:
    """A receiver with a spooling inbox, under load, whose servers are killed."""

    def __init__(self, primary: Inbox, directory: Path) -> None:
        spool = SqliteInbox(directory / "spool.db")
        self._inbox = SpoolingInbox(primary, spool, timeout=1.0, recovery_timeout=0.1)
        self._handled = Handled()
        self._receiver = Receiver(self._handled.router, tokens=None, inbox=self._inbox)
        self._receiver._intake._worker.lease_seconds = LEASE_SECONDS
        self.posting = Posting(self._receiver)
        self.max_spooled = 0
        self.dead = 0

    async def survive(self, *outages: tuple[Callable[[], None], Callable[[], None]]) -> set[int]:
        """Begin and end each outage under load; return the postbacks that were acknowledged and never handled."""
        async with self._receiver:
            async with self.posting.running():
                for begin, end in outages:
                    await self.posting.wait_for_acknowledged(100)
                    await asyncio.to_thread(begin)
                    await self.posting.wait_for_acknowledged(100)
                    self.max_spooled = max(self.max_spooled, await self._inbox.spooled())
                    await asyncio.to_thread(end)
            lost = await self.posting.find_lost(self._handled)
            await self._is_drained()
            self.dead = (await self._inbox.stats()).dead
        return lost

    async def _is_drained(self) -> None:
        async with asyncio.timeout(BOUND_SECONDS):
            while await self._inbox.spooled():  # noqa: ASYNC110  # the forwarder has no event for it
                await asyncio.sleep(_POLL_SECONDS)


async def test_postgresql_crashes(own_postgres, tmp_path, torture):
    """After three crashes under load, every response was 204 and every postback has been handled."""
    scenario = OutageScenario(PostgresInbox(own_postgres.dsn(), schema=f"test_{secrets.token_hex(8)}"), tmp_path)

    crash = (lambda: own_postgres.stop(immediate=True), own_postgres.start)
    lost = await scenario.survive(*[crash] * (30 if torture else 3))

    assert (lost, scenario.dead, set(scenario.posting.statuses)) == (set(), 0, {204})
    assert scenario.max_spooled > 0


# nats-py leaves a connection open if reconnecting fails; the garbage collector closes it with a warning.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("collect_garbage")
async def test_nats_cluster_loses_each_server_in_turn(cluster, tmp_path, monkeypatch, torture):
    """Each server is killed once, the leader included; every response was 204, every postback has been handled."""
    monkeypatch.setattr(_consumer, "ACK_WAIT_SECONDS", LEASE_SECONDS)
    addresses = [server.url() for server in cluster]
    scenario = OutageScenario(JetStreamInbox(addresses, name=f"test_{secrets.token_hex(8)}", replicas=3), tmp_path)

    def start(server: NatsServer) -> None:
        server.start()
        server.wait()

    killed = [(server.kill, lambda server=server: start(server)) for server in cluster]
    lost = await scenario.survive(*killed * (10 if torture else 1))

    assert (lost, scenario.dead, set(scenario.posting.statuses)) == (set(), 0, {204})
