"""The lock of an inbox file: who is named as its owner, and processes that are forked from the owner."""

import asyncio
import logging
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from notifications.inbox.processes import DEADLINE, kill, running
from notifications.inbox.suite import bodies_of, lease_of

from callfire_async.errors import InboxError, InboxLockedError
from callfire_async.notifications.inbox import Delivery
from callfire_async.notifications.inbox.sqlite import SqliteInbox, _lock
from callfire_async.notifications.inbox.sqlite._lock import FileLock
from callfire_async.notifications.inbox.sqlite.control import connect_to_owner


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "inbox.db"


OWNER_SCRIPT = """
async with SqliteInbox(sys.argv[1]) as inbox:
    await inbox.append(Delivery(b"body"))
    report("owned")
    await proceed()
"""

# Each starts children in another way, reports their IDs, and waits to be killed.
FORKS = {
    "process pool": """
from concurrent.futures import ProcessPoolExecutor
import multiprocessing
async with {inbox} as inbox:
    await inbox.append(Delivery(b"body"))
    pool = ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork"))
    pool.submit(os.getpid).result()
    report(*(child.pid for child in multiprocessing.active_children()))
    await proceed()
""",
    "multiprocessing": """
import multiprocessing, time
async with {inbox} as inbox:
    await inbox.append(Delivery(b"body"))
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    child.start()
    report(child.pid)
    await proceed()
""",
    "os.fork": """
import time
async with {inbox} as inbox:
    await inbox.append(Delivery(b"body"))
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    report(child)
    await proceed()
""",
    "subprocess": """
import subprocess
async with {inbox} as inbox:
    await inbox.append(Delivery(b"body"))
    report(subprocess.Popen(["sleep", "60"], close_fds=False, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL).pid)
    await proceed()
""",
}


@contextmanager
def killed_at_the_end(pids: list[int]) -> Iterator[None]:
    try:
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("how", FORKS)
async def test_forked_children_do_not_keep_the_lock_of_a_killed_owner(path, how):
    """The next owner opens the file at once."""
    async with running(FORKS[how].format(inbox="SqliteInbox(sys.argv[1])"), path) as owner:
        children = [int(pid) for pid in (await owner.read_line()).split()]
        with killed_at_the_end(children):
            await kill(owner.pid)
            for pid in children:
                os.kill(pid, 0)

            # A child closes the lock as soon as it runs, which may be after its parent was killed.
            async with SqliteInbox(path, lock_timeout=DEADLINE) as inbox:
                assert await bodies_of(inbox) == [b"body"]


@pytest.mark.slow
@pytest.mark.parametrize("how", FORKS)
async def test_forked_children_do_not_strand_the_deliveries_of_a_directory(tmp_path, how):
    """The next process takes over the file of the killed one."""
    async with running(FORKS[how].format(inbox="SqliteInbox.in_directory(sys.argv[1])"), tmp_path) as owner:
        children = [int(pid) for pid in (await owner.read_line()).split()]
        with killed_at_the_end(children):
            await kill(owner.pid)
            lock = FileLock(next(tmp_path.glob("*.db")))
            await lock.acquire(DEADLINE)
            lock.release()

            async with SqliteInbox.in_directory(tmp_path) as inbox:
                assert await bodies_of(inbox) == [b"body"]


async def test_an_owner_that_closes_releases_the_lock_of_its_children_too(path, monkeypatch):
    """Also if the fork was made without Python's knowledge, imitated by a copy of the descriptor."""
    inbox = await SqliteInbox(path).__aenter__()
    inherited = os.dup(inbox._lock._file)
    await inbox.__aexit__(None, None, None)

    async with SqliteInbox(path, lock_timeout=0) as again:
        assert (await again.stats()).ready == 0
    os.close(inherited)


@pytest.mark.slow
async def test_the_process_that_inherited_the_lock_is_named(path):
    """Not the process that is dead."""
    script = "import sys; sys.stdin.read()"
    async with running(OWNER_SCRIPT, path) as owner:
        await owner.read_line()
        await owner.kill()
    lock = FileLock(path)
    await lock.acquire(0)
    # A child that has the lock, and the ID of a dead process in the file.
    child = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", script], stdin=subprocess.PIPE, pass_fds=[lock._file]
    )
    os.pwrite(lock._file, f"{owner.pid}\n".encode(), 0)
    lock.close()
    _lock._held.discard(lock)
    try:
        with pytest.raises(
            InboxLockedError, match=rf"process {child.pid}, which inherited the lock from process {owner.pid};"
        ):
            await SqliteInbox(path, lock_timeout=0).__aenter__()
    finally:
        child.communicate()


