"""Compare the sender's results with the handlers' journal, and print the differences."""

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import quantiles
from types import TracebackType
from typing import Self

from attrs import define, field, frozen
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from callfire_async.cli.commands.demo._receiver_process import journal_line, source_of
from callfire_async.notifications.events import Key
from callfire_async.reconcile import ReconcileResult
from callfire_async.testing import PostbackResult

_KINDS = {"text": "texts", "call": "calls", "broadcast": "campaigns"}
_APIS = {False: "1.1", True: "v2"}
_LIVE_COLUMNS = ("sent", "refused", "acknowledged", "handled")
_COLUMNS = ("sent", "refused", "acknowledged", "handled", "handled twice", "dead", "lost")


@frozen
class Tally:
    """The counts of one kind of event; an event counts once for each subscription and webhook that it is posted to."""

    sent: int
    refused: int
    acknowledged: int
    handled: int
    handled_twice: int
    dead: int
    lost: int


@define
class DemoResults:
    """The results of all postbacks, and the journal that the handlers write."""

    journal: Path
    posted: list[PostbackResult] = field(factory=list)
    #: Journal lines for the dead letters.
    dead: Counter[str] = field(factory=Counter)
    #: The subscription and the event of each dropped postback.
    dropped: list[tuple[int, Key]] = field(factory=list)
    #: The result of the reconciliation of the dropped postbacks; None without one.
    reconciled: ReconcileResult | None = None

    def tally(self, kind: str | None = None, *, is_v2: bool | None = None) -> Tally:
        """Return the counts of one kind of event and one API generation, or of all."""
        results = [result for result in self.posted if is_v2 in (None, _is_v2(result))]
        posted = [(result, key) for result in results for key in result.keys if kind in (None, key[0])]
        acknowledged = Counter(journal_line(source_of(result), key) for result, key in posted if result.status == 204)
        handled = Counter(self.journal.read_text().splitlines())
        return Tally(
            sent=len(posted),
            refused=len(posted) - acknowledged.total(),
            acknowledged=acknowledged.total(),
            handled=sum(1 for line in acknowledged if handled[line]),
            handled_twice=sum(1 for line in acknowledged if handled[line] > 1),
            dead=sum(1 for line in acknowledged if self.dead[line]),
            lost=sum(1 for line in acknowledged if not handled[line] and not self.dead[line]),
        )

    def pending(self) -> int:
        """Return the number of events that are not handled yet."""
        return self.tally().lost + (self.missed() if self.reconciled else 0)

    def missed(self) -> int:
        """Return the number of texts and calls that were not handled for any subscription."""
        happened = {key for result in self.posted for key in result.keys} | {key for _, key in self.dropped}
        handled = {tuple(json.loads(line)[1:]) for line in self.journal.read_text().splitlines()}
        return sum(1 for key in happened - handled if key[0] in ("text", "call"))


def _is_v2(result: PostbackResult) -> bool:
    return result.webhook_id is not None


def _rows() -> Iterator[tuple[str, bool, str]]:
    """Yield kind, API generation and label of each row of a table."""
    for is_v2, api in _APIS.items():
        for kind, name in _KINDS.items():
            yield kind, is_v2, f"{name} {api}"


