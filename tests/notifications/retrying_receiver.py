"""Run a receiver that retries at once, and post one event to it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from callfire_async.notifications import Inbox, Notification, Postback, Receiver, RetryPolicy, Router
from callfire_async.testing import make_text_sent

DEADLINE = 60.0
EVENT = make_text_sent(id=17)


@asynccontextmanager
async def running(router: Router, inbox: Inbox, **options: Any) -> AsyncIterator[Receiver]:
    """Run a receiver that retries at once."""
    options = {"retry": RetryPolicy(max_attempts=3, initial_delay=0.0), **options}
    async with Receiver(router, tokens=None, inbox=inbox, **options) as receiver:
        yield receiver


async def post(receiver: Receiver, event: Notification = EVENT) -> None:
    """Post an event, and wait until it is done or dead."""
    reply = await receiver.receive(Postback("POST", None, {"Content-Type": "application/json"}, event.to_json()))
    assert reply.status == 204
    async with asyncio.timeout(DEADLINE):
        while True:
            stats = (await receiver.stats()).inbox
            if stats.done + stats.dead == 1:
                return
            await asyncio.sleep(0.01)
