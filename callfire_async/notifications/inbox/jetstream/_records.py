"""The bytes that a `JetStreamInbox` stores: messages of the queue, and the record of each delivery."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from urllib.parse import parse_qs, urlencode

from attrs import evolve, frozen

from callfire_async.errors import InboxError
from callfire_async.notifications.inbox.base import Delivery

__all__ = ["DEAD", "DELAYED", "DONE", "LEASED", "READY", "DeliveryRecord", "Message", "StoredMessage", "decode_record"]

# A record is never DELAYED: that is the state of an entry whose record is READY and not due yet.
READY, DELAYED, LEASED, DONE, DEAD = "ready", "delayed", "leased", "done", "dead"


@frozen
class StoredMessage:
    """A message of a stream."""

    subject: str
    sequence: int
    data: bytes
    #: When the server stored it, in seconds since 1970.
    time: float


@frozen
class Message:
    """A message of the queue: a new delivery, or a dead letter that is replayed."""

    #: The delivery's ID, which is the sequence of its first message.
    id: int
    sequence: int
    time: float
    delivery: Delivery
    #: In a replay: the revision of the dead letter's record, and the crashes to count from.
    replays: int = 0
    crashes: int = 0

    @classmethod
    def decode(cls, stored: StoredMessage) -> Message:
        """Return the message; data that this library did not write is the body of a new delivery."""
        try:
            fields, body = _decode(stored.data)
            delivery = _decode_delivery(fields, body)
            id, replays, crashes = (int(fields.get(name, ["0"])[0]) for name in _REPLAY_FIELDS)
        except (KeyError, ValueError):
            delivery = Delivery(stored.data, received_at=datetime.fromtimestamp(stored.time).astimezone())
            return cls(stored.sequence, stored.sequence, stored.time, delivery)
        return cls(id or stored.sequence, stored.sequence, stored.time, delivery, replays, crashes)

    @staticmethod
    def encode(delivery: Delivery, record: DeliveryRecord | None = None, crashes: int = 0) -> bytes:
        """Return the data of a new delivery, or of one that replays *record*."""
        replay = () if record is None else (record.id, record.revision, crashes)
        fields = [(name, str(value)) for name, value in zip(_REPLAY_FIELDS, replay, strict=False)]
        return _encode([*_delivery_fields(delivery), *fields], delivery.body)


_REPLAY_FIELDS = ("id", "replays", "crashes")


@frozen
class DeliveryRecord:
    """The state of a delivery that was leased at least once."""

    id: int
    #: Without the body, unless the delivery is done and bodies are kept.
    delivery: Delivery
    #: The sequence of the queue's message that has the body.
    message: int
    #: When the delivery is due, or its lease expires.
    due_at: float
    updated_at: float
    state: str = READY
    attempt: int = 1
    crashes: int = 0
    completed: frozenset[str] = frozenset()
    reason: str = ""
    event_key: str = ""
    token: str = ""
    #: A random ID of the last write, which identifies a write that got no response.
    write: str = ""
    #: The record's sequence in its stream; 0 if it was never written there.
    revision: int = 0
    #: The sequence of the first lease in the servers' memory; 0 without one.
    lease_revision: int = 0

    @classmethod
    def new(cls, message: Message) -> DeliveryRecord:
        """Return the record of a delivery that was never leased."""
        delivery = evolve(message.delivery, body=b"")
        return cls(message.id, delivery, message.sequence, message.time, message.time, crashes=message.crashes)

    @classmethod
    def decode(cls, stored: StoredMessage) -> DeliveryRecord:
        """Return the record; raise KeyError or ValueError if it is invalid."""
        fields, body = _decode(stored.data)
        first = {name: values[0] for name, values in fields.items()}
        return cls(
            id=int(stored.subject.rpartition(".")[2]),
            delivery=_decode_delivery(fields, body),
            message=int(first["message"]),
            due_at=float(first["due_at"]),
            updated_at=float(first["updated_at"]),
            state=first["state"],
            attempt=int(first["attempt"]),
            crashes=int(first["crashes"]),
            completed=frozenset(fields.get("completed", ())),
            reason=first["reason"],
            event_key=first["event_key"],
            token=first["token"],
            write=first["write"],
            revision=stored.sequence,
        )

    def encode(self) -> bytes:
        """Return the data; the ID is in the subject, and the stream assigns the revision."""
        names = ("message", "due_at", "updated_at", "state", "attempt", "crashes", "reason", "event_key", "token")
        fields = [(name, str(getattr(self, name))) for name in (*names, "write")]
        completed = [("completed", name) for name in sorted(self.completed)]
        return _encode([*_delivery_fields(self.delivery), *fields, *completed], self.delivery.body)

    @property
    def is_open(self) -> bool:
        """Whether the delivery is neither done nor dead."""
        return self.state in (READY, LEASED)

    def is_of(self, message: Message) -> bool:
        """Return whether *message* has this delivery: sequences start again if a stream is recreated."""
        return evolve(self.delivery, body=b"") == evolve(message.delivery, body=b"")

    def reset(self, sequence: int, crashes: int, now: float) -> DeliveryRecord:
        """Return the record of a replay by the message *sequence*; completed handlers are kept."""
        return evolve(self, state=READY, message=sequence, attempt=1, crashes=crashes, due_at=now, updated_at=now)


def decode_record(stored: StoredMessage) -> DeliveryRecord:
    """Return a record; raise `InboxError` if it is invalid."""
    try:
        return DeliveryRecord.decode(stored)
    except (KeyError, ValueError) as error:
        id = stored.subject.rpartition(".")[2]
        message = f"cannot read the record of delivery {id}; a later version may have written it"
        raise InboxError(message) from error


def _delivery_fields(delivery: Delivery) -> list[tuple[str, str]]:
    fields = [("key", delivery.key), ("received_at", delivery.received_at.isoformat())]
    return fields if delivery.content_type is None else [*fields, ("content_type", delivery.content_type)]


def _decode_delivery(fields: dict[str, list[str]], body: bytes) -> Delivery:
    (content_type,) = fields.get("content_type", [None])
    return Delivery(body, content_type, datetime.fromisoformat(fields["received_at"][0]), fields["key"][0])


def _encode(fields: Iterable[tuple[str, str]], body: bytes) -> bytes:
    # Servers decode undecodable headers to lone surrogates.
    return urlencode(list(fields), errors="surrogatepass").encode() + b"\n" + body


def _decode(data: bytes) -> tuple[dict[str, list[str]], bytes]:
    head, _, body = data.partition(b"\n")
    return parse_qs(head.decode("ascii"), keep_blank_values=True, errors="surrogatepass"), body
