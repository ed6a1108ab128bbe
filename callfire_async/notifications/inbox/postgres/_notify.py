"""
Hints between hosts that there may be work, by LISTEN and NOTIFY. Whatever fails here, work is looked for all the same.

It imports the connections.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from contextlib import suppress

from callfire_async.notifications.inbox.postgres._pool import Connection, PostgresPool

_log = logging.getLogger("callfire_async.inbox")

# All notifying transactions of a server are committed one after the other, so hints are transactions of their own, and
# few: who is busy needs none.
_PAUSE_SECONDS = 0.02
_AGAIN_SECONDS = 5.0
# A connection whose other end is gone without a word is found to be dead within this.
_LOOK_SECONDS = 30.0


class WorkNotifier:
    """
    Tells other hosts of work, and hears from them.

    Args:
        database: Where.
        channel: What it is called there.
        heard: Called when another host has work.
    """

    def __init__(self, database: PostgresPool, channel: str, heard: Callable[[], None]) -> None:
        self._database = database
        self._channel = channel
        self._heard = heard
        self._name = secrets.token_hex(8)
        self._untold = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to tell and to hear."""
        # An event belongs to the loop in which it was first waited for.
        self._untold = asyncio.Event()
        self._tasks = [asyncio.create_task(work()) for work in (self._notify_loop, self._listen_loop)]

    async def stop(self) -> None:
        """Stop both."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    def tell(self) -> None:
        """Tell the others soon; one hint is enough for all there is to tell then."""
        self._untold.set()

    async def _notify_loop(self) -> None:
        while True:
            await self._untold.wait()
            self._untold.clear()
            pause = _PAUSE_SECONDS
            try:
                await self._database.fetch("SELECT pg_notify($1, $2)", self._channel, self._name)
            except Exception as error:  # noqa: BLE001  # of whatever kind: there will be more to tell
                _log.info("hints cannot be told for now (%s)", type(error).__name__)
                pause = _AGAIN_SECONDS
            await asyncio.sleep(pause)

    async def _listen_loop(self) -> None:
        while True:
            try:
                async with self._database.own_connection() as connection:
                    if connection is None or await _is_pooled(connection):
                        _log.info("hints cannot be heard through a pooler, or with a single connection")
                        return
                    await self._hear(connection)
            except Exception as error:  # noqa: BLE001  # of the network, the server or the driver: it is tried again
                _log.info("hints cannot be heard for now (%s)", type(error).__name__)
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _hear(self, connection: Connection) -> None:
        """Listen until the connection ends."""
        ended = asyncio.Event()
        connection.add_termination_listener(lambda _: ended.set())
        await connection.add_listener(self._channel, self._take)
        # Whatever was told while nobody listened.
        self._heard()
        while not ended.is_set():
            await connection.execute("SELECT 1", timeout=_LOOK_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await ended.wait()

    def _take(self, _connection: object, _process: int, _channel: str, name: object) -> None:
        if name != self._name:
            self._heard()


async def _is_pooled(connection: Connection) -> bool:
    """Tell whether something between the server and us hands out its sessions: to listen is lost on those."""
    process = await connection.fetchval("SELECT pg_backend_pid()", timeout=_LOOK_SECONDS)
    return bool(process != connection.get_server_pid())
