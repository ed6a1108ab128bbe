"""Stream and consumer configuration of a `JetStreamInbox`, and warnings about missing guarantees."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import nats.errors
import nats.js.errors
from attrs import frozen
from nats.js.api import AckPolicy, ConsumerConfig, DiscardPolicy, RetentionPolicy, StorageType, StreamConfig, StreamInfo

from callfire_async.errors import InboxError
from callfire_async.notifications.inbox._waiting import log_slow_start
from callfire_async.notifications.inbox.base import Clock
from callfire_async.notifications.inbox.jetstream import _consumer
from callfire_async.notifications.inbox.jetstream._connection import NatsConnection

__all__ = ["STREAM_EXISTS_ERROR", "InboxStreams", "consumer_config", "prepare", "server_clock"]

_log = logging.getLogger("callfire_async.inbox")

# The first version with atomic batch publish.
_MIN_VERSION = (2, 12)
# Error code of JetStream: a stream with this name exists with a different configuration.
STREAM_EXISTS_ERROR = 10058
# These settings must be the inbox's; the operator may choose all others.
_REQUIRED_SETTINGS = ("subjects", "retention", "max_msgs_per_subject", "allow_direct", "allow_atomic", "allow_msg_ttl")
# The deduplication window of streams without a setting of the user; longer than an append is retried.
_WINDOW_SECONDS = 120.0
# About 50,000 first leases. A delivery whose lease was dropped is redelivered, too.
_MAX_LEASE_BYTES = 32 * 1024 * 1024
# For the fields of a message, and for a dead letter's reason beside its body.
HEAD_BYTES = 128 * 1024
_MAX_BODY_BYTES = 1024 * 1024
_CLOCK_SAMPLES = 4
_UNKNOWN_SYNC = (
    "cannot read sync_interval (only the system account can); unless it is always, a power failure may lose the"
    " last two minutes"
)


@frozen
class InboxStreams:
    """The names of an inbox's streams, and their settings."""

    name: str
    replicas: int
    dedupe_window: float

    @property
    def consumer(self) -> str:
        """The consumer of the queue."""
        return "workers"

    @property
    def queue(self) -> str:
        """The stream of deliveries that are not settled."""
        return self.name

    @property
    def queue_subjects(self) -> str:
        """All subjects of the queue."""
        return f"{self.name}.*"

    @property
    def append_subject(self) -> str:
        """The queue's subject for new deliveries."""
        return f"{self.name}.new"

    @property
    def replay_subject(self) -> str:
        """The queue's subject for dead letters that are replayed."""
        return f"{self.name}.again"

    @property
    def records(self) -> str:
        """The stream of delivery records."""
        return f"{self.name}-records"

    @property
    def dead(self) -> str:
        """The stream of dead letters."""
        return f"{self.name}-dead"

    @property
    def leases(self) -> str:
        """The stream of first leases, in memory."""
        return f"{self.name}-leases"

    def lease_config(self) -> StreamConfig:
        """Return the configuration of the stream of first leases, which drops its oldest if it is full."""
        return StreamConfig(
            name=self.leases,
            subjects=[f"{self.leases}.*"],
            storage=StorageType.MEMORY,
            num_replicas=self.replicas,
            max_msgs_per_subject=1,
            max_bytes=_MAX_LEASE_BYTES,
            discard=DiscardPolicy.OLD,
            duplicate_window=_WINDOW_SECONDS,
            allow_direct=True,
            allow_atomic=True,
        )

    def configs(self) -> list[StreamConfig]:
        """Return the configurations of the streams on disk."""
        common = StreamConfig(
            storage=StorageType.FILE,
            num_replicas=self.replicas,
            duplicate_window=_WINDOW_SECONDS,
            discard=DiscardPolicy.NEW,
            allow_direct=True,
            allow_atomic=True,
        )
        # Exactly the user's window: the server drops duplicates, so a longer one would lose deliveries.
        window = self.dedupe_window if self.dedupe_window > 0 else _WINDOW_SECONDS
        queue = common.evolve(retention=RetentionPolicy.WORK_QUEUE, duplicate_window=window)
        newest = common.evolve(retention=RetentionPolicy.LIMITS, max_msgs_per_subject=1)
        return [
            queue.evolve(name=self.queue, subjects=[self.queue_subjects]),
            newest.evolve(name=self.records, subjects=[f"{self.records}.>"], allow_msg_ttl=True),
            newest.evolve(name=self.dead, subjects=[f"{self.dead}.*"]),
        ]


