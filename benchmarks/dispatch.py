"""From an event to its handler: `Router.dispatch` beside what any dispatch costs."""

from __future__ import annotations

import asyncio

from benchmarks.rows import Costs, Effort, Row, compare_async
from callfire_async.notifications import CallFinished, Notification, Router, TextReceived
from callfire_async.testing import samples

EVENT = samples.EVENTS["TextReceived"]
HANDLERS = 20


def _bound() -> Router:
    """Make a router in which one handler of twenty takes the event: each is bound to a subscription of its own."""
    router = Router()
    for number in range(HANDLERS):
        id = 1_000 + number if number != HANDLERS // 2 else EVENT.subscription_id
        router.on(TextReceived, subscription_id=id, name=f"handler {number}")(_handle)
    return router


def _asked() -> Router:
    """Make a router in which one handler of twenty takes the event: each looks into the event for that."""
    router = Router()
    for number in range(HANDLERS):
        where = _is_final if number == HANDLERS // 2 else _is_call
        router.on(TextReceived, where=where, name=f"handler {number}")(_handle)
    return router


async def _handle(event: Notification) -> None:
    pass


def _is_final(event: TextReceived) -> bool:
    return event.text.state == "FINISHED"


def _is_call(event: Notification) -> bool:
    return isinstance(event, CallFinished)


def _beside_a_dict(router: Router, effort: Effort) -> Costs:
    handlers = {TextReceived: _handle}

    async def ours() -> None:
        await router.dispatch(EVENT)

    async def looked_up() -> None:
        await handlers[type(EVENT)](EVENT)

    return asyncio.run(compare_async(ours, looked_up, effort))


ROWS = (
    Row(
        f"`Router.dispatch`, one match among {HANDLERS} handlers, each for a subscription of its own",
        "a dict lookup and an await",
        2.5,
        lambda effort: _beside_a_dict(_bound(), effort),
    ),
    Row(
        f"the same with a `where` only, which is asked {HANDLERS} times",
        "a dict lookup and an await",
        None,
        lambda effort: _beside_a_dict(_asked(), effort),
    ),
)
