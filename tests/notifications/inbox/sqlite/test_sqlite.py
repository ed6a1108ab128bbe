"""`SqliteInbox`: the file and its lock, group commits, and failures of the disk."""

import asyncio
import errno
import fcntl
import logging
import os
import sqlite3
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from engines.unprivileged import report_missing
from notifications.inbox.clocks import DAY, Clocks
from notifications.inbox.processes import running
from notifications.inbox.sqlite.failing_commits import FailingCommit
from notifications.inbox.suite import LEASE, SETTLE, all_entries, bodies_of, dead_letter, lease_of

from callfire_async.errors import InboxError, InboxLockedError, InboxUnavailableError
from callfire_async.notifications.inbox import Delivery, InboxStats
from callfire_async.notifications.inbox.sqlite import SqliteInbox, _database, _queries, _writer

LATEST = len(_database._MIGRATIONS)

OWNER_SCRIPT = """
async with SqliteInbox(sys.argv[1]) as inbox:
    await inbox.append_many([Delivery(b"leased"), Delivery(b"waiting")])
    await inbox.claim(1, lease=3600)
    report("owned")
    await proceed()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "inbox.db"


@pytest.fixture
async def inbox(path: Path) -> AsyncIterator[SqliteInbox]:
    async with SqliteInbox(path) as inbox:
        yield inbox


@pytest.fixture
def short_busy_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait long for a locked file."""
    monkeypatch.setattr(_database, "_BUSY_SECONDS", 0.05)


@contextmanager
def connected(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


async def pragma(inbox: SqliteInbox, name: str) -> object:
    return (await inbox._read(lambda connection: connection.execute(f"PRAGMA {name}").fetchone()))[0]


# --- the file -----------------------------------------------------------------------------------------------------


async def test_only_the_user_may_read_its_files(path):
    """Bodies are personal data; the log, the lock and the control socket are private too."""
    async with SqliteInbox(path) as inbox:
        await inbox.append(Delivery(b"body"))

        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}

    assert modes == dict.fromkeys(["inbox.db", "inbox.db-wal", "inbox.db-shm", "inbox.db.lock", "inbox.db.sock"], 0o600)


async def test_a_path_may_contain_any_character(tmp_path):
    """A path is not a URI."""
    path = tmp_path / "what? 100%#1 \u00e4.db"

    async with SqliteInbox(str(path)) as inbox:
        await inbox.append(Delivery(b"body"))

    async with SqliteInbox(path, read_only=True) as inbox:
        assert (path.exists(), (await inbox.stats()).ready) == (True, 1)


@pytest.mark.parametrize(("name", "value"), [("journal_mode", "wal"), ("synchronous", 2), ("fullfsync", 1)])
async def test_each_commit_is_synced(inbox, name, value):
    """The settings are explicit, since some builds of SQLite have other defaults."""
    assert await pragma(inbox, name) == value


@pytest.mark.parametrize("how", ["empty", "no tables"])
async def test_an_empty_file_becomes_an_inbox(path, how):
    """A crash during the first start may leave one."""
    path.touch()
    if how == "no tables":
        with connected(path) as connection:
            connection.execute("PRAGMA journal_mode = WAL")

    async with SqliteInbox(path) as inbox:
        await inbox.append(Delivery(b"body"))
        assert await pragma(inbox, "user_version") == LATEST


async def test_newest_returns_the_newest_deliveries(path, inbox):
    """Newest first, at most the limit; read_only is enough."""
    await inbox.append_many([Delivery(body) for body in (b"1", b"2", b"3")])

    async with SqliteInbox(path, read_only=True) as view:
        assert [entry.delivery.body for entry in await view.newest(2)] == [b"3", b"2"]


async def test_newest_can_omit_bodies_that_are_known(path, inbox):
    """Bodies do not change."""
    await inbox.append_many([Delivery(body) for body in (b"1", b"2", b"3")])

    assert [entry.delivery.body for entry in await inbox.newest(2, bodies_after=2)] == [b"3", b""]


async def test_an_older_file_is_migrated(path, monkeypatch):
    """Step by step, each with its version, and once; its deliveries stay."""
    async with SqliteInbox(path) as inbox:
        await inbox.append(Delivery(b"body"))
    added = "ALTER TABLE deliveries ADD COLUMN colour TEXT NOT NULL DEFAULT 'red'"
    monkeypatch.setattr(_database, "_MIGRATIONS", (*_database._MIGRATIONS, added))

    with pytest.raises(InboxError, match="open it once without read_only"):
        await SqliteInbox(path, read_only=True).__aenter__()
    for _ in range(2):
        async with SqliteInbox(path) as inbox:
            assert await pragma(inbox, "user_version") == LATEST + 1

    with connected(path) as connection:
        assert connection.execute("SELECT body, colour FROM deliveries").fetchall() == [(b"body", "red")]