@pytest.mark.slow
async def test_an_owner_that_cannot_be_found(path, monkeypatch):
    """As in another container, or on a system that does not show it."""
    async with running(OWNER_SCRIPT, path) as owner:
        await owner.read_line()
        path.with_name("inbox.db.lock").write_text("4194305\n")
        monkeypatch.setattr(_lock, "_holders", lambda _: set())

        with pytest.raises(
            InboxLockedError, match="process 4194305, if it runs in another container, or else one that"
        ):
            await SqliteInbox(path, lock_timeout=0).__aenter__()


@pytest.mark.slow
async def test_a_process_of_another_user_is_running(path, monkeypatch):
    """It may not be signalled."""

    def not_permitted(*_: object) -> None:
        raise PermissionError

    async with running(OWNER_SCRIPT, path) as owner:
        await owner.read_line()
        monkeypatch.setattr(os, "kill", not_permitted)
        with pytest.raises(InboxLockedError, match=f"owned by process {owner.pid};"):
            await SqliteInbox(path, lock_timeout=0).__aenter__()
        monkeypatch.undo()


# --- in a forked child --------------------------------------------------------------------------------------------


def in_child(run: object) -> str:
    """Run a coroutine function in a forked child, and return its result or its error."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            result = repr(asyncio.run(run()))
        except BaseException as error:  # noqa: BLE001  # the parent checks it
            result = f"{type(error).__name__}: {error}"
        os.write(writer, result.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        result = file.read()
    os.waitpid(child, 0)
    return result


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("operation", ["append", "append_many", "claim", "stats", "wait"])
async def test_the_inbox_of_the_parent_cannot_be_used_in_a_child(path, operation):
    """Its thread is not in the child, and SQLite does not support it."""
    async with SqliteInbox(path) as inbox:
        operations = {
            "append": lambda: inbox.append(Delivery(b"child")),
            "append_many": lambda: inbox.append_many([Delivery(b"child")]),
            "claim": lambda: inbox.claim(1, lease=1),
            "stats": inbox.stats,
            "wait": lambda: inbox.wait(1),
        }
        result = await asyncio.to_thread(in_child, operations[operation])
        await inbox.append(Delivery(b"parent"))

        assert await bodies_of(inbox) == [b"parent"]
    assert result.startswith("InboxError: the inbox ")
    assert f"was opened by process {os.getpid()}, from which this process was forked" in result


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
async def test_a_child_can_leave_the_inbox_of_its_parent(path):
    """It neither hangs, nor releases the lock, nor closes the file."""
    inbox = await SqliteInbox(path).__aenter__()

    async def leave() -> None:
        await inbox.__aexit__(None, None, None)

    assert await asyncio.to_thread(in_child, leave) == "None"

    await inbox.append(Delivery(b"parent"))
    with pytest.raises(InboxLockedError):
        await SqliteInbox(path, lock_timeout=0).__aenter__()
    await inbox.__aexit__(None, None, None)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
async def test_a_child_cannot_own_the_file_of_its_parent(path):
    """The parent has the lock; the parent is named, not the child."""

    async def own() -> None:
        await SqliteInbox(path, lock_timeout=0).__aenter__()

    async with SqliteInbox(path):
        result = await asyncio.to_thread(in_child, own)

    assert result.startswith("InboxLockedError: ")
    assert f"owned by process {os.getpid()};" in result


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
async def test_a_child_can_have_an_inbox_of_its_own(path):
    """In another file."""

    async def append() -> bool:
        async with SqliteInbox(path.with_name("other.db")) as other:
            return (await other.append(Delivery(b"child"))).duplicate

    async with SqliteInbox(path):
        assert await asyncio.to_thread(in_child, append) == "False"


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
async def test_a_child_that_exits_normally_leaves_the_file_intact(path):
    """Python's cleanup does not close the connection of the parent."""
    async with SqliteInbox(path) as inbox:
        for number in range(20):
            await inbox.append(Delivery(b"%d" % number))
            child = multiprocessing.get_context("fork").Process(target=sys.exit)
            child.start()
            child.join()

        assert len(await bodies_of(inbox)) == 20
        integrity = await inbox._read(lambda connection: connection.execute("PRAGMA integrity_check").fetchall())
    assert integrity == [("ok",)]


