"""The inbox that the settings name."""

from __future__ import annotations

from callfire_async.notifications import Inbox, SqliteInbox


def make_inbox(location: str, spool: str) -> Inbox:
    """Return an inbox in a file, or in PostgreSQL with a spool file for the time when the server is unavailable."""
    if not location.startswith(("postgresql://", "postgres://")):
        return SqliteInbox(location)
    # A service with a file needs no PostgreSQL driver.
    from callfire_async.notifications.inbox.postgres import PostgresInbox
    from callfire_async.notifications.inbox.spool import SpoolingInbox

    return SpoolingInbox(PostgresInbox(location), SqliteInbox(spool))
