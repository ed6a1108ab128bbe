"""Connections to PostgreSQL: pool, timeouts and error mapping."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar
from weakref import WeakValueDictionary

from callfire_async.errors import InboxError

try:
    import asyncpg
except ImportError as error:
    raise ImportError("PostgresInbox needs asyncpg: pip install 'callfire-async[postgres]'") from error

# isort: split
from callfire_async.notifications.inbox.postgres._errors import DRIVER_ERRORS, map_error
from callfire_async.notifications.inbox.postgres._hosts import HostConnector
from callfire_async.notifications.inbox.postgres._source import server_name

T = TypeVar("T")

if TYPE_CHECKING:
    Pool: TypeAlias = asyncpg.Pool[Any]
    Connection: TypeAlias = asyncpg.Connection[Any] | asyncpg.pool.PoolConnectionProxy[Any]
else:  # generic only in their stubs
    Pool = asyncpg.Pool
    Connection = asyncpg.Connection
Row: TypeAlias = asyncpg.Record
Work: TypeAlias = Callable[[Connection], Awaitable[T]]

# One for the claim, one for the append in flight, the others for settlements.
_MAX_CONNECTIONS = 8
# A conflict with another transaction is over at the second or third attempt.
_MAX_ATTEMPTS = 5
_MAX_CLOSE_SECONDS = 1.0

# By default PostgreSQL keeps plans that it made while the tables were empty. Concurrent statements fail if the default
# isolation level of the database is serializable; they lock what they depend on.
_SETTINGS = "SET plan_cache_mode = force_custom_plan; SET default_transaction_isolation = 'read committed'"

# The statement had no effect: a conflict with another transaction, or the server has become a replica.
_CONFLICTS = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError, asyncpg.ReadOnlySQLTransactionError)
# The statement may have been executed: the server was stopped, or the connection was dead.
_CONNECTION_LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    ConnectionError,
)


class PostgresPool:
    """
    A pool of connections to a server.

    Args:
        source: The server's URL, or the caller's pool, which is not closed here.
        timeout: Seconds for any operation, including the wait for a connection.
    """

    def __init__(self, source: str | Pool, *, timeout: float) -> None:
        self._source = source
        #: The server's name in messages.
        self.server = server_name(source)
        self._timeout = timeout
        self._pool: Pool | None = None
        self._is_pooled = False
        self._connector = HostConnector(source, timeout)
        #: The connections of the own pool by the process IDs of their sessions, and how many operations use each.
        self._opened: WeakValueDictionary[int, asyncpg.Connection[Any]] = WeakValueDictionary()
        self._users: Counter[int] = Counter()

    @property
    def timeout(self) -> float:
        """Seconds for any operation."""
        return self._timeout

    # --- lifecycle ----------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Create the pool; it connects with the first operation."""
        if not isinstance(self._source, str):
            self._pool = self._source
            return
        # No reset: nothing that an operation leaves in a session affects the next one.
        self._pool = await asyncpg.create_pool(
            self._source, min_size=0, max_size=_MAX_CONNECTIONS, connect=self._open_connection, reset=_no_reset
        )

    async def _open_connection(self, *arguments: Any, **options: Any) -> asyncpg.Connection[Any]:
        connection = await self._connect(*arguments, **options)
        self._opened[connection.get_server_pid()] = connection
        return connection

    async def _connect(self, *arguments: Any, **options: Any) -> asyncpg.Connection[Any]:
        """Connect, with prepared statements unless a pooler may assign each transaction to another session."""
        # As it is now: another call may detect a pooler while this one connects with prepared statements.
        if is_known := self._is_pooled:
            options["statement_cache_size"] = 0
        connection = await self._connector.connect(*arguments, **options)
        if is_known:
            return connection
        try:
            if await is_pooled(connection):
                self._is_pooled = True
            else:
                await connection.execute(_SETTINGS)
                return connection
        except BaseException:
            connection.terminate()
            raise
        await connection.close()
        return await self._connect(*arguments, **options)

    async def close(self) -> None:
        """Close the pool within a second, unless it is the caller's."""
        pool, self._pool = self._pool, None
        if pool is not None and pool is not self._source:
            # If the server does not respond, asyncpg terminates the connections when the timeout cancels it.
            with suppress(TimeoutError):
                async with asyncio.timeout(min(self._timeout, _MAX_CLOSE_SECONDS)):
                    await pool.close()

    def check_open(self) -> Pool:
        """Return the pool; raise `InboxError` if it is not open."""
        if self._pool is None:
            raise InboxError("this inbox is not open; use it inside 'async with'")
        return self._pool

    # --- calls --------------------------------------------------------------------------------------------

    async def fetch(self, statement: str, *arguments: object, repeatable: bool = False) -> list[Row]:
        """
        Execute a statement in a transaction of its own.

        Args:
            statement: The statement.
            arguments: The values of its parameters.
            repeatable: Whether to execute the statement again if its outcome is unknown.

        Raises:
            InboxUnavailableError: The server cannot be reached, does not respond in time, or fails. The statement may
                have been executed.
            InboxError: The server refuses the statement, or the URL is invalid.
        """
        retried = (*_CONFLICTS, *_CONNECTION_LOST) if repeatable else _CONFLICTS
        return await self._run(lambda connection: connection.fetch(statement, *arguments), retried)

    async def fetch_each(self, statement: str, rows: Sequence[Sequence[object]]) -> list[Row]:
        """Execute a statement with each of several rows of values, in one transaction; raise the errors of `fetch`."""
        return await self._run(lambda connection: connection.fetchmany(statement, rows), _CONFLICTS)

    async def run(self, work: Work[T]) -> T:
        """Run a function with a connection, again after a conflict; raise the errors of `fetch`."""
        return await self._run(work, _CONFLICTS)

    async def _run(self, work: Work[T], retried: tuple[type[Exception], ...]) -> T:
        try:
            async with asyncio.timeout(self._timeout):
                return await self._run_with_retry(work, retried)
        except DRIVER_ERRORS as error:
            if isinstance(error, TimeoutError):
                self._terminate_unused()
            mapped = map_error(error, self.server, self._timeout)
            raise mapped from mapped.__cause__

    async def _run_with_retry(self, work: Work[T], retried: tuple[type[Exception], ...]) -> T:
        for _ in range(_MAX_ATTEMPTS - 1):
            with suppress(*retried):
                return await self._run_once(work)
        return await self._run_once(work)

    async def _run_once(self, work: Work[T]) -> T:
        pool = self.check_open()
        connection = await pool.acquire()
        pid = connection.get_server_pid()
        self._users[pid] += 1
        try:
            return await work(connection)
        except (asyncio.CancelledError, asyncpg.InternalClientError, asyncpg.ReadOnlySQLTransactionError) as error:
            # A late response would be taken for the next statement's, and a replica's URL may lead to the new primary.
            connection.terminate()
            if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
                self._connector.forget()
            raise
        finally:
            await pool.release(connection)
            self._users -= Counter([pid])

    def _terminate_unused(self) -> None:
        """Terminate idle connections: their server may be lost, and each would cost the time of another operation."""
        for pid, connection in list(self._opened.items()):
            if not self._users[pid]:
                connection.terminate()

    @asynccontextmanager
    async def own_connection(self) -> AsyncIterator[Connection | None]:
        """Yield a connection for the caller alone, then terminate it; None if the caller's pool has only one."""
        connection: Connection
        if isinstance(self._source, str):
            connection = await self._connector.connect(self._source, timeout=self._timeout, statement_cache_size=0)
        elif self._source.get_max_size() > 1:
            connection = await self._source.acquire(timeout=self._timeout)
        else:
            yield None
            return
        try:
            yield connection
        finally:
            # Not released: it may still listen. The pool replaces it if needed.
            connection.terminate()


async def is_pooled(connection: Connection, *, timeout: float | None = None) -> bool:
    """
    Return whether a pooler assigns sessions to this connection: prepared statements and LISTEN would be lost.

    A pooler invents the process ID that it sends to its clients. The check prepares no statement itself.
    """
    count = await connection.execute(f"SELECT WHERE pg_backend_pid() = {connection.get_server_pid()}", timeout=timeout)
    return count == "SELECT 0"


async def _no_reset(connection: Connection) -> None:
    """Do nothing."""
