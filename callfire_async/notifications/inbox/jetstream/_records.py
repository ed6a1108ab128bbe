"""
What `JetStreamInbox` keeps, as bytes: a message of its queue, and the record of a delivery.

It imports the protocol and no NATS.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from urllib.parse import parse_qs, urlencode

from attrs import evolve, frozen

from callfire_async.notifications.inbox.base import Delivery

__all__ = ["DEAD", "DONE", "LEASED", "READY", "DeliveryRecord", "Message", "StoredMessage", "digestible"]

READY, LEASED, DONE, DEAD = "ready", "leased", "done", "dead"

# Without a body, to compare what two deliveries say of themselves.
_NOTHING = b""


@frozen
class StoredMessage:
    """What a stream holds under one number."""

    subject: str
    sequence: int
    data: bytes
    #: When the server took it, in seconds since 1970.
    at: float


@frozen
class Message:
    """What was queued: a delivery, or one that is to begin again."""

    #: The delivery's: the number of the message that it came with.
    id: int
    sequence: int
    at: float
    delivery: Delivery
    #: Of one that begins again: which revision of its record was dead, and how many crashes are to be remembered.
    replays: int = 0
    crashes: int = 0

    @classmethod
    def read(cls, stored: StoredMessage) -> Message:
        """Read a message; what somebody else has published is a body, and nothing more is known of it."""
        try:
            fields, body = _parted(stored.data)
            delivery = _delivery(fields, body)
            id, replays, crashes = (int(fields.get(name, [missing])[0]) for name, missing in _REPLAY)
        except (KeyError, ValueError):
            delivery = Delivery(stored.data, received_at=datetime.fromtimestamp(stored.at).astimezone())
            return cls(stored.sequence, stored.sequence, stored.at, delivery)
        return cls(id or stored.sequence, stored.sequence, stored.at, delivery, replays, crashes)

    @staticmethod
    def written(delivery: Delivery, record: DeliveryRecord | None = None, crashes: int = 0) -> bytes:
        """Write a delivery, or one that is to begin again after *record*."""
        again = () if record is None else (record.id, record.revision, crashes)
        fields = [(name, str(value)) for (name, _), value in zip(_REPLAY, again, strict=False)]
        return _joined([*_fields(delivery), *fields], delivery.body)


_REPLAY = (("id", "0"), ("replays", "0"), ("crashes", "0"))


@frozen
class DeliveryRecord:
    """What is known of a delivery that was handed out."""

    id: int
    #: Its body is empty unless it is done and bodies are kept.
    delivery: Delivery
    #: The number of the message in the queue that carries the body.
    message: int
    #: When it is due; of a lease, when it ends.
    due_at: float
    updated_at: float
    state: str = READY
    attempt: int = 1
    crashes: int = 0
    completed: frozenset[str] = frozenset()
    reason: str = ""
    event_key: str = ""
    token: str = ""
    #: Unlike that of any other write: tells whether a write came through that nobody answered for.
    write: str = ""
    #: Its number in the stream; 0 where it was never written.
    revision: int = 0

    @classmethod
    def new(cls, message: Message) -> DeliveryRecord:
        """Make the record of what was never handed out."""
        delivery = evolve(message.delivery, body=_NOTHING)
        return cls(message.id, delivery, message.sequence, message.at, message.at, crashes=message.crashes)

    @classmethod
    def read(cls, stored: StoredMessage) -> DeliveryRecord:
        """Read a record that was `written`."""
        fields, body = _parted(stored.data)
        one = {name: values[0] for name, values in fields.items()}
        return cls(
            id=int(stored.subject.rpartition(".")[2]),
            delivery=_delivery(fields, body),
            message=int(one["message"]),
            due_at=float(one["due_at"]),
            updated_at=float(one["updated_at"]),
            state=one["state"],
            attempt=int(one["attempt"]),
            crashes=int(one["crashes"]),
            completed=frozenset(fields.get("completed", ())),
            reason=one["reason"],
            event_key=one["event_key"],
            token=one["token"],
            write=one["write"],
            revision=stored.sequence,
        )

    def written(self) -> bytes:
        """Write it; its id is in the subject, and its revision what the stream makes of it."""
        names = ("message", "due_at", "updated_at", "state", "attempt", "crashes", "reason", "event_key", "token")
        fields = [(name, str(getattr(self, name))) for name in (*names, "write")]
        completed = [("completed", name) for name in sorted(self.completed)]
        return _joined([*_fields(self.delivery), *fields, *completed], self.delivery.body)

    @property
    def is_open(self) -> bool:
        """Whether there is still something to be done."""
        return self.state in (READY, LEASED)

    def is_of(self, message: Message) -> bool:
        """Tell whether a message carries this delivery: numbers begin again where a stream was made anew."""
        return evolve(self.delivery, body=_NOTHING) == evolve(message.delivery, body=_NOTHING)

    def reset(self, sequence: int, crashes: int, now: float) -> DeliveryRecord:
        """Return it as new, carried by another message; what has succeeded stays."""
        return evolve(self, state=READY, message=sequence, attempt=1, crashes=crashes, due_at=now, updated_at=now)


def digestible(text: str) -> bytes:
    """Return a text as bytes, whatever is in it: a server hands over what it could not decode as lone surrogates."""
    return text.encode("utf-8", "surrogatepass")


def _fields(delivery: Delivery) -> list[tuple[str, str]]:
    fields = [("key", delivery.key), ("received_at", delivery.received_at.isoformat())]
    return fields if delivery.content_type is None else [*fields, ("content_type", delivery.content_type)]


def _delivery(fields: dict[str, list[str]], body: bytes) -> Delivery:
    (content_type,) = fields.get("content_type", [None])
    return Delivery(body, content_type, datetime.fromisoformat(fields["received_at"][0]), fields["key"][0])


def _joined(fields: Iterable[tuple[str, str]], body: bytes) -> bytes:
    return urlencode(list(fields), errors="surrogatepass").encode() + b"\n" + body


def _parted(data: bytes) -> tuple[dict[str, list[str]], bytes]:
    head, _, body = data.partition(b"\n")
    return parse_qs(head.decode("ascii"), keep_blank_values=True, errors="surrogatepass"), body
