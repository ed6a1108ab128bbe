"""Which inbox the settings ask for."""

from __future__ import annotations

from callfire_async.notifications import Inbox, SqliteInbox


def make_inbox(where: str, spool: str) -> Inbox:
    """Return an inbox in a file; or in a PostgreSQL, with a file in front for when that cannot be reached."""
    if not where.startswith(("postgresql://", "postgres://")):
        return SqliteInbox(where)
    # Whoever keeps deliveries in a file needs no driver.
    from callfire_async.notifications.inbox.postgres import PostgresInbox
    from callfire_async.notifications.inbox.spool import SpoolingInbox

    return SpoolingInbox(PostgresInbox(where), SqliteInbox(spool))
