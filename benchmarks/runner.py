"""Run the rows, each run in a new process. `MODULES` lists the modules that have rows."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module

from benchmarks.report import Figure, figure
from benchmarks.rows import Costs, Effort, Row, measure_once

#: In the order of the table.
MODULES = (
    *("parse", "dispatch", "client", "posting", "import_time", "growth", "hostile_bodies"),
    *("intake", "http_intake", "cores", "sqlite", "postgres", "jetstream", "telemetry"),
)


def rows_of(module: str, words: Sequence[str]) -> list[Row]:
    """Return a module's rows that contain one of *words*, or all rows without *words*."""
    rows: Sequence[Row] = import_module(f"benchmarks.{module}").ROWS
    return [row for row in rows if not words or any(word in _title(module, row) for word in words)]


def _title(module: str, row: Row) -> str:
    return f"{module}: {row.operation} {row.baseline}"


def measure(module: str, words: Sequence[str], effort: Effort) -> list[Costs | str]:
    """Measure a module's rows once in this process."""
    return [measure_once(row, effort) for row in rows_of(module, words)]


def measure_in_new_process(module: str, words: Sequence[str], effort: Effort) -> list[Costs | str]:
    """Measure a module's rows once in a new process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(measure, module, words, effort).result()


def figures(modules: Sequence[str], words: Sequence[str], effort: Effort, runs: int) -> list[Figure]:
    """Measure all rows in each run before the next run, so that a row's runs are spread over the whole time."""
    results: dict[str, list[list[Costs | str]]] = {module: [] for module in modules if rows_of(module, words)}
    for number in range(runs):
        for module, earlier in results.items():
            sys.stderr.write(f"run {number + 1} of {runs}: {module}\n")
            earlier.append(measure_in_new_process(module, words, effort))
    return [
        figure(module, row, costs)
        for module, of_runs in results.items()
        for row, costs in zip(rows_of(module, words), zip(*of_runs, strict=True), strict=True)
    ]