async def test_a_migration_is_atomic(path, monkeypatch):
    """A failed migration leaves the file unchanged."""
    async with SqliteInbox(path) as inbox:
        await inbox.append(Delivery(b"body"))
    halves = "ALTER TABLE deliveries ADD COLUMN colour TEXT; ALTER TABLE no_table ADD COLUMN colour TEXT"
    with monkeypatch.context() as later:
        later.setattr(_database, "_MIGRATIONS", (*_database._MIGRATIONS, halves))
        with pytest.raises(InboxError, match="no_table"):
            await SqliteInbox(path).__aenter__()

    async with SqliteInbox(path) as inbox:
        assert (await bodies_of(inbox), await pragma(inbox, "user_version")) == ([b"body"], LATEST)


@pytest.mark.parametrize("read_only", [True, False])
async def test_a_file_of_a_later_version_is_refused(path, read_only):
    """Nothing is changed."""
    with connected(path) as connection:
        connection.execute("PRAGMA user_version = 99")

    for _ in range(2):
        with pytest.raises(InboxError, match=r"later version of callfire_async \(schema 99\)"):
            await SqliteInbox(path, read_only=read_only, lock_timeout=0).__aenter__()


@pytest.mark.parametrize("read_only", [True, False])
async def test_a_file_that_is_not_a_database_is_refused(path, read_only):
    """It is not changed."""
    path.write_bytes(b"Plain text, " * 1000)

    with pytest.raises(InboxUnavailableError, match="not a database"):
        await SqliteInbox(path, read_only=read_only, lock_timeout=0).__aenter__()

    assert path.read_bytes() == b"Plain text, " * 1000


async def test_a_database_without_deliveries_is_refused(path):
    """Its version number has another meaning."""
    with connected(path) as connection:
        connection.execute(f"PRAGMA user_version = {LATEST}")

    with pytest.raises(InboxError, match="no such"):
        await SqliteInbox(path, lock_timeout=0).__aenter__()


@pytest.mark.parametrize("read_only", [True, False])
async def test_a_missing_directory_is_named_in_the_error(tmp_path, read_only):
    """It is not created: the volume may not be mounted."""
    path = tmp_path / "missing" / "inbox.db"

    with pytest.raises(InboxUnavailableError, match="missing"):
        await SqliteInbox(path, read_only=read_only).__aenter__()

    assert not path.parent.exists()


async def test_a_directory_is_not_an_inbox(path):
    """The error is an `InboxUnavailableError`."""
    path.mkdir()

    with pytest.raises(InboxUnavailableError, match="unable to open"):
        await SqliteInbox(path).__aenter__()


async def test_a_file_system_without_shared_memory_is_refused():
    """The write-ahead log needs shared memory."""
    with closing(sqlite3.connect(":memory:")) as connection, pytest.raises(InboxError, match="journal mode memory"):
        _database._configure(connection)


@pytest.mark.parametrize(
    ("mounts", "kind"),
    [
        ("/dev/vda / ext4 rw 0 0\ntmpfs {folder} tmpfs rw 0 0\n", "tmpfs"),
        ("overlay / overlay rw 0 0\n", "overlay"),
        ("rootfs / rootfs rw 0 0\noverlay / overlay rw 0 0\n", "overlay"),
        ("overlay / overlay rw 0 0\n/dev/vda {folder} ext4 rw 0 0\n", None),
        ("tmpfs {folder} tmpfs rw 0 0\n/dev/vda {folder} ext4 rw 0 0\n", None),
        ("tmpfs {folder}/x tmpfs rw 0 0\n/dev/vda / ext4 rw 0 0\n", None),
        ("overlay / overlay rw 0 0\n/dev/vda {folder}/inbox.db ext4 rw 0 0\n", "overlay"),
        ("", None),
        (None, None),
    ],
)
def test_an_ephemeral_file_system_is_logged(tmp_path, caplog, mounts, kind):
    """The innermost mount decides; if it is unknown, nothing is logged."""
    listed = tmp_path / "mounts"
    if mounts is not None:
        listed.write_text(mounts.format(folder=tmp_path))

    _database.warn_if_ephemeral(tmp_path / "inbox.db", listed)

    assert [record.args[1] for record in caplog.records] == ([kind] if kind else [])


