"""
Connections to a PostgreSQL: whose they are, how long anything may take, and what comes out when it fails.

It imports `errors`. Nothing else imports asyncpg.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from callfire_async.errors import InboxError, InboxUnavailableError

try:
    import asyncpg
except ImportError as error:
    raise ImportError("PostgresInbox needs asyncpg: pip install 'callfire-async[postgres]'") from error

T = TypeVar("T")

if TYPE_CHECKING:
    Pool: TypeAlias = asyncpg.Pool[Any]
    Connection: TypeAlias = asyncpg.Connection[Any] | asyncpg.pool.PoolConnectionProxy[Any]
else:  # generic only in their stubs
    Pool = asyncpg.Pool
    Connection = asyncpg.Connection
Row: TypeAlias = asyncpg.Record
Work: TypeAlias = Callable[[Connection], Awaitable[T]]

# Whoever claims has one of them, whoever appends another; what is left settles.
_MOST_CONNECTIONS = 8
# Whoever stood in another's way comes through at the next attempt, or at the one after that.
_ATTEMPTS = 5

# They say that nothing has happened: two stood in each other's way, or the server has become the copy of another.
_INNOCENT = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError, asyncpg.ReadOnlySQLTransactionError)
# They say that nobody knows what has: the server was stopped, or an old connection was found to be dead.
_LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    ConnectionError,
)
_RAISED = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, ValueError)
# What a statement can be told without anything being wrong with the server: of features, data, constraints, syntax or
# rights, and limits. The words of those with data and constraints quote what was to be stored.
_OF_THE_STATEMENT = ("0A", "22", "23", "42", "54")
_QUOTING = ("22", "23", "54")


class PostgresPool:
    """
    A pool of connections to a server.

    Args:
        source: The server's address, for a pool of our own; or a pool of the caller's, which is not closed here.
        timeout: Seconds for anything as a whole, waiting for a connection included.
    """

    def __init__(self, source: str | Pool, *, timeout: float) -> None:
        self._source = source
        self._timeout = timeout
        self._pool: Pool | None = None

    # --- lifecycle ----------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Make the pool; it connects when something is asked of it."""
        if not isinstance(self._source, str):
            self._pool = self._source
            return
        # No statement is kept, and there is nothing to reset: what stands between the server and us may give each
        # transaction to another session.
        self._pool = await asyncpg.create_pool(
            self._source, min_size=0, max_size=_MOST_CONNECTIONS, statement_cache_size=0, reset=_no_reset
        )

    async def close(self) -> None:
        """Close the pool, unless it is the caller's; in bounded time."""
        pool, self._pool = self._pool, None
        if pool is not None and pool is not self._source:
            # A server that is silent takes no leave; asyncpg ends by force what it cannot close in time.
            with suppress(TimeoutError):
                async with asyncio.timeout(self._timeout):
                    await pool.close()

    # --- asking -------------------------------------------------------------------------------------------

    async def fetch(self, statement: str, *arguments: object, repeatable: bool = False) -> list[Row]:
        """
        Carry out a statement, which is a transaction by itself.

        Args:
            statement: The statement.
            arguments: What its parameters are.
            repeatable: Whether it may be carried out again where it is not known whether it was.

        Raises:
            InboxUnavailableError: The server cannot be reached, does not answer in time, or fails. It may have done
                what it was told all the same.
            InboxError: The server refuses what it was told, or the address cannot be read.
        """
        again = (*_INNOCENT, *_LOST) if repeatable else _INNOCENT
        return await self._run(lambda connection: connection.fetch(statement, *arguments), again)

    async def run(self, work: Work[T]) -> T:
        """Do something, again from its start where it stood in another's way; raises what `fetch` does."""
        return await self._run(work, _INNOCENT)

    async def _run(self, work: Work[T], again: tuple[type[Exception], ...]) -> T:
        try:
            async with asyncio.timeout(self._timeout):
                return await self._repeat(work, again)
        except _RAISED as error:
            translated = self._map_error(error)
            raise translated from translated.__cause__

    async def _repeat(self, work: Work[T], again: tuple[type[Exception], ...]) -> T:
        for _ in range(_ATTEMPTS - 1):
            with suppress(*again):
                return await self._run_once(work)
        return await self._run_once(work)

    async def _run_once(self, work: Work[T]) -> T:
        if self._pool is None:
            raise InboxError("this inbox is not open; use it inside 'async with'")
        connection = await self._pool.acquire()
        try:
            return await work(connection)
        except (asyncio.CancelledError, asyncpg.InternalClientError, asyncpg.ReadOnlySQLTransactionError):
            # What it was told may be under way, and its answer may never come, or not be understood; and what the
            # address stands for may be another server by now.
            connection.terminate()
            raise
        finally:
            await self._pool.release(connection)

    @asynccontextmanager
    async def own_connection(self) -> AsyncIterator[Connection | None]:
        """Yield a connection that nobody else has, and end it; None where the caller's pool has but one."""
        connection: Connection
        if isinstance(self._source, str):
            connection = await asyncpg.connect(self._source, timeout=self._timeout, statement_cache_size=0)
        elif self._source.get_max_size() > 1:
            connection = await self._source.acquire(timeout=self._timeout)
        else:
            yield None
            return
        try:
            yield connection
        finally:
            # Not handed back: it may listen still. A pool makes another when it needs one.
            connection.terminate()

    def _map_error(self, error: Exception) -> InboxError:
        """Word what has failed, without what was to be stored and without the address, which holds a password."""
        if isinstance(error, asyncpg.PostgresError):
            return _map_server_error(error)
        if isinstance(error, ValueError):
            refused = InboxError(f"PostgreSQL's driver refuses this ({type(error).__name__})")
            # Its own words quote what was refused.
            refused.__cause__ = None
            return refused
        words = f"no answer within {self._timeout:g} s" if isinstance(error, TimeoutError) else str(error)
        unavailable = InboxUnavailableError(f"PostgreSQL cannot be used: {words}")
        unavailable.__cause__ = error
        return unavailable


def _map_server_error(error: asyncpg.PostgresError) -> InboxError:
    code = error.sqlstate or ""
    words = type(error).__name__ if code[:2] in _QUOTING else error.args[0]
    translated = (
        InboxError(f"PostgreSQL refuses this: {words}")
        if code[:2] in _OF_THE_STATEMENT
        else InboxUnavailableError(f"PostgreSQL cannot be used: {words}")
    )
    translated.__cause__ = None if code[:2] in _QUOTING else error
    return translated


async def _no_reset(connection: Connection) -> None:
    """Leave a connection as it is."""
