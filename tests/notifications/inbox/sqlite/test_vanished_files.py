"""`SqliteInbox` if its files are deleted, moved or replaced while they are open: nothing is acknowledged and lost."""

import errno
import logging
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from engines.unprivileged import report_missing
from notifications.inbox.faulty_inbox import FaultyInbox
from notifications.inbox.suite import LEASE, bodies_of

from callfire_async.errors import InboxError, InboxUnavailableError
from callfire_async.notifications import Postback, Receiver, Router, TextFinished
from callfire_async.notifications.inbox import Delivery
from callfire_async.notifications.inbox.memory import MemoryInbox
from callfire_async.notifications.inbox.spool import SpoolingInbox
from callfire_async.notifications.inbox.sqlite import SqliteInbox
from callfire_async.testing import samples


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder / "inbox.db"


def delete_all(path: Path) -> None:
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()


def delete_file(path: Path) -> None:
    path.unlink()


def delete_log(path: Path) -> None:
    path.with_name(f"{path.name}-wal").unlink()


def delete_directory(path: Path) -> None:
    shutil.rmtree(path.parent)


def move_directory(path: Path) -> None:
    path.parent.rename(path.parent.with_name("moved"))


def replace_directory(path: Path) -> None:
    move_directory(path)
    path.parent.mkdir()


def replace_file(path: Path) -> None:
    other = path.with_name("other.db")
    shutil.copy(path, other)
    other.replace(path)


def replace_log(path: Path) -> None:
    log = path.with_name(f"{path.name}-wal")
    shutil.copy(log, path.with_name("other-wal"))
    path.with_name("other-wal").replace(log)


def replace_with_directory(path: Path) -> None:
    delete_all(path)
    path.mkdir()


def replace_directory_with_file(path: Path) -> None:
    delete_directory(path)
    path.parent.touch()


CHANGES = [
    delete_all,
    delete_file,
    delete_log,
    delete_directory,
    move_directory,
    replace_directory,
    replace_file,
    replace_log,
    replace_with_directory,
    replace_directory_with_file,
]


def files_below(directory: Path) -> dict[Path, int]:
    """Return all files with their inodes."""
    return {path: path.stat().st_ino for path in directory.rglob("*")}


@pytest.mark.parametrize("change", CHANGES)
async def test_appends_fail_and_waiting_deliveries_are_handled(path, caplog, change: Callable[[Path], None]):
    """One error with the number of deliveries at risk; no file is created in place of the old one."""
    async with SqliteInbox(path) as inbox:
        await inbox.append_many([Delivery(b"1"), Delivery(b"2"), Delivery(b"3")])
        (leased,) = await inbox.claim(1, lease=LEASE)
        change(path)
        left = files_below(path.parent.parent)
        for number in range(3):
            with pytest.raises(
                InboxUnavailableError, match=r"inbox\.db was deleted, moved or replaced .*it accepts no deliveries"
            ):
                await inbox.append(Delivery(b"new %d" % number))
        with pytest.raises(InboxUnavailableError):
            await inbox.append_many([Delivery(b"new"), Delivery(b"newer")])

        assert (inbox.is_available, files_below(path.parent.parent)) == (False, left)
        assert await inbox.ack(leased)
        assert await bodies_of(inbox) == [b"2", b"3"]

    (error,) = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert "3 waiting deliveries are at risk" in error
    assert "data/inbox.db" in error


async def test_a_group_that_was_committed_after_the_file_vanished_fails(path):
    """The check after the commit, not only the one before it."""
    async with SqliteInbox(path) as inbox:

        def deleting_append(connection, deliveries):
            results = inbox._append(connection, deliveries)
            delete_all(path)
            return results

        with pytest.raises(InboxUnavailableError, match="No such file or directory"):
            await inbox._writer.submit_batched(deleting_append, Delivery(b"body"), is_append=True)


async def test_an_operation_that_is_not_an_append_finds_that_the_file_is_gone(path, caplog):
    """An idle service logs it as soon as the worker looks for deliveries."""
    async with SqliteInbox(path) as inbox:
        delete_all(path)

        assert await inbox.claim(1, lease=LEASE) == []
        assert (inbox.is_available, len(caplog.records)) == (False, 1)


@pytest.mark.parametrize("what", ["file", "directory"])
async def test_it_recovers_if_the_same_file_is_restored(path, caplog, what):
    """Without a restart."""
    place = path if what == "file" else path.parent
    async with SqliteInbox(path) as inbox:
        await inbox.append(Delivery(b"before"))
        place.rename(place.with_name("moved"))
        with pytest.raises(InboxUnavailableError):
            await inbox.append(Delivery(b"refused"))
        place.with_name("moved").rename(place)

        assert not (await inbox.append(Delivery(b"refused"))).duplicate
        assert inbox.is_available
        assert await bodies_of(inbox) == [b"before", b"refused"]
    assert "is back, accepting postbacks" in caplog.text


