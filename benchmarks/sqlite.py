"""
Keeping deliveries on disk and working through them, beside what SQLite alone takes for it.

The disk's own time is most of it: what is compared with it is measured by the clock, in turns on one disk. ``TMPDIR``
names a folder on the disk to be measured.
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

from benchmarks.over_http import document
from benchmarks.posting import NUMBER
from benchmarks.rows import Costs, Effort, Row, UnavailableError, compare_async
from callfire_async.notifications import Delivery, Notification, Postback, Receiver, Router, SqliteInbox
from callfire_async.notifications.parsing import parse

DONE, WAITING, FEW = 1_000_000, 100_000, 1_000
WORKED = 4_000
SIZES = (100, 1_000, 10_000)
_MEMORY_BYTES = 20e6
_TYPE, _BODY = document("JSON")
_numbers = itertools.count()

_INSERT = """
    INSERT INTO deliveries (key, body, content_type, received_at, appended_at, due_at, updated_at)
    VALUES (?, ?, ?, ?, ?, ?, ?)"""


def delivery() -> Delivery:
    """Make one like no other."""
    return Delivery(_BODY.replace(NUMBER, b"%010d" % next(_numbers)), _TYPE.decode())


@contextmanager
def _file() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "inbox.db"


# --- appending --------------------------------------------------------------------------------------------


def _appending(at_once: int, directly: int, effort: Effort) -> Costs:
    """Append so many at once, beside a bare loop that commits so many rows at a time; for each row."""
    return asyncio.run(_appending_in_turns(at_once, directly, effort))


async def _appending_in_turns(at_once: int, directly: int, effort: Effort) -> Costs:
    with _file() as path, _file() as other:
        async with SqliteInbox(other):
            pass
        async with SqliteInbox(path) as inbox:
            with closing(sqlite3.connect(other, isolation_level=None)) as connection:
                connection.execute("PRAGMA synchronous = FULL")

                async def ours() -> None:
                    await asyncio.gather(*(inbox.append(delivery()) for _ in range(at_once)))

                async def bare() -> None:
                    _commit(connection, directly)

                costs = await compare_async(ours, bare, effort, clock=time.perf_counter)
    return Costs(costs.ours / at_once, costs.beside / directly)


def _commit(connection: sqlite3.Connection, count: int) -> None:
    """Insert the same rows into the same table, with nobody to wait for."""
    now = time.time()
    made = (delivery() for _ in range(count))
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(_INSERT, ((one.key, one.body, one.content_type, now, now, now, now) for one in made))
    connection.execute("COMMIT")


# --- working ----------------------------------------------------------------------------------------------


def _router() -> Router:
    router = Router()

    @router.on(Notification)
    async def take(event: Notification) -> None:
        pass

    return router


async def _worked(count: int) -> float:
    """Have a receiver work through so many; return the processor's seconds for each."""
    with _file() as path:
        inbox = SqliteInbox(path)
        async with inbox:
            await inbox.append_many([delivery() for _ in range(count)])
        receiver = Receiver(_router(), tokens=None, inbox=inbox)
        begun = time.process_time()
        async with receiver:
            while (await receiver.stats()).handled < count:
                await receiver.idle(timeout=600)
        return (time.process_time() - begun) / count


async def _parsed(count: int) -> float:
    """Parse and dispatch so many; return the processor's seconds for each."""
    router, bodies = _router(), [delivery().body for _ in range(count)]
    begun = time.process_time()
    for body in bodies:
        await router.dispatch(parse(body, "application/json"), handler_timeout=30.0)
    return (time.process_time() - begun) / count


def _working(effort: Effort) -> Costs:
    count = effort.of(WORKED, least=300)
    asyncio.run(_parsed(100))
    asyncio.run(_worked(100))
    return Costs(asyncio.run(_worked(count)), asyncio.run(_parsed(count)))


# --- how it grows -----------------------------------------------------------------------------------------


async def _taken(count: int) -> float:
    """Have a receiver take so many, 64 at once; return the processor's seconds for each."""
    with _file() as path:
        async with Receiver(_router(), tokens=None, inbox=SqliteInbox(path), concurrency=0) as receiver:
            begun = time.process_time()
            await _take(receiver, count)
            return (time.process_time() - begun) / count


