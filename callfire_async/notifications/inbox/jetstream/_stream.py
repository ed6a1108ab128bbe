"""One stream of a `JetStreamInbox`: batched publish, get, delete, and lists in pages."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from itertools import chain
from typing import Any, TypeVar

import nats.errors
import nats.js.errors
from attrs import evolve, frozen
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js.api import Base, RawStreamMsg

from callfire_async._codec.documents import write_json
from callfire_async.notifications.inbox._batching import Batcher
from callfire_async.notifications.inbox.jetstream._connection import NatsConnection, header
from callfire_async.notifications.inbox.jetstream._records import StoredMessage

__all__ = ["EXPECTED_REVISION", "PendingMessage", "PublishAck", "RevisionConflictError", "Stream"]

T = TypeVar("T")

# JetStream stores a batch atomically in files of its own first, which costs about as much as this many single messages.
_MIN_BATCH_MESSAGES = 16
# The server's limit.
_MAX_BATCH_MESSAGES = 1000
_MAX_PAGE_MESSAGES = 256
_MAX_PAGE_BYTES = 8 * 1024 * 1024
EXPECTED_REVISION = "Nats-Expected-Last-Subject-Sequence"
# Error codes of JetStream: the expected last sequence of the subject is wrong.
_WRONG_REVISION_ERRORS = frozenset([10071, 10164])
# Error codes of JetStream: the stream has no message with this sequence.
_NOT_FOUND_ERRORS = frozenset([10043, 10037, 10057, 10070])


class RevisionConflictError(Exception):  # internal: never raised to users
    """Raised if another process has written to the subject since it was read."""


@frozen
class PendingMessage:
    """A message to publish."""

    subject: str
    data: bytes
    headers: dict[str, str]


@frozen
class PublishAck:
    """The server's acknowledgement; a duplicate has the sequence of the first."""

    sequence: int
    duplicate: bool = False


