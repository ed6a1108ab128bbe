"""Inboxes on servers behind a failing network: nothing hangs, and no acknowledged delivery is lost."""

import asyncio
import secrets
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest
from attrs import frozen
from engines.proxy import Fault, Proxy, run_proxy
from notifications.inbox.posting import BOUND_SECONDS, Handled, Posting

from callfire_async.errors import InboxUnavailableError
from callfire_async.notifications import Receiver
from callfire_async.notifications.inbox import Inbox
from callfire_async.notifications.inbox.jetstream import JetStreamInbox, _connection, _consumer
from callfire_async.notifications.inbox.postgres import PostgresInbox

TIMEOUT_SECONDS = 0.5
# A lease whose response was lost expires after this time.
LEASE_SECONDS = 2.0


@frozen
class Engine:
    """An inbox whose server is behind a proxy."""

    proxy: Proxy
    make: Callable[[], Inbox]


@pytest.fixture
async def behind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Engine]:
    """Run the server of an engine behind a proxy that can fail."""
    name = f"test_{secrets.token_hex(8)}"
    if request.param == "postgres":
        server = request.getfixturevalue("postgres")
        # The path of a Unix socket must be short.
        with tempfile.TemporaryDirectory() as folder:
            file = ".s.PGSQL.5432"
            async with run_proxy(server.folder / file, Path(folder) / file) as proxy:
                address = server.dsn(folder=Path(folder))
                yield Engine(proxy, lambda: PostgresInbox(address, schema=name, timeout=TIMEOUT_SECONDS))
    else:
        server = request.getfixturevalue("nats_server")
        monkeypatch.setattr(_connection, "_PING_SECONDS", 0.5)
        monkeypatch.setattr(_consumer, "ACK_WAIT_SECONDS", LEASE_SECONDS)
        async with run_proxy(server.port) as proxy:
            address = server.url().replace(str(server.port), str(proxy.port))
            yield Engine(proxy, lambda: JetStreamInbox(address, name=name, timeout=TIMEOUT_SECONDS))


# nats-py does not close a connection that fails during a reconnect; the garbage collector does.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("collect_garbage")
@pytest.mark.parametrize("fault", Fault, ids=[fault.name for fault in Fault])
@pytest.mark.parametrize("behind", ["postgres", "jetstream"], indirect=True)
async def test_a_failing_network_loses_nothing(behind, fault, torture):
    """Under load each reply arrives in bounded time, acknowledged deliveries are handled, and the receiver stops."""
    handled = Handled()
    async with AsyncExitStack() as running:
        receiver = await start(running, behind, handled)
        posting = Posting(receiver)
        async with posting.running():
            for _ in range(20 if torture else 1):
                await posting.wait_for_acknowledged(20)
                async with behind.proxy.under(fault):
                    await behind.proxy.wait_for_effects(1)
                    await posting.wait_for_replies(8)
            await posting.wait_for_acknowledged(20)
        lost = await posting.find_lost(handled)
        dead = await count_dead(receiver)
        async with behind.proxy.under(fault), asyncio.timeout(BOUND_SECONDS):
            await running.aclose()

    assert (lost, dead) == (set(), 0)


async def count_dead(receiver: Receiver) -> int:
    """Return the number of dead letters; on a busy machine, the inbox may need more than one attempt."""
    async with asyncio.timeout(BOUND_SECONDS):
        while True:
            with suppress(InboxUnavailableError):
                return (await receiver.stats()).inbox.dead


async def start(running: AsyncExitStack, behind: Engine, handled: Handled) -> Receiver:
    """Start a receiver; on a busy machine its inbox may need more than one attempt to open in its short timeout."""
    async with asyncio.timeout(BOUND_SECONDS):
        while True:
            receiver = Receiver(handled.router, tokens=None, inbox=behind.make(), shutdown_timeout=1.0)
            receiver._intake._worker.lease_seconds = LEASE_SECONDS
            with suppress(InboxUnavailableError):
                return await running.enter_async_context(receiver)
