"""A fast sender of notifications, which notes what was acknowledged."""

import asyncio
import itertools
import socket
import time
from array import array
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

from notifications.crash.processes import POLL_SECONDS, until

CONNECTIONS = 16


class Poster:
    """
    Posts notifications over several connections that are kept; each notification once, whatever becomes of it.

    Args:
        port: Where the receiver listens, now and then.
        message: What the text of a number says.
        numbers: Which to post; without end unless given.
    """

    def __init__(
        self, port: int, message: Callable[[int], str] = lambda _: "", numbers: Iterable[int] | None = None
    ) -> None:
        self._port = port
        self._message = message
        self._numbers = itertools.count() if numbers is None else iter(numbers)
        self._answered_at = float("inf")
        #: The numbers that were answered 204.
        self.acknowledged = array("q")
        #: Seconds from each of those requests to its answer.
        self.latencies = array("d")
        #: The longest time between two acknowledgements.
        self.longest_gap = 0.0
        self.other_statuses: Counter[int] = Counter()
        #: How many connections nobody took.
        self.refused = 0
        #: How many requests were broken off before their answer.
        self.unanswered = 0

    @asynccontextmanager
    async def posting(self, connections: int = CONNECTIONS) -> AsyncIterator[None]:
        """Post until this is left."""
        async with asyncio.TaskGroup() as tasks:
            posting = [tasks.create_task(self._keep_posting()) for _ in range(connections)]
            yield
            for one in posting:
                one.cancel()

    async def post_all(self, connections: int = CONNECTIONS) -> None:
        """Post until all numbers have been."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(connections):
                tasks.create_task(self._keep_posting())

    async def acknowledges(self, count: int) -> None:
        """Wait until so many have been acknowledged in all."""
        await until(lambda: len(self.acknowledged) >= count, lambda: len(self.acknowledged))

    async def acknowledges_more(self, count: int) -> None:
        await self.acknowledges(len(self.acknowledged) + count)

    async def _keep_posting(self) -> None:
        is_over = False
        while not is_over:
            try:
                is_over = await self._post_over_one()
            except ConnectionRefusedError:
                self.refused += 1
                await asyncio.sleep(POLL_SECONDS)
            except ConnectionError:
                self.unanswered += 1

    async def _post_over_one(self) -> bool:
        """Post over one connection until it breaks, or all is posted."""
        with socket.socket() as connection:
            connection.settimeout(0)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", self._port))
            for number in self._numbers:
                await self._post(connection, number)
        return True

    async def _post(self, connection: socket.socket, number: int) -> None:
        begun = time.monotonic()
        status = await exchange(connection, request(number, self._message(number)))
        if status != 204:
            self.other_statuses[status] += 1
            return
        ended = time.monotonic()
        self.acknowledged.append(number)
        self.latencies.append(ended - begun)
        self.longest_gap = max(self.longest_gap, ended - self._answered_at)
        self._answered_at = ended


def request(number: int, message: str) -> bytes:
    body = f'{{"TextSent": {{"SubscriptionId": 7, "Text": {{"@id": {number}, "Message": "{message}"}}}}}}'
    head = ["POST / HTTP/1.1", "Host: localhost", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*head, "", body]).encode()


async def exchange(connection: socket.socket, sent: bytes) -> int:
    """Send a request; return the status of an answer that has no body."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(connection, sent)
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        received = await loop.sock_recv(connection, 4096)
        if not received:
            raise ConnectionResetError
        answer += received
    return int(answer.split(maxsplit=2)[1])
