"""`Router.dispatch`, compared with the cost of any dispatch."""

from __future__ import annotations

import asyncio

from benchmarks.rows import Costs, Effort, Row, compare_async
from callfire_async.notifications import CallFinished, Notification, Router, TextReceived
from callfire_async.testing import samples

EVENT = samples.EVENTS["TextReceived"]
HANDLERS = 20


def _bound_to_subscriptions() -> Router:
    """Return a router with handlers that are bound to different subscriptions, one of which matches."""
    router = Router()
    for number in range(HANDLERS):
        id = 1_000 + number if number != HANDLERS // 2 else EVENT.subscription_id
        router.on(TextReceived, subscription_id=id, name=f"handler {number}")(_handle)
    return router


def _with_conditions() -> Router:
    """Return a router with handlers that have a condition on the event, one of which is true."""
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


def _compare_with_dict(router: Router, effort: Effort) -> Costs:
    handlers = {TextReceived: _handle}

    async def ours() -> None:
        await router.dispatch(EVENT)

    async def lookup() -> None:
        await handlers[type(EVENT)](EVENT)

    return asyncio.run(compare_async(ours, lookup, effort))


ROWS = (
    Row(
        f"`Router.dispatch` with {HANDLERS} handlers, each bound to a subscription; one matches",
        "a dict lookup and an await",
        2.5,
        lambda effort: _compare_with_dict(_bound_to_subscriptions(), effort),
    ),
    Row(
        f"`Router.dispatch` with {HANDLERS} handlers, each with a `where` condition; one matches",
        "a dict lookup and an await",
        None,
        lambda effort: _compare_with_dict(_with_conditions(), effort),
    ),
)
