"""
The cost of the worst bodies of up to a megabyte.

Each body is parsed in a new process. The row has the slowest body. ``PYTHONPATH=tests python -m
benchmarks.hostile_bodies`` prints each: CPU time (the best of three), memory growth, and the ratio of its time to that
of the underlying library alone (``json.loads``, or expat without handlers). The exit status is 1 if a postback exceeds
the limits. The corpus is the tests' own.
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

from notifications.parsing.attacks import (
    BROADCAST,
    CALL,
    CALL_EVENT,
    ENVELOPES,
    JSON,
    MEGABYTE,
    TEXT_EVENT,
    XML,
    events,
)

from benchmarks.rows import Costs, Effort, Row
from callfire_async.client._operations.api_1_1 import query_subscriptions
from callfire_async.client._responses import HttpResponse, parse_response
from callfire_async.errors import CallFireError
from callfire_async.notifications import parse_all

MAX_MILLISECONDS = 150
MAX_MEGABYTES = 32
SHOWN = 15

SUBSCRIPTION = (
    b'{"@id":1,"Enabled":true,"Endpoint":"https://hooks.example.com/callfire/0123456789abcdef0123456789abcdef",'
    b'"NonStrictSsl":false,"NotificationFormat":"XML","TriggerEvent":"INBOUND_TEXT_FINISHED",'
    b'"SubscriptionFilter":{"BroadcastId":12,"ToNumber":"67076:WORD"}},'
)


def repeated(head: bytes, unit: bytes, tail: bytes, limit: int = MEGABYTE) -> bytes:
    """Repeat *unit* up to a total of a megabyte, and at most *limit* times."""
    return head + unit * min(limit, (MEGABYTE - len(head) - len(tail)) // len(unit)) + tail


def numbered(head: bytes, unit: bytes, count: int, tail: bytes) -> bytes:
    """Repeat *unit* with a number for each ``{}``."""
    return head + b"".join(unit.replace(b"{}", b"%d" % number) for number in range(count)) + tail


UNREADABLE_RECORDS = b',"records":[%s1]' % (b'{"id":"x","recordings":{"id":"x"}},' * 4)
RECORDS = b'{"CallFinished":{"Call":{"@id":1,"CallRecord":['

#: The tests' corpus, and more bodies just below each limit.
POSTBACKS: dict[str, Callable[[], bytes]] = {
    **{f"XML: {case.name}": case.body for case in XML},
    **{f"JSON: {case.name}": case.body for case in JSON},
    **{f"API v2: {case.name}": case.body for case in ENVELOPES},
    "API v2: 1,000 calls with unreadable records": events(CALL_EVENT % UNREADABLE_RECORDS, 1_000),
    "API v2: 1,000 texts with labels": events(TEXT_EVENT % (b',"labels":[' + b'"a",' * 57 + b'"a"]'), 1_000),
    "API v2: 240 campaign IDs of 4,300 digits": events(TEXT_EVENT % (b',"campaignId":' + b"9" * 4_300), 240),
    "XML: 9,990 elements, two attributes each": lambda: repeated(b"<z>", b"<a b='' c=''/>", b"</z>", 9_990),
    "XML: 9,990 unknown elements, invalid at the end": lambda: numbered(
        b"<z>", b"<a{} xmlns='u{}' b=''/>", 9_990, b"</y>"
    ),
    "XML: 9,990 invalid records": lambda: repeated(
        b"<CallFinished xmlns='s'><Call id='1'>", b"<CallRecord id='x' x=''/>", b"</Call></CallFinished>", 9_990
    ),
    "XML: 19,990 attributes of one number": lambda: numbered(
        b"<TextSent><Text id='1'><ToNumber ", b"a{}='x' ", 19_990, b">1</ToNumber></Text></TextSent>"
    ),
    "XML: text between 9,990 elements": lambda: repeated(b"<z>", b"t" * 90 + b"<a/>", b"</z>", 9_990),
    "XML: 9,990 labels": lambda: CALL % (b"<Label/>" * 9_990),
    "XML: 190 results": lambda: BROADCAST % (b"<RetryResults>" + b"a " * 190 + b"</RetryResults>"),
    "XML: a megabyte in windows-1252": lambda: repeated(
        b"<?xml version='1.0' encoding='windows-1252'?><z>", b"\x80", b"</z>"
    ),
    "JSON: 9,990 records, invalid at the end": lambda: repeated(RECORDS, b'{"@id":1},', b"{}]}}", 9_990),
    "JSON: 9,990 records": lambda: repeated(RECORDS, b"{},", b"{}]}}}", 9_990),
    "JSON: 240 unreadable records": lambda: repeated(RECORDS, b'{"RecordingMeta":[{"@id":"x"}]},', b"{}]}}}", 240),
    "JSON: 490 records with long invalid IDs": lambda: repeated(
        RECORDS, b'{"@id":"%s"},' % (b"x" * 2_000), b"{}]}}}", 490
    ),
    "JSON: 20,000 numbers": lambda: repeated(b'{"Ping":{"a":[', b"1.2345678901234567890123456e-5,", b"1]}}", 19_990),
    "JSON: 19,900 keys of one number": lambda: numbered(
        b'{"TextSent":{"Text":{"@id":1,"ToNumber":{', b'"@k{}":{},', 19_900, b'"@z":1}}}}'
    ),
}
#: Responses to a client that lists subscriptions; their limit of elements is twenty times higher.
RESPONSES: dict[str, Callable[[], bytes]] = {
    "response: a megabyte of valid subscriptions": lambda: repeated(
        b'{"ResourceList":{"Subscription":[', SUBSCRIPTION, b'{"@id":2}]}}'
    ),
    "response: a megabyte of unreadable subscriptions": lambda: repeated(
        b'{"ResourceList":{"Subscription":[', b'{"@id":1,"Enabled":9},', b'{"@id":1}]}}'
    ),
    "response: 199,000 elements": lambda: repeated(b"<ResourceList>", b"<a/>", b"</ResourceList>", 199_000),
}


def parse_postback(body: bytes) -> str:
    """Parse a postback; return the outcome."""
    try:
        return f"accepted, {sum(len(event.problems) for event in parse_all(body))} problems"
    except CallFireError as error:
        return f"rejected: {str(error)[:60]}"


def parse_list(body: bytes) -> str:
    """Parse a list of subscriptions; return the outcome."""
    operation = query_subscriptions(max_results=1000, first_result=0)
    try:
        page, _ = parse_response(operation, HttpResponse(200, body), attempts=1, in_doubt=False, now=datetime.now(UTC))
    except CallFireError as error:
        return f"rejected: {str(error)[:60]}"
    return f"{len(page.items)} items"


def parse_with_library(body: bytes) -> None:
    """Parse with the underlying library alone; skip a DTD, which can take it minutes."""
    if b"<!DOCTYPE" in body:
        return
    try:
        if body.lstrip().startswith(b"<"):
            expat.ParserCreate().Parse(body, True)  # noqa: FBT003  # expat's own signature
        else:
            json.loads(body)
    except (ValueError, RecursionError, expat.ExpatError, LookupError):
        pass


def milliseconds(operation: Callable[[], object], repetitions: int) -> float:
    """Return the CPU time of an operation, the best of *repetitions*."""
    times = []
    for _ in range(repetitions):
        gc.collect()
        start = time.process_time()
        operation()
        times.append(time.process_time() - start)
    return min(times) * 1000


def megabytes(field: str) -> float:
    """Return a field of this process's memory statistics."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in status if line.startswith(field))


