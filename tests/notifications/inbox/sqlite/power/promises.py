"""Compare an inbox after a power failure with the operations that it had acknowledged."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from attrs import define, field

from callfire_async.errors import InboxError
from callfire_async.notifications.inbox import InboxEntry
from callfire_async.notifications.inbox.sqlite import SqliteInbox


@define
class Promises:
    """Acknowledged operations by delivery key, and requested operations, which may have been carried out too."""

    kept: set[str] = field(factory=set)
    finished: dict[str, str] = field(factory=dict)
    attempts: dict[str, int] = field(factory=dict)
    asked: set[tuple[str, str]] = field(factory=set)

    def record(self, marks: Iterable[str]) -> None:
        for mark in marks:
            word, key, *rest = mark.split()
            getattr(self, f"_{word}")(key, *rest)

    def _posting(self, key: str, life: str, number: str) -> None:
        # Posting a dead letter again makes it ready, and its attempts start again.
        if self.finished.get(key) == "dead":
            del self.finished[key]
        self.attempts.pop(key, None)

    def _kept(self, key: str) -> None:
        self.kept.add(key)

    def _finishing(self, key: str, state: str) -> None:
        self.asked.add((key, state))

    def _finished(self, key: str, state: str) -> None:
        self.finished[key] = state

    def _back(self, key: str, attempt: str) -> None:
        self.attempts[key] = int(attempt)


@define
class AuditReport:
    """Violated promises; an empty report means that there are none."""

    lost: list[str] = field(factory=list)
    corrupt: list[str] = field(factory=list)

    def at(self, place: str) -> "AuditReport":
        return AuditReport([place + line for line in self.lost], [place + line for line in self.corrupt])

    def add(self, other: "AuditReport") -> None:
        self.lost += other.lost
        self.corrupt += other.corrupt


async def examine(path: Path, promises: Promises) -> AuditReport:
    """Open an inbox as its next owner would, and compare it with its acknowledgements."""
    try:
        async with SqliteInbox(path, lock_timeout=0.0) as inbox:
            integrity = await inbox._read(lambda connection: connection.execute("PRAGMA integrity_check").fetchall())
            entries = [entry async for entry in inbox.entries()]
    except InboxError as error:
        return AuditReport(corrupt=[f"cannot open: {error}"])
    findings = compare(entries, promises)
    findings.corrupt += [str(line) for (line,) in integrity if line != "ok"]
    return findings


def compare(entries: Sequence[InboxEntry], promises: Promises) -> AuditReport:
    """Compare the entries of an inbox with its acknowledgements."""
    by_key = {entry.delivery.key: entry for entry in entries}
    corrupt = [problem for entry in entries for problem in _unexplained(entry, promises)]
    corrupt += ["a delivery is stored twice"] * (len(entries) - len(by_key))
    return AuditReport(list(_lost(by_key, promises)), corrupt)


def _unexplained(entry: InboxEntry, promises: Promises) -> Iterator[str]:
    key = entry.delivery.key
    if entry.state != "done" and hashlib.sha256(entry.delivery.body).hexdigest() != key:
        yield f"{entry.id} has another body"
    if entry.state in ("done", "dead") and (key, entry.state) not in promises.asked:
        yield f"{entry.id} is {entry.state}, which no caller requested"


def _lost(entries: dict[str, InboxEntry], promises: Promises) -> Iterator[str]:
    yield from (f"{key} is missing" for key in promises.kept - entries.keys())
    for key, state in promises.finished.items():
        if key in entries and entries[key].state != state:
            yield f"{key} was {state} and is {entries[key].state}"
    for key, attempt in promises.attempts.items():
        if key in entries and entries[key].attempt < attempt:
            yield f"{key} should be at attempt {attempt} and is at {entries[key].attempt}"
