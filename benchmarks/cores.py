"""
The whole job over HTTP on one core and on two: postbacks are stored, parsed, dispatched and acked, in elapsed time.

Each process runs on a core of its own and has its own file of the inbox. The sender is not bound to a core: on a
machine with two cores it takes a part of the time of both processes.
"""

from __future__ import annotations

import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.load_generator import Postbacks, post_all, postback
from benchmarks.rows import Costs, Effort, Row, UnavailableError
from benchmarks.server import ServerProcess, run_server

CONNECTIONS = 64
# Per turn.
POSTBACKS = 4_000
_MIN_POSTBACKS = 300
_ROUNDS = 3
_CORES = 2


@contextmanager
def _run_servers(directory: Path, cores: Sequence[int]) -> Iterator[list[ServerProcess]]:
    """Run a server on each core; they share the directory of the inbox."""
    directory.mkdir()
    with ExitStack() as stack:
        servers = [stack.enter_context(run_server("uvicorn", "shared", str(directory), core)) for core in cores]
        for server in servers:
            server.wait()
        yield servers


def _turn(servers: Sequence[ServerProcess], count: int, numbers: Iterator[int]) -> float:
    """Return the seconds for a postback, until all are handled."""
    postbacks = Postbacks(*postback("JSON"), itertools.islice(numbers, count))
    start = time.perf_counter()
    post_all([server.port for server in servers], CONNECTIONS, postbacks)
    for server in servers:
        server.wait_until_handled()
    return (time.perf_counter() - start) / count


def _measure(effort: Effort) -> Costs:
    """Measure two cores and one alternately; the first turn of each warms up."""
    cores = sorted(os.sched_getaffinity(0))[:_CORES] if hasattr(os, "sched_getaffinity") else []
    if len(cores) < _CORES:
        raise UnavailableError(f"needs {_CORES} cores, and a system that binds a process to one")
    count, numbers = effort.of(POSTBACKS, minimum=_MIN_POSTBACKS), itertools.count()
    with (
        tempfile.TemporaryDirectory() as directory,
        _run_servers(Path(directory) / "one", cores[:1]) as one,
        _run_servers(Path(directory) / "two", cores) as two,
    ):
        rounds = [(_turn(two, count, numbers), _turn(one, count, numbers)) for _ in range(effort.of(_ROUNDS) + 1)][1:]
    return Costs(*(statistics.median(seconds) for seconds in zip(*rounds, strict=True)))


ROWS = (
    Row(
        f"a postback that is stored, parsed, dispatched and acked on {_CORES} cores: uvicorn",
        "on 1 core",
        None,
        _measure,
    ),
)