@pytest.mark.parametrize("change", CHANGES[:5])
async def test_a_restart_creates_a_new_inbox(path, change):
    """The lock of the old owner does not matter, and its close does not touch the new files."""
    old = await SqliteInbox(path).__aenter__()
    await old.append(Delivery(b"old"))
    change(path)
    with pytest.raises(InboxUnavailableError):
        await old.append(Delivery(b"refused"))
    if change in (delete_file, delete_log):
        await old.__aexit__(None, None, None)
    path.parent.mkdir(exist_ok=True)

    async with SqliteInbox(path, lock_timeout=0) as new:
        await new.append(Delivery(b"new"))
        await old.__aexit__(None, None, None)
        await new.append(Delivery(b"newer"))
    async with SqliteInbox(path) as again:
        # If only the log was deleted, closing copies what is in the open log into the file.
        assert await bodies_of(again) == [b"old"] * (change is delete_log) + [b"new", b"newer"]


async def test_a_symbolic_link_that_leads_elsewhere(path):
    """As in a deployment that re-points a link; the log is beside the target of the link."""
    for name in ("one", "two"):
        (path.parent / name).mkdir()
    link = path.parent / "current"
    link.symlink_to("one")
    async with SqliteInbox(link / "inbox.db") as inbox:
        await inbox.append(Delivery(b"before"))
        link.unlink()
        link.symlink_to("two")
        with pytest.raises(InboxUnavailableError):
            await inbox.append(Delivery(b"refused"))
        assert list((path.parent / "two").iterdir()) == []
        link.unlink()
        link.symlink_to("one")
        await inbox.append(Delivery(b"after"))

    path.symlink_to("one/inbox.db")
    async with SqliteInbox(path) as inbox:
        await inbox.append(Delivery(b"through a link"))
        path.unlink()
        path.symlink_to("two/inbox.db")
        with pytest.raises(InboxUnavailableError):
            await inbox.append(Delivery(b"refused"))
        assert await bodies_of(inbox) == [b"before", b"after", b"through a link"]


async def test_the_working_directory_may_change(path, monkeypatch):
    """A relative path is resolved once."""
    monkeypatch.chdir(path.parent)
    async with SqliteInbox("inbox.db") as inbox:
        monkeypatch.chdir(path.parent.parent)
        await inbox.append(Delivery(b"body"))


