"""Servers on hosts of a test network that can lose their leader: three of NATS, or two of PostgreSQL."""

import asyncio
import contextlib
import shutil
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from engines.nats import NatsServer, program_and_folder, running_servers
from engines.postgres import PASSWORD, PostgresServer, programs_and_folder
from engines.unprivileged import give_to_unprivileged_user
from nats.aio.client import Client
from partitions.network import Host

DEADLINE_SECONDS = 180.0
_POLL_SECONDS = 0.1
_QUEUE = "callfire"


class Cluster(Protocol):
    """Servers of which one leads."""

    #: The names of the servers' hosts.
    hosts: Sequence[str]
    #: The URLs that a receiver's inbox connects to.
    urls: Sequence[str]

    async def leader(self) -> str:
        """Return the name of the host whose server leads."""
        ...

    async def crash_leader(self) -> None:
        """Kill the server that leads; another one takes over."""
        ...

    async def fail_over(self) -> None:
        """Make another server lead, as an operator or a tool does if the leader cannot be reached."""
        ...

    async def fence(self) -> None:
        """Stop a former leader that would still act as the leader once the network has healed."""
        ...

    async def recover(self) -> None:
        """Restart what was stopped, and wait until all servers are up to date; the network is whole."""
        ...


async def wait_until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until an asynchronous condition is true."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not await condition():  # noqa: ASYNC110  # other processes make it true
            await asyncio.sleep(_POLL_SECONDS)


# --- NATS -------------------------------------------------------------------------------------------------


class NatsCluster:
    """Three NATS servers, which elect a leader among themselves."""

    def __init__(self, servers: Mapping[str, NatsServer]) -> None:
        self._servers = servers
        self._killed: list[NatsServer] = []
        self.hosts = tuple(servers)
        self.urls = [server.url() for server in servers.values()]

    async def leader(self) -> str:
        found: list[str] = []

        async def is_known() -> bool:
            with contextlib.suppress(Exception):
                async with self._connected() as client:
                    info = await client.jetstream().stream_info(_QUEUE)
                    found.append(info.cluster.leader or "")
            return any(found)

        await wait_until(is_known)
        return found[-1]

    async def crash_leader(self) -> None:
        server = self._servers[await self.leader()]
        await asyncio.to_thread(server.kill)
        self._killed.append(server)

    async def fail_over(self) -> None:
        """Do nothing: the servers elect a leader."""

    async def fence(self) -> None:
        """Do nothing: a former leader becomes a follower."""

    async def recover(self) -> None:
        while self._killed:
            server = self._killed.pop()
            server.start()
            await asyncio.to_thread(server.wait)
        await wait_until(self._is_current)

    async def _is_current(self) -> bool:
        with contextlib.suppress(Exception):
            async with self._connected() as client:
                clusters = [info.cluster for info in await client.jetstream().streams_info()]
            return all(cluster.leader and all(replica.current for replica in cluster.replicas) for cluster in clusters)
        return False

    @contextlib.asynccontextmanager
    async def _connected(self):
        client = Client()
        await client.connect(self.urls, allow_reconnect=False, connect_timeout=1)
        try:
            yield client
        finally:
            await client.close()


@contextmanager
def running_nats_cluster(hosts: Sequence[Host]) -> Iterator[NatsCluster]:
    """Run a NATS server on each host."""
    with program_and_folder() as (program, folder):
        routes = [f"{host.address}:6222" for host in hosts]
        servers = {
            host.name: NatsServer(
                program,
                folder,
                host.name,
                routes[number:] + routes[:number],
                address=(host.address, 4222),
                entered=host.entered,
                sync_interval="always",
            )
            for number, host in enumerate(hosts)
        }
        with running_servers(list(servers.values())):
            yield NatsCluster(servers)


# --- PostgreSQL -------------------------------------------------------------------------------------------

_CONFIGURATION = """
synchronous_commit = on
# A broken replication connection is given up after this, so that it is made again.
wal_sender_timeout = 6s
wal_receiver_timeout = 3s
wal_retrieve_retry_interval = 500ms
"""


