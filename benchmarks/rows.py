"""
`Row`: one line of the table; `compare`: what something costs, beside its floor, measured in turns.

A module of this folder has ``ROWS``, and a line in ``MODULES`` of `benchmarks.runs`. Each row is measured five
times, each time in a process of its own; a figure is the median of the five ratios, and its spread the least and the
greatest of them. A row whose engine is not there raises `UnavailableError`, or the ImportError that it meets, and the
table says so.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from attrs import frozen

Work = Callable[[], object]
Clock = Callable[[], float]

# Long enough for the clock, short enough that whatever else the machine does hits both sides alike.
_BLOCK_SECONDS = 0.002
_LEAST_PAIRS = 5


class UnavailableError(Exception):
    """What a row needs is not on this machine: its words go into the table."""


@frozen
class Effort:
    """How much is measured: *seconds* a row in each run, *share* of the counts that a row names."""

    seconds: float
    share: float = 1.0

    def of(self, count: int, *, least: int = 1) -> int:
        """Return how many of *count* to take."""
        return max(least, round(count * self.share))


FULL = Effort(seconds=1.0)
QUICK = Effort(seconds=0.03, share=0.02)


@frozen
class Costs:
    """What ours and the other cost in one run, in one unit: seconds, instructions, bytes."""

    ours: float
    beside: float
    unit: str = "s"


@frozen
class Row:
    """
    One line of the table.

    Attributes:
        work: What we do.
        beside: What it is measured beside, on the same input.
        reach: The ratio to reach; None where the figure only informs.
        measure: Measures once.
        better: ``"lower"``: the ratio is our costs by the other's; ``"higher"``: the other's by ours, as in 'four times
            as fast'.
    """

    work: str
    beside: str
    reach: float | None
    measure: Callable[[Effort], Costs]
    better: Literal["lower", "higher"] = "lower"

    def ratio(self, costs: Costs) -> float:
        """Return one run's ratio."""
        return costs.ours / costs.beside if self.better == "lower" else costs.beside / costs.ours

    def is_met(self, ratio: float) -> bool:
        """Tell whether it reaches what it is to reach."""
        return self.reach is None or (ratio <= self.reach if self.better == "lower" else ratio >= self.reach)


def compare(ours: Work, beside: Work, effort: Effort, *, clock: Clock = time.process_time) -> Costs:
    """
    Measure two functions in turns: blocks of some milliseconds each, as many as go into the time.

    Args:
        ours: Called often.
        beside: Likewise.
        effort: For how long.
        clock: The processor's time of this process, unless what is waited for counts too.

    Returns:
        The medians of a call's costs in all blocks.
    """
    blocks = [_block(work, clock) for work in (ours, beside)]
    pairs: list[tuple[float, float]] = []
    ends = time.perf_counter() + effort.seconds
    while time.perf_counter() < ends or len(pairs) < _LEAST_PAIRS:
        order = (0, 1) if len(pairs) % 2 else (1, 0)
        found = {index: blocks[index]() for index in order}
        pairs.append((found[0], found[1]))
    return _medians(pairs)


def _block(work: Work, clock: Clock) -> Callable[[], float]:
    """Make what measures one block of calls: so many as take a block's time."""
    work()
    once = min(_seconds(work, 1, clock) for _ in range(3))
    calls = max(1, round(_BLOCK_SECONDS / max(once, 1e-7)))
    return lambda: _seconds(work, calls, clock) / calls


def _seconds(work: Work, calls: int, clock: Clock) -> float:
    begun = clock()
    for _ in range(calls):
        work()
    return clock() - begun


async def compare_async(
    ours: Callable[[], Awaitable[Any]],
    beside: Callable[[], Awaitable[Any]],
    effort: Effort,
    *,
    clock: Clock = time.process_time,
) -> Costs:
    """Measure two coroutine functions in turns, in one event loop; otherwise like `compare`."""
    works = [ours, beside]
    calls = [await _calls(work, clock) for work in works]
    pairs: list[tuple[float, float]] = []
    ends = time.perf_counter() + effort.seconds
    while time.perf_counter() < ends or len(pairs) < _LEAST_PAIRS:
        order = (0, 1) if len(pairs) % 2 else (1, 0)
        found = {index: await _seconds_async(works[index], calls[index], clock) for index in order}
        pairs.append((found[0], found[1]))
    return _medians(pairs)


async def _calls(work: Callable[[], Awaitable[Any]], clock: Clock) -> int:
    await work()
    once = min([await _seconds_async(work, 1, clock) for _ in range(3)])
    return max(1, round(_BLOCK_SECONDS / max(once, 1e-7)))


async def _seconds_async(work: Callable[[], Awaitable[Any]], calls: int, clock: Clock) -> float:
    begun = clock()
    for _ in range(calls):
        await work()
    return (clock() - begun) / calls


def _medians(pairs: list[tuple[float, float]]) -> Costs:
    """Take the median of the ratios, not the ratio of the medians: what slows the machine down slows a pair down."""
    beside = statistics.median(pair[1] for pair in pairs)
    return Costs(beside * statistics.median(pair[0] / pair[1] for pair in pairs), beside)


def measured_once(row: Row, effort: Effort) -> Costs | str:
    """Measure a row once; where it cannot be, return why not."""
    gc.collect()
    try:
        return row.measure(effort)
    except (UnavailableError, ImportError) as missing:
        return str(missing)