async def test_a_file_on_tmpfs_is_logged(caplog):
    """The mounts of this machine are read."""
    folder = Path("/dev/shm")
    if _database.file_system(folder, Path("/proc/self/mounts")) != "tmpfs":
        pytest.skip("no tmpfs here")
    path = folder / f"callfire_async-{os.getpid()}.db"

    try:
        async with SqliteInbox(path):
            assert "is on an ephemeral file system (tmpfs)" in caplog.text
    finally:
        subprocess.run(["sh", "-c", f"rm {path}*"], check=True)  # noqa: ASYNC221


# --- the lock -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_the_error_of_a_second_owner_names_the_first(path):
    """And how to run several processes."""
    async with running(OWNER_SCRIPT, path) as owner:
        await owner.read_line()

        with pytest.raises(InboxLockedError, match=rf"owned by process {owner.pid}; .*SqliteInbox\.in_directory\(\)"):
            await SqliteInbox(path, lock_timeout=0.1).__aenter__()


@pytest.mark.slow
async def test_the_next_owner_waits_until_the_last_has_stopped(path):
    """As in a rolling deployment."""

    async def counted() -> InboxStats:
        async with SqliteInbox(path) as inbox:
            return await inbox.stats()

    async with running(OWNER_SCRIPT, path) as owner:
        await owner.read_line()
        counting = asyncio.create_task(counted())
        await asyncio.sleep(0)
        await owner.proceed()

        assert (await counting).ready == 2


async def test_waiting_for_the_lock_can_be_cancelled(path):
    """The lock is not acquired later."""
    async with SqliteInbox(path):
        opening = asyncio.create_task(SqliteInbox(path).__aenter__())
        await asyncio.sleep(0)
        opening.cancel()
        with suppress(asyncio.CancelledError):
            await opening

    async with SqliteInbox(path, lock_timeout=0) as inbox:
        assert await inbox.stats() == InboxStats()


@pytest.mark.slow
async def test_the_leases_of_a_killed_owner_are_ready_at_once(path):
    """The lock ends with the process; its leases count as crashes."""
    async with running(OWNER_SCRIPT, path) as owner:
        await owner.read_line()
        await owner.kill()

        async with SqliteInbox(path, lock_timeout=0) as inbox:
            leases = await inbox.claim(10, lease=LEASE)

    assert sorted((lease.delivery.body, lease.attempt, lease.crashes) for lease in leases) == [
        (b"leased", 1, 1),
        (b"waiting", 1, 0),
    ]


async def test_a_lock_without_a_process_id_is_valid(path, monkeypatch):
    """A full disk may have no space for the number."""

    def no_space(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(os, "write", no_space)
    async with SqliteInbox(path) as inbox:
        await inbox.append(Delivery(b"body"))

        with pytest.raises(InboxLockedError, match=r"process \(unknown\)"):
            await SqliteInbox(path, lock_timeout=0).__aenter__()


async def test_a_file_system_without_locks_is_refused(path, monkeypatch):
    """Two owners would handle each delivery twice."""

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)

    with pytest.raises(InboxUnavailableError, match="cannot be locked: No locks available"):
        await SqliteInbox(path).__aenter__()


async def test_a_failed_open_releases_the_lock(path, short_busy_timeout):
    """And stops the thread."""
    before = set(threading.enumerate())
    async with SqliteInbox(path):
        pass
    with connected(path) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(InboxUnavailableError):
            await SqliteInbox(path).__aenter__()

    assert set(threading.enumerate()) <= before
    async with SqliteInbox(path, lock_timeout=0) as inbox:
        assert await inbox.stats() == InboxStats()


async def test_a_failed_recovery_releases_the_lock(path):
    """Recovery is the last step of opening, and may fail on a full disk."""
    async with SqliteInbox(path) as inbox:
        await inbox.append(Delivery(b"body"))
        await lease_of(inbox)
    with connected(path) as connection:
        connection.execute(
            "CREATE TRIGGER no_recovery BEFORE UPDATE ON deliveries BEGIN SELECT RAISE(ABORT, 'not now'); END"
        )
    with pytest.raises(InboxError, match="not now"):
        await SqliteInbox(path).__aenter__()
    with connected(path) as connection:
        connection.execute("DROP TRIGGER no_recovery")

    async with SqliteInbox(path, lock_timeout=0) as inbox:
        assert (await lease_of(inbox)).crashes == 1


async def test_a_cancelled_open_releases_the_lock(path):
    """At any step."""
    for turns in range(6):
        opening = asyncio.create_task(SqliteInbox(path).__aenter__())
        for _ in range(turns):
            await asyncio.sleep(0)
        opening.cancel()
        with suppress(asyncio.CancelledError):
            await (await opening).__aexit__(None, None, None)

        async with SqliteInbox(path, lock_timeout=0) as inbox:
            assert await inbox.stats() == InboxStats()


