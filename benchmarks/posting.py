"""CPU time of the fake CallFire's postbacks, compared with a bare aiohttp client; the server is another process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing

import aiohttp

from benchmarks.rows import Costs, Effort, Row, compare_async
from benchmarks.stub_api import server
from callfire_async.models import NotificationFormat
from callfire_async.notifications.encoding import encode
from callfire_async.testing import samples
from callfire_async.testing.fake_callfire._sender import OutgoingPostback, PostbackSender

CONCURRENCY = 16
CONTENT_TYPE, BODY = encode(samples.EVENTS["TextReceived"], NotificationFormat.JSON)


async def _compare(effort: Effort) -> Costs:
    sender = PostbackSender(None, concurrency=CONCURRENCY, timeout=30.0, clock=time.monotonic)
    with server() as url:
        postback = OutgoingPostback(1, f"{url}/callfire/token", ("text", 1, None), CONTENT_TYPE, BODY)
        async with aclosing(sender), aiohttp.ClientSession() as session:
            return await compare_async(
                _concurrently(lambda: sender.post(postback)),
                _concurrently(lambda: _post(session, postback.endpoint)),
                effort,
            )


async def _post(session: aiohttp.ClientSession, url: str) -> int:
    async with session.post(url, data=BODY, headers={"Content-Type": CONTENT_TYPE}) as response:
        await response.read()
        return response.status


def _concurrently(operation: Callable[[], Awaitable[object]]) -> Callable[[], Awaitable[object]]:
    async def run_all() -> None:
        await asyncio.gather(*(operation() for _ in range(CONCURRENCY)))

    return run_all


ROWS = (
    Row(
        f"a postback of `FakeCallFire`, {CONCURRENCY} concurrent",
        f"an aiohttp client alone, {CONCURRENCY} concurrent",
        1.5,
        lambda effort: asyncio.run(_compare(effort)),
    ),
)
