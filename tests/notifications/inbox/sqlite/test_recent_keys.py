"""The keys of the dedupe window in memory: how long they are kept, and that only a stored row makes a duplicate."""

import logging
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from notifications.inbox.clocks import DAY, Clocks
from notifications.inbox.sqlite.failing_commits import FailingCommit

from callfire_async.errors import InboxError, InboxUnavailableError
from callfire_async.notifications.inbox import Delivery
from callfire_async.notifications.inbox.sqlite import SqliteInbox, _database, _queries, _recent_keys
from callfire_async.notifications.inbox.sqlite._recent_keys import RecentKeys

WINDOW = 3600.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "inbox.db"


@pytest.fixture
def few_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep eight keys."""
    for module in (_recent_keys, _queries):
        monkeypatch.setattr(module, "MAX_KEYS", 8)


def kept(keys: RecentKeys, count: int) -> list[int]:
    return [number for number in range(count) if keys.find([f"key {number}"]) == [number]]


def size(keys: RecentKeys) -> int:
    return sum(len(part.ids) for part in keys._parts)


# --- in memory ------------------------------------------------------------------------------------------------------


def test_each_key_of_the_window_is_kept(path):
    """Whatever the rate; older keys are removed."""
    keys = RecentKeys(path, WINDOW)
    for number in range(1000):
        now = 60.0 * number
        keys.add([f"key {number}"], [number], now)
        within = [f"key {other}" for other in range(number + 1) if 60.0 * other > now - WINDOW]
        assert len(keys.find(within)) == len(within)

    assert size(keys) <= 1.25 * len(within) + 1


def test_the_newest_of_too_many_keys_are_kept(path, few_keys, caplog):
    """The memory is bounded; one warning says what that means."""
    keys = RecentKeys(path, WINDOW)
    for number in range(100):
        keys.add([f"key {number}"], [number], now=0.0)
        assert kept(keys, number + 1)[-8:] == list(range(number + 1))[-8:]
        assert size(keys) <= 10

    (record,) = caplog.records
    assert (record.levelno, record.name) == (logging.WARNING, "callfire_async.inbox")
    assert "more than 8 deliveries within its dedupe_window of 3600 s" in record.getMessage()


def test_two_keys_may_have_the_same_hash(path):
    """The caller compares the keys."""
    keys = RecentKeys(path, WINDOW)
    keys.add([-1], [1], now=0.0)

    assert hash(-2) == hash(-1)
    assert keys.find([-2]) == [1]


# --- with the file --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("age", "is_duplicate"), [(WINDOW - 1, True), (WINDOW, False)])
async def test_the_next_owner_has_the_keys_of_the_window(path, age, is_duplicate):
    """It reads them back from the newest row."""
    clocks = Clocks()
    async with SqliteInbox(path, clock=clocks.clock()) as inbox:
        for number in range(3):
            await inbox.append_many([Delivery(b"%d %d" % (number, copy)) for copy in range(_queries.PAGE_ROWS)])
            clocks.advance(DAY if number < 2 else age)

    async with SqliteInbox(path, clock=clocks.clock()) as inbox:
        repeated = await inbox.append_many([Delivery(b"%d %d" % (number, 7)) for number in range(3)])
    assert [result.duplicate for result in repeated] == [False, False, is_duplicate]


async def test_the_next_owner_reads_the_newest_keys_only(path, few_keys):
    """Deliveries with older keys are not duplicates."""
    async with SqliteInbox(path) as inbox:
        await inbox.append_many([Delivery(b"%d" % number) for number in range(12)])

    async with SqliteInbox(path) as inbox:
        repeated = [await inbox.append(Delivery(b"%d" % number)) for number in (4, 11, 3)]
    assert [(result.id, result.duplicate) for result in repeated] == [(5, True), (12, True), (13, False)]


async def test_an_inbox_that_is_opened_again_has_the_keys_of_another_owner(path):
    """The keys of its last use are not all."""
    inbox = SqliteInbox(path)
    async with inbox:
        await inbox.append(Delivery(b"ours"))
    async with SqliteInbox(path) as other:
        await other.append(Delivery(b"theirs"))

    async with inbox:
        assert (await inbox.append(Delivery(b"theirs"))).duplicate


async def test_a_file_with_an_index_of_keys_is_used_without_it(path):
    """Version 0.1 had one; such a file can be read before it is migrated."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(f"{_database._MIGRATIONS[0]}; PRAGMA user_version = 1; PRAGMA journal_mode = WAL")
        connection.execute(
            "INSERT INTO deliveries (key, body, received_at, appended_at, due_at, updated_at)"
            " VALUES ('key', 'body', :now, :now, :now, :now)",
            {"now": 2e9},
        )

    async with SqliteInbox(path, read_only=True) as reader:
        assert (await reader.stats()).ready == 0
    async with SqliteInbox(path) as inbox:
        assert (await inbox.append(Delivery(b"", key="key"))).duplicate
        names = await inbox._read(lambda connection: connection.execute("SELECT name FROM sqlite_schema").fetchall())
    assert ("delivery_keys",) not in names


async def test_a_rolled_back_delivery_makes_no_duplicate(path):
    """Its key may be in memory; another delivery has its number, or none."""
    async with SqliteInbox(path) as inbox:
        for kept_first in ([], [Delivery(b"other")]):
            with pytest.raises(InboxError):
                await inbox.append_many([Delivery(b"body"), Delivery(None, key="bad")])
            for delivery in kept_first:
                await inbox.append(delivery)
        repeated = [await inbox.append(Delivery(b"body")) for _ in range(2)]

    assert [(result.id, result.duplicate) for result in repeated] == [(2, False), (2, True)]


@pytest.mark.parametrize("is_on_disk", [False, True])
async def test_a_delivery_whose_commit_failed_can_be_repeated(path, monkeypatch, is_on_disk):
    """It is a duplicate only if it is on disk, whatever the outcome of the commit seemed to be."""
    failing = FailingCommit(monkeypatch, is_on_disk=is_on_disk)
    async with SqliteInbox(path) as inbox:
        failing.is_armed = True
        with pytest.raises(InboxUnavailableError, match="disk I/O error"):
            await inbox.append(Delivery(b"body"))
        repeated = [await inbox.append(Delivery(b"body")) for _ in range(2)]

        assert [result.duplicate for result in repeated] == [is_on_disk, True]
        assert [entry.id async for entry in inbox.entries()] == [1]


async def test_a_key_whose_delivery_was_deleted_is_new(path):
    """By a purge, for example."""
    clocks = Clocks()
    async with SqliteInbox(path, clock=clocks.clock()) as inbox:
        await inbox.append(Delivery(b"body"))
        (lease,) = await inbox.claim(1, lease=60)
        await inbox.ack(lease)
        clocks.advance(1)
        await inbox.purge(done_before=datetime.fromtimestamp(clocks.system, UTC))

        assert not (await inbox.append(Delivery(b"body"))).duplicate


async def test_an_inbox_that_is_only_handled_reads_no_keys(path):
    """Such as a file that was taken over: nothing is appended to it."""
    async with SqliteInbox(path) as inbox:
        await inbox.append(Delivery(b"body"))
    async with SqliteInbox(path) as inbox:
        await inbox.claim(1, lease=60)
        assert not inbox._recent_keys.is_loaded
