"""What the demo counts and shows: what the posting side saw, beside what the handlers wrote down."""

import json
import time
from collections import Counter
from collections.abc import Iterable, Sequence
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

from callfire_async.cli.commands.demo._receiver_process import journal_line
from callfire_async.notifications.events import Key
from callfire_async.reconcile import ReconcileResult
from callfire_async.testing import PostbackResult

_KINDS = {"text": "texts", "call": "calls", "broadcast": "campaigns"}
_WATCHED = ("sent", "refused", "acknowledged", "handled")
_COLUMNS = ("sent", "refused", "acknowledged", "handled", "handled twice", "dead", "lost")


@frozen
class Tally:
    """The numbers of one kind of event."""

    sent: int
    refused: int
    acknowledged: int
    handled: int
    handled_twice: int
    dead: int
    lost: int


@define
class DemoResults:
    """All that was posted, and where the handlers write down what they have handled."""

    journal: Path
    posted: list[PostbackResult] = field(factory=list)
    #: Lines like those of the journal, for what became a dead letter.
    dead: Counter[str] = field(factory=Counter)
    #: Postbacks that never came: for which subscription, and about which event.
    dropped: list[tuple[int, Key]] = field(factory=list)
    #: What was found of those in the end; None where nobody has looked.
    found: ReconcileResult | None = None

    def tally(self, kind: str | None = None) -> Tally:
        """Count what became of one kind of event, or of all."""
        posted = [one for one in self.posted if kind in (None, one.key[0])]
        acknowledged = Counter(_line(one) for one in posted if one.status == 204)
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

    def left(self) -> int:
        """Count what is still to be handled, as far as anybody can know of it."""
        return self.tally().lost + (self.missed() if self.found else 0)

    def missed(self) -> int:
        """Count the texts and calls that no handler has got, for whatever subscription."""
        happened = {one.key for one in self.posted} | {key for _, key in self.dropped}
        handled = {tuple(json.loads(line)[1:]) for line in self.journal.read_text().splitlines()}
        return sum(1 for key in happened - handled if key[0] in ("text", "call"))


def _line(one: PostbackResult) -> str:
    return journal_line(one.subscription_id, one.key)


class ProgressDisplay:
    """Shows the campaign while it runs: a bar and a table on a terminal, else a line for each tenth of it."""

    def __init__(self, console: Console, ledger: DemoResults, events: int) -> None:
        self._console = console
        self._ledger = ledger
        self._events = events
        self._started = time.monotonic()
        self._emitted = 0
        self._counts: Counter[tuple[str, str]] = Counter()
        self._read = 0
        self._progress = Progress(TextColumn("  posting"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        self._task = self._progress.add_task("posting", total=events)
        self._live = Live(console=console, get_renderable=self._picture, refresh_per_second=4)

    def __enter__(self) -> Self:
        """Begin."""
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End, and leave the last state on the screen."""
        self._live.stop()

    @property
    def share(self) -> float:
        """How much of the campaign is over, from 0 to 1."""
        return self._emitted / self._events

    def update(self, posted: Sequence[PostbackResult]) -> None:
        """Note one more event, and what was posted of it."""
        self._ledger.posted.extend(posted)
        for one in posted:
            kind, status = str(one.key[0]), "acknowledged" if one.status == 204 else "refused"
            self._counts.update([(kind, "sent"), (kind, status)])
        self._emitted += 1
        self._progress.update(self._task, completed=self._emitted)
        tenth = max(1, self._events // 10)
        if not self._console.is_terminal and self._emitted % tenth == 0:
            self._console.print(f"  {self._emitted} of {self._events} events: {self._rate()}")

    def _picture(self) -> Group:
        self._read_journal()
        table = _table(self._rate(), _WATCHED)
        for kind, name in _KINDS.items():
            table.add_row(name, *(str(self._counts[kind, column]) for column in _WATCHED))
        return Group(self._progress, table)

    def _read_journal(self) -> None:
        """Count the lines that the handlers have added since the last look."""
        if self._ledger.journal.exists():
            with self._ledger.journal.open("rb") as journal:
                journal.seek(self._read)
                new = journal.read()
            self._read += len(new)
            self._counts.update((kind, "handled") for kind in _KINDS for _ in range(new.count(f'"{kind}"'.encode())))

    def _rate(self) -> str:
        posted = len(self._ledger.posted)
        return f"{posted} postbacks, {posted / (time.monotonic() - self._started):,.0f} a second"


def report(ledger: DemoResults, console: Console) -> int:
    """Print the table; return how many were lost."""
    table = _table("What became of it", _COLUMNS)
    total = ledger.tally()
    for kind, name in _KINDS.items():
        table.add_row(name, *_numbers(ledger.tally(kind)))
    table.add_section()
    table.add_row("all", *_numbers(total))
    table.caption = _latency(one.latency for one in ledger.posted if one.status == 204)
    console.print(table)
    missed = _report_found(ledger, console)
    if total.refused:
        console.print("Refused: posted while the receiver was down. CallFire is not known to repeat anything.")
    console.print(f"\n{total.lost or 'Nothing'} of what was acknowledged was lost.")
    return total.lost + missed


def _report_found(ledger: DemoResults, console: Console) -> int:
    """Say what became of what was dropped; return how many events no handler got."""
    if ledger.found is None:
        return 0
    found, missed = ledger.found, ledger.missed()
    table = _table("What was missed", ["dropped", "listed", "seen", "found again", "never handled"])
    table.add_row(
        "texts and calls", *map(str, [len(ledger.dropped), found.listed, found.handled, found.appended, missed])
    )
    table.caption = "dropped: postbacks; listed, seen: events; found again: deliveries put into the inbox"
    console.print(table)
    console.print(f"{missed} never reached a handler.\n" if missed else "Every one of them has reached a handler.\n")
    return missed


def _table(title: str, columns: Iterable[str]) -> Table:
    table = Table("", title=title, title_justify="left", caption_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _numbers(tally: Tally) -> Iterable[str]:
    return (str(getattr(tally, column.replace(" ", "_"))) for column in _COLUMNS)


def _latency(seconds: Iterable[float]) -> str:
    """Word the latency of what was acknowledged, as its sender saw it."""
    milliseconds = [1000 * latency for latency in seconds]
    if len(milliseconds) < 2:
        return ""
    cuts = quantiles(milliseconds, n=100)
    return f"latency: median {cuts[49]:.0f} ms, 99th percentile {cuts[98]:.0f} ms, worst {max(milliseconds):.0f} ms"
