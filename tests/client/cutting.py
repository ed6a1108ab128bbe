"""A fake CallFire on loopback whose connections end at a chosen byte."""

import asyncio
import re
import socket
import struct
from collections import deque
from typing import Literal

import httpx
from attrs import frozen
from loopback import Server

from callfire_async.testing import FakeCallFire

#: How the end of a response is marked: by its length, in chunks, or by the end of the connection.
Framing = Literal["length", "chunked", "close"]


@frozen
class Cut:
    """
    The point at which a connection ends.

    Attributes:
        side: In the request, which then never reaches the fake, or in the response to an executed request.
        byte: The number of bytes that are transferred.
        reset: Whether it ends with a reset.
    """

    side: Literal["request", "answer"]
    byte: int
    reset: bool = False


class CuttingServer(Server):
    """Passes complete requests to a fake, and cuts one connection for each of `cuts`."""

    def __init__(self, fake: FakeCallFire) -> None:
        super().__init__()
        self.fake = fake
        self.framing: Framing = "length"
        self.cuts: deque[Cut] = deque()
        #: The lengths of the last complete request and of its response.
        self.lengths = {"request": 0, "answer": 0}

    async def exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read one request and respond, up to the next cut."""
        start = await reader.readexactly(1)
        cut = self.cuts.popleft() if self.cuts else None
        request = await read_up_to(cut.byte if cut is not None and cut.side == "request" else None, start, reader)
        if request is not None:
            answer = await self._answer_to(request)
            writer.write(answer[: cut.byte] if cut is not None and cut.side == "answer" else answer)
            await writer.drain()
        if cut is not None and cut.reset:
            reset(writer)
        if cut is not None or self.framing == "close":
            raise ConnectionError

    async def _answer_to(self, request: bytes) -> bytes:
        head, _, body = request.partition(b"\r\n\r\n")
        line, *headers = head.decode().split("\r\n")
        fields = httpx.Headers([header.split(": ", 1) for header in headers])
        method, target, _ = line.split(" ")
        asked = httpx.Request(method, f"http://{fields['Host']}{target}", headers=fields, content=body)
        answer = await frame(await httpx.ASGITransport(self.fake).handle_async_request(asked), self.framing)
        self.lengths = {"request": len(request), "answer": len(answer)}
        return answer


async def read_up_to(limit: int | None, start: bytes, reader: asyncio.StreamReader) -> bytes | None:
    """Read one request that begins with *start*; return None after *limit* bytes of a longer one."""
    request = start
    while not is_complete(request):
        left = 2**16 if limit is None else max(limit - len(request), 0)
        if left == 0:
            return None
        if not (more := await reader.read(left)):
            raise ConnectionError
        request += more
    return request


def is_complete(request: bytes) -> bool:
    """Return whether a request is complete."""
    head, end, body = request.partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: (\d+)", head, re.IGNORECASE)
    return bool(end) and len(body) == (int(length[1]) if length else 0)


async def frame(response: httpx.Response, framing: Framing) -> bytes:
    """Serialize a response."""
    body = await response.aread()
    headers = dict(response.headers)
    if framing != "length" and headers.pop("content-length", None):
        headers |= {"transfer-encoding": "chunked"} if framing == "chunked" else {"connection": "close"}
    if "transfer-encoding" in headers:
        half = len(body) // 2
        body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:half], body[half:])) + b"0\r\n\r\n"
    lines = [f"HTTP/1.1 {response.status_code} {response.reason_phrase}", *map(": ".join, headers.items()), "", ""]
    return "\r\n".join(lines).encode() + body


def reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection with a reset."""
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()
