"""What happens when CallFire posts."""

from __future__ import annotations

from decimal import Decimal

from callfire_async import Call, Text
from callfire_async.notifications import CallFinished, Notification, Router, TextFinished
from service.ledger import Ledger


def make_router(ledger: Ledger) -> Router:
    """Return handlers that write to a ledger."""
    router = Router()

    # Names of their own: deliveries remember by name which handlers have succeeded, across releases.
    @router.on(TextFinished, name="book_text")
    async def book_text(event: TextFinished) -> None:
        await ledger.book(_word(event), event.text.broadcast_id, _cost(event.text))

    @router.on(CallFinished, name="book_call")
    async def book_call(event: CallFinished) -> None:
        await ledger.book(_word(event), event.call.broadcast_id, _cost(event.call))

    return router


def _word(event: Notification) -> str:
    return ":".join(map(str, event.key))


def _cost(action: Text | Call) -> Decimal:
    return sum((record.billed_amount or Decimal(0) for record in action.records), Decimal(0))
