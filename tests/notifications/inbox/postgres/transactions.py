"""The libraries whose transactions `complete_in` accepts: how each opens one, and executes a statement in it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import asyncpg
import psycopg
from attrs import frozen
from psycopg.rows import dict_row
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.ext.asyncio import create_async_engine as make_engine
from sqlalchemy.pool import NullPool


@frozen
class Library:
    """How to use a library."""

    #: Opens a connection with a transaction, which is committed at the end, or rolled back by an exception.
    begin: Callable[..., AbstractAsyncContextManager[Any]]
    #: Opens a connection that commits each statement.
    autocommit: Callable[[str], AbstractAsyncContextManager[Any]]
    execute: Callable[[Any, str], Awaitable[object]]


def engine(dsn: str, driver: str, **options: Any) -> AsyncEngine:
    async def connect() -> Any:
        if driver == "asyncpg":
            return await asyncpg.connect(dsn, statement_cache_size=0)
        return await psycopg.AsyncConnection.connect(dsn, prepare_threshold=None)

    return make_engine(f"postgresql+{driver}://", async_creator=connect, poolclass=NullPool, **options)


# --- asyncpg ----------------------------------------------------------------------------------------------


@asynccontextmanager
async def asyncpg_connection(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(dsn, statement_cache_size=0)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def asyncpg_transaction(dsn: str, isolation: str = "read committed") -> AsyncIterator[Any]:
    async with asyncpg_connection(dsn) as connection, connection.transaction(isolation=isolation.replace(" ", "_")):
        yield connection


@asynccontextmanager
async def asyncpg_pool_connection(dsn: str) -> AsyncIterator[Any]:
    async with asyncpg.create_pool(dsn, min_size=0, statement_cache_size=0) as pool, pool.acquire() as connection:
        yield connection


@asynccontextmanager
async def asyncpg_pool_transaction(dsn: str, isolation: str = "read committed") -> AsyncIterator[Any]:
    async with (
        asyncpg_pool_connection(dsn) as connection,
        connection.transaction(isolation=isolation.replace(" ", "_")),
    ):
        yield connection


# --- psycopg ----------------------------------------------------------------------------------------------


@asynccontextmanager
async def psycopg_transaction(dsn: str, isolation: str = "read committed") -> AsyncIterator[Any]:
    # Rows and cursors of the caller's choice.
    connection = await psycopg.AsyncConnection.connect(
        dsn, row_factory=dict_row, cursor_factory=psycopg.AsyncRawCursor, prepare_threshold=None
    )
    await connection.set_isolation_level(psycopg.IsolationLevel[isolation.upper().replace(" ", "_")])
    async with connection:
        yield connection


@asynccontextmanager
async def psycopg_autocommit(dsn: str) -> AsyncIterator[Any]:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True, prepare_threshold=None) as connection:
        yield connection


@asynccontextmanager
async def psycopg_block(dsn: str, isolation: str = "read committed") -> AsyncIterator[Any]:
    async with psycopg_autocommit(dsn) as connection:
        await connection.set_isolation_level(psycopg.IsolationLevel[isolation.upper().replace(" ", "_")])
        async with connection.transaction():
            yield connection


# --- SQLAlchemy -------------------------------------------------------------------------------------------


def sqlalchemy(driver: str, *, session: Callable[[AsyncEngine], Any] | None) -> Library:
    def opened(source: AsyncEngine) -> Any:
        return source.connect() if session is None else session(source)

    @asynccontextmanager
    async def begin(dsn: str, isolation: str = "read committed") -> AsyncIterator[Any]:
        source = engine(dsn, driver, isolation_level=isolation.upper())
        async with opened(source) as connection, connection.begin():
            yield connection

    @asynccontextmanager
    async def autocommit(dsn: str) -> AsyncIterator[Any]:
        async with opened(engine(dsn, driver, isolation_level="AUTOCOMMIT")) as connection:
            yield connection

    return Library(begin, autocommit, lambda connection, statement: connection.execute(text(statement)))


@asynccontextmanager
async def scoped_session(source: AsyncEngine) -> AsyncIterator[Any]:
    session = async_scoped_session(async_sessionmaker(source), scopefunc=lambda: None)
    try:
        yield session
    finally:
        await session.remove()


def execute(connection: Any, statement: str) -> Awaitable[object]:
    return connection.execute(statement)


LIBRARIES = {
    "asyncpg": Library(asyncpg_transaction, asyncpg_connection, execute),
    "asyncpg-pool": Library(asyncpg_pool_transaction, asyncpg_pool_connection, execute),
    "psycopg": Library(psycopg_transaction, psycopg_autocommit, execute),
    "psycopg-block": Library(psycopg_block, psycopg_autocommit, execute),
    "sqlalchemy-asyncpg": sqlalchemy("asyncpg", session=None),
    "sqlalchemy-psycopg": sqlalchemy("psycopg", session=None),
    "session-asyncpg": sqlalchemy("asyncpg", session=AsyncSession),
    "session-psycopg": sqlalchemy("psycopg", session=AsyncSession),
    "scoped-session": sqlalchemy("asyncpg", session=scoped_session),
}
