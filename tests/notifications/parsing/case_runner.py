"""
Parse hostile cases, each in a process with limited time and memory.

The program reads names of cases from standard input, one per line, and writes a line of JSON for each. It imports
everything before it forks, so that a case takes milliseconds.
"""

import copy
import json
import os
import pickle
import resource
import sys
from pathlib import Path
from typing import Any

from notifications.parsing.attacks import CASES, Case

from callfire_async.errors import NotificationError
from callfire_async.notifications.parsing import parse, parse_all, parse_or_split

CPU_SECONDS = 5
MEMORY_BYTES = 256 * 1024 * 1024


def main() -> None:
    """Run cases until standard input ends."""
    for line in sys.stdin:
        sys.stdout.write(json.dumps(run_in_child(CASES[line.strip()])) + "\n")
        sys.stdout.flush()


def run_in_child(case: Case) -> dict[str, object]:
    """Fork, and return the result of the child, or the status it died with."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        set_limits()
        os.write(writing, json.dumps(run_case(case)).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        output = pipe.read()
    _, status = os.waitpid(child, 0)
    return json.loads(output) if output else {"outcome": f"died with status {status}"}


def set_limits() -> None:
    """Limit CPU time, and memory on top of what the parent has mapped."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY_BYTES, mapped + MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def run_case(case: Case) -> dict[str, object]:
    """Parse the body, and use the event or events in every way that a program may."""
    try:
        event = parsed(case)
    except NotificationError as error:
        return {
            "outcome": "bad",
            "is_expected": True,
            "shown": str(error) + repr(error) + str(pickle.loads(pickle.dumps(error))),
        }
    except BaseException as error:  # noqa: BLE001  # any other exception is a failure of the case
        return {"outcome": f"raised {type(error).__name__}"}
    try:
        repr((event, [single.key for single in (event if case.has_several else [event])], hash(event)))
        is_equal = event == copy.deepcopy(event) == pickle.loads(pickle.dumps(event))
        repr(event).encode("utf-8")
        return {
            "outcome": "accepted",
            "is_expected": is_equal and bool(case.condition(event)),
            "shown": repr(event if case.has_several else event.problems),
        }
    except BaseException as error:  # noqa: BLE001  # any exception is a failure of the case
        return {"outcome": f"accepted, and then raised {type(error).__name__}"}


def parsed(case: Case) -> Any:
    """Return the event of a body, or all of its events; each function returns the same."""
    body = case.body()
    if not case.has_several:
        event = parse(body, case.content_type)
        assert (event,) == parse_all(body, case.content_type)
        assert event == parse_or_split(body, case.content_type)
        return event
    events = parse_all(body, case.content_type)
    assert events == tuple(parse(part) for part in parse_or_split(body, case.content_type))
    return events


if __name__ == "__main__":
    main()
