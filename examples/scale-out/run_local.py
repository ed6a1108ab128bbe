"""
Start three receivers that share one inbox and one port, post events to them, and print how many each has handled.

Usage: ``python run_local.py [INBOX] [EVENTS]``. INBOX is ``postgresql://…``, ``nats://…`` or a directory (default: a
temporary one). The kernel replaces the proxy: all processes listen on one port (``SO_REUSEPORT``), and each new
connection goes to one of them. The exit status is 0 if each event was handled exactly once and every receiver has
handled some.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import tempfile
from collections import Counter
from pathlib import Path

import httpx
import uvicorn
from service import create_app

from callfire_async.notifications import EndpointTokens
from callfire_async.testing import make_text_sent

RECEIVERS = ("one", "two", "three")
TIMEOUT_SECONDS = 180


def shared_socket(port: int) -> socket.socket:
    """Bind a socket to a port that other processes can bind too; 0 is a free port."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.bind(("127.0.0.1", port))
    return bound


async def serve(port: int) -> None:
    """Run one receiver until SIGTERM."""
    server = uvicorn.Server(uvicorn.Config(create_app(), log_level="warning", timeout_graceful_shutdown=10))
    with shared_socket(port) as bound:
        await server.serve(sockets=[bound])


class Receivers:
    """Three receiver processes, and counts of the events that they have handled."""

    def __init__(self) -> None:
        self.handled: Counter[str] = Counter()
        self.by_receiver: Counter[str] = Counter()
        self._processes: list[asyncio.subprocess.Process] = []
        self._readers: list[asyncio.Task[None]] = []
        self._changed = asyncio.Event()

    async def start(self, port: int, environment: dict[str, str]) -> None:
        """Start the processes, and wait until all of them listen."""
        for name in RECEIVERS:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, __file__, "--serve", str(port)),
                env=os.environ | environment | {"RECEIVER": name},
                stdout=asyncio.subprocess.PIPE,
            )
            self._processes.append(process)
            self._readers.append(asyncio.create_task(self._read(process)))
        while len(listening_sockets(port)) < len(RECEIVERS):
            if any(process.returncode is not None for process in self._processes):
                raise SystemExit("a receiver did not start")
            await asyncio.sleep(0.05)  # the kernel has no notification for this

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            _, name, *key = line.decode().split()
            self.handled[" ".join(key)] += 1
            self.by_receiver[name] += 1
            self._changed.set()

    async def wait_for(self, events: int) -> None:
        """Wait until that many events have been handled."""
        while len(self.handled) < events:
            self._changed.clear()
            await self._changed.wait()

    async def stop(self) -> None:
        """Stop the processes as a deployment does, and read their remaining output."""
        for process in self._processes:
            if process.returncode is None:
                process.terminate()
        for process in self._processes:
            await process.wait()
        await asyncio.gather(*self._readers)


def listening_sockets(port: int) -> list[str]:
    """Return the kernel's lines for the sockets that listen on a port."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return [line for line in lines if line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A"]


async def post(url: str, events: int) -> Counter[int]:
    """Post events, each over a connection of its own; return the number of responses by status."""
    slots = asyncio.Semaphore(16)

    async def post_one() -> int:
        async with slots:
            return (await client.post(url, content=make_text_sent().to_json())).status_code

    async with httpx.AsyncClient(headers={"Connection": "close"}, trust_env=False, timeout=30) as client:
        return Counter(await asyncio.gather(*(post_one() for _ in range(events))))


async def main(inbox: str, events: int) -> int:
    """Start the receivers, post events and print the counts; return the exit status."""
    tokens = EndpointTokens(token := EndpointTokens.generate())
    receivers = Receivers()
    # This socket reserves the port until the receivers listen.
    with shared_socket(0) as reserved:
        port = reserved.getsockname()[1]
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                await receivers.start(port, {"CALLFIRE_INBOX": inbox, "CALLFIRE_TOKEN": token})
                statuses = await post(tokens.url(f"http://127.0.0.1:{port}/callfire"), events)
                await receivers.wait_for(statuses[204])
        finally:
            await receivers.stop()
    print(f"{events} posted, {statuses[204]} acknowledged, {len(receivers.handled)} handled")
    for name in RECEIVERS:
        print(f"  {name}: {receivers.by_receiver[name]}")
    succeeded = statuses[204] == events == receivers.handled.total() and set(receivers.by_receiver) == set(RECEIVERS)
    return 0 if succeeded else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        asyncio.run(serve(int(sys.argv[2])))
    else:
        with tempfile.TemporaryDirectory() as directory:
            location = sys.argv[1] if len(sys.argv) > 1 else directory
            sys.exit(asyncio.run(main(location, int(sys.argv[2]) if len(sys.argv) > 2 else 300)))
