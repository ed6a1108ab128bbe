"""``python -m benchmarks``: measure everything, and write a table and a JSON file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks import report
from benchmarks.rows import FULL, QUICK
from benchmarks.runs import MODULES, figures

BUILD = report.HERE.parent / "build" / "bench"
RUNS = 5


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure, beside floors and peers.")
    parser.add_argument("words", nargs="*", help="only rows in whose module, work or beside one of these stands")
    parser.add_argument("--quick", action="store_true", help="a minute: shows that all of it runs")
    parser.add_argument("--runs", type=int, help=f"each in a process of its own; {RUNS}, or 1 when quick")
    parser.add_argument("--json", type=Path, default=BUILD / "results.json")
    parser.add_argument("--table", type=Path, default=BUILD / "table.md")
    parser.add_argument("--docs", action="store_true", help="keep the figures, and make docs/performance.md of them")
    options = parser.parse_args()
    # The cases and the servers that the tests have are measured too.
    sys.path.append(str(report.HERE.parent / "tests"))
    effort, runs = (QUICK, options.runs or 1) if options.quick else (FULL, options.runs or RUNS)
    path = report.RESULTS if options.docs else options.json
    found = figures(MODULES, options.words, effort, runs)
    table = report.table(found)
    if options.docs and options.words:
        found = report.replaced(report.read(path)[1], found)
    report.write(path, found, runs=runs, quick=options.quick)
    options.table.parent.mkdir(parents=True, exist_ok=True)
    options.table.write_text(table, encoding="utf-8")
    if options.docs:
        report.write_docs()
    sys.stdout.write(table)


if __name__ == "__main__":
    main()
