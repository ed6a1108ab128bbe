"""
Start three receivers on one inbox and one port, post to them, and show that all share the work.

``python run_local.py [INBOX] [EVENTS]``: the inbox is ``postgresql://…`` or ``nats://…``; a folder unless given. The
kernel stands in for the proxy: each process listens on the same port (``SO_REUSEPORT``), and each new connection goes
to one of them. Exit status 0 only if each event was handled exactly once, and every receiver has had a share.
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
DEADLINE_SECONDS = 60


def listener(port: int) -> socket.socket:
    """Bind a socket to a port that others are bound to as well; 0 is a new one."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.bind(("127.0.0.1", port))
    return bound


async def serve(port: int) -> None:
    """Be one of the receivers, until SIGTERM."""
    server = uvicorn.Server(uvicorn.Config(create_app(), log_level="warning", timeout_graceful_shutdown=10))
    with listener(port) as bound:
        await server.serve(sockets=[bound])


class Receivers:
    """Three processes, and what they say."""

    def __init__(self) -> None:
        self.handled: Counter[str] = Counter()
        self.by_receiver: Counter[str] = Counter()
        self._processes: list[asyncio.subprocess.Process] = []
        self._listening: list[asyncio.Task[None]] = []
        self._news = asyncio.Event()

    async def start(self, port: int, environment: dict[str, str]) -> None:
        """Start them; they listen when this returns."""
        for name in RECEIVERS:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, __file__, "--serve", str(port)),
                env=os.environ | environment | {"RECEIVER": name},
                stdout=asyncio.subprocess.PIPE,
            )
            self._processes.append(process)
            self._listening.append(asyncio.create_task(self._listen(process)))
        while len(listening(port)) < len(RECEIVERS):
            if any(process.returncode is not None for process in self._processes):
                raise SystemExit("a receiver did not start")
            await asyncio.sleep(0.05)  # the kernel tells nobody

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            _, name, *key = line.decode().split()
            self.handled[" ".join(key)] += 1
            self.by_receiver[name] += 1
            self._news.set()

    async def have_handled(self, events: int) -> None:
        """Wait until that many have been handled."""
        while len(self.handled) < events:
            self._news.clear()
            await self._news.wait()

    async def stop(self) -> None:
        """Stop them as a deployment would, and hear them out."""
        for process in self._processes:
            if process.returncode is None:
                process.terminate()
        for process in self._processes:
            await process.wait()
        await asyncio.gather(*self._listening)


def listening(port: int) -> list[str]:
    """Find the sockets that listen on a port."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return [line for line in lines if line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A"]


async def post(url: str, events: int) -> Counter[int]:
    """Post that many, each on a connection of its own; count the answers."""
    slots = asyncio.Semaphore(16)

    async def post_one() -> int:
        async with slots:
            return (await client.post(url, content=make_text_sent().to_json())).status_code

    async with httpx.AsyncClient(headers={"Connection": "close"}, trust_env=False, timeout=30) as client:
        return Counter(await asyncio.gather(*(post_one() for _ in range(events))))


async def main(inbox: str, events: int) -> int:
    """Do it all; return the exit status."""
    tokens = EndpointTokens(token := EndpointTokens.generate())
    receivers = Receivers()
    # Keeps the port from anybody else while nobody listens.
    with listener(0) as kept:
        port = kept.getsockname()[1]
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                await receivers.start(port, {"CALLFIRE_INBOX": inbox, "CALLFIRE_TOKEN": token})
                answers = await post(tokens.url(f"http://127.0.0.1:{port}/callfire"), events)
                await receivers.have_handled(answers[204])
        finally:
            await receivers.stop()
    print(f"{events} posted, {answers[204]} acknowledged, {len(receivers.handled)} handled")
    for name in RECEIVERS:
        print(f"  {name}: {receivers.by_receiver[name]}")
    fine = answers[204] == events == receivers.handled.total() and set(receivers.by_receiver) == set(RECEIVERS)
    return 0 if fine else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        asyncio.run(serve(int(sys.argv[2])))
    else:
        with tempfile.TemporaryDirectory() as folder:
            chosen = sys.argv[1] if len(sys.argv) > 1 else folder
            sys.exit(asyncio.run(main(chosen, int(sys.argv[2]) if len(sys.argv) > 2 else 300)))
