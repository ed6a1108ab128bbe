"""A client of a NATS server that is split off from the other servers, but not from the client."""

import contextlib
from collections.abc import Iterator

import pytest
from partitions.clusters import NatsCluster, running_nats_cluster, wait_until
from partitions.network import Network, both_ways, running_network

from callfire_async.errors import InboxError
from callfire_async.notifications.inbox import Delivery
from callfire_async.notifications.inbox.jetstream import JetStreamInbox

SERVERS = ("nats1", "nats2", "nats3")
TIMEOUT_SECONDS = 4.0

# A connection that fails during its handshake is dropped by nats-py without closing it.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.usefixtures("collect_garbage"),
]


@pytest.fixture
def network() -> Iterator[Network]:
    with running_network(["client", *SERVERS]) as network, network.hosts["client"].entered():
        yield network


@pytest.fixture
def cluster(network: Network) -> Iterator[NatsCluster]:
    with running_nats_cluster([network.hosts[name] for name in SERVERS]) as cluster:
        yield cluster


async def open_inbox(stack: contextlib.AsyncExitStack, cluster: NatsCluster) -> JetStreamInbox:
    """Open an inbox; shortly after the election, the leader does not know all servers yet."""
    inbox = JetStreamInbox(cluster.urls, replicas=3, timeout=TIMEOUT_SECONDS)

    async def is_open() -> bool:
        with contextlib.suppress(InboxError):
            await stack.enter_async_context(inbox)
            return True
        return False

    await wait_until(is_open)
    return inbox


async def append(inbox: JetStreamInbox, body: bytes) -> None:
    """Append a delivery, again and again until the servers acknowledge it."""

    async def is_stored() -> bool:
        with contextlib.suppress(InboxError):
            await inbox.append(Delivery(body))
            return True
        return False

    await wait_until(is_stored)


async def test_a_client_leaves_a_server_that_is_split_off(network, cluster, caplog):
    """The server still responds to pings, so the client would stay connected for as long as the split lasts."""
    async with contextlib.AsyncExitStack() as stack:
        inbox = await open_inbox(stack, cluster)
        await append(inbox, b"before")
        isolated = inbox._store.opened.connection.client.connected_url.hostname
        (name,) = [name for name in SERVERS if network.hosts[name].address == isolated]
        network.set_links(both_ways([name], SERVERS))
        await append(inbox, b"during")

    assert "connecting to another server" in caplog.text
