"""Receivers on hosts of a test network."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from partitions import receiver_process
from partitions.network import Host
from partitions.receiver_process import Settings

_DEADLINE_SECONDS = 180.0


class ReceiverHost:
    """
    A receiver process on a host.

    Args:
        host: The host.
        settings: The settings of the process.
        log: The file of its log.
    """

    def __init__(self, host: Host, settings: Settings, log: Path) -> None:
        with host.entered(), log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, receiver_process.__file__, settings.dumps()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            )
        self._log = log

    async def wait_until_ready(self) -> None:
        async with asyncio.timeout(_DEADLINE_SECONDS):
            line = await asyncio.to_thread(self._process.stdout.readline)
        assert line == b"ready\n", self._log.read_text()

    async def stop(self) -> int:
        """Stop the process with SIGTERM; return its exit status."""
        self._process.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self._process.wait, _DEADLINE_SECONDS)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(_DEADLINE_SECONDS)
        self._process.stdin.close()
        self._process.stdout.close()


@asynccontextmanager
async def running_receivers(
    hosts: Sequence[Host], folder: Path, servers: Sequence[str], *, has_spool: bool
) -> AsyncIterator[list[ReceiverHost]]:
    """Run a receiver on each of these hosts; their journals are in *folder*."""
    receivers: list[ReceiverHost] = []
    try:
        for host in hosts:
            spool = str(folder / f"{host.name}.spool") if has_spool else ""
            journal = str(folder / f"{host.name}.journal")
            settings = Settings(host.name, host.address, journal, list(servers), spool)
            receivers.append(ReceiverHost(host, settings, folder / f"{host.name}.log"))
        for receiver in receivers:
            await receiver.wait_until_ready()
        yield receivers
    finally:
        for receiver in receivers:
            receiver.kill()
