"""A load generator that posts notifications over raw sockets and records which are acknowledged."""

import asyncio
import itertools
import socket
import time
from array import array
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

from notifications.crash.processes import POLL_SECONDS, wait_until

CONNECTIONS = 16


class Poster:
    """
    Posts each notification once over several persistent connections, also if the request fails.

    Args:
        port: The receiver's port; the receiver may be down at times.
        message: Returns the text message for a number.
        numbers: The numbers to post; unlimited by default.
    """

    def __init__(
        self, port: int, message: Callable[[int], str] = lambda _: "", numbers: Iterable[int] | None = None
    ) -> None:
        self._port = port
        self._message = message
        self._numbers = itertools.count() if numbers is None else iter(numbers)
        self._last_acknowledged_at = float("inf")
        #: The numbers whose response was 204.
        self.acknowledged = array("q")
        #: The response time of each of these requests, in seconds.
        self.latencies = array("d")
        #: The longest time between two acknowledgements, in seconds.
        self.longest_gap = 0.0
        self.other_statuses: Counter[int] = Counter()
        #: How many connections were refused.
        self.refused = 0
        #: How many connections were closed before the response.
        self.unanswered = 0

    @asynccontextmanager
    async def post_continuously(self, connections: int = CONNECTIONS) -> AsyncIterator[None]:
        """Post until the context ends."""
        async with asyncio.TaskGroup() as tasks:
            posters = [tasks.create_task(self._keep_posting()) for _ in range(connections)]
            yield
            for poster in posters:
                poster.cancel()

    async def post_all(self, connections: int = CONNECTIONS) -> None:
        """Post all numbers."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(connections):
                tasks.create_task(self._keep_posting())

    async def wait_for_acknowledged(self, count: int) -> None:
        """Wait until *count* notifications have been acknowledged since the start."""
        await wait_until(lambda: len(self.acknowledged) >= count, lambda: len(self.acknowledged))

    async def wait_for_more(self, count: int) -> None:
        await self.wait_for_acknowledged(len(self.acknowledged) + count)

    async def _keep_posting(self) -> None:
        is_finished = False
        while not is_finished:
            try:
                is_finished = await self._post_over_connection()
            except ConnectionRefusedError:
                self.refused += 1
                await asyncio.sleep(POLL_SECONDS)
            except ConnectionError:
                self.unanswered += 1

    async def _post_over_connection(self) -> bool:
        """Post over one connection; return True if all numbers are posted."""
        with socket.socket() as connection:
            connection.settimeout(0)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", self._port))
            for number in self._numbers:
                await self._post(connection, number)
        return True

    async def _post(self, connection: socket.socket, number: int) -> None:
        started = time.monotonic()
        status = await exchange(connection, make_request(number, self._message(number)))
        if status != 204:
            self.other_statuses[status] += 1
            return
        ended = time.monotonic()
        self.acknowledged.append(number)
        self.latencies.append(ended - started)
        self.longest_gap = max(self.longest_gap, ended - self._last_acknowledged_at)
        self._last_acknowledged_at = ended


def make_request(number: int, message: str) -> bytes:
    body = f'{{"TextSent": {{"SubscriptionId": 7, "Text": {{"@id": {number}, "Message": "{message}"}}}}}}'
    head = ["POST / HTTP/1.1", "Host: localhost", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*head, "", body]).encode()


async def exchange(connection: socket.socket, request: bytes) -> int:
    """Send a request; return the status of a response that has no body."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(connection, request)
    response = b""
    while not response.endswith(b"\r\n\r\n"):
        received = await loop.sock_recv(connection, 4096)
        if not received:
            raise ConnectionResetError
        response += received
    return int(response.split(maxsplit=2)[1])
