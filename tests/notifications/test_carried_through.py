"""What came whole is stored though its sender has gone, with a task of its own where the inbox needs one."""

import asyncio

import pytest

from callfire_async.notifications import (
    AppendResult,
    Delivery,
    Inbox,
    MemoryInbox,
    Notification,
    Postback,
    Receiver,
    Router,
    SqliteInbox,
)
from callfire_async.notifications.inbox.base import is_carried_through

BODY = b'{"TextSent":{"SubscriptionId":1,"Text":{"@id":42}}}'


@pytest.fixture
def events() -> list[Notification]:
    return []


@pytest.fixture
def router(events: list[Notification]) -> Router:
    router = Router()

    @router.on(Notification)
    async def collect(event: Notification) -> None:
        events.append(event)

    return router


class OwnAppend(SqliteInbox):
    """One that does something more before it appends."""

    async def append(self, delivery: Delivery) -> AppendResult:
        await asyncio.sleep(0)
        return await super().append(delivery)


@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize("make_inbox", [SqliteInbox, OwnAppend])
async def test_a_postback_is_handled_whenever_its_request_is_cancelled(tmp_path, router, events, make_inbox, turns):
    """Once its body was read; the worker is woken for it too, though nobody waits for the answer."""
    async with Receiver(router, tokens=None, inbox=make_inbox(tmp_path / "inbox.db")) as receiver:
        receiving = asyncio.create_task(receiver.receive(Postback("POST", None, {}, BODY)))
        await asyncio.sleep(0)
        for _ in range(turns):
            await asyncio.sleep(0)
        receiving.cancel()
        await asyncio.wait([receiving])
        await receiver.idle(timeout=20)

    assert [event.key for event in events] == [("text", 42, "")]


@pytest.mark.parametrize(
    ("make_inbox", "is_marked"), [(SqliteInbox, True), (MemoryInbox, True), (OwnAppend, False), (Inbox, False)]
)
def test_an_append_says_for_itself_what_it_is(make_inbox, is_marked):
    """One that overrides it may wait for anything, and is not marked because the other was."""
    assert is_carried_through(make_inbox.append) == is_marked
