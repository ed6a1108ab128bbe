"""Recordings of the writes and syncs of several processes that own one inbox, one after the other."""

import asyncio
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from attrs import frozen
from notifications.inbox.sqlite.power.disk import START, Disk, Record, read_log
from notifications.inbox.sqlite.power.promises import AuditReport, Promises, examine

HERE = Path(__file__).parent

# Enough for several checkpoints of the log, each after a thousand pages.
LIVES = 5
DELIVERIES = 400
# Within this number of records a process has opened the file and acknowledged repeated posts.
OPENING_RECORDS = 60


def compile_recorder(folder: Path) -> Path:
    """Compile the recorder in a folder; skip the test if that is impossible, except in CI."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if sys.platform != "linux" or compiler is None:
        message = "recording the writes of a database needs Linux and a C compiler"
        pytest.fail(message) if "CI" in os.environ else pytest.skip(message)
    library = folder / "recorder.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(HERE / "recorder.c"), "-pthread"]
    subprocess.run(command, check=True, timeout=600)
    return library


@frozen
class Recording:
    """The directory of one inbox, and the log of the operations on it."""

    root: Path
    seed: int

    @property
    def folder(self) -> Path:
        return self.root / "recorded"

    @property
    def log(self) -> Path:
        return self.root / "log"

    def records(self) -> list[Record]:
        return list(read_log(self.log))

    def replayed(self) -> dict[str, bytes]:
        """Return the files at the end of the recording."""
        disk = Disk(random.Random(self.seed))
        for entry in self.records():
            disk.apply(entry)
        return disk.now()


@frozen
class Life:
    """
    One process that owns the inbox, and closes it at the end unless it dies.

    Without workers there are no leases, and the next owner has nothing to recover.
    """

    workers: int = 4
    deliveries: int = DELIVERIES
    dies_after: int | None = None
    dies_at_sync: int | None = None
    #: The first sync that fails, and the number of failures in a row.
    failing_syncs: tuple[int, int] | None = None

    @property
    def options(self) -> list[str]:
        options = ["--workers", str(self.workers), "--deliveries", str(self.deliveries)]
        return options if self.dies_after is None else [*options, "--dies-after", str(self.dies_after)]

    @property
    def variables(self) -> dict[str, str]:
        dies = {} if self.dies_at_sync is None else {"POWER_DIE": str(self.dies_at_sync)}
        fails = {} if self.failing_syncs is None else {"POWER_FAIL": "{} {}".format(*self.failing_syncs)}
        return dies | fails


def random_lives(seed: int, *, failing: bool = False) -> list[Life]:
    """Return random lives of several processes; *failing*: some syncs in a row fail in each."""
    plan = random.Random(seed)
    return [
        Life(
            workers=plan.choice((0, 4, 4)),
            dies_after=plan.choice((None, plan.randrange(1, DELIVERIES), plan.randrange(1, DELIVERIES))),
            failing_syncs=(plan.randrange(3, 60), plan.randrange(1, 5)) if failing else None,
        )
        for _ in range(LIVES)
    ]


def record(root: Path, recorder: Path, seed: int, lives: list[Life], *, synchronous: str = "FULL") -> Recording:
    """Run one process after the other on an inbox; *synchronous* replaces FULL."""
    recording = Recording(root.resolve(), seed)
    recording.folder.mkdir()
    always = {"LD_PRELOAD": str(recorder), "POWER_FOLDER": str(recording.folder), "POWER_LOG": str(recording.log)}
    workload = [sys.executable, "-W", "error", str(HERE / "workload.py"), str(recording.folder)]
    workload += ["--seed", str(seed), "--synchronous", synchronous]
    for number, life in enumerate(lives):
        command = [*workload, "--life", str(number), *life.options]
        subprocess.run(command, env=os.environ | always | life.variables, check=True, timeout=600)
    return recording


def survey(recording: Recording, cuts: int) -> AuditReport:
    """Cut the power at *cuts* points of a recording, and compare the inbox with its acknowledgements each time."""
    records, fate = recording.records(), random.Random(f"{recording.seed} fate")
    disk, promises, findings, at = Disk(fate), Promises(), AuditReport(), 0
    for cut in _cuts(records, cuts, fate):
        for entry in records[at:cut]:
            disk.apply(entry)
        at = cut
        promises.record(disk.marks)
        disk.marks.clear()
        found = _examine(disk.after_power_loss(fate), recording.root / "left", promises)
        findings.add(found.at(f"cut {cut} of {recording.log}: "))
    return findings


def _cuts(records: list[Record], cuts: int, fate: random.Random) -> list[int]:
    """Choose random points, a third of them while a process opens the inbox."""
    starts = [number for number, entry in enumerate(records) if entry.operation == START]
    openings = [fate.choice(starts) + fate.randrange(OPENING_RECORDS) for _ in range(cuts // 3)]
    anywhere = [fate.randrange(len(records)) for _ in range(cuts - len(openings))]
    return sorted(min(cut, len(records)) for cut in openings + anywhere)


def _examine(files: dict[str, bytes], folder: Path, promises: Promises) -> AuditReport:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    try:
        return asyncio.run(examine(folder / "inbox.db", promises))
    finally:
        shutil.rmtree(folder)
