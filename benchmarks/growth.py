"""What grows with its input, and no faster: ten times as much beside as much, by tens."""

from __future__ import annotations

import asyncio
import time
import tracemalloc

from benchmarks.answering import server
from benchmarks.rows import Costs, Effort, Row, compare, compare_async
from callfire_async import CallFire, Subscription, SubscriptionFilter, SubscriptionSpec, TriggerEvent
from callfire_async.client.plan import Plan, index_specs
from callfire_async.client.plan import compare as planned
from callfire_async.notifications import EndpointTokens

CURRENT, PREVIOUS, STRANGER = "current-token-1234", "previous-token-123", "a-stranger-s-token"
TOKENS = EndpointTokens(CURRENT, PREVIOUS)
TRIGGER_EVENT = TriggerEvent.OUTBOUND_TEXT_FINISHED


def spec(number: int) -> SubscriptionSpec:
    """Make one of the specs."""
    return SubscriptionSpec(_endpoint(CURRENT), TRIGGER_EVENT, SubscriptionFilter(broadcast_id=1 + number))


def found(number: int) -> Subscription:
    """
    Make one of the account's subscriptions.

    Of the specs, a part is not there, a part is there with an older token, a part has lost a field of its filter; of
    the subscriptions, a part is not wanted, a part is there twice, and a part is another application's.
    """
    token = (CURRENT, CURRENT, CURRENT, PREVIOUS, STRANGER)[number % 5]
    batch_id = 7 if number % 7 == 0 else None
    wanted = SubscriptionFilter(broadcast_id=1 + number - (number % 11 == 0), batch_id=batch_id)
    return Subscription(1 + number, endpoint=_endpoint(token), trigger_event=TRIGGER_EVENT, filter=wanted)


def _endpoint(token: str) -> str:
    return f"https://hooks.example.com/callfire/{token}"


def _planning(effort: Effort) -> Costs:
    """Compare what is wanted with what is there, no network between: ten times as many, and as many ten times."""
    less = effort.of(1_000)
    few, many = _plan_of(less), _plan_of(10 * less)
    costs = compare(many, few, effort, clock=time.process_time)
    return Costs(costs.ours / 10, costs.beside)


def _plan_of(count: int):  # noqa: ANN202  # a function of no arguments
    specs, there = [*map(spec, range(count))], [*map(found, range(count))]

    def plan() -> Plan:
        return planned(index_specs(specs, TOKENS), there, tokens=TOKENS, prune=True)

    return plan


PAGE_SIZE = 100


async def _listed(callfire: CallFire) -> int:
    return sum([1 async for _ in callfire.subscriptions.all(page_size=PAGE_SIZE)])


async def _listing(pages: int, effort: Effort) -> Costs:
    """List so many pages beside one, over HTTP; the processor's time for each page."""
    with server() as url:
        async with _account(url, pages) as many, _account(url, 1) as few:
            costs = await compare_async(lambda: _listed(many), lambda: _listed(few), effort)
    return Costs(costs.ours / pages, costs.beside)


async def _memory(pages: int) -> Costs:
    """List so many pages beside one; the most memory that it takes at any moment."""
    with server() as url:
        async with _account(url, pages) as many, _account(url, 1) as few:
            await _listed(few)  # pays for what a process makes once
            return Costs(await _most_bytes(many), await _most_bytes(few), "bytes")


async def _most_bytes(callfire: CallFire) -> int:
    tracemalloc.start()
    await _listed(callfire)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


def _account(url: str, pages: int) -> CallFire:
    return CallFire("login", "password", base_url=f"{url}/{pages * PAGE_SIZE}")


ROWS = (
    Row(
        "`subscriptions.all()` of 10 pages, for each of them",
        "of one page",
        1.1,
        lambda effort: asyncio.run(_listing(10, effort)),
    ),
    Row("of 100 pages, for each of them", "of one page", 1.1, lambda effort: asyncio.run(_listing(100, effort))),
    Row(
        "the most memory while 100 pages are listed, whose ids are remembered",
        "while one is",
        None,
        lambda _: asyncio.run(_memory(100)),
    ),
    Row("planning 10,000 subscriptions, for each of them", "planning 1,000", 1.3, _planning),
)
