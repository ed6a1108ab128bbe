"""CPU time of the client, compared with httpx as in its documentation; the server is another process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import httpx

from benchmarks.rows import Costs, Effort, Row, compare_async
from benchmarks.stub_api import server
from callfire_async import CallFire, NotificationFormat, SubscriptionFilter, TriggerEvent

ENDPOINT = "https://hooks.example.com/callfire/0123456789abcdef"
CONCURRENCY = 100
#: The concurrency of a busy service that does not wait for connections.
FEW = 16


async def _create(callfire: CallFire) -> None:
    await callfire.subscriptions.create(
        ENDPOINT,
        TriggerEvent.OUTBOUND_TEXT_FINISHED,
        notification_format=NotificationFormat.JSON,
        filter=SubscriptionFilter(broadcast_id=12345),
    )


async def _post(client: httpx.AsyncClient) -> None:
    form = {
        "Endpoint": ENDPOINT,
        "TriggerEvent": "OUTBOUND_TEXT_FINISHED",
        "NotificationFormat": "JSON",
        "BroadcastId": 12345,
        "RequestId": str(uuid4()),
    }
    response = await client.post("/subscription.json", data=form)
    response.raise_for_status()
    reference = response.json()["ResourceReference"]
    int(reference["Id"])


def _concurrently(
    operation: Callable[[Any], Awaitable[None]], client: object, number: int = CONCURRENCY
) -> Callable[[], Awaitable[None]]:
    async def run_all() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(number):
                group.create_task(operation(client))  # type: ignore[arg-type]  # a coroutine function's awaitable

    return run_all


async def _one_at_a_time(effort: Effort) -> Costs:
    with server() as url:
        async with _callfire(url) as callfire, _httpx(url) as client:
            return await compare_async(lambda: _create(callfire), lambda: _post(client), effort)


async def _concurrent(effort: Effort, number: int) -> Costs:
    with server() as url:
        async with _callfire(url) as callfire, _httpx(url) as client:
            ours, baseline = _concurrently(_create, callfire, number), _concurrently(_post, client, number)
            return await compare_async(ours, baseline, effort)


async def _over_httpx2(effort: Effort) -> Costs:
    import httpx2  # noqa: PLC0415  # may not be installed

    with server() as url:
        async with (
            httpx2.AsyncClient(limits=httpx2.Limits(max_connections=None)) as http_client,
            _callfire(url, http_client=http_client) as over_httpx2,
            _callfire(url) as over_httpx,
        ):
            ours, baseline = (_concurrently(_create, client, FEW) for client in (over_httpx2, over_httpx))
            return await compare_async(ours, baseline, effort)


async def _after_concurrency(effort: Effort) -> Costs:
    with server() as url:
        async with _callfire(url, max_connections=CONCURRENCY) as many, _callfire(url) as one:
            await _concurrently(_create, many)()
            return await compare_async(lambda: _create(many), lambda: _create(one), effort)


def _callfire(url: str, **settings: Any) -> CallFire:
    return CallFire("login", "password", base_url=url, **settings)


def _httpx(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, auth=("login", "password"), timeout=30.0)


ROWS = (
    Row(
        "`subscriptions.create`, one at a time",
        "httpx with `base_url`, `auth=`, `data=` and `.json()`",
        1.0,
        lambda effort: asyncio.run(_one_at_a_time(effort)),
    ),
    Row(
        f"`subscriptions.create`, {CONCURRENCY} concurrent",
        f"httpx, {CONCURRENCY} concurrent",
        1.0,
        lambda effort: asyncio.run(_concurrent(effort, CONCURRENCY)),
    ),
    Row(
        f"`subscriptions.create`, {FEW} concurrent",
        f"httpx, {FEW} concurrent",
        1.0,
        lambda effort: asyncio.run(_concurrent(effort, FEW)),
    ),
    Row(
        f"`subscriptions.create` over httpx2, {FEW} concurrent",
        f"the same over httpx, {FEW} concurrent",
        0.5,
        lambda effort: asyncio.run(_over_httpx2(effort)),
    ),
    Row(
        f"a request after {CONCURRENCY} concurrent requests",
        "a request by a client that sends one at a time",
        1.5,
        lambda effort: asyncio.run(_after_concurrency(effort)),
    ),
)
