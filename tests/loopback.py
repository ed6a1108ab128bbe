"""A real HTTP server on loopback whose responses a test writes by hand."""

import asyncio
from contextlib import asynccontextmanager
from typing import NamedTuple


class Request(NamedTuple):
    """A request that a server received."""

    method: str
    target: str
    headers: str
    body: bytes
    reader: asyncio.StreamReader

    async def hang(self):
        """Wait until the client disconnects, without a response."""
        await self.reader.read()
        raise ConnectionError


class Server:
    """A real HTTP server that passes each request to a coroutine function, which writes the response."""

    def __init__(self, respond=None):
        self._respond = respond
        self.requests = []
        self.open = 0
        self._changed = asyncio.Event()

    async def serve(self, reader, writer):
        """Serve one connection."""
        self.open += 1
        self._changed.set()
        try:
            while True:
                await self.exchange(reader, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.open -= 1
            writer.close()
            self._changed.set()

    async def exchange(self, reader, writer):
        """Read one request and respond."""
        self.requests.append(await read_request(reader))
        await self._respond(self.requests[-1], writer)

    async def wait_until(self, condition):
        """Wait until *condition* of this server is true."""
        async with asyncio.timeout(60):
            while not condition(self):
                self._changed.clear()
                await self._changed.wait()


async def read_request(reader):
    """Read one request; the body's length is the Content-Length."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    method, target, _ = head.split(" ", 2)
    length = next((int(line[15:]) for line in head.lower().split("\r\n") if line.startswith("content-length:")), 0)
    return Request(method, target, head, await reader.readexactly(length), reader)


def serve_with(respond):
    """Run a server that passes each request to *respond*."""
    return run_server(Server(respond))


@asynccontextmanager
async def run_server(server):
    """Run a server, and set its `url`."""
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listener.close()
        await server.wait_until(lambda server: not server.open)


def response_bytes(body=b'{"Resource":{"Subscription":{"@id":42}}}', status="200 OK", headers=""):
    """Return the bytes of a response."""
    return f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def respond_success(_, writer):
    """Respond as CallFire does on success."""
    writer.write(response_bytes())


def hanging_response():
    """Return a coroutine function that never responds, and an event that is set when a request arrives."""
    arrived = asyncio.Event()

    async def respond(request, _):
        arrived.set()
        await request.hang()

    return respond, arrived
