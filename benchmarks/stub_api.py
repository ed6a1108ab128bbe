"""
A stub of CallFire's API with prepared responses, so that benchmarks measure the cost of the client.

``python -m benchmarks.stub_api`` prints its port, and exits when its standard input is closed.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs

REFERENCE = b'{"ResourceReference":{"Id":609951003,"Location":"https://www.callfire.com/api/1.1/rest/subscription/1"}}'
SUBSCRIPTION = (
    b'{"@id":%d,"Enabled":true,"Endpoint":"https://hooks.example.com/callfire/0123456789abcdef",'
    b'"NotificationFormat":"JSON","TriggerEvent":"OUTBOUND_TEXT_FINISHED","SubscriptionFilter":{"BroadcastId":12}}'
)


class StubProtocol(asyncio.Protocol):
    """Responds to the requests of one connection."""

    def __init__(self) -> None:
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Respond to each complete request."""
        self._received += data
        while (request := _complete_request(self._received)) is not None:
            self._received = self._received[len(request) :]
            self._transport.write(respond(request))  # type: ignore[attr-defined]  # a socket's is a Transport


def _complete_request(received: bytes) -> bytes | None:
    head, end, _ = received.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    total = len(head) + 4 + (int(length[1]) if length else 0)
    return received[:total] if end and len(received) >= total else None


def respond(request: bytes) -> bytes:
    """Return the response to a create, or to a query; the path has the number of subscriptions."""
    status, body = b"201 Created", REFERENCE
    if request.startswith(b"GET"):
        status, body = b"200 OK", _page(request.split(b" ", 2)[1].decode())
    head = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, len(body))
    return head + body


def _page(target: str) -> bytes:
    path, _, query = target.partition("?")
    total, parameters = int(path.split("/")[1]), parse_qs(query)
    first, count = int(parameters["FirstResult"][0]), int(parameters["MaxResults"][0])
    items = b",".join(SUBSCRIPTION % (1 + number) for number in range(first, min(total, first + count)))
    return b'{"ResourceList":{"@totalResults":%d,"Subscription":[%s]}}' % (total, items)


@contextmanager
def server() -> Iterator[str]:
    """Run the stub in a new process, and yield its base URL."""
    command = [sys.executable, "-m", __name__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:  # noqa: S603  # fixed arguments
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"  # type: ignore[union-attr]  # it is a pipe
        process.stdin.close()  # type: ignore[union-attr]  # it is a pipe


async def serve() -> None:
    """Serve until standard input is closed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(StubProtocol, "127.0.0.1", 0, backlog=1_000)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.buffer.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(serve())
