"""
What servers lose of the deliveries that they have acknowledged, if they are killed or lose their power.

A killed process leaves its unsynced data to the kernel. A power failure loses it: each server has a file system of its
own, which is shut down without a flush under load.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager

import pytest
from attrs import evolve, frozen
from engines.nats import NatsServer, program_and_folder, running_servers
from engines.ports import reserve_port
from engines.postgres import PostgresServer, programs_and_folder
from engines.power import Disk, mounted_disk
from engines.unprivileged import give_to_unprivileged_user
from notifications.inbox.waiting import until

from callfire_async.errors import InboxError
from callfire_async.notifications.inbox import Delivery, Inbox
from callfire_async.notifications.inbox.jetstream import JetStreamInbox
from callfire_async.notifications.inbox.postgres import PostgresInbox

# If a server dies during a handshake, nats-py drops the connection without closing it.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.usefixtures("collect_garbage"),
]

DEADLINE = 180
WRITERS = 8
DELIVERIES = 400


@frozen
class Machines:
    """Servers, each on a disk of its own, and their inbox."""

    servers: Sequence[NatsServer] | Sequence[PostgresServer]
    disks: Sequence[Disk]
    new_inbox: Callable[[], Inbox]

    def restart(self, *, with_power_loss: bool) -> None:
        """Stop all servers at one moment, and start them again."""
        if with_power_loss:
            for disk in self.disks:
                disk.cut_power()
        for server in self.servers:
            kill(server)
        if with_power_loss:
            for disk in self.disks:
                disk.restore_power()
        for server in self.servers:
            server.start()

    def first(self) -> "Machines":
        """Return the first server alone, with the inbox of all."""
        return evolve(self, servers=self.servers[:1], disks=self.disks[:1])


def kill(server: NatsServer | PostgresServer) -> None:
    """Kill a server at once."""
    if isinstance(server, PostgresServer):
        server.stop(immediate=True)
    else:
        server.kill()


@contextmanager
def nats_machines(count: int, sync_interval: str, replicas: int) -> Iterator[Machines]:
    """Run a NATS server, or a cluster of three."""
    with program_and_folder() as (program, folder), ExitStack() as stack:
        routes = [f"127.0.0.1:{reserve_port()}" for _ in range(count)]
        # Each server stores its data in a folder with its name.
        disks = [stack.enter_context(mounted_disk(folder / f"node{number}")) for number in range(count)]
        servers = [
            NatsServer(
                program,
                folder,
                f"node{number}",
                routes[number:] + routes[:number] if count > 1 else [],
                sync_interval=sync_interval,
            )
            for number in range(count)
        ]
        stack.enter_context(running_servers(servers))
        name, urls = f"power_{secrets.token_hex(8)}", [server.url() for server in servers]
        yield Machines(servers, disks, lambda: JetStreamInbox(urls, name=name, replicas=replicas, timeout=15.0))


@contextmanager
def postgres_machine() -> Iterator[Machines]:
    """Run a PostgreSQL server."""
    with programs_and_folder() as (programs, folder), mounted_disk(folder / "disk") as disk:
        data = disk.path / "data"
        data.mkdir()
        give_to_unprivileged_user(data)
        (folder / "data").symlink_to(data)
        server = PostgresServer(programs, folder)
        server.initialise()
        disk.sync()
        server.start()
        try:
            yield Machines([server], [disk], lambda: PostgresInbox(server.dsn()))
        finally:
            server.stop(immediate=True)


@asynccontextmanager
async def opened(machines: Machines) -> AsyncIterator[Inbox]:
    """Open an inbox once the servers can."""
    async with contextlib.AsyncExitStack() as stack:
        inboxes: list[Inbox] = []

        async def try_to_open() -> bool:
            with contextlib.suppress(InboxError):
                inboxes.append(await stack.enter_async_context(machines.new_inbox()))
            return bool(inboxes)

        await until(try_to_open, deadline=DEADLINE)
        yield inboxes[0]


async def lost_deliveries(machines: Machines, count: int, *, with_power_loss: bool) -> tuple[int, int]:
    """Restart servers under load; return how many deliveries were acknowledged before, and how many are lost."""
    acknowledged: set[bytes] = set()
    enough = asyncio.Event()

    async def write(inbox: Inbox, writer: int) -> None:
        number = 0
        while True:
            body = b"%d %d" % (writer, number)
            await inbox.append(Delivery(body))
            acknowledged.add(body)
            number += 1
            if len(acknowledged) >= count:
                enough.set()

    async with opened(machines) as inbox:
        writing = [asyncio.create_task(write(inbox, writer)) for writer in range(WRITERS)]
        await enough.wait()
        # Blocks the event loop, so no acknowledgement that arrives later is counted.
        machines.restart(with_power_loss=with_power_loss)
        for task in writing:
            task.cancel()
        await asyncio.gather(*writing, return_exceptions=True)
    async with opened(machines) as inbox:
        stored = await stored_bodies(inbox)
    return len(acknowledged), len(acknowledged - stored)


async def stored_bodies(inbox: Inbox) -> set[bytes]:
    """Return the bodies in an inbox; after a restart, a cluster may need some time to elect leaders."""
    bodies: list[set[bytes]] = []

    async def try_to_read() -> bool:
        with contextlib.suppress(InboxError):
            bodies.append({entry.delivery.body async for entry in inbox.entries()})
        return bool(bodies)

    await until(try_to_read, deadline=2 * DEADLINE)
    return bodies[0]


async def test_postgres_loses_nothing_in_a_power_failure(report_figure):
    """With its default settings."""
    with postgres_machine() as machines:
        acknowledged, lost = await lost_deliveries(machines, DELIVERIES, with_power_loss=True)

    report_figure(f"{acknowledged} acknowledged, {lost} lost")
    assert lost == 0


@pytest.mark.parametrize(("count", "replicas"), [(1, 1), (3, 3)])
async def test_nats_loses_nothing_if_it_syncs_each_write(report_figure, count, replicas):
    """If all servers lose their power at once, with ``sync_interval: always``."""
    with nats_machines(count, "always", replicas) as machines:
        acknowledged, lost = await lost_deliveries(machines, DELIVERIES, with_power_loss=True)

    report_figure(f"{acknowledged} acknowledged, {lost} lost")
    assert lost == 0


@pytest.mark.parametrize(("count", "replicas"), [(1, 1), (3, 3)])
async def test_nats_with_its_default_loses_nothing_if_it_is_killed(report_figure, count, replicas):
    """The kernel still has what was not synced."""
    with nats_machines(count, "2m", replicas) as machines:
        acknowledged, lost = await lost_deliveries(machines, DELIVERIES, with_power_loss=False)

    report_figure(f"{acknowledged} acknowledged, {lost} lost")
    assert lost == 0


@pytest.mark.parametrize(("count", "replicas"), [(1, 1), (3, 1), (3, 3)])
async def test_nats_with_its_default_loses_deliveries_in_a_power_failure(report_figure, count, replicas):
    """Which is why the documentation requires ``sync_interval: always``; the figure is in it."""
    with nats_machines(count, "2m", replicas) as machines:
        acknowledged, lost = await lost_deliveries(machines, DELIVERIES, with_power_loss=True)

    report_figure(f"{acknowledged} acknowledged, {lost} lost")
    assert lost > 0


async def test_nats_with_its_default_and_replicas_survives_the_power_failure_of_a_server(report_figure):
    """The other two servers still have what it did not sync."""
    with nats_machines(3, "2m", 3) as machines:
        acknowledged, lost = await lost_deliveries(machines.first(), DELIVERIES, with_power_loss=True)

    report_figure(f"{acknowledged} acknowledged, {lost} lost")
    assert lost == 0
