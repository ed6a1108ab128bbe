"""From an event to its handler: `Router.dispatch` beside what any dispatch costs."""

from __future__ import annotations

import asyncio

from benchmarks.rows import Costs, Effort, Row, compare_async
from callfire_async.notifications import CallFinished, Notification, Router, TextReceived
from callfire_async.testing import samples

EVENT = samples.EVENTS["TextReceived"]
HANDLERS = 20


def twenty_handlers() -> Router:
    """Make a router in which one handler of twenty takes the event; all have filters."""
    router = Router()
    for number in range(HANDLERS):
        kind, where = (TextReceived, _is_wanted if number == HANDLERS // 2 else _is_other)
        router.on(kind if number % 2 == 0 else CallFinished, where=where, name=f"handler {number}")(_handle)
    return router


async def _handle(event: Notification) -> None:
    pass


def _is_wanted(event: Notification) -> bool:
    return event.subscription_id is not None


def _is_other(event: Notification) -> bool:
    return event.subscription_id is None


def _beside_a_dict(effort: Effort) -> Costs:
    router, handlers = twenty_handlers(), {TextReceived: _handle}

    async def ours() -> None:
        await router.dispatch(EVENT)

    async def looked_up() -> None:
        await handlers[type(EVENT)](EVENT)

    return asyncio.run(compare_async(ours, looked_up, effort))


ROWS = (
    Row(
        f"`Router.dispatch`, one match among {HANDLERS} handlers with filters",
        "a dict lookup and an await",
        2.5,
        _beside_a_dict,
    ),
)
