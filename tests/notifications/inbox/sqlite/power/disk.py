"""
Simulate the contents of a disk after a power failure, from a recording of writes and syncs.

Synced changes of a file survive. Each later change is kept, dropped or torn, in its order or in another. A name is as
it was at the last sync of the directory, or at any time since. The changes that a failed sync covered are decided at
that moment: no later sync covers them.
"""

import random
import struct
from collections.abc import Iterator
from pathlib import Path

from attrs import define, field, frozen

SECTOR = 512

START, OPEN, WRITE, TRUNCATE, SYNC, SYNCED, UNSYNCED, UNLINK, RENAME = range(1, 10)
_HEADER = struct.Struct("=IIQQ")
_CREATE, _EMPTY = 0o100, 0o1000

# The share of unsynced changes that reached the disk.
_KEPT = (0.0, 0.3, 0.7, 0.95, 1.0)


@frozen
class Record:
    """One operation on the directory; the fields are those of the recorder."""

    number: int
    operation: int
    handle: int
    place: int
    content: bytes = field(repr=False)


def read_log(path: Path) -> Iterator[Record]:
    """Yield the records of a recording; the last one is incomplete if the process was killed."""
    log, at, number = path.read_bytes(), 0, 0
    while at + _HEADER.size <= len(log):
        operation, handle, place, size = _HEADER.unpack_from(log, at)
        at += _HEADER.size + size
        if at > len(log):
            return
        # The recorder counts from 0 in each process.
        number = 0 if operation == START else number + 1
        yield Record(number, operation, handle, place, log[at - size : at])


@frozen
class Change:
    """A write, or a truncation if there is no content, and the number of its record."""

    number: int
    place: int
    content: bytes | None = field(repr=False)

    def apply(self, data: bytearray) -> None:
        if self.content is None:
            _resize(data, self.place)
        else:
            _resize(data, max(len(data), self.place))
            data[self.place : self.place + len(self.content)] = self.content

    def torn(self, fate: random.Random) -> Iterator["Change"]:
        """Yield some of the sectors."""
        if self.content is None:
            return
        end = self.place + len(self.content)
        starts = [self.place, *range(self.place - self.place % SECTOR + SECTOR, end, SECTOR)]
        for start, stop in zip(starts, [*starts[1:], end], strict=True):
            if fate.random() < 0.5:
                yield Change(self.number, start, self.content[start - self.place : stop - self.place])


def _resize(data: bytearray, size: int) -> None:
    del data[size:]
    data.extend(bytes(size - len(data)))


def _survivors(changes: list[Change], fate: random.Random) -> list[Change]:
    kept = fate.choice(_KEPT)
    survivors: list[Change] = []
    for change in changes:
        if fate.random() < kept:
            survivors.append(change)
        elif fate.random() < 0.5:
            survivors.extend(change.torn(fate))
    if fate.random() < 0.5:
        fate.shuffle(survivors)
    return survivors


@define(eq=False)
class File:
    """The synced contents of a file, and its changes since."""

    safe: bytearray = field(factory=bytearray)
    changes: list[Change] = field(factory=list)

    def take_covered(self, sync: int) -> list[Change]:
        covered = [change for change in self.changes if change.number < sync]
        self.changes = self.changes[len(covered) :]
        return covered

    def settle(self, changes: list[Change]) -> None:
        for change in changes:
            change.apply(self.safe)

    def after(self, changes: list[Change]) -> bytes:
        data = bytearray(self.safe)
        for change in changes:
            change.apply(data)
        return bytes(data)


@define
class Name:
    """The files of a name: the synced one first, then each later one."""

    files: list[tuple[int, File | None]]

    @property
    def now(self) -> File | None:
        return self.files[-1][1]

    def settle(self, sync: int) -> None:
        covered = sum(number < sync for number, _ in self.files)
        self.files = self.files[max(0, covered - 1) :]


class Disk:
    """
    The files of one directory during a recording; `marks` are the lines of the file with that name.

    Args:
        fate: Decides what happens to unsynced changes.
        before: A copy of the directory from before the recording; None if it was empty.
    """

    def __init__(self, fate: random.Random, before: Path | None = None) -> None:
        self.marks: list[str] = []
        self._fate = fate
        self._before = before
        self._names: dict[str, Name] = {}
        #: Files, or the names of directories.
        self._open: dict[int, File | str] = {}
        self._marking = 0

    def apply(self, record: Record) -> None:
        if record.operation == START:
            self._start()
        elif record.operation == OPEN:
            self._opened(record)
        elif record.operation in (UNLINK, RENAME):
            self._renamed(record)
        elif record.handle == self._marking:
            self.marks += record.content.decode().splitlines()
        elif record.handle in self._open:
            self._changed(record)

    def _start(self) -> None:
        """Start a process, with its own handles and record numbers."""
        self._open.clear()
        self._marking = 0
        for name in self._names.values():
            name.files = [(-1, file) for _, file in name.files]
            for _, file in name.files:
                if file is not None:
                    file.changes = [Change(-1, change.place, change.content) for change in file.changes]

    def _opened(self, record: Record) -> None:
        name = record.content.decode()
        if name == "marks":
            self._marking = record.handle
        elif name == "" or name.endswith("/"):
            self._open[record.handle] = name
        # The first process that opens an inbox resets the shared memory.
        elif not name.endswith("-shm"):
            file = self._name(name).now
            if file is None:
                file = File()
                self._name(name).files.append((record.number, file))
            elif record.place & _EMPTY:
                file.changes.append(Change(record.number, 0, None))
            self._open[record.handle] = file

    def _name(self, name: str) -> Name:
        if name not in self._names:
            self._names[name] = Name([(-1, self._file_before(name))])
        return self._names[name]

    def _file_before(self, name: str) -> File | None:
        path = self._before and self._before / name
        return File(bytearray(path.read_bytes())) if path and path.is_file() else None

    def _renamed(self, record: Record) -> None:
        old, _, new = record.content.decode().partition("\0")
        file = self._name(old).now
        self._name(old).files.append((record.number, None))
        if new:
            self._name(new).files.append((record.number, file))

    def _changed(self, record: Record) -> None:
        file = self._open[record.handle]
        if isinstance(file, str):
            if record.operation == SYNCED:
                self._settle_names(file, record.place)
        elif record.operation == WRITE:
            file.changes.append(Change(record.number, record.place, record.content))
        elif record.operation == TRUNCATE:
            file.changes.append(Change(record.number, record.place, None))
        elif record.operation == SYNCED:
            file.settle(file.take_covered(record.place))
        elif record.operation == UNSYNCED:
            file.settle(_survivors(file.take_covered(record.place), self._fate))

    def _settle_names(self, directory: str, sync: int) -> None:
        for path, name in self._names.items():
            if path[: path.rfind("/") + 1] == directory:
                name.settle(sync)

    @property
    def names(self) -> frozenset[str]:
        """The names of all files that the recording concerns."""
        return frozenset(self._names)

    def now(self) -> dict[str, bytes]:
        """Return the files as a process reads them."""
        files = {name: history.now for name, history in self._names.items()}
        return {name: file.after(file.changes) for name, file in files.items() if file is not None}

    def after_power_loss(self, fate: random.Random) -> dict[str, bytes]:
        """Return files as the disk could have them if the power failed now."""
        files = {name: fate.choice(history.files)[1] for name, history in self._names.items()}
        return {name: file.after(_survivors(file.changes, fate)) for name, file in files.items() if file is not None}