async def _take(receiver: Receiver, count: int) -> None:
    left = iter(range(count))

    async def take_on() -> None:
        for _ in left:
            one = delivery()
            reply = await receiver.receive(Postback("POST", None, {"Content-Type": "application/json"}, one.body))
            if reply.status != 204:
                raise RuntimeError(reply)

    await asyncio.gather(*(take_on() for _ in range(64)))


def _grown(measure: Callable[[int], Awaitable[float]], many: int, few: int, effort: Effort) -> Costs:
    """Measure many, beside few as often as makes as many."""
    many, few = effort.of(many, least=200), effort.of(few, least=20)

    async def measured() -> Costs:
        await measure(few)
        times = max(3, min(30, many // few))
        ours = await measure(many)
        return Costs(ours, sum([await measure(few) for _ in range(times)]) / times)

    return asyncio.run(measured())


def _memory(effort: Effort) -> Costs:
    """Let so many wait; return by how many bytes the process has grown."""
    if not Path("/proc/self/statm").exists():
        raise UnavailableError("this system does not say what memory is in use")
    return Costs(asyncio.run(_grown_bytes(effort.of(WAITING))), _MEMORY_BYTES, "B")


async def _grown_bytes(count: int) -> float:
    with _file() as path:
        async with Receiver(_router(), tokens=None, inbox=SqliteInbox(path), concurrency=0) as receiver:
            # What is allocated once is no growth.
            await _take(receiver, 1_000)
            before = _resident()
            await _take(receiver, count)
            return max(0.0, float(_resident() - before))


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()


# --- at scale ---------------------------------------------------------------------------------------------


async def _filled(path: Path, done: int, waiting: int) -> None:
    """Make a file that holds so many."""
    async with SqliteInbox(path):
        pass
    with closing(sqlite3.connect(path)) as connection:
        now = time.time()
        connection.executemany(
            "INSERT INTO deliveries (key, body, received_at, appended_at, due_at, updated_at, state, event_key)"
            " VALUES (?, x'', ?, ?, ?, ?, 2, ?)",
            ((os.urandom(32).hex(), now, now, now, now, f"text:{number}:SENT") for number in range(done)),
        )
        rows = (delivery() for _ in range(waiting))
        connection.executemany(_INSERT, ((one.key, one.body, one.content_type, now, now, now, now) for one in rows))
        connection.commit()


async def _append_one(inbox: SqliteInbox) -> None:
    await inbox.append(delivery())


async def _claim_some(inbox: SqliteInbox) -> None:
    for lease in await inbox.claim(16, lease=60.0):
        await inbox.release(lease)


def _at_scale(work: Callable[[SqliteInbox], Awaitable[None]], effort: Effort) -> Costs:
    """Do something with a large inbox and a small one, in turns."""

    async def measured() -> Costs:
        with _file() as large, _file() as small:
            await _filled(large, effort.of(DONE), effort.of(WAITING))
            await _filled(small, 0, FEW)
            async with SqliteInbox(large) as ours, SqliteInbox(small) as other:
                return await compare_async(lambda: work(ours), lambda: work(other), effort, clock=time.perf_counter)

    return asyncio.run(measured())


_SCALE = f"with {DONE:,} done and {WAITING:,} waiting"
_SMALL = f"with {FEW:,} waiting"

ROWS = (
    Row("appending, 64 at once", "one commit for each row", 8.0, partial(_appending, 64, 1), "higher"),
    Row("appending, one at a time", "one commit for each row", 1.5, partial(_appending, 1, 1)),
    Row(
        "appending, 256 at once", "a bare loop that commits 100 at a time", 0.6, partial(_appending, 256, 100), "higher"
    ),
    Row("claiming, parsing, dispatching and acking, in JSON", "parsing and dispatching alone", 3.5, _working),
    Row(f"the memory that {WAITING:,} waiting deliveries take", "20 MB", 1.0, _memory),
    Row(f"appending {_SCALE}", _SMALL, 1.3, partial(_at_scale, _append_one)),
    Row(f"claiming and releasing 16 {_SCALE}", _SMALL, 1.3, partial(_at_scale, _claim_some)),
    *(
        Row(f"{what} {many:,}, for each", f"{few:,}, for each", 1.3, partial(_grown, measure, many, few))
        for what, measure in (("taking in", _taken), ("working through", _worked))
        for few, many in itertools.pairwise(SIZES)
    ),
)
