"""
Receivers that share an inbox on a cluster keep their promises while the network is split, impaired and healed.

Three servers of NATS, or PostgreSQL with a synchronous standby, and three receivers run on hosts of a test network. The
sender is a host, too: the test's own thread. All steps are recorded, and the checker judges the history.
"""

import asyncio
import logging
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from attrs import frozen
from partitions.checker import Verdict, judge
from partitions.clusters import Cluster, running_nats_cluster, running_postgres_cluster
from partitions.history import Journal, read_history
from partitions.nemesis import Nemesis
from partitions.network import Network, running_network
from partitions.receiver_process import LEASE_SECONDS, PORT
from partitions.receivers import running_receivers
from partitions.sender import Sender

RECEIVERS = ("receiver1", "receiver2", "receiver3")
SERVERS = {"jetstream": ("nats1", "nats2", "nats3"), "postgres": ("postgres1", "postgres2")}
RATE = 40.0
# Without progress for this long, an event that is not handled is lost.
DRAIN_SECONDS = 120.0
POLL_SECONDS = 0.5

_log = logging.getLogger(__name__)

# A connection that fails during its handshake is dropped by nats-py without closing it.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.usefixtures("collect_garbage"),
]


@frozen
class Setup:
    """The hosts of one run."""

    network: Network
    cluster: Cluster
    folder: Path

    def verdict(self) -> Verdict:
        return judge(read_history(self.folder.glob("*.journal")))


@pytest.fixture
def setup(engine: str, tmp_path: Path, seed: int) -> Iterator[Setup]:
    with (
        running_network(["sender", *RECEIVERS, *SERVERS[engine]], seed) as network,
        # From here on, this thread is on the sender's host.
        network.hosts["sender"].entered(),
        running_cluster(engine, network) as cluster,
    ):
        yield Setup(network, cluster, tmp_path)


@contextmanager
def running_cluster(engine: str, network: Network) -> Iterator[Cluster]:
    run = running_nats_cluster if engine == "jetstream" else running_postgres_cluster
    with run([network.hosts[name] for name in SERVERS[engine]]) as cluster:
        yield cluster


@pytest.mark.parametrize("has_spool", [False, True], ids=["direct", "spooled"])
@pytest.mark.parametrize("engine", ["jetstream", "postgres"])
async def test_promises_are_kept_in_partitions(setup, has_spool, rng, torture, report_figure):
    """Nothing acknowledged is lost, and no delivery is settled by two lease holders or handled after that."""
    nemesis = Nemesis(
        setup.network, setup.cluster, RECEIVERS, rng, (4.0, 25.0) if torture else (5.0, 8.0), _log.warning
    )
    hosts = [setup.network.hosts[name] for name in RECEIVERS]
    sender = Sender([(host.address, PORT) for host in hosts], Journal(setup.folder / "sender.journal", "sender"), RATE)
    started = time.monotonic()

    await setup.cluster.recover()
    async with running_receivers(hosts, setup.folder, setup.cluster.urls, has_spool=has_spool) as receivers:
        async with sender.posting():
            faults = await disturb(nemesis, 900.0 if torture else 45.0)
        await wait_until_handled(setup)
        statuses = [await receiver.stop() for receiver in receivers]

    verdict = setup.verdict()
    report_figure(f"{verdict}, {faults} faults, {time.monotonic() - started:.0f} s")
    assert verdict.broken == {}
    assert statuses == [-signal.SIGTERM] * len(receivers)


async def disturb(nemesis: Nemesis, seconds: float) -> int:
    """Cause faults until *seconds* have passed; return their number."""
    ends_at = time.monotonic() + seconds
    for number, fault in enumerate(nemesis.faults()):
        if time.monotonic() > ends_at:
            return number
        await asyncio.sleep(nemesis.rng.uniform(0.5, 2.0))
        await nemesis.cause(fault)
    raise AssertionError


async def wait_until_handled(setup: Setup) -> None:
    """Wait until all acknowledged events are handled or nothing happens, and then for leases that may expire."""
    handled, deadline = -1, 0.0
    while (verdict := setup.verdict()).lost and (len(verdict.handled) > handled or time.monotonic() < deadline):
        if len(verdict.handled) > handled:
            handled, deadline = len(verdict.handled), time.monotonic() + DRAIN_SECONDS
        await asyncio.sleep(POLL_SECONDS)
    await asyncio.sleep(LEASE_SECONDS)
