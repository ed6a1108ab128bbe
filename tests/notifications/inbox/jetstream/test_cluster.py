"""Three servers, each stream on all of them: what is acknowledged outlasts any one, under load."""

import asyncio
import contextlib
import gc
import random
import secrets
from collections.abc import AsyncIterator, Iterator

import pytest
from engines.nats import NatsServer, running_cluster
from notifications.inbox.suite import LEASE
from notifications.inbox.waiting import until

from callfire_async.errors import InboxError
from callfire_async.notifications.inbox import Delivery
from callfire_async.notifications.inbox.jetstream import JetStreamInbox

DEADLINE = 60
WRITERS = 8

# Where a server dies in the middle of a handshake, nats-py lets go of the connection without closing it.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Collect such connections while the test runs that left them."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def cluster():
    with running_cluster(sync_interval="always") as servers:
        yield servers


@pytest.fixture
async def inbox(cluster: list[NatsServer]) -> AsyncIterator[JetStreamInbox]:
    name = f"cluster_{secrets.token_hex(8)}"
    inbox = JetStreamInbox([server.url() for server in cluster], name=name, replicas=3, timeout=15.0)
    async with contextlib.AsyncExitStack() as opened:
        # Which servers there are is known a moment after they have chosen a leader.
        await until(lambda: is_opened(inbox, opened), deadline=DEADLINE)
        yield inbox


async def is_opened(inbox: JetStreamInbox, opened: contextlib.AsyncExitStack) -> bool:
    with contextlib.suppress(InboxError):
        await opened.enter_async_context(inbox)
        return True
    return False


async def test_where_nothing_is_left_to_be_wished_for_nothing_is_said(cluster, caplog):
    """Three replicas, and disks that are synced before the answer."""
    async with contextlib.AsyncExitStack() as opened:
        inbox = JetStreamInbox([cluster[0].url("open")], name="wished_for", replicas=3, timeout=15.0)
        await until(lambda: is_opened(inbox, opened), deadline=DEADLINE)
        await inbox.append(Delivery(b"body"))

    assert [record for record in caplog.records if "guarantee" in record.getMessage()] == []


class Load:
    """Writers and a worker; notes what was acknowledged and what was handled."""

    def __init__(self, inbox: JetStreamInbox) -> None:
        self._inbox = inbox
        self.acknowledged: set[bytes] = set()
        self.handled: set[bytes] = set()

    async def write(self, writer: int) -> None:
        number = 0
        while True:
            body = b"%d %d" % (writer, number)
            with contextlib.suppress(InboxError):
                await self._inbox.append(Delivery(body))
                self.acknowledged.add(body)
            number += 1

    async def work(self) -> None:
        while True:
            try:
                leases = await self._inbox.claim(16, lease=LEASE)
                if not leases:
                    await self._inbox.wait(1.0)
                await asyncio.gather(*map(self._handle, leases))
            except InboxError:
                await asyncio.sleep(0.1)

    async def _handle(self, lease) -> None:
        self.handled.add(lease.delivery.body)
        while True:
            with contextlib.suppress(InboxError):
                return await self._inbox.ack(lease)
            await asyncio.sleep(0.1)

    async def goes_on(self, count: int) -> None:
        """Wait until so many more are acknowledged."""
        wanted = len(self.acknowledged) + count

        async def are_there() -> bool:
            return len(self.acknowledged) >= wanted

        await until(are_there, deadline=DEADLINE)

    async def drained(self) -> None:
        """Wait until all that was acknowledged is handled."""

        async def all_are_handled() -> bool:
            return self.acknowledged <= self.handled

        await until(all_are_handled, deadline=DEADLINE)


async def test_nothing_acknowledged_is_lost_with_a_server_nor_with_the_leader(cluster, inbox, seed, torture):
    """Killed under load, first one that follows, then the leader, each started again: all that was taken is handled."""
    load = Load(inbox)
    chance = random.Random(seed)
    name = inbox._settings.queue
    async with asyncio.TaskGroup() as tasks:
        working = [tasks.create_task(load.work())]
        writing = [tasks.create_task(load.write(number)) for number in range(WRITERS)]
        for killed in ["follower", "leader"] * (10 if torture else 1):
            await load.goes_on(100)
            first = await leader(inbox, name)
            followers = [server for server in cluster if server.name != first]
            server = chance.choice(followers) if killed == "follower" else lead_by(cluster, first)
            server.kill()
            await load.goes_on(100)
            server.start()
            server.wait()
            # Whoever was away has to have what the others have before one of them may go.
            await until(lambda: are_current(inbox, name), deadline=DEADLINE)
        for task in writing:
            task.cancel()
        await load.drained()
        for task in working:
            task.cancel()

    assert load.acknowledged <= load.handled


def lead_by(cluster: list[NatsServer], name: str) -> NatsServer:
    return next(server for server in cluster if server.name == name)


async def leader(inbox: JetStreamInbox, stream: str) -> str:
    """Wait until the others know who leads."""
    found = []

    async def is_known() -> bool:
        with contextlib.suppress(Exception):
            found.append((await inbox._ledger.opened.link.jetstream.stream_info(stream)).cluster.leader)
        return any(found)

    await until(is_known, deadline=DEADLINE)
    return found[-1]


async def are_current(inbox: JetStreamInbox, stream: str) -> bool:
    for name in (stream, f"{stream}-records", f"{stream}-dead"):
        with contextlib.suppress(Exception):
            cluster = (await inbox._ledger.opened.link.jetstream.stream_info(name)).cluster
            if cluster.leader and all(replica.current for replica in cluster.replicas):
                continue
        return False
    return True