async def test_a_cancelled_close_is_completed(path):
    """The next owner may open the file at once, and finds the submitted deliveries."""
    inbox = await SqliteInbox(path).__aenter__()
    appending = asyncio.create_task(inbox.append(Delivery(b"body")))
    await asyncio.sleep(0)
    closing_task = asyncio.create_task(inbox.__aexit__(None, None, None))
    await asyncio.sleep(0)
    closing_task.cancel()
    with suppress(asyncio.CancelledError):
        await closing_task

    async with SqliteInbox(path, lock_timeout=0) as again:
        assert await bodies_of(again) == [b"body"]
    assert not (await appending).duplicate


async def test_opening_keeps_the_locks_of_readers_in_the_same_process(path):
    """Closing a file releases all locks of the process on it, so only SQLite may open it."""
    async with SqliteInbox(path):
        pass
    lock_script = (
        "import fcntl, sys; file = open(sys.argv[1], 'r+b');"
        # The byte range of SQLite's read locks.
        "fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 510, 0x40000002)"
    )
    async with SqliteInbox(path, read_only=True) as reader:
        await reader.stats()
        async with SqliteInbox(path):
            locking = await asyncio.to_thread(
                subprocess.run, [sys.executable, "-c", lock_script, path], capture_output=True, text=True, check=False
            )

    assert "BlockingIOError" in locking.stderr


# --- reading only -------------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_it_can_be_read_while_another_process_owns_it(path):
    """Tools need no downtime of the service."""
    async with running(OWNER_SCRIPT, path) as owner:
        await owner.read_line()

        async with SqliteInbox(path, read_only=True) as inbox:
            assert [entry.state for entry in await all_entries(inbox)] == ["leased", "ready"]
            assert await inbox.get(1) is not None
            assert await inbox.handled(["event"]) == frozenset()
            assert (await inbox.stats()).leased == 1


async def test_it_can_be_read_without_an_owner(path):
    """Nothing is recovered, and an owner can open it."""
    async with SqliteInbox(path) as inbox:
        await inbox.append(Delivery(b"body"))
        await lease_of(inbox)

    async with SqliteInbox(path, read_only=True) as reader:
        assert (await reader.stats()).leased == 1
        async with SqliteInbox(path, lock_timeout=0) as owner:
            assert (await owner.stats()).ready == 1
        assert (await reader.stats()).ready == 1


@pytest.mark.parametrize("write", ["append", "append_many", "claim", "ack", "replay", "purge"])
async def test_a_read_only_inbox_refuses_writes(path, write):
    """The error says what to do."""
    async with SqliteInbox(path) as inbox:
        await inbox.append(Delivery(b"body"))
        lease = await lease_of(inbox)

    async with SqliteInbox(path, read_only=True) as inbox:
        writes = {
            "append": lambda: inbox.append(Delivery(b"body")),
            "append_many": lambda: inbox.append_many([Delivery(b"body")]),
            "claim": lambda: inbox.claim(1, lease=LEASE),
            "ack": lambda: inbox.ack(lease),
            "replay": inbox.replay,
            "purge": lambda: inbox.purge(dead_before=lease.delivery.received_at),
        }
        with pytest.raises(InboxError, match=r"read_only=True; stop its owner and open it without that"):
            await writes[write]()


async def test_a_read_only_inbox_does_not_create_its_file(path):
    """It is not created by looking for it."""
    with pytest.raises(InboxUnavailableError, match=r"inbox\.db cannot be used: unable to open database file"):
        await SqliteInbox(path, read_only=True).__aenter__()

    assert list(path.parent.iterdir()) == []


# --- opening and closing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_closed_inbox_refuses_operations(path, when):
    """The error says what to do."""
    inbox = SqliteInbox(path)
    if when == "after":
        async with inbox:
            pass

    for operation in (inbox.append(Delivery(b"body")), inbox.stats(), inbox.wait(1), inbox.claim(1, lease=LEASE)):
        with pytest.raises(InboxError, match="use it inside 'async with'"):
            await operation


async def test_closing_twice_does_nothing(path):
    """No file is created."""
    await SqliteInbox(path).__aexit__(None, None, None)

    assert not path.exists()


async def test_close_completes_submitted_operations(path):
    """Later ones raise."""
    inbox = await SqliteInbox(path).__aenter__()
    before = [asyncio.create_task(inbox.append(Delivery(b"%d" % number))) for number in range(10)]
    await asyncio.sleep(0)
    closing_task = asyncio.create_task(inbox.__aexit__(None, None, None))
    await asyncio.sleep(0)

    with pytest.raises(InboxError, match="not open"):
        await inbox.append(Delivery(b"late"))

    await closing_task
    assert [(await task).duplicate for task in before] == [False] * 10
    async with SqliteInbox(path) as inbox:
        assert (await inbox.stats()).ready == 10


