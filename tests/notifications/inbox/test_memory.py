"""The limit of `MemoryInbox`, and the values of the protocol."""

from datetime import datetime

import pytest
from notifications.inbox.clocks import Clocks
from notifications.inbox.suite import bodies_of, lease_of

from callfire_async.errors import InboxError
from callfire_async.notifications.inbox import Delivery
from callfire_async.notifications.inbox.memory import MemoryInbox


async def test_a_full_inbox_raises():
    """All deliveries of an append or none are stored; duplicates and done deliveries do not count."""
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


async def test_without_deduplication_each_delivery_counts():
    """Identical bytes are several deliveries."""
    async with MemoryInbox(2, dedupe_window=0) as inbox:
        with pytest.raises(InboxError, match="full"):
            await inbox.append_many([Delivery(b"1")] * 3)

        assert await bodies_of(inbox) == []


async def test_the_newest_done_deliveries_are_kept():
    """Up to max_deliveries."""
    async with MemoryInbox(2, clock=Clocks().clock()) as inbox:
        for number in range(4):
            await inbox.append(Delivery(b"%d" % number))
            await inbox.ack(await lease_of(inbox), event_key=str(number))
        await inbox.append(Delivery(b"4"))

        assert await inbox.handled("0123") == {"2", "3"}


def test_received_at_must_have_an_offset():
    """A time without one depends on the reader's time zone."""
    with pytest.raises(ValueError, match="offset"):
        Delivery(b"body", received_at=datetime(2026, 1, 1))  # noqa: DTZ001  # the case under test


def test_the_repr_of_a_delivery_hides_its_body():
    """Bodies contain personal data, and reprs end up in logs."""
    assert "secret" not in repr(Delivery(b"secret"))
