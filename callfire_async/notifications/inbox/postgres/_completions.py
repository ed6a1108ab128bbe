"""Completions: the handlers that have succeeded, recorded in the transactions of their effects."""

from __future__ import annotations

from callfire_async.errors import InboxError, LeaseLostError
from callfire_async.notifications.inbox.base import Lease, parse_row_id
from callfire_async.notifications.inbox.postgres import _queries as sql
from callfire_async.notifications.inbox.postgres._caller_connections import (
    Statement,
    fetch_in_transaction,
    sqlstate_of,
)

__all__ = ["record_completion"]

# The schema, a table or a column does not exist.
_NO_INBOX = ("3F000", "42P01", "42703")


async def record_completion(connection: object, lease: Lease, handler: str, *, schema: str, inbox_id: str) -> None:
    """
    Record in the open transaction of *connection* that a handler has succeeded; raise the errors of `complete_in`.

    Args:
        connection: The caller's connection.
        lease: The lease of the delivery.
        handler: The handler's name as it is stored.
        schema: The schema of the inbox.
        inbox_id: The ID of the inbox.
    """
    ids = {"id": parse_row_id(lease.id), "token": lease.token, "handler": handler, "inbox_id": inbox_id}
    text = sql.COMPLETE.format(schema=schema, **{name: f"{{{name}}}" for name in ids})
    outcome = await _fetch_outcome(connection, Statement(text, ids), schema)
    if outcome == "other database":
        raise ValueError(_wrong_database(schema))
    if outcome == "lost":
        raise LeaseLostError(
            f"the lease of delivery {lease.id} was lost or has ended; roll the transaction back: another worker may"
            " handle the delivery"
        )
    if outcome == "completed before":
        raise InboxError(
            f"handler {handler} of delivery {lease.id} is complete, by an earlier transaction that has committed; roll"
            " this one back"
        )


async def _fetch_outcome(connection: object, statement: Statement, schema: str) -> object:
    try:
        return await fetch_in_transaction(connection, statement)
    except Exception as error:
        if sqlstate_of(error) in _NO_INBOX:
            raise ValueError(_wrong_database(schema)) from error
        raise


def _wrong_database(schema: str) -> str:
    return f"connection must be to the database of the inbox; its schema {schema} has a different inbox, or none"
