"""
The caller's connections with an open transaction: those of asyncpg, psycopg and SQLAlchemy.

psycopg and SQLAlchemy are not imported: a connection of theirs exists only if the caller has imported them.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import asyncpg
from attrs import field, frozen

__all__ = ["Statement", "fetch_in_transaction", "sqlstate_of"]

_EXPECTED = (
    "connection must be an asyncpg.Connection, a psycopg.AsyncConnection, or SQLAlchemy's AsyncConnection or"
    " AsyncSession"
)
_NO_TRANSACTION = (
    "connection has no open transaction: call complete_in inside 'async with connection.transaction()', or inside"
    " 'async with engine.begin()' with SQLAlchemy, without AUTOCOMMIT"
)
# psycopg.pq.TransactionStatus.IDLE
_IDLE = 0


@frozen
class Statement:
    """A statement with one result. Its text has the names of the values in braces."""

    text: str
    values: dict[str, object] = field(repr=False)

    @property
    def numbered(self) -> tuple[str, tuple[object, ...]]:
        """The statement for asyncpg."""
        placeholders = {name: f"${number}" for number, name in enumerate(self.values, 1)}
        return self.text.format_map(placeholders), tuple(self.values.values())

    @property
    def named(self) -> tuple[str, dict[str, object]]:
        """The statement for psycopg."""
        return self.text.format_map({name: f"%({name})s" for name in self.values}), self.values


Fetch: TypeAlias = Callable[[Any, Statement], Awaitable[object]]


async def fetch_in_transaction(connection: object, statement: Statement) -> object:
    """
    Execute a statement in the open transaction of a connection, and return its result.

    Exceptions of the driver are raised unchanged, because the connection is the caller's.

    Raises:
        TypeError: *connection* is of another type.
        RuntimeError: No transaction is open.
        ValueError: The connection is not to PostgreSQL.
    """
    for is_supported, fetch in _LIBRARIES:
        if is_supported(connection):
            return await fetch(connection, statement)
    raise TypeError(f"{_EXPECTED}, not {type(connection).__name__}")


def sqlstate_of(error: BaseException) -> str | None:
    """Return PostgreSQL's error code in an exception of a driver, also if SQLAlchemy has wrapped it."""
    return getattr(getattr(error, "orig", error), "sqlstate", None)


# --- asyncpg ----------------------------------------------------------------------------------------------


def _is_asyncpg(connection: object) -> bool:
    return isinstance(connection, asyncpg.Connection | asyncpg.pool.PoolConnectionProxy)


async def _fetch_asyncpg(connection: Any, statement: Statement) -> object:
    _check_transaction(connection)
    text, values = statement.numbered
    return await connection.fetchval(text, *values)


# --- psycopg ----------------------------------------------------------------------------------------------


def _is_psycopg(connection: object) -> bool:
    return _is_instance(connection, "psycopg", "AsyncConnection")


async def _fetch_psycopg(connection: Any, statement: Statement) -> object:
    _check_transaction(connection)
    # Not connection.cursor(), whose class and rows the caller may have replaced.
    async with sys.modules["psycopg"].AsyncCursor(connection, row_factory=lambda _: tuple) as cursor:
        await cursor.execute(*statement.named)
        (value,) = await cursor.fetchone()
        return value


# --- SQLAlchemy -------------------------------------------------------------------------------------------


def _is_sqlalchemy(connection: object) -> bool:
    return _is_instance(connection, "sqlalchemy.ext.asyncio", "AsyncConnection")


def _is_session(connection: object) -> bool:
    return _is_instance(connection, "sqlalchemy.ext.asyncio", "AsyncSession", "async_scoped_session")


async def _fetch_session(session: Any, statement: Statement) -> object:
    return await _fetch_sqlalchemy(await session.connection(), statement)


async def _fetch_sqlalchemy(connection: Any, statement: Statement) -> object:
    """Execute the statement through SQLAlchemy, which logs it and wraps exceptions as it does for other statements."""
    driver = (await connection.get_raw_connection()).driver_connection
    if not (_is_asyncpg(driver) or _is_psycopg(driver)):
        raise TypeError(f"{_EXPECTED}, over asyncpg or psycopg, not over {type(driver).__module__.partition('.')[0]}")
    if not _is_in_transaction(driver):
        # SQLAlchemy begins the transaction with its first statement, unless the isolation level is AUTOCOMMIT.
        await connection.exec_driver_sql("SELECT 1")
    _check_transaction(driver)
    text_and_values = statement.numbered if _is_asyncpg(driver) else statement.named
    return (await connection.exec_driver_sql(*text_and_values)).scalar_one()


# --- all --------------------------------------------------------------------------------------------------

_LIBRARIES: tuple[tuple[Callable[[object], bool], Fetch], ...] = (
    (_is_asyncpg, _fetch_asyncpg),
    (_is_psycopg, _fetch_psycopg),
    (_is_sqlalchemy, _fetch_sqlalchemy),
    (_is_session, _fetch_session),
)


def _is_instance(value: object, module: str, *names: str) -> bool:
    return module in sys.modules and isinstance(value, tuple(getattr(sys.modules[module], name) for name in names))


def _check_transaction(connection: Any) -> None:
    if not _is_in_transaction(connection):
        raise RuntimeError(_NO_TRANSACTION)


def _is_in_transaction(connection: Any) -> bool:
    """Return whether a statement is part of a transaction that the caller ends."""
    if _is_asyncpg(connection):
        return bool(connection.is_in_transaction())
    # Without autocommit, psycopg begins a transaction with the statement.
    return not connection.autocommit or connection.info.transaction_status != _IDLE
