"""
The streams of a `JetStreamInbox`: what they have to be, and what the servers' settings leave to be wished for.

It imports `errors`, the protocol, the connection and how the queue is consumed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import nats.errors
import nats.js.errors
from attrs import frozen
from nats.js.api import AckPolicy, ConsumerConfig, DiscardPolicy, RetentionPolicy, StorageType, StreamConfig, StreamInfo

from callfire_async.errors import InboxError
from callfire_async.notifications.inbox.base import Clock
from callfire_async.notifications.inbox.jetstream import _consumer as queue
from callfire_async.notifications.inbox.jetstream._connection import NatsConnection

__all__ = ["InboxStreams", "prepare", "server_clock"]

_log = logging.getLogger("callfire_async.inbox")

# Groups of writes that are stored whole came with it.
_VERSION = (2, 12)
# JetStream's word for: there is a stream of this name, and it is another.
_OTHER_STREAM = 10058
# What a stream has to be, where anything is asked for; all else may be its operator's wish.
_ESSENTIAL = ("subjects", "retention", "max_msgs_per_subject", "allow_direct", "allow_atomic", "allow_msg_ttl")
# What a stream's server keeps in mind where nobody asks for a window; longer than an append may be tried again.
_WINDOW_SECONDS = 120.0
# For the head of a message, and for the reason of a dead letter beside its body.
HEAD_BYTES = 128 * 1024
_RECEIVERS_BODY_BYTES = 1024 * 1024
_UNSEEN = (
    "whether the disk is synced before the answer cannot be seen from here;"
    " unless the servers have sync_interval: always, the last two minutes may end with the power"
)


@frozen
class InboxStreams:
    """What an inbox's streams are called, and what was asked for."""

    name: str
    replicas: int
    dedupe_window: float

    @property
    def consumer(self) -> str:
        """Whose hands the queue's messages go to."""
        return "workers"

    @property
    def queue(self) -> str:
        """The stream with what is to be done."""
        return self.name

    @property
    def queued(self) -> str:
        """All its subjects."""
        return f"{self.name}.*"

    @property
    def new(self) -> str:
        """Where a delivery is queued that comes."""
        return f"{self.name}.new"

    @property
    def again(self) -> str:
        """Where one is queued that was dead."""
        return f"{self.name}.again"

    @property
    def records(self) -> str:
        """The stream with what is known of each delivery."""
        return f"{self.name}-records"

    @property
    def dead(self) -> str:
        """The stream with the dead letters."""
        return f"{self.name}-dead"

    def streams(self) -> list[StreamConfig]:
        """Say what the streams have to be."""
        kept = StreamConfig(
            storage=StorageType.FILE,
            num_replicas=self.replicas,
            duplicate_window=_WINDOW_SECONDS,
            discard=DiscardPolicy.NEW,
            allow_direct=True,
            allow_atomic=True,
        )
        # Not a second more than was asked for: what the server takes for a repeat is not handled.
        window = self.dedupe_window if self.dedupe_window > 0 else _WINDOW_SECONDS
        queued = kept.evolve(retention=RetentionPolicy.WORK_QUEUE, duplicate_window=window)
        newest = kept.evolve(retention=RetentionPolicy.LIMITS, max_msgs_per_subject=1)
        subjects = [f"{self.records}.>"]
        return [
            queued.evolve(name=self.queue, subjects=[self.queued]),
            newest.evolve(name=self.records, subjects=subjects, allow_msg_ttl=True),
            newest.evolve(name=self.dead, subjects=[f"{self.dead}.*"]),
        ]


async def prepare(link: NatsConnection, settings: InboxStreams) -> None:
    """
    Make the streams and the consumer where they are missing; warn once of what they do not guarantee.

    Raises:
        InboxError: The server is too old, or a stream of this name is somebody else's.
    """
    version = link.client.connected_server_version
    if (version.major, version.minor) < _VERSION:
        raise InboxError(f"NATS at {link.address} is version {version.major}.{version.minor}; 2.12 is needed")
    with link.told():
        found = [await _stream(link, config) for config in settings.streams()]
        consumer = ConsumerConfig(
            durable_name=settings.consumer,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=queue.ACK_WAIT_SECONDS,
            max_deliver=-1,
            # What waits for another attempt is pending too, and must not keep the others back.
            max_ack_pending=-1,
        )
        await link.jetstream.add_consumer(settings.queue, consumer)
        wishes = [*_durability_warnings(found), *await _sync_warnings(link, found), *_size_warnings(link)]
    if wishes:
        _log.warning("NATS at %s does not guarantee that nothing is lost: %s", link.address, "; ".join(wishes))


async def _stream(link: NatsConnection, wanted: StreamConfig) -> StreamInfo:
    """Make a stream, or find it: others may have made it with other wishes."""
    jetstream = link.jetstream
    name = wanted.name or ""
    try:
        info = await jetstream.add_stream(wanted)
    except nats.js.errors.APIError as error:
        if error.err_code != _OTHER_STREAM:
            raise
        info = await jetstream.stream_info(name)
    for setting in _ESSENTIAL:
        if getattr(wanted, setting) not in (None, getattr(info.config, setting)):
            raise InboxError(f"the stream {name} is not this inbox's: its {setting} is another; choose another name")
    if info.config.duplicate_window != wanted.duplicate_window:
        info = await jetstream.update_stream(info.config, duplicate_window=wanted.duplicate_window)
    return info


# --- what is left to be wished for ------------------------------------------------------------------------


def _durability_warnings(found: Sequence[StreamInfo]) -> list[str]:
    wishes = []
    configs = [info.config for info in found]
    if any(config.storage == StorageType.MEMORY for config in configs):
        wishes.append("a stream is kept in memory only (storage: memory)")
    if (fewest := min(config.num_replicas or 1 for config in configs)) < 3:
        wishes.append(f"replicas: {fewest}, so one lost server may be the end of deliveries; three outlast any one")
    if any(config.max_age for config in configs):
        wishes.append("a stream drops what is older than its max_age")
    if any(config.discard == DiscardPolicy.OLD for config in configs):
        wishes.append("a stream drops the oldest when it is full (discard: old)")
    return wishes


async def _sync_warnings(link: NatsConnection, found: Sequence[StreamInfo]) -> list[str]:
    if all(info.config.storage == StorageType.MEMORY for info in found):
        return []
    try:
        # Only the system account may ask, and whoever it lets: then one server speaks for all.
        answer = (await link.client.request("$SYS.REQ.SERVER.PING.JSZ", timeout=link.timeout)).data
    except nats.errors.Error:
        return [_UNSEEN]
    # The word is the server's own, and stands in its answer once.
    if b'"sync_always":true' in answer:
        return []
    return ["the disk is synced after the answer, every two minutes by default (sync_interval is not always)"]


def _size_warnings(link: NatsConnection) -> list[str]:
    largest = link.client.max_payload - HEAD_BYTES
    if largest >= _RECEIVERS_BODY_BYTES:
        return []
    return [f"bodies of more than {largest} bytes are refused (max_payload; 2MB takes all that a receiver does)"]


async def server_clock(link: NatsConnection, settings: InboxStreams) -> Clock:
    """Return the time of the servers, which is the same for all who share an inbox."""
    subject = f"{settings.records}.opened"
    with link.told():
        await link.jetstream.publish(subject, b"", timeout=link.timeout)
        asked = time.monotonic()
        message = await link.jetstream.get_msg(settings.records, subject=subject)
    at = message.time.timestamp() if message.time is not None else time.time()
    return Clock(system=lambda: at + time.monotonic() - asked)
