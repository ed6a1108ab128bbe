"""
`Row`: one line of the table. `compare`: measure an operation and its baseline alternately.

A benchmark module has ``ROWS``, and is listed in ``MODULES`` of `benchmarks.runner`. Each row is measured five times,
each time in a new process; a figure is the median of the five ratios, and its spread their minimum and maximum. A row
whose server or library is missing raises `UnavailableError` or ImportError, which the table shows.
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

# Long enough for the clock's resolution, short enough that other load on the machine affects both sides equally.
_BLOCK_SECONDS = 0.002
_MIN_PAIRS = 5


class UnavailableError(Exception):
    """A row cannot be measured on this machine; the table shows the message."""


@frozen
class Effort:
    """How much to measure: *seconds* per row and run, and the *fraction* of a row's counts."""

    seconds: float
    fraction: float = 1.0

    def of(self, count: int, *, minimum: int = 1) -> int:
        """Return the fraction of a count, but at least *minimum*."""
        return max(minimum, round(count * self.fraction))


FULL = Effort(seconds=1.0)
QUICK = Effort(seconds=0.03, fraction=0.02)


@frozen
class Costs:
    """The costs of our operation and of its baseline in one run, in one unit: seconds, instructions or bytes."""

    ours: float
    baseline: float
    unit: str = "s"


@frozen
class Row:
    """
    One line of the table.

    Attributes:
        operation: What is measured.
        baseline: What it is compared with, on the same input.
        target: The ratio to reach; None if there is no target.
        measure: Measures the row once.
        better: ``"lower"``: the ratio is our cost divided by the baseline's; ``"higher"``: the baseline's cost divided
            by ours, as in 'four times as fast'.
    """

    operation: str
    baseline: str
    target: float | None
    measure: Callable[[Effort], Costs]
    better: Literal["lower", "higher"] = "lower"

    def ratio(self, costs: Costs) -> float:
        """Return the ratio of one run."""
        return costs.ours / costs.baseline if self.better == "lower" else costs.baseline / costs.ours


def compare(ours: Work, baseline: Work, effort: Effort, *, clock: Clock = time.process_time) -> Costs:
    """
    Measure two functions alternately, in blocks of some milliseconds, until the time is over.

    Args:
        ours: The function to measure; called many times.
        baseline: The function to compare with; called many times.
        effort: How long to measure.
        clock: The clock; defaults to the CPU time of this process.

    Returns:
        The costs of one call: medians over all blocks.
    """
    blocks = [_block(work, clock) for work in (ours, baseline)]
    pairs: list[tuple[float, float]] = []
    end = time.perf_counter() + effort.seconds
    while time.perf_counter() < end or len(pairs) < _MIN_PAIRS:
        order = (0, 1) if len(pairs) % 2 else (1, 0)
        costs = {index: blocks[index]() for index in order}
        pairs.append((costs[0], costs[1]))
    return _medians(pairs)


def _block(work: Work, clock: Clock) -> Callable[[], float]:
    """Return a function that measures one block of calls and returns the cost of a call."""
    work()
    once = min(_seconds(work, 1, clock) for _ in range(3))
    calls = max(1, round(_BLOCK_SECONDS / max(once, 1e-7)))
    return lambda: _seconds(work, calls, clock) / calls


def _seconds(work: Work, calls: int, clock: Clock) -> float:
    start = clock()
    for _ in range(calls):
        work()
    return clock() - start


async def compare_async(
    ours: Callable[[], Awaitable[Any]],
    baseline: Callable[[], Awaitable[Any]],
    effort: Effort,
    *,
    clock: Clock = time.process_time,
) -> Costs:
    """Measure two coroutine functions alternately in one event loop, like `compare`."""
    works = [ours, baseline]
    calls = [await _calls(work, clock) for work in works]
    pairs: list[tuple[float, float]] = []
    end = time.perf_counter() + effort.seconds
    while time.perf_counter() < end or len(pairs) < _MIN_PAIRS:
        order = (0, 1) if len(pairs) % 2 else (1, 0)
        costs = {index: await _seconds_async(works[index], calls[index], clock) for index in order}
        pairs.append((costs[0], costs[1]))
    return _medians(pairs)


async def _calls(work: Callable[[], Awaitable[Any]], clock: Clock) -> int:
    await work()
    once = min([await _seconds_async(work, 1, clock) for _ in range(3)])
    return max(1, round(_BLOCK_SECONDS / max(once, 1e-7)))


async def _seconds_async(work: Callable[[], Awaitable[Any]], calls: int, clock: Clock) -> float:
    start = clock()
    for _ in range(calls):
        await work()
    return (clock() - start) / calls


def _medians(pairs: list[tuple[float, float]]) -> Costs:
    """Use the median of the ratios, not the ratio of the medians: other load slows both sides of a pair."""
    baseline = statistics.median(pair[1] for pair in pairs)
    return Costs(baseline * statistics.median(pair[0] / pair[1] for pair in pairs), baseline)


def measure_once(row: Row, effort: Effort) -> Costs | str:
    """Measure a row once, or return why it cannot be measured."""
    gc.collect()
    try:
        return row.measure(effort)
    except (UnavailableError, ImportError) as error:
        return str(error)
