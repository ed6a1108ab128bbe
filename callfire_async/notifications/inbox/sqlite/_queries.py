"""
The SQL statements of `SqliteInbox`, and the conversion of rows to values.

Each function runs in a transaction of the writer. Conditions such as ``state > 1 AND state = 2`` repeat the condition
of a partial index, which SQLite uses only then.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain
from operator import itemgetter
from typing import Any, TypeAlias, TypeVar

from callfire_async.notifications.inbox.base import (
    AppendResult,
    Delivery,
    InboxEntry,
    InboxStats,
    Lease,
    decode_names,
    isolate_suspects,
    parse_row_id,
    public_state,
)
from callfire_async.notifications.inbox.sqlite._recent_keys import MAX_KEYS, RecentKeys
from callfire_async.notifications.inbox.sqlite._writer import BatchMismatchError

T = TypeVar("T")
Row: TypeAlias = tuple[Any, ...]
Text: TypeAlias = str | bytes | None

STATES = ("ready", "leased", "done", "dead")
DONE, DEAD = STATES.index("done"), STATES.index("dead")

PAGE_ROWS = 200
# A larger part would keep postbacks waiting.
PURGED_ROWS = 1000
# Statements for 64 rows instead of one make 16 or more concurrent appends a quarter to a third faster.
_MAX_STATEMENT_ROWS = 64

_RECOVER_LEASED = """
    UPDATE deliveries INDEXED BY open_deliveries
    SET state = 0, crashes = crashes + 1, due_at = :now, delay = 0, updated_at = :now
    WHERE state = 1 AND state < 2"""
_RECOVER_DUE = """
    UPDATE deliveries INDEXED BY open_deliveries SET due_at = :now + delay
    WHERE state < 2 AND due_at > :now + delay"""
# The times of the rows are in the order of their IDs. Reading all rows would take long: a file may have gigabytes.
_RECOVER_APPENDED = """
    UPDATE deliveries SET appended_at = :now
    WHERE id > coalesce((SELECT id FROM deliveries WHERE appended_at <= :now ORDER BY id DESC LIMIT 1), 0)"""
_RECOVER_OPEN = """
    UPDATE deliveries INDEXED BY open_deliveries SET updated_at = :now WHERE state < 2 AND updated_at > :now"""
_RECOVER_CLOSED = """
    UPDATE deliveries INDEXED BY closed_deliveries SET updated_at = :now
    WHERE state IN (2, 3) AND state > 1 AND updated_at > :now"""
_NEWEST = "SELECT coalesce(max(id), 0) FROM deliveries"
_NEWEST_BEFORE = "SELECT id FROM deliveries WHERE id > ? AND appended_at <= ? ORDER BY id DESC LIMIT 1"
_KEYS_AFTER = "SELECT key, id, appended_at FROM deliveries WHERE id > ? ORDER BY id"
_FIND = "SELECT key, id, state FROM deliveries WHERE id IN ({}) AND appended_at > ? ORDER BY id"
_INSERT = """
    INSERT INTO deliveries (key, body, content_type, received_at, appended_at, due_at, updated_at) VALUES {}"""
_DUE = """
    SELECT id, attempt, crashes + state, body, content_type, received_at, key, completed
    FROM deliveries INDEXED BY open_deliveries
    WHERE state < 2 AND due_at <= ? ORDER BY due_at, id LIMIT ?"""
_LEASE = """
    UPDATE deliveries SET state = 1, due_at = ?, token = ?, updated_at = ?, crashes = crashes + (state = 1)
    WHERE id IN ({})"""
_NEXT_DUE = "SELECT min(due_at) FROM deliveries INDEXED BY open_deliveries WHERE state < 2"
_SETTLE = "UPDATE deliveries SET {}, updated_at = ? WHERE id = ? AND state = 1 AND token = ?"
_SETTLED = "SELECT 1 FROM deliveries WHERE id = ? AND token = ? AND state = ?"
_ACK = """
    UPDATE deliveries SET state = 2, reason = '', updated_at = ?, event_key = CASE id {} END{}
    WHERE id IN ({}) AND state = 1 AND token = ?"""
_PURGE = """
    DELETE FROM deliveries WHERE id IN (SELECT id FROM deliveries INDEXED BY closed_deliveries
    WHERE state = ? AND state > 1 AND updated_at < ? ORDER BY updated_at LIMIT ?)"""
_HANDLED = "SELECT 1 FROM deliveries WHERE event_key = ? AND event_key != '' AND state = 2 LIMIT 1"
_REVIVE = "UPDATE deliveries SET state = 0, attempt = 1, due_at = ?, delay = 0, updated_at = ?"
_REVIVE_DUPLICATE = f"{_REVIVE} WHERE id = ?"
_REPLAY_ALL = f"{_REVIVE}, crashes = 0 WHERE state = 3 AND state > 1"
_REPLAY_ONE = f"{_REVIVE}, crashes = 0 WHERE state = 3 AND id = ?"
_ENTRY = """
    SELECT id, state, due_at, body, content_type, received_at, key, attempt, crashes, reason, updated_at
    FROM deliveries """
_COUNT_OPEN = """
    SELECT count(*) FILTER (WHERE due_at <= :now), count(*) FILTER (WHERE due_at > :now AND state = 0),
        count(*) FILTER (WHERE due_at > :now AND state = 1), min(due_at)
    FROM deliveries INDEXED BY open_deliveries WHERE state < 2"""
_COUNT_CLOSED = "SELECT count(*) FROM deliveries INDEXED BY closed_deliveries WHERE state = ? AND state > 1"


# --- appending --------------------------------------------------------------------------------------------


def recover(connection: sqlite3.Connection, now: float) -> None:
    """Make the last owner's leases ready, and correct times that lie ahead because the system clock was set back."""
    for statement in (_RECOVER_LEASED, _RECOVER_DUE, _RECOVER_APPENDED, _RECOVER_OPEN, _RECOVER_CLOSED):
        connection.execute(statement, {"now": now})


