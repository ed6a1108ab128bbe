"""What goes wrong during a run: killed workers, crashes of the server, leases that are cut short, clock changes."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg
from engines.postgres import PostgresServer
from notifications.crash.exactly_once import worker_process
from notifications.crash.exactly_once.worker_process import HANDLERS, LIBRARIES, WorkerSettings
from notifications.crash.processes import Processes, ReceiverProcess

from callfire_async.notifications.inbox import Delivery
from callfire_async.notifications.inbox.postgres import PostgresInbox

PROCESSES = 4
CLOCK_CHANGES = (-3600, 3600)
# The time without progress after which a run has failed; a crash of the server and new processes take a few seconds.
DEADLINE = 120.0
_CONNECTION_LOST = (asyncpg.InterfaceError, asyncpg.PostgresConnectionError, asyncpg.CannotConnectNowError)

# First in the search path of the inboxes, this function adds the change to the server's own time.
_TABLES = """
    CREATE TABLE effects (event bigint NOT NULL, handler text NOT NULL);
    CREATE TABLE outbox (id bigint GENERATED ALWAYS AS IDENTITY, event bigint NOT NULL, handler text NOT NULL);
    CREATE SCHEMA shifted;
    CREATE TABLE shifted.clock (seconds float8 NOT NULL);
    INSERT INTO shifted.clock VALUES (0);
    CREATE FUNCTION shifted.statement_timestamp() RETURNS timestamptz STABLE LANGUAGE sql AS $$
        SELECT pg_catalog.statement_timestamp() + pg_catalog.make_interval(secs => seconds) FROM shifted.clock
    $$;
