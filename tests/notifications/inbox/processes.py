"""Processes that own an inbox, wait for the test, and are killed."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

DEADLINE = 60

PRELUDE = """
import asyncio, os, resource, sys
from callfire_async.errors import InboxError
from callfire_async.notifications.inbox import Delivery
from callfire_async.notifications.inbox.sqlite import SqliteInbox

def report(*values):
    print(*values, flush=True)

async def proceed():
    return await asyncio.to_thread(sys.stdin.readline)

"""


class Child:
    """A process that runs a script in step with the test."""

    def __init__(self, process: Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    async def read_line(self) -> str:
        """Return the next line that the process prints."""
        async with asyncio.timeout(DEADLINE):
            return (await self._process.stdout.readline()).decode().strip()

    async def proceed(self) -> None:
        """Let the process continue."""
        self._process.stdin.write(b"\n")
        await self._process.stdin.drain()

    async def kill(self) -> None:
        """Kill the process with SIGKILL."""
        self._process.send_signal(signal.SIGKILL)
        await self.wait()

    async def wait(self) -> int:
        async with asyncio.timeout(DEADLINE):
            return await self._process.wait()


async def kill(pid: int) -> None:
    """Kill a process whose children keep its pipes open: asyncio would wait for those."""
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(DEADLINE):
        with suppress(ProcessLookupError):
            while os.kill(pid, 0) is None:  # noqa: ASYNC110  # a process sets no events
                await asyncio.sleep(0.005)


@asynccontextmanager
async def running(lines: str, *arguments: object) -> AsyncIterator[Child]:
    """Run *lines*, the body of a coroutine function, in a process of its own; kill it at the end."""
    body = "".join(f"    {line}\n" for line in lines.strip().splitlines())
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        f"{PRELUDE}async def main():\n{body}\nasyncio.run(main())\n",
        *map(str, arguments),
        stdin=PIPE,
        stdout=PIPE,
        env=os.environ,
    )
    try:
        yield Child(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