async def test_the_steps_in_a_child_one_by_one(path, monkeypatch):
    """The same in this process, because the coverage of a forked child is not measured."""
    inbox = await SqliteInbox(path).__aenter__()
    real = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: real + 1)
    with pytest.raises(InboxError, match=f"was opened by process {real}"):
        await inbox.append(Delivery(b"child"))
    await inbox._writer.stop()
    monkeypatch.undo()
    await inbox.append(Delivery(b"parent"))
    await inbox.__aexit__(None, None, None)

    lock = FileLock(path)
    await lock.acquire(0)
    listener = lock.attach(lambda: socket.socket(socket.AF_UNIX))
    without_socket = FileLock(path.with_name("other.db"))
    await without_socket.acquire(0)
    _lock._fork_mutex.acquire()
    _lock._close_inherited_locks()
    assert listener.fileno() == -1
    lock.release()
    without_socket.release()
    async with SqliteInbox(path, lock_timeout=0) as again:
        assert await bodies_of(again) == [b"parent"]


# --- waiting ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_waiting_for_the_owner_is_logged_at_once(path, caplog):
    """With the owner's process ID; before, a rolling deployment looked like a process that hangs."""
    async with running(OWNER_SCRIPT, path) as owner:
        await owner.read_line()
        opening = asyncio.create_task(SqliteInbox(path, lock_timeout=60).__aenter__())
        await asyncio.sleep(0)

        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert "waiting up to 60 s" in record.getMessage()
        assert f"owned by process {owner.pid}" in record.getMessage()
        await owner.proceed()
        await (await opening).__aexit__(None, None, None)


async def test_a_file_that_is_open_in_this_process_is_named_as_such(path, caplog):
    """With the alternatives, in the warning and in the error."""
    async with SqliteInbox(path):
        with pytest.raises(InboxLockedError) as raised:
            await SqliteInbox(path, lock_timeout=0.01).__aenter__()

    for message in (str(raised.value), caplog.records[0].getMessage()):
        assert f"owned by process {os.getpid()}, which is this process" in message
        assert "read_only=True" in message
        assert "SqliteInbox.in_directory()" in message


@pytest.mark.parametrize("first", ["inbox.db", "link.db"])
async def test_a_file_with_several_names_has_one_owner(path, first):
    """A second one would make the deliveries ready that the first has leased."""
    link = path.with_name("link.db")
    path.touch()
    link.symlink_to(path)
    names = {"inbox.db": path, "link.db": link}
    async with SqliteInbox(names.pop(first)) as inbox:
        await inbox.append(Delivery(b"body"))
        lease = await lease_of(inbox)
        (other,) = names.values()
        with pytest.raises(InboxLockedError, match="it has the file open already"):
            await SqliteInbox(other, lock_timeout=0).__aenter__()

        owner = await connect_to_owner(other, DEADLINE)
        assert (owner is not None, await inbox.ack(lease)) == (True, True)
        await owner.__aexit__(None, None, None)


async def test_a_link_may_be_changed_before_the_file_is_opened(path):
    """The lock is that of the file to which the link leads then."""
    link = path.with_name("link.db")
    link.symlink_to(path.with_name("old.db"))
    inbox = SqliteInbox(link)
    link.unlink()
    path.touch()
    link.symlink_to(path)
    async with inbox:
        with pytest.raises(InboxLockedError):
            await SqliteInbox(path, lock_timeout=0).__aenter__()


@pytest.mark.slow
async def test_a_process_with_the_same_id_in_another_container_is_not_this_process(path, monkeypatch):
    """Only the locks that this process holds count."""
    async with running(OWNER_SCRIPT, path) as owner:
        await owner.read_line()
        path.with_name("inbox.db.lock").write_text(f"{os.getpid()}\n")

        with pytest.raises(InboxLockedError, match=f"owned by process {os.getpid()}; stop that process"):
            await SqliteInbox(path, lock_timeout=0).__aenter__()
        lock = FileLock(path)
        monkeypatch.setattr(lock, "_lock_path", path.with_name("missing"))
        assert not lock._is_held_here()


async def test_a_free_file_is_opened_without_a_warning(path, caplog):
    """Also with a timeout of 0, which directories use."""
    for timeout in (30, 0):
        async with SqliteInbox(path, lock_timeout=timeout):
            pass
    async with SqliteInbox(path):
        with pytest.raises(InboxError):
            await SqliteInbox(path, lock_timeout=0).__aenter__()

    assert caplog.records == []