def append(
    connection: sqlite3.Connection, deliveries: Sequence[Delivery], now: float, recent: RecentKeys
) -> list[AppendResult]:
    """Insert deliveries that are new; make dead letters ready if they are appended again."""
    keyed = [(encode_text(delivery.key), delivery) for delivery in deliveries]
    if recent.window <= 0:
        return [AppendResult(id, duplicate=False) for id in _insert(connection, keyed, now)]
    if not recent.is_loaded:
        _load_recent_keys(connection, now, recent)
    replaying = {key for key, delivery in keyed if delivery.envelope_id is None}
    ids = _find_duplicates(connection, {key for key, _ in keyed}, replaying, now, recent)
    new: dict[Text, Delivery] = {}
    for key, delivery in keyed:
        if key not in ids:
            new.setdefault(key, delivery)
    inserted = dict(zip(new, _insert(connection, list(new.items()), now), strict=True))
    recent.add(inserted, inserted.values(), now)
    ids |= inserted
    # Of several deliveries with a new key, the first is not a duplicate.
    return [AppendResult(ids[key], duplicate=inserted.pop(key, None) is None) for key, _ in keyed]


def _load_recent_keys(connection: sqlite3.Connection, now: float, recent: RecentKeys) -> None:
    """Add the keys of the window; `recover` keeps the times of the rows in the order of their IDs."""
    (newest,) = connection.execute(_NEWEST).fetchone()
    before = newest - MAX_KEYS
    (before,) = connection.execute(_NEWEST_BEFORE, (before, now - recent.window)).fetchone() or (before,)
    rows = connection.execute(_KEYS_AFTER, (before,))
    while page := rows.fetchmany(PAGE_ROWS):
        keys, ids, times = zip(*page, strict=True)
        recent.add(keys, ids, times[0])
    recent.is_loaded = True


