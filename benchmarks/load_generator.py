"""Send postbacks over several connections with raw sockets, so that the sender is not the bottleneck."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from itertools import cycle
from typing import Literal

from attrs import define, evolve, field

from benchmarks.server import TOKEN
from callfire_async.models import NotificationFormat
from callfire_async.notifications import TextReceived
from callfire_async.notifications.encoding import encode
from callfire_async.testing import samples

Format = Literal["XML", "JSON"]

#: Placeholder for the number of a postback in a body.
NUMBER = b"1234567890"
_HEAD = (
    b"POST /%s HTTP/1.1\r\nHost: localhost\r\nUser-Agent: CallFire\r\nAccept: */*\r\nConnection: Keep-Alive\r\n"
    b"Content-Type: %s\r\nContent-Length: %d\r\n\r\n"
)


def postback(format: Format) -> tuple[bytes, bytes]:
    """Return a content type, and a body with the placeholder `NUMBER`."""
    event = samples.EVENTS["TextReceived"]
    if not isinstance(event, TextReceived):
        raise TypeError
    event = evolve(event, text=evolve(event.text, id=int(NUMBER)))
    content_type, body = encode(event, NotificationFormat(format))
    return content_type.encode(), body


@define(eq=False)
class Postbacks:
    """Postbacks to be sent, and the response time of each."""

    content_type: bytes
    body: bytes
    numbers: Iterator[int]
    seconds: list[float] = field(factory=list)

    def next_request(self) -> bytes | None:
        """Return the next request, or None after the last."""
        number = next(self.numbers, None)
        if number is None:
            return None
        body = self.body.replace(NUMBER, b"%010d" % number)
        return _HEAD % (TOKEN.encode(), self.content_type, len(body)) + body


class _Connection(asyncio.Protocol):
    def __init__(self, postbacks: Postbacks, done: asyncio.Future[None]) -> None:
        self._postbacks = postbacks
        self._done = done
        self._sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._postbacks.seconds.append(time.perf_counter() - self._sent_at)
        if not data.startswith(b"HTTP/1.1 204"):
            self._done.set_exception(RuntimeError(f"unexpected response: {data[:40]!r}"))
        self._send()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(
                ConnectionResetError("the server closed the connection") if error is None else error
            )

    def _send(self) -> None:
        request = self._postbacks.next_request()
        if request is not None:
            self._sent_at = time.perf_counter()
            self._transport.write(request)
        elif not self._done.done():
            self._done.set_result(None)
            self._transport.close()


async def _post_all(ports: Sequence[int], connections: int, postbacks: Postbacks) -> None:
    loop = asyncio.get_running_loop()
    futures = [loop.create_future() for _ in range(connections)]
    for future, port in zip(futures, cycle(ports), strict=False):
        await loop.create_connection(lambda future=future: _Connection(postbacks, future), "127.0.0.1", port)
    await asyncio.gather(*futures)


def post_all(ports: Sequence[int], connections: int, postbacks: Postbacks) -> float:
    """Send all postbacks to servers in turn, expect 204 for each, and return the elapsed seconds."""
    start = time.perf_counter()
    try:
        import uvloop  # noqa: PLC0415  # may not be installed
    except ImportError:
        asyncio.run(_post_all(ports, connections, postbacks))
    else:
        uvloop.run(_post_all(ports, connections, postbacks))
    return time.perf_counter() - start
