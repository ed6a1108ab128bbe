"""The conversion of rows of PostgreSQL to the values of an inbox."""

from __future__ import annotations

from callfire_async.notifications.inbox.base import Delivery, InboxEntry, Lease, decode_names
from callfire_async.notifications.inbox.postgres._pool import Row

__all__ = ["escape", "to_entry", "to_lease", "unescape"]


def to_lease(row: Row, completions: set[tuple[int, str]]) -> Lease:
    """Return the lease in a row, with the handlers that `complete_in` has recorded."""
    completed = decode_names(row["completed"]) | {handler for id, handler in completions if id == row["id"]}
    return Lease(row["id"], row["token"], row["attempt"], row["crashes"], _delivery(row), completed)


def to_entry(row: Row) -> InboxEntry:
    """Return the entry in a row."""
    reason = unescape(row["reason"])
    return InboxEntry(
        row["id"], row["state_name"], _delivery(row), row["attempt"], row["crashes"], reason, row["updated_at"]
    )


def _delivery(row: Row) -> Delivery:
    content_type = None if row["content_type"] is None else unescape(row["content_type"])
    return Delivery(row["body"], content_type, row["received_at"], unescape(row["key"]))


def escape(text: str) -> str:
    """Return *text* in ASCII: no database stores NUL or lone surrogates, and some encodings lack other characters."""
    return text.encode("unicode_escape").decode()


def unescape(text: str) -> str:
    """Return the text that `escape` has written in ASCII."""
    return text.encode().decode("unicode_escape")
