"""The service's own database: what was booked, each event once."""

from __future__ import annotations

from decimal import Decimal
from types import TracebackType
from typing import Self

from sqlalchemy import BigInteger, Column, MetaData, String, Table, func, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import create_async_engine

_TABLES = MetaData()
_BOOKINGS = Table(
    "bookings",
    _TABLES,
    # The idempotency key: the database itself refuses to book an event twice.
    Column("event_key", String, primary_key=True),
    Column("broadcast_id", BigInteger, index=True),
    Column("thousandths", BigInteger, nullable=False),
)


class Ledger:
    """
    Bookings in a database.

    Args:
        url: As SQLAlchemy has it: ``sqlite+aiosqlite:///FILE`` or ``postgresql+asyncpg://…``.
    """

    def __init__(self, url: str) -> None:
        self._engine = create_async_engine(url)

    async def __aenter__(self) -> Self:
        """Make the table where it is missing."""
        async with self._engine.begin() as connection:
            await connection.run_sync(_TABLES.create_all)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self._engine.dispose()

    async def book(self, event_key: str, broadcast_id: int | None, credits: Decimal) -> None:
        """Book what an event has cost; a second time, nothing."""
        booking = insert(_BOOKINGS).values(
            event_key=event_key, broadcast_id=broadcast_id, thousandths=int(credits * 1000)
        )
        try:
            async with self._engine.begin() as connection:
                await connection.execute(booking)
        except IntegrityError:
            # It is there: the handler had run before, and its process ended before that was noted.
            return

    async def spent(self, broadcast_id: int) -> Decimal:
        """Return what a broadcast has cost so far, in credits."""
        total = select(func.sum(_BOOKINGS.c.thousandths)).where(_BOOKINGS.c.broadcast_id == broadcast_id)
        async with self._engine.connect() as connection:
            return Decimal(await connection.scalar(total) or 0) / 1000
