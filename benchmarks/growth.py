"""Growth of costs with the input: a large input compared with a small one, per item."""

from __future__ import annotations

import asyncio
import time
import tracemalloc

from benchmarks.rows import Costs, Effort, Row, compare, compare_async
from benchmarks.stub_api import server
from callfire_async import CallFire, Subscription, SubscriptionFilter, SubscriptionSpec, TriggerEvent
from callfire_async.client.plan import SUBSCRIPTIONS, Plan
from callfire_async.notifications import EndpointTokens

CURRENT, PREVIOUS, OTHER = "current-token-1234", "previous-token-123", "another-app-token"
TOKENS = EndpointTokens(CURRENT, PREVIOUS)
TRIGGER_EVENT = TriggerEvent.OUTBOUND_TEXT_FINISHED


def spec(number: int) -> SubscriptionSpec:
    """Return one of the specs."""
    return SubscriptionSpec(_endpoint(CURRENT), TRIGGER_EVENT, SubscriptionFilter(broadcast_id=1 + number))


def existing(number: int) -> Subscription:
    """
    Return one of the account's subscriptions.

    Some of the specs have no subscription, one with an older token, or one with a different filter. Some subscriptions
    have no spec, are duplicates, or belong to another application.
    """
    token = (CURRENT, CURRENT, CURRENT, PREVIOUS, OTHER)[number % 5]
    batch_id = 7 if number % 7 == 0 else None
    filter = SubscriptionFilter(broadcast_id=1 + number - (number % 11 == 0), batch_id=batch_id)
    return Subscription(1 + number, endpoint=_endpoint(token), trigger_event=TRIGGER_EVENT, filter=filter)


def _endpoint(token: str) -> str:
    return f"https://hooks.example.com/callfire/{token}"


def _planning(effort: Effort) -> Costs:
    """Plan ten times as many specs, per spec; without a network."""
    count = effort.of(1_000)
    few, many = _plan_of(count), _plan_of(10 * count)
    costs = compare(many, few, effort, clock=time.process_time)
    return Costs(costs.ours / 10, costs.baseline)


def _plan_of(count: int):  # noqa: ANN202  # a function without arguments
    specs, subscriptions = [*map(spec, range(count))], [*map(existing, range(count))]

    def plan() -> Plan:
        return SUBSCRIPTIONS.compare(SUBSCRIPTIONS.index_specs(specs, TOKENS), subscriptions, tokens=TOKENS, prune=True)

    return plan


PAGE_SIZE = 100


async def _list_all(callfire: CallFire) -> int:
    return sum([1 async for _ in callfire.subscriptions.all(page_size=PAGE_SIZE)])


async def _listing(pages: int, effort: Effort) -> Costs:
    """List many pages and one page over HTTP; CPU time per page."""
    with server() as url:
        async with _account(url, pages) as many, _account(url, 1) as few:
            costs = await compare_async(lambda: _list_all(many), lambda: _list_all(few), effort)
    return Costs(costs.ours / pages, costs.baseline)


async def _memory(pages: int) -> Costs:
    """List many pages and one page; peak memory."""
    with server() as url:
        async with _account(url, pages) as many, _account(url, 1) as few:
            await _list_all(few)  # warms up: allocates what a process needs only once
            return Costs(await _peak_bytes(many), await _peak_bytes(few), "bytes")


async def _peak_bytes(callfire: CallFire) -> int:
    tracemalloc.start()
    await _list_all(callfire)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def _account(url: str, pages: int) -> CallFire:
    return CallFire("login", "password", base_url=f"{url}/{pages * PAGE_SIZE}")


ROWS = (
    Row(
        "`subscriptions.all()` of 10 pages, per page",
        "1 page",
        1.1,
        lambda effort: asyncio.run(_listing(10, effort)),
    ),
    Row(
        "`subscriptions.all()` of 100 pages, per page", "1 page", 1.1, lambda effort: asyncio.run(_listing(100, effort))
    ),
    Row(
        "peak memory of `subscriptions.all()` of 100 pages, including all IDs",
        "1 page",
        None,
        lambda _: asyncio.run(_memory(100)),
    ),
    Row("planning 10,000 subscriptions, per subscription", "planning 1,000 subscriptions", 1.3, _planning),
)
