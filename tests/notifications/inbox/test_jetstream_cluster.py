"""Three servers, each stream on all of them: what is acknowledged outlasts any one, under load."""

import asyncio
import contextlib
import random
import secrets
from collections.abc import AsyncIterator

import pytest
from engines.nats import NatsServer, running_cluster
from notifications.inbox.suite import LEASE

from callfire_async.errors import InboxError
from callfire_async.notifications.inbox import Delivery
from callfire_async.notifications.inbox.jetstream import JetStreamInbox

DEADLINE = 60
WRITERS = 8


@pytest.fixture(scope="module")
def cluster():
    with running_cluster() as servers:
        yield servers


@pytest.fixture
async def inbox(cluster: list[NatsServer]) -> AsyncIterator[JetStreamInbox]:
    name = f"cluster_{secrets.token_hex(8)}"
    inbox = JetStreamInbox([server.url() for server in cluster], name=name, replicas=3, timeout=15.0)
    async with contextlib.AsyncExitStack() as opened:
        async with asyncio.timeout(DEADLINE):
            # Which servers there are is known a moment after they have chosen a leader.
            while not await is_opened(inbox, opened):
                await asyncio.sleep(0.1)
        yield inbox


async def is_opened(inbox: JetStreamInbox, opened: contextlib.AsyncExitStack) -> bool:
    with contextlib.suppress(InboxError):
        await opened.enter_async_context(inbox)
        return True
    return False


async def leader(inbox: JetStreamInbox, stream: str) -> str | None:
    with contextlib.suppress(Exception):
        return (await inbox._opened.link.jetstream.stream_info(stream)).cluster.leader
    return None


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
        async with asyncio.timeout(DEADLINE):
            while len(self.acknowledged) < wanted:
                await asyncio.sleep(0.01)

    async def drained(self) -> None:
        async with asyncio.timeout(DEADLINE):
            while not self.acknowledged <= self.handled:
                await asyncio.sleep(0.01)


async def test_nothing_acknowledged_is_lost_with_a_server_nor_with_the_leader(cluster, inbox, seed, torture):
    """Killed under load, first one that follows, then the leader, each started again: all that was taken is handled."""
    load = Load(inbox)
    chance = random.Random(seed)
    name = inbox._settings.queue
    async with asyncio.TaskGroup() as tasks:
        working = [tasks.create_task(load.work())]
        writing = [tasks.create_task(load.write(number)) for number in range(WRITERS)]
        for killed in ["follower", "leader"] * (10 if torture else 1):
            await load.goes_on(200)
            first = await known_leader(inbox, name)
            followers = [server for server in cluster if server.name != first]
            server = chance.choice(followers) if killed == "follower" else lead_by(cluster, first)
            server.kill()
            await load.goes_on(200)
            server.start()
            server.wait()
            await all_are_current(inbox, name)
        for task in writing:
            task.cancel()
        await load.drained()
        for task in working:
            task.cancel()

    assert load.acknowledged <= load.handled


def lead_by(cluster: list[NatsServer], name: str) -> NatsServer:
    return next(server for server in cluster if server.name == name)


async def known_leader(inbox: JetStreamInbox, stream: str) -> str:
    async with asyncio.timeout(DEADLINE):
        while not (name := await leader(inbox, stream)):
            await asyncio.sleep(0.1)
    return name


async def all_are_current(inbox: JetStreamInbox, stream: str) -> None:
    """Wait until whoever was away has what the others have."""
    async with asyncio.timeout(DEADLINE):
        while not await are_current(inbox, stream):
            await asyncio.sleep(0.1)


async def are_current(inbox: JetStreamInbox, stream: str) -> bool:
    for name in (stream, f"{stream}-records", f"{stream}-dead"):
        with contextlib.suppress(Exception):
            cluster = (await inbox._opened.link.jetstream.stream_info(name)).cluster
            if cluster.leader and all(replica.current for replica in cluster.replicas):
                continue
        return False
    return True
