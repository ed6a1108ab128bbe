"""
What an inbox on JetStream knows of its deliveries: their records, and where their bodies lie.

It imports `errors`, the protocol and, of the rooms beside it, those that speak with the servers.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import secrets
from collections.abc import Awaitable, Iterable, Sequence
from typing import TypeVar

from attrs import evolve, frozen

from callfire_async.errors import InboxError
from callfire_async.notifications.inbox.base import Clock, Delivery
from callfire_async.notifications.inbox.jetstream._config import InboxStreams
from callfire_async.notifications.inbox.jetstream._connection import NatsConnection
from callfire_async.notifications.inbox.jetstream._consumer import PullConsumer
from callfire_async.notifications.inbox.jetstream._records import (
    DEAD,
    DONE,
    DeliveryRecord,
    Message,
    StoredMessage,
    digestible,
)
from callfire_async.notifications.inbox.jetstream._stream import PendingMessage, RevisionConflictError, Stream

T = TypeVar("T")

# So many questions about single deliveries are under way at once.
_AT_ONCE = 64


@frozen(eq=False)
class OpenState:
    """What an inbox has while it is open."""

    link: NatsConnection
    clock: Clock
    queue: PullConsumer
    messages: Stream
    records: Stream
    dead: Stream


class DeliveryStore:
    """
    Reads and writes what is known of each delivery.

    Args:
        settings: What the streams are called.
        retention: Seconds for which the servers keep what is said of what is done.
    """

    def __init__(self, settings: InboxStreams, retention: float) -> None:
        self.settings = settings
        #: None while the inbox is not open.
        self.state: OpenState | None = None
        self._retention = retention

    @property
    def opened(self) -> OpenState:
        """What the inbox has while it is open; an `InboxError` while it is not."""
        if self.state is None:
            raise InboxError("this inbox is not open; use it inside 'async with'")
        return self.state

    def now(self) -> float:
        """Return the time by the servers' clock, in seconds since 1970."""
        return self.opened.clock.seconds()

    async def record(self, id: int) -> DeliveryRecord | None:
        """Return what is known of a delivery that was handed out; None where it never was."""
        stored = await self.opened.records.last(self.record_subject(id)) if id else None
        try:
            return None if stored is None else DeliveryRecord.read(stored)
        except (KeyError, ValueError) as error:
            raise InboxError(
                f"the record of delivery {id} cannot be read; a later version may have written it"
            ) from error

    async def write(self, changed: DeliveryRecord) -> DeliveryRecord | None:
        """
        Write a record, if nobody has since it was read.

        Returns:
            What the record is then: this one, which is to be told from another's by its ``write``.
        """
        headers = {"Nats-Expected-Last-Subject-Sequence": str(changed.revision)}
        if changed.state == DONE:
            headers |= self.lasting()
        write = PendingMessage(self.record_subject(changed.id), changed.written(), headers)
        try:
            (taken,) = await self.opened.records.publish(write)
        except RevisionConflictError:
            return await self.record(changed.id)
        return evolve(changed, revision=taken.sequence)

    async def letter(self, id: int) -> StoredMessage | None:
        """Return a dead letter with its body."""
        return await self.opened.dead.last(self.dead_subject(id))

    async def discard(self, letter: StoredMessage | None) -> None:
        """Delete a dead letter as it was read: what was buried since stays."""
        if letter is not None:
            await self.opened.dead.delete(letter.sequence)

    def lasting(self) -> dict[str, str]:
        """Return the headers of what is to be forgotten after ``retention``."""
        return {"Nats-TTL": f"{max(1, math.ceil(self._retention))}s"}

    def record_subject(self, id: int | str) -> str:
        """Return the subject of a delivery's record; ``*`` is every delivery."""
        return f"{self.settings.records}.record.{id}"

    def event_subject(self, event_key: str, id: int | str) -> str:
        """Return the subject that says that a delivery had this event; ``*`` is any delivery."""
        return f"{self.settings.records}.event.{digest(event_key)}.{id}"

    def dead_subject(self, id: int) -> str:
        """Return the subject of a dead letter."""
        return f"{self.settings.dead}.{id}"

    async def delivery(self, record: DeliveryRecord) -> Delivery:
        """Return a delivery with its body, from wherever that is."""
        if record.state == DONE:
            return record.delivery
        letter = await self.letter(record.id) if record.state == DEAD else None
        stored = letter or await self.opened.messages.at(record.message)
        return record.delivery if stored is None else Message.read(stored).delivery

    async def requeue(self, record: DeliveryRecord, *, crashes: int) -> bool:
        """Queue a dead letter anew; False: another has."""
        delivery, letter = await self.delivery(record), await self.letter(record.id)
        # Named after the revision that was dead: of several who do this, one does.
        id = f"{record.id}@{record.revision}"
        message = PendingMessage(self.settings.again, Message.written(delivery, record, crashes), {"Nats-Msg-Id": id})
        (taken,) = await self.opened.messages.publish(message)
        # Where this is refused, whoever was handed the message has been quicker.
        await self.write(evolve(record.reset(taken.sequence, crashes, self.now()), write=secrets.token_hex(8)))
        await self.discard(letter)
        return not taken.duplicate


def digest(text: str) -> str:
    """Return a name for a text that says nothing of it."""
    return hashlib.sha256(digestible(text)).hexdigest()


def pages(items: Sequence[T]) -> Iterable[Sequence[T]]:
    """Divide questions into as many at a time as may be under way at once."""
    return (items[first : first + _AT_ONCE] for first in range(0, len(items), _AT_ONCE))


async def gather_all(questions: Sequence[Awaitable[T]]) -> list[T]:
    """
    Ask several things at once, and wait for all answers.

    Raises:
        InboxError: The first of those that there were, where nothing else was answered.
    """
    answers = await asyncio.gather(*questions, return_exceptions=True)
    errors = [answer for answer in answers if isinstance(answer, BaseException)]
    if errors:
        raise errors[0]
    return [answer for answer in answers if not isinstance(answer, BaseException)]
