"""`SqliteDirectoryInbox`: files of several processes, and when they are taken over and closed."""

import asyncio
import logging
import sqlite3
import stat
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from notifications.inbox.processes import DEADLINE, running
from notifications.inbox.suite import LEASE, all_entries, bodies_of, dead_letter, lease_of

from callfire_async.errors import InboxError, InboxLockedError, InboxUnavailableError
from callfire_async.notifications.inbox import Delivery, Inbox, InboxStats
from callfire_async.notifications.inbox.sqlite import SqliteInbox, _database, _directory
from callfire_async.notifications.inbox.sqlite._directory import SqliteDirectoryInbox
from callfire_async.notifications.inbox.sqlite._lock import FileLock

WORKER = """
async with SqliteInbox.in_directory(sys.argv[1]) as inbox:
    await inbox.append_many([Delivery(f"{os.getpid()} {number}".encode()) for number in range(3)])
    await inbox.claim(1, lease=3600)
    acked = await inbox.append(Delivery(b"acked"))
    for lease in await inbox.claim(10, lease=3600):
        if lease.id == acked.id:
            await inbox.ack(lease, event_key=f"event {os.getpid()}")
        else:
            await inbox.release(lease)
    report("ready")
    await proceed()
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "inboxes"


@pytest.fixture
def short_take_over_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for files to take over all the time."""
    monkeypatch.setattr(_directory, "_TAKE_OVER_SECONDS", 0.01)


def files(directory: Path) -> list[str]:
    return sorted(path.stem for path in directory.glob("*.db"))


async def left_behind(directory: Path, *bodies: bytes) -> str:
    """Create the file of a process that has stopped with deliveries left; return its name."""
    directory.mkdir(exist_ok=True)  # noqa: ASYNC240  # it does not block for long
    name = f"left{len(files(directory))}"
    async with SqliteInbox(directory / f"{name}.db") as inbox:
        await inbox.append_many([Delivery(body) for body in bodies])
    return name


