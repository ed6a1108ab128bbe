"""Maps the errors of PostgreSQL and asyncpg to errors of this library, which name the cause."""

from __future__ import annotations

import asyncpg

from callfire_async.errors import InboxError, InboxUnavailableError
from callfire_async.notifications.inbox._network_errors import describe_network_error

__all__ = ["DRIVER_ERRORS", "map_error"]

DRIVER_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, ValueError)

# By SQLSTATE, or by its class of two characters. The operation may succeed after a change on the server.
_PROBLEMS = {
    "28": "rejected the login",
    "3D000": "does not have this database",
    "3F000": "does not have this inbox's schema; restore it, or restart to create an empty one",
    "42P01": "does not have this inbox's tables; restore them, or restart to create empty ones",
    "42501": "denies the permission",
    "25006": "is read-only (a standby, or default_transaction_read_only)",
    "53100": "has no disk space",
    "53300": "accepts no more connections",
    "55P03": "did not get a lock in time, for example because another process creates or migrates the tables",
    "57P03": "accepts no connections yet, or no longer",
}
# SQLSTATE classes of a refused statement on a healthy server: feature, data, constraint, syntax, limit.
_STATEMENT_CLASSES = ("0A", "22", "23", "42", "54")
# Their messages quote the values of the statement.
_QUOTING_CLASSES = ("22", "23", "54")


def map_error(error: Exception, server: str, timeout: float) -> InboxError:
    """Return an error of this library, without the values of the statement and the URL, which has a password."""
    if isinstance(error, asyncpg.PostgresError):
        return _map_server_error(error, server)
    if isinstance(error, TimeoutError):
        return _with_cause(InboxUnavailableError(f"{server} is unavailable: no response within {timeout:g} s"), error)
    if isinstance(error, asyncpg.ClientConfigurationError):
        return InboxError(f"{server} cannot be used with these settings: {error}")
    if (reason := describe_network_error(error)) is not None:
        return _with_cause(InboxUnavailableError(f"{server} is unavailable: {reason}"), error)
    if isinstance(error, ValueError):
        # No cause: the driver's message quotes the value or the URL.
        return InboxError(f"PostgreSQL's driver rejected a value or the URL ({type(error).__name__})")
    return _with_cause(InboxUnavailableError(f"{server} is unavailable: {error}"), error)


def _map_server_error(error: asyncpg.PostgresError, server: str) -> InboxError:
    state = error.sqlstate or ""
    if problem := _PROBLEMS.get(state) or _PROBLEMS.get(state[:2]):
        return _with_cause(InboxUnavailableError(f"{server} {problem}: {error.args[0]}"), error)
    if state[:2] not in _STATEMENT_CLASSES:
        return _with_cause(InboxUnavailableError(f"{server} is unavailable: {error.args[0]}"), error)
    if state[:2] in _QUOTING_CLASSES:
        return InboxError(f"{server} rejected the statement: {type(error).__name__}")
    return _with_cause(InboxError(f"{server} rejected the statement: {error.args[0]}"), error)


def _with_cause(mapped: InboxError, cause: Exception) -> InboxError:
    mapped.__cause__ = cause
    return mapped
