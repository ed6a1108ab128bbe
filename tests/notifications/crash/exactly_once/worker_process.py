"""
A worker in a process of its own, whose two handlers insert rows into a table in the inbox's database.

Its only argument is its settings as JSON. It prints ``starting`` and ``ready``, and exits when its standard input is
closed, because the parent process is gone then.
"""

import asyncio
import json
import logging
import random
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import asyncpg
from attrs import asdict, frozen
from notifications.crash.parent import exit_at_end_of_input, print_line

from callfire_async.errors import InboxUnavailableError
from callfire_async.notifications import Receiver, RetryPolicy, Router, TextFinished, current_attempt, worker
from callfire_async.notifications.inbox.postgres import PostgresInbox

Begin = Callable[[], AbstractAsyncContextManager[Any]]

HANDLERS = ("debit", "credit")
INSERT = "INSERT INTO {table} (event, handler) VALUES ({event}, '{handler}')"
MAX_CONNECTIONS = 8


@frozen
class WorkerSettings:
    """The settings of the process."""

    #: The URL for the inbox, and the one for the handlers.
    inbox: str
    database: str
    #: The library of the handlers' transactions.
    library: str = "asyncpg"
    #: The table into which the handlers insert.
    table: str = "effects"
    lease_seconds: float = 2.0
    #: Whether the handlers call `complete_in`.
    is_exactly_once: bool = True
    #: The longest pause in a handler, in seconds.
    pause: float = 0.02
    #: The probability that a handler raises before its commit, and that it does after that.
    failure_rate: float = 0.02
    listener: None = None

    def dumps(self) -> str:
        return json.dumps(asdict(self))


class SimulatedError(Exception):
    """Raised by a handler at random."""


class Handlers:
    """
    The handlers: each inserts one row.

    At random they complete before or after the insert, pause at any point, some for longer than the lease, and raise
    before or after the commit.
    """

    def __init__(self, settings: WorkerSettings, begin: Begin) -> None:
        self._settings = settings
        self._begin = begin
        self._random = random.Random()

    def router(self) -> Router:
        router = Router()
        for name in HANDLERS:
            router.on(TextFinished, name=name)(partial(self.handle, name))
        return router

    async def handle(self, handler: str, event: TextFinished) -> None:
        async with self._begin() as connection:
            steps = [partial(self.insert, connection, handler, event), partial(self.complete, connection)]
            self._random.shuffle(steps)
            for step in steps:
                await self.pause()
                await step()
            await self.pause()
            self.fail_at_random()
        self.fail_at_random()

    async def insert(self, connection: Any, handler: str, event: TextFinished) -> None:
        await execute(connection, INSERT.format(table=self._settings.table, event=event.text.id, handler=handler))

    async def complete(self, connection: Any) -> None:
        if self._settings.is_exactly_once:
            await current_attempt().complete_in(connection)

    async def pause(self) -> None:
        is_long = self._random.random() < 0.002
        longest = 1.5 * self._settings.lease_seconds if is_long else self._settings.pause
        await asyncio.sleep(self._random.uniform(0, longest))

    def fail_at_random(self) -> None:
        if self._random.random() < self._settings.failure_rate:
            raise SimulatedError


async def execute(connection: Any, statement: str) -> None:
    if not isinstance(connection, asyncpg.pool.PoolConnectionProxy):
        from sqlalchemy import text

        statement = text(statement)
    await connection.execute(statement)


# --- libraries --------------------------------------------------------------------------------------------


@asynccontextmanager
async def asyncpg_transactions(dsn: str) -> AsyncIterator[Begin]:
    async with asyncpg.create_pool(dsn, min_size=0, max_size=MAX_CONNECTIONS) as pool:

        @asynccontextmanager
        async def begin() -> AsyncIterator[Any]:
            async with pool.acquire() as connection, connection.transaction():
                yield connection

        yield begin


@asynccontextmanager
async def engine(dsn: str, driver: str) -> AsyncIterator[Any]:
    # Imported by those processes that need it, because each must start soon.
    from sqlalchemy.ext.asyncio import create_async_engine

    source = create_async_engine(dsn.replace("postgresql:", f"postgresql+{driver}:"), pool_size=MAX_CONNECTIONS)
    try:
        yield source
    finally:
        await source.dispose()


@asynccontextmanager
async def sqlalchemy_transactions(driver: str, dsn: str) -> AsyncIterator[Begin]:
    async with engine(dsn, driver) as source:
        yield source.begin


@asynccontextmanager
async def session_transactions(driver: str, dsn: str) -> AsyncIterator[Begin]:
    from sqlalchemy.ext.asyncio import AsyncSession

    async with engine(dsn, driver) as source:

        @asynccontextmanager
        async def begin() -> AsyncIterator[Any]:
            async with AsyncSession(source) as session, session.begin():
                yield session

        yield begin


LIBRARIES: dict[str, Callable[[str], AbstractAsyncContextManager[Begin]]] = {
    "asyncpg": asyncpg_transactions,
    "sqlalchemy": partial(sqlalchemy_transactions, "asyncpg"),
    "session": partial(session_transactions, "psycopg"),
    "sqlalchemy-psycopg": partial(sqlalchemy_transactions, "psycopg"),
}


# --- the process ------------------------------------------------------------------------------------------


async def work(settings: WorkerSettings) -> None:
    worker._MIN_LEASE_SECONDS = settings.lease_seconds
    print_line("starting")
    async with AsyncExitStack() as stack:
        begin = await stack.enter_async_context(LIBRARIES[settings.library](settings.database))
        stack.push_async_exit(await started(make_receiver(settings, begin)))
        print_line("ready")
        await asyncio.Event().wait()


def make_receiver(settings: WorkerSettings, begin: Begin) -> Receiver:
    return Receiver(
        Handlers(settings, begin).router(),
        tokens=None,
        inbox=PostgresInbox(settings.inbox),
        handler_timeout=settings.lease_seconds / 2,
        retry=RetryPolicy(max_attempts=1000, initial_delay=0.0),
    )


async def started(receiver: Receiver) -> Receiver:
    """Start a receiver, also if the server has crashed and is not ready yet."""
    while True:
        try:
            return await receiver.__aenter__()
        except InboxUnavailableError:
            await asyncio.sleep(0.1)


def main() -> None:
    # Failures are part of the test.
    logging.disable(logging.CRITICAL)
    exit_at_end_of_input()
    asyncio.run(work(WorkerSettings(**json.loads(sys.argv[1]))))


if __name__ == "__main__":
    main()
