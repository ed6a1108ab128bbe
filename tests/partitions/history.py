"""The history of a run: what each host did, and when, by the one monotonic clock that all of them share."""

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path

from attrs import astuple, frozen

# The words of a history.
POSTING = "posting"
ACKNOWLEDGED = "acknowledged"
REFUSED = "refused"
UNANSWERED = "unanswered"
CLAIMED = "claimed"
BEGAN = "began"
SUCCEEDED = "succeeded"
SETTLING = "settling"
SETTLED = "settled"
LOST = "lost"
UNSETTLED = "unsettled"


@frozen
class Entry:
    """One step of one event."""

    #: Seconds of the machine's monotonic clock.
    at: float
    host: str
    word: str
    #: The number of the event.
    event: int
    #: The token of the lease, for steps of a worker.
    lease: str = ""
    #: The status of a refusal, the operation that settles a lease, or the type of an error.
    detail: str = ""


class Journal:
    """
    Appends the entries of one process to a file.

    Args:
        path: The file.
        host: The name of the process's host.
    """

    def __init__(self, path: Path, host: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._host = host

    def write(self, word: str, event: int, lease: str = "", detail: str = "") -> None:
        entry = Entry(time.monotonic(), self._host, word, event, lease, detail)
        # One write per line, so that a line is never cut.
        os.write(self._file, json.dumps(astuple(entry)).encode() + b"\n")

    def close(self) -> None:
        os.close(self._file)


def read_history(paths: Iterable[Path]) -> list[Entry]:
    """Return the entries of several journals in the order of time."""
    lines = [line for path in paths for line in path.read_text().splitlines()]
    return sorted((Entry(*json.loads(line)) for line in lines), key=lambda entry: entry.at)
