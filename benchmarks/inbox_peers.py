"""
Storing deliveries, compared with knockerlite: a webhook inbox in a SQLite file, with a core in Rust.

It sets ``synchronous=NORMAL``, with which a power failure loses commits. It is measured with FULL, as ours.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.rows import Clock, Costs, Effort, Row, compare_async
from benchmarks.sqlite import delivery
from callfire_async.notifications import SqliteInbox

_MANY = 256


def _open_knocker(path: Path) -> Callable[[], None]:
    """Return a function that stores a new delivery, with a handler that is never called."""
    import knocker  # noqa: PLC0415  # installed in an environment of its own

    app: Any = knocker.open(str(path))
    app.add_endpoint(name="callfire", path="/callfire")
    app.add_handler(endpoint="callfire", handler=lambda event, tx: None)  # noqa: ARG005  # part of the signature
    with app.db.transaction() as transaction:
        # The setting cannot be changed inside a transaction, and there is no other access to the connection.
        for statement in ("COMMIT", "PRAGMA synchronous = FULL", "BEGIN IMMEDIATE"):
            transaction.query(statement, [])

    def receive() -> None:
        new = delivery()
        headers = {"content-type": new.content_type}
        app.receive(endpoint="callfire", body=new.body, headers=headers, dedupe_key=new.key)

    return receive


def _append(concurrency: int, clock: Clock, effort: Effort) -> Costs:
    return asyncio.run(_compare_appends(concurrency, clock, effort))


async def _compare_appends(concurrency: int, clock: Clock, effort: Effort) -> Costs:
    with tempfile.TemporaryDirectory() as directory:
        receive = _open_knocker(Path(directory) / "knocker.db")
        async with SqliteInbox(Path(directory) / "inbox.db") as inbox:

            async def ours() -> None:
                await asyncio.gather(*(inbox.append(delivery()) for _ in range(concurrency)))

            async def theirs() -> None:
                receive()

            costs = await compare_async(ours, theirs, effort, clock=clock)
    return Costs(costs.ours / concurrency, costs.baseline)


def rows() -> tuple[Row, ...]:
    """Return the rows; the library must be installed."""
    peer = f"knockerlite {version('knockerlite')}, one at a time, `synchronous=FULL`"
    many = partial(_append, _MANY, time.perf_counter)
    return (
        Row("`SqliteInbox.append`, one at a time, CPU time", peer, 1.0, partial(_append, 1, time.process_time)),
        Row("`SqliteInbox.append`, one at a time, elapsed time", peer, 1.1, partial(_append, 1, time.perf_counter)),
        Row(f"`SqliteInbox.append`, {_MANY} concurrent, per second", peer, 5.0, many, "higher"),
    )
