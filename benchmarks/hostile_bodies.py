"""
What the worst bodies cost: a megabyte, or less, that is made to be dear to read.

Each body is parsed in a fresh process, as a whole: bytes to event, or to the reason why it is none. The row has the
dearest of them. ``PYTHONPATH=tests python -m benchmarks.hostile`` prints them all: the processor's time (the best of
three), the memory that the process grew by, and how many times as long it took as the library underneath alone takes
for the same bytes (``json.loads``, or expat without a handler); its exit status is 1 where a postback is above the
limits. The cases are the tests'.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from xml.parsers import expat

from notifications.parsing.attacks import BROADCAST, CALL, JSON, MEGABYTE, XML

from benchmarks.rows import Costs, Effort, Row
from callfire_async.client._operations.api_1_1 import query_subscriptions
from callfire_async.client._responses import HttpResponse, parse_response
from callfire_async.errors import CallFireError
from callfire_async.notifications import parse

MOST_MILLISECONDS = 150
MOST_MEGABYTES = 32
SHOWN = 15

SUBSCRIPTION = (
    b'{"@id":1,"Enabled":true,"Endpoint":"https://hooks.example.com/callfire/0123456789abcdef0123456789abcdef",'
    b'"NonStrictSsl":false,"NotificationFormat":"XML","TriggerEvent":"INBOUND_TEXT_FINISHED",'
    b'"SubscriptionFilter":{"BroadcastId":12,"ToNumber":"67076:WORD"}},'
)


def filled(head: bytes, unit: bytes, tail: bytes, most: int = MEGABYTE) -> bytes:
    """Repeat *unit* as often as goes into a megabyte, *most* times at most."""
    return head + unit * min(most, (MEGABYTE - len(head) - len(tail)) // len(unit)) + tail


def numbered(head: bytes, unit: bytes, count: int, tail: bytes) -> bytes:
    """Repeat *unit* with a number in each place that says ``{}``."""
    return head + b"".join(unit.replace(b"{}", b"%d" % number) for number in range(count)) + tail


RECORDS = b'{"CallFinished":{"Call":{"@id":1,"CallRecord":['

#: The corpus, and more of what is just below each limit.
POSTBACKS: dict[str, Callable[[], bytes]] = {
    **{f"XML: {case.name}": case.body for case in XML},
    **{f"JSON: {case.name}": case.body for case in JSON},
    "XML: 9,990 elements, two attributes each": lambda: filled(b"<z>", b"<a b='' c=''/>", b"</z>", 9_990),
    "XML: 9,990 strange elements, and broken at the end": lambda: numbered(
        b"<z>", b"<a{} xmlns='u{}' b=''/>", 9_990, b"</y>"
    ),
    "XML: 9,990 strange records": lambda: filled(
        b"<CallFinished xmlns='s'><Call id='1'>", b"<CallRecord id='x' x=''/>", b"</Call></CallFinished>", 9_990
    ),
    "XML: 19,990 attributes of a number": lambda: numbered(
        b"<TextSent><Text id='1'><ToNumber ", b"a{}='x' ", 19_990, b">1</ToNumber></Text></TextSent>"
    ),
    "XML: text between 9,990 elements": lambda: filled(b"<z>", b"t" * 90 + b"<a/>", b"</z>", 9_990),
    "XML: 9,990 labels": lambda: CALL % (b"<Label/>" * 9_990),
    "XML: 190 results": lambda: BROADCAST % (b"<RetryResults>" + b"a " * 190 + b"</RetryResults>"),
    "XML: a megabyte in windows-1252": lambda: filled(
        b"<?xml version='1.0' encoding='windows-1252'?><z>", b"\x80", b"</z>"
    ),
    "JSON: 9,990 records, and a broken end": lambda: filled(RECORDS, b'{"@id":1},', b"{}]}}", 9_990),
    "JSON: 9,990 records": lambda: filled(RECORDS, b"{},", b"{}]}}}", 9_990),
    "JSON: 240 records of which nothing can be read": lambda: filled(
        RECORDS, b'{"RecordingMeta":[{"@id":"x"}]},', b"{}]}}}", 240
    ),
    "JSON: 490 records with long ids that are none": lambda: filled(
        RECORDS, b'{"@id":"%s"},' % (b"x" * 2_000), b"{}]}}}", 490
    ),
    "JSON: 20,000 numbers": lambda: filled(b'{"Ping":{"a":[', b"1.2345678901234567890123456e-5,", b"1]}}", 19_990),
    "JSON: 19,900 keys of a number": lambda: numbered(
        b'{"TextSent":{"Text":{"@id":1,"ToNumber":{', b'"@k{}":{},', 19_900, b'"@z":1}}}}'
    ),
}
#: What CallFire might answer a client that lists subscriptions; it may hold twenty times as many elements.
ANSWERS: dict[str, Callable[[], bytes]] = {
    "answer: a megabyte of subscriptions, all well": lambda: filled(
        b'{"ResourceList":{"Subscription":[', SUBSCRIPTION, b'{"@id":2}]}}'
    ),
    "answer: a megabyte of subscriptions that cannot be read": lambda: filled(
        b'{"ResourceList":{"Subscription":[', b'{"@id":1,"Enabled":9},', b'{"@id":1}]}}'
    ),
    "answer: 199,000 elements": lambda: filled(b"<ResourceList>", b"<a/>", b"</ResourceList>", 199_000),
}


def understood(body: bytes) -> str:
    """Parse a postback; say what came of it."""
    try:
        return f"accepted, {len(parse(body).problems)} problems"
    except CallFireError as error:
        return f"bad: {str(error)[:60]}"


def answered(body: bytes) -> str:
    """Read a list of subscriptions; say what came of it."""
    operation = query_subscriptions(max_results=1000, first_result=0)
    try:
        page, _ = parse_response(operation, HttpResponse(200, body), attempts=1, in_doubt=False, now=datetime.now(UTC))
    except CallFireError as error:
        return f"bad: {str(error)[:60]}"
    return f"{len(page.items)} items"


def floor(body: bytes) -> None:
    """Read it with the library underneath alone, but for a DTD, which may cost it minutes."""
    if b"<!DOCTYPE" in body:
        return
    try:
        if body.lstrip().startswith(b"<"):
            expat.ParserCreate().Parse(body, True)  # noqa: FBT003  # expat's own signature
        else:
            json.loads(body)
    except (ValueError, RecursionError, expat.ExpatError, LookupError):
        pass


def milliseconds(work: Callable[[], object], times_done: int) -> float:
    """Return the processor's time that it takes, the best of so many."""
    times = []
    for _ in range(times_done):
        gc.collect()
        begun = time.process_time()
        work()
        times.append(time.process_time() - begun)
    return min(times) * 1000


