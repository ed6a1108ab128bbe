"""Several processes, a file for each: who takes what over, and when it is let go."""

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
def folder(tmp_path: Path) -> Path:
    return tmp_path / "inboxes"


@pytest.fixture
def restless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute is over soon."""
    monkeypatch.setattr(_directory, "_TAKE_OVER_SECONDS", 0.01)


def files(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.db"))


async def left_behind(folder: Path, *bodies: bytes) -> str:
    """Make what a process leaves that was stopped before it was done; return the file's name."""
    folder.mkdir(exist_ok=True)  # noqa: ASYNC240  # one folder, and nobody waits
    name = f"left{len(files(folder))}"
    async with SqliteInbox(folder / f"{name}.db") as inbox:
        await inbox.append_many([Delivery(body) for body in bodies])
    return name


@asynccontextmanager
async def workers(folder: Path, count: int) -> AsyncIterator[list[int]]:
    """Run several; yield their process numbers once each has its three deliveries, and kill them in the end."""
    async with AsyncExitStack() as stack:
        children = [await stack.enter_async_context(running(WORKER, folder)) for _ in range(count)]
        for child in children:
            assert await child.read_line() == "ready"
        yield [child.pid for child in children]
        for child in children:
            await child.kill()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(DEADLINE):
        while not await condition():  # noqa: ASYNC110  # another process does not set our events
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


async def test_each_process_has_a_file_of_its_own(folder):
    """Which its ids name; the folder is its user's only."""
    async with SqliteInbox.in_directory(folder) as one, SqliteInbox.in_directory(folder) as other:
        ids = [(await inbox.append(Delivery(b"same"))).id for inbox in (one, other)]

        assert sorted(ids) == [f"{name}/1" for name in files(folder)]
        assert [await bodies_of(inbox) for inbox in (one, other)] == [[b"same"], [b"same"]]
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


async def test_restarts_do_not_fill_the_folder(folder):
    """
    A process that starts takes a file that is there.

    The first of two takes over what the second left, which then begins another; but what is drained is there for the
    next.
    """
    for _ in range(5):
        async with SqliteInbox.in_directory(folder) as one, SqliteInbox.in_directory(folder) as other:
            for inbox in (one, other, one, other):
                for lease in await inbox.claim(10, lease=LEASE):
                    await inbox.ack(lease)
            await one.append(Delivery(b"one"))
            await other.append(Delivery(b"other"))

    assert len(files(folder)) <= 3


async def test_what_is_another_processes_is_not_touched(folder):
    """Its ids name nothing here, and its leases cannot be settled."""
    async with SqliteInbox.in_directory(folder) as one, SqliteInbox.in_directory(folder) as other:
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


async def test_what_any_of_them_acked_is_seen_by_all(folder):
    """Those that live, and those that are gone."""
    async with workers(folder, 1) as pids, SqliteInbox.in_directory(folder) as inbox:
        await inbox.append(Delivery(b"body"))
        await inbox.ack(await lease_of(inbox), event_key="own event")

        assert await inbox.handled(["own event", f"event {pids[0]}", "no event"]) == {"own event", f"event {pids[0]}"}


# --- taking over --------------------------------------------------------------------------------------------------


async def test_four_workers_become_two(folder):
    """All that the four left is handed out by the two, each once; what was in hand counts as a crash."""
    async with workers(folder, 4) as pids:
        pass
    handed_out: list[tuple[bytes, int]] = []

    async with SqliteInbox.in_directory(folder) as one, SqliteInbox.in_directory(folder) as other:
        for inbox in (one, other) * 8:
            for lease in await inbox.claim(10, lease=LEASE):
                handed_out.append((lease.delivery.body, lease.crashes))
                await inbox.ack(lease)
        left = [await inbox.stats() for inbox in (one, other)]

    assert Counter(body for body, _ in handed_out) == Counter(
        f"{pid} {number}".encode() for pid in pids for number in range(3)
    )
    assert Counter(crashes for _, crashes in handed_out) == {1: 4, 0: 8}
    assert sum(stats.ready + stats.leased + stats.delayed for stats in left) == 0


async def test_what_a_process_leaves_is_taken_over_while_others_run(folder, restless):
    """Within a minute, and whoever waits for work is told; a process that lives keeps its own."""
    async with SqliteInbox.in_directory(folder) as inbox:
        async with workers(folder, 2) as pids:
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


