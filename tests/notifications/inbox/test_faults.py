"""The inboxes elsewhere behind a network that fails: nothing hangs, nothing that was acknowledged is lost."""

import asyncio
import gc
import secrets
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from attrs import frozen
from engines.proxy import Fault, Proxy, proxying
from notifications.inbox.posting import BOUND_SECONDS, Handled, Posting

from callfire_async.notifications import Receiver
from callfire_async.notifications.inbox import Inbox
from callfire_async.notifications.inbox.jetstream import JetStreamInbox
from callfire_async.notifications.inbox.jetstream import _connection as _jetstream_link
from callfire_async.notifications.inbox.jetstream import _consumer as _jetstream_queue
from callfire_async.notifications.inbox.postgres import PostgresInbox

TIMEOUT_SECONDS = 0.5
# What was handed out and never arrived is handed out again after this.
LEASE_SECONDS = 2.0


@frozen
class Engine:
    """A server behind a proxy."""

    proxy: Proxy
    make: Callable[[], Inbox]


@pytest.fixture
async def behind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Engine]:
    """Run the engine that the test names, with a network in front of it."""
    name = f"test_{secrets.token_hex(8)}"
    if request.param == "postgres":
        server = request.getfixturevalue("postgres")
        # The name of a socket's file must be short.
        with tempfile.TemporaryDirectory() as folder:
            file = ".s.PGSQL.5432"
            async with proxying(server.folder / file, Path(folder) / file) as proxy:
                address = server.dsn(folder=Path(folder))
                yield Engine(proxy, lambda: PostgresInbox(address, schema=name, timeout=TIMEOUT_SECONDS))
    else:
        server = request.getfixturevalue("nats_server")
        monkeypatch.setattr(_jetstream_link, "_PING_SECONDS", 0.5)
        monkeypatch.setattr(_jetstream_queue, "ACK_WAIT_SECONDS", LEASE_SECONDS)
        async with proxying(server.port) as proxy:
            address = server.url().replace(str(server.port), str(proxy.port))
            yield Engine(proxy, lambda: JetStreamInbox(address, name=name, timeout=TIMEOUT_SECONDS))
            gc.collect()  # here, where it may complain: see the test


# nats-py forgets to close a connection that fails while it is made again; the garbage collector does it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("fault", Fault, ids=[fault.name for fault in Fault])
@pytest.mark.parametrize("behind", ["postgres", "jetstream"], indirect=True)
async def test_a_network_that_fails_loses_nothing(behind, fault, torture):
    """Under load each answer comes in bounded time, what was answered 204 is handled, and stopping ends."""
    handled = Handled()
    receiver = Receiver(handled.router, tokens=None, inbox=behind.make(), grace=1.0)
    receiver._intake._worker.lease_seconds = LEASE_SECONDS
    posting = Posting(receiver)
    async with AsyncExitStack() as running:
        await running.enter_async_context(receiver)
        async with posting.going_on():
            for _ in range(20 if torture else 1):
                await posting.is_acknowledged(20)
                async with behind.proxy.under(fault):
                    await behind.proxy.strikes(1)
                    await posting.is_answered(8)
            await posting.is_acknowledged(20)
        lost = await posting.lost(handled)
        dead = (await receiver.stats()).inbox.dead
        async with behind.proxy.under(fault), asyncio.timeout(BOUND_SECONDS):
            await running.aclose()

    assert (lost, dead) == (set(), 0)