class PostgresHost(PostgresServer):
    """A PostgreSQL server on a host."""

    def __init__(self, programs: Path, folder: Path, host: Host) -> None:
        folder.mkdir()
        give_to_unprivileged_user(folder)
        options = {"listen_addresses": host.address, "unix_socket_directories": str(folder)}
        super().__init__(programs, folder, [f"--{name}={value}" for name, value in options.items()])
        self.host = host

    @property
    def url(self) -> str:
        return f"postgresql://postgres:{PASSWORD}@{self.host.address}:5432/postgres"

    def initialise(self) -> None:
        super().initialise()
        with (self._data / "postgresql.conf").open("a") as file:
            file.write(_CONFIGURATION)
        with (self._data / "pg_hba.conf").open("a") as file:
            file.write("host all,replication all 10.77.0.0/24 password\n")

    def start(self) -> None:
        with self.host.entered():
            super().start()

    def copy(self, primary: "PostgresHost") -> None:
        """Replace the data by a copy of the primary's, and become its standby."""
        shutil.rmtree(self._data, ignore_errors=True)
        source = f"--dbname={primary.url}?connect_timeout=30"
        with self.host.entered():
            # It reports more often than the timeout of the sender, which would end the copy.
            options = ["--checkpoint=fast", "--status-interval=1", "--write-recovery-conf"]
            self._run("pg_basebackup", source, f"--pgdata={self._data}", *options)

    def set(self, name: str, value: str) -> None:
        """Change a setting and reload the configuration."""
        self.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        self.execute("SELECT pg_reload_conf()")


class PostgresCluster:
    """A PostgreSQL server and its synchronous standby, which an operator makes the primary."""

    def __init__(self, primary: PostgresHost, standby: PostgresHost) -> None:
        self._primary, self._standby = primary, standby
        self._old: PostgresHost | None = None
        self.hosts = (primary.host.name, standby.host.name)
        addresses = ",".join(f"{server.host.address}:5432" for server in (primary, standby))
        self.urls = [f"postgresql://postgres:{PASSWORD}@{addresses}/postgres?target_session_attrs=primary"]

    async def leader(self) -> str:
        return self._primary.host.name

    async def crash_leader(self) -> None:
        await asyncio.to_thread(self._primary.stop, immediate=True)
        await self.fail_over()

    async def fail_over(self) -> None:
        # It is the only server for now, and has all that the old primary has acknowledged.
        await asyncio.to_thread(self._standby.set, "synchronous_standby_names", "")
        await asyncio.to_thread(self._standby.execute, "SELECT pg_promote()")
        self._old = self._primary
        self._primary, self._standby = self._standby, self._primary

    async def fence(self) -> None:
        if self._old is not None:
            await asyncio.to_thread(self._old.stop, immediate=True)

    async def recover(self) -> None:
        if self._old is not None:
            await asyncio.to_thread(self._rebuild, self._old)
            self._old = None
        await wait_until(self._is_synchronous)
        await asyncio.to_thread(self._wait_for_standby)

    def _rebuild(self, standby: PostgresHost) -> None:
        standby.copy(self._primary)
        standby.start()
        self._primary.set("synchronous_standby_names", "*")

    async def _is_synchronous(self) -> bool:
        query = "SELECT sync_state FROM pg_stat_replication WHERE state = 'streaming'"
        return (await asyncio.to_thread(self._primary.query, query)).strip() == "sync"

    def _wait_for_standby(self) -> None:
        """Wait until the standby has all commits, and will have each later one before it is acknowledged."""
        # Commits wait for a standby once the checkpointer has read the setting, which may be long after the others.
        self._primary.execute("CHECKPOINT")
        self._primary.execute("SELECT pg_logical_emit_message(true, '', '')")


@contextmanager
def running_postgres_cluster(hosts: Sequence[Host]) -> Iterator[PostgresCluster]:
    """Run a PostgreSQL server on one host and its synchronous standby on another."""
    with programs_and_folder() as (programs, folder), ExitStack() as stack:
        primary, standby = [PostgresHost(programs, folder / host.name, host) for host in hosts]
        primary.initialise()
        for server in (primary, standby):
            if server is standby:
                standby.copy(primary)
            server.start()
            stack.callback(server.stop, immediate=True)
        primary.set("synchronous_standby_names", "*")
        yield PostgresCluster(primary, standby)