def megabytes(line: str) -> float:
    """Return what the kernel says of this process's memory."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(found.split()[1]) / 1024 for found in status if found.startswith(line))


def in_a_process(work: Callable[[], bytes]) -> bytes:
    """Return what *work* returns in a process of its own, so that it starts with no memory to reuse."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(work())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        found = pipe.read()
    os.waitpid(child, 0)
    return found


def measured(read: Callable[[bytes], str], body: bytes) -> bytes:
    """Measure one body, in this process."""
    Path("/proc/self/clear_refs").write_text("5")  # forgets the highest mark
    before = megabytes("VmRSS")
    outcome = read(body)
    grown = megabytes("VmHWM") - before
    dear, cheap = milliseconds(partial(read, body), 3), milliseconds(partial(floor, body), 1)
    return json.dumps([dear, grown, dear / cheap, len(body), outcome]).encode()


def table(name: str, read: Callable[[bytes], str], cases: dict[str, Callable[[], bytes]]) -> tuple[float, float]:
    """Measure the cases that are no longer than a megabyte, print the dearest, return the worst time and memory."""
    bodies = {name: in_a_process(case) for name, case in cases.items()}
    rows = {
        name: json.loads(in_a_process(partial(measured, read, body)))
        for name, body in bodies.items()
        if len(body) <= MEGABYTE
    }
    _print(f"{name}: the dearest of {len(rows)} bodies\n\n      ms    MB    ratio     bytes")
    for case, (dear, grown, ratio, length, outcome) in sorted(rows.items(), key=lambda row: -row[1][0])[:SHOWN]:
        _print(f"{dear:8.1f} {grown:5.1f} {ratio:8.1f} {length:9,}  {case} ({outcome})")
    worst = max(row[0] for row in rows.values()), max(row[1] for row in rows.values())
    _print(f"\nworst: {worst[0]:.1f} ms, {worst[1]:.1f} MB\n")
    return worst


RECORD = (
    b'<CallRecord id="1"><Result>LA</Result><FinishTime>2012-10-26T21:32:52Z</FinishTime>'
    b"<BilledAmount>1.25</BilledAmount><Duration>33</Duration></CallRecord>"
)


def honest() -> bytes:
    """Return a notification of the most elements that are read, all well."""
    return CALL % (RECORD * 990)


def _dearest(effort: Effort) -> Costs:
    bodies = [in_a_process(case) for case in [*POSTBACKS.values()][:: round(1 / effort.share)]]
    short = [body for body in bodies if len(body) <= MEGABYTE]
    return Costs(max(map(_parse_seconds, short)), _parse_seconds(honest()))


def _parse_seconds(body: bytes) -> float:
    """Return what it takes to parse a body in a process of its own."""
    return float(in_a_process(lambda: str(milliseconds(partial(understood, body), 3) / 1000).encode()))


ROWS = (
    Row(
        f"the dearest of {len(POSTBACKS)} hostile and broken bodies of up to a megabyte",
        "the longest notification that is read, all well",
        3.0,
        _dearest,
    ),
)


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")


def main() -> None:
    """Print the tables."""
    _print(f"Python {platform.python_version()}, {expat.EXPAT_VERSION}, {platform.machine()}, {os.cpu_count()} cores\n")
    understood(b"<CallFinished><Call id='x'/></CallFinished>")  # converters are made at the first use
    slowest, largest = table("postbacks", understood, POSTBACKS)
    table("answers, which come from CallFire itself and have no limit here", answered, ANSWERS)
    sys.exit(slowest > MOST_MILLISECONDS or largest > MOST_MEGABYTES)


if __name__ == "__main__":
    main()
