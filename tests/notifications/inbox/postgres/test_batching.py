"""What several callers append at once, when what keeps it breaks off; all else is seen with a server."""

import asyncio

from callfire_async import InboxUnavailableError
from callfire_async.notifications import AppendResult, Delivery
from callfire_async.notifications.inbox.postgres._batching import AppendBatcher

DEADLINE = 20


async def test_nobody_waits_for_ever_where_the_driver_breaks_off():
    """Neither those of the group nor those of the next; who comes later is served."""
    breaks_off = True

    async def keep(deliveries):
        if breaks_off:
            await asyncio.sleep(0)
            raise asyncio.CancelledError
        return [AppendResult(1, duplicate=False) for _ in deliveries]

    gathering = AppendBatcher(keep)
    many = [Delivery(b"1")] * 400
    async with asyncio.timeout(DEADLINE):
        broken = await asyncio.gather(*(gathering.append(many) for _ in range(3)), return_exceptions=True)
        breaks_off = False
        (kept,) = await gathering.append([Delivery(b"2")])

    assert ({type(error) for error in broken}, kept) == ({InboxUnavailableError}, AppendResult(1, duplicate=False))
