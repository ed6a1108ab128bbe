"""Operations on a server and on an inbox."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nats
from engines.nats import NatsServer
from notifications.inbox.suite import DEADLINE, LEASE

from callfire_async.notifications.inbox import Inbox, Lease


@asynccontextmanager
async def admin(server: NatsServer) -> AsyncIterator[nats.js.JetStreamContext]:
    client = await nats.connect(server.url())
    try:
        yield client.jetstream()
    finally:
        await client.close()


async def next_lease(inbox: Inbox, *, lease: float = LEASE) -> Lease:
    async with asyncio.timeout(DEADLINE):
        while not (leases := await inbox.claim(1, lease=lease)):
            await inbox.wait(LEASE)
    return leases[0]
