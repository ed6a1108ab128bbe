"""What only an inbox in memory has: a limit."""

from datetime import datetime

import pytest
from notifications.inbox.clocks import Clocks
from notifications.inbox.suite import bodies_of, lease_of

from callfire_async.errors import InboxError
from callfire_async.notifications.inbox import Delivery
from callfire_async.notifications.inbox.memory import MemoryInbox


async def test_a_full_inbox_refuses():
    """All or none; a repeat needs no room, and what is done makes some."""
    async with MemoryInbox(2) as inbox:
        await inbox.append(Delivery(b"1"))
        with pytest.raises(InboxError, match="full: max_deliveries is 2"):
            await inbox.append_many([Delivery(b"2"), Delivery(b"3")])
        await inbox.append_many([Delivery(b"2"), Delivery(b"1"), Delivery(b"2")])
        with pytest.raises(InboxError, match="full"):
            await inbox.append(Delivery(b"3"))
        await inbox.ack((await inbox.claim(1, lease=60))[0])
        await inbox.append(Delivery(b"3"))

        assert await bodies_of(inbox) == [b"2", b"3"]


async def test_where_nothing_is_a_repeat_each_needs_room():
    """With no window identical bytes are several."""
    async with MemoryInbox(2, dedupe_window=0) as inbox:
        with pytest.raises(InboxError, match="full"):
            await inbox.append_many([Delivery(b"1")] * 3)

        assert await bodies_of(inbox) == []


async def test_of_what_is_done_the_newest_are_remembered():
    """As many as it may hold."""
    async with MemoryInbox(2, clock=Clocks().clock()) as inbox:
        for number in range(4):
            await inbox.append(Delivery(b"%d" % number))
            await inbox.ack(await lease_of(inbox), event_key=str(number))
        await inbox.append(Delivery(b"4"))

        assert await inbox.handled("0123") == {"2", "3"}


def test_a_time_has_an_offset():
    """Which moment it is would depend on who reads it."""
    with pytest.raises(ValueError, match="offset"):
        Delivery(b"body", received_at=datetime(2026, 1, 1))  # noqa: DTZ001  # it is what is refused


def test_no_body_is_printed():
    """Nor a token: both end up in logs."""
    assert "secret" not in repr(Delivery(b"secret"))
