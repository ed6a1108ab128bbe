# ruff: noqa: INP001  # a script, not part of a package
"""
The intake does not wait for handlers: postbacks are acknowledged while every handler takes ten seconds.

It posts over real HTTP to a receiver in a process of its own (uvicorn, one inbox on disk), each connection sending
the next postback once the last was answered, and prints how long the answers took and what became of the receiver's
memory. Run it with the tests' folder on the path, where the sender and the process are.
"""

import argparse
import asyncio
import os
import platform
import sqlite3
import statistics
import sys
import tempfile
import time
from pathlib import Path

import uvicorn
from notifications.crash.ledger import Ledger
from notifications.crash.poster import Poster
from notifications.crash.processes import Processes, free_port, no_survivors
from notifications.crash.server import Settings

HANDLER_SECONDS = 10
# So many are posted first: what a process allocates once is no growth.
WARM_UP = 500


async def measure(posts: int, connections: int, folder: Path) -> None:
    """Post, and print the figures."""
    ledger = Ledger(folder / "journal", folder / "inbox")
    with free_port() as port:
        async with no_survivors(Settings(str(ledger.journal), str(ledger.inbox), port)) as processes:
            await _measure(processes, ledger, posts, connections)


async def _measure(processes: Processes, ledger: Ledger, posts: int, connections: int) -> None:
    process = await processes.start_ready()
    port = processes.settings.port
    await Poster(port, _long, range(WARM_UP)).post_all(connections)
    before = resident_kib(process.pid)
    poster = Poster(port, _long, range(WARM_UP, WARM_UP + posts))
    begun = time.monotonic()
    await poster.post_all(connections)
    seconds = time.monotonic() - begun
    after = resident_kib(process.pid)
    handled = len(ledger.counts["handled"])
    acknowledged = f"{len(poster.acknowledged):,} of {posts:,} postbacks acknowledged in {seconds:.1f} s"
    _print(f"{acknowledged}, over {connections} connections")
    _print(f"handlers that take {HANDLER_SECONDS} s each had handled {handled} by then")
    _print(f"answers: {_percentiles([*poster.latencies])}")
    _print(f"memory of the receiver: {before / 1024:.1f} MiB before, {after / 1024:.1f} MiB after")


def _long(number: int) -> str:  # noqa: ARG001  # the sender asks with a number
    return f"wait {HANDLER_SECONDS}"


def _percentiles(latencies: list[float]) -> str:
    cuts = statistics.quantiles(latencies, n=1000)
    named = {"50th": cuts[499], "99th": cuts[989], "99.9th": cuts[998], "longest": max(latencies)}
    return ", ".join(f"{name} {seconds * 1000:.1f} ms" for name, seconds in named.items())


def resident_kib(pid: int) -> int:
    """Return how much memory a process has in use."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise ProcessLookupError(pid)


def _machine() -> str:
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{platform.system()} {platform.release()} on {platform.machine()}, {os.cpu_count()} cores, load {load};"
        f" Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, uvicorn {uvicorn.__version__}"
    )


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")


def main() -> None:
    """Measure once."""
    parser = argparse.ArgumentParser(description="Measure how fast postbacks are acknowledged while handlers are slow.")
    parser.add_argument("--posts", type=int, default=10_000)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--folder", type=Path, help="where the inbox is kept meanwhile")
    options = parser.parse_args()
    _print(_machine())
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        asyncio.run(measure(options.posts, options.connections, Path(folder)))


if __name__ == "__main__":
    main()
