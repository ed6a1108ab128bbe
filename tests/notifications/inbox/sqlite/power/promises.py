"""What an inbox has told its callers, and what is left of it after the power has failed."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from attrs import define, field

from callfire_async.errors import InboxError
from callfire_async.notifications.inbox import InboxEntry
from callfire_async.notifications.inbox.sqlite import SqliteInbox


@define
class Promises:
    """What callers were told, by the key of a delivery; and what they have asked for, which may have been done too."""

    kept: set[str] = field(factory=set)
    finished: dict[str, str] = field(factory=dict)
    attempts: dict[str, int] = field(factory=dict)
    asked: set[tuple[str, str]] = field(factory=set)

    def take(self, marks: Iterable[str]) -> None:
        for mark in marks:
            word, key, *rest = mark.split()
            getattr(self, f"_{word}")(key, *rest)

    def _posting(self, key: str, life: str, number: str) -> None:
        # What is posted again is no longer dead, and begins anew.
        if self.finished.get(key) == "dead":
            del self.finished[key]
        self.attempts.pop(key, None)

    def _kept(self, key: str) -> None:
        self.kept.add(key)

    def _finishing(self, key: str, way: str) -> None:
        self.asked.add((key, way))

    def _finished(self, key: str, way: str) -> None:
        self.finished[key] = way

    def _back(self, key: str, attempt: str) -> None:
        self.attempts[key] = int(attempt)


@define
class AuditReport:
    """What became of the promises: each of these should be empty."""

    lost: list[str] = field(factory=list)
    corrupt: list[str] = field(factory=list)

    def at(self, place: str) -> "AuditReport":
        return AuditReport([place + line for line in self.lost], [place + line for line in self.corrupt])

    def add(self, other: "AuditReport") -> None:
        self.lost += other.lost
        self.corrupt += other.corrupt


async def examine(path: Path, promises: Promises) -> AuditReport:
    """Open an inbox as its next owner would, and compare it with what its last owner had promised."""
    try:
        async with SqliteInbox(path, lock_timeout=0.0) as inbox:
            integrity = await inbox._read(lambda connection: connection.execute("PRAGMA integrity_check").fetchall())
            entries = [entry async for entry in inbox.entries()]
    except InboxError as error:
        return AuditReport(corrupt=[f"it does not open: {error}"])
    by_key = {entry.delivery.key: entry for entry in entries}
    corrupt = [str(line) for (line,) in integrity if line != "ok"]
    corrupt += [problem for entry in entries for problem in _inexplicable(entry, promises)]
    corrupt += ["a delivery is there twice"] * (len(entries) - len(by_key))
    return AuditReport(list(_lost(by_key, promises)), corrupt)


def _inexplicable(entry: InboxEntry, promises: Promises) -> Iterator[str]:
    key = entry.delivery.key
    if entry.state != "done" and hashlib.sha256(entry.delivery.body).hexdigest() != key:
        yield f"{entry.id} has another body"
    if entry.state in ("done", "dead") and (key, entry.state) not in promises.asked:
        yield f"{entry.id} is {entry.state}, and nobody made it so"


def _lost(entries: dict[str, InboxEntry], promises: Promises) -> Iterator[str]:
    yield from (f"{key} is gone" for key in promises.kept - entries.keys())
    for key, way in promises.finished.items():
        if key in entries and entries[key].state != way:
            yield f"{key} was {way} and is {entries[key].state}"
    for key, attempt in promises.attempts.items():
        if key in entries and entries[key].attempt < attempt:
            yield f"{key} was to begin attempt {attempt} and is at {entries[key].attempt}"
