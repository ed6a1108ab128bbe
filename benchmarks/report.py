"""
What was measured, as a JSON file, a table in Markdown, a page of the documentation and its charts.

``python -m benchmarks.report`` makes the page of the files that stand here, again.
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
_HEAD = "| work | beside | ratio | spread | to reach | reached |\n| --- | --- | --- | --- | --- | --- |\n"


@frozen
class Figure:
    """What came of one row: a ratio for each run, or why there is none."""

    module: str
    work: str
    beside: str
    reach: float | None
    better: str
    ratios: tuple[float, ...] = ()
    #: The medians of what ours and the other cost, in *unit*.
    ours: float = 0.0
    cost_beside: float = 0.0
    unit: str = "s"
    missing: str = ""

    @property
    def ratio(self) -> float:
        """The median of the runs."""
        return statistics.median(self.ratios)

    @property
    def met(self) -> bool:
        """Whether the median reaches what it is to reach."""
        if self.reach is None:
            return True
        return self.ratio <= self.reach if self.better == "lower" else self.ratio >= self.reach


def figure(module: str, row: Row, runs: Sequence[Any]) -> Figure:
    """Make a figure of what each run of a row gave."""
    about = {"module": module, "work": row.work, "beside": row.beside, "reach": row.reach, "better": row.better}
    missing = [run for run in runs if isinstance(run, str)]
    if missing:
        return Figure(**about, missing=missing[0])
    return Figure(
        **about,
        ratios=tuple(row.ratio(run) for run in runs),
        ours=statistics.median(run.ours for run in runs),
        cost_beside=statistics.median(run.beside for run in runs),
        unit=runs[0].unit,
    )


# --- the file ---------------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """Say when and on what was measured."""
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


def replaced(kept: Iterable[Figure], measured: Iterable[Figure]) -> list[Figure]:
    """Put figures in the places of those of the same rows."""
    again = {(figure.module, figure.work, figure.beside): figure for figure in measured}
    return [again.get((figure.module, figure.work, figure.beside), figure) for figure in kept]


def read(path: Path) -> tuple[dict[str, Any], list[Figure]]:
    """Read such a file: the machine, and the figures."""
    content = json.loads(path.read_text(encoding="utf-8"))
    figures = [Figure(**{**found, "ratios": tuple(found["ratios"])}) for found in content["figures"]]
    return content["machine"] | {"runs": content["runs"], "quick": content["quick"]}, figures


# --- the table --------------------------------------------------------------------------------------------


def table(figures: Iterable[Figure]) -> str:
    """Word figures as a table in Markdown."""
    return _HEAD + "".join(_line(figure) for figure in figures)


def _line(figure: Figure) -> str:
    if figure.missing:
        return f"| {figure.work} | {figure.beside} | not measured: {figure.missing} | | {_reach(figure)} | |\n"
    spread = f"{_number(min(figure.ratios))} to {_number(max(figure.ratios))}"
    reached = "" if figure.reach is None else "yes" if figure.met else "no"
    cells = figure.work, figure.beside, f"**{_number(figure.ratio)}**", spread, _reach(figure), reached
    return f"| {' | '.join(cells)} |\n"


def _reach(figure: Figure) -> str:
    if figure.reach is None:
        return ""
    return f"{'at most' if figure.better == 'lower' else 'at least'} {figure.reach:g}"


def _number(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:,.1f}"


# --- the page ---------------------------------------------------------------------------------------------

_PAGE = """\
# Performance

Each figure is a ratio: what this library costs, and beside it what the floor or a peer costs for the same input, both
measured in turns in one run. A ratio says more than a number of microseconds, which is another on each machine: 1.00 is
as dear as what it stands beside. Where it says *at most*, less is better (our costs by theirs); where it says *at
least*, more is better (theirs by ours). The figure is the median of {runs} runs, each in a process of its own; the
spread is the least and the greatest of them. `benchmarks/README.md` says what each floor is, and shows the profile
wherever something is not reached.

{quick}{tables}
```{{image}} performance.png
:alt: Each figure as a bar, and what it is to reach
```

## Measured on

{machine}
## Measure it yourself

```sh
nox -s bench                # about a quarter of an hour; table and JSON go to build/bench
nox -s bench -- --quick     # a minute: shows that all of it runs, the figures mean little
nox -s bench -- --docs      # and makes this page anew
nox -s bench_peers          # beside other libraries that parse and dispatch
```
"""

_QUICK = """\
:::{warning}
These figures are of a quick run, which takes a fiftieth of the bodies and postbacks and hardly any time for each row:
those of whole rows of hostile bodies and of intake say nothing yet. `nox -s bench -- --docs` puts real ones here.
:::

"""

_TITLES = {
    "parse": "From bytes to event",
    "dispatch": "Dispatch",
    "client": "The client",
    "start": "Start",
    "growth": "Growth",
    "hostile": "Hostile bodies",
    "intake": "Intake",
    "peers": "Beside other libraries",
}


def page(about: dict[str, Any], figures: Sequence[Figure]) -> str:
    """Word the page of the documentation."""
    modules = dict.fromkeys(figure.module for figure in figures)
    tables = "".join(
        f"## {_TITLES.get(module, module.replace('_', ' ').capitalize())}\n\n"
        f"{table(figure for figure in figures if figure.module == module)}\n"
        for module in modules
    )
    quick = _QUICK if about["quick"] else ""
    return _PAGE.format(quick=quick, runs=about["runs"], tables=tables, machine=_about(about))


def _about(about: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    return (
        f"{about['date']}, {about['processor']} with {about['cores']} cores, {about['system']}, {about['python']}; "
        f"load when it ended: {about['load'][0]:g}. With {versions}.\n\nThe libraries with environments of their own: "
        f"{about.get('peers', 'not measured')}.\n"
    )


def chart(figures: Sequence[Figure], path: Path) -> None:
    """Draw each figure as a bar, in shares of what it is to reach."""
    import matplotlib as mpl  # noqa: PLC0415  # only who draws needs it

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415  # after the choice of what draws

    shown = [figure for figure in figures if figure.reach and not figure.missing][::-1]
    drawing, axes = plt.subplots(figsize=(10, 1 + 0.32 * len(shown)))
    shares = [_share(figure) for figure in shown]
    colours = ["#2a7f62" if figure.met else "#b5482a" for figure in shown]
    axes.barh([f"{figure.work}\nbeside {figure.beside}" for figure in shown], shares, color=colours)
    for place, (figure, share) in enumerate(zip(shown, shares, strict=True)):
        axes.text(share, place, f" {_number(figure.ratio)}", va="center", fontsize=8)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xlabel("cost, in shares of what is to be reached (shorter is better; the line is the aim)")
    axes.set_xlim(0, max([*shares, 1.0]) * 1.1)
    axes.tick_params(axis="y", labelsize=6)
    drawing.tight_layout()
    drawing.savefig(path, dpi=120)
    plt.close(drawing)


def _share(figure: Figure) -> float:
    reach = figure.reach or 1.0
    return figure.ratio / reach if figure.better == "lower" else reach / figure.ratio


def write_docs() -> None:
    """Make the page and its chart of the files that stand here."""
    about, figures = read(RESULTS)
    if PEERS.exists():
        of_peers, more = read(PEERS)
        about, figures = about | {"peers": of_peers["date"]}, [*figures, *more]
    (DOCS / "performance.md").write_text(page(about, figures), encoding="utf-8")
    chart(figures, DOCS / "performance.png")


if __name__ == "__main__":
    write_docs()