def _find_duplicates(
    connection: sqlite3.Connection, keys: set[Text], replaying: set[Text], now: float, recent: RecentKeys
) -> dict[Text, int]:
    """Return the IDs of stored deliveries by key; make dead letters with the keys in *replaying* ready."""
    rows: dict[Text, Row] = {}
    for chunk in _chunks(recent.find(keys)):
        found = connection.execute(_FIND.format(_placeholders(chunk)), (*chunk, now - recent.window))
        rows |= {row[0]: row for row in found.fetchall() if row[0] in keys}
    for key, id, state in rows.values():
        if state == DEAD and key in replaying:
            connection.execute(_REVIVE_DUPLICATE, (now, now, id))
    return {key: id for key, id, _ in rows.values()}


def _insert(connection: sqlite3.Connection, keyed: list[tuple[Text, Delivery]], now: float) -> list[int]:
    """Insert rows and return their IDs, which are consecutive."""
    ids: list[int] = []
    for chunk in _chunks(keyed):
        values = chain.from_iterable(_values(key, delivery, now) for key, delivery in chunk)
        statement = _INSERT.format(",".join(["(?,?,?,?,?,?,?)"] * len(chunk)))
        last = connection.execute(statement, tuple(values)).lastrowid or 0
        ids += range(last - len(chunk) + 1, last + 1)
    return ids


def _values(key: Text, delivery: Delivery, now: float) -> Row:
    received_at = delivery.received_at.timestamp()
    return key, delivery.body, encode_text(delivery.content_type), received_at, now, now, now


def _chunks(rows: list[T]) -> Iterator[list[T]]:
    """Yield parts whose lengths are powers of two, so that few different statements are prepared."""
    start = 0
    while start < len(rows):
        length = min(_MAX_STATEMENT_ROWS, 1 << (len(rows) - start).bit_length() - 1)
        yield rows[start : start + length]
        start += length


def _placeholders(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))


# --- leases -----------------------------------------------------------------------------------------------


def claim(connection: sqlite3.Connection, limit: int, now: float, lease: float) -> list[Lease]:
    """Lease due deliveries; all leases of one claim have the same token."""
    due: list[Row] = isolate_suspects(connection.execute(_DUE, (now, limit)).fetchall(), itemgetter(2))
    token = secrets.token_hex(8)
    for chunk in _chunks([row[0] for row in due]):
        connection.execute(_LEASE.format(_placeholders(chunk)), (now + lease, token, now, *chunk))
    return [_to_lease(row, token) for row in due]


def _to_lease(row: Row, token: str) -> Lease:
    id, attempt, crashes, body, content_type, received_at, key, completed = row
    delivery = Delivery(body, _decode_text(content_type), _from_timestamp(received_at), _decode_text(key))
    return Lease(id, token, attempt, crashes, delivery, decode_names(completed))


def next_due(connection: sqlite3.Connection) -> float | None:
    """Return when the next delivery is due, or the next lease ends."""
    (due_at,) = connection.execute(_NEXT_DUE).fetchone()
    return None if due_at is None else float(due_at)


def settle(connection: sqlite3.Connection, lease: Lease, now: float, assignments: str, values: Row) -> bool:
    """Update a delivery if its lease is still valid; return whether it was."""
    parameters = (*values, now, parse_row_id(lease.id), lease.token)
    return connection.execute(_SETTLE.format(assignments), parameters).rowcount == 1


def was_settled(connection: sqlite3.Connection, lease: Lease, state: int) -> bool:
    """Return whether a lease led to a state: a delivery keeps the token until the next lease."""
    return connection.execute(_SETTLED, (parse_row_id(lease.id), lease.token, state)).fetchone() is not None


def ack(
    connection: sqlite3.Connection, acks: Sequence[tuple[Lease, str]], now: float, *, keep_bodies: bool
) -> list[bool]:
    """
    Mark deliveries as done and store the keys of their events; return whether their leases were still valid.

    Raises:
        BatchMismatchError: Some of several leases were not.
    """
    by_token: dict[str, list[tuple[int, Text]]] = {}
    for lease, event_key in acks:
        by_token.setdefault(lease.token, []).append((parse_row_id(lease.id), encode_text(event_key)))
    count = sum(
        _ack_chunk(connection, token, chunk, now, keep_bodies=keep_bodies)
        for token, keys in by_token.items()
        for chunk in _chunks(keys)
    )
    if count != len(acks) > 1:
        raise BatchMismatchError
    return [count > 0] * len(acks)


