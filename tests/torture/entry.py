"""One entry: a run of pytest with seeds of its own."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from attrs import frozen
from torture.forms import Form
from torture.records import FAILED, PASSED, STOPPED, Record

ROOT = Path(__file__).parent.parent.parent
#: Tests get this time to stop their servers and processes, in seconds.
STOP_SECONDS = 60.0
#: A failed entry is recorded with this number of lines.
LAST_LINES = 40
SUMMARY = re.compile(r"^=* ?((?:\d+ [a-z]+,? ?)+) in [\d.]+s", re.MULTILINE)
FIGURES = re.compile(r"^=+ figures of the randomized tests.*\n+((?:test_.*\n)*)", re.MULTILINE)


@frozen
class Entry:
    """A form with the seeds that run next."""

    form: Form
    seed: int
    count: int

    def __str__(self) -> str:
        seeds = f"seeds {self.seed} to {self.seed + self.count - 1}" if self.count > 1 else f"seed {self.seed}"
        return f"{self.form.name}, {seeds}"

    def run(self, seconds: float) -> Record:
        """Run the tests, for at most *seconds*; they are stopped after that, or if this process is interrupted."""
        started = time.monotonic()
        with tempfile.TemporaryFile("w+") as output:
            status = _run(self._command(), output, seconds)
            output.seek(0)
            text = output.read()
        result = {0: PASSED, None: STOPPED}.get(status, FAILED)
        return Record(
            form=self.form.name,
            seed=self.seed,
            count=self.count,
            seconds=round(time.monotonic() - started),
            result=result,
            tests=next(iter(SUMMARY.findall(text)[-1:]), f"exit status {status}"),
            commit=last_commit(),
            date=datetime.now(UTC).date().isoformat(),
            figures=[line for lines in FIGURES.findall(text) for line in lines.splitlines()],
            output=text.splitlines()[-LAST_LINES:] if result == FAILED else [],
        )

    def _command(self) -> list[str]:
        options = ["-p", "no:cacheprovider", "-o", "faulthandler_timeout=0", "-o", "tmp_path_retention_policy=failed"]
        return [sys.executable, "-m", "pytest", *options, *self.form.command(self.seed, self.count)]


def _run(command: list[str], output: IO[str], seconds: float) -> int | None:
    """Return the exit status, or None if the time is over."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output, start_new_session=True)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        _stop(process)
        return 0 if process.returncode == 0 else None
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Interrupt the tests, so that they stop their servers, and kill what remains."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def last_commit() -> str:
    """Return the last commit that changed the package or its tests; with a plus sign if there are other changes."""
    code = ["callfire_async", "tests", ":!tests/torture/results.json"]
    commit, changes = _git("log", "-1", "--format=%h", "--", *code), _git("status", "--porcelain", "--", *code)
    return f"{commit}+" if changes else commit or "unknown"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()
