"""The control socket of an inbox file: requests of other processes, garbage, stale sockets, long paths and forks."""

import asyncio
import errno
import json
import logging
import os
import signal
import socket
import stat
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from notifications.inbox.processes import DEADLINE, kill, running

from callfire_async.errors import InboxError, InboxUnavailableError
from callfire_async.notifications import Receiver, Router
from callfire_async.notifications.inbox import Delivery
from callfire_async.notifications.inbox.sqlite import SqliteInbox, control
from callfire_async.notifications.inbox.sqlite.control import connect_to_owner, control_path
from callfire_async.testing import encode, make_text_received

OWNER = """
async with SqliteInbox(sys.argv[1]) as inbox:
    await inbox.append_many([Delivery(b"1"), Delivery(b"2")])
    for lease in await inbox.claim(2, lease=60):
        await inbox.dead_letter(lease, "why")
    report("open")
    await proceed()
    report((await inbox.stats()).ready)
    await proceed()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "inbox.db"


async def add_dead_letters(inbox: SqliteInbox, count: int) -> list[str]:
    await inbox.append_many([Delivery(b"%d" % number) for number in range(count)])
    leases = await inbox.claim(count, lease=60)
    await asyncio.gather(*(inbox.dead_letter(lease, "why") for lease in leases))
    return [str(lease.id) for lease in leases]


async def replay(path: Path, ids: list[str]) -> int:
    owner = await connect_to_owner(path, DEADLINE)
    assert owner is not None
    async with owner:
        return await owner.replay(ids)


async def call(path: Path, *lines: bytes) -> list[dict]:
    """Send lines to the owner, and return all its responses until it closes the connection."""
    reader, writer = await asyncio.open_unix_connection(control_path(path))
    async with asyncio.timeout(DEADLINE):
        writer.writelines(lines)
        writer.write_eof()
        responses = (await reader.read()).splitlines()
    writer.close()
    return [json.loads(response) for response in responses]


@asynccontextmanager
async def fake_owner(path: Path, *responses: bytes) -> AsyncIterator[None]:
    """Listen as an owner would; send the first response at once, and each of the others after a request."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for response in responses:
            writer.write(response)
            if response is not responses[-1]:
                await reader.readline()
        writer.close()

    server = await asyncio.start_unix_server(serve, control_path(path))
    async with server:
        yield


# --- requests -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_another_process_replays_dead_letters(path):
    """The owner makes them ready, counts them and continues."""
    async with running(OWNER, path) as owner:
        await owner.read_line()

        assert await replay(path, ["1"]) == 1
        assert await replay(path, ["1", "2", "3", "not an ID"]) == 1
        await owner.proceed()
        assert await owner.read_line() == "2"


async def test_the_service_handles_what_is_replayed(path, caplog):
    """At once, and an INFO says that there was a request."""
    caplog.set_level(logging.INFO, "callfire_async.inbox")
    router, handled = Router(), asyncio.Event()

    @router.fallback
    async def handle(event) -> None:
        handled.set()

    async with SqliteInbox(path) as inbox:
        content_type, body = encode(make_text_received())
        await inbox.append(Delivery(body, content_type))
        (lease,) = await inbox.claim(1, lease=60)
        await inbox.dead_letter(lease, "why")
    inbox = SqliteInbox(path)
    async with Receiver(router, tokens=None, inbox=inbox) as receiver:
        assert await replay(path, ["1"]) == 1
        await receiver.idle(timeout=DEADLINE)

        assert (handled.is_set(), (await inbox.stats()).done) == (True, 1)
    assert f"another process has replayed 1 dead letters through {control_path(path)}" in caplog.text


async def test_many_ids_are_sent_in_several_requests(path):
    """Each is short, so that postbacks do not wait for one long transaction."""
    async with SqliteInbox(path) as inbox:
        ids = await add_dead_letters(inbox, 2001)

        assert await replay(path, ids) == 2001
        assert await replay(path, []) == 0


async def test_a_read_only_inbox_does_not_listen(path):
    """The socket belongs to the owner, and is removed when the owner closes the file."""
    async with SqliteInbox(path):
        assert stat.S_IMODE(control_path(path).lstat().st_mode) == 0o600
    async with SqliteInbox(path, read_only=True):
        assert not control_path(path).exists()
        assert await connect_to_owner(path, DEADLINE) is None


