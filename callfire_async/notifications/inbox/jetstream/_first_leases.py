"""
The leases of first attempts, which a `JetStreamInbox` keeps in the servers' memory.

Such a lease needs no disk sync, because little is lost with it: the delivery is redelivered when the lease would have
expired, and only its crash is not counted. Its holder settles it by writing the delivery's record on disk.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import nats.js.errors
from attrs import evolve
from nats.js.api import RetentionPolicy

from callfire_async.errors import InboxError
from callfire_async.notifications.inbox.jetstream._config import STREAM_EXISTS_ERROR, InboxStreams
from callfire_async.notifications.inbox.jetstream._connection import NatsConnection
from callfire_async.notifications.inbox.jetstream._records import DeliveryRecord, decode_record
from callfire_async.notifications.inbox.jetstream._stream import (
    EXPECTED_REVISION,
    PendingMessage,
    RevisionConflictError,
    Stream,
)

__all__ = ["FirstLeases"]

T = TypeVar("T")

_log = logging.getLogger("callfire_async.inbox")

# How long a claim waits for the servers' memory before it uses the disk.
_MAX_WAIT_SECONDS = 2.0
# Long, because a server gives no response to a user who may not create the stream, and a claim waits for it.
_PAUSE_SECONDS = 300.0


class FirstLeases:
    """
    Writes and reads the leases of deliveries that have no record on disk.

    While the servers have no memory for them, nothing is written, and nothing found.

    Args:
        connection: The connection to NATS.
        streams: The names of the streams.
        create: Whether to create the stream if it is missing.
    """

    def __init__(self, connection: NatsConnection, streams: InboxStreams, *, create: bool) -> None:
        self._connection = connection
        self._streams = streams
        self._stream = Stream(connection, streams.leases, is_optional=True)
        self._creation = asyncio.Lock()
        self._may_create = create
        self._is_created = False
        # By the monotonic clock.
        self._paused_until = 0.0
        connection.on_reconnect(self._reset)

    async def open(self) -> None:
        """Create the stream if it is missing and the servers have memory for it."""
        await self._attempt(self._create)

    def _reset(self) -> None:
        """Create the stream again before it is used: a server that was restarted has lost it."""
        self._is_created = False
        self._paused_until = 0.0

    async def close(self) -> None:
        """Wait a moment for pending leases."""
        await self._stream.close()

    async def write(self, record: DeliveryRecord) -> bool:
        """
        Write a lease in place of the one with its ``lease_revision``; return False if the servers cannot keep it.

        Raises:
            RevisionConflictError: Another process has written a lease of the delivery.
        """
        headers = {EXPECTED_REVISION: str(record.lease_revision)}
        message = PendingMessage(self._subject(record.id), record.encode(), headers)
        try:
            return await self._attempt(lambda: self._stream.publish(message)) is not None
        except RevisionConflictError:
            # An earlier attempt of this write may have been executed without a response.
            stored = await self.get(record.id)
            if stored is None or stored.write != record.write:
                raise
            return True

    async def get(self, id: int) -> DeliveryRecord | None:
        """Return the lease of a delivery, without a revision on disk, or None."""
        stored = await self._attempt(lambda: self._stream.get_last(self._subject(id)))
        if stored is None:
            return None
        return evolve(decode_record(stored), revision=0, lease_revision=stored.sequence)

    def _subject(self, id: int) -> str:
        return f"{self._streams.leases}.{id}"

    async def _attempt(self, operation: Callable[[], Awaitable[T]]) -> T | None:
        """Call *operation*; return None if the servers' memory cannot be used now."""
        if time.monotonic() < self._paused_until:
            return None
        try:
            async with asyncio.timeout(_MAX_WAIT_SECONDS):
                await self._create()
                return await operation()
        except (InboxError, TimeoutError) as error:
            self._pause(error)
            return None

    async def _create(self) -> None:
        async with self._creation:
            if self._may_create and not self._is_created:
                with self._connection.translate_errors(is_optional=True):
                    await self._add_stream()
            self._is_created = True

    async def _add_stream(self) -> None:
        try:
            await self._connection.jetstream.add_stream(self._streams.lease_config())
        except nats.js.errors.APIError as error:
            # The operator may have changed it.
            if error.err_code != STREAM_EXISTS_ERROR:
                raise
            info = await self._connection.jetstream.stream_info(self._streams.leases)
            # Another inbox with this name would handle the leases as deliveries.
            if info.config.retention == RetentionPolicy.WORK_QUEUE:
                raise InboxError(f"it is the queue of inbox {self._streams.leases}") from error

    def _pause(self, error: Exception) -> None:
        self._is_created = False
        self._paused_until = time.monotonic() + _PAUSE_SECONDS
        reason = str(error) or "no response"
        _log.info(
            "cannot keep leases in memory in stream %s, writing them to disk for %g s: %s",
            self._streams.leases,
            _PAUSE_SECONDS,
            reason,
        )
