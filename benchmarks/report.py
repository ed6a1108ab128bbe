"""
Write the figures as a JSON file, a Markdown table, and a page of the documentation with a chart.

``python -m benchmarks.report`` writes the page and its chart from the stored figures.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from xml.parsers import expat

from attrs import asdict, frozen

from benchmarks.rows import Row

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
RESULTS = HERE / "results.json"
PEERS = HERE / "peers.json"

_LIBRARIES = ("attrs", "cattrs", "httpx", "httpcore", "xmltodict", "pydantic-xml", "xsdata")
_HEAD = "| operation | compared with | ratio | spread | target | met |\n| --- | --- | --- | --- | --- | --- |\n"


@frozen
class Figure:
    """The result of one row: a ratio for each run, or the reason why it was not measured."""

    module: str
    operation: str
    baseline: str
    target: float | None
    better: str
    ratios: tuple[float, ...] = ()
    #: The medians of our cost and of the baseline's, in *unit*.
    our_cost: float = 0.0
    baseline_cost: float = 0.0
    unit: str = "s"
    missing: str = ""

    @property
    def ratio(self) -> float:
        """The median ratio of the runs."""
        return statistics.median(self.ratios)

    @property
    def is_met(self) -> bool:
        """Whether the median reaches the target."""
        if self.target is None:
            return True
        return self.ratio <= self.target if self.better == "lower" else self.ratio >= self.target


def figure(module: str, row: Row, runs: Sequence[Any]) -> Figure:
    """Create a figure from the results of a row's runs."""
    title = {
        "module": module,
        "operation": row.operation,
        "baseline": row.baseline,
        "target": row.target,
        "better": row.better,
    }
    missing = [run for run in runs if isinstance(run, str)]
    if missing:
        return Figure(**title, missing=missing[0])
    return Figure(
        **title,
        ratios=tuple(row.ratio(run) for run in runs),
        our_cost=statistics.median(run.ours for run in runs),
        baseline_cost=statistics.median(run.baseline for run in runs),
        unit=runs[0].unit,
    )


# --- JSON file --------------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """Return the date, the machine and the versions of the measurement."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": [round(load, 1) for load in os.getloadavg()],
        "system": f"{platform.system()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "versions": {"expat": expat.EXPAT_VERSION.removeprefix("expat_")} | dict(_versions()),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _versions() -> Iterable[tuple[str, str]]:
    for library in _LIBRARIES:
        try:
            yield library, version(library)
        except PackageNotFoundError:
            continue


