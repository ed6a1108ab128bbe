"""Splits, impairs and heals the network of a cluster and its receivers, in an order that a seed determines."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence

from attrs import field, frozen
from partitions.clusters import Cluster
from partitions.network import CUT, Link, Network, both_ways

# A twentieth of the frames is lost, and they overtake each other.
IMPAIRED = Link(loss=0.05, delay=(0.0, 0.1))


@frozen
class Nemesis:
    """
    Causes faults; the sender's links stay perfect, so that a refusal is the receiver's.

    Args:
        network: The network.
        cluster: The servers.
        receivers: The names of the receivers' hosts.
        rng: Chooses the faults and their durations.
        seconds: The range of the duration of a fault.
        report: Called with a line for each fault.
    """

    network: Network
    cluster: Cluster
    receivers: Sequence[str]
    rng: random.Random
    seconds: tuple[float, float]
    report: Callable[[str], None] = field(default=print)

    def faults(self) -> Iterator[Callable[[], Awaitable[None]]]:
        """Yield faults endlessly: a split of the leader, then all kinds in a random order, again and again."""
        kinds = [self.split_servers, self.split_minority, self.split_receiver, self.block_leader_output, self.impair]
        kinds += [self.crash_leader_alone, self.split_leader_with_receiver]
        yield self.split_leader
        while True:
            yield from self.rng.sample(kinds, len(kinds))

    async def cause(self, fault: Callable[[], Awaitable[None]]) -> None:
        """Cause a fault, then heal the network and wait until the cluster has recovered."""
        self.report(fault.__name__)
        await fault()
        await self.cluster.fence()
        self.network.heal()
        await self.cluster.recover()

    async def _hold(self, share: float = 1.0) -> None:
        await asyncio.sleep(share * self.rng.uniform(*self.seconds))

    @property
    def _all_hosts(self) -> list[str]:
        return [*self.cluster.hosts, *self.receivers]

    def _others(self, *hosts: str) -> list[str]:
        return [name for name in self._all_hosts if name not in hosts]

    # --- faults -------------------------------------------------------------------------------------------

    async def split_leader(self, *joined: str) -> None:
        """Split the leader off from all other servers and from the receivers, except *joined*."""
        leader = await self.cluster.leader()
        self.network.set_links(both_ways([leader, *joined], self._others(leader, *joined)))
        await self.cluster.fail_over()
        await self._hold()

    async def split_leader_with_receiver(self) -> None:
        """Split the leader off together with a receiver, which sees only the former leader."""
        await self.split_leader(self.rng.choice(self.receivers))

    async def split_servers(self) -> None:
        """Split the leader off from the other servers; receivers reach all of them."""
        leader = await self.cluster.leader()
        self.network.set_links(both_ways([leader], self.cluster.hosts))
        await self._hold()

    async def split_minority(self) -> None:
        """Split one other server off, together with a receiver."""
        leader = await self.cluster.leader()
        server = self.rng.choice([name for name in self.cluster.hosts if name != leader])
        minority = [server, self.rng.choice(self.receivers)]
        self.network.set_links(both_ways(minority, self._others(*minority)))
        await self._hold()

    async def split_receiver(self) -> None:
        """Split a receiver off from all servers."""
        self.network.set_links(both_ways([self.rng.choice(self.receivers)], self.cluster.hosts))
        await self._hold()

    async def block_leader_output(self) -> None:
        """Lose all that the leader sends to the other servers, and nothing that they send to it."""
        leader = await self.cluster.leader()
        self.network.set_links({(leader, other): CUT for other in self.cluster.hosts if other != leader})
        await self._hold()

    async def impair(self) -> None:
        """Lose, delay and reorder frames between all servers and receivers."""
        self.network.set_links(both_ways(self._all_hosts, self._all_hosts, IMPAIRED))
        await self._hold()

    async def crash_leader_alone(self) -> None:
        """Split the leader off from the other servers, then lose it."""
        await self.split_servers()
        await self.cluster.crash_leader()
        await self._hold(0.5)
