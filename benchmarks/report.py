"""
Write the figures as a JSON file and Markdown tables, and six of them as a page of the documentation.

``python -m benchmarks.report`` writes ``results.md`` and the page from the stored figures.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Callable, Iterable, Sequence
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
TABLES = HERE / "results.md"
PEERS = HERE / "peers.json"

_LIBRARIES = ("attrs", "cattrs", "httpx", "httpcore", "xmltodict", "pydantic-xml", "xsdata")
_HEAD = (
    "| operation | compared with | cost | spread | target | met | measured |\n"
    "| --- | --- | --- | --- | --- | --- | --- |\n"
)


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
    #: The day of the measurement: a run of some rows keeps the figures of the others.
    date: str = ""

    @property
    def cost_ratios(self) -> tuple[float, ...]:
        """Our cost divided by the baseline's, for each run, whatever the direction of the target."""
        return self.ratios if self.better == "lower" else tuple(1 / ratio for ratio in self.ratios)

    @property
    def cost(self) -> float:
        """Our cost divided by the baseline's: the median of the runs."""
        return statistics.median(self.cost_ratios)

    @property
    def max_cost(self) -> float | None:
        """The target as a ratio of costs."""
        return self.target if self.target is None or self.better == "lower" else 1 / self.target

    @property
    def is_met(self) -> bool:
        """Whether the median reaches the target."""
        return self.max_cost is None or self.cost <= self.max_cost