async def test_each_file_of_a_directory_has_a_socket(tmp_path):
    """Its own owner responds."""
    async with SqliteInbox.in_directory(tmp_path) as one, SqliteInbox.in_directory(tmp_path) as other:
        for inbox in (one, other):
            await add_dead_letters(inbox, 1)
        for path in tmp_path.glob("*.db"):
            assert await replay(path, ["1"]) == 1
        assert [(await inbox.stats()).ready for inbox in (one, other)] == [1, 1]


def test_uvloop(path):
    """The socket works in uvloop, which shows a part of its sockets only."""
    # Not among the tests' requirements: uvicorn would run all other tests in it.
    uvloop = pytest.importorskip("uvloop")

    async def run() -> int:
        async with SqliteInbox(path) as inbox:
            return await replay(path, await add_dead_letters(inbox, 1))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(run()) == 1
    assert not control_path(path).exists()


# --- invalid requests ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"garbage\n",
        b"\xff\xfe\n",
        b"GET / HTTP/1.1\r\n",
        b"[]\n",
        b"null\n",
        b"{}\n",
        b'{"replay": null}\n',
        b'{"replay": "1"}\n',
        b'{"replay": [1]}\n',
        b'{"purge": ["1"]}\n',
        b"[" * 60_000 + b"\n",
        b"1" * 60_000 + b"\n",
        b"x" * 300_000 + b"\n",
        json.dumps({"replay": ["1"] * 1001}).encode() + b"\n",
    ],
)
async def test_garbage_gets_an_error(path, line):
    """Nothing is replayed, and the owner continues."""
    async with SqliteInbox(path) as inbox:
        await add_dead_letters(inbox, 1)
        greeting, *responses = await call(path, line)

        assert greeting == {"process": os.getpid()}
        assert responses
        assert all("must be an object" in response["error"] for response in responses)
        assert (await inbox.stats()).dead == 1
        assert await replay(path, ["1"]) == 1


async def test_an_error_of_the_inbox_is_reported(path, monkeypatch):
    """With its message."""

    async def fail(inbox, ids) -> int:
        raise InboxUnavailableError("the disk is full")

    monkeypatch.setattr(SqliteInbox, "replay", fail)
    async with SqliteInbox(path):
        with pytest.raises(
            InboxError, match=rf"process {os.getpid()}, which owns .* cannot replay .*: the disk is full"
        ):
            await replay(path, ["1"])


async def test_a_connection_during_the_close_gets_no_response(path):
    """The owner has stopped serving, and a new task would outlive it."""
    async with SqliteInbox(path) as inbox:
        listening = control.ControlSocket(path, inbox._lock, inbox.replay)
        async with listening:
            listening._is_open = False
            assert await connect_to_owner(path, DEADLINE) is None


async def test_a_slow_request_is_not_awaited_forever(path, monkeypatch):
    """The connection is closed after the time for a request."""
    monkeypatch.setattr(control, "_REQUEST_SECONDS", 0.05)
    async with SqliteInbox(path):
        reader, writer = await asyncio.open_unix_connection(control_path(path))
        writer.write(b'{"replay": ')

        async with asyncio.timeout(DEADLINE):
            assert len((await reader.read()).splitlines()) == 1
        writer.close()


async def test_a_process_that_does_not_read_is_disconnected(path, monkeypatch):
    """Its responses are not kept."""
    async with SqliteInbox(path) as inbox:
        with socket.socket(socket.AF_UNIX) as other, monkeypatch.context() as patch:
            patch.setattr(control, "_REQUEST_SECONDS", 0.2)
            await asyncio.to_thread(other.connect, str(control_path(path)))
            with pytest.raises(OSError, match=r"Broken pipe|Connection reset"):
                await asyncio.to_thread(other.sendall, b"{}\n" * 10_000_000)
        assert await replay(path, await add_dead_letters(inbox, 1)) == 1


