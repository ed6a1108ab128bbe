"""Receivers' processes as a test starts, ends and loses them."""

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

from notifications.crash import server
from notifications.crash.server import Settings

DEADLINE = 20.0
POLL_SECONDS = 0.005


async def until(holds: Callable[[], bool], progress: Callable[[], object] = lambda: None) -> None:
    """
    Wait for something to hold.

    Raises:
        TimeoutError: It does not, and there has been no progress for so long.
    """
    seen, deadline = progress(), time.monotonic() + DEADLINE
    while not holds():
        if progress() != seen:
            seen, deadline = progress(), time.monotonic() + DEADLINE
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing has happened for {DEADLINE:.0f} s")
        await asyncio.sleep(POLL_SECONDS)


class ReceiverProcess:
    """One process; started by `Processes`, which does not let it outlive the test."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.started_at = time.monotonic()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        return self._process.returncode is not None

    async def said(self, word: str) -> float:
        """Wait until it says a word; return the seconds since its start."""
        async with asyncio.timeout(DEADLINE):
            line = await self._process.stdout.readline()
        assert line.decode().strip() == word
        return time.monotonic() - self.started_at

    async def ready(self) -> float:
        await self.said("starting")
        return await self.said("ready")

    async def killed(self) -> None:
        """End it as the system would."""
        self._signal(signal.SIGKILL)
        await self._process.wait()

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        # The process's own methods look whether it has ended, and take that news from the event loop.
        if not self.has_ended:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def ended(self) -> int:
        """Wait for its end; return its exit status, negative for a signal."""
        async with asyncio.timeout(DEADLINE):
            return await self._process.wait()


class Processes:
    """Starts receivers' processes."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._started: list[ReceiverProcess] = []

    async def start(self) -> ReceiverProcess:
        """Start one, and do not wait for it."""
        listener = self.settings.listener
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-W", "error", server.__file__, self.settings.dumps(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            # It finds what this process finds.
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            pass_fds=() if listener is None else (listener,),
        )  # fmt: skip
        self._started.append(ReceiverProcess(process))
        return self._started[-1]

    async def start_ready(self) -> ReceiverProcess:
        process = await self.start()
        await process.ready()
        return process

    async def kill_all(self) -> None:
        for process in self._started:
            await process.killed()


@asynccontextmanager
async def no_survivors(settings: Settings) -> AsyncIterator[Processes]:
    """Yield what starts processes, and kill them all at the end."""
    processes = Processes(settings)
    try:
        yield processes
    finally:
        await processes.kill_all()


@contextmanager
def free_port() -> Iterator[int]:
    """
    Yield a port that processes may listen at in turn, or together.

    It stays bound meanwhile: nobody else gets it, and no connection to it can get it as its own end and meet itself.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]
