"""
What an inbox says to its file: rows for deliveries, and deliveries for rows.

Each function here is part of a transaction. Parameters are positional: for each that has a name, Python's sqlite3 gives
up the interpreter's lock once more, and a busy event loop keeps it for milliseconds. What changes many rows says OR
ROLLBACK: to be able to undo that statement alone, SQLite would first copy each page that it changes, and the writer
undoes all of a transaction that fails. It imports the protocol and the writer's word for that.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain
from operator import itemgetter
from typing import Any, TypeAlias, TypeVar

from callfire_async.notifications.inbox.base import (
    AppendResult,
    Delivery,
    InboxEntry,
    Lease,
    decode_names,
    isolate_suspects,
    parse_row_id,
    public_state,
)
from callfire_async.notifications.inbox.sqlite._writer import BatchMismatchError

T = TypeVar("T")
Row: TypeAlias = tuple[Any, ...]
Text: TypeAlias = str | bytes | None

READY, LEASED, DONE, DEAD = range(4)
STATES = ("ready", "leased", "done", "dead")

PAGE_ROWS = 200
# Of many rows so many go into one statement: half the time of one by one, and no more than so many bodies are copied.
_MOST_AT_ONCE = 64

_NEWEST = """
    SELECT key, max(id), state FROM deliveries WHERE key IN ({}) AND appended_at > ? GROUP BY key"""
_INSERT = """
    INSERT OR ROLLBACK INTO deliveries (key, body, content_type, received_at, appended_at, due_at, updated_at)
    VALUES {}"""
_DUE = """
    SELECT id, attempt, crashes + state, body, content_type, received_at, key, completed
    FROM deliveries INDEXED BY open_deliveries
    WHERE state < 2 AND due_at <= ? ORDER BY due_at, id LIMIT ?"""
_LEASE = """
    UPDATE OR ROLLBACK deliveries SET state = 1, due_at = ?, token = ?, updated_at = ?, crashes = crashes + (state = 1)
    WHERE id IN ({})"""
_ACK = """
    UPDATE OR ROLLBACK deliveries SET state = 2, reason = '', updated_at = ?, event_key = CASE id {} END{}
    WHERE id IN ({}) AND state = 1 AND token = ?"""
_FORGET = """
    DELETE FROM deliveries WHERE id IN (SELECT id FROM deliveries INDEXED BY closed_deliveries
    WHERE state = 2 AND state > 1 AND updated_at < ? ORDER BY updated_at LIMIT ?)"""
_FIRST_DONE = """
    SELECT min(updated_at) FROM deliveries INDEXED BY closed_deliveries WHERE state = 2 AND state > 1"""
# A dead letter becomes as new, but for what has succeeded.
_REVIVE = "UPDATE deliveries SET state = 0, attempt = 1, due_at = ?, delay = 0, updated_at = ?"
_REVIVE_REPEATED = f"{_REVIVE} WHERE id = ?"
_REPLAY_ALL = f"{_REVIVE}, crashes = 0 WHERE state = 3 AND state > 1"
_REPLAY_ONE = f"{_REVIVE}, crashes = 0 WHERE state = 3 AND id = ?"
_ENTRY = """
    SELECT id, state, due_at, body, content_type, received_at, key, attempt, crashes, reason, updated_at
    FROM deliveries """


# --- taking in --------------------------------------------------------------------------------------------


def append(
    connection: sqlite3.Connection, deliveries: Sequence[Delivery], now: float, dedupe_window: float
) -> list[AppendResult]:
    """Insert what is new; a repeat of a dead letter makes that one ready."""
    keyed = [(encode_text(delivery.key), delivery) for delivery in deliveries]
    if dedupe_window <= 0:
        return [AppendResult(id, duplicate=False) for id in _inserted(connection, keyed, now)]
    there = _newest(connection, [key for key, _ in keyed], now, dedupe_window)
    # Of two that are alike the first is new.
    new = {key: delivery for key, delivery in reversed(keyed) if key not in there}
    fresh = [(key, new.pop(key)) for key, _ in keyed if key in new]
    inserted = dict(zip((key for key, _ in fresh), _inserted(connection, fresh, now), strict=True))
    there |= inserted
    # The first to ask for a new one gets it as new.
    return [AppendResult(there[key], duplicate=inserted.pop(key, None) is None) for key, _ in keyed]


def _newest(connection: sqlite3.Connection, keys: list[Text], now: float, dedupe_window: float) -> dict[Text, Any]:
    """Find the deliveries that are there already, by key."""
    there: dict[Text, Any] = {}
    for part in _chunks(keys):
        query = _NEWEST.format(_placeholders(part))
        for key, id, state in connection.execute(query, (*part, now - dedupe_window)).fetchall():
            there[key] = id
            if state == DEAD:
                connection.execute(_REVIVE_REPEATED, (now, now, id))
    return there


def _inserted(connection: sqlite3.Connection, keyed: list[tuple[Text, Delivery]], now: float) -> list[int]:
    """Insert rows; return their ids, which follow each other."""
    ids: list[int] = []
    for part in _chunks(keyed):
        values: list[Any] = []
        for key, delivery in part:
            received_at = delivery.received_at.timestamp()
            values += (key, delivery.body, encode_text(delivery.content_type), received_at, now, now, now)
        statement = _INSERT.format(",".join(["(?,?,?,?,?,?,?)"] * len(part)))
        last = connection.execute(statement, values).lastrowid or 0
        ids += range(last - len(part) + 1, last + 1)
    return ids


def _chunks(rows: list[T]) -> Iterator[list[T]]:
    """Cut into parts of few different lengths: each is a statement that SQLite has to keep prepared."""
    start = 0
    while start < len(rows):
        length = min(_MOST_AT_ONCE, 1 << (len(rows) - start).bit_length() - 1)
        yield rows[start : start + length]
        start += length


def _placeholders(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))


# --- handing out ------------------------------------------------------------------------------------------


def claim(connection: sqlite3.Connection, limit: int, now: float, lease: float) -> list[Lease]:
    """Lease what is due, under a token of this claim."""
    due = isolate_suspects(connection.execute(_DUE, (now, limit)).fetchall(), itemgetter(2))
    token = secrets.token_hex(8)
    for part in _chunks([row[0] for row in due]):
        connection.execute(_LEASE.format(_placeholders(part)), (now + lease, token, now, *part))
    return [_leased(row, token) for row in due]


def _leased(row: Row, token: str) -> Lease:
    id, attempt, crashes, body, content_type, received_at, key, completed = row
    delivery = Delivery(body, text(content_type), from_timestamp(received_at), text(key))
    return Lease(id, token, attempt, crashes, delivery, decode_names(completed))


def forget(connection: sqlite3.Connection, before: float, most: int) -> int:
    """Delete what was done before a time, so many at most; return how many."""
    return connection.execute(_FORGET, (before, most)).rowcount


def first_done(connection: sqlite3.Connection) -> float | None:
    """Return when the first of all that is done was, or None."""
    (first,) = connection.execute(_FIRST_DONE).fetchone()
    return None if first is None else float(first)


def settle(connection: sqlite3.Connection, lease: Lease, now: float, change: str, values: Row) -> bool:
    """Change a delivery, if the lease is still its own."""
    statement = (
        f"UPDATE deliveries SET {change}, updated_at = ?"  # noqa: S608  # the changes are the inbox's own words
        " WHERE id = ? AND state = 1 AND token = ?"
    )
    return connection.execute(statement, (*values, now, parse_row_id(lease.id), lease.token)).rowcount == 1


def ack(
    connection: sqlite3.Connection, handled: Sequence[tuple[Lease, str]], now: float, *, keep_bodies: bool
) -> list[bool]:
    """
    Note which events were handled; tell whether the leases were still the deliveries' own.

    Raises:
        NotAlike: Some of several were not.
    """
    by_token: dict[str, list[tuple[int, Text]]] = {}
    for lease, event_key in handled:
        by_token.setdefault(lease.token, []).append((parse_row_id(lease.id), encode_text(event_key)))
    noted = 0
    for token, keys in by_token.items():
        for part in _chunks(keys):
            ids = [id for id, _ in part]
            statement = _ACK.format(
                "WHEN ? THEN ? " * len(part), "" if keep_bodies else ", body = x''", _placeholders(part)
            )
            values = (now, *chain.from_iterable(part), *ids, token)
            noted += connection.execute(statement, values).rowcount
    if noted != len(handled) > 1:
        raise BatchMismatchError
    return [noted > 0] * len(handled)


# --- looking after it -------------------------------------------------------------------------------------


def entry(connection: sqlite3.Connection, id: int) -> Row | None:
    """Read what is known of one delivery."""
    row: Row | None = connection.execute(f"{_ENTRY} WHERE id = ?", (id,)).fetchone()
    return row


def page_after(connection: sqlite3.Connection, last: int) -> list[Row]:
    """Read the next page of what is known of all."""
    return connection.execute(f"{_ENTRY} WHERE id > ? ORDER BY id LIMIT ?", (last, PAGE_ROWS)).fetchall()


def newest(connection: sqlite3.Connection, limit: int, bodies_after: int) -> list[Row]:
    """Read what came last, the newest first; the bodies of those only that came after one."""
    # SQLite reads no page of a body that is not asked for.
    query = _ENTRY.replace("body", "CASE WHEN id > ? THEN body ELSE x'' END")
    return connection.execute(f"{query} ORDER BY id DESC LIMIT ?", (bodies_after, limit)).fetchall()


def as_entry(row: Row, now: float) -> InboxEntry:
    """Make an entry of what was read."""
    id, state, due_at, body, content_type, received_at, key, attempt, crashes, reason, updated_at = row
    delivery = Delivery(body, text(content_type), from_timestamp(received_at), text(key))
    shown = public_state(STATES[state], due_at, now)
    return InboxEntry(id, shown, delivery, attempt, crashes, text(reason), from_timestamp(updated_at))


def replay(connection: sqlite3.Connection, ids: Sequence[int] | None, now: float) -> int:
    """Make dead letters ready again, all unless named; return how many."""
    if ids is None:
        return connection.execute(_REPLAY_ALL, (now, now)).rowcount
    return sum(connection.execute(_REPLAY_ONE, (now, now, id)).rowcount for id in ids)


# --- values -----------------------------------------------------------------------------------------------


def encode_text(text: str | None) -> Text:
    """Return a text as SQLite can keep it: a server hands over what it could not decode as lone surrogates."""
    if text is None:
        return None
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
    return text


def text(stored: Any) -> Any:
    """Return a text as it was before it was made storable."""
    return stored.decode("utf-8", "surrogatepass") if isinstance(stored, bytes) else stored


def from_timestamp(seconds: float) -> datetime:
    """Return a time as a delivery has it."""
    return datetime.fromtimestamp(seconds, UTC)