async def test_a_file_in_which_nothing_is_left_is_let_go(folder, restless):
    """Then a new process may have it for its own."""
    async with SqliteInbox.in_directory(folder) as inbox:
        name = await left_behind(folder, b"body")
        await until(lambda: taken(inbox))
        lease = await lease_of(inbox)
        held = await is_free(folder / f"{name}.db")
        await inbox.ack(lease)

        await until(lambda: is_free(folder / f"{name}.db"))
        assert (held, await inbox.ack(lease), await inbox.get(lease.id)) == (False, False, None)


async def taken(inbox: Inbox) -> bool:
    return (await inbox.stats()).ready > 0


@pytest.mark.parametrize("what", ["dead", "delayed"])
async def test_a_file_in_which_something_is_left_is_kept(folder, restless, what):
    """A retry is due later, and a dead letter can be listed and replayed only where it is held."""
    async with SqliteInbox.in_directory(folder) as inbox:
        await left_behind(folder, b"body")
        await until(lambda: taken(inbox))
        lease = await lease_of(inbox)
        await (inbox.dead_letter(lease, "because") if what == "dead" else inbox.nack(lease, delay=LEASE))
        await left_behind(folder, b"later")
        await until(lambda: taken(inbox))

        stats = await inbox.stats()
        assert (await inbox.get(lease.id) is not None, stats.dead + stats.delayed) == (True, 1)
        assert await inbox.replay([lease.id]) == (what == "dead")


async def test_dead_letters_of_all_files_are_listed_replayed_and_purged(folder):
    """As if they were in one."""
    await left_behind(folder, b"1")
    await left_behind(folder, b"2")
    async with SqliteInbox.in_directory(folder) as inbox:
        leases = [await lease_of(inbox), await lease_of(inbox)]
        for lease in leases:
            await inbox.dead_letter(lease, "because")

        assert [entry.id for entry in await all_entries(inbox, "dead")] == sorted(lease.id for lease in leases)
        assert await inbox.replay() == 2
        assert sorted([*await bodies_of(inbox), *await bodies_of(inbox)]) == [b"1", b"2"]


async def test_the_files_take_turns(folder):
    """What was taken over waits no longer than what comes in now, however much that is."""
    await left_behind(folder, b"old 1", b"old 2")
    async with SqliteInbox(folder / "zzz.db") as inbox:
        await inbox.append_many([Delivery(b"older 1"), Delivery(b"older 2")])
    async with SqliteInbox.in_directory(folder) as inbox:
        bodies: list[bytes] = []
        for number in range(6):
            await inbox.append(Delivery(b"new %d" % number))
            bodies += await bodies_of(inbox, limit=1)

    assert {b"old 1", b"old 2", b"older 1", b"older 2"} <= set(bodies)


async def test_stats_are_those_of_all_files(folder):
    """The oldest of all is the oldest."""
    await left_behind(folder, b"1", b"2")
    await left_behind(folder, b"3")
    async with SqliteInbox.in_directory(folder) as inbox:
        ready = await inbox.stats()
        await inbox.claim(10, lease=LEASE)
        await inbox.claim(10, lease=LEASE)
        leased = await inbox.stats()

    assert (ready.ready, ready.oldest_ready_age > 0) == (3, True)
    assert leased == InboxStats(leased=3)


# --- what can go wrong --------------------------------------------------------------------------------------------


async def test_a_damaged_file_is_left_where_it_is(folder, caplog):
    """And said so; the others are worked on."""
    name = await left_behind(folder, b"body")
    damaged = folder / "damaged.db"
    damaged.write_bytes(b"Dear diary, " * 1000)

    async with SqliteInbox.in_directory(folder) as inbox:
        lease = await lease_of(inbox)
        await inbox.ack(lease, event_key="event")

        assert (lease.id, await inbox.handled(["event"])) == (f"{name}/1", {"event"})

    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert errors
    assert all("damaged.db" in error for error in errors)
    assert damaged.read_bytes() == b"Dear diary, " * 1000


