"""A CallFire on loopback whose connections end at a byte of a test's choosing."""

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

#: How an answer says where it ends: by its length, in chunks, or by the end of the connection.
Framing = Literal["length", "chunked", "close"]


@frozen
class Cut:
    """
    Where a connection ends.

    Attributes:
        side: In the request, which then never comes to the fake, or in the answer to one that was carried out.
        byte: So many bytes come through.
        reset: With a reset, and not with an orderly end.
    """

    side: Literal["request", "answer"]
    byte: int
    reset: bool = False


class CuttingServer(Server):
    """Hands each request to a fake, whole or not at all, and cuts one connection for each of `cuts`."""

    def __init__(self, fake: FakeCallFire) -> None:
        super().__init__()
        self.fake = fake
        self.framing: Framing = "length"
        self.cuts: deque[Cut] = deque()
        #: How long the last request was that came whole, and its answer.
        self.lengths = {"request": 0, "answer": 0}

    async def exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take one request and answer it, as far as the next cut allows."""
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


async def read_up_to(most: int | None, start: bytes, reader: asyncio.StreamReader) -> bytes | None:
    """Read one request that begins with *start*; None once there are *most* bytes of one that is longer."""
    request = start
    while not is_whole(request):
        left = 2**16 if most is None else max(most - len(request), 0)
        if left == 0:
            return None
        if not (more := await reader.read(left)):
            raise ConnectionError
        request += more
    return request


def is_whole(request: bytes) -> bool:
    """Tell whether all of a request is there."""
    head, end, body = request.partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: (\d+)", head, re.IGNORECASE)
    return bool(end) and len(body) == (int(length[1]) if length else 0)


async def frame(response: httpx.Response, framing: Framing) -> bytes:
    """Word an answer as it goes over the wire."""
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
    """End a connection with a reset."""
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()
