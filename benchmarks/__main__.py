"""``python -m benchmarks``: run the benchmarks, and write a table and a JSON file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks import report
from benchmarks.rows import FULL, QUICK
from benchmarks.runner import MODULES, figures

BUILD = report.HERE.parent / "build" / "bench"
RUNS = 5


def main() -> None:
    """Run the benchmarks, write the files and print the table."""
    options = _options()
    # Some benchmarks use the tests' corpus and servers.
    sys.path.append(str(report.HERE.parent / "tests"))
    effort, runs = (QUICK, options.runs or 1) if options.quick else (FULL, options.runs or RUNS)
    path = report.RESULTS if options.docs else options.json
    measured = figures(options.module or MODULES, options.words, effort, runs)
    if options.docs and (options.words or options.module):
        measured = report.replaced(report.read(path)[1], measured)
    report.write(path, measured, runs=runs, quick=options.quick)
    options.table.parent.mkdir(parents=True, exist_ok=True)
    options.table.write_text(report.all_tables(*report.read(path)), encoding="utf-8")
    if options.docs:
        report.write_docs()
    sys.stdout.write(report.table(measured))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Compare with baselines and other libraries."
    )
    parser.add_argument("words", nargs="*", help="run only rows whose module, operation or baseline contains a word")
    parser.add_argument("--module", action="append", choices=MODULES, help="run only this module; repeatable")
    parser.add_argument("--quick", action="store_true", help="check in a few minutes that everything runs")
    parser.add_argument("--runs", type=int, help=f"number of runs, each in a new process; default {RUNS}, quick 1")
    parser.add_argument("--json", type=Path, default=BUILD / "results.json", help="JSON file; default %(default)s")
    parser.add_argument("--table", type=Path, default=BUILD / "table.md", help="table file; default %(default)s")
    parser.add_argument(
        "--docs", action="store_true", help="store the figures, and write results.md and docs/performance.md"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