def in_new_process(operation: Callable[[], bytes]) -> bytes:
    """Return the result of an operation in a new process, which has no free memory to reuse."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(operation())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        result = pipe.read()
    os.waitpid(child, 0)
    return result


def measured(read: Callable[[bytes], str], body: bytes) -> bytes:
    """Measure one body in this process."""
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = megabytes("VmRSS")
    outcome = read(body)
    growth = megabytes("VmHWM") - before
    ours, library = milliseconds(partial(read, body), 3), milliseconds(partial(parse_with_library, body), 1)
    return json.dumps([ours, growth, ours / library, len(body), outcome]).encode()


def table(name: str, read: Callable[[bytes], str], cases: dict[str, Callable[[], bytes]]) -> tuple[float, float]:
    """Measure the cases of up to a megabyte, print the slowest, and return the maximum time and memory."""
    bodies = {name: in_new_process(case) for name, case in cases.items()}
    rows = {
        name: json.loads(in_new_process(partial(measured, read, body)))
        for name, body in bodies.items()
        if len(body) <= MEGABYTE
    }
    _print(f"{name}: the slowest of {len(rows)} bodies\n\n      ms    MB    ratio     bytes")
    for case, (ours, growth, ratio, length, outcome) in sorted(rows.items(), key=lambda row: -row[1][0])[:SHOWN]:
        _print(f"{ours:8.1f} {growth:5.1f} {ratio:8.1f} {length:9,}  {case} ({outcome})")
    worst = max(row[0] for row in rows.values()), max(row[1] for row in rows.values())
    _print(f"\nmaximum: {worst[0]:.1f} ms, {worst[1]:.1f} MB\n")
    return worst


RECORD = (
    b'<CallRecord id="1"><Result>LA</Result><FinishTime>2012-10-26T21:32:52Z</FinishTime>'
    b"<BilledAmount>1.25</BilledAmount><Duration>33</Duration></CallRecord>"
)


def largest_valid() -> bytes:
    """Return a valid notification with the maximum number of elements."""
    return CALL % (RECORD * 990)


def _slowest(effort: Effort) -> Costs:
    bodies = [in_new_process(case) for case in [*POSTBACKS.values()][:: round(1 / effort.fraction)]]
    short = [body for body in bodies if len(body) <= MEGABYTE]
    return Costs(max(map(_parse_seconds, short)), _parse_seconds(largest_valid()))


def _parse_seconds(body: bytes) -> float:
    """Return the CPU time of parsing a body in a new process."""
    return float(in_new_process(lambda: str(milliseconds(partial(parse_postback, body), 3) / 1000).encode()))


ROWS = (
    Row(
        f"slowest of {len(POSTBACKS)} hostile and invalid bodies of up to a megabyte",
        "largest valid notification",
        3.0,
        _slowest,
    ),
)


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")


def main() -> None:
    """Print the tables."""
    _print(f"Python {platform.python_version()}, {expat.EXPAT_VERSION}, {platform.machine()}, {os.cpu_count()} cores\n")
    parse_postback(b"<CallFinished><Call id='x'/></CallFinished>")  # creates the converters, which happens on first use
    slowest, largest = table("postbacks", parse_postback, POSTBACKS)
    table("responses, which come from CallFire and have no limit here", parse_list, RESPONSES)
    sys.exit(slowest > MAX_MILLISECONDS or largest > MAX_MEGABYTES)


if __name__ == "__main__":
    main()
