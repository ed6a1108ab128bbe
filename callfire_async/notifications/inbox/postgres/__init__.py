"""
`PostgresInbox`: an inbox in PostgreSQL, shared by processes on any number of machines.

Requires the extra ``postgres``. A delivery is acknowledged after the server has committed it. Each operation is sent as
a whole transaction, acks together with others, so no lock outlives a process, and a pooler may assign each transaction
to another session. All times are the server's.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from itertools import chain
from types import TracebackType
from typing import Self, TypeAlias

from callfire_async.errors import InboxUnavailableError
from callfire_async.notifications.inbox._batching import Batcher
from callfire_async.notifications.inbox._inbox_arguments import (
    check_flags,
    check_positive,
    check_seconds,
    checked_list,
)
from callfire_async.notifications.inbox.base import (
    MAX_SECONDS,
    AppendResult,
    Delivery,
    InboxEntry,
    InboxStats,
    Lease,
    encode_names,
    parse_row_id,
    purge_limits,
)
from callfire_async.notifications.inbox.postgres import _queries as sql
from callfire_async.notifications.inbox.postgres._completions import record_completion
from callfire_async.notifications.inbox.postgres._notify import WorkNotifier
from callfire_async.notifications.inbox.postgres._pool import Pool, PostgresPool, Row
from callfire_async.notifications.inbox.postgres._rows import escape, to_entry, to_lease, unescape
from callfire_async.notifications.inbox.postgres._schema import check_durability, check_name, prepare
from callfire_async.notifications.inbox.postgres._source import check_source

__all__ = ["PostgresInbox"]

_RETENTION_SECONDS = 30 * 86400.0

# The first delivery of a larger batch would wait too long for the last.
_MAX_BATCH_DELIVERIES = 500
_MAX_BATCH_BYTES = 4 * 1024 * 1024
# Each is a statement of its own in the batch's transaction.
_MAX_BATCH_ACKS = 100

# `wait` also polls: a notification is lost with its connection, and an expired lease sends none.
_POLL_SECONDS = 1.0
# How long `wait` waits for transactions that keep due deliveries from being claimed; they send no notification either.
_LOCKED_SECONDS = 0.25
# How long closing the inbox waits for appends and acks in progress.
_MAX_WRITE_SECONDS = 1.5

_Values: TypeAlias = tuple[object, ...]


class PostgresInbox:
    """
    An inbox in PostgreSQL, shared by processes on any number of machines.

    The tables are created in a schema of their own when the inbox is opened for the first time. If a machine crashes,
    its leases expire and others pick up the deliveries. Processes notify each other of work; behind a pooler such as
    pgbouncer notifications are not received, and work that another process stored is found within a second.

    Args:
        source: The server's URL (``postgresql://user:password@host/database``, with special characters
            percent-encoded), or the caller's `asyncpg.Pool`. The inbox never closes that pool, and uses one of its
            connections for notifications if it has several.
        dedupe_window: Seconds within which two deliveries with the same key count as one; 0 disables deduplication.
        retention: Seconds for which the keys of handled deliveries are kept. Default: 30 days.
        keep_bodies: Whether handled deliveries keep their bodies.
        schema: The schema of the tables. Inboxes that share a database need one each.
        timeout: Seconds for any operation on the server.
        allow_lossy_commits: Whether to accept a server with ``synchronous_commit`` or ``fsync`` off, which may lose
            acknowledged deliveries in a crash.
        create: Whether to create the tables, or to migrate those of an earlier version. False is for tools: opening the
            inbox fails if the tables are missing or of an earlier version.

    Raises:
        ValueError: *source* is not a valid PostgreSQL URL, *schema* is longer than 40 characters, has characters
            other than a-z, 0-9 and _, or starts with a digit, or a number of seconds is out of range.
        TypeError: *source* is neither a URL nor a pool of asyncpg, or another argument has the wrong type.

    Opening the inbox raises `InboxUnavailableError` if the server cannot be reached, and `InboxError` if the server is
    refused or a later version of this library created the tables.
    """

    def __init__(
        self,
        source: str | Pool,
        *,
        dedupe_window: float = 3600.0,
        retention: float = _RETENTION_SECONDS,
        keep_bodies: bool = False,
        schema: str = "callfire",
        timeout: float = 10.0,
        allow_lossy_commits: bool = False,
        create: bool = True,
    ) -> None:
        check_source(source)
        check_seconds(dedupe_window=dedupe_window, retention=retention)
        check_flags(keep_bodies=keep_bodies, allow_lossy_commits=allow_lossy_commits, create=create)
        check_positive(timeout=timeout)
        self._schema = check_name(schema)
        self._dedupe_window = min(dedupe_window, MAX_SECONDS)
        self._retention = retention
        self._keep_bodies = keep_bodies
        self._allow_lossy_commits = allow_lossy_commits
        self._create = create
        self._timeout = timeout
        self._pool = PostgresPool(source, timeout=timeout)
        self._batcher: Batcher[Delivery, AppendResult] = Batcher(
            self._insert,
            max_items=_MAX_BATCH_DELIVERIES,
            max_bytes=_MAX_BATCH_BYTES,
            size_of=lambda delivery: len(delivery.body),
        )
        # With a transaction for each ack, append, claim and ack take 1.5 to 2.2 times as long with 16 at once, and 2.2
        # to 3.1 times with 64.
        self._acks: Batcher[_Values, bool] = Batcher(self._ack_all, max_items=_MAX_BATCH_ACKS)
        self._work = asyncio.Event()
        #: Whether the last claim returned nothing, so that deliveries that were due are locked.
        self._was_claim_empty = False
        self._inbox_id = ""
        self._notifier = WorkNotifier(self._pool, f"callfire_async.{schema}", self._wake)
        self._exit_stack = AsyncExitStack()
        # Settlements without a response, as (id, token, statement): the server may have committed them.
        self._unanswered: set[tuple[int, str, str]] = set()
        # Tokens of claims without a response, and when their leases have expired, by the monotonic clock.
        self._unanswered_claims: dict[str, float] = {}

    @property
    def retention(self) -> float:
        """Seconds for which the keys of handled deliveries are kept, and `handled` is complete."""
        return self._retention

    # --- lifecycle ----------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """
        Connect, and create the tables if they are missing.

        Raises:
            InboxUnavailableError: The server cannot be reached, or fails.
            InboxError: The server may lose commits, or a later version of this library created the tables.
        """
        # An event is bound to the loop in which it is first awaited.
        self._work = asyncio.Event()
        self._unanswered.clear()
        self._unanswered_claims.clear()
        async with AsyncExitStack() as stack:
            await self._pool.open()
            stack.push_async_callback(self._pool.close)
            await check_durability(self._pool, allow_lossy_commits=self._allow_lossy_commits)
            self._inbox_id = await prepare(self._pool, self._schema, create=self._create)
            self._notifier.start()
            stack.push_async_callback(self._notifier.stop)
            stack.push_async_callback(self._finish_writes)
            self._exit_stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the inbox; pending appends and acks that are not committed within 1.5 seconds fail."""
        await self._exit_stack.aclose()

    async def _finish_writes(self) -> None:
        seconds = min(self._timeout, _MAX_WRITE_SECONDS)
        await asyncio.gather(self._batcher.close(seconds), self._acks.close(seconds))

    async def _fetch(self, statement: str, *arguments: object, repeatable: bool = False) -> list[Row]:
        return await self._pool.fetch(statement.format(schema=self._schema), *arguments, repeatable=repeatable)

    def _wake(self) -> None:
        self._work.set()

    def _notify_work(self) -> None:
        self._wake()
        self._notifier.notify()

    # --- append -------------------------------------------------------------------------------------------

    async def append(self, delivery: Delivery) -> AppendResult:
        """Store a delivery; return after the server has committed it."""
        (appended,) = await self.append_many([delivery])
        return appended

    async def append_many(self, deliveries: Sequence[Delivery]) -> list[AppendResult]:
        """Store all deliveries or none; return after the server has committed them."""
        return await self._batcher.submit(deliveries)

    async def _insert(self, requests: Sequence[Sequence[Delivery]]) -> list[AppendResult]:
        deliveries = list(chain.from_iterable(requests))
        columns: list[list[object]] = [
            [escape(delivery.key) for delivery in deliveries],
            [delivery.body for delivery in deliveries],
            [delivery.content_type and escape(delivery.content_type) for delivery in deliveries],
            [delivery.received_at for delivery in deliveries],
        ]
        if self._dedupe_window > 0:
            # Repeatable, because deduplication recognizes deliveries that a lost connection did commit.
            replaying = [delivery.envelope_id is None for delivery in deliveries]
            rows = await self._fetch(sql.APPEND, *columns, self._dedupe_window, replaying, repeatable=True)
        else:
            rows = await self._fetch(sql.APPEND_ALL, *columns)
        self._notify_work()
        return [AppendResult(row["id"], duplicate=row["duplicate"]) for row in rows]

    # --- claim and settle ---------------------------------------------------------------------------------

    async def claim(self, limit: int, *, lease: float) -> list[Lease]:
        """Lease deliveries that are due, and delete some of those that were handled before ``retention``."""
        self._work.clear()
        await self._return_claims()
        token = secrets.token_hex(8)
        try:
            rows = await self._fetch(sql.CLAIM, limit, token, lease, min(self._retention, MAX_SECONDS))
            completions = await self._completions([row["id"] for row in rows if row["was_leased"]])
        except (InboxUnavailableError, asyncio.CancelledError):
            # The server may still be executing it, so it is returned until its leases have expired.
            self._unanswered_claims[token] = time.monotonic() + self._timeout + lease
            raise
        self._was_claim_empty = not rows
        return [to_lease(row, completions) for row in rows]

    async def _return_claims(self) -> None:
        """Make deliveries ready that a claim without a response has leased: the leases would expire as crashes."""
        now = time.monotonic()
        self._unanswered_claims = {token: end for token, end in self._unanswered_claims.items() if end > now}
        if self._unanswered_claims:
            await self._fetch(sql.RETURN, list(self._unanswered_claims))

    async def _completions(self, ids: Sequence[int]) -> set[tuple[int, str]]:
        """Return the ids and handlers that `complete_in` has recorded for deliveries that this process has leased."""
        rows = await self._fetch(sql.COMPLETIONS, ids, repeatable=True) if ids else []
        return {(row["delivery_id"], unescape(row["handler"])) for row in rows}

    async def complete_in(self, lease: Lease, handler: str, connection: object) -> None:
        """
        Record in the open transaction of *connection* that a handler has succeeded, as `CurrentAttempt.complete_in`.

        Until the transaction ends, no worker can claim the delivery, and its lease can be extended and settled.
        """
        self._pool.check_open()
        await record_completion(connection, lease, escape(handler), schema=self._schema, inbox_id=self._inbox_id)

    async def extend(self, lease: Lease, seconds: float) -> bool:
        """Extend a lease to *seconds* from now."""
        return await self._settle(sql.EXTEND, lease, seconds)

    async def ack(self, lease: Lease, *, event_key: str = "") -> bool:
        """Mark a delivery as done; concurrent calls share a transaction."""
        return await self._settle(sql.ACK, lease, escape(event_key), self._keep_bodies)

    async def _ack_all(self, requests: Sequence[Sequence[_Values]]) -> list[bool]:
        """Return for each ack whether the lease was valid."""
        acks = list(chain.from_iterable(requests))
        rows = await self._pool.fetch_each(sql.ACK.format(schema=self._schema), acks)
        # Removed when found: of two acks of the same lease, one is valid.
        acked: dict[_Values, bool] = {(row["id"], row["token"]): True for row in rows}
        return [acked.pop(values[:2], False) for values in acks]

    async def nack(
        self, lease: Lease, *, delay: float, completed: frozenset[str] = frozenset(), reason: str = ""
    ) -> bool:
        """Schedule another attempt at a delivery."""
        names = encode_names(lease.completed | completed)
        settled = await self._settle(sql.NACK, lease, delay, names, escape(reason))
        self._notify_work()
        return settled

    async def release(self, lease: Lease, *, completed: frozenset[str] = frozenset()) -> bool:
        """Return a delivery unattempted."""
        settled = await self._settle(sql.RELEASE, lease, encode_names(lease.completed | completed))
        self._notify_work()
        return settled

    async def dead_letter(self, lease: Lease, reason: str, *, completed: frozenset[str] = frozenset()) -> bool:
        """Move a delivery to the dead letters."""
        names = encode_names(lease.completed | completed)
        return await self._settle(sql.DEAD_LETTER, lease, names, escape(reason))

    async def _settle(self, statement: str, lease: Lease, *values: object) -> bool:
        """Change a delivery if the lease is valid, or if an earlier call without a response has changed it."""
        id, token = parse_row_id(lease.id), lease.token
        settlement = (id, token, statement)
        try:
            settled = await self._change(statement, id, token, *values)
            if not settled and settlement in self._unanswered:
                # A token is unique, and a row keeps its token until the next lease.
                settled = bool(await self._fetch(sql.SETTLED, id, token, sql.STATE_AFTER[statement]))
        except (InboxUnavailableError, asyncio.CancelledError):
            self._unanswered.add(settlement)
            raise
        self._unanswered.discard(settlement)
        return settled

    async def _change(self, statement: str, *values: object) -> bool:
        if statement is not sql.ACK:
            return bool(await self._fetch(statement, *values))
        (acked,) = await self._acks.submit([values])
        return acked

    # --- administration -----------------------------------------------------------------------------------

    async def handled(self, event_keys: Iterable[str]) -> frozenset[str]:
        """Return which of these events were acked by any process, within ``retention``."""
        keys = [escape(key) for key in event_keys]
        return frozenset(unescape(row["event_key"]) for row in await self._fetch(sql.HANDLED, keys))

    async def get(self, id: int | str) -> InboxEntry | None:
        """Return one delivery, or None."""
        rows = await self._fetch(sql.GET, parse_row_id(id))
        return to_entry(rows[0]) if rows else None

    async def entries(self, state: str | None = None) -> AsyncIterator[InboxEntry]:
        """Iterate over the deliveries in pages, in order of arrival."""
        last_id = 0
        while True:
            page = await self._fetch(sql.PAGE, last_id, state)
            for row in page:
                yield to_entry(row)
            if len(page) < sql.PAGE_ROWS:
                return
            last_id = page[-1]["id"]

    async def replay(self, ids: Iterable[int | str] | None = None) -> int:
        """Make dead letters ready again."""
        row_ids = None if ids is None else [parse_row_id(id) for id in checked_list("ids", ids)]
        ((count,),) = await self._fetch(sql.REPLAY, row_ids)
        self._notify_work()
        return int(count)

    async def purge(self, *, done_before: datetime | None = None, dead_before: datetime | None = None) -> int:
        """Delete deliveries that became done or dead before a time."""
        states = {"done": sql.DONE, "dead": sql.DEAD}
        limits = purge_limits(done_before, dead_before)
        return sum([await self._purge(states[state], before) for state, before in limits.items()])

    async def _purge(self, state: int, before: datetime) -> int:
        """Delete in parts, so that no statement blocks other operations for long."""
        purged = 0
        while True:
            ((count,),) = await self._fetch(sql.PURGE, state, before)
            purged += int(count)
            if count < sql.PURGED_ROWS:
                return purged

    async def stats(self) -> InboxStats:
        """Count the deliveries in each state."""
        (row,) = await self._fetch(sql.STATS)
        age = row["age"] if row["ready"] else None
        return InboxStats(row["ready"], row["delayed"], row["leased"], row["done"], row["dead"], age)

    async def wait(self, timeout: float) -> None:
        """Wait until a delivery may be due, or *timeout* seconds have passed."""
        if not self._was_claim_empty:
            self._work.clear()
        deadline = asyncio.get_running_loop().time() + timeout
        remaining = await self._seconds_until_due(deadline)
        while remaining > 0 and not self._work.is_set():
            try:
                async with asyncio.timeout(min(remaining, _POLL_SECONDS)):
                    await self._work.wait()
                    # At once, because a claim clears the event.
                    return
            except TimeoutError:
                remaining = await self._seconds_until_due(deadline) if remaining > _POLL_SECONDS else 0.0

    async def _seconds_until_due(self, deadline: float) -> float:
        """Return the seconds until a delivery is due or a lease expires, at most until *deadline*."""
        ((due_in,),) = await self._fetch(sql.DUE_IN)
        remaining = deadline - asyncio.get_running_loop().time()
        if due_in is not None and due_in <= 0 and self._was_claim_empty:
            due_in = _LOCKED_SECONDS
        return remaining if due_in is None else min(remaining, due_in)
