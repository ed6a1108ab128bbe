"""Backups of SQLite inboxes, and logs that do not belong to their files."""

import asyncio
import errno
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from notifications.inbox.processes import running
from notifications.inbox.suite import all_entries, bodies_of

from callfire_async.errors import InboxError, InboxLockedError, InboxUnavailableError
from callfire_async.notifications.inbox import Delivery
from callfire_async.notifications.inbox.sqlite import SqliteInbox, _database
from callfire_async.notifications.inbox.sqlite.backup import back_up, restore

# Appends for ever, in transactions that change many pages, so that checkpoints happen often.
SERVICE = """
async with SqliteInbox(sys.argv[1]) as inbox:
    number = 0
    while True:
        await inbox.append_many([Delivery(os.urandom(3000), key=f"{number}/{part}") for part in range(20)])
        number += 1
        report(number)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "inbox.db"


async def fill(path: Path, *bodies: bytes) -> None:
    async with SqliteInbox(path) as inbox:
        await inbox.append_many([Delivery(body) for body in bodies])


async def bodies_in(path: Path) -> list[bytes]:
    async with SqliteInbox(path) as inbox:
        return sorted(await bodies_of(inbox))


async def append_until(service, count: int) -> None:
    while int(await service.read_line()) < count:
        pass


# --- the documented route -----------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_backup_of_a_running_service_is_complete_and_can_be_restored(path, tmp_path):
    """Its owner is killed later; its log is not applied to the restored file."""
    copy = tmp_path / "backup.db"
    async with running(SERVICE, path) as service:
        await append_until(service, 30)
        assert await back_up(path, copy) == [copy]
        async with SqliteInbox(copy, read_only=True) as saved:
            saved_count = (await saved.stats()).ready
        await append_until(service, saved_count // 20 + 30)
        with pytest.raises(InboxLockedError, match=f"owned by process {service.pid}"):
            await restore(path, copy)
        await service.kill()
    old_log = path.with_name("inbox.db-wal").read_bytes()

    restored = await restore(path, copy)

    kept = restored[path]
    assert kept.with_name(f"{kept.name}-wal").read_bytes() == old_log
    async with SqliteInbox(path, lock_timeout=0) as inbox:
        assert ((await inbox.stats()).ready, saved_count % 20, saved_count >= 600) == (saved_count, 0, True)
        integrity = await inbox._read(lambda connection: connection.execute("PRAGMA integrity_check").fetchall())
        assert integrity == [("ok",)]
    # The old file is complete, with its log.
    async with SqliteInbox(kept, lock_timeout=0) as old:
        assert (await old.stats()).ready >= saved_count + 600


async def test_a_backup_is_one_private_file(path, tmp_path):
    """It can also be read where nothing can be written."""
    await fill(path, b"1")
    (tmp_path / "copies").mkdir()
    copy = tmp_path / "copies" / "backup.db"
    await back_up(path, copy)

    assert [file.name for file in copy.parent.iterdir()] == ["backup.db"]
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    async with SqliteInbox(copy, read_only=True) as inbox:
        assert (await inbox.stats()).ready == 1


async def test_a_backup_overwrites_only_if_it_is_asked_to(path, tmp_path):
    """Neither a file nor a log that an older file has left."""
    copy = tmp_path / "backup.db"
    await fill(path, b"1")
    log = copy.with_name("backup.db-wal")
    log.write_bytes(b"left")
    with pytest.raises(InboxError, match="exists already"):
        await back_up(path, copy)
    await back_up(path, copy, overwrite=True)
    assert not log.exists()
    await fill(path, b"2")
    with pytest.raises(InboxError, match="exists already"):
        await back_up(path, copy)

    await back_up(path, copy, overwrite=True)

    assert await bodies_in(copy) == [b"1", b"2"]


async def test_an_inbox_in_use_is_not_overwritten_by_a_backup(path, tmp_path):
    """Even if it is asked to."""
    other = tmp_path / "other.db"
    await fill(path, b"1")
    async with SqliteInbox(other) as inbox:
        await inbox.append(Delivery(b"other"))
        with pytest.raises(InboxLockedError):
            await back_up(path, other, overwrite=True)
        await inbox.append(Delivery(b"more"))

        assert await bodies_of(inbox) == [b"other", b"more"]


@pytest.mark.parametrize("target", ["inbox.db", "link.db"])
async def test_a_file_is_not_backed_up_to_itself(path, target):
    """Nor restored from itself."""
    await fill(path, b"1")
    path.with_name("link.db").symlink_to(path)

    for copying in (back_up(path, path.with_name(target), overwrite=True), restore(path.with_name(target), path)):
        with pytest.raises(InboxError, match="are the same"):
            await copying
    assert await bodies_in(path) == [b"1"]


async def test_another_file_is_not_a_backup(path, tmp_path):
    """Nothing is replaced, and no partial copy is left."""
    await fill(path, b"1")
    notes, other, missing = tmp_path / "notes", tmp_path / "other.db", tmp_path / "missing.db"
    notes.write_bytes(b"Not a database. " * 1000)
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE things (id)")
    before = {file.name for file in tmp_path.iterdir()}

    for source, error in ((notes, "not a database"), (other, "is not an inbox"), (missing, "does not exist")):
        with pytest.raises(InboxError, match=error):
            await restore(path, source)
    assert {file.name.removesuffix("-shm").removesuffix("-wal") for file in tmp_path.iterdir()} == before
    assert await bodies_in(path) == [b"1"]


async def test_a_damaged_file_is_not_a_backup(path, tmp_path):
    """Its copy is checked before anything is replaced."""
    await fill(path, *(b"%d" % number * 3000 for number in range(50)))
    damaged = tmp_path / "damaged.db"
    shutil.copy(path, damaged)
    with closing(sqlite3.connect(damaged)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_schema SET rootpage = 2 WHERE name = 'closed_deliveries'")
        connection.commit()

    with pytest.raises(InboxUnavailableError, match="damaged"):
        await restore(path, damaged)
    assert len(await bodies_in(path)) == 50


async def test_a_lost_file_is_restored(path, tmp_path):
    """Also a log without its file, which would damage the restored one."""
    copy = tmp_path / "backup.db"
    await fill(path, b"1")
    await back_up(path, copy)
    path.unlink()
    path.with_name("inbox.db-wal").write_bytes(b"left")

    assert await restore(path, copy) == {path: None}
    assert await bodies_in(path) == [b"1"]


async def test_the_target_of_a_symbolic_link_is_restored(path, tmp_path):
    """The link stays."""
    copy, real = tmp_path / "backup.db", tmp_path / "real"
    real.mkdir()
    (real / "inbox.db").touch()
    path.symlink_to(real / "inbox.db")
    await fill(path, b"1")
    await back_up(path, copy)
    await fill(path, b"2")

    await restore(path, copy)

    assert (path.is_symlink(), await bodies_in(path)) == (True, [b"1"])


async def test_a_file_that_is_owned_under_another_name_is_not_restored(path, tmp_path):
    """Its owner would lose what is waiting in it."""
    copy, link = tmp_path / "backup.db", tmp_path / "link.db"
    await fill(path, b"1")
    await back_up(path, copy)
    link.symlink_to(path)
    async with SqliteInbox(link):
        with pytest.raises(InboxLockedError):
            await restore(path, copy)
    async with SqliteInbox(path):
        with pytest.raises(InboxLockedError):
            await restore(link, copy)


async def test_a_backup_replaces_the_target_of_a_symbolic_link(path, tmp_path):
    """The link stays; its target may be on another disk."""
    real, link = tmp_path / "real.db", tmp_path / "backup.db"
    await fill(path, b"1")
    link.symlink_to(real)
    await back_up(path, link)
    await fill(path, b"2")

    await back_up(path, link, overwrite=True)

    assert (link.is_symlink(), await bodies_in(real)) == (True, [b"1", b"2"])


async def test_old_files_are_copied_if_there_are_no_hard_links(path, tmp_path, monkeypatch):
    """Some file systems have none."""

    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    copy = tmp_path / "backup.db"
    await fill(path, b"1")
    await back_up(path, copy)
    await fill(path, b"2")
    monkeypatch.setattr(os, "link", no_links)

    kept = (await restore(path, copy))[path]

    assert (await bodies_in(path), await bodies_in(kept)) == ([b"1"], [b"1", b"2"])


async def test_a_copy_that_cannot_be_written_is_an_error(path, tmp_path):
    """The error is that of the copy, not that of the removal of its rest."""
    await fill(path, b"one")
    (tmp_path / "notes").touch()

    with pytest.raises(InboxUnavailableError, match="Not a directory"):
        await back_up(path, tmp_path / "notes" / "backup.db")


async def test_a_directory_that_cannot_be_written_to(path, tmp_path):
    """The error names it."""
    await fill(path, b"1")

    with pytest.raises(InboxUnavailableError, match="No such file or directory"):
        await back_up(path, tmp_path / "missing" / "backup.db")


# --- directories --------------------------------------------------------------------------------------------------


@pytest.fixture
async def directory(tmp_path: Path) -> Path:
    directory = tmp_path / "inboxes"
    directory.mkdir()
    await fill(directory / "a.db", b"a")
    await fill(directory / "b.db", b"b")
    return directory


async def test_a_directory_is_backed_up_and_restored(directory, tmp_path):
    """While a process uses it; files without a backup stay."""
    copies = tmp_path / "copies"
    async with SqliteInbox.in_directory(directory) as inbox:
        await inbox.append(Delivery(b"more"))
        assert await back_up(directory, copies) == [copies / "a.db", copies / "b.db"]
        for lease in [*await inbox.claim(10, lease=60), *await inbox.claim(10, lease=60)]:
            await inbox.ack(lease)
        await fill(directory / "c.db", b"c")
        with pytest.raises(InboxLockedError):
            await restore(directory, copies)

    await restore(directory, copies)

    assert stat.S_IMODE(copies.stat().st_mode) == 0o700
    assert [await bodies_in(directory / f"{name}.db") for name in "abc"] == [[b"a", b"more"], [b"b"], [b"c"]]


async def test_a_directory_is_not_restored_while_a_process_owns_another_file_in_it(directory, tmp_path):
    """It could take over a file that is being restored."""
    copies = tmp_path / "copies"
    await back_up(directory, copies)
    async with SqliteInbox(directory / "c.db"):
        with pytest.raises(InboxLockedError, match=r"c\.db"):
            await restore(directory, copies)


async def test_a_lost_directory_is_restored(directory, tmp_path):
    """It is created."""
    copies = tmp_path / "copies"
    await back_up(directory, copies)
    shutil.rmtree(directory)

    await restore(directory, copies)

    assert [await bodies_in(directory / f"{name}.db") for name in "ab"] == [[b"a"], [b"b"]]


async def test_a_backup_is_not_mixed_with_files_of_another_one(directory, tmp_path):
    """A restore would bring both back."""
    copies = tmp_path / "copies"
    await back_up(directory, copies)
    (directory / "a.db").unlink()

    with pytest.raises(InboxError, match=r"has other inbox files \(a\.db"):
        await back_up(directory, copies, overwrite=True)


async def test_a_file_and_a_directory_do_not_match(directory, path, tmp_path):
    """Neither way."""
    await fill(path, b"1")
    (tmp_path / "empty").mkdir()

    for copying in (back_up(path, directory), restore(path, directory), restore(directory, path)):
        with pytest.raises(InboxError, match="pass two files, or two directories"):
            await copying
    with pytest.raises(InboxError, match="has no inbox files"):
        await back_up(tmp_path / "empty", tmp_path / "copies")


# --- logs that do not belong to their files -----------------------------------------------------------------------


async def leave_log(path: Path, size: int = 0) -> None:
    """Leave a file and its log as a killed owner does, after the file has been copied to ``backup.db``."""
    async with running(SERVICE, path) as service:
        await append_until(service, 20 + size)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("VACUUM INTO ?", (str(path.with_name("backup.db")),))
        await append_until(service, 100)
        await service.kill()


@pytest.mark.slow
async def test_a_backup_with_the_log_of_another_file_is_refused(path):
    """As after ``cp backup.db inbox.db``; the message says how to repair it, and that works."""
    await leave_log(path)
    shutil.copy(path.with_name("backup.db"), path)
    files = {name: path.with_name(name).read_bytes() for name in ("inbox.db", "inbox.db-wal")}

    for _ in range(2):
        with pytest.raises(InboxUnavailableError, match="does not belong to it") as raised:
            await SqliteInbox(path, lock_timeout=0).__aenter__()
    assert {name: path.with_name(name).read_bytes() for name in files} == files
    assert "callfire-async inbox restore" in str(raised.value)
    assert f"move {path}-wal to another directory" in str(raised.value)

    path.with_name("inbox.db-wal").rename(path.with_name("away"))
    async with SqliteInbox(path, lock_timeout=0) as inbox:
        assert (await inbox.stats()).ready >= 400


@pytest.mark.slow
async def test_a_directory_skips_a_backup_with_the_log_of_another_file(path, caplog):
    """And logs how to repair it."""
    await leave_log(path)
    path.with_name("backup.db").rename(path)

    async with SqliteInbox.in_directory(path.parent) as inbox:
        await inbox.append(Delivery(b"body"))

    assert "does not belong to it" in caplog.text


@pytest.mark.slow
async def test_a_log_that_makes_a_complete_database_is_used(path):
    """If the log has every page, the result is the state before the crash."""
    async with running(SERVICE, path) as service:
        await append_until(service, 3)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("VACUUM INTO ?", (str(path.with_name("backup.db")),))
        await append_until(service, 5)
        await service.kill()
    shutil.copy(path.with_name("backup.db"), path)

    async with SqliteInbox(path, lock_timeout=0) as inbox:
        assert (await inbox.stats()).ready >= 100


@pytest.mark.slow
@pytest.mark.parametrize("how", ["touched", "without a note", "with a damaged note"])
async def test_a_healthy_file_is_used_after_a_crash(path, how, caplog):
    """Also if the note of the last checkpoint is lost, or the file has another time, as after a copy."""
    await leave_log(path)
    match how:
        case "touched":
            os.utime(path)
        case "without a note":
            path.with_name("inbox.db.lock").unlink()
        case "with a damaged note":
            path.with_name("inbox.db.lock").write_bytes(b"\xff\n\0\xff" * 100)

    async with SqliteInbox(path, lock_timeout=0) as inbox:
        assert (await inbox.stats()).ready >= 2000


@pytest.mark.slow
async def test_a_file_is_not_checked_after_an_ordinary_crash(path, monkeypatch):
    """A check of a large file takes minutes: only a crash right after a checkpoint needs it."""
    await leave_log(path)

    def check(path: Path) -> None:
        raise AssertionError

    monkeypatch.setattr(_database, "_check_log", check)
    async with SqliteInbox(path, lock_timeout=0) as inbox:
        assert (await inbox.stats()).ready >= 2000


@pytest.mark.slow
async def test_every_moment_of_a_kill_leaves_a_file_that_opens(path):
    """Each after some checkpoints."""
    for moment in range(8):
        async with running(SERVICE, path) as service:
            await append_until(service, 12 * (moment % 3) + 1)
            await asyncio.sleep(0.003 * moment)
            await service.kill()
        async with SqliteInbox(path, lock_timeout=0) as inbox:
            integrity = await inbox._read(lambda connection: connection.execute("PRAGMA integrity_check").fetchall())
            assert integrity == [("ok",)]
            assert len(await all_entries(inbox)) % 20 == 0


INTERRUPTED = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA journal_mode = DELETE")
connection.execute("PRAGMA cache_size = 1")
connection.execute("BEGIN")
connection.execute("UPDATE deliveries SET reason = randomblob(500)")
os._exit(0)
"""


