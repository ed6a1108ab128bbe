"""The handlers of CallFire's events."""

from __future__ import annotations

from decimal import Decimal

from callfire_async import Call, Text
from callfire_async.notifications import CallFinished, Notification, Router, TextFinished
from service.costs import Costs


def make_router(costs: Costs) -> Router:
    """Return a router whose handlers record costs."""
    router = Router()

    # Explicit names: the inbox stores by name which handlers have succeeded, so names must not change with a release.
    @router.on(TextFinished, name="record_text_cost")
    async def record_text_cost(event: TextFinished) -> None:
        await costs.add(_key(event), event.text.broadcast_id, _cost(event.text))

    @router.on(CallFinished, name="record_call_cost")
    async def record_call_cost(event: CallFinished) -> None:
        await costs.add(_key(event), event.call.broadcast_id, _cost(event.call))

    return router


def _key(event: Notification) -> str:
    return ":".join(map(str, event.key))


def _cost(action: Text | Call) -> Decimal:
    return sum((record.billed_amount or Decimal(0) for record in action.records), Decimal(0))
