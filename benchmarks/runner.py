"""Running the rows, each run in a process of its own; `MODULES` lists where they stand."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module

from benchmarks.report import Figure, figure
from benchmarks.rows import Costs, Effort, Row, measured_once

#: In the order of the table.
MODULES = (
    *("parse", "dispatch", "client", "start", "growth", "hostile"),
    *("intake", "over_http", "keeping", "postgres", "jetstream", "telemetry"),
)


def rows_of(module: str, words: Sequence[str]) -> list[Row]:
    """List a module's rows: those in which one of *words* stands, or all."""
    rows: Sequence[Row] = import_module(f"benchmarks.{module}").ROWS
    return [row for row in rows if not words or any(word in f"{module}: {row.work} {row.beside}" for word in words)]


def measure(module: str, words: Sequence[str], effort: Effort) -> list[Costs | str]:
    """Measure a module's rows once, in this process."""
    return [measured_once(row, effort) for row in rows_of(module, words)]


def measure_in_a_process(module: str, words: Sequence[str], effort: Effort) -> list[Costs | str]:
    """Measure them in a process that has done nothing else."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(measure, module, words, effort).result()


def figures(modules: Sequence[str], words: Sequence[str], effort: Effort, runs: int) -> list[Figure]:
    """Measure all, one run after the other; a run is spread over the time that the whole takes."""
    found: dict[str, list[list[Costs | str]]] = {module: [] for module in modules if rows_of(module, words)}
    for number in range(runs):
        for module, before in found.items():
            _print(f"run {number + 1} of {runs}: {module}")
            before.append(measure_in_a_process(module, words, effort))
    return [
        figure(module, row, costs)
        for module, before in found.items()
        for row, costs in zip(rows_of(module, words), zip(*before, strict=True), strict=True)
    ]


def _print(line: str) -> None:
    sys.stderr.write(line + "\n")
