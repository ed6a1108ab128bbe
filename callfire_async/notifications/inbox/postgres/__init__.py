"""
`PostgresInbox`: an inbox in a PostgreSQL, for many machines.

Needs the extra ``postgres``. A delivery is acknowledged once the server has committed it. Every operation is one
statement, and so one transaction: no lock outlives a host, and what stands between the server and the hosts may give
each transaction to another session. Times are those of the server's clock. It imports `errors`, the protocol and the
private rooms beside it.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from types import TracebackType
from typing import Self

from callfire_async.errors import InboxUnavailableError
from callfire_async.notifications.inbox.base import AppendResult, Delivery, InboxEntry, InboxStats, Lease, parse_row_id
from callfire_async.notifications.inbox.postgres import _queries as sql
from callfire_async.notifications.inbox.postgres._batching import AppendBatcher
from callfire_async.notifications.inbox.postgres._notify import WorkNotifier
from callfire_async.notifications.inbox.postgres._pool import Pool, PostgresPool, Row
from callfire_async.notifications.inbox.postgres._schema import check_durability, check_name, prepare

__all__ = ["PostgresInbox"]

_RETENTION_SECONDS = 30 * 86400.0

STATES = ("ready", "leased", "done", "dead")

# How often the inbox is looked at by who waits for work: hints are lost with their connection, and leases with a host.
_POLL_SECONDS = 1.0


class PostgresInbox:
    """
    An inbox in a PostgreSQL, for any number of hosts.

    Its tables are made when it is first opened, in a schema of their own. A host that ends loses its leases, not its
    deliveries: others have those once the leases have run out. Hosts hint to each other that there is work; where a
    pooler such as pgbouncer stands between them and the server those hints are not heard, and work that another host
    brought is found within a second.

    Args:
        source: The server's address (``postgresql://user@host/database``); or an `asyncpg.Pool` of the caller's own,
            which is never closed here and of which one connection is used for hints, if it has several.
        dedupe_window: Seconds within which two deliveries with one key are one; 0 turns it off.
        retention: Seconds for which the keys of what is done are kept; 30 days, unless given.
        keep_bodies: Whether what is done keeps its body.
        schema: The schema with the tables; several inboxes in one database have one each.
        timeout: Seconds that the server may take to answer.
        allow_lossy_commits: Whether the server may have ``synchronous_commit`` or ``fsync`` off, and so may lose what
            was acknowledged when it crashes; without it such a server is refused.

    Raises:
        ValueError: *schema* is not up to 40 of a-z, 0-9 and _, or begins with a digit.

    Opening it raises `InboxUnavailableError` where the server cannot be reached, and `InboxError` where it is refused,
    or a later version of this library has made the tables.
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
    ) -> None:
        self._schema = check_name(schema)
        self._dedupe_window = dedupe_window
        self._retention = retention
        self._keep_bodies = keep_bodies
        self._allow_lossy_commits = allow_lossy_commits
        self._database = PostgresPool(source, timeout=timeout)
        self._gathering = AppendBatcher(self._append)
        self._hints = WorkNotifier(self._database, f"callfire_async.{schema}", self._note_work)
        self._closing = AsyncExitStack()
        self._work = asyncio.Event()
        # What was asked of which lease, and may have been done.
        self._unanswered: set[tuple[int, str, str]] = set()

    @property
    def retention(self) -> float:
        """Seconds for which the keys of what is done are kept: how far back ``handled`` knows everything."""
        return self._retention

    # --- lifecycle ----------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """
        Connect, and make the tables where they are missing.

        Raises:
            InboxUnavailableError: The server cannot be reached, or fails.
            InboxError: It may lose what it has committed, or a later version of this library has made the tables.
        """
        # An event belongs to the loop in which it was first waited for.
        self._work = asyncio.Event()
        self._unanswered.clear()
        async with AsyncExitStack() as opened:
            await self._database.open()
            opened.push_async_callback(self._database.close)
            await check_durability(self._database, allow_lossy_commits=self._allow_lossy_commits)
            await prepare(self._database, self._schema)
            self._hints.start()
            opened.push_async_callback(self._hints.stop)
            opened.push_async_callback(self._gathering.finish)
            self._closing = opened.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it, once all that was appended is committed."""
        await self._closing.aclose()

    async def _fetch(self, statement: str, *arguments: object, repeatable: bool = False) -> list[Row]:
        return await self._database.fetch(statement.format(schema=self._schema), *arguments, repeatable=repeatable)

    def _note_work(self) -> None:
        self._work.set()

    def _tell_of_work(self) -> None:
        self._work.set()
        self._hints.tell()

    # --- taking in ----------------------------------------------------------------------------------------

    async def append(self, delivery: Delivery) -> AppendResult:
        """Keep a delivery; the server has committed it when this returns."""
        (appended,) = await self.append_many([delivery])
        return appended

    async def append_many(self, deliveries: Sequence[Delivery]) -> list[AppendResult]:
        """Keep several, all or none; the server has committed them when this returns."""
        return await self._gathering.append(deliveries)

    async def _append(self, deliveries: Sequence[Delivery]) -> list[AppendResult]:
        columns: list[list[object]] = [
            [_escaped(delivery.key) for delivery in deliveries],
            [delivery.body for delivery in deliveries],
            [delivery.content_type and _escaped(delivery.content_type) for delivery in deliveries],
            [delivery.received_at for delivery in deliveries],
        ]
        if self._dedupe_window > 0:
            # Should a connection be found to be dead, it may have been done already: then it is a repeat.
            rows = await self._fetch(sql.APPEND, *columns, self._dedupe_window, repeatable=True)
        else:
            rows = await self._fetch(sql.APPEND_ALL, *columns)
        self._tell_of_work()
        return [AppendResult(row["id"], duplicate=row["duplicate"]) for row in rows]

    # --- handing out and settling -------------------------------------------------------------------------

    async def claim(self, limit: int, *, lease: float) -> list[Lease]:
        """Hand out what is due; and forget, a few at a time, what was done too long ago."""
        rows = await self._fetch(sql.CLAIM, limit, secrets.token_hex(8), lease, self._retention)
        return [
            Lease(
                row["id"], row["token"], row["attempt"], row["crashes"], _delivery(row), _decode_names(row["completed"])
            )
            for row in rows
        ]

    async def extend(self, lease: Lease, seconds: float) -> bool:
        """Let a lease end so many seconds from now."""
        return await self._settle(sql.EXTEND, lease, seconds)

    async def ack(self, lease: Lease, *, event_key: str = "") -> bool:
        """Note that a delivery was handled."""
        return await self._settle(sql.ACK, lease, _escaped(event_key), self._keep_bodies)

    async def nack(
        self, lease: Lease, *, delay: float, completed: frozenset[str] = frozenset(), reason: str = ""
    ) -> bool:
        """Put a delivery back for another attempt."""
        settled = await self._settle(
            sql.NACK, lease, delay, _encode_names(lease.completed | completed), _escaped(reason)
        )
        self._tell_of_work()
        return settled

    async def release(self, lease: Lease, *, completed: frozenset[str] = frozenset()) -> bool:
        """Put a delivery back at once."""
        settled = await self._settle(sql.RELEASE, lease, _encode_names(lease.completed | completed))
        self._tell_of_work()
        return settled

    async def dead_letter(self, lease: Lease, reason: str) -> bool:
        """Make a delivery a dead letter."""
        return await self._settle(sql.BURY, lease, _escaped(reason))

    async def _settle(self, statement: str, lease: Lease, *values: object) -> bool:
        """Change a delivery, if the lease is still its own; what was done so without an answer is done."""
        id, token = parse_row_id(lease.id), lease.token
        asked = (id, token, statement)
        try:
            settled = bool(await self._fetch(statement, id, token, *values))
            if not settled and asked in self._unanswered:
                # No other has the token, and a row keeps it until it is leased again.
                settled = bool(await self._fetch(sql.SETTLED, id, token, sql.STATE_AFTER[statement]))
        except (InboxUnavailableError, asyncio.CancelledError):
            self._unanswered.add(asked)
            raise
        self._unanswered.discard(asked)
        return settled

    # --- looking after it ---------------------------------------------------------------------------------

    async def handled(self, event_keys: Iterable[str]) -> frozenset[str]:
        """Return which of these events were acked, by any host, within ``retention``."""
        keys = [_escaped(key) for key in event_keys]
        return frozenset(_unescaped(row["event_key"]) for row in await self._fetch(sql.SEEN, keys))

    async def get(self, id: int | str) -> InboxEntry | None:
        """Return what is known of one delivery."""
        rows = await self._fetch(sql.GET, parse_row_id(id))
        return _entry(rows[0]) if rows else None

    async def entries(self, state: str | None = None) -> AsyncIterator[InboxEntry]:
        """Iterate over the deliveries, in pages; what arrives meanwhile comes last."""
        number = STATES.index(state) if state in STATES else None if state is None else -1
        last = 0
        while True:
            page = await self._fetch(sql.PAGE, last, number)
            for row in page:
                yield _entry(row)
            if len(page) < sql.PAGE_ROWS:
                return
            last = page[-1]["id"]

    async def replay(self, ids: Iterable[int | str] | None = None) -> int:
        """Make dead letters ready again."""
        ((replayed,),) = await self._fetch(sql.REPLAY, None if ids is None else [parse_row_id(id) for id in ids])
        self._tell_of_work()
        return int(replayed)

    async def purge(self, *, done_before: datetime | None = None, dead_before: datetime | None = None) -> int:
        """Delete what was done, or buried, before a time."""
        limits = [(name, at) for name, at in (("done", done_before), ("dead", dead_before)) if at]
        if not limits:
            raise TypeError("say done_before, dead_before or both")
        return sum([await self._purge(STATES.index(name), at) for name, at in limits])

    async def _purge(self, state: int, before: datetime) -> int:
        """Delete in parts, none of which takes long or holds anybody up."""
        purged = 0
        while True:
            ((part,),) = await self._fetch(sql.PURGE, state, before)
            purged += int(part)
            if part < sql.PURGED_ROWS:
                return purged

    async def stats(self) -> InboxStats:
        """Count, on all hosts."""
        (row,) = await self._fetch(sql.STATS)
        age = row["age"] if row["ready"] else None
        return InboxStats(row["ready"], row["delayed"], row["leased"], row["done"], row["dead"], age)

    async def wait(self, timeout: float) -> None:
        """Wait until there may be work."""
        self._work.clear()
        ends_at = asyncio.get_running_loop().time() + timeout
        left = await self._left(ends_at)
        while left > 0 and not self._work.is_set():
            try:
                async with asyncio.timeout(min(left, _POLL_SECONDS)):
                    await self._work.wait()
            except TimeoutError:
                left = await self._left(ends_at) if left > _POLL_SECONDS else 0.0

    async def _left(self, ends_at: float) -> float:
        """Return the seconds until then, or until something is due."""
        ((due_in,),) = await self._fetch(sql.DUE_IN)
        left = ends_at - asyncio.get_running_loop().time()
        return left if due_in is None else min(left, due_in)


def _entry(row: Row) -> InboxEntry:
    name, reason = STATES[row["shown"]], _unescaped(row["reason"])
    return InboxEntry(row["id"], name, _delivery(row), row["attempt"], row["crashes"], reason, row["updated_at"])


def _delivery(row: Row) -> Delivery:
    content_type = row["content_type"]
    return Delivery(
        row["body"],
        None if content_type is None else _unescaped(content_type),
        row["received_at"],
        _unescaped(row["key"]),
    )


def _encode_names(names: Iterable[str]) -> str:
    return "\n".join(map(_escaped, sorted(names)))


def _decode_names(names: str) -> frozenset[str]:
    return frozenset(_unescaped(name) for name in names.split("\n") if name)


def _escaped(text: str) -> str:
    """Return a text as any database keeps it: none takes NUL or lone surrogates, and some take one language only."""
    return text.encode("unicode_escape").decode()


def _unescaped(text: str) -> str:
    return text.encode().decode("unicode_escape")
