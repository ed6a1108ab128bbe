"""
The whole way in over HTTP, beside the same server that answers 204 once it has read the body.

All run at once, each in a process of its own, and take turns.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache, partial
from typing import Literal

from attrs import evolve, frozen

from benchmarks.posting import NUMBER, Posts, post_all
from benchmarks.rows import Costs, Effort, Row
from benchmarks.served import Served, served
from callfire_async.models import NotificationFormat
from callfire_async.notifications import TextReceived
from callfire_async.notifications.encoding import encode
from callfire_async.testing import samples

CONNECTIONS = 64
# Of each turn: enough for some dozen groups of the inbox.
POSTS = 2_000
_LEAST_POSTS = 300
_ROUNDS = 5
_A_SECOND = 10_000
_LONGEST_SECONDS = 0.025

Format = Literal["XML", "JSON"]
_WORKS: tuple[tuple[str, Format], ...] = (("kept", "JSON"), ("handled", "JSON"), ("handled", "XML"))


@frozen
class Turn:
    """What one turn cost: seconds a request, by the clock and of the processor, and the 99th percentile of answers."""

    seconds: float
    processor: float
    slowest: float


def document(format: Format) -> tuple[bytes, bytes]:
    """Return a content type, and a postback in whose body `NUMBER` stands for its number."""
    event = samples.EVENTS["TextReceived"]
    if not isinstance(event, TextReceived):
        raise TypeError
    event = evolve(event, text=evolve(event.text, id=int(NUMBER)))
    content_type, body = encode(event, NotificationFormat(format))
    return content_type.encode(), body


def _turn(server: Served, posts: int, numbers: itertools.count[int], format: Format) -> Turn:
    sent = Posts(*document(format), itertools.islice(numbers, posts))
    before = server.processor_seconds()
    seconds = post_all(server.port, CONNECTIONS, sent)
    slowest = statistics.quantiles(sent.seconds, n=100)[98]
    return Turn(seconds / posts, (server.processor_seconds() - before) / posts, slowest)


@cache
def _measured(name: str, effort: Effort) -> dict[tuple[str, Format], list[tuple[Turn, Turn]]]:
    """Take turns between a server's receivers and its bare application; the first turn of each only warms up."""
    posts, numbers = effort.of(POSTS, least=_LEAST_POSTS), itertools.count()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        servers = {what: running.enter_context(served(name, what, folder)) for what in ("bare", "handled", "kept")}
        for server in servers.values():
            server.wait()
        pairs: dict[tuple[str, Format], list[tuple[Turn, Turn]]] = {works: [] for works in _WORKS}
        for (what, format), taken in itertools.chain(*[pairs.items()] * (effort.of(_ROUNDS) + 1)):
            ours, bare = (_turn(servers[which], posts, numbers, format) for which in (what, "bare"))
            taken.append((ours, bare))
    return {works: taken[1:] for works, taken in pairs.items()}


def _beside_bare(name: str, what: str, format: Format, cost: Callable[[Turn], float], effort: Effort) -> Costs:
    """Take the median of the turns' ratios, not the ratio of the medians."""
    pairs = _measured(name, effort)[what, format]
    beside = statistics.median(cost(bare) for _, bare in pairs)
    return Costs(beside * statistics.median(cost(ours) / cost(bare) for ours, bare in pairs), beside)


def _seconds(turn: Turn) -> float:
    return turn.seconds


def _processor(turn: Turn) -> float:
    return turn.processor


def _absolute(effort: Effort) -> Costs:
    pairs = _measured("uvicorn", effort)["kept", "JSON"]
    return Costs(statistics.median(ours.processor for ours, _ in pairs), 1 / _A_SECOND)


def _slowest(effort: Effort) -> Costs:
    pairs = _measured("uvicorn", effort)["kept", "JSON"]
    return Costs(statistics.median(ours.slowest for ours, _ in pairs), _LONGEST_SECONDS)


_KEPT = f"postbacks a second, stored on disk before the answer, over {CONNECTIONS} connections"
_BARE = "the same server that reads the body and answers"
_REACHED: dict[tuple[str, Format], float] = {
    ("uvicorn", "XML"): 0.2,
    ("aiohttp", "XML"): 0.3,
    ("FastAPI", "XML"): 0.5,
    ("uvicorn", "JSON"): 0.55,
    ("aiohttp", "JSON"): 0.7,
    ("FastAPI", "JSON"): 0.8,
}

ROWS = (
    Row(f"{_KEPT}: uvicorn", _BARE, 0.55, partial(_beside_bare, "uvicorn", "kept", "JSON", _seconds), "higher"),
    Row(f"{_KEPT}: aiohttp", _BARE, 0.7, partial(_beside_bare, "aiohttp", "kept", "JSON", _seconds), "higher"),
    Row("postbacks stored and answered in a second of one core: uvicorn", "10,000", None, _absolute, "higher"),
    Row(f"the 99th percentile of their answers, over {CONNECTIONS} connections", "25 ms", None, _slowest),
    *(
        Row(
            f"the processor's time of a postback in {format}, handled without an inbox: {server}",
            _BARE,
            reach,
            partial(_beside_bare, server, "handled", format, _processor),
            "higher",
        )
        for (server, format), reach in _REACHED.items()
    ),
)
