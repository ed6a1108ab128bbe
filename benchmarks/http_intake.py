"""
Intake over HTTP, compared with the same server with an application that reads the body and responds 204.

All servers run at the same time, each in its own process, and are measured alternately.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path

from attrs import frozen

from benchmarks.load_generator import Format, Postbacks, post_all, postback
from benchmarks.rows import Costs, Effort, Row
from benchmarks.server import ServerProcess, run_server
from benchmarks.sqlite import DONE, fill

CONNECTIONS = 64
# Per turn: enough for some dozen batches of the inbox.
POSTBACKS = 2_000
_MIN_POSTBACKS = 300
_ROUNDS = 5
_POSTBACKS_PER_SECOND = 10_000
_MAX_RESPONSE_SECONDS = 0.025

_CASES: tuple[tuple[str, Format], ...] = (
    *(("stored", "JSON"), ("full", "JSON"), ("handled", "JSON")),
    *(("inline", "JSON"), ("inline", "XML")),
)
_APPS = ("bare", "stored", "full", "handled", "inline")


@frozen
class Turn:
    """The costs of one turn in seconds: elapsed and CPU time per request, and the 99th percentile of response times."""

    elapsed: float
    cpu: float
    p99: float


def _turn(server: ServerProcess, count: int, numbers: itertools.count[int], format: Format) -> Turn:
    postbacks = Postbacks(*postback(format), itertools.islice(numbers, count))
    before = server.cpu_seconds()
    elapsed = post_all([server.port], CONNECTIONS, postbacks)
    server.wait_until_handled()
    p99 = statistics.quantiles(postbacks.seconds, n=100)[98]
    return Turn(elapsed / count, (server.cpu_seconds() - before) / count, p99)


@cache
def _measured(name: str, effort: Effort) -> dict[tuple[str, Format], list[tuple[Turn, Turn]]]:
    """Measure a server's receivers and its bare application alternately; the first turn of each warms up."""
    count, numbers = effort.of(POSTBACKS, minimum=_MIN_POSTBACKS), itertools.count()
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        asyncio.run(fill(Path(directory) / "full.db", effort.of(DONE), 0))
        servers = {app: stack.enter_context(run_server(name, app, directory)) for app in _APPS}
        for server in servers.values():
            server.wait()
        pairs: dict[tuple[str, Format], list[tuple[Turn, Turn]]] = {case: [] for case in _CASES}
        for (app, format), turns in itertools.chain(*[pairs.items()] * (effort.of(_ROUNDS) + 1)):
            ours, bare = (_turn(servers[key], count, numbers, format) for key in (app, "bare"))
            turns.append((ours, bare))
    return {case: turns[1:] for case, turns in pairs.items()}


def _compare_with_bare(name: str, app: str, format: Format, cost: Callable[[Turn], float], effort: Effort) -> Costs:
    """Use the median of the turns' ratios, not the ratio of the medians."""
    pairs = _measured(name, effort)[app, format]
    baseline = statistics.median(cost(bare) for _, bare in pairs)
    return Costs(baseline * statistics.median(cost(ours) / cost(bare) for ours, bare in pairs), baseline)


def _elapsed(turn: Turn) -> float:
    return turn.elapsed


def _cpu(turn: Turn) -> float:
    return turn.cpu


def _throughput(effort: Effort) -> Costs:
    pairs = _measured("uvicorn", effort)["stored", "JSON"]
    return Costs(statistics.median(ours.cpu for ours, _ in pairs), 1 / _POSTBACKS_PER_SECOND)


def _p99(effort: Effort) -> Costs:
    pairs = _measured("uvicorn", effort)["stored", "JSON"]
    return Costs(statistics.median(ours.p99 for ours, _ in pairs), _MAX_RESPONSE_SECONDS)


_BARE = "the same server, reading the body and responding"
_FULL = f"with {DONE:,} done deliveries in the file"
_TARGETS: dict[tuple[str, Format], float] = {
    ("uvicorn", "XML"): 0.2,
    ("aiohttp", "XML"): 0.3,
    ("FastAPI", "XML"): 0.5,
    ("uvicorn", "JSON"): 0.55,
    ("aiohttp", "JSON"): 0.7,
    ("FastAPI", "JSON"): 0.8,
}


def _stored(server: str, app: str, target: float | None) -> Row:
    file = f"{_FULL}, " if app == "full" else ""
    operation = f"postbacks per second, stored on disk before the response, {file}{CONNECTIONS} connections: {server}"
    return Row(operation, _BARE, target, partial(_compare_with_bare, server, app, "JSON", _elapsed), "higher")


def _whole_job(server: str, target: float | None) -> Row:
    operation = f"CPU time of a postback that is stored, parsed, dispatched and acked: {server}"
    return Row(operation, _BARE, target, partial(_compare_with_bare, server, "handled", "JSON", _cpu))


ROWS = (
    _stored("uvicorn", "full", 0.42),
    _stored("aiohttp", "full", 0.62),
    _stored("uvicorn", "stored", None),
    _stored("aiohttp", "stored", None),
    _whole_job("uvicorn with h11", 4.0),
    _whole_job("uvicorn", None),
    Row("postbacks stored per second of CPU time: uvicorn", "10,000", None, _throughput, "higher"),
    Row(f"99th percentile of the response time, {CONNECTIONS} connections: uvicorn", "25 ms", None, _p99),
    *(
        Row(
            f"CPU time of a postback in {format}, handled without an inbox: {server}",
            _BARE,
            target,
            partial(_compare_with_bare, server, "inline", format, _cpu),
            "higher",
        )
        for (server, format), target in _TARGETS.items()
    ),
)