async def prepare(connection: NatsConnection, streams: InboxStreams, *, create: bool) -> None:
    """
    Create the streams and the consumer if they are missing, and log one warning about missing guarantees.

    Args:
        connection: The connection to NATS.
        streams: The names of the streams.
        create: Whether to create and change anything.

    Raises:
        InboxError: The server is too old; a stream with this name has a different configuration; or one is missing, and
            *create* is false.
    """
    version = connection.client.connected_server_version
    if (version.major, version.minor) < _MIN_VERSION:
        found = f"{version.major}.{version.minor}"
        raise InboxError(f"NATS at {connection.address} has version {found}; version 2.12 or later is required")
    waiting = log_slow_start(f"the streams of inbox {streams.name} on NATS at {connection.address}", connection.timeout)
    with connection.translate_errors():
        async with waiting:
            infos = [await _ensure_stream(connection, config, create=create) for config in streams.configs()]
            if create:
                await connection.jetstream.add_consumer(streams.queue, consumer_config(streams))
        warnings = [*_durability_warnings(infos), *await _sync_warnings(connection, infos), *_size_warnings(connection)]
    if warnings:
        _log.warning("NATS at %s does not guarantee durable deliveries: %s", connection.address, "; ".join(warnings))


def consumer_config(streams: InboxStreams) -> ConsumerConfig:
    """Return the configuration of the queue's consumer."""
    return ConsumerConfig(
        durable_name=streams.consumer,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=_consumer.ACK_WAIT_SECONDS,
        max_deliver=-1,
        # Delayed deliveries count as pending and must not block others.
        max_ack_pending=-1,
    )


async def _ensure_stream(connection: NatsConnection, config: StreamConfig, *, create: bool) -> StreamInfo:
    """Return a stream that exists, which may have other settings of the operator, or create it if *create* is true."""
    name = config.name or ""
    info = await (_create_stream if create else _existing_stream)(connection, config)
    for setting in _REQUIRED_SETTINGS:
        if getattr(config, setting) not in (None, getattr(info.config, setting)):
            raise InboxError(f"stream {name} exists with a different {setting}; choose another name=")
    if create and info.config.duplicate_window != config.duplicate_window:
        info = await connection.jetstream.update_stream(info.config, duplicate_window=config.duplicate_window)
    return info


async def _create_stream(connection: NatsConnection, config: StreamConfig) -> StreamInfo:
    try:
        return await connection.jetstream.add_stream(config)
    except nats.js.errors.APIError as error:
        if error.err_code != STREAM_EXISTS_ERROR:
            raise
        return await connection.jetstream.stream_info(config.name or "")


async def _existing_stream(connection: NatsConnection, config: StreamConfig) -> StreamInfo:
    try:
        return await connection.jetstream.stream_info(config.name or "")
    except nats.js.errors.NotFoundError as error:
        message = f"NATS at {connection.address} has no inbox with this name: stream {config.name} is missing"
        raise InboxError(message) from error


# --- warnings ---------------------------------------------------------------------------------------------


def _durability_warnings(infos: Sequence[StreamInfo]) -> list[str]:
    configs = [info.config for info in infos]
    replicas = min(config.num_replicas or 1 for config in configs)
    checks = {
        "a stream is in memory only (storage: memory)": any(c.storage == StorageType.MEMORY for c in configs),
        f"replicas: {replicas}, so the loss of one server may lose deliveries; use three": replicas < 3,
        "a stream deletes messages older than its max_age": any(c.max_age for c in configs),
        "a full stream deletes its oldest messages (discard: old)": any(
            c.discard == DiscardPolicy.OLD for c in configs
        ),
    }
    return [warning for warning, applies in checks.items() if applies]


async def _sync_warnings(connection: NatsConnection, infos: Sequence[StreamInfo]) -> list[str]:
    if all(info.config.storage == StorageType.MEMORY for info in infos):
        return []
    try:
        # Only the system account, and accounts that import its service, get a response. The first one counts for all.
        response = await connection.client.request("$SYS.REQ.SERVER.PING.JSZ", timeout=connection.timeout)
    except nats.errors.Error:
        return [_UNKNOWN_SYNC]
    if b'"sync_always":true' in response.data:
        return []
    return ["the disk is synced after the ack, by default every two minutes (sync_interval is not always)"]


def _size_warnings(connection: NatsConnection) -> list[str]:
    limit = connection.client.max_payload - HEAD_BYTES
    if limit >= _MAX_BODY_BYTES:
        return []
    return [f"bodies of more than {limit} bytes are refused (max_payload; a receiver accepts bodies that need 2MB)"]


async def server_clock(connection: NatsConnection, streams: InboxStreams) -> Clock:
    """
    Return a clock that follows the servers' time, which all processes share.

    It is slow by the time that an ack takes, so the fastest of a few counts. The first one on a connection is slower.
    """
    with connection.translate_errors():
        offsets = [await _clock_offset(connection, streams) for _ in range(_CLOCK_SAMPLES)]
    return Clock(system=lambda: max(offsets) + time.monotonic())


async def _clock_offset(connection: NatsConnection, streams: InboxStreams) -> float:
    """Return the servers' time less the monotonic clock's, and less the time that an ack took."""
    subject = f"{streams.records}.opened"
    await connection.jetstream.publish(subject, b"", timeout=connection.timeout)
    acknowledged_at = time.monotonic()
    message = await connection.jetstream.get_msg(streams.records, subject=subject)
    stored_at = message.time.timestamp() if message.time is not None else time.time()
    return stored_at - acknowledged_at
