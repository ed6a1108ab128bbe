"""Restores the consumer of a `JetStreamInbox` if an operator deletes or changes it while the inbox is open."""

from __future__ import annotations

import logging
import time

import nats.js.errors
from nats.js.api import ConsumerConfig, ConsumerInfo

from callfire_async.notifications.inbox.jetstream._config import InboxStreams, consumer_config
from callfire_async.notifications.inbox.jetstream._connection import NatsConnection

__all__ = ["ConsumerGuard"]

_log = logging.getLogger("callfire_async.inbox")

# A changed setting may prevent deliveries without any error.
_CHECK_SECONDS = 30.0
# With other values of these settings, a consumer would deliver some messages never, without their bodies, or only a few
# times.
_SETTINGS = (
    *("ack_policy", "ack_wait", "backoff", "deliver_subject", "filter_subject", "filter_subjects", "headers_only"),
    *("inactive_threshold", "max_ack_pending", "max_deliver"),
)


class ConsumerGuard:
    """
    Creates the queue's consumer again if it was deleted, and restores its settings if they were changed.

    A missing stream is not created again, because an empty one would hide the loss of its deliveries.

    Args:
        connection: The connection to NATS.
        streams: The names of the streams.
    """

    def __init__(self, connection: NatsConnection, streams: InboxStreams) -> None:
        self._connection = connection
        self._streams = streams
        self._name = f"consumer {streams.consumer} of stream {streams.queue} on NATS at {connection.address}"
        self._config = consumer_config(streams)
        self._check_at = time.monotonic() + _CHECK_SECONDS
        self._is_paused = False

    async def check_if_due(self) -> None:
        """Restore the consumer if that was not checked for a while; raise the errors of `restore`."""
        if time.monotonic() >= self._check_at:
            self._check_at = time.monotonic() + _CHECK_SECONDS
            await self.restore()

    async def restore(self) -> bool:
        """
        Restore the consumer; return whether it was deleted or changed.

        Raises:
            InboxUnavailableError: A stream is missing, or no response in time.
            InboxError: The servers refuse the consumer.
        """
        with self._connection.translate_errors():
            for stream in (self._streams.queue, self._streams.records, self._streams.dead):
                await self._connection.check_stream(stream)
            info = await self._info()
            if info is None:
                _log.error("%s was deleted, creating it again; running deliveries may be handled twice", self._name)
            elif changed := self._changed(info.config):
                _log.error("%s has changed settings, restoring them: %s", self._name, ", ".join(changed))
            else:
                self._log_pause(info)
                return False
            await self._connection.jetstream.add_consumer(self._streams.queue, self._config)
            return True

    async def _info(self) -> ConsumerInfo | None:
        try:
            info: ConsumerInfo = await self._connection.jetstream.consumer_info(
                self._streams.queue, self._streams.consumer
            )
        except nats.js.errors.NotFoundError:
            return None
        return info

    def _changed(self, config: ConsumerConfig) -> list[str]:
        pairs = {name: (getattr(config, name), getattr(self._config, name)) for name in _SETTINGS}
        # The server leaves some defaults out.
        return [name for name, (found, wanted) in pairs.items() if (found or None) != (wanted or None)]

    def _log_pause(self, info: ConsumerInfo) -> None:
        is_paused = bool(info.paused)
        if is_paused and not self._is_paused:
            _log.warning(
                "%s is paused until %s; no delivery is handled until then", self._name, info.config.pause_until
            )
        self._is_paused = is_paused