@pytest.mark.parametrize("change", [delete_all, replace_file, delete_directory])
async def test_an_error_of_the_disk_does_not_close_a_file_that_is_gone(path, change, monkeypatch):
    """What waits in it can still be handled."""

    def failing(_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    async with SqliteInbox(path) as inbox:
        await inbox.append(Delivery(b"waiting"))
        change(path)
        left = files_below(path.parent.parent)
        with pytest.raises(InboxUnavailableError, match="Input/output"):
            await inbox._write(failing)

        assert await bodies_of(inbox) == [b"waiting"]
        assert files_below(path.parent.parent) == left


async def test_a_file_that_is_deleted_while_it_is_closed_is_not_created_again(path, monkeypatch):
    """After an error of the disk the file is opened again; if it is gone by then, every operation fails."""

    def failing(_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    async with SqliteInbox(path) as inbox:
        await inbox.append(Delivery(b"lost"))
        with pytest.raises(InboxUnavailableError):
            await inbox._write(failing)
        path.rename(path.with_name("moved.db"))
        for operation in (inbox.stats, lambda: inbox.append(Delivery(b"refused"))):
            with pytest.raises(InboxUnavailableError):
                await operation()
        assert not path.exists()
        path.with_name("moved.db").rename(path)

        assert await bodies_of(inbox) == [b"lost"]
        await inbox.append(Delivery(b"back"))


async def test_a_file_that_vanishes_while_it_is_opened_is_an_error(path, monkeypatch):
    """The check compares with the files that SQLite has opened."""
    stat = os.stat

    def deleting_stat(name, **options):
        if str(name).endswith("-wal"):
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", name)
        return stat(name, **options)

    monkeypatch.setattr("callfire_async.notifications.inbox.sqlite._files.os.stat", deleting_stat)
    with pytest.raises(InboxUnavailableError, match="No such file"):
        await SqliteInbox(path).__aenter__()


async def ignore(event: TextFinished) -> None:
    """Handle an event."""


async def test_a_receiver_responds_503_and_is_not_ready(path, caplog):
    """Also if no postback arrives: the health check looks at the file."""
    router = Router()
    router.on(TextFinished)(ignore)
    receiver = Receiver(router, tokens=None, inbox=SqliteInbox(path), concurrency=0)
    postback = Postback("POST", "", {}, samples.body("TextSent"))
    async with receiver:
        stored = await receiver.receive(postback)
        before = await receiver.health()
        delete_all(path)
        after = await receiver.health()
        refused = await receiver.receive(postback)

    assert (stored.status, before.ready, after.ready, after.live, refused.status) == (204, True, False, True, 503)
    assert "the inbox cannot be written to" in after.reasons
    assert dict(refused.headers)["Retry-After"]


# --- directories and spools ---------------------------------------------------------------------------------------


async def test_a_file_of_a_directory(path):
    """Its own file; IDs and waiting deliveries stay."""
    async with SqliteInbox.in_directory(path.parent) as inbox:
        await inbox.append(Delivery(b"waiting"))
        for file in path.parent.iterdir():
            file.unlink()
        with pytest.raises(InboxUnavailableError):
            await inbox.append(Delivery(b"refused"))

        assert (inbox.is_available, await bodies_of(inbox)) == (False, [b"waiting"])
        assert list(path.parent.iterdir()) == []


async def test_a_file_that_was_taken_over(path, caplog):
    """It is handled to its end, and logged; the process's own file is not affected."""
    async with SqliteInbox(path) as left:
        await left.append(Delivery(b"left"))
    (path.parent / "inbox.db").rename(path.parent / "zzz.db")
    async with SqliteInbox(path.parent / "aaa.db") as own:
        await own.append(Delivery(b"own"))
    async with SqliteInbox.in_directory(path.parent) as inbox:
        assert inbox._files.own_name == "aaa"
        delete_all(path.parent / "zzz.db")
        await inbox.append(Delivery(b"accepted"))

        assert sorted([*await bodies_of(inbox), *await bodies_of(inbox)]) == [b"accepted", b"left", b"own"]
    assert "zzz.db was deleted, moved or replaced" in caplog.text


async def test_a_directory_that_is_gone(path):
    """Nothing is created in its place."""
    async with SqliteInbox.in_directory(path.parent) as inbox:
        await inbox.append(Delivery(b"waiting"))
        shutil.rmtree(path.parent)
        with pytest.raises(InboxUnavailableError):
            await inbox.append(Delivery(b"refused"))
        await inbox._files.take_over()

        assert (path.parent.exists(), await bodies_of(inbox)) == (False, [b"waiting"])


async def test_the_file_of_a_spool(path):
    """An inbox with a spool is available while its primary is."""
    primary = FaultyInbox(MemoryInbox())
    async with SpoolingInbox(primary, SqliteInbox(path), failure_threshold=1, drain_timeout=0) as inbox:
        delete_all(path)
        await inbox.append(Delivery(b"primary"))
        assert inbox.is_available
        primary.is_unavailable = True
        with pytest.raises(InboxError, match="accepts no deliveries"):
            await inbox.append(Delivery(b"refused"))

        assert (inbox.is_available, inbox.accepts_during_outage) == (False, False)


# --- file systems -------------------------------------------------------------------------------------------------


def mount(*arguments: str | Path) -> None:
    if os.geteuid() != 0 or subprocess.run(["mount", *arguments], check=False).returncode != 0:
        report_missing("the right to mount file systems", "run the tests as root")


async def test_another_file_system_over_the_directory(path):
    """A bind mount, or a volume that is mounted late; it recovers when that is unmounted."""
    async with SqliteInbox(path) as inbox:
        await inbox.append(Delivery(b"before"))
        mount("-t", "tmpfs", "tmpfs", path.parent)
        try:
            with pytest.raises(InboxUnavailableError):
                await inbox.append(Delivery(b"refused"))
            assert list(path.parent.iterdir()) == []
        finally:
            subprocess.run(["umount", path.parent], check=True)  # noqa: ASYNC221
        await inbox.append(Delivery(b"after"))

        assert await bodies_of(inbox) == [b"before", b"after"]


async def test_a_read_only_file_system(path):
    """The error names it; the inbox opens once the file system is writable."""
    mount("-t", "tmpfs", "-o", "ro", "tmpfs", path.parent)
    try:
        with pytest.raises(InboxUnavailableError, match=r"inbox\.db\.lock cannot be opened: Read-only file system"):
            await SqliteInbox(path).__aenter__()
        subprocess.run(["mount", "-o", "remount,rw", path.parent], check=True)  # noqa: ASYNC221
        async with SqliteInbox(path) as inbox:
            await inbox.append(Delivery(b"body"))
    finally:
        subprocess.run(["umount", path.parent], check=True)  # noqa: ASYNC221


async def test_a_file_that_is_made_read_only_while_it_is_open_still_stores(path):
    """Permissions count when a file is opened."""
    async with SqliteInbox(path) as inbox:
        path.chmod(0o400)
        await inbox.append(Delivery(b"body"))

        assert await bodies_of(inbox) == [b"body"]
