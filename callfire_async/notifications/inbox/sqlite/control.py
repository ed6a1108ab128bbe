"""
The control socket of an inbox file, through which another process requests that the owner replay dead letters.

The socket is next to the file, with mode 0600. Each message is a line of JSON. The owner begins with
``{"process": ID}``, so that a request is sent only to an owner that responds. The response to ``{"replay": [ID, …]}``
is ``{"replayed": COUNT}`` or ``{"error": MESSAGE}``.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import socket
import stat
import struct
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, closing, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from callfire_async.errors import InboxError, InboxUnavailableError
from callfire_async.notifications.inbox._cancellation import cancel_repeatedly
from callfire_async.notifications.inbox.sqlite._lock import FileLock

__all__ = ["ControlSocket", "OwnerConnection", "connect_to_owner", "control_path"]

_log = logging.getLogger("callfire_async.inbox")

# The limit is 108 bytes on Linux and 104 on macOS, with a terminating zero.
_MAX_ADDRESS_BYTES = 103
# Shorter by the path of a descriptor, such as /proc/self/fd/12345/.
_MAX_NAME_BYTES = 75
_MAX_LINE_BYTES = 64 * 1024
# Fits into a line, and takes the connection for some milliseconds: postbacks do not wait longer.
_MAX_IDS = 1000
_MAX_CONNECTIONS = 8
# For each request and its response.
_REQUEST_SECONDS = 10.0
# Longer than the owner takes for a response.
_RESPONSE_SECONDS = 15.0
# Python's own removal logs an error if the directory is gone.
_SERVER_OPTIONS: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
_PEER_CREDENTIALS = struct.Struct("3i")

#: Replays dead letters and returns their number.
Replay = Callable[[Sequence[str]], Awaitable[int]]


def control_path(path: Path) -> Path:
    """Return the path of the control socket of an inbox file: beside the target of a symbolic link."""
    target = path.resolve()
    name = f"{target.name}.sock"
    if len(os.fsencode(name)) > _MAX_NAME_BYTES:
        name = f"{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:32]}.sock"
    return target.with_name(name)


@contextmanager
def _address(path: Path) -> Iterator[Path]:
    """Yield a path that is short enough for a socket: of a longer one, the path through its directory's descriptor."""
    if len(os.fsencode(path)) <= _MAX_ADDRESS_BYTES:
        yield path
        return
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield Path(f"/proc/self/fd/{directory}/{path.name}")
    finally:
        os.close(directory)


# --- the owner --------------------------------------------------------------------------------------------


class ControlSocket:
    """
    Listens for other processes of the same user, or of root, that ask this process to replay dead letters.

    If the socket cannot be created, a WARNING says so, and the inbox works without it.

    Args:
        path: The inbox file.
        lock: The lock that its owner holds.
        replay: Replays dead letters.
    """

    def __init__(self, path: Path, lock: FileLock, replay: Replay) -> None:
        self._path = control_path(path)
        self._lock = lock
        self._replay = replay
        self._process_id = os.getpid()
        self._is_open = True
        self._connections: set[asyncio.Task[Any]] = set()
        self._resources = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Create the socket; replace one that a killed owner has left."""
        async with AsyncExitStack() as resources:
            try:
                await self._listen(resources)
            except (OSError, NotImplementedError, TypeError) as error:
                # An event loop without Unix sockets, or without this option, raises one of the others.
                _log.warning(
                    "cannot create the control socket %s, 'callfire-async inbox replay' will not work while this"
                    " process runs: %s",
                    self._path,
                    getattr(error, "strerror", None) or type(error).__name__,
                )
            self._resources = resources.pop_all()
        return self

    async def _listen(self, resources: AsyncExitStack) -> None:
        address = resources.enter_context(_address(self._path))
        listener = self._lock.attach(lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        resources.callback(listener.close)
        resources.callback(self._lock.detach)
        _bind(listener, address)
        resources.callback(_remove, address, address.lstat())
        server = await asyncio.start_unix_server(self._serve, sock=listener, limit=_MAX_LINE_BYTES, **_SERVER_OPTIONS)
        resources.push_async_callback(self._stop, server)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the socket and end its connections, within half a second; do nothing in a forked child."""
        if self._process_id == os.getpid():
            await self._resources.aclose()

    async def _stop(self, server: asyncio.Server) -> None:
        # A connection that was just accepted has no task yet.
        self._is_open = False
        server.close()
        await cancel_repeatedly(self._connections)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        with closing(writer):
            if task is None or not (self._is_accepting and _is_allowed(writer)):
                return
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)
            # The other process has gone or was too slow, or the inbox is closed: Python 3.11 would log the cancellation
            # of this task as an error.
            with suppress(OSError, asyncio.CancelledError), ExitStack() as stack:
                # A close would wait until a process that does not read has read everything.
                stack.callback(writer.transport.abort)
                await self._converse(reader, writer)
                stack.pop_all()

    @property
    def _is_accepting(self) -> bool:
        return self._is_open and len(self._connections) < _MAX_CONNECTIONS

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        response: dict[str, Any] | None = {"process": self._process_id}
        while response is not None:
            async with asyncio.timeout(_REQUEST_SECONDS):
                writer.write(_encode(response))
                await writer.drain()
                response = await self._respond(reader)

    async def _respond(self, reader: asyncio.StreamReader) -> dict[str, Any] | None:
        """Return the response to the next request; None at the end."""
        try:
            # A line that is too long is a ValueError too.
            line = await reader.readline()
            return {"replayed": await self._replay_logged(_parse_request(line))} if line else None
        except ValueError:
            return {"error": f'the request must be an object whose "replay" is a list of at most {_MAX_IDS} IDs'}
        except InboxError as error:
            return {"error": str(error)}

    async def _replay_logged(self, ids: Sequence[str]) -> int:
        count = await self._replay(ids)
        _log.info("another process has replayed %d dead letters through %s", count, self._path)
        return count


