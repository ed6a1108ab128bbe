"""The service's own database: the cost of each event, recorded once."""

from __future__ import annotations

from decimal import Decimal
from types import TracebackType
from typing import Self

from sqlalchemy import BigInteger, Column, MetaData, String, Table, func, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import create_async_engine

from callfire_async.notifications import current_attempt

_METADATA = MetaData()
_COSTS = Table(
    "costs",
    _METADATA,
    # The idempotency key: the database rejects a second row for the same event.
    Column("event_key", String, primary_key=True),
    Column("broadcast_id", BigInteger, index=True),
    Column("thousandths", BigInteger, nullable=False),
)


class Costs:
    """
    Costs in a database.

    Args:
        url: An SQLAlchemy URL: ``sqlite+aiosqlite:///FILE`` or ``postgresql+asyncpg://…``.
        has_inbox: Whether the receiver's inbox is a `PostgresInbox` in the same database.
    """

    def __init__(self, url: str, *, has_inbox: bool = False) -> None:
        self._engine = create_async_engine(url)
        self._has_inbox = has_inbox

    async def __aenter__(self) -> Self:
        """Create the table if it does not exist."""
        async with self._engine.begin() as connection:
            await connection.run_sync(_METADATA.create_all)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self._engine.dispose()

    async def add(self, event_key: str, broadcast_id: int | None, credits: Decimal) -> None:
        """Record the cost of an event, unless it has been recorded."""
        row = insert(_COSTS).values(event_key=event_key, broadcast_id=broadcast_id, thousandths=int(credits * 1000))
        try:
            async with self._engine.begin() as connection:
                await connection.execute(row)
                if self._has_inbox:
                    # Committed together with the row: the handler never runs again for this delivery.
                    await current_attempt().complete_in(connection)
        except IntegrityError:
            # The row exists: another delivery of the event, or an attempt that crashed before its ack, committed it.
            return

    async def total(self, broadcast_id: int) -> Decimal:
        """Return the cost of a broadcast so far, in credits."""
        total = select(func.sum(_COSTS.c.thousandths)).where(_COSTS.c.broadcast_id == broadcast_id)
        async with self._engine.connect() as connection:
            return Decimal(await connection.scalar(total) or 0) / 1000
