"""A postback whose body was read completely is stored, even if its request is cancelled."""

import asyncio

import pytest

from callfire_async.notifications import (
    AppendResult,
    Delivery,
    MemoryInbox,
    Postback,
    Receiver,
    SqliteInbox,
)

BODY = b'{"TextSent":{"SubscriptionId":1,"Text":{"@id":42}}}'


class SuspendingInbox(SqliteInbox):
    """An inbox whose ``append`` suspends before it stores anything."""

    async def append(self, delivery: Delivery) -> AppendResult:
        await asyncio.sleep(0)
        return await super().append(delivery)


@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize("inbox_type", [MemoryInbox, SqliteInbox, SuspendingInbox])
async def test_a_postback_is_handled_although_its_request_is_cancelled(tmp_path, router, events, inbox_type, turns):
    """The append finishes and wakes the worker, whatever the inbox and the moment of the cancellation."""
    inbox = MemoryInbox() if inbox_type is MemoryInbox else inbox_type(tmp_path / "inbox.db")
    async with Receiver(router, tokens=None, inbox=inbox) as receiver:
        receiving = asyncio.create_task(receiver.receive(Postback("POST", None, {}, BODY)))
        await asyncio.sleep(0)
        for _ in range(turns):
            await asyncio.sleep(0)
        receiving.cancel()
        await asyncio.wait([receiving])
        await receiver.idle(timeout=20)

    assert [event.key for event in events] == [("text", 42, "")]