def _bind(listener: socket.socket, address: Path) -> None:
    with suppress(FileNotFoundError):
        # The lock is held, so no running process listens there.
        if stat.S_ISSOCK(address.lstat().st_mode):
            address.unlink()
    listener.bind(str(address))
    # Nothing can connect yet: the socket does not listen.
    address.chmod(0o600)


def _remove(address: Path, status: os.stat_result) -> None:
    """Remove the socket, unless the directory was replaced and it is another process's."""
    with suppress(OSError):
        if os.path.samestat(address.lstat(), status):
            address.unlink()


def _is_allowed(writer: asyncio.StreamWriter) -> bool:
    """Return whether the other process is of this user or of root; if that is unknown, the mode must be enough."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return True
    # uvloop's socket has no options.
    with socket.fromfd(writer.get_extra_info("socket").fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        credentials = peer.getsockopt(socket.SOL_SOCKET, option, _PEER_CREDENTIALS.size)
    return _PEER_CREDENTIALS.unpack(credentials)[1] in (0, os.geteuid())


def _parse_request(line: bytes) -> list[str]:
    ids = _decode(line).get("replay")
    if not (isinstance(ids, list) and len(ids) <= _MAX_IDS and all(isinstance(id, str) for id in ids)):
        raise ValueError("replay must be a list of IDs")
    return ids


# --- another process --------------------------------------------------------------------------------------


class OwnerConnection:
    """
    A connection to the process that owns an inbox file.

    Args:
        reader: Of the socket, after the owner's first line.
        writer: Of the socket.
        process_id: The owner.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, process_id: object) -> None:
        self._reader = reader
        self._writer = writer
        self._owner = f"process {process_id}"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self._writer.close()

    async def replay(self, ids: Sequence[str]) -> int:
        """
        Request that the owner make dead letters ready, a thousand at a time; return their number.

        Raises:
            InboxError: The owner could not do it.
            InboxUnavailableError: The owner did not respond; some dead letters may have been replayed.
        """
        return sum([await self._request(ids[start : start + _MAX_IDS]) for start in range(0, len(ids), _MAX_IDS)])

    async def _request(self, ids: Sequence[str]) -> int:
        try:
            async with asyncio.timeout(_RESPONSE_SECONDS):
                response = await self._exchange(ids)
            if "error" not in response:
                return int(response["replayed"])
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise InboxUnavailableError(
                f"{self._owner}, which owns the inbox, did not respond ({type(error).__name__}); it may have replayed"
                " the dead letters: list them, then replay the rest"
            ) from error
        raise InboxError(f"{self._owner}, which owns the inbox, cannot replay the dead letters: {response['error']}")

    async def _exchange(self, ids: Sequence[str]) -> dict[str, Any]:
        self._writer.write(_encode({"replay": list(ids)}))
        await self._writer.drain()
        return _decode(await self._reader.readline())


async def connect_to_owner(path: Path, timeout: float) -> OwnerConnection | None:
    """
    Connect to the process that owns an inbox file; return None if no owner responds within *timeout* seconds.

    Raises:
        InboxUnavailableError: The socket cannot be used, for example because it is another user's.
    """
    try:
        async with asyncio.timeout(timeout):
            return await _connect(control_path(path))
    except (FileNotFoundError, ConnectionError, TimeoutError, ValueError, LookupError):
        # There is no owner, or it is stopping or blocked.
        return None
    except OSError as error:
        raise InboxUnavailableError(
            f"the control socket {control_path(path)} of the inbox's owner cannot be used: {error.strerror}; run the"
            " command as the user that runs the service"
        ) from error


async def _connect(path: Path) -> OwnerConnection:
    with _address(path) as address:
        reader, writer = await asyncio.open_unix_connection(str(address), limit=_MAX_LINE_BYTES)
    with ExitStack() as stack:
        stack.callback(writer.close)
        connection = OwnerConnection(reader, writer, _decode(await reader.readline())["process"])
        stack.pop_all()
    return connection


# --- messages ---------------------------------------------------------------------------------------------


def _encode(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"


def _decode(line: bytes) -> dict[str, Any]:
    """
    Return the object in a line.

    Raises:
        ValueError: The line is not an object.
    """
    try:
        return {**json.loads(line)}
    except (TypeError, RecursionError) as error:
        raise ValueError("the message must be an object") from error
