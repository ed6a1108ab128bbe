"""The test network: hosts reach each other, until their links are changed."""

import socket
import time
from collections.abc import Iterator

import pytest
from partitions.network import CUT, Link, Network, both_ways, running_network

PACKETS = 200
# The first packets wait until the switch has started.
DEADLINE_SECONDS = 60.0
# Longer than the packets that follow each other take on a busy machine.
SILENT_SECONDS = 2.0


@pytest.fixture
def network() -> Iterator[Network]:
    with running_network(["one", "two", "three"], seed=7) as network:
        yield network


@pytest.fixture
def sockets(network: Network) -> Iterator[dict[str, socket.socket]]:
    """Return a datagram socket on each host."""
    opened = {name: open_socket(network, name) for name in network.hosts}
    yield opened
    for sock in opened.values():
        sock.close()


def open_socket(network: Network, name: str) -> socket.socket:
    host = network.hosts[name]
    with host.entered():
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((host.address, 7))
    sock.settimeout(DEADLINE_SECONDS)
    return sock


def send(sockets: dict[str, socket.socket], source: str, target: str, text: bytes) -> None:
    sockets[source].sendto(text, sockets[target].getsockname())


def arrives(sockets: dict[str, socket.socket], source: str, target: str, patience: float = DEADLINE_SECONDS) -> bool:
    send(sockets, source, target, source.encode())
    sockets[target].settimeout(patience)
    try:
        return sockets[target].recv(100) == source.encode()
    except TimeoutError:
        return False


def test_hosts_reach_each_other(sockets):
    """Without faults each host reaches each other host."""
    pairs = [(one, other) for one in sockets for other in sockets if one != other]

    assert all(arrives(sockets, *pair) for pair in pairs)


def test_a_split_is_between_two_groups(network, sockets):
    """Hosts of one group reach each other, and none of the other group, until the network heals."""
    network.set_links(both_ways(["one"], ["two", "three"]))

    assert arrives(sockets, "two", "three")
    assert not arrives(sockets, "one", "two", patience=0.2)
    assert not arrives(sockets, "three", "one", patience=0.2)
    network.heal()
    assert arrives(sockets, "one", "two")


def test_a_link_can_be_cut_in_one_direction(network, sockets):
    """The other direction still works."""
    network.set_links({("one", "two"): CUT})

    assert arrives(sockets, "two", "one")
    assert not arrives(sockets, "one", "two", patience=0.2)


def receive_all(sock: socket.socket) -> list[bytes]:
    received = []
    sock.settimeout(SILENT_SECONDS)
    try:
        while True:
            received.append(sock.recv(100))
    except TimeoutError:
        return received


def test_frames_are_lost_delayed_and_reordered(network, sockets):
    """About the given share is lost, none arrives before the shortest delay, and some overtake others."""
    assert arrives(sockets, "one", "two")
    network.set_links(both_ways(["one"], ["two"], Link(loss=0.25, delay=(0.05, 0.1))))
    started = time.monotonic()
    for number in range(PACKETS):
        send(sockets, "one", "two", b"%03d" % number)
    sockets["two"].settimeout(DEADLINE_SECONDS)
    first = sockets["two"].recv(100)
    seconds = time.monotonic() - started
    received = [first, *receive_all(sockets["two"])]

    assert 0.6 * PACKETS < len(received) < 0.9 * PACKETS
    assert seconds >= 0.05
    assert received != sorted(received)
    assert len(set(received)) == len(received)