# --- clocks that are set back -------------------------------------------------------------------------------------


async def test_a_due_delivery_stays_due_if_the_clock_is_set_back(path):
    """Its delay was over once."""
    clocks = Clocks()
    async with SqliteInbox(path, clock=clocks.clock()) as inbox:
        await inbox.append(Delivery(b"body"))
        await inbox.nack(await lease_of(inbox), delay=3600)
        clocks.advance(3600)
        await lease_of(inbox)
    async with SqliteInbox(path, clock=clocks.clock()):
        clocks.set_back(DAY)

    async with SqliteInbox(path, clock=clocks.clock()) as inbox:
        assert await bodies_of(inbox) == [b"body"]


async def test_setting_the_clock_back_does_not_lengthen_a_delay(path):
    """At worst, the delay starts again."""
    clocks = Clocks()
    async with SqliteInbox(path, clock=clocks.clock()) as inbox:
        await inbox.append(Delivery(b"delayed"))
        await inbox.nack(await lease_of(inbox), delay=LEASE / 2)
        await inbox.append(Delivery(b"new"))
    clocks.set_back(DAY)

    async with SqliteInbox(path, clock=clocks.clock()) as inbox:
        first = await bodies_of(inbox)
        clocks.advance(LEASE / 2)
        assert (first, await bodies_of(inbox)) == ([b"new"], [b"delayed"])


async def test_setting_the_clock_back_does_not_lengthen_the_dedupe_window(path):
    """A delivery of the next day is new."""
    clocks = Clocks()
    async with SqliteInbox(path, clock=clocks.clock()) as inbox:
        await inbox.append(Delivery(b"same"))
    clocks.set_back(DAY)

    async with SqliteInbox(path, clock=clocks.clock()) as inbox:
        within = await inbox.append(Delivery(b"same"))
        clocks.advance(3600)
        after = await inbox.append(Delivery(b"same"))

    assert (within.duplicate, after.duplicate) == (True, False)


async def test_setting_the_clock_back_does_not_lengthen_the_retention(path):
    """A delivery is deleted when it has been done for that long, at the latest since the inbox was opened again."""
    clocks = Clocks()
    async with SqliteInbox(path, clock=clocks.clock()) as inbox:
        appended = await inbox.append(Delivery(b"old"))
        await inbox.ack(await lease_of(inbox))
    clocks.set_back(DAY)

    async with SqliteInbox(path, clock=clocks.clock(), dedupe_window=60, retention=3600) as inbox:
        for seconds, state in ((3600, "done"), (1, None)):
            clocks.advance(seconds)
            await inbox.append(Delivery(b"new"))
            await inbox.claim(1, lease=LEASE)
            entry = await inbox.get(appended.id)
            assert (entry and entry.state) == state


async def test_opening_does_not_read_all_deliveries(inbox):
    """There may be millions that are done: this counts the steps of SQLite's virtual machine."""
    await inbox.append_many([Delivery(b"%d" % number) for number in range(2000)])
    await inbox._write(lambda connection: connection.execute("UPDATE deliveries SET state = 2").rowcount)
    steps: list[None] = []

    def recover(connection: sqlite3.Connection) -> None:
        connection.set_progress_handler(lambda: steps.append(None), 1)
        _queries.recover(connection, inbox._clock.seconds())
        connection.set_progress_handler(None, 1)

    await inbox._write(recover)

    assert len(steps) < 1000


# --- group commits ------------------------------------------------------------------------------------------------


def count_commits(path: Path) -> int:
    """Count the commits in a write-ahead log: the frames that have the size of the database."""
    log = path.with_name(f"{path.name}-wal").read_bytes()
    (page_size,) = struct.unpack_from(">8xI", log)
    frames = range(32, len(log), 24 + page_size)
    return sum(struct.unpack_from(">4xI", log, frame)[0] > 0 for frame in frames)


@contextmanager
def busy_writer(inbox: SqliteInbox) -> Iterator[None]:
    """Block the writer thread, so that submitted jobs form a group."""
    started, finish = threading.Event(), threading.Event()
    inbox._writer._submitted.put([_writer._Job(lambda *_: [started.set() or finish.wait()], None, asyncio.Future())])
    started.wait()
    try:
        yield
    finally:
        finish.set()