def _ack_chunk(
    connection: sqlite3.Connection, token: str, keys: list[tuple[int, Text]], now: float, *, keep_bodies: bool
) -> int:
    drop_body = "" if keep_bodies else ", body = x''"
    statement = _ACK.format("WHEN ? THEN ? " * len(keys), drop_body, _placeholders(keys))
    ids = [id for id, _ in keys]
    return connection.execute(statement, (now, *chain.from_iterable(keys), *ids, token)).rowcount


# --- administration ---------------------------------------------------------------------------------------


def handled(connection: sqlite3.Connection, event_keys: Iterable[str]) -> frozenset[str]:
    """Return which of these events were acked."""
    return frozenset(key for key in event_keys if connection.execute(_HANDLED, (encode_text(key),)).fetchone())


def entry(connection: sqlite3.Connection, id: int) -> Row | None:
    """Return the row of one delivery."""
    row: Row | None = connection.execute(f"{_ENTRY} WHERE id = ?", (id,)).fetchone()
    return row


def page_after(connection: sqlite3.Connection, last: int) -> list[Row]:
    """Return the next page of rows, in order of arrival."""
    return connection.execute(f"{_ENTRY} WHERE id > ? ORDER BY id LIMIT ?", (last, PAGE_ROWS)).fetchall()


def newest(connection: sqlite3.Connection, limit: int, bodies_after: int) -> list[Row]:
    """Return the newest rows, newest first; those up to *bodies_after* without their bodies."""
    # SQLite does not read the pages of a body that is not selected.
    query = _ENTRY.replace("body", "CASE WHEN id > ? THEN body ELSE x'' END")
    return connection.execute(f"{query} ORDER BY id DESC LIMIT ?", (bodies_after, limit)).fetchall()


def to_entry(row: Row, now: float) -> InboxEntry:
    """Return the entry in a row."""
    id, state, due_at, body, content_type, received_at, key, attempt, crashes, reason, updated_at = row
    delivery = Delivery(body, _decode_text(content_type), _from_timestamp(received_at), _decode_text(key))
    shown = public_state(STATES[state], due_at, now)
    return InboxEntry(id, shown, delivery, attempt, crashes, _decode_text(reason), _from_timestamp(updated_at))


def replay(connection: sqlite3.Connection, ids: Sequence[int] | None, now: float) -> int:
    """Make these dead letters ready again, or all; return their number."""
    if ids is None:
        return connection.execute(_REPLAY_ALL, (now, now)).rowcount
    return sum(connection.execute(_REPLAY_ONE, (now, now, id)).rowcount for id in ids)


def purge(connection: sqlite3.Connection, state: int, before: float, limit: int) -> int:
    """Delete up to *limit* deliveries that have been in a state since before a time; return their number."""
    return connection.execute(_PURGE, (state, before, limit)).rowcount


def stats(connection: sqlite3.Connection, now: float) -> InboxStats:
    """Count the deliveries in each state."""
    ready, delayed, leased, first_due = connection.execute(_COUNT_OPEN, {"now": now}).fetchone()
    done, dead = (connection.execute(_COUNT_CLOSED, (state,)).fetchone()[0] for state in (DONE, DEAD))
    return InboxStats(ready, delayed, leased, done, dead, now - first_due if ready else None)


# --- values -----------------------------------------------------------------------------------------------


def encode_text(text: str | None) -> Text:
    """Return a text in a form that SQLite can store; HTTP headers may contain lone surrogates."""
    if text is None:
        return None
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
    return text


def _decode_text(stored: Any) -> Any:
    return stored.decode("utf-8", "surrogatepass") if isinstance(stored, bytes) else stored


def _from_timestamp(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