def figure(module: str, row: Row, runs: Sequence[Any]) -> Figure:
    """Create a figure from the results of a row's runs."""
    title = {
        "module": module,
        "operation": row.operation,
        "baseline": row.baseline,
        "target": row.target,
        "better": row.better,
        "date": _today(),
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
        "date": _today(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": [round(load, 1) for load in os.getloadavg()],
        "system": f"{platform.system()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "versions": {"expat": expat.EXPAT_VERSION.removeprefix("expat_")} | dict(_versions()),
    }


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


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
    """Replace the figures of the rows that were measured again; add those of new rows."""
    by_row = {(figure.module, figure.operation, figure.baseline): figure for figure in (*stored, *measured)}
    return [*by_row.values()]


def read(path: Path) -> tuple[dict[str, Any], list[Figure]]:
    """Read a JSON file; return the machine and the figures."""
    content = json.loads(path.read_text(encoding="utf-8"))
    date = {"date": content["machine"]["date"]}
    figures = [Figure(**{**date, **item, "ratios": tuple(item["ratios"])}) for item in content["figures"]]
    return content["machine"] | {"runs": content["runs"], "quick": content["quick"]}, figures


# --- table ------------------------------------------------------------------------------------------------


def table(figures: Iterable[Figure]) -> str:
    """Return the figures as a Markdown table."""
    return _HEAD + "".join(_line(figure) for figure in figures)


def _line(figure: Figure) -> str:
    if figure.missing:
        return (
            f"| {figure.operation} | {figure.baseline} | not measured: {figure.missing} | | {_target(figure)} | | |\n"
        )
    spread = f"{_number(min(figure.cost_ratios))} to {_number(max(figure.cost_ratios))}"
    met = "" if figure.target is None else "yes" if figure.is_met else "no"
    cells = figure.operation, figure.baseline, f"**{_number(figure.cost)}**", spread, _target(figure), met, figure.date
    return f"| {' | '.join(cells)} |\n"


def _target(figure: Figure) -> str:
    return "" if figure.max_cost is None else _number(figure.max_cost)


def _number(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:,.1f}"


# --- all tables -------------------------------------------------------------------------------------------

_ALL = """\
# Results

Each figure is the cost of this library divided by the cost of a baseline for the same input, measured alternately in
one run: lower is better, and 1.00 means equal cost. It is the median of {runs} runs, each in a new process; the spread
is their minimum and maximum. A target is the largest cost that meets it. [README.md](README.md) describes each
baseline, and explains the targets that are not met.

{quick}{tables}## Measured on

The last column has the day of each measurement; those of earlier days used the versions of their day. The last one:

{machine}"""

_QUICK = """\
**These figures are from a quick run with a fiftieth of the bodies and postbacks. They only show that the benchmarks
run; `nox -s bench -- --docs` replaces them.**

"""

_TITLES = {
    "parse": "Parsing",
    "dispatch": "Dispatch",
    "client": "Client",
    "posting": "Posting events",
    "import_time": "Import time",
    "growth": "Growth with the input",
    "hostile_bodies": "Hostile bodies",
    "intake": "Intake with slow handlers",
    "http_intake": "Intake over HTTP",
    "cores": "The whole job on one core and on two",
    "sqlite": "SQLite inbox",
    "postgres": "PostgreSQL inbox",
    "jetstream": "NATS JetStream inbox",
    "telemetry": "Telemetry",
    "peers": "Other libraries",
}


def all_tables(about: dict[str, Any], figures: Sequence[Figure]) -> str:
    """Return a page with the tables of all modules."""
    modules = dict.fromkeys(figure.module for figure in figures)
    tables = "".join(
        f"## {_TITLES[module]}\n\n{table(figure for figure in figures if figure.module == module)}\n"
        for module in modules
    )
    return _ALL.format(quick=_QUICK if about["quick"] else "", runs=about["runs"], tables=tables, machine=_about(about))


def _about(about: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    return (
        f"{about['date']}, {about['processor']} with {about['cores']} cores, {about['system']}, {about['python']}; "
        f"load average at the end {about['load'][0]:g}. Versions: {versions}.\n\nThe other libraries were measured in "
        f"separate environments: {about.get('peers', 'not measured')}.\n"
    )


# --- documentation page -----------------------------------------------------------------------------------


@frozen
class Headline:
    """A figure for users: how it is shown, and the row that it comes from, by words that only its title contains."""

    title: str
    value: Callable[[Figure], str]
    module: str
    operation: str
    #: Arguments of ``nox -s bench --`` that measure it.
    words: str
    baseline: str = ""

    def line(self, figures: Iterable[Figure]) -> str:
        """Return the row of the table; nothing if the row was not measured."""
        return "".join(self._line(figure) for figure in figures if self._describes(figure))

    def _line(self, figure: Figure) -> str:
        compared = f"{_number(figure.cost)} times {self.baseline}" if self.baseline else ""
        return f"| {self.title} | {self.value(figure)} | {compared} | `nox -s bench -- {self.words}` |\n"

    def _describes(self, figure: Figure) -> bool:
        return figure.module == self.module and self.operation in figure.operation and not figure.missing


def _per_second(seconds: float) -> str:
    return f"{_two_digits(1 / seconds):,.0f}"


def _milliseconds(figure: Figure) -> str:
    return f"{_two_digits(figure.our_cost * 1000):g}&nbsp;ms"


def _two_digits(number: float) -> float:
    return float(f"{number:.2g}")


_CORES = "stored, parsed, dispatched and acked on 2 cores"
_HEADLINES = (
    Headline(
        "postbacks received and handled per second, on one core",
        lambda figure: _per_second(figure.baseline_cost),
        *("cores", _CORES, "cores"),
    ),
    Headline(
        "the same on two cores, with a process on each",
        lambda figure: _per_second(figure.our_cost),
        *("cores", _CORES, "cores", "the time on one core"),
    ),
    Headline(
        "response time with 64 connections that post without a pause, 99th percentile",
        _milliseconds,
        *("http_intake", "99th percentile", "percentile"),
    ),
    Headline(
        "requests of the client per second of CPU time, one at a time",
        lambda figure: _per_second(figure.our_cost),
        *("client", "`subscriptions.create`, one at a time", "client", "httpx alone"),
    ),
    Headline(
        "CPU time of `import callfire_async, callfire_async.notifications`",
        _milliseconds,
        *("import_time", "callfire_async.notifications", "import_time", "the import of its dependencies"),
    ),
    Headline(
        "memory of 100,000 pending deliveries",
        lambda figure: f"{figure.our_cost / 1e6:.2g}&nbsp;MB",
        *("sqlite", "memory of 100,000", "'memory of'"),
    ),
    Headline(
        "storing one postback in an inbox with 1,000,000 done and 100,000 pending deliveries",
        _milliseconds,
        *("sqlite", "`append` with 1,000,000 done", "'1,000,000 done and'", "the time in an inbox with 1,000"),
    ),
)

_PAGE = """\
# Performance

Figures of the client, and of a receiver behind uvicorn with a [`SqliteInbox`](inbox-in-sqlite.md) on a local disk, on
the [machine below](#measured-on). A postback is *handled* when it has been stored, acknowledged and parsed, a
handler that does nothing has returned, and the delivery is acked.

{quick}| | figure | compared | measure it |
| --- | --- | --- | --- |
{lines}
The third column compares costs for the same input, measured alternately in the same run: lower is better, and 1.00
means equal. Such a ratio depends less on the machine than a time. Each figure is the median of {runs} runs, each in a
new process.

{{download}}`All results <../benchmarks/results.md>` compare parsing, dispatch, the client, telemetry and each inbox
with a minimal implementation or another library. `benchmarks/README.md` in the repository describes the method.

## Measured on

{machine}
## Measure it yourself

In a clone of the repository, on a machine that does nothing else:

```sh
nox -s bench                # up to an hour; writes a table and a JSON file to build/bench
nox -s bench -- --quick     # a few minutes: checks that everything runs; the figures are meaningless
nox -s bench -- --docs      # also writes this page
nox -s bench_peers          # compares with other libraries that parse and dispatch
```
"""


def page(about: dict[str, Any], figures: Sequence[Figure]) -> str:
    """Return the page of the documentation."""
    lines = "".join(headline.line(figures) for headline in _HEADLINES)
    return _PAGE.format(quick=_QUICK if about["quick"] else "", lines=lines, runs=about["runs"], machine=_about(about))


def write_docs() -> None:
    """Write the tables and the page from the stored figures."""
    about, figures = read(RESULTS)
    if PEERS.exists():
        peers_about, peers_figures = read(PEERS)
        about, figures = about | {"peers": peers_about["date"]}, [*figures, *peers_figures]
    TABLES.write_text(all_tables(about, figures), encoding="utf-8")
    (DOCS / "performance.md").write_text(page(about, figures), encoding="utf-8")


if __name__ == "__main__":
    write_docs()