"""
_CUT_LEASES = """
    UPDATE callfire.deliveries SET due_at = now() - interval '1 day' WHERE id IN (
        SELECT id FROM callfire.deliveries WHERE state = 1 ORDER BY random() LIMIT 2
    )"""


class Run:
    """
    A server, a number of events in its inbox, and workers that handle them.

    Args:
        server: A server of its own.
        events: The number of events.
        rng: The source of all random choices.
        options: Settings of the workers.
    """

    def __init__(self, server: PostgresServer, events: int, rng: random.Random, **options: Any) -> None:
        self._server = server
        self._events = events
        self._rng = rng
        self._options = options
        self._running: list[ReceiverProcess] = []
        self.processes = Processes(self._settings(), worker_process.__file__)
        self.kills = self.crashes = self.cuts = self.clock_changes = 0

    def _settings(self) -> WorkerSettings:
        return WorkerSettings(
            f"{self._server.dsn()}&search_path=shifted,pg_catalog",
            self._server.dsn(),
            library=self._rng.choice(list(LIBRARIES)),
            **self._options,
        )

    # --- beginning and end --------------------------------------------------------------------------------

    async def prepare(self) -> None:
        """Create the tables, and append the events."""
        self._server.execute(_TABLES)
        async with PostgresInbox(self._server.dsn()) as inbox:
            for first in range(0, self._events, 500):
                numbers = range(first, min(first + 500, self._events))
                await inbox.append_many([Delivery(_body(number), "application/json") for number in numbers])

    async def handle(self, *, kills: int, crashes: int) -> None:
        """Handle all events, while workers are killed and the server crashes at random moments."""
        moments = [(self._moment(), self._kill_one) for _ in range(kills)]
        moments += [(self._moment(), self._crash_server) for _ in range(crashes)]
        self._running = [await self._start() for _ in range(PROCESSES)]
        async with self._repeatedly(self._cut_leases, 0.2), self._repeatedly(self._change_clock, 2.0):
            for moment, disturb in sorted(moments, key=lambda pair: pair[0]):
                await self._wait_until_handled(moment)
                await disturb()
        await self._finish()

    def _moment(self) -> int:
        """Return a number of handled events at which something happens."""
        return self._rng.randrange(self._events * 9 // 10)

    async def _finish(self) -> None:
        """Let all leases expire, and replay dead letters until every delivery is done."""
        await self._execute("UPDATE shifted.clock SET seconds = 2 * 3600")
        progress = _Progress()
        async with PostgresInbox(self._server.dsn()) as inbox:
            while (stats := await inbox.stats()).done < self._events:
                await inbox.replay()
                await progress.wait(stats.done)

    # --- what goes wrong ----------------------------------------------------------------------------------

    async def _start(self) -> ReceiverProcess:
        self.processes.settings = self._settings()
        return await self.processes.start()

    async def _kill_one(self) -> None:
        # Without the pause, each kill would directly follow a commit.
        await asyncio.sleep(self._rng.uniform(0, 0.05))
        await self._running.pop(self._rng.randrange(PROCESSES)).kill()
        self._running.append(await self._start())
        self.kills += 1

    async def _crash_server(self) -> None:
        await asyncio.to_thread(self._server.stop, immediate=True)
        await asyncio.to_thread(self._server.start)
        self.crashes += 1

    async def _cut_leases(self) -> None:
        self.cuts += int((await self._execute(_CUT_LEASES)).split()[1])

    async def _change_clock(self) -> None:
        """Change the clock by an hour for a moment: all leases expire, or nothing is due."""
        for seconds in (self._rng.choice(CLOCK_CHANGES), 0):
            await self._execute(f"UPDATE shifted.clock SET seconds = {seconds}")
            await asyncio.sleep(self._rng.uniform(0, 0.2))
        self.clock_changes += 1

    @asynccontextmanager
    async def _repeatedly(self, disturb: Callable[[], Awaitable[None]], interval: float) -> AsyncIterator[None]:
        async def repeat() -> None:
            while True:
                await asyncio.sleep(self._rng.uniform(0, 2 * interval))
                await disturb()

        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(repeat())
            yield
            task.cancel()

    # --- the server ---------------------------------------------------------------------------------------

    async def _wait_until_handled(self, events: int) -> None:
        progress = _Progress()
        while (handled := await self.fetchval("SELECT count(*) FROM callfire.deliveries WHERE state = 2")) < events:
            await progress.wait(handled)

    async def wait_until_empty(self, table: str) -> None:
        """Wait until a table has no rows."""
        progress = _Progress()
        while rows := await self.fetchval(f"SELECT count(*) FROM {table}"):
            await progress.wait(rows)

    async def _execute(self, statement: str) -> str:
        return await self._with_connection(lambda connection: connection.execute(statement))

    async def fetchval(self, statement: str) -> Any:
        return await self._with_connection(lambda connection: connection.fetchval(statement))

    async def _with_connection(self, work: Callable[[asyncpg.Connection], Awaitable[Any]]) -> Any:
        """Run a function with a connection of its own; again if the server has crashed."""
        while True:
            with suppress(OSError, *_CONNECTION_LOST):
                connection = await asyncpg.connect(self._server.dsn())
                try:
                    return await work(connection)
                finally:
                    connection.terminate()
            await asyncio.sleep(0.1)

    # --- results ------------------------------------------------------------------------------------------

    async def missing(self) -> int:
        """Return how many of the expected rows do not exist."""
        distinct = await self.fetchval("SELECT count(*) FROM (SELECT DISTINCT event, handler FROM effects) AS rows")
        return len(HANDLERS) * self._events - int(distinct)

    async def duplicates(self) -> int:
        """Return how many rows repeat another one."""
        return int(await self.fetchval("SELECT count(*) - count(DISTINCT (event, handler)) FROM effects"))

    async def expired(self) -> int:
        """Return how many leases expired."""
        return int(await self.fetchval("SELECT coalesce(sum(crashes), 0) FROM callfire.deliveries"))


class _Progress:
    """Waits while a number changes."""

    def __init__(self) -> None:
        self._last = -1
        self._deadline = 0.0

    async def wait(self, number: int) -> None:
        """Wait for a moment; raise `TimeoutError` if the number has not changed for too long."""
        now = asyncio.get_running_loop().time()
        if number != self._last:
            self._last, self._deadline = number, now + DEADLINE
        if now > self._deadline:
            raise TimeoutError(f"no progress after {number} for {DEADLINE:.0f} s")
        await asyncio.sleep(0.05)


@asynccontextmanager
async def prepared(server: PostgresServer, events: int, rng: random.Random, **options: Any) -> AsyncIterator[Run]:
    """Yield a run with its events appended; kill its workers at the end."""
    run = Run(server, events, rng, **options)
    await run.prepare()
    try:
        yield run
    finally:
        await run.processes.kill_all()


def _body(number: int) -> bytes:
    return b'{"TextSent": {"SubscriptionId": 7, "Text": {"@id": %d, "Message": "x"}}}' % number
