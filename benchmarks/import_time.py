"""What a program waits for: ``import callfire_async`` beside the imports that it cannot do without."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys

from benchmarks.rows import Costs, Effort, Row

_ROUNDS = 9
_FLOOR = "import httpx, attrs, cattrs, xmltodict"


def _import(effort: Effort) -> Costs:
    return _interpreters("import callfire_async", _FLOOR, effort)


def _both_halves(effort: Effort) -> Costs:
    return _interpreters("import callfire_async, callfire_async.notifications", _FLOOR, effort)


def _interpreters(ours: str, beside: str, effort: Effort) -> Costs:
    """Measure in turns what each does to the processor, without the start of the interpreter itself."""
    rounds = [tuple(_seconds(code) for code in (ours, beside, "pass")) for _ in range(1 + effort.of(_ROUNDS, least=3))][
        1:
    ]  # the first may have to compile
    return Costs(
        statistics.median(mine - empty for mine, _, empty in rounds),
        statistics.median(other - empty for _, other, empty in rounds),
    )


def _seconds(code: str) -> float:
    before = _children()
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603  # our own words
    return _children() - before


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


ROWS = (
    Row("`import callfire_async`", f"`{_FLOOR}`", 1.15, _import),
    Row("the same, and `callfire_async.notifications`", f"`{_FLOOR}`", None, _both_halves),
)