@asynccontextmanager
async def workers(directory: Path, count: int) -> AsyncIterator[list[int]]:
    """Run several processes; yield their IDs once each has three deliveries, and kill them at the end."""
    async with AsyncExitStack() as stack:
        children = [await stack.enter_async_context(running(WORKER, directory)) for _ in range(count)]
        for child in children:
            assert await child.read_line() == "ready"
        yield [child.pid for child in children]
        for child in children:
            await child.kill()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until a condition is true."""
    async with asyncio.timeout(DEADLINE):
        while not await condition():  # noqa: ASYNC110  # other processes set no events
            await asyncio.sleep(0.005)


async def is_free(path: Path) -> bool:
    try:
        async with SqliteInbox(path, lock_timeout=0):
            return True
    except InboxError:
        return False


async def is_owned(path: Path) -> bool:
    lock = FileLock(path)
    try:
        await lock.acquire(0)
    except InboxLockedError:
        return True
    lock.release()
    return False


# --- files and ids ------------------------------------------------------------------------------------------------


async def test_each_process_has_its_own_file(directory):
    """IDs contain its name; only the user may read the directory."""
    async with SqliteInbox.in_directory(directory) as one, SqliteInbox.in_directory(directory) as other:
        ids = [(await inbox.append(Delivery(b"same"))).id for inbox in (one, other)]

        assert sorted(ids) == [f"{name}/1" for name in files(directory)]
        assert [await bodies_of(inbox) for inbox in (one, other)] == [[b"same"], [b"same"]]
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


async def test_restarts_do_not_fill_the_directory(directory):
    """
    A process that starts uses an existing file.

    The first of two takes over the file of the second, which then creates another one; the next start uses both.
    """
    for _ in range(5):
        async with SqliteInbox.in_directory(directory) as one, SqliteInbox.in_directory(directory) as other:
            for inbox in (one, other, one, other):
                for lease in await inbox.claim(10, lease=LEASE):
                    await inbox.ack(lease)
            await one.append(Delivery(b"one"))
            await other.append(Delivery(b"other"))

    assert len(files(directory)) <= 3


async def test_deliveries_of_another_process_cannot_be_changed(directory):
    """Its IDs are unknown here, and its leases cannot be settled."""
    async with SqliteInbox.in_directory(directory) as one, SqliteInbox.in_directory(directory) as other:
        lease = await dead_letter(one)
        await one.append(Delivery(b"leased"))
        leased = await lease_of(one)

        assert (await other.get(lease.id), await other.replay([lease.id]), await other.replay()) == (None, 0, 0)
        settled = [
            await other.extend(leased, LEASE),
            await other.ack(leased),
            await other.nack(leased, delay=0),
            await other.release(leased),
            await other.dead_letter(leased, "because"),
        ]
        assert (settled, await one.ack(leased)) == ([False] * 5, True)


@pytest.mark.slow
async def test_handled_covers_all_files(directory):
    """Those of running and of stopped processes."""
    async with workers(directory, 1) as pids, SqliteInbox.in_directory(directory) as inbox:
        await inbox.append(Delivery(b"body"))
        await inbox.ack(await lease_of(inbox), event_key="own event")

        assert await inbox.handled(["own event", f"event {pids[0]}", "no event"]) == {"own event", f"event {pids[0]}"}


async def test_handled_covers_a_file_that_is_taken_over_meanwhile(directory):
    """Its process may stop at any time."""
    reading, proceed = asyncio.Event(), asyncio.Event()

    class SlowInbox(SqliteInbox):
        async def handled(self, event_keys):
            result = await super().handled(event_keys)
            reading.set()
            await proceed.wait()
            return result

    def make_inbox(path: Path, *, read_only: bool) -> Inbox:
        return SqliteInbox(path, read_only=True) if read_only else SlowInbox(path, lock_timeout=0)

    async with SqliteDirectoryInbox(directory, make_inbox) as inbox:
        name = await left_behind(directory, b"acked", b"pending")
        async with SqliteInbox(directory / f"{name}.db") as left:
            (lease,) = await left.claim(1, lease=LEASE)
            await left.ack(lease, event_key="event")
        handling = asyncio.create_task(inbox.handled(["event"]))
        await reading.wait()
        assert await inbox._files.take_over()
        proceed.set()

        assert await handling == {"event"}


# --- taking over --------------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_four_workers_become_two(directory):
    """Each delivery that the four left is claimed once; their leases count as crashes."""
    async with workers(directory, 4) as pids:
        pass
    claimed: list[tuple[bytes, int]] = []

    async with SqliteInbox.in_directory(directory) as one, SqliteInbox.in_directory(directory) as other:
        for inbox in (one, other) * 8:
            for lease in await inbox.claim(10, lease=LEASE):
                claimed.append((lease.delivery.body, lease.crashes))
                await inbox.ack(lease)
        left = [await inbox.stats() for inbox in (one, other)]

    assert Counter(body for body, _ in claimed) == Counter(
        f"{pid} {number}".encode() for pid in pids for number in range(3)
    )
    assert Counter(crashes for _, crashes in claimed) == {1: 4, 0: 8}
    assert sum(stats.ready + stats.leased + stats.delayed for stats in left) == 0


@pytest.mark.slow
async def test_files_of_a_stopped_process_are_taken_over_while_others_run(directory, short_take_over_interval):
    """A waiting worker wakes up; a running process keeps its file."""
    async with SqliteInbox.in_directory(directory) as inbox:
        async with workers(directory, 2) as pids:
            before = await inbox.stats()
            waiting = asyncio.create_task(inbox.wait(LEASE))
            await asyncio.sleep(0)
        bodies: list[bytes] = []
        async with asyncio.timeout(DEADLINE):
            while len(bodies) < 6:
                await waiting
                bodies += await bodies_of(inbox)
                waiting = asyncio.create_task(inbox.wait(LEASE))
        waiting.cancel()

    assert before == InboxStats()
    assert sorted(bodies) == sorted(f"{pid} {number}".encode() for pid in pids for number in range(3))


async def test_a_file_without_pending_deliveries_is_closed(directory, short_take_over_interval):
    """A new process may then own it."""
    async with SqliteInbox.in_directory(directory) as inbox:
        name = await left_behind(directory, b"body")
        await until(lambda: is_taken_over(inbox))
        lease = await lease_of(inbox)
        held = await is_free(directory / f"{name}.db")
        await inbox.ack(lease)

        await until(lambda: is_free(directory / f"{name}.db"))
        assert (held, await inbox.ack(lease), await inbox.get(lease.id)) == (False, False, None)


async def test_the_working_directory_may_change(directory, short_take_over_interval, monkeypatch):
    """A relative path is resolved once, so that files are still taken over and read."""
    monkeypatch.chdir(directory.parent)
    async with SqliteInbox.in_directory(directory.name) as inbox:
        monkeypatch.chdir("/")
        await left_behind(directory, b"body")
        await until(lambda: is_taken_over(inbox))

        await inbox.ack(await lease_of(inbox), event_key="event")
        assert await inbox.handled(["event"]) == {"event"}


async def is_taken_over(inbox: Inbox) -> bool:
    return (await inbox.stats()).ready > 0


@pytest.mark.parametrize("state", ["dead", "delayed"])
async def test_a_file_with_pending_deliveries_stays_open(directory, short_take_over_interval, state):
    """A dead letter can only be replayed while its file is open."""
    async with SqliteInbox.in_directory(directory) as inbox:
        await left_behind(directory, b"body")
        await until(lambda: is_taken_over(inbox))
        lease = await lease_of(inbox)
        await (inbox.dead_letter(lease, "because") if state == "dead" else inbox.nack(lease, delay=LEASE))
        await left_behind(directory, b"later")
        await until(lambda: is_taken_over(inbox))

        stats = await inbox.stats()
        assert (await inbox.get(lease.id) is not None, stats.dead + stats.delayed) == (True, 1)
        assert await inbox.replay([lease.id]) == (state == "dead")


async def test_dead_letters_of_all_files_are_listed_and_replayed(directory):
    """As if they were in one file."""
    await left_behind(directory, b"1")
    await left_behind(directory, b"2")
    async with SqliteInbox.in_directory(directory) as inbox:
        leases = [await lease_of(inbox), await lease_of(inbox)]
        for lease in leases:
            await inbox.dead_letter(lease, "because")

        assert [entry.id for entry in await all_entries(inbox, "dead")] == sorted(lease.id for lease in leases)
        assert await inbox.replay() == 2
        assert sorted([*await bodies_of(inbox), *await bodies_of(inbox)]) == [b"1", b"2"]


async def test_the_events_of_an_envelope_are_stored_in_its_file(directory):
    """A process that splits the envelope of a crashed one finds the events that exist."""
    own, other = await left_behind(directory, b"own"), await left_behind(directory, b"envelope")
    async with SqliteInbox.in_directory(directory) as inbox:
        claimed = [lease for _ in range(2) for lease in await inbox.claim(10, lease=LEASE)]
        (envelope,) = [lease for lease in claimed if lease.delivery.body == b"envelope"]
        parts = [Delivery(b"%d" % number, key=f"parent/{number}", envelope_id=envelope.id) for number in range(3)]
        split, again = await inbox.append_many(parts), await inbox.append_many(parts)
        new = await inbox.append(Delivery(b"new"))

    assert [result.id for result in split] == [f"{other}/{number}" for number in (2, 3, 4)]
    assert [result.duplicate for result in (*split, *again)] == [False] * 3 + [True] * 3
    assert new.id == f"{own}/2"


async def test_the_events_of_an_envelope_are_not_stored_without_its_file(directory):
    """Its lease is lost then; the process that owns the file splits it."""
    async with SqliteInbox.in_directory(directory) as inbox:
        with pytest.raises(InboxError, match="gone of the envelope is not open"):
            await inbox.append_many([Delivery(b"part", envelope_id="gone/1")])

        assert await inbox.stats() == InboxStats()


async def test_the_files_take_turns(directory):
    """New deliveries do not delay those of a file that was taken over."""
    await left_behind(directory, b"old 1", b"old 2")
    async with SqliteInbox(directory / "zzz.db") as inbox:
        await inbox.append_many([Delivery(b"older 1"), Delivery(b"older 2")])
    async with SqliteInbox.in_directory(directory) as inbox:
        bodies: list[bytes] = []
        for number in range(6):
            await inbox.append(Delivery(b"new %d" % number))
            bodies += await bodies_of(inbox, limit=1)

    assert {b"old 1", b"old 2", b"older 1", b"older 2"} <= set(bodies)


async def test_stats_cover_all_files(directory):
    """The oldest age is that of the oldest delivery."""
    await left_behind(directory, b"1", b"2")
    await left_behind(directory, b"3")
    async with SqliteInbox.in_directory(directory) as inbox:
        ready = await inbox.stats()
        await inbox.claim(10, lease=LEASE)
        await inbox.claim(10, lease=LEASE)
        leased = await inbox.stats()

    assert (ready.ready, ready.oldest_ready_age > 0) == (3, True)
    assert leased == InboxStats(leased=3)


# --- failures -----------------------------------------------------------------------------------------------------


async def test_a_damaged_file_is_skipped(directory, caplog):
    """It is logged and not changed; the others are handled."""
    name = await left_behind(directory, b"body")
    damaged = directory / "damaged.db"
    damaged.write_bytes(b"Plain text, " * 1000)

    async with SqliteInbox.in_directory(directory) as inbox:
        lease = await lease_of(inbox)
        await inbox.ack(lease, event_key="event")

        assert (lease.id, await inbox.handled(["event"])) == (f"{name}/1", {"event"})

    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert errors
    assert all("damaged.db" in error for error in errors)
    assert damaged.read_bytes() == b"Plain text, " * 1000


@pytest.mark.parametrize("operation", ["claim", "stats", "take over"])
async def test_a_taken_over_file_that_fails_is_closed(
    directory, caplog, short_take_over_interval, operation, monkeypatch
):
    """It does not affect the other files."""
    monkeypatch.setattr(_database, "_BUSY_SECONDS", 0.01)
    async with SqliteInbox.in_directory(directory) as inbox:
        own = await inbox.append(Delivery(b"own"))
        name = await left_behind(directory, b"is_taken_over over")
        await until(lambda: has_ready(inbox, 2))
        with closing(sqlite3.connect(directory / f"{name}.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            if operation == "claim":
                claimed = [*await inbox.claim(1, lease=LEASE), *await inbox.claim(1, lease=LEASE)]
                assert [lease.id for lease in claimed] == [own.id]
            elif operation == "stats":
                assert (await inbox.stats()).ready == 1
            else:
                await until(lambda: is_closed(inbox, name))
        await until(lambda: has_ready(inbox, 1 if operation == "claim" else 2))

    assert f"closing inbox file {name} after an error" in caplog.text


async def has_ready(inbox: Inbox, count: int) -> bool:
    return (await inbox.stats()).ready == count


async def is_closed(inbox: SqliteDirectoryInbox, name: str) -> bool:
    return name not in inbox._files.inboxes


async def test_a_file_that_fails_is_closed_once(directory, monkeypatch):
    """Even if several operations fail at once."""
    monkeypatch.setattr(_database, "_BUSY_SECONDS", 0.01)
    name = await left_behind(directory, b"is_taken_over over")
    async with SqliteInbox(directory / "a.db"):
        pass
    async with SqliteInbox.in_directory(directory) as inbox:
        with closing(sqlite3.connect(directory / f"{name}.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            stats = await asyncio.gather(*(inbox.stats() for _ in range(3)))

        assert (stats, await is_free(directory / f"{name}.db")) == ([InboxStats()] * 3, True)


async def test_a_failure_of_its_own_file_is_raised(directory, monkeypatch):
    """Postbacks are then refused; a waiting worker gets the error too."""
    monkeypatch.setattr(_database, "_BUSY_SECONDS", 0.01)
    async with SqliteInbox.in_directory(directory) as inbox:
        (name,) = files(directory)
        with closing(sqlite3.connect(directory / f"{name}.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for operation in (
                inbox.append(Delivery(b"body")),
                inbox.claim(1, lease=LEASE),
                inbox.stats(),
                inbox.wait(LEASE),
            ):
                with pytest.raises(InboxUnavailableError, match="locked"):
                    await operation

        await inbox.append(Delivery(b"body"))
        assert await bodies_of(inbox) == [b"body"]


async def test_a_file_that_is_being_created_is_not_an_error(directory, caplog):
    """Its owner has locked it, but has not created the tables yet."""
    caplog.set_level(logging.ERROR)
    directory.mkdir()
    lock = FileLock(directory / "new.db")
    await lock.acquire(0)
    (directory / "new.db").touch()

    async with SqliteInbox.in_directory(directory) as inbox:
        assert await inbox.stats() == InboxStats()
    lock.release()

    assert caplog.records == []


async def test_a_file_whose_handled_events_cannot_be_read_is_logged(directory, caplog):
    """Its events may be handled again."""
    directory.mkdir()
    async with SqliteInbox.in_directory(directory) as inbox:
        (directory / "empty.db").touch()

        assert await inbox.handled(["event"]) == frozenset()
    assert "empty.db is not an inbox" in caplog.text


async def test_an_empty_file_is_used(directory):
    """By the next process that starts."""
    directory.mkdir()
    (directory / "empty.db").touch()

    async with SqliteInbox.in_directory(directory) as inbox:
        assert (await inbox.append(Delivery(b"body"))).id == "empty/1"


async def test_a_directory_that_cannot_be_created_is_unavailable(tmp_path):
    """The error is an `InboxUnavailableError`."""
    (tmp_path / "file").touch()

    with pytest.raises(InboxUnavailableError, match="cannot be created: Not a directory"):
        await SqliteInbox.in_directory(tmp_path / "file" / "directory").__aenter__()


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_closed_inbox_refuses_operations(directory, when):
    """The error says what to do."""
    inbox = SqliteInbox.in_directory(directory)
    if when == "after":
        async with inbox:
            pass

    for operation in (
        inbox.append(Delivery(b"body")),
        inbox.claim(1, lease=LEASE),
        inbox.stats(),
        inbox.wait(1),
        inbox.get("a/1"),
        inbox.handled(["event"]),
        inbox.replay(),
        inbox.replay(["a/1"]),
        all_entries(inbox),
    ):
        with pytest.raises(InboxError, match="use it inside 'async with'"):
            await operation


class FlakyFactory:
    """Creates inboxes, and fails on demand as with too many open files."""

    def __init__(self) -> None:
        self.fails = False
        self.failed = 0

    def __call__(self, path: Path, *, read_only: bool) -> Inbox:
        if self.fails:
            self.failed += 1
            raise OSError("too many open files")
        return SqliteInbox(path, lock_timeout=0, read_only=read_only)


async def test_taking_over_is_retried_after_an_error(directory, short_take_over_interval, caplog):
    """Any exception may be temporary."""
    make_inbox = FlakyFactory()
    async with SqliteDirectoryInbox(directory, make_inbox) as inbox:
        make_inbox.fails = True
        await left_behind(directory, b"body")
        await until(lambda: has_failed(make_inbox))
        make_inbox.fails = False

        await until(lambda: is_taken_over(inbox))
    assert "cannot take over the files" in caplog.text


async def has_failed(make_inbox: FlakyFactory) -> bool:
    return make_inbox.failed > 1


async def test_a_failed_open_closes_all_files(directory):
    """Another process can own them at once."""
    first = await left_behind(directory, b"1")
    second = await left_behind(directory, b"2")

    def make_inbox(path: Path, *, read_only: bool) -> Inbox:
        if read_only:
            raise OSError("too many open files")
        return SqliteInbox(path, lock_timeout=0)

    with pytest.raises(OSError, match="too many"):
        await SqliteDirectoryInbox(directory, make_inbox).__aenter__()

    assert [await is_free(directory / f"{name}.db") for name in (first, second)] == [True, True]


async def test_a_cancelled_close_closes_all_files(directory):
    """Another process can own them at once."""
    names = [await left_behind(directory, b"1"), await left_behind(directory, b"2")]
    inbox = await SqliteInbox.in_directory(directory).__aenter__()
    closing_task = asyncio.create_task(inbox.__aexit__(None, None, None))
    await asyncio.sleep(0)
    closing_task.cancel()
    await asyncio.wait([closing_task])

    assert [await is_free(directory / f"{name}.db") for name in names] == [True, True]


async def test_a_file_that_cannot_be_closed_does_not_keep_the_others_open(directory):
    """The error is raised after all files were closed."""
    names = [await left_behind(directory, b"1"), await left_behind(directory, b"2")]
    inbox = await SqliteInbox.in_directory(directory).__aenter__()
    first = inbox._files.inboxes[names[0]]
    close = first.__aexit__

    class FailingInbox:
        async def __aexit__(self, *error: object) -> None:
            await close(*error)
            raise InboxUnavailableError("no disk")

    inbox._files.inboxes[names[0]] = FailingInbox()
    with pytest.raises(InboxUnavailableError, match="no disk"):
        await inbox.__aexit__(None, None, None)

    assert [await is_free(directory / f"{name}.db") for name in names] == [True, True]


async def test_a_cancelled_close_closes_a_file_that_is_being_taken_over(
    directory, short_take_over_interval, monkeypatch, caplog
):
    """The thread that waits for a locked file is left running, and releases the lock as soon as it has ended."""
    monkeypatch.setattr(_database, "_BUSY_SECONDS", 1.0)
    inbox = await SqliteInbox.in_directory(directory).__aenter__()
    name = await left_behind(directory, b"1")
    with closing(sqlite3.connect(directory / f"{name}.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        await until(lambda: is_owned(directory / f"{name}.db"))
        closing_task = asyncio.create_task(inbox.__aexit__(None, None, None))
        await asyncio.sleep(0)
        closing_task.cancel()
        async with asyncio.timeout(DEADLINE):
            await asyncio.wait([closing_task])
    await until(lambda: is_free(directory / f"{name}.db"))

    assert closing_task.cancelled()
    assert f"{name}.db: its disk does not respond; it stays locked until then" in caplog.text


async def test_a_file_may_be_closed_during_an_operation_on_all_files(directory):
    """Its result is left out."""
    await left_behind(directory, b"1")
    await left_behind(directory, b"2")
    async with SqliteInbox.in_directory(directory) as inbox:
        other = next(name for name in inbox._files.inboxes if name != inbox._files.own_name)
        counting = asyncio.create_task(inbox.stats())
        listing = asyncio.create_task(all_entries(inbox))
        await asyncio.sleep(0)
        await inbox._files.close_file(other, inbox._files.inboxes[other])

        assert (await counting).ready in (1, 2)
        assert len(await listing) in (1, 2)


async def test_a_directory_can_be_read_while_others_own_its_files(directory):
    """All files at once; nothing is taken over, created or changed."""
    async with SqliteInbox.in_directory(directory) as one, SqliteInbox.in_directory(directory) as other:
        appended = [await one.append(Delivery(b"1")), await other.append(Delivery(b"2"))]
        files = sorted(directory.iterdir())
        async with SqliteInbox.in_directory(directory, read_only=True) as view:
            assert (await view.stats()).ready == 2
            assert {entry.id async for entry in view.entries()} == {one.id for one in appended}
            assert (await view.get(appended[1].id)).delivery.body == b"2"
            assert await view.handled(["x"]) == frozenset()
            for change in (
                lambda: view.append(Delivery(b"3")),
                lambda: view.claim(1, lease=60),
                view.replay,
                lambda: view.purge(dead_before=datetime.now(UTC)),
            ):
                with pytest.raises(InboxError, match="opened with read_only=True"):
                    await change()
        assert sorted(directory.iterdir()) == files


async def test_an_empty_directory_can_be_read(tmp_path):
    """A missing one is not created."""
    view = SqliteInbox.in_directory(tmp_path, read_only=True)
    async with view:
        assert await view.stats() == InboxStats()
    with pytest.raises(InboxError, match="not open"):
        await view.stats()
    with pytest.raises(InboxUnavailableError, match="does not exist"):
        async with SqliteInbox.in_directory(tmp_path / "missing", read_only=True):
            pass
    assert not (tmp_path / "missing").exists()


async def test_a_file_that_cannot_be_read_is_skipped_and_logged(directory, caplog):
    """The others are shown."""
    await left_behind(directory, b"1")
    (directory / "notes.db").write_text("notes")

    async with SqliteInbox.in_directory(directory, read_only=True) as view:
        assert (await view.stats()).ready == 1

    assert "skipping an inbox file that cannot be opened: " in caplog.text
