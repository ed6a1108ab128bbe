"""
How many instructions something takes: a figure that is the same in each run, however busy the machine is.

Run as ``python -m benchmarks.instructions NAME COUNT BODY`` it does one of the works below with a document (in
hexadecimal digits): some times, then, once it has read a byte, so often, for valgrind to count. It imports nothing
that the work does not need: valgrind is fifty times as slow as the processor.
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

Work = Callable[[bytes], object]

_FOLDER = Path(__file__).parent.parent
_WARM = 20
_CALLGRIND = ("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", "--instr-atstart=no")


def instructions(name: str, body: bytes, count: int) -> float:
    """
    Count what one call of a work takes.

    Raises:
        UnavailableError: There is no valgrind, or it may not be spoken to.
    """
    if shutil.which("callgrind_control") is None:
        raise UnavailableError("valgrind is not installed")
    command = [*_CALLGRIND, sys.executable, "-m", __name__, name, str(count), body.hex()]
    # A seed of the hash alone makes two runs differ by a hundredth.
    options = {"env": {**os.environ, "PYTHONHASHSEED": "0"}, "cwd": _FOLDER}
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, **pipes, **options) as process:  # noqa: S603  # our own words
        return _counted(process) / count


def _counted(process: subprocess.Popen[bytes]) -> int:
    """Let it warm up uncounted, then count the rest."""
    if process.stdout is None or not process.stdout.readline():
        raise UnavailableError("it ended before it was counted")
    counting = ["callgrind_control", "--instr=on", str(process.pid)]
    subprocess.run(counting, check=True, capture_output=True)  # noqa: S603  # our own words
    _, said = process.communicate(b"x")
    found = re.search(rb"Collected : (\d+)", said)
    if found is None or process.returncode:
        raise UnavailableError("valgrind does not say what it has counted")
    return int(found[1])


def _parsed() -> Work:
    from callfire_async.notifications import parse  # noqa: PLC0415  # no other work pays for the import

    return parse


def _read_by_xmltodict() -> Work:
    import xmltodict  # noqa: PLC0415  # likewise

    return xmltodict.parse


def _handled_by_expat() -> Work:
    def start(name: str, attributes: list[str]) -> None:
        pass

    def other(text: str) -> None:
        pass

    def work(body: bytes) -> None:
        parser = expat.ParserCreate()
        parser.buffer_text = parser.ordered_attributes = True
        parser.StartElementHandler = start
        parser.EndElementHandler = parser.CharacterDataHandler = other
        parser.Parse(body, True)  # noqa: FBT003  # expat's own signature

    return work


WORKS: Mapping[str, Callable[[], Work]] = {
    "parsed": _parsed,
    "handled_by_expat": _handled_by_expat,
    "read_by_xmltodict": _read_by_xmltodict,
}


def main() -> None:
    """Do one work: to warm up, and so often."""
    work, count, body = WORKS[sys.argv[1]](), int(sys.argv[2]), bytes.fromhex(sys.argv[3])
    for _ in range(_WARM):
        work(body)
    os.write(1, b"warm\n")
    os.read(0, 1)
    for _ in range(count):
        work(body)
    # The end of the interpreter is not to be counted.
    os._exit(0)


if __name__ == "__main__":
    main()
