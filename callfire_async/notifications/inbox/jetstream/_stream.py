"""
A stream as `JetStreamInbox` uses it: writes that share what they cost, reads, and lists in pages.

It imports `_wire`, the connection and what is kept.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from typing import Any

import nats.errors
import nats.js.errors
from attrs import evolve, field, frozen
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js.api import Base, RawStreamMsg

from callfire_async._codec.documents import write_json
from callfire_async.notifications.inbox.jetstream._connection import NatsConnection, header
from callfire_async.notifications.inbox.jetstream._records import StoredMessage

__all__ = ["PendingMessage", "PublishAck", "RevisionConflictError", "Stream"]

# A group is stored whole, and synced once; to make one costs as much as so many messages by themselves.
_GROUP_SIZE = 16
# So many the server takes in one group.
_GROUP_MOST = 1000
# A page of a list.
_PAGE_MESSAGES = 256
_PAGE_BYTES = 8 * 1024 * 1024
# JetStream's words for: another has written under this subject since.
_WRONG_REVISION = frozenset([10071, 10164])


class RevisionConflictError(Exception):  # a signal between these rooms
    """Another has written under this subject since."""


@frozen
class PendingMessage:
    """A message to be stored."""

    subject: str
    data: bytes
    headers: dict[str, str]


@frozen
class PublishAck:
    """What the server made of a write; of a duplicate, the number of the first."""

    sequence: int
    duplicate: bool = False


@frozen(eq=False)
class _PendingPublish:
    writes: Sequence[PendingMessage]
    future: asyncio.Future[list[PublishAck]] = field(factory=lambda: asyncio.get_running_loop().create_future())


class Stream:
    """
    One stream.

    What gathers while a group of writes is on its way is the next group: many share a sync of the disk, and one by
    itself does not wait for others.
    """

    def __init__(self, link: NatsConnection, name: str) -> None:
        self._link = link
        self._jetstream = link.jetstream
        self.name = name
        self._jobs: list[_PendingPublish] = []
        self._gathered = asyncio.Event()

    # --- writing ------------------------------------------------------------------------------------------

    async def publish(self, *writes: PendingMessage) -> list[PublishAck]:
        """
        Store messages: all or none, unless one repeats another or they are more than a thousand.

        Raises:
            WrongRevision: Another has written under this subject since.
            InboxUnavailableError: There was no answer in time; it may have happened.
        """
        job = _PendingPublish(writes)
        self._jobs.append(job)
        self._gathered.set()
        with self._link.told():
            async with asyncio.timeout(self._link.timeout):
                return await job.future

    async def keep_writing(self) -> None:
        """Write what gathers, group after group, until cancelled."""
        while True:
            await self._gathered.wait()
            self._gathered.clear()
            while jobs := self._next_group():
                await self._write(jobs)

    def _next_group(self) -> list[_PendingPublish]:
        """Take the first jobs, as many as fit into a group; whoever gave up waiting has none."""
        waiting = [job for job in self._jobs if not job.future.done()]
        size = taken = 0
        while taken < len(waiting) and (taken == 0 or size + len(waiting[taken].writes) <= _GROUP_MOST):
            size += len(waiting[taken].writes)
            taken += 1
        self._jobs = waiting[taken:]
        return waiting[:taken]

    async def _write(self, jobs: Sequence[_PendingPublish]) -> None:
        writes = [write for job in jobs for write in job.writes]
        last = await self._write_as_one(writes) if _is_worth_a_group(jobs, len(writes)) else None
        taken: Sequence[PublishAck | BaseException]
        if last is not None:
            taken = [PublishAck(number) for number in range(last - len(writes) + 1, last + 1)]
        else:
            taken = await asyncio.gather(*map(self._write_one, writes), return_exceptions=True)
        first = 0
        for job in jobs:
            _tell(job, taken[first : first + len(job.writes)])
            first += len(job.writes)

    async def _write_as_one(self, writes: Sequence[PendingMessage]) -> int | None:
        """
        Store messages as one group; return the number of the last.

        None: not all could be stored, or nobody answered; each has to be asked for by itself, where it will be told
        apart whether it is there already.
        """
        group = secrets.token_hex(16)
        numbered = [
            evolve(write, headers=write.headers | {"Nats-Batch-Id": group, "Nats-Batch-Sequence": str(number)})
            for number, write in enumerate(writes, 1)
        ]
        *others, last = numbered
        client = self._link.client
        try:
            for write in others:
                await client.publish(write.subject, write.data, headers=write.headers)
            headers = last.headers | {"Nats-Batch-Commit": "1"}
            answer = await self._jetstream.publish(
                last.subject, last.data, headers=headers, timeout=self._link.timeout / 4
            )
        except Exception:  # noqa: BLE001  # whatever it is, each is told its own; nobody writes once this has ended
            return None
        return answer.seq

    async def _write_one(self, write: PendingMessage) -> PublishAck:
        def ask(seconds: float) -> Any:
            return self._jetstream.publish(write.subject, write.data, headers=write.headers, timeout=seconds)

        try:
            answer = await self._link.request_with_retry(ask)
        except Exception as error:
            if getattr(error.__cause__, "err_code", None) in _WRONG_REVISION:
                raise RevisionConflictError from error
            raise
        return PublishAck(answer.seq, bool(answer.duplicate))

    # --- reading and deleting -----------------------------------------------------------------------------

    async def at(self, sequence: int) -> StoredMessage | None:
        """Return a message by its number."""
        return await self._message(seq=sequence)

    async def last(self, subject: str) -> StoredMessage | None:
        """Return the newest message under a subject, as the stream's leader knows it."""
        return await self._message(subject=subject)

    async def _message(self, **which: Any) -> StoredMessage | None:
        try:
            return _stored(await self._link.request_with_retry(lambda _: self._jetstream.get_msg(self.name, **which)))
        except Exception as error:
            if isinstance(error.__cause__, nats.js.errors.NotFoundError):
                return None
            raise

    async def delete(self, sequence: int) -> bool:
        """Delete a message; False: it is not there any more."""
        try:
            return bool(await self._link.request_with_retry(lambda _: self._jetstream.delete_msg(self.name, sequence)))
        except Exception as error:
            if getattr(error.__cause__, "err_code", None) in _NO_SUCH_MESSAGE:
                return False
            raise

    async def delete_all(self, subject: str) -> None:
        """Delete whatever stands under a subject."""
        await self._link.request_with_retry(lambda _: self._jetstream.purge_stream(self.name, subject=subject))

    # --- lists --------------------------------------------------------------------------------------------

    async def listed(self, subject: str, *, after: int = 0) -> AsyncIterator[StoredMessage]:
        """
        Iterate over the messages under a subject, in order, in pages.

        Any of the stream's servers may answer, so that it may be a moment behind.
        """
        while True:
            page, left = await self._page(subject, after + 1, _PAGE_MESSAGES)
            for stored in page:
                yield stored
            if not left:
                return
            after = page[-1].sequence

    async def count(self, subject: str, *, after: int = 0) -> tuple[int, StoredMessage | None]:
        """Return how many messages there are under a subject, and the first of them."""
        page, left = await self._page(subject, after + 1, 1)
        return len(page) + left, page[0] if page else None

    async def _page(self, subject: str, start: int, most: int) -> tuple[list[StoredMessage], int]:
        """Return a page, and how many there are beyond."""
        ask = write_json({"seq": start, "next_by_subj": subject, "batch": most, "max_bytes": _PAGE_BYTES})
        return await self._link.request_with_retry(lambda seconds: self._ask_for_page(ask, most, seconds))

    async def _ask_for_page(self, ask: bytes, most: int, seconds: float) -> tuple[list[StoredMessage], int]:
        client = self._link.client
        answers = await client.subscribe(inbox := client.new_inbox())
        try:
            await client.publish(f"$JS.API.DIRECT.GET.{self.name}", ask, reply=inbox)
            return await _page_of(answers, most, seconds)
        finally:
            await answers.unsubscribe()