async def leave_journal(path: Path) -> None:
    """Leave a file, and the journal of a transaction that did not end."""
    await fill(path, *(b"%d" % number * 500 for number in range(100)))
    subprocess.run([sys.executable, "-c", INTERRUPTED, path], check=True)  # noqa: ASYNC221
    assert path.with_name("inbox.db-journal").stat().st_size > 512


async def test_a_file_whose_first_transaction_was_interrupted_is_used(path):
    """SQLite rolls it back; that needs a connection that writes."""
    await leave_journal(path)
    path.with_name("inbox.db-wal").write_bytes(bytes(100))

    async with SqliteInbox(path, lock_timeout=0) as inbox:
        assert {entry.reason for entry in await all_entries(inbox)} == {""}


async def test_a_restored_file_gets_no_journal_of_the_old_one(path, tmp_path):
    """SQLite would roll back changes that the new file does not have."""
    copy = tmp_path / "backup.db"
    async with SqliteInbox(copy) as inbox:
        await inbox.append(Delivery(b"1"))
    await leave_journal(path)

    await restore(path, copy)

    assert not path.with_name("inbox.db-journal").exists()
    assert await bodies_in(path) == [b"1"]


@pytest.mark.slow
async def test_another_error_of_the_check_is_raised(path, monkeypatch):
    """It says nothing about the log."""

    def busy(_: sqlite3.Connection) -> None:
        error = sqlite3.OperationalError("database is locked")
        error.sqlite_errorcode = sqlite3.SQLITE_BUSY
        raise error

    await leave_log(path)
    os.utime(path)
    monkeypatch.setattr(_database, "find_damage", busy)
    with pytest.raises(InboxUnavailableError, match="database is locked"):
        await SqliteInbox(path, lock_timeout=0).__aenter__()


def test_a_file_that_is_not_a_database_is_damaged(path):
    """SQLite raises for it."""
    path.write_bytes(b"Not a database. " * 1000)
    with closing(sqlite3.connect(path)) as connection:
        assert _database.find_damage(connection) == "file is not a database"


def test_a_locked_file_is_not_taken_for_a_damaged_one(path):
    """Another process may be in the middle of a write."""
    with closing(sqlite3.connect(path)) as owner, closing(sqlite3.connect(path, timeout=0)) as other:
        owner.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            _database.find_damage(other)
