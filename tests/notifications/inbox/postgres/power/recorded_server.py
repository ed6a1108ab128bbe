"""A PostgreSQL server whose writes and syncs are recorded, and what it has after its machine lost power."""

import asyncio
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen
from engines.postgres import PostgresServer, programs_and_folder
from engines.unprivileged import give_to_unprivileged_user
from notifications.inbox.sqlite.power.disk import Disk, Record, read_log
from notifications.inbox.sqlite.power.promises import AuditReport, Promises, compare

from callfire_async.errors import InboxError
from callfire_async.notifications.inbox.postgres import PostgresInbox

CLIENT = Path(__file__).with_name("posting_client.py")
DELIVERIES = 300
CHECKPOINT_SECONDS = 0.5
# What only a running server has, and the acknowledgements.
NOT_ON_DISK = ("postmaster.pid", "marks")


@frozen
class RecordedServer:
    """A server that has stopped, its data from before the recording, and the recording."""

    server: PostgresServer
    seed: int

    @property
    def before(self) -> Path:
        return self.server.folder / "before"

    @property
    def log(self) -> Path:
        return self.server.folder / "power.log"

    def records(self) -> list[Record]:
        return list(read_log(self.log))

    def replayed(self) -> dict[str, bytes]:
        """Return the recorded files at the end of the recording."""
        disk = Disk(random.Random(self.seed), self.before)
        for entry in self.records():
            disk.apply(entry)
        return disk.now()

    # --- recording ----------------------------------------------------------------------------------------

    def record(self, recorder: Path) -> None:
        """Record a server, from its start to its stop, while a client uses an inbox."""
        asyncio.run(_entries(self.server.dsn()))
        self.server.stop()
        shutil.copytree(self.server.data, self.before)
        variables = self._variables(recorder)
        self.server.start(variables)
        for file in (self.log, self.server.folder / "power.shared"):
            file.chmod(0o666)
        self._post(variables)
        self.server.stop()

    def _variables(self, recorder: Path) -> dict[str, str]:
        library = self.server.folder / "recorder.so"
        shutil.copy(recorder, library)
        library.chmod(0o755)
        return {
            "LD_PRELOAD": str(library),
            "POWER_FOLDER": str(self.server.data.resolve()),
            "POWER_LOG": str(self.log),
            "POWER_SHARED": str(self.server.folder / "power.shared"),
        }

    def _post(self, variables: dict[str, str]) -> None:
        command = [sys.executable, str(CLIENT), self.server.dsn(), str(self.server.data)]
        command += ["--seed", str(self.seed), "--deliveries", str(DELIVERIES)]
        paths = {"PYTHONPATH": os.pathsep.join(sys.path)}
        with subprocess.Popen(command, env=os.environ | variables | paths) as client:
            while client.poll() is None:
                self.server.execute("CHECKPOINT")
                time.sleep(CHECKPOINT_SECONDS)
        assert client.returncode == 0

    # --- power failures -----------------------------------------------------------------------------------

    def survey(self, cuts: int) -> Iterator[AuditReport]:
        """Cut the power at *cuts* random points, and yield what the inbox then lacks of its acknowledgements."""
        records, fate = self.records(), random.Random(f"{self.seed} fate")
        disk, promises, at = Disk(fate, self.before), Promises(), 0
        for cut in sorted(fate.randrange(len(records)) for _ in range(cuts)):
            for entry in records[at:cut]:
                disk.apply(entry)
            at = cut
            promises.record(disk.marks)
            disk.marks.clear()
            self._restore(disk, disk.after_power_loss(fate))
            yield self._examine(promises).at(f"cut {cut} of {len(records)}: ")

    def _restore(self, disk: Disk, files: dict[str, bytes]) -> None:
        data = self.server.data
        shutil.rmtree(data)
        shutil.copytree(self.before, data)
        for name in disk.names:
            (data / name).unlink(missing_ok=True)
        for name, content in files.items():
            (data / name).write_bytes(content)
        for name in NOT_ON_DISK:
            (data / name).unlink(missing_ok=True)
        for path in (data, *data.rglob("*")):
            give_to_unprivileged_user(path)

    def _examine(self, promises: Promises) -> AuditReport:
        """Start the server as after a power failure, and compare the inbox with its acknowledgements."""
        try:
            self.server.start()
        except AssertionError:
            return AuditReport(corrupt=["the server does not start"])
        try:
            return compare(asyncio.run(_entries(self.server.dsn())), promises)
        except InboxError as error:
            return AuditReport(corrupt=[f"cannot read: {error}"])
        finally:
            self.server.stop(immediate=True)


async def _entries(dsn: str) -> list:
    async with PostgresInbox(dsn, allow_lossy_commits=True, timeout=120.0) as inbox:
        return [entry async for entry in inbox.entries()]


@contextmanager
def recorded_server(recorder: Path, seed: int, *settings: str) -> Iterator[RecordedServer]:
    """Record a server with these settings."""
    with programs_and_folder() as (programs, folder):
        server = PostgresServer(programs, folder, [word for setting in settings for word in ("-c", setting)])
        server.initialise()
        server.start()
        recorded = RecordedServer(server, seed)
        recorded.record(recorder)
        yield recorded