class ProgressDisplay:
    """Shows the progress of the campaign: a bar and a table on a terminal, otherwise a line for each tenth."""

    def __init__(self, console: Console, results: DemoResults, events: int) -> None:
        self._console = console
        self._results = results
        self._events = events
        self._started = time.monotonic()
        self._emitted = 0
        #: By kind, API generation and column.
        self._counts: Counter[tuple[str, bool, str]] = Counter()
        self._journal_offset = 0
        self._progress = Progress(TextColumn("  posting"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        self._task = self._progress.add_task("posting", total=events)
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=4)

    def __enter__(self) -> Self:
        """Start the display."""
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the display; the last state stays on the screen."""
        self._live.stop()

    @property
    def progress(self) -> float:
        """The completed fraction of the campaign, from 0 to 1."""
        return self._emitted / self._events

    def update(self, posted: Sequence[PostbackResult], events: int = 1) -> None:
        """Record the postbacks of some more events."""
        self._results.posted.extend(posted)
        for result in posted:
            status = "acknowledged" if result.status == 204 else "refused"
            for key in result.keys:
                row = str(key[0]), _is_v2(result)
                self._counts.update([(*row, "sent"), (*row, status)])
        before, self._emitted = self._emitted, self._emitted + events
        self._progress.update(self._task, completed=self._emitted)
        tenth = max(1, self._events // 10)
        if not self._console.is_terminal and before // tenth < self._emitted // tenth:
            self._console.print(f"  {self._emitted} of {self._events} events: {self._rate()}")

    def _render(self) -> Group:
        self._read_journal()
        table = _table(self._rate(), _LIVE_COLUMNS)
        for kind, is_v2, label in _rows():
            table.add_row(label, *(str(self._counts[kind, is_v2, column]) for column in _LIVE_COLUMNS))
        return Group(self._progress, table)

    def _read_journal(self) -> None:
        """Count the lines that were added since the last call."""
        if self._results.journal.exists():
            with self._results.journal.open("rb") as journal:
                journal.seek(self._journal_offset)
                new = journal.read()
            # The end may be a part of a line.
            lines = new[: new.rfind(b"\n") + 1].splitlines()
            self._journal_offset += sum(len(line) + 1 for line in lines)
            for source, kind, *_ in map(json.loads, lines):
                self._counts[kind, isinstance(source, str), "handled"] += 1

    def _rate(self) -> str:
        posted = len(self._results.posted)
        return f"{posted} postbacks, {posted / (time.monotonic() - self._started):,.0f} per second"


def report(results: DemoResults, console: Console) -> int:
    """Print the results; return the number of lost events."""
    table = _table("Results", _COLUMNS)
    total = results.tally()
    for kind, is_v2, label in _rows():
        table.add_row(label, *_numbers(results.tally(kind, is_v2=is_v2)))
    table.add_section()
    table.add_row("all", *_numbers(total))
    table.caption = _latency(result.latency for result in results.posted if result.status == 204)
    console.print(table)
    missed = _report_reconciled(results, console)
    if total.refused:
        console.print(
            "Refused: posted while the receiver was down. CallFire does not document that it repeats postbacks."
        )
    console.print(f"\n{total.lost or 'No'} acknowledged events were lost.")
    return total.lost + missed


def _report_reconciled(results: DemoResults, console: Console) -> int:
    """Print what happened to the dropped postbacks; return the number of events that were never handled."""
    if results.reconciled is None:
        return 0
    result, missed = results.reconciled, results.missed()
    table = _table("Reconciliation", ["dropped", "listed", "handled before", "appended", "never handled"])
    table.add_row(
        "texts and calls", *map(str, [len(results.dropped), result.listed, result.handled, result.appended, missed])
    )
    table.caption = "dropped: postbacks; listed, handled before: events; appended: deliveries added to the inbox"
    console.print(table)
    console.print(
        f"{missed} texts and calls were never handled.\n" if missed else "All texts and calls were handled.\n"
    )
    return missed


def _table(title: str, columns: Iterable[str]) -> Table:
    table = Table("", title=title, title_justify="left", caption_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _numbers(tally: Tally) -> Iterable[str]:
    return (str(getattr(tally, column.replace(" ", "_"))) for column in _COLUMNS)


def _latency(seconds: Iterable[float]) -> str:
    """Format the latency of the acknowledged postbacks, as measured by the sender."""
    milliseconds = [1000 * latency for latency in seconds]
    if len(milliseconds) < 2:
        return ""
    cuts = quantiles(milliseconds, n=100)
    return f"latency: median {cuts[49]:.0f} ms, 99th percentile {cuts[98]:.0f} ms, worst {max(milliseconds):.0f} ms"
