"""
Notifications between processes that there may be work, by LISTEN and NOTIFY.

Every process also polls, so a lost notification only costs time.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from contextlib import suppress

from callfire_async.notifications.inbox._cancellation import cancel_repeatedly
from callfire_async.notifications.inbox.postgres._pool import Connection, PostgresPool, is_pooled

_log = logging.getLogger("callfire_async.inbox")

# The server commits notifying transactions one after the other, so NOTIFY has transactions of its own, and few.
_PAUSE_SECONDS = 0.02
_RETRY_SECONDS = 5.0
# Interval of the checks that the other end of the listening connection is alive.
_CHECK_SECONDS = 30.0


class WorkNotifier:
    """
    Notifies other processes of work, and listens for their notifications.

    Args:
        pool: The connections to the server.
        channel: The channel for LISTEN and NOTIFY.
        on_work: Called if another process may have work.
    """

    def __init__(self, pool: PostgresPool, channel: str, on_work: Callable[[], None]) -> None:
        self._pool = pool
        self._channel = channel
        self._on_work = on_work
        self._sender = secrets.token_hex(8)
        self._pending = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start sending and receiving notifications."""
        # An event is bound to the loop in which it is first awaited.
        self._pending = asyncio.Event()
        self._tasks = [asyncio.create_task(loop()) for loop in (self._notify_loop, self._listen_loop)]

    async def stop(self) -> None:
        """Stop sending and receiving."""
        await cancel_repeatedly(self._tasks)

    def notify(self) -> None:
        """Notify the other processes soon; calls until then share one notification."""
        self._pending.set()

    async def _notify_loop(self) -> None:
        while True:
            await self._pending.wait()
            self._pending.clear()
            pause = _PAUSE_SECONDS
            try:
                await self._pool.fetch("SELECT pg_notify($1, $2)", self._channel, self._sender)
            except Exception as error:  # noqa: BLE001  # the task must survive any error of the driver
                _log.info("cannot send NOTIFY, retrying with the next work: %s", type(error).__name__)
                pause = _RETRY_SECONDS
            await asyncio.sleep(pause)

    async def _listen_loop(self) -> None:
        while True:
            try:
                async with self._pool.own_connection() as connection:
                    if connection is None or await is_pooled(connection, timeout=_CHECK_SECONDS):
                        _log.info("cannot LISTEN through a pooler or with a single connection, polling instead")
                        return
                    await self._listen(connection)
            except Exception as error:  # noqa: BLE001  # of the network, the server or the driver
                _log.info("cannot LISTEN, retrying in %g s: %s", _RETRY_SECONDS, type(error).__name__)
            await asyncio.sleep(_RETRY_SECONDS)

    async def _listen(self, connection: Connection) -> None:
        """Listen until the connection ends."""
        ended = asyncio.Event()
        connection.add_termination_listener(lambda _: ended.set())
        await connection.add_listener(self._channel, self._on_notification)
        # Notifications may have been missed before.
        self._on_work()
        while not ended.is_set():
            await connection.execute("SELECT 1", timeout=_CHECK_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(_CHECK_SECONDS):
                    await ended.wait()

    def _on_notification(self, _connection: object, _process: int, _channel: str, sender: object) -> None:
        if sender != self._sender:
            self._on_work()