async def test_concurrent_appends_share_a_commit(path):
    """And so one sync of the disk."""
    async with SqliteInbox(path) as inbox:
        before = count_commits(path)
        with busy_writer(inbox):
            appending = [asyncio.create_task(inbox.append(Delivery(b"%d" % number))) for number in range(200)]
            await asyncio.sleep(0)
        appended = await asyncio.gather(*appending)

        assert ([result.id for result in appended], count_commits(path) - before) == (list(range(1, 201)), 1)


async def test_a_lost_lease_does_not_split_a_group(path):
    """The others share their commit."""
    async with SqliteInbox(path) as inbox:
        await inbox.append_many([Delivery(b"%d" % number) for number in range(3)])
        leases = await inbox.claim(3, lease=LEASE)
        await inbox.release(leases[1])
        before = count_commits(path)
        with busy_writer(inbox):
            acking = [asyncio.create_task(inbox.ack(lease)) for lease in leases]
            appending = asyncio.create_task(inbox.append(Delivery(b"new")))
            await asyncio.sleep(0)

        assert (await asyncio.gather(*acking), (await appending).duplicate) == ([True, False, True], False)
        assert count_commits(path) - before == 1


async def test_a_purge_deletes_in_parts(path, monkeypatch):
    """Each has a commit of its own: postbacks do not wait until millions of rows are deleted."""
    monkeypatch.setattr(_queries, "PURGED_ROWS", 2)
    async with SqliteInbox(path) as inbox:
        await inbox.append_many([Delivery(b"%d" % number) for number in range(5)])
        for lease in await inbox.claim(5, lease=LEASE):
            await inbox.dead_letter(lease, "why")
        before = count_commits(path)

        assert await inbox.purge(dead_before=datetime.now(UTC) + timedelta(days=1)) == 5
        assert count_commits(path) - before == 3


async def test_a_single_append_is_committed_at_once(path):
    """There is no timer; an operation without changes makes no commit."""
    async with SqliteInbox(path) as inbox:
        before = count_commits(path)
        for number in range(3):
            await inbox.append(Delivery(b"%d" % number))
            await inbox.stats()
            await inbox.append(Delivery(b"0"))

        assert count_commits(path) - before == 3
        await inbox.claim(3, lease=LEASE)
        await inbox.claim(3, lease=LEASE)
        assert count_commits(path) - before == 4


async def test_a_group_has_a_size_limit(path, monkeypatch):
    """The first job does not wait for thousands of others."""
    monkeypatch.setattr(_writer, "_MAX_GROUP_SIZE", 10)
    async with SqliteInbox(path) as inbox:
        before = count_commits(path)
        with busy_writer(inbox):
            appending = [asyncio.create_task(inbox.append(Delivery(b"%d" % number))) for number in range(30)]
            await asyncio.sleep(0)
        await asyncio.gather(*appending)

        assert count_commits(path) - before == 3


@pytest.mark.parametrize("others", [0, 3])
async def test_an_invalid_job_fails_alone(path, others):
    """The rest of its group is stored."""
    async with SqliteInbox(path) as inbox:
        with busy_writer(inbox):
            good = [asyncio.create_task(inbox.append(Delivery(b"%d" % number))) for number in range(others)]
            bad = [
                asyncio.create_task(inbox.append(Delivery(object(), key="of no type that can be kept"))),
                asyncio.create_task(inbox.append(Delivery(None, key="nothing"))),
                asyncio.create_task(inbox.append(Delivery(b"text", key=object()))),
            ]
            await asyncio.sleep(0)
        raised = await asyncio.gather(*bad, return_exceptions=True)

        assert [type(error) for error in raised] == [InboxError, InboxError, AttributeError]
        assert [(await task).duplicate for task in good] == [False] * others
        assert (await inbox.stats()).ready == others


async def test_a_failed_append_many_stores_nothing(path):
    """All deliveries are stored or none."""
    async with SqliteInbox(path) as inbox:
        with pytest.raises(InboxError, match=r"inbox\.db cannot do this"):
            await inbox.append_many([Delivery(b"good"), Delivery(None, key="bad")])

        assert await inbox.stats() == InboxStats()


async def test_a_cancelled_append_is_completed(path):
    """Its caller cannot know whether it was already on disk."""
    async with SqliteInbox(path) as inbox:
        with busy_writer(inbox):
            appending = [asyncio.create_task(inbox.append(Delivery(b"%d" % number))) for number in range(2)]
            failing = asyncio.create_task(inbox.append(Delivery(None, key="bad")))
            await asyncio.sleep(0)
            for task in (appending[0], failing):
                task.cancel()
        await appending[1]

        assert (appending[0].cancelled(), failing.cancelled()) == (True, True)
        assert await bodies_of(inbox) == [b"0", b"1"]