async def test_the_number_of_connections_is_limited(path, monkeypatch):
    """More are closed at once, until one ends."""
    monkeypatch.setattr(control, "_MAX_CONNECTIONS", 1)
    async with SqliteInbox(path):
        first = await connect_to_owner(path, DEADLINE)
        async with first:
            assert await connect_to_owner(path, DEADLINE) is None
        async with asyncio.timeout(DEADLINE):
            while (owner := await connect_to_owner(path, DEADLINE)) is None:  # noqa: ASYNC110  # it sets no event
                await asyncio.sleep(0.01)
        async with owner:
            assert await owner.replay(["1"]) == 0


async def test_closing_does_not_wait_for_connections(path):
    """The other process sees the end of its connection."""
    async with SqliteInbox(path):
        owner = await connect_to_owner(path, DEADLINE)
        reader, writer = await asyncio.open_unix_connection(control_path(path))
        await reader.readline()
    async with owner:
        with pytest.raises(InboxUnavailableError, match=r"did not respond .*list them, then replay the rest"):
            await owner.replay(["1"])
    writer.close()


# --- users --------------------------------------------------------------------------------------------------------


@pytest.fixture
def public_path() -> Iterator[Path]:
    """Return the path of an inbox in a folder that any user may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield Path(directory) / "inbox.db"


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_another_user_is_refused(public_path):
    """Also if the mode of the socket was changed."""
    script = """
import json, socket
os.setuid(65534)
connection = socket.socket(socket.AF_UNIX)
try:
    connection.connect(sys.argv[1])
    report(len(connection.recv(1000)))
except OSError as error:
    report(error.errno)
