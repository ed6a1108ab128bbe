"""A cluster of three servers under load: acknowledged deliveries survive the loss of any one server."""

import asyncio
import contextlib
import random
import secrets
from collections.abc import AsyncIterator

import pytest
from engines.nats import NatsServer, running_cluster
from notifications.inbox.suite import LEASE
from notifications.inbox.waiting import until

from callfire_async.errors import InboxError
from callfire_async.notifications.inbox import Delivery
from callfire_async.notifications.inbox.jetstream import JetStreamInbox

DEADLINE = 180
WRITERS = 8

# If a server dies during a handshake, nats-py drops the connection without closing it.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


@pytest.fixture(scope="module")
def cluster():
    with running_cluster(sync_interval="always") as servers:
        yield servers


@pytest.fixture
async def inbox(cluster: list[NatsServer]) -> AsyncIterator[JetStreamInbox]:
    name = f"cluster_{secrets.token_hex(8)}"
    inbox = JetStreamInbox([server.url() for server in cluster], name=name, replicas=3, timeout=15.0)
    async with contextlib.AsyncExitStack() as opened:
        # Shortly after the election, the leader does not know all servers yet.
        await until(lambda: try_to_open(inbox, opened), deadline=DEADLINE)
        yield inbox


async def try_to_open(inbox: JetStreamInbox, opened: contextlib.AsyncExitStack) -> bool:
    with contextlib.suppress(InboxError):
        await opened.enter_async_context(inbox)
        return True
    return False


async def test_a_cluster_with_all_guarantees_logs_no_warning(cluster, caplog):
    """Three replicas, and sync_interval: always."""
    async with contextlib.AsyncExitStack() as opened:
        inbox = JetStreamInbox([cluster[0].url("open")], name="all_guarantees", replicas=3, timeout=15.0)
        await until(lambda: try_to_open(inbox, opened), deadline=DEADLINE)
        await inbox.append(Delivery(b"body"))

    assert [record for record in caplog.records if "guarantee" in record.getMessage()] == []


class Load:
    """Writers and a worker; records which deliveries were acknowledged and which were handled."""

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

    async def wait_for_appends(self, count: int) -> None:
        """Wait until *count* more deliveries are acknowledged."""
        wanted = len(self.acknowledged) + count

        async def are_acknowledged() -> bool:
            return len(self.acknowledged) >= wanted

        await until(are_acknowledged, deadline=DEADLINE)

    async def wait_until_drained(self) -> None:
        """Wait until all acknowledged deliveries are handled."""

        async def all_are_handled() -> bool:
            return self.acknowledged <= self.handled

        await until(all_are_handled, deadline=DEADLINE)


async def test_no_acknowledged_delivery_is_lost_if_a_server_is_killed(cluster, inbox, seed, torture):
    """First a follower, then the leader; each is restarted before the next one is killed."""
    load = Load(inbox)
    chance = random.Random(seed)
    name = inbox._streams.queue
    async with asyncio.TaskGroup() as tasks:
        working = [tasks.create_task(load.work())]
        writing = [tasks.create_task(load.write(number)) for number in range(WRITERS)]
        for killed in ["follower", "leader"] * (10 if torture else 1):
            await load.wait_for_appends(100)
            leading = await leader_of(inbox, name)
            followers = [server for server in cluster if server.name != leading]
            server = chance.choice(followers) if killed == "follower" else server_called(cluster, leading)
            server.kill()
            await load.wait_for_appends(100)
            server.start()
            server.wait()
            # A restarted server must catch up before another one may be killed.
            await until(lambda: are_current(inbox, name), deadline=DEADLINE)
        for task in writing:
            task.cancel()
        await load.wait_until_drained()
        for task in working:
            task.cancel()

    assert load.acknowledged <= load.handled


def server_called(cluster: list[NatsServer], name: str) -> NatsServer:
    return next(server for server in cluster if server.name == name)


async def leader_of(inbox: JetStreamInbox, stream: str) -> str:
    """Wait until the stream has a leader, and return its name."""
    found = []

    async def is_known() -> bool:
        with contextlib.suppress(Exception):
            found.append((await inbox._store.opened.connection.jetstream.stream_info(stream)).cluster.leader)
        return any(found)

    await until(is_known, deadline=DEADLINE)
    return found[-1]


async def are_current(inbox: JetStreamInbox, stream: str) -> bool:
    for name in (stream, f"{stream}-records", f"{stream}-dead"):
        with contextlib.suppress(Exception):
            cluster = (await inbox._store.opened.connection.jetstream.stream_info(name)).cluster
            if cluster.leader and all(replica.current for replica in cluster.replicas):
                continue
        return False
    return True
