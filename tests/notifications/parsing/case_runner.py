"""
Parse one hostile case after the other, each in a process of its own with little time and memory.

Reads names of cases from standard input, a line each, and answers a line of JSON each. It has imported all that is
needed before it forks, so that a case costs milliseconds.
"""

import copy
import json
import os
import pickle
import resource
import sys
from pathlib import Path

from notifications.parsing.attacks import CASES, Case

from callfire_async.errors import NotificationError
from callfire_async.notifications.parsing import parse

CPU_SECONDS = 5
MEMORY_BYTES = 256 * 1024 * 1024


def main() -> None:
    """Answer until there is nothing more to read."""
    for line in sys.stdin:
        sys.stdout.write(json.dumps(in_a_process_of_its_own(CASES[line.strip()])) + "\n")
        sys.stdout.flush()


def in_a_process_of_its_own(case: Case) -> dict[str, object]:
    """Fork, and return what the child found out; where it died, how."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        confine()
        os.write(writing, json.dumps(result_of(case)).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        found = pipe.read()
    _, status = os.waitpid(child, 0)
    return json.loads(found) if found else {"outcome": f"died with status {status}"}


def confine() -> None:
    """Set the limits: a wall against blow-up, on top of what the parent has already mapped."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY_BYTES, mapped + MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def result_of(case: Case) -> dict[str, object]:
    """Parse, and use what comes out in every way that a program may."""
    try:
        event = parse(case.body(), case.content_type)
    except NotificationError as error:
        return {
            "outcome": "bad",
            "holds": True,
            "shown": str(error) + repr(error) + str(pickle.loads(pickle.dumps(error))),
        }
    except BaseException as error:  # noqa: BLE001  # whatever it is, it must not come out
        return {"outcome": f"raised {type(error).__name__}"}
    try:
        repr((event, event.key, hash(event)))
        same = event == copy.deepcopy(event) == pickle.loads(pickle.dumps(event))
        repr(event).encode("utf-8")
        return {"outcome": "accepted", "holds": same and bool(case.holds(event)), "shown": repr(event.problems)}
    except BaseException as error:  # noqa: BLE001  # as above
        return {"outcome": f"accepted, and then raised {type(error).__name__}"}


if __name__ == "__main__":
    main()
