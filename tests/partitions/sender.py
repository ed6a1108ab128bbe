"""Posts notifications at a steady rate to several receivers in turn, and records the responses."""

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from notifications.crash.poster import exchange, make_request
from partitions import history
from partitions.history import Journal

_TIMEOUT_SECONDS = 15.0


class Sender:
    """
    Posts each notification once, each over a connection of its own.

    Args:
        addresses: The receivers.
        journal: The journal of the sender's host.
        rate: Notifications per second.
    """

    def __init__(self, addresses: Sequence[tuple[str, int]], journal: Journal, rate: float) -> None:
        self._addresses = addresses
        self._journal = journal
        self._rate = rate
        self._numbers = itertools.count()

    @asynccontextmanager
    async def posting(self) -> AsyncIterator[None]:
        """Post during the block; then wait for the responses."""
        async with asyncio.TaskGroup() as requests:
            starting = asyncio.create_task(self._start_requests(requests))
            try:
                yield
            finally:
                starting.cancel()

    async def _start_requests(self, requests: asyncio.TaskGroup) -> None:
        for number in self._numbers:
            requests.create_task(self._post(number))
            await asyncio.sleep(1 / self._rate)

    async def _post(self, number: int) -> None:
        self._journal.write(history.POSTING, number)
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                status = await self._exchange(number)
        except (OSError, TimeoutError) as error:
            self._journal.write(history.UNANSWERED, number, detail=type(error).__name__)
        else:
            word = history.ACKNOWLEDGED if status == 204 else history.REFUSED
            self._journal.write(word, number, detail=str(status))

    async def _exchange(self, number: int) -> int:
        with socket.socket() as connection:
            connection.settimeout(0)
            address = self._addresses[number % len(self._addresses)]
            await asyncio.get_running_loop().sock_connect(connection, address)
            return await exchange(connection, make_request(number, ""))