# --- failures of the disk -----------------------------------------------------------------------------------------


async def test_a_locked_file_is_unavailable_until_it_is_unlocked(path, short_busy_timeout, caplog):
    """Nothing was written partly, and the inbox recovers by itself."""
    async with SqliteInbox(path) as inbox:
        await inbox.append(Delivery(b"before"))
        with connected(path) as other:
            other.execute("BEGIN IMMEDIATE")
            refused = await asyncio.gather(
                *(inbox.append(Delivery(b"%d" % number)) for number in range(3)), return_exceptions=True
            )
        await inbox.append(Delivery(b"after"))

        assert [type(error) for error in refused] == [InboxUnavailableError] * 3
        assert "is locked" in str(refused[0])
        assert await bodies_of(inbox) == [b"before", b"after"]
    assert {record.levelno for record in caplog.records} == {logging.ERROR}


FULL_DISK_SCRIPT = """
path, how = sys.argv[1:]
async with SqliteInbox(path) as inbox:
    stored, refused, old_limit = [], [], None
    if how == "limit":
        old_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, old_limit[1]))
    for number in range(2_000):
        several = [Delivery(os.urandom(2_000), key=f"{number}/{part}") for part in range(3)]
        try:
            stored += [str(result.id) for result in await inbox.append_many(several)]
        except InboxError as error:
            refused.append(type(error).__name__)
            if len(refused) == 3:
                break
    report(len(stored), *refused)
    if old_limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, old_limit)
    else:
        await proceed()
    stored += [str((await inbox.append(Delivery(b"space again"))).id)]
    found = [str(entry.id) async for entry in inbox.entries()]
    report(len(stored) - len(set(stored)), len(set(stored) - set(found)), len(set(found) - set(stored)))
async with SqliteInbox(path) as inbox:
    report((await inbox.stats()).ready - len(found))
    report(*await inbox._read(lambda connection: connection.execute("PRAGMA integrity_check").fetchone()))
"""


async def assert_nothing_is_lost(child, free_space=None) -> None:
    stored, *refused = (await child.read_line()).split()
    if free_space:
        free_space()
        await child.proceed()
    repeated, lost, unexpected = map(int, (await child.read_line()).split())

    assert (int(stored) > 0, refused) == (True, ["InboxUnavailableError"] * 3)
    # A failed sync may have been carried out; a refused append is then stored as a whole, and later a duplicate.
    assert (repeated, lost, unexpected % 3) == (0, 0, 0)
    assert [await child.read_line(), await child.read_line(), await child.wait()] == ["0", "ok", 0]


@pytest.mark.slow
async def test_a_file_size_limit_loses_nothing(path):
    """An I/O error during a group fails all of it; later appends succeed once there is space."""
    async with running(FULL_DISK_SCRIPT, path, "limit") as child:
        await assert_nothing_is_lost(child)


@pytest.mark.slow
async def test_a_full_disk_loses_nothing(tmp_path):
    """The same on a disk that is full."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=False)  # noqa: ASYNC221
    if mounted.returncode != 0:
        report_missing("the right to mount a small disk", "run the tests as root")
    try:
        (disk / "ballast").write_bytes(bytes(300_000))
        async with running(FULL_DISK_SCRIPT, disk / "inbox.db", "disk") as child:
            await assert_nothing_is_lost(child, (disk / "ballast").unlink)
    finally:
        subprocess.run(["umount", disk], check=True)  # noqa: ASYNC221


@contextmanager
def damaged(path: Path, page: int) -> Iterator[None]:
    """Overwrite a page of the file while it is open in SQLite."""
    with path.open("r+b") as file:
        good = os.pread(file.fileno(), 4096, (page - 1) * 4096)
        os.pwrite(file.fileno(), b"\xa5" * 4096, (page - 1) * 4096)
        try:
            yield
        finally:
            os.pwrite(file.fileno(), good, (page - 1) * 4096)


async def page_of(inbox: SqliteInbox, name: str) -> int:
    query = "SELECT rootpage FROM sqlite_schema WHERE name = ?"
    return (await inbox._read(lambda connection: connection.execute(query, (name,)).fetchone()))[0]


async def drop_cached_pages(inbox: SqliteInbox) -> None:
    """Empty the log and SQLite's cache, so that the next query reads the file."""

    def work(connection: sqlite3.Connection) -> None:
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA shrink_memory")
        connection.execute("BEGIN IMMEDIATE")

    await inbox._write(work)