def write(path: Path, figures: Sequence[Figure], *, runs: int, quick: bool = False) -> None:
    """Write the JSON file."""
    content = {"machine": machine(), "runs": runs, "quick": quick, "figures": [asdict(figure) for figure in figures]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def replaced(stored: Iterable[Figure], measured: Iterable[Figure]) -> list[Figure]:
    """Replace the figures of the rows that were measured again."""
    by_row = {(figure.module, figure.operation, figure.baseline): figure for figure in measured}
    return [by_row.get((figure.module, figure.operation, figure.baseline), figure) for figure in stored]


def read(path: Path) -> tuple[dict[str, Any], list[Figure]]:
    """Read a JSON file; return the machine and the figures."""
    content = json.loads(path.read_text(encoding="utf-8"))
    figures = [Figure(**{**item, "ratios": tuple(item["ratios"])}) for item in content["figures"]]
    return content["machine"] | {"runs": content["runs"], "quick": content["quick"]}, figures


# --- table ------------------------------------------------------------------------------------------------


def table(figures: Iterable[Figure]) -> str:
    """Return the figures as a Markdown table."""
    return _HEAD + "".join(_line(figure) for figure in figures)


def _line(figure: Figure) -> str:
    if figure.missing:
        return f"| {figure.operation} | {figure.baseline} | not measured: {figure.missing} | | {_target(figure)} | |\n"
    spread = f"{_number(min(figure.ratios))} to {_number(max(figure.ratios))}"
    met = "" if figure.target is None else "yes" if figure.is_met else "no"
    cells = figure.operation, figure.baseline, f"**{_number(figure.ratio)}**", spread, _target(figure), met
    return f"| {' | '.join(cells)} |\n"


def _target(figure: Figure) -> str:
    if figure.target is None:
        return ""
    return f"{'at most' if figure.better == 'lower' else 'at least'} {figure.target:g}"


def _number(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:,.1f}"


# --- documentation page -----------------------------------------------------------------------------------

_PAGE = """\
# Performance

Each figure is a ratio that compares the cost of this library with that of a baseline for the same input, measured
alternately in one run. A ratio depends less on the machine than a time in microseconds. 1.00 means equal cost. With a
target of *at most*, the ratio is our cost divided by the baseline's, and lower is better; with *at least*, it is the
baseline's cost divided by ours, and higher is better. Rows without a target are ratios of our cost to the baseline's,
unless their figure counts events per second or compares several processes with one: then higher is better. Each figure
is the median of {runs} runs, each in a new process; the spread is their minimum and maximum. `benchmarks/README.md`
describes each baseline, and explains the targets that are not met.

{quick}{tables}
```{{image}} performance.png
:alt: Each figure as a bar, relative to its target
```

## Measured on

{machine}
## Measure it yourself

```sh
nox -s bench                # about 15 minutes; writes a table and a JSON file to build/bench
nox -s bench -- --quick     # a few minutes: checks that everything runs; the figures are meaningless
nox -s bench -- --docs      # also writes this page
nox -s bench_peers          # compares with other libraries that parse and dispatch
```
"""

_QUICK = """\
:::{warning}
These figures are from a quick run with a fiftieth of the bodies and postbacks. They only show that the benchmarks run;
`nox -s bench -- --docs` replaces them.
:::

"""

_TITLES = {
    "parse": "Parsing",
    "dispatch": "Dispatch",
    "client": "Client",
    "import_time": "Import time",
    "growth": "Growth with the input",
    "hostile_bodies": "Hostile bodies",
    "intake": "Intake with slow handlers",
    "http_intake": "Intake over HTTP",
    "sqlite": "SQLite inbox",
    "postgres": "PostgreSQL inbox",
    "jetstream": "NATS JetStream inbox",
    "telemetry": "Telemetry",
    "peers": "Other libraries",
}


def page(about: dict[str, Any], figures: Sequence[Figure]) -> str:
    """Return the page of the documentation."""
    modules = dict.fromkeys(figure.module for figure in figures)
    tables = "".join(
        f"## {_TITLES[module]}\n\n{table(figure for figure in figures if figure.module == module)}\n"
        for module in modules
    )
    quick = _QUICK if about["quick"] else ""
    return _PAGE.format(quick=quick, runs=about["runs"], tables=tables, machine=_about(about))


def _about(about: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    return (
        f"{about['date']}, {about['processor']} with {about['cores']} cores, {about['system']}, {about['python']}; "
        f"load average at the end {about['load'][0]:g}. Versions: {versions}.\n\nThe other libraries were measured in "
        f"separate environments: {about.get('peers', 'not measured')}.\n"
    )


def chart(figures: Sequence[Figure], path: Path) -> None:
    """Draw each figure as a bar, relative to its target."""
    import matplotlib as mpl  # noqa: PLC0415  # only the chart needs it

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415  # after the choice of the backend

    shown = [figure for figure in figures if figure.target and not figure.missing][::-1]
    drawing, axes = plt.subplots(figsize=(10, 1 + 0.32 * len(shown)))
    lengths = [_relative_to_target(figure) for figure in shown]
    colors = ["#2a7f62" if figure.is_met else "#b5482a" for figure in shown]
    axes.barh([f"{figure.operation}\nvs {figure.baseline}" for figure in shown], lengths, color=colors)
    for index, (figure, length) in enumerate(zip(shown, lengths, strict=True)):
        axes.text(length, index, f" {_number(figure.ratio)}", va="center", fontsize=8)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xlabel("cost relative to the target (shorter is better; the line is the target)")
    axes.set_xlim(0, max([*lengths, 1.0]) * 1.1)
    axes.tick_params(axis="y", labelsize=6)
    drawing.tight_layout()
    drawing.savefig(path, dpi=120)
    plt.close(drawing)


def _relative_to_target(figure: Figure) -> float:
    target = figure.target or 1.0
    return figure.ratio / target if figure.better == "lower" else target / figure.ratio


def write_docs() -> None:
    """Write the page and its chart from the stored figures."""
    about, figures = read(RESULTS)
    if PEERS.exists():
        peers_about, peers_figures = read(PEERS)
        about, figures = about | {"peers": peers_about["date"]}, [*figures, *peers_figures]
    (DOCS / "performance.md").write_text(page(about, figures), encoding="utf-8")
    chart(figures, DOCS / "performance.png")


if __name__ == "__main__":
    write_docs()
