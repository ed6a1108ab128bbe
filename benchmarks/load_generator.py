"""Posts over some connections, each the next postback once the last was answered; as little as can be: no limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from attrs import define, field

from benchmarks.served import TOKEN

#: Stands for the number of a postback in a body.
NUMBER = b"1234567890"
_HEAD = (
    b"POST /%s HTTP/1.1\r\nHost: localhost\r\nUser-Agent: CallFire\r\nAccept: */*\r\nConnection: Keep-Alive\r\n"
    b"Content-Type: %s\r\nContent-Length: %d\r\n\r\n"
)


@define(eq=False)
class Posts:
    """What is to be posted, and how long each answer took."""

    content_type: bytes
    body: bytes
    numbers: Iterator[int]
    seconds: list[float] = field(factory=list)

    def next(self) -> bytes | None:
        """Word the next request; None where there is none."""
        number = next(self.numbers, None)
        if number is None:
            return None
        body = self.body.replace(NUMBER, b"%010d" % number)
        return _HEAD % (TOKEN.encode(), self.content_type, len(body)) + body


class _Connection(asyncio.Protocol):
    def __init__(self, posts: Posts, done: asyncio.Future[None]) -> None:
        self._posts = posts
        self._done = done
        self._sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._posts.seconds.append(time.perf_counter() - self._sent_at)
        if not data.startswith(b"HTTP/1.1 204"):
            self._done.set_exception(RuntimeError(f"answered {data[:40]!r}"))
        self._send()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(ConnectionResetError("the server hung up") if error is None else error)

    def _send(self) -> None:
        request = self._posts.next()
        if request is not None:
            self._sent_at = time.perf_counter()
            self._transport.write(request)
        elif not self._done.done():
            self._done.set_result(None)
            self._transport.close()


async def _post_all(port: int, connections: int, posts: Posts) -> None:
    loop = asyncio.get_running_loop()
    ends = [loop.create_future() for _ in range(connections)]
    for end in ends:
        await loop.create_connection(lambda end=end: _Connection(posts, end), "127.0.0.1", port)
    await asyncio.gather(*ends)


def post_all(port: int, connections: int, posts: Posts) -> float:
    """Post all, each answered 204; return how many seconds it took."""
    begun = time.perf_counter()
    try:
        import uvloop  # noqa: PLC0415  # what it is measured with, where it is there
    except ImportError:
        asyncio.run(_post_all(port, connections, posts))
    else:
        uvloop.run(_post_all(port, connections, posts))
    return time.perf_counter() - begun