@pytest.mark.parametrize("is_on_disk", [False, True])
@pytest.mark.parametrize("name", SETTLE)
async def test_a_settlement_whose_commit_failed_succeeds_when_repeated(path, monkeypatch, name, is_on_disk):
    """Also if it was carried out: the lease was not lost, and a dead letter must be reported."""
    failing = FailingCommit(monkeypatch, is_on_disk=is_on_disk)
    async with SqliteInbox(path) as inbox:
        await inbox.append(Delivery(b"body"))
        lease = await lease_of(inbox)
        failing.is_armed = True
        with pytest.raises(InboxUnavailableError, match="disk I/O error"):
            await SETTLE[name](inbox, lease)

        assert await SETTLE[name](inbox, lease)
        if name != "extend":
            assert not await SETTLE[name](inbox, lease)
            assert inbox._failed == set()
        (entry,) = await all_entries(inbox)
        assert (entry.attempt, entry.state) == (
            2 if name == "nack" else 1,
            {"extend": "leased", "ack": "done", "dead_letter": "dead"}.get(name, "ready"),
        )


async def test_a_repeated_settlement_does_not_affect_the_next_lease(path, monkeypatch):
    """A delivery that was leased again has another token."""
    failing = FailingCommit(monkeypatch, is_on_disk=True)
    async with SqliteInbox(path) as inbox:
        await inbox.append(Delivery(b"body"))
        lease = await lease_of(inbox)
        failing.is_armed = True
        with pytest.raises(InboxUnavailableError):
            await inbox.nack(lease, delay=0)
        later = await lease_of(inbox)

        assert not await inbox.nack(lease, delay=0)
        assert await inbox.ack(later)


async def test_after_a_failure_the_file_is_checked_before_the_next_success(path, caplog):
    """The cache cannot be trusted, and an append alone would not read every page."""
    async with SqliteInbox(path) as inbox:
        await inbox.append_many([Delivery(bytes(3000), key=str(number)) for number in range(50)])
        index, other_index = await page_of(inbox, "open_deliveries"), await page_of(inbox, "closed_deliveries")
        await drop_cached_pages(inbox)

        with damaged(path, index), pytest.raises(InboxUnavailableError, match="malformed"):
            await inbox.stats()
        with damaged(path, other_index):
            for _ in range(2):
                with pytest.raises(InboxUnavailableError):
                    await inbox.append(Delivery(b"not yet"))
        await inbox.append(Delivery(b"now"))

        assert (await inbox.stats()).ready == 51
    assert len(caplog.records) == 3


async def test_the_check_finds_damage_that_can_be_read(path):
    """A wrong root page, for example."""
    async with SqliteInbox(path) as inbox:
        await inbox.append(Delivery(b"body"))
    with connected(path) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_schema SET rootpage = 2 WHERE name = 'closed_deliveries'")

    with pytest.raises((OSError, sqlite3.DatabaseError), match=r"damaged|malformed"):
        _database.open_database(path, check=True)


async def test_a_connection_that_cannot_be_rolled_back_is_replaced(path, monkeypatch):
    """Its changes are not committed."""

    class FailingRollback(sqlite3.Connection):
        def execute(self, *arguments: object) -> sqlite3.Cursor:
            if arguments == ("ROLLBACK",):
                raise sqlite3.OperationalError("disk I/O error")
            return super().execute(*arguments)

    connect = sqlite3.connect
    with monkeypatch.context() as patched:
        patched.setattr(sqlite3, "connect", lambda *args, **kwargs: connect(*args, **kwargs, factory=FailingRollback))
        inbox = SqliteInbox(path)
        await inbox.__aenter__()
    try:
        with pytest.raises(InboxError):
            await inbox.append_many([Delivery(b"half"), Delivery(b"of it"), Delivery(object(), key="bad")])

        await inbox.append(Delivery(b"good"))
        assert await bodies_of(inbox) == [b"good"]
    finally:
        await inbox.__aexit__(None, None, None)


async def test_an_error_has_its_cause(path, short_busy_timeout):
    """SQLite's own exception."""
    async with SqliteInbox(path) as inbox:
        with connected(path) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(InboxUnavailableError) as unavailable:
                await inbox.stats()
        with pytest.raises(InboxError) as refused:
            await inbox.append(Delivery(None, key="bad"))

    assert isinstance(unavailable.value.__cause__, sqlite3.OperationalError)
    assert isinstance(refused.value.__cause__, sqlite3.IntegrityError)


async def test_a_dead_letter_can_be_replayed_by_a_later_process(path):
    """By another process, long after."""
    async with SqliteInbox(path) as inbox:
        await dead_letter(inbox, b"body")

    async with SqliteInbox(path) as inbox:
        (entry,) = await all_entries(inbox, "dead")
        await inbox.replay([entry.id])
        assert await bodies_of(inbox) == [b"body"]
