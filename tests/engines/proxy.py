"""A proxy in front of a server on loopback, which injects network faults."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import Literal, TypeAlias

from attrs import define

# The path of a Unix socket, or a port on loopback.
Address: TypeAlias = Path | int
Side = Literal["request", "response"]

_DELAY_SECONDS = 0.05
_DEADLINE_SECONDS = 60


class Fault(StrEnum):
    """
    A network fault.

    Connections that it affected stay affected when it ends; new connections work again.
    """

    DELAY = "all data is delayed"
    SLICES = "all data arrives in segments of one byte"
    REFUSED = "connections are refused"
    RESET = "connections are reset"
    CUT_AT_ONCE = "connections are closed before their first byte"
    CUT_IN_REQUEST = "connections are closed in the middle of a request"
    CUT_BEFORE_RESPONSE = "connections are closed after a request and before its response"
    CUT_IN_RESPONSE = "connections are closed in the middle of a response"
    BLACK_HOLE = "connections are accepted and get no response"
    SILENCE = "all data is lost in both directions"
    REQUESTS_LOST = "all data to the server is lost"
    RESPONSES_LOST = "all data from the server is lost"


@define(eq=False)
class _Connection:
    ours: asyncio.StreamWriter
    theirs: asyncio.StreamWriter
    #: Directions in which data is dropped from now on.
    lost: frozenset[Side] = frozenset()

    def end(self, *, reset: bool) -> None:
        for writer in (self.ours, self.theirs):
            if reset:
                with suppress(OSError):
                    linger = struct.pack("ii", 1, 0)
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                writer.transport.abort()
            else:
                writer.close()


class Proxy:
    """
    Forwards bytes between clients and a server, under a fault that can be switched on and off.

    Args:
        server: The server's address.
        address: The path of the proxy's socket; None for a port, which stays the same.
    """

    def __init__(self, server: Address, address: Path | None = None) -> None:
        self._server = server
        self._path = address
        self._listener: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections: set[_Connection] = set()
        self._changed = asyncio.Event()
        #: The port; 0 if the proxy has a socket.
        self.port = 0
        self.fault: Fault | None = None
        #: How often the fault has affected data or a connection.
        self.effects = 0

    # --- lifecycle ----------------------------------------------------------------------------------------

    async def start(self) -> None:
        if self._path is not None:
            self._listener = await asyncio.start_unix_server(self._serve, self._path)
        else:
            self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
            self.port = self._listener.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._stop_listening()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            if self._path is not None:
                self._path.unlink(missing_ok=True)

    # --- faults -------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def under(self, fault: Fault) -> AsyncIterator[None]:
        """Apply a fault during the block."""
        self.effects, self.fault = 0, fault
        if fault is Fault.REFUSED:
            self._stop_listening()
            for connection in list(self._connections):
                self._count_effect()
                connection.end(reset=True)
        try:
            yield
        finally:
            self.fault = None
            if self._listener is None:
                await self.start()

    def lose_connections(self) -> None:
        """Lose all further data of the connections that are open, as if their server's machine had failed."""
        for connection in self._connections:
            connection.lost = frozenset(["request", "response"])

    def _count_effect(self) -> None:
        self.effects += 1
        self._changed.set()

    async def wait_for_effects(self, times: int) -> None:
        """Wait until the fault has had an effect *times* times."""
        async with asyncio.timeout(_DEADLINE_SECONDS):
            while self.effects < times:
                self._changed.clear()
                await self._changed.wait()

    # --- connections --------------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._tasks.add(task)
        try:
            with suppress(OSError):
                await self._connect(reader, writer)
        except asyncio.CancelledError:
            pass
        finally:
            await _close(writer)
            self._tasks.discard(task)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.fault is Fault.CUT_AT_ONCE:
            self._count_effect()
            return
        if self.fault is Fault.BLACK_HOLE:
            self._count_effect()
            await _read_to_end(reader)
            return
        their_reader, theirs = await self._reach()
        connection = _Connection(writer, theirs)
        self._connections.add(connection)
        try:
            await _run_until_first_ends(
                lambda: self._pump("request", connection, reader, theirs),
                lambda: self._pump("response", connection, their_reader, writer),
            )
        finally:
            self._connections.discard(connection)
            await _close(theirs)

    async def _reach(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._server, Path):
            return await asyncio.open_unix_connection(self._server)
        return await asyncio.open_connection("127.0.0.1", self._server)

    async def _pump(
        self, side: Side, connection: _Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(2**16):
            fault = self.fault
            self._drop_data(fault, side, connection)
            if side in connection.lost:
                continue
            if _CLOSED_AT.get(fault) in (side, "any"):
                self._count_effect()
                writer.write(data[: len(data) // 2] if fault in _IN_THE_MIDDLE else b"")
                with suppress(OSError):
                    await writer.drain()
                connection.end(reset=fault is Fault.RESET)
                return
            await self._pass(fault, data, writer)

    def _drop_data(self, fault: Fault | None, side: Side, connection: _Connection) -> None:
        """Drop the data of a connection from now on, if the fault loses it."""
        lost = _DROPPED_SIDES.get(fault, frozenset())
        if side in lost:
            self._count_effect()
            connection.lost |= lost

    async def _pass(self, fault: Fault | None, data: bytes, writer: asyncio.StreamWriter) -> None:
        if fault is Fault.DELAY:
            self._count_effect()
            await asyncio.sleep(_DELAY_SECONDS)
        step = len(data)
        if fault is Fault.SLICES:
            self._count_effect()
            step = 1
        for start in range(0, len(data), step):
            writer.write(data[start : start + step])
            await writer.drain()
            if step == 1:
                # Otherwise the event loop would send several bytes in one segment.
                await asyncio.sleep(0)


_DROPPED_SIDES: dict[Fault | None, frozenset[Side]] = {
    Fault.SILENCE: frozenset(["request", "response"]),
    Fault.BLACK_HOLE: frozenset(["request", "response"]),
    Fault.REQUESTS_LOST: frozenset(["request"]),
    Fault.RESPONSES_LOST: frozenset(["response"]),
}
_CLOSED_AT: dict[Fault | None, str] = {
    Fault.RESET: "any",
    Fault.CUT_AT_ONCE: "any",
    Fault.CUT_IN_REQUEST: "request",
    Fault.CUT_BEFORE_RESPONSE: "response",
    Fault.CUT_IN_RESPONSE: "response",
}
_IN_THE_MIDDLE = (Fault.CUT_IN_REQUEST, Fault.CUT_IN_RESPONSE)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with suppress(OSError):
        await writer.wait_closed()


async def _read_to_end(reader: asyncio.StreamReader) -> None:
    """Read until the client closes the connection."""
    while await reader.read(2**16):
        pass


async def _run_until_first_ends(*functions: Callable[[], Awaitable[None]]) -> None:
    """Run functions concurrently until one of them ends or fails; cancel the others."""
    tasks = [asyncio.ensure_future(function()) for function in functions]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def run_proxy(server: Address, address: Path | None = None) -> AsyncIterator[Proxy]:
    """Run a proxy in front of *server*."""
    proxy = Proxy(server, address)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
