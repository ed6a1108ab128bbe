"""CPU time of ``import callfire_async``, compared with the imports of its dependencies."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys

from benchmarks.rows import Costs, Effort, Row

_ROUNDS = 9
_DEPENDENCIES = "import httpx, attrs, cattrs, xmltodict"


def _import(effort: Effort) -> Costs:
    return _interpreters("import callfire_async", _DEPENDENCIES, effort)


def _both_halves(effort: Effort) -> Costs:
    return _interpreters("import callfire_async, callfire_async.notifications", _DEPENDENCIES, effort)


def _interpreters(ours: str, baseline: str, effort: Effort) -> Costs:
    """Measure new interpreters alternately, without the start of the interpreter itself."""
    count = 1 + effort.of(_ROUNDS, minimum=3)
    _, *rounds = [tuple(_seconds(code) for code in (ours, baseline, "pass")) for _ in range(count)]  # first: compiles
    return Costs(
        statistics.median(own - empty for own, _, empty in rounds),
        statistics.median(other - empty for _, other, empty in rounds),
    )


def _seconds(code: str) -> float:
    before = _cpu_seconds_of_children()
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603  # fixed arguments
    return _cpu_seconds_of_children() - before


def _cpu_seconds_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


ROWS = (
    Row("`import callfire_async`", f"`{_DEPENDENCIES}`", 1.15, _import),
    Row("`import callfire_async, callfire_async.notifications`", f"`{_DEPENDENCIES}`", None, _both_halves),
)