@pytest.mark.parametrize("how", ["claim", "stats", "take over"])
async def test_a_file_that_fails_after_it_was_taken_over_is_let_go(folder, caplog, restless, how, monkeypatch):
    """It holds up nothing else."""
    monkeypatch.setattr(_database, "_BUSY_SECONDS", 0.01)
    async with SqliteInbox.in_directory(folder) as inbox:
        own = await inbox.append(Delivery(b"own"))
        name = await left_behind(folder, b"taken over")
        await until(lambda: has_ready(inbox, 2))
        with closing(sqlite3.connect(folder / f"{name}.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            if how == "claim":
                claimed = [*await inbox.claim(1, lease=LEASE), *await inbox.claim(1, lease=LEASE)]
                assert [lease.id for lease in claimed] == [own.id]
            elif how == "stats":
                assert (await inbox.stats()).ready == 1
            else:
                await until(lambda: let_go(inbox, name))
        await until(lambda: has_ready(inbox, 1 if how == "claim" else 2))

    assert f"closing inbox file {name} after an error" in caplog.text


async def has_ready(inbox: Inbox, count: int) -> bool:
    return (await inbox.stats()).ready == count


async def let_go(inbox: SqliteDirectoryInbox, name: str) -> bool:
    return name not in inbox._files.inboxes


async def test_a_file_that_fails_is_let_go_once(folder, monkeypatch):
    """Though several may have asked it."""
    monkeypatch.setattr(_database, "_BUSY_SECONDS", 0.01)
    name = await left_behind(folder, b"taken over")
    async with SqliteInbox(folder / "a.db"):
        pass
    async with SqliteInbox.in_directory(folder) as inbox:
        with closing(sqlite3.connect(folder / f"{name}.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            stats = await asyncio.gather(*(inbox.stats() for _ in range(3)))

        assert (stats, await is_free(folder / f"{name}.db")) == ([InboxStats()] * 3, True)


async def test_when_its_own_file_fails_it_says_so(folder, monkeypatch):
    """A postback must be refused then; and whoever waits is not left in a tight circle."""
    monkeypatch.setattr(_database, "_BUSY_SECONDS", 0.01)
    async with SqliteInbox.in_directory(folder) as inbox:
        (name,) = files(folder)
        with closing(sqlite3.connect(folder / f"{name}.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for use in (inbox.append(Delivery(b"body")), inbox.claim(1, lease=LEASE), inbox.stats(), inbox.wait(LEASE)):
                with pytest.raises(InboxUnavailableError, match="locked"):
                    await use

        await inbox.append(Delivery(b"body"))
        assert await bodies_of(inbox) == [b"body"]


async def test_a_file_that_is_being_made_is_no_error(folder, caplog):
    """Its owner has it locked, and has not come to the tables yet."""
    caplog.set_level(logging.ERROR)
    folder.mkdir()
    lock = FileLock(folder / "new.db")
    await lock.acquire(0)
    (folder / "new.db").touch()

    async with SqliteInbox.in_directory(folder) as inbox:
        assert await inbox.stats() == InboxStats()
    lock.release()

    assert caplog.records == []


async def test_a_file_that_cannot_be_asked_is_named(folder, caplog):
    """What was acked there may be handled again; nothing worse."""
    folder.mkdir()
    async with SqliteInbox.in_directory(folder) as inbox:
        (folder / "empty.db").touch()

        assert await inbox.handled(["event"]) == frozenset()
    assert "empty.db is no inbox" in caplog.text


async def test_a_file_that_was_begun_and_left_is_taken(folder):
    """By whoever starts next."""
    folder.mkdir()
    (folder / "empty.db").touch()

    async with SqliteInbox.in_directory(folder) as inbox:
        assert (await inbox.append(Delivery(b"body"))).id == "empty/1"


async def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path):
    """The error is ours."""
    (tmp_path / "file").touch()

    with pytest.raises(InboxUnavailableError, match="cannot be created: Not a directory"):
        await SqliteInbox.in_directory(tmp_path / "file" / "folder").__aenter__()


@pytest.mark.parametrize("when", ["before", "after"])
async def test_it_must_be_open(folder, when):
    """The words say how."""
    inbox = SqliteInbox.in_directory(folder)
    if when == "after":
        async with inbox:
            pass

    for use in (
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
            await use


class Flaky:
    """Opens files as a process does that has too many open at times."""

    def __init__(self) -> None:
        self.fails = False
        self.failed = 0

    def __call__(self, path: Path, *, read_only: bool) -> Inbox:
        if self.fails:
            self.failed += 1
            raise OSError("too many open files")
        return SqliteInbox(path, lock_timeout=0, read_only=read_only)


async def test_taking_over_goes_on_after_an_error(folder, restless, caplog):
    """Whatever it was: in a minute it may be gone."""
    open_file = Flaky()
    async with SqliteDirectoryInbox(folder, open_file) as inbox:
        open_file.fails = True
        await left_behind(folder, b"body")
        await until(lambda: has_failed(open_file))
        open_file.fails = False

        await until(lambda: taken(inbox))
    assert "cannot take over the files" in caplog.text


async def has_failed(open_file: Flaky) -> bool:
    return open_file.failed > 1


async def test_a_start_that_fails_lets_everything_go(folder):
    """The next may have all of it at once."""
    first = await left_behind(folder, b"1")
    second = await left_behind(folder, b"2")

    def open_file(path: Path, *, read_only: bool) -> Inbox:
        if read_only:
            raise OSError("too many open files")
        return SqliteInbox(path, lock_timeout=0)

    with pytest.raises(OSError, match="too many"):
        await SqliteDirectoryInbox(folder, open_file).__aenter__()

    assert [await is_free(folder / f"{name}.db") for name in (first, second)] == [True, True]


async def test_closing_that_is_cancelled_lets_everything_go(folder):
    """Another process may start at once."""
    names = [await left_behind(folder, b"1"), await left_behind(folder, b"2")]
    inbox = await SqliteInbox.in_directory(folder).__aenter__()
    leaving = asyncio.create_task(inbox.__aexit__(None, None, None))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait([leaving])

    assert [await is_free(folder / f"{name}.db") for name in names] == [True, True]


async def test_closing_that_is_cancelled_lets_go_of_what_is_being_taken_over_too(folder, restless, monkeypatch):
    """Though the disk, or whoever copies the file, has a thread wait: it is over when the closing is."""
    monkeypatch.setattr(_database, "_BUSY_SECONDS", 1.0)
    inbox = await SqliteInbox.in_directory(folder).__aenter__()
    name = await left_behind(folder, b"1")
    with closing(sqlite3.connect(folder / f"{name}.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        await until(lambda: is_owned(folder / f"{name}.db"))
        leaving = asyncio.create_task(inbox.__aexit__(None, None, None))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait([leaving])
    owned = await is_owned(folder / f"{name}.db")

    assert (owned, leaving.cancelled()) == (False, True)


async def test_a_file_that_is_let_go_while_another_is_asked_has_no_answer(folder):
    """The list of files may change at every turn of the loop."""
    await left_behind(folder, b"1")
    await left_behind(folder, b"2")
    async with SqliteInbox.in_directory(folder) as inbox:
        other = next(name for name in inbox._files.inboxes if name != inbox._files.own_name)
        counting = asyncio.create_task(inbox.stats())
        listing = asyncio.create_task(all_entries(inbox))
        await asyncio.sleep(0)
        await inbox._files.close_file(other, inbox._files.inboxes[other])

        assert (await counting).ready in (1, 2)
        assert len(await listing) in (1, 2)


async def test_a_folder_is_looked_at_while_others_own_its_files(folder):
    """All files at once, the owners undisturbed; nothing is taken over, made or changed."""
    async with SqliteInbox.in_directory(folder) as one, SqliteInbox.in_directory(folder) as other:
        appended = [await one.append(Delivery(b"1")), await other.append(Delivery(b"2"))]
        files = sorted(folder.iterdir())
        async with SqliteInbox.in_directory(folder, read_only=True) as view:
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
        assert sorted(folder.iterdir()) == files


async def test_an_empty_folder_can_be_looked_at(tmp_path):
    """There is nothing in it; one that is missing is not made."""
    view = SqliteInbox.in_directory(tmp_path, read_only=True)
    async with view:
        assert await view.stats() == InboxStats()
    with pytest.raises(InboxError, match="not open"):
        await view.stats()
    with pytest.raises(InboxUnavailableError, match="does not exist"):
        async with SqliteInbox.in_directory(tmp_path / "missing", read_only=True):
            pass
    assert not (tmp_path / "missing").exists()


async def test_a_file_that_cannot_be_read_is_left_out_aloud(folder, caplog):
    """The others are shown."""
    await left_behind(folder, b"1")
    (folder / "notes.db").write_text("notes")

    async with SqliteInbox.in_directory(folder, read_only=True) as view:
        assert (await view.stats()).ready == 1

    assert "skipping an inbox file that cannot be opened: " in caplog.text
