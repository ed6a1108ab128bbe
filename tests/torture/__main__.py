"""
``python -m torture``: run the long forms of the tests, in order of value, and record the results.

Each entry is recorded as soon as it ends, in ``tests/torture/results.json`` and ``docs/how-it-is-tested.md``. The next
run continues with the next seeds.
"""

import argparse
import math
import signal
import sys
import time

from torture import page, records
from torture.entry import Entry
from torture.schedule import next_entry, smallest_share


def main() -> int:
    """Run entries until the time is over or each form has its full size; return 1 if one failed."""
    # Background jobs of a shell ignore SIGINT.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    hours = _options().hours
    try:
        return _run(time.monotonic() + (math.inf if hours is None else hours * 3600))
    except KeyboardInterrupt:
        _print("interrupted: the entry that ran is not recorded")
        return 130


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m torture", description="Run the long forms of the tests.")
    parser.add_argument("--hours", type=float, help="stop after this time; by default, when each form is complete")
    return parser.parse_args()


def _run(deadline: float) -> int:
    recorded = records.read()
    # Without a deadline, this run completes a round: each form is run in its full size.
    share = math.inf if deadline < math.inf else math.floor(smallest_share(recorded)) + 1
    page.write(recorded)
    failed = 0
    while entry := next_entry(recorded, deadline - time.monotonic(), share):
        new = _run_entry(entry, deadline)
        failed += new.result == records.FAILED
        recorded = records.added(recorded, new)
        records.write(recorded)
        page.write(recorded)
    return 1 if failed else 0


def _run_entry(entry: Entry, deadline: float) -> records.Record:
    _print(f"{entry} …")
    # A timeout of a thread's wait has an upper limit.
    new = entry.run(min(deadline - time.monotonic(), 1e6))
    _print(f"{entry}: {new.result} after {new.seconds} s ({new.tests})", *new.output, *new.figures)
    return new


def _print(*lines: str) -> None:
    print(time.strftime("%H:%M:%S"), *lines, sep="\n" if len(lines) > 1 else " ", flush=True)  # noqa: T201  # the progress


if __name__ == "__main__":
    sys.exit(main())