# What the server says of a number that it has no message for.
_NO_SUCH_MESSAGE = frozenset([10043, 10037, 10057, 10070])


def _is_worth_a_group(jobs: Sequence[_PendingPublish], size: int) -> bool:
    together = any(len(job.writes) > 1 for job in jobs)
    return size <= _GROUP_MOST and (together or size >= _GROUP_SIZE)


def _tell(job: _PendingPublish, results: Sequence[PublishAck | BaseException]) -> None:
    """Wake whoever waits, unless they have gone; of several errors the first is told."""
    errors = [result for result in results if isinstance(result, BaseException)]
    if job.future.done():
        return
    if errors:
        job.future.set_exception(errors[0])
    else:
        job.future.set_result([result for result in results if isinstance(result, PublishAck)])


async def _page_of(answers: Subscription, most: int, seconds: float) -> tuple[list[StoredMessage], int]:
    page: list[StoredMessage] = []
    left = 0
    while len(page) < most:
        message = await answers.next_msg(timeout=seconds)
        if (status := header(message, "Status")) is not None:
            if status == "503":
                raise nats.errors.NoRespondersError
            break
        left = int(header(message, "Nats-Num-Pending") or 0)
        page.append(_of_page(message))
    return page, left


def _of_page(message: Msg) -> StoredMessage:
    headers = message.headers or {}
    at = Base._parse_utc_iso(headers["Nats-Time-Stamp"]).timestamp()  # noqa: SLF001  # the one reader of such times
    return StoredMessage(headers["Nats-Subject"], int(headers["Nats-Sequence"]), message.data, at)


def _stored(message: RawStreamMsg) -> StoredMessage:
    at = message.time.timestamp() if message.time is not None else 0.0
    return StoredMessage(message.subject or "", message.seq or 0, message.data or b"", at)