"""
    async with SqliteInbox(public_path):
        async with running(script, control_path(public_path)) as other:
            assert await other.read_line() == str(errno.EACCES)
        control_path(public_path).chmod(0o666)
        async with running(script, control_path(public_path)) as other:
            assert await other.read_line() == "0"


async def test_a_user_without_access_gets_an_error(path, monkeypatch):
    """The command must run as the user of the service."""

    async def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(asyncio, "open_unix_connection", refuse)
    with pytest.raises(InboxUnavailableError, match="Permission denied; run the command as the user that runs"):
        await connect_to_owner(path, DEADLINE)


async def test_a_system_that_does_not_name_the_user_relies_on_the_mode(path, monkeypatch):
    """As on macOS."""
    monkeypatch.delattr(socket, "SO_PEERCRED", raising=False)
    async with SqliteInbox(path) as inbox:
        assert await replay(path, await add_dead_letters(inbox, 1)) == 1


# --- owners that do not respond -----------------------------------------------------------------------------------


async def test_without_an_owner_there_is_no_connection(path):
    """Neither without a socket, nor with one on which no process listens."""
    assert await connect_to_owner(path, DEADLINE) is None

    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(control_path(path)))
    assert await connect_to_owner(path, DEADLINE) is None


@pytest.mark.slow
async def test_a_stopped_owner_gets_no_request(path):
    """It would execute the request later, when its result is no longer expected."""
    async with running(OWNER, path) as owner:
        await owner.read_line()
        os.kill(owner.pid, signal.SIGSTOP)
        try:
            assert await connect_to_owner(path, 0.2) is None
        finally:
            os.kill(owner.pid, signal.SIGCONT)
        await owner.proceed()
        assert await owner.read_line() == "0"


@pytest.mark.parametrize("greeting", [b"", b"\n", b"{}\n", b"[]\n", b"hello\n", b"x" * 100_000])
async def test_another_program_at_the_socket_is_not_an_owner(path, greeting):
    """It gets no request."""
    async with fake_owner(path, greeting):
        assert await connect_to_owner(path, 1) is None


@pytest.mark.parametrize("response", [b"", b"{}\n", b"[]\n", b"hello\n", b'{"replayed": []}\n', b'{"replayed": "x"}\n'])
async def test_an_unreadable_response_leaves_the_result_unknown(path, response):
    """The error says so."""
    async with fake_owner(path, b'{"process": 7}\n', response):
        with pytest.raises(InboxUnavailableError, match="process 7, which owns the inbox, did not respond"):
            await replay(path, ["1"])


async def test_a_response_is_not_awaited_forever(path, monkeypatch):
    """The result is unknown."""
    monkeypatch.setattr(control, "_RESPONSE_SECONDS", 0.05)
    waiting = asyncio.Event()

    async def wait(inbox, ids) -> int:
        await waiting.wait()

    monkeypatch.setattr(SqliteInbox, "replay", wait)
    async with SqliteInbox(path):
        with pytest.raises(InboxUnavailableError, match="TimeoutError"):
            await replay(path, ["1"])


# --- the socket file ----------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_the_socket_of_a_killed_owner_is_replaced(path):
    """It stays on the disk; the next owner listens in its place."""
    async with running(OWNER, path) as owner:
        await owner.read_line()
        await owner.kill()
    assert control_path(path).is_socket()
    assert await connect_to_owner(path, DEADLINE) is None

    async with SqliteInbox(path) as inbox:
        assert await replay(path, ["1"]) == 1
        assert (await inbox.stats()).ready == 1


async def test_another_file_in_its_place_is_kept(path, caplog):
    """The inbox opens without a socket, and a WARNING says so once."""
    control_path(path).write_text("mine")

    async with SqliteInbox(path) as inbox:
        await inbox.append(Delivery(b"body"))

    assert control_path(path).read_text() == "mine"
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warning == (
        f"cannot create the control socket {control_path(path)}, 'callfire-async inbox replay' will not work while this"
        " process runs: Address already in use"
    )


@pytest.mark.parametrize("error", [NotImplementedError, TypeError])
async def test_an_event_loop_without_unix_sockets(path, monkeypatch, caplog, error):
    """The inbox opens without a socket."""

    async def fail(*_, **__):
        raise error

    monkeypatch.setattr(asyncio, "start_unix_server", fail)
    async with SqliteInbox(path) as inbox:
        await inbox.append(Delivery(b"body"))

    assert f"process runs: {error.__name__}" in caplog.text
    assert not control_path(path).exists()


async def test_the_socket_of_another_owner_is_not_removed(path):
    """If the directory was replaced meanwhile."""
    moved = path.parent.parent / f"{path.parent.name}-moved"
    async with SqliteInbox(path):
        path.parent.rename(moved)
        path.parent.mkdir()
        second = await SqliteInbox(path).__aenter__()
    try:
        assert await replay(path, []) == 0
        assert control_path(path).is_socket()
    finally:
        await second.__aexit__(None, None, None)


@pytest.mark.parametrize("name", ["inbox.db", "\u00e4" * 60 + ".db"])
async def test_a_long_path(tmp_path, name, caplog):
    """An address has at most 108 bytes; a path may have more."""
    path = tmp_path / ("d" * 200) / name
    path.parent.mkdir()

    async with SqliteInbox(path) as inbox:
        assert await replay(path, await add_dead_letters(inbox, 1)) == 1
        assert control_path(path).is_socket()

    assert (caplog.text, control_path(path).exists()) == ("", False)


async def test_a_relative_path(path, monkeypatch):
    """The working directory may change while the inbox is open."""
    monkeypatch.chdir(path.parent)
    async with SqliteInbox(path.name):
        monkeypatch.chdir("/")
        assert await replay(path, []) == 0
    assert not control_path(path).exists()


# --- forks --------------------------------------------------------------------------------------------------------


async def test_closing_in_a_forked_child_does_nothing(path, monkeypatch):
    """The socket is the parent's, and its event loop shares a selector with the parent's."""
    async with SqliteInbox(path) as inbox:
        listening = control.ControlSocket(path, inbox._lock, inbox.replay)
        async with listening:
            with monkeypatch.context() as patch:
                patch.setattr(os, "getpid", lambda: 0)
                await listening.__aexit__(None, None, None)
            assert await replay(path, []) == 0


@pytest.mark.slow
async def test_a_forked_child_does_not_keep_the_socket(path):
    """If the owner is killed, connections are refused; a child that unwinds does not remove the socket."""
    script = """
import time
async with SqliteInbox(sys.argv[1]) as inbox:
    child = os.fork()
    if child == 0:
        await inbox.__aexit__(None, None, None)
        report(os.getpid())
        time.sleep(60)
        os._exit(0)
    await proceed()
"""
    async with running(script, path) as owner:
        child = int(await owner.read_line())
        try:
            async with await connect_to_owner(path, DEADLINE) as connection:
                assert await connection.replay([]) == 0
            await kill(owner.pid)
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_unix_connection(control_path(path))
        finally:
            os.kill(child, signal.SIGKILL)
