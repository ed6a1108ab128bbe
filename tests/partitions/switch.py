"""
A switch between the hosts of a test network that loses, delays and reorders frames, in a process of its own.

Its only argument is a JSON object: the hosts, as a list of the descriptors of their TAP devices, and the seed. Each
line of its standard input is a JSON list of the faults that apply from now on; it prints ``ready`` once they do. The
kernels of many machines lack ``netem``, so the switch does it: the only faults that a host sees are those of its
network device.
"""

import heapq
import itertools
import json
import os
import random
import select
import sys
import time
from contextlib import suppress

from notifications.crash.parent import print_line

MAX_FRAME_BYTES = 2048
# The last byte of a host's hardware address is its number, from 1.
TARGET_BYTE = 5
TYPE_BYTES = slice(12, 14)
# IPv4; the hosts know all hardware addresses.
FORWARDED_TYPE = b"\x08\x00"
# What the faults between two hosts are: the probability of a loss, and the smallest and largest delay in seconds.
# A larger delay for one frame than for the next reorders them.
PERFECT = (0.0, 0.0, 0.0)


class Switch:
    """Forwards frames between TAP devices."""

    def __init__(self, devices: list[int], seed: int) -> None:
        self._devices = devices
        self._random = random.Random(seed)
        self._faults: dict[tuple[int, int], tuple[float, float, float]] = {}
        self._delayed: list[tuple[float, int, int, bytes]] = []
        self._numbers = itertools.count()

    def run(self) -> None:
        """Forward frames until the standard input is closed."""
        poller = select.epoll()
        for descriptor in [0, *self._devices]:
            poller.register(descriptor, select.EPOLLIN)
        hosts = {device: number for number, device in enumerate(self._devices)}
        while True:
            for descriptor, _ in poller.poll(self._seconds_until_due()):
                if descriptor == 0:
                    self._apply(sys.stdin.readline())
                else:
                    self._receive(hosts[descriptor])
            self._send_due()

    def _seconds_until_due(self) -> float | None:
        return max(0.0, self._delayed[0][0] - time.monotonic()) if self._delayed else None

    def _apply(self, line: str) -> None:
        if not line:
            sys.exit()
        self._faults = {(source, target): tuple(fault) for source, target, fault in json.loads(line)}
        print_line("ready")

    def _receive(self, source: int) -> None:
        # A device that its host has switched off raises an error.
        with suppress(OSError):
            while True:
                frame = os.read(self._devices[source], MAX_FRAME_BYTES)
                if frame[TYPE_BYTES] == FORWARDED_TYPE:
                    self._forward(source, frame[TARGET_BYTE] - 1, frame)

    def _forward(self, source: int, target: int, frame: bytes) -> None:
        loss, shortest, longest = self._faults.get((source, target), PERFECT)
        if loss and self._random.random() < loss:
            return
        if longest:
            due_at = time.monotonic() + self._random.uniform(shortest, longest)
            heapq.heappush(self._delayed, (due_at, next(self._numbers), target, frame))
        else:
            self._send(target, frame)

    def _send_due(self) -> None:
        now = time.monotonic()
        while self._delayed and self._delayed[0][0] <= now:
            *_, target, frame = heapq.heappop(self._delayed)
            self._send(target, frame)

    def _send(self, target: int, frame: bytes) -> None:
        # A full queue loses the frame, as in a real switch.
        with suppress(OSError):
            os.write(self._devices[target], frame)


def main() -> None:
    settings = json.loads(sys.argv[1])
    Switch(settings["devices"], settings["seed"]).run()


if __name__ == "__main__":
    main()
