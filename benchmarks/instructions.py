"""
Count the instructions of an operation, a figure that does not depend on the load of the machine.

``python -m benchmarks.instructions NAME COUNT BODY`` runs one of the operations below with a body in hexadecimal
digits: first to warm up, then, after it has read a byte, COUNT times for valgrind to count. It imports only what the
operation needs, because valgrind is fifty times slower than the CPU.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from xml.parsers import expat

from benchmarks.rows import UnavailableError

Operation = Callable[[bytes], object]

_ROOT = Path(__file__).parent.parent
_WARM_UP = 20
_CALLGRIND = ("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", "--instr-atstart=no")


def instructions(name: str, body: bytes, count: int) -> float:
    """
    Return the number of instructions of one call of an operation.

    Raises:
        UnavailableError: valgrind is missing or cannot be controlled.
    """
    if shutil.which("callgrind_control") is None:
        raise UnavailableError("valgrind is not installed")
    command = [*_CALLGRIND, sys.executable, "-m", __name__, name, str(count), body.hex()]
    # Different hash seeds make two runs differ by one percent.
    options = {"env": {**os.environ, "PYTHONHASHSEED": "0"}, "cwd": _ROOT}
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, **pipes, **options) as process:  # noqa: S603  # fixed arguments
        return _count(process) / count


def _count(process: subprocess.Popen[bytes]) -> int:
    """Start counting after the warm-up, and return the count."""
    if process.stdout is None or not process.stdout.readline():
        raise UnavailableError("the process exited before the count")
    control = ["callgrind_control", "--instr=on", str(process.pid)]
    subprocess.run(control, check=True, capture_output=True)  # noqa: S603  # fixed arguments
    _, output = process.communicate(b"x")
    match = re.search(rb"Collected : (\d+)", output)
    if match is None or process.returncode:
        raise UnavailableError("valgrind did not print a count")
    return int(match[1])


def _parse() -> Operation:
    from callfire_async.notifications import parse  # noqa: PLC0415  # other operations must not import it

    return parse


def _xmltodict() -> Operation:
    import xmltodict  # noqa: PLC0415  # other operations must not import it

    return xmltodict.parse


def _expat() -> Operation:
    def start(name: str, attributes: list[str]) -> None:
        pass

    def other(text: str) -> None:
        pass

    def parse(body: bytes) -> None:
        parser = expat.ParserCreate()
        parser.buffer_text = parser.ordered_attributes = True
        parser.StartElementHandler = start
        parser.EndElementHandler = parser.CharacterDataHandler = other
        parser.Parse(body, True)  # noqa: FBT003  # expat's own signature

    return parse


OPERATIONS: Mapping[str, Callable[[], Operation]] = {"parse": _parse, "expat": _expat, "xmltodict": _xmltodict}


def main() -> None:
    """Run one operation: to warm up, then to be counted."""
    operation, count, body = OPERATIONS[sys.argv[1]](), int(sys.argv[2]), bytes.fromhex(sys.argv[3])
    for _ in range(_WARM_UP):
        operation(body)
    os.write(1, b"warm\n")
    os.read(0, 1)
    for _ in range(count):
        operation(body)
    # Do not count the interpreter's shutdown.
    os._exit(0)


if __name__ == "__main__":
    main()