class Stream:
    """
    A stream on the server.

    Messages that are published while a batch is in flight form the next batch and share a disk sync.
    """

    def __init__(self, connection: NatsConnection, name: str, *, is_optional: bool = False) -> None:
        self._connection = connection
        self._jetstream = connection.jetstream
        self._batcher: Batcher[PendingMessage, PublishAck] = Batcher(self._write, max_items=_MAX_BATCH_MESSAGES)
        self._is_optional = is_optional
        self.name = name

    # --- publish ------------------------------------------------------------------------------------------

    async def publish(self, *messages: PendingMessage) -> list[PublishAck]:
        """
        Store up to a thousand messages: all or none, unless one of them is a duplicate.

        If one of them names the revision that it replaces, they may be stored one after the other.

        Raises:
            RevisionConflictError: Another process has written to the subject since it was read.
            InboxUnavailableError: No response in time; the messages may be stored.
        """
        with self._connection.translate_errors(is_optional=self._is_optional):
            async with asyncio.timeout(self._connection.timeout):
                return await self._batcher.submit(messages)

    async def close(self) -> None:
        """Wait a moment for pending messages; those that are not stored then fail."""
        await self._batcher.close(self._connection.close_timeout)

    async def _write(self, requests: Sequence[Sequence[PendingMessage]]) -> Sequence[PublishAck | BaseException]:
        messages = list(chain.from_iterable(requests))
        # Without a batch, each message of a request waits for the one before.
        cost = len(messages) * max(map(len, requests))
        if cost >= _MIN_BATCH_MESSAGES or any(map(_is_atomic, requests)):
            last = await self._publish_batch(messages)
            if last is not None:
                return [PublishAck(sequence) for sequence in range(last - len(messages) + 1, last + 1)]
        results = await asyncio.gather(*map(self._publish_each, requests))
        return list(chain.from_iterable(results))

    async def _publish_each(self, messages: Sequence[PendingMessage]) -> Sequence[PublishAck | BaseException]:
        """Store the messages of one request, each alone; none after one with a revision that could not be stored."""
        if not any(EXPECTED_REVISION in message.headers for message in messages):
            return await asyncio.gather(*map(self._publish_one, messages), return_exceptions=True)
        try:
            return [await self._publish_one(message) for message in messages]
        except Exception as error:  # noqa: BLE001  # the caller gets it
            return [error] * len(messages)

    async def _publish_batch(self, messages: Sequence[PendingMessage]) -> int | None:
        """
        Store messages atomically; return the sequence of the last.

        None means that they were not stored or that there was no response. Each message must then be published alone,
        which also detects the ones that are stored.
        """
        batch_id = secrets.token_hex(16)
        *others, last = [
            evolve(message, headers=message.headers | {"Nats-Batch-Id": batch_id, "Nats-Batch-Sequence": str(number)})
            for number, message in enumerate(messages, 1)
        ]
        headers = last.headers | {"Nats-Batch-Commit": "1"}
        timeout = self._connection.timeout / 4
        try:
            for message in others:
                await self._connection.client.publish(message.subject, message.data, headers=message.headers)
            ack = await self._jetstream.publish(last.subject, last.data, headers=headers, timeout=timeout)
        except Exception:  # noqa: BLE001  # each message gets an error of its own
            return None
        return ack.seq

    async def _publish_one(self, message: PendingMessage) -> PublishAck:
        def publish(seconds: float) -> Any:
            return self._jetstream.publish(message.subject, message.data, headers=message.headers, timeout=seconds)

        try:
            ack = await self._request(publish)
        except Exception as error:
            if _error_code(error) in _WRONG_REVISION_ERRORS:
                raise RevisionConflictError from error
            raise
        return PublishAck(ack.seq, bool(ack.duplicate))

    async def _request(self, request: Callable[[float], Awaitable[T]]) -> T:
        return await self._connection.request_with_retry(request, stream=self.name, is_optional=self._is_optional)

    # --- get and delete -----------------------------------------------------------------------------------

    async def get(self, sequence: int) -> StoredMessage | None:
        """Return the message with a sequence, or None."""
        return await self._get(seq=sequence)

    async def get_last(self, subject: str) -> StoredMessage | None:
        """Return the newest message of a subject from the stream's leader, or None."""
        return await self._get(subject=subject)

    async def _get(self, **query: Any) -> StoredMessage | None:
        try:
            message = await self._request(lambda _: self._jetstream.get_msg(self.name, **query))
        except Exception as error:
            # Any other error does not prove that the message is missing: the stream may be.
            if _error_code(error) in _NOT_FOUND_ERRORS:
                return None
            raise
        return _stored_message(message)

    async def delete(self, sequence: int) -> bool:
        """Delete a message; return False if it does not exist."""
        try:
            deleted = await self._request(lambda _: self._jetstream.delete_msg(self.name, sequence))
        except Exception as error:
            if _error_code(error) in _NOT_FOUND_ERRORS:
                return False
            raise
        return bool(deleted)

    async def delete_all(self, subject: str) -> None:
        """Delete all messages of a subject."""
        await self._request(lambda _: self._jetstream.purge_stream(self.name, subject=subject))

    # --- lists --------------------------------------------------------------------------------------------

    async def messages(self, subject: str, *, after: int = 0) -> AsyncIterator[StoredMessage]:
        """
        Iterate over the messages of a subject in order, in pages.

        Any replica may respond, so recent changes may be missing.
        """
        while True:
            page, remaining = await self._page(subject, after + 1, _MAX_PAGE_MESSAGES)
            for stored in page:
                yield stored
            if not remaining:
                return
            after = page[-1].sequence

    async def last_of(self, subjects: Sequence[str]) -> list[StoredMessage]:
        """Return the newest message of each of up to a thousand subjects; recent ones may be missing, as in a page."""
        query = write_json({"multi_last": subjects})
        # One more than messages, for the status at the end.
        found, _ = await self._request(lambda seconds: self._request_page(query, len(subjects) + 1, seconds))
        return found

    async def count(self, subject: str, *, after: int = 0) -> tuple[int, StoredMessage | None]:
        """Return the number of messages of a subject, and the first message."""
        page, remaining = await self._page(subject, after + 1, 1)
        return len(page) + remaining, page[0] if page else None

    async def _page(self, subject: str, start: int, limit: int) -> tuple[list[StoredMessage], int]:
        """Return a page and the number of messages after it."""
        query = write_json({"seq": start, "next_by_subj": subject, "batch": limit, "max_bytes": _MAX_PAGE_BYTES})
        return await self._request(lambda seconds: self._request_page(query, limit, seconds))

    async def _request_page(self, query: bytes, limit: int, seconds: float) -> tuple[list[StoredMessage], int]:
        client = self._connection.client
        responses = await client.subscribe(inbox := client.new_inbox())
        try:
            await client.publish(f"$JS.API.DIRECT.GET.{self.name}", query, reply=inbox)
            return await _read_page(responses, limit, seconds)
        finally:
            await responses.unsubscribe()


def _is_atomic(messages: Sequence[PendingMessage]) -> bool:
    """Return whether the messages of a request must be stored at once."""
    return len(messages) > 1 and not any(EXPECTED_REVISION in message.headers for message in messages)


def _error_code(error: Exception) -> int | None:
    """Return JetStream's code of the error that caused *error*."""
    return getattr(error.__cause__, "err_code", None)


async def _read_page(responses: Subscription, limit: int, seconds: float) -> tuple[list[StoredMessage], int]:
    page: list[StoredMessage] = []
    remaining = 0
    while len(page) < limit:
        message = await responses.next_msg(timeout=seconds)
        if (status := header(message, "Status")) is not None:
            if status == "503":
                raise nats.errors.NoRespondersError
            break
        remaining = int(header(message, "Nats-Num-Pending") or 0)
        page.append(_listed_message(message))
    return page, remaining


def _listed_message(message: Msg) -> StoredMessage:
    headers = message.headers or {}
    time = Base._parse_utc_iso(headers["Nats-Time-Stamp"]).timestamp()  # noqa: SLF001  # nats-py has no public parser
    return StoredMessage(headers["Nats-Subject"], int(headers["Nats-Sequence"]), message.data, time)


def _stored_message(message: RawStreamMsg) -> StoredMessage:
    time = message.time.timestamp() if message.time is not None else 0.0
    return StoredMessage(message.subject or "", message.seq or 0, message.data or b"", time)
