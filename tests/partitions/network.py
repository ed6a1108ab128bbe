"""
Hosts as network namespaces on one machine, joined by a switch that can split them and impair their links.

The namespaces have no names and are deleted by the kernel when the last process in them ends, so an interrupted test
leaves nothing behind.
"""

import ctypes
import errno
import fcntl
import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from attrs import frozen
from engines.unprivileged import report_missing
from partitions import switch

_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_TAP_WITHOUT_HEADER = 0x0002 | 0x1000
_DEVICE = Path("/dev/net/tun")
_DEADLINE_SECONDS = 120

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: int) -> None:
    """Call a function of the C library that Python has from 3.12 on."""
    if getattr(_libc, name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {errno.errorcode[number]}")


@frozen
class Link:
    """The quality of the link from one host to another."""

    #: The probability that a frame is lost.
    loss: float = 0.0
    #: The shortest and the longest delay of a frame, in seconds; frames overtake each other if they differ.
    delay: tuple[float, float] = (0.0, 0.0)


CUT = Link(loss=1.0)


def _address(number: int) -> str:
    return f"10.77.0.{number}"


@frozen
class Host:
    """A network namespace, held by a descriptor."""

    name: str
    number: int
    _namespace: int

    @property
    def address(self) -> str:
        return _address(self.number)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """
        Create sockets and processes of this thread on the host during the block.

        Sockets and processes stay on their host after the block.
        """
        with _inside(self._namespace):
            yield


class Network:
    """
    Hosts that reach each other, until their links are changed.

    Args:
        hosts: The hosts by name.
        process: The switch.
    """

    def __init__(self, hosts: Mapping[str, Host], process: subprocess.Popen[bytes]) -> None:
        self.hosts = hosts
        self._switch = process

    def set_links(self, links: Mapping[tuple[str, str], Link]) -> None:
        """Set the links from one host to another; all others become perfect."""
        number = {name: host.number - 1 for name, host in self.hosts.items()}
        faults = [
            (number[source], number[target], (link.loss, *link.delay)) for (source, target), link in links.items()
        ]
        self._switch.stdin.write(json.dumps(faults).encode() + b"\n")
        self._switch.stdin.flush()
        assert self._switch.stdout.readline() == b"ready\n"

    def heal(self) -> None:
        """Make all links perfect."""
        self.set_links({})


def both_ways(first: Iterable[str], second: Iterable[str], link: Link = CUT) -> dict[tuple[str, str], Link]:
    """Return the same link between each host of one group and each of another, in both directions."""
    pairs = [(one, other) for one in first for other in second if one != other]
    return {pair: link for one, other in pairs for pair in ((one, other), (other, one))}


@contextmanager
def running_network(names: Sequence[str], seed: int = 0) -> Iterator[Network]:
    """Run a network of hosts; skip the test if this machine cannot."""
    _require_privileges()
    with ExitStack() as stack:
        hosts, devices = {}, []
        for number, name in enumerate(names, 1):
            namespace = _new_namespace()
            stack.callback(os.close, namespace)
            hosts[name] = Host(name, number, namespace)
            devices.append(_connect(hosts[name], len(names)))
            stack.callback(os.close, devices[-1])
        yield Network(hosts, stack.enter_context(_running_switch(devices, seed)))


def _require_privileges() -> None:
    if os.geteuid() != 0:
        report_missing("root", "run the tests as root to create network namespaces")
    if shutil.which("ip") is None:
        report_missing("ip", "apt-get install iproute2")
    if not _DEVICE.exists():
        report_missing(str(_DEVICE), "load the kernel module tun")


def _new_namespace() -> int:
    """Create a network namespace; return its descriptor."""
    with _inside(None):
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


@contextmanager
def _inside(namespace: int | None) -> Iterator[None]:
    """Move this thread to a namespace, or a new one, and back."""
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if namespace is None:
            _call("unshare", _CLONE_NEWNET)
        else:
            _call("setns", namespace, _CLONE_NEWNET)
        try:
            yield
        finally:
            _call("setns", own, _CLONE_NEWNET)
    finally:
        os.close(own)


def _connect(host: Host, count: int) -> int:
    """
    Create the network device of one of *count* hosts; return the descriptor of its other end.

    The hardware addresses of all hosts are known. If they had to be resolved, a host that is split off would become
    unreachable with an error within seconds, which happens in a local network only.
    """
    with host.entered():
        device = os.open(_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", b"eth0", _TAP_WITHOUT_HEADER))
        commands = [
            "link set lo up",
            f"address add {host.address}/24 dev eth0",
            f"link set eth0 address {_hardware_address(host.number)} up",
            *(
                f"neighbour add {_address(number)} lladdr {_hardware_address(number)} dev eth0 nud permanent"
                for number in range(1, count + 1)
                if number != host.number
            ),
        ]
        batch = "\n".join(commands).encode()
        subprocess.run(["ip", "-batch", "-"], input=batch, check=True, timeout=_DEADLINE_SECONDS)
    return device


def _hardware_address(number: int) -> str:
    return f"02:00:00:00:00:{number:02x}"


@contextmanager
def _running_switch(devices: Sequence[int], seed: int) -> Iterator[subprocess.Popen[bytes]]:
    settings = json.dumps({"devices": list(devices), "seed": seed})
    with subprocess.Popen(
        [sys.executable, switch.__file__, settings],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=devices,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        try:
            yield process
        finally:
            process.kill()
