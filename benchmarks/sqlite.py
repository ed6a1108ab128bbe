"""
`SqliteInbox`: storing and handling deliveries, compared with SQLite alone.

Comparisons that depend on the disk use elapsed time, measured alternately on one disk. Set ``TMPDIR`` to a directory on
the disk to be measured.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import resource
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

from benchmarks.load_generator import NUMBER, postback
from benchmarks.rows import Costs, Effort, Row, UnavailableError, compare_async
from callfire_async.notifications import Delivery, Notification, Postback, Receiver, Router, SqliteInbox
from callfire_async.notifications.parsing import parse

DONE, PENDING, FEW = 1_000_000, 100_000, 1_000
HANDLED = 4_000
SIZES = (100, 1_000, 10_000)
_MEMORY_BYTES = 20e6
_FOUR_WEEKS = 28 * 86_400.0
_CONTENT_TYPE, _BODY = postback("JSON")
_numbers = itertools.count()

_INSERT = """
    INSERT INTO deliveries (key, body, content_type, received_at, appended_at, due_at, updated_at)
    VALUES (?, ?, ?, ?, ?, ?, ?)"""


def delivery() -> Delivery:
    """Return a new delivery."""
    return Delivery(_BODY.replace(NUMBER, b"%010d" % next(_numbers)), _CONTENT_TYPE.decode())


@contextmanager
def _file() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory) / "inbox.db"


# --- append -----------------------------------------------------------------------------------------------


def _append(concurrency: int, batch: int, effort: Effort) -> Costs:
    """Append concurrently, compared with a loop that commits a batch of rows at a time; per row."""
    return asyncio.run(_compare_appends(concurrency, batch, effort))


async def _compare_appends(concurrency: int, batch: int, effort: Effort) -> Costs:
    with _file() as path, _file() as bare_path:
        async with SqliteInbox(bare_path):
            pass
        async with SqliteInbox(path) as inbox:
            with closing(sqlite3.connect(bare_path, isolation_level=None)) as connection:
                connection.execute("PRAGMA synchronous = FULL")

                async def ours() -> None:
                    await asyncio.gather(*(inbox.append(delivery()) for _ in range(concurrency)))

                async def bare() -> None:
                    _commit(connection, batch)

                costs = await compare_async(ours, bare, effort, clock=time.perf_counter)
    return Costs(costs.ours / concurrency, costs.baseline / batch)


def _commit(connection: sqlite3.Connection, count: int) -> None:
    """Insert the same rows into the same table in one transaction."""
    now = time.time()
    rows = (_row(delivery(), now) for _ in range(count))
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(_INSERT, rows)
    connection.execute("COMMIT")


def _row(new: Delivery, now: float) -> tuple[object, ...]:
    return new.key, new.body, new.content_type, now, now, now, now


# --- handle -----------------------------------------------------------------------------------------------


def _router() -> Router:
    router = Router()

    @router.on(Notification)
    async def handle(event: Notification) -> None:
        pass

    return router


async def _handle(count: int) -> float:
    """Handle deliveries with a receiver; return the CPU seconds per delivery."""
    with _file() as path:
        inbox = SqliteInbox(path)
        async with inbox:
            await inbox.append_many([delivery() for _ in range(count)])
        receiver = Receiver(_router(), tokens=None, inbox=inbox)
        start = time.process_time()
        async with receiver:
            while (await receiver.stats()).handled < count:
                await receiver.idle(timeout=600)
        return (time.process_time() - start) / count


async def _parse_and_dispatch(count: int) -> float:
    """Parse and dispatch bodies; return the CPU seconds per body."""
    router, bodies = _router(), [delivery().body for _ in range(count)]
    start = time.process_time()
    for body in bodies:
        await router.dispatch(parse(body, "application/json"), handler_timeout=30.0)
    return (time.process_time() - start) / count


def _compare_handling(effort: Effort) -> Costs:
    count = effort.of(HANDLED, minimum=300)
    asyncio.run(_parse_and_dispatch(100))  # warms up
    asyncio.run(_handle(100))
    return Costs(asyncio.run(_handle(count)), asyncio.run(_parse_and_dispatch(count)))


# --- growth -----------------------------------------------------------------------------------------------


async def _accept(count: int) -> float:
    """Accept postbacks, 64 concurrently; return the CPU seconds per postback."""
    with _file() as path:
        async with Receiver(_router(), tokens=None, inbox=SqliteInbox(path), concurrency=0) as receiver:
            start = time.process_time()
            await _receive_all(receiver, count)
            return (time.process_time() - start) / count


async def _receive_all(receiver: Receiver, count: int) -> None:
    remaining = iter(range(count))

    async def receive_next() -> None:
        for _ in remaining:
            body = delivery().body
            reply = await receiver.receive(Postback("POST", None, {"Content-Type": "application/json"}, body))
            if reply.status != 204:
                raise RuntimeError(reply)

    await asyncio.gather(*(receive_next() for _ in range(64)))


def _growth(measure: Callable[[int], Awaitable[float]], many: int, few: int, effort: Effort) -> Costs:
    """Measure many items once, and few items several times."""
    many, few = effort.of(many, minimum=200), effort.of(few, minimum=20)

    async def measured() -> Costs:
        await measure(few)
        times = max(3, min(30, many // few))
        ours = await measure(many)
        return Costs(ours, sum([await measure(few) for _ in range(times)]) / times)

    return asyncio.run(measured())


def _memory(effort: Effort) -> Costs:
    """Store pending deliveries; return the growth of the process in bytes."""
    if not Path("/proc/self/statm").exists():
        raise UnavailableError("this system does not report the memory in use")
    return Costs(asyncio.run(_grown_bytes(effort.of(PENDING))), _MEMORY_BYTES, "B")


async def _grown_bytes(count: int) -> float:
    with _file() as path:
        async with Receiver(_router(), tokens=None, inbox=SqliteInbox(path), concurrency=0) as receiver:
            # Warm up: what is allocated only once does not count.
            await _receive_all(receiver, 1_000)
            before = _resident_bytes()
            await _receive_all(receiver, count)
            return max(0.0, float(_resident_bytes() - before))


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()


# --- size of the inbox ------------------------------------------------------------------------------------


async def fill(path: Path, done: int, pending: int) -> None:
    """Create a file with done deliveries of the last four weeks, and pending ones."""
    async with SqliteInbox(path):
        pass
    with closing(sqlite3.connect(path)) as connection:
        now = time.time()
        connection.executemany(
            "INSERT INTO deliveries (key, body, received_at, appended_at, due_at, updated_at, state, event_key)"
            " VALUES (?, x'', ?, ?, ?, ?, 2, ?)",
            (_done_row(number, now - _FOUR_WEEKS * (1 - number / done)) for number in range(done)),
        )
        connection.executemany(_INSERT, (_row(delivery(), now) for _ in range(pending)))
        connection.commit()


def _done_row(number: int, at: float) -> tuple[object, ...]:
    return os.urandom(32).hex(), at, at, at, at, f"text:{number}:SENT"


async def _append_one(inbox: SqliteInbox) -> None:
    await inbox.append(delivery())


async def _claim_and_release(inbox: SqliteInbox) -> None:
    for lease in await inbox.claim(16, lease=60.0):
        await inbox.release(lease)


def _compare_sizes(operation: Callable[[SqliteInbox], Awaitable[None]], effort: Effort) -> Costs:
    """Measure an operation of a large inbox and a small one alternately."""

    async def measured() -> Costs:
        with _file() as large, _file() as small:
            await fill(large, effort.of(DONE), effort.of(PENDING))
            await fill(small, 0, FEW)
            async with SqliteInbox(large) as ours, SqliteInbox(small) as baseline:
                return await compare_async(
                    lambda: operation(ours), lambda: operation(baseline), effort, clock=time.perf_counter
                )

    return asyncio.run(measured())


_LARGE = f"with {DONE:,} done and {PENDING:,} pending deliveries"
_SMALL = f"with {FEW:,} pending deliveries"

ROWS = (
    Row("`SqliteInbox.append`, 64 concurrent", "one commit per row", 8.0, partial(_append, 64, 1), "higher"),
    Row("`SqliteInbox.append`, one at a time", "one commit per row", 1.5, partial(_append, 1, 1)),
    Row(
        "`SqliteInbox.append`, 256 concurrent",
        "a loop that commits 100 rows at a time",
        0.6,
        partial(_append, 256, 100),
        "higher",
    ),
    Row("claim, parse, dispatch and ack in JSON", "parse and dispatch", 3.5, _compare_handling),
    Row(f"memory of {PENDING:,} pending deliveries", "20 MB", 1.0, _memory),
    Row(f"`append` {_LARGE}", _SMALL, 1.3, partial(_compare_sizes, _append_one)),
    Row(f"`claim` and `release` of 16 {_LARGE}", _SMALL, 1.3, partial(_compare_sizes, _claim_and_release)),
    *(
        Row(f"{operation} {many:,}, per item", f"{few:,}, per item", 1.3, partial(_growth, measure, many, few))
        for operation, measure in (("accepting", _accept), ("handling", _handle))
        for few, many in itertools.pairwise(SIZES)
    ),
)
