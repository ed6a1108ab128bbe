"""Real servers that are killed under load with a spool in front of them: nothing is refused, and nothing is lost."""

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
from callfire_async.notifications.inbox.jetstream import JetStreamInbox
from callfire_async.notifications.inbox.jetstream import _consumer as _jetstream_queue
from callfire_async.notifications.inbox.postgres import PostgresInbox
from callfire_async.notifications.inbox.spool import SpoolingInbox
from callfire_async.notifications.inbox.sqlite import SqliteInbox

# What was handed out and never arrived is handed out again after this.
LEASE_SECONDS = 2.0
_POLL_SECONDS = 0.01


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[PostgresServer]:
    """Run one that may be killed."""
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="module")
def cluster() -> Iterator[list[NatsServer]]:
    with running_cluster() as servers:
        yield servers


class Outages:
    """A receiver with a spool in front of its inbox, under load, and those who kill its servers."""

    def __init__(self, primary: Inbox, folder: Path) -> None:
        spool = SqliteInbox(folder / "spool.db")
        self._inbox = SpoolingInbox(primary, spool, timeout=1.0, recovery_timeout=0.1)
        self._handled = Handled()
        self._receiver = Receiver(self._handled.router, tokens=None, inbox=self._inbox)
        self._receiver._intake._worker.lease_seconds = LEASE_SECONDS
        self.posting = Posting(self._receiver)
        self.most_spooled = 0
        self.dead = 0

    async def survive(self, *outages: tuple[Callable[[], None], Callable[[], None]]) -> set[int]:
        """Begin and end each outage under load; return what was acknowledged and is lost."""
        async with self._receiver:
            async with self.posting.running():
                for begin, end in outages:
                    await self.posting.wait_for_acknowledged(100)
                    await asyncio.to_thread(begin)
                    await self.posting.wait_for_acknowledged(100)
                    self.most_spooled = max(self.most_spooled, await self._inbox.spooled())
                    await asyncio.to_thread(end)
            lost = await self.posting.find_lost(self._handled)
            await self._is_drained()
            self.dead = (await self._inbox.stats()).dead
        return lost

    async def _is_drained(self) -> None:
        async with asyncio.timeout(BOUND_SECONDS):
            while await self._inbox.spooled():  # noqa: ASYNC110  # the forwarder says nothing when it is done
                await asyncio.sleep(_POLL_SECONDS)


async def test_a_postgresql_that_crashes_three_times(own_postgres, tmp_path, torture):
    """Stopped at once under load and started again: every answer is 204, and all of it is handled in the end."""
    outages = Outages(PostgresInbox(own_postgres.dsn(), schema=f"test_{secrets.token_hex(8)}"), tmp_path)

    crash = (lambda: own_postgres.stop(immediate=True), own_postgres.start)
    lost = await outages.survive(*[crash] * (30 if torture else 3))

    assert (lost, outages.dead, set(outages.posting.statuses)) == (set(), 0, {204})
    assert outages.most_spooled > 0


# nats-py forgets to close a connection that fails while it is made again; the garbage collector does it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_cluster_each_of_whose_servers_is_killed(cluster, tmp_path, monkeypatch, torture):
    """One after the other, and so its leader too: every answer is 204, and all of it is handled in the end."""
    monkeypatch.setattr(_jetstream_queue, "ACK_WAIT_SECONDS", LEASE_SECONDS)
    addresses = [server.url() for server in cluster]
    outages = Outages(JetStreamInbox(addresses, name=f"test_{secrets.token_hex(8)}", replicas=3), tmp_path)

    def start(server: NatsServer) -> None:
        server.start()
        server.wait()

    killed = [(server.kill, lambda server=server: start(server)) for server in cluster]
    lost = await outages.survive(*killed * (10 if torture else 1))

    assert (lost, outages.dead, set(outages.posting.statuses)) == (set(), 0, {204})
