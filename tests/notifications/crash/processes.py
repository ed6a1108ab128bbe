"""Start, stop and kill receiver processes."""

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

from notifications.crash import server

# Far longer than any step takes, because other tests may need the machine, too.
DEADLINE = 120.0
POLL_SECONDS = 0.005


async def wait_until(condition: Callable[[], bool], progress: Callable[[], object] = lambda: None) -> None:
    """
    Wait until a condition is true.

    Raises:
        TimeoutError: There has been no progress for `DEADLINE` seconds.
    """
    last, deadline = progress(), time.monotonic() + DEADLINE
    while not condition():
        if progress() != last:
            last, deadline = progress(), time.monotonic() + DEADLINE
        if time.monotonic() > deadline:
            raise TimeoutError(f"no progress for {DEADLINE:.0f} s")
        await asyncio.sleep(POLL_SECONDS)


class ReceiverProcess:
    """One process; `Processes` starts it, and kills it at the end of the test."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.started_at = time.monotonic()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def has_exited(self) -> bool:
        return self._process.returncode is not None

    async def wait_for_line(self, expected: str) -> float:
        """Wait until the process prints *expected*; return the seconds since its start."""
        async with asyncio.timeout(DEADLINE):
            line = await self._process.stdout.readline()
        assert line.decode().strip() == expected
        return time.monotonic() - self.started_at

    async def wait_until_ready(self) -> float:
        await self.wait_for_line("starting")
        return await self.wait_for_line("ready")

    async def kill(self) -> None:
        """Kill the process with SIGKILL."""
        self._signal(signal.SIGKILL)
        await self._process.wait()

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        # The methods of asyncio's process also poll it, and its exit would then be missed by the event loop.
        if not self.has_exited:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def wait_for_exit(self) -> int:
        """Wait until the process exits; return its exit status, negative for a signal."""
        async with asyncio.timeout(DEADLINE):
            return await self._process.wait()


class Processes:
    """
    Starts processes.

    Args:
        settings: The settings of the next process.
        program: The program; a receiver by default.
    """

    def __init__(self, settings: Any, program: str = server.__file__) -> None:
        self.settings = settings
        self._program = program
        self._started: list[ReceiverProcess] = []

    async def start(self) -> ReceiverProcess:
        """Start a process without waiting until it is ready."""
        listener = self.settings.listener
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-W", "error", self._program, self.settings.dumps(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            # The child imports from the same paths as this process.
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            pass_fds=() if listener is None else (listener,),
        )  # fmt: skip
        self._started.append(ReceiverProcess(process))
        return self._started[-1]

    async def start_ready(self) -> ReceiverProcess:
        process = await self.start()
        await process.wait_until_ready()
        return process

    async def kill_all(self) -> None:
        for process in self._started:
            await process.kill()


@asynccontextmanager
async def run_processes(settings: Any, program: str = server.__file__) -> AsyncIterator[Processes]:
    """Yield a `Processes`; kill all its processes at the end."""
    processes = Processes(settings, program)
    try:
        yield processes
    finally:
        await processes.kill_all()


@contextmanager
def free_port() -> Iterator[int]:
    """
    Yield a port on which processes may listen, one after the other or together.

    The port stays bound: no other program can take it, and no connection to it can get it as its local port and
    connect to itself.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]
