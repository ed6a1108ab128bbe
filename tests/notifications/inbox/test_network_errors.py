"""The causes of connection failures in the same words for all servers."""

import asyncio
import errno
import socket
import ssl

import asyncpg
import pytest

from callfire_async.errors import InboxError, InboxUnavailableError
from callfire_async.notifications.inbox._network_errors import describe_network_error
from callfire_async.notifications.inbox.postgres._errors import map_error


def tls_error(reason: str | None) -> ssl.SSLError:
    error = ssl.SSLError(1, "a text of OpenSSL")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('::1', 1)"), "connection refused"),
        (OSError("Multiple exceptions: [Errno 111] Connect call failed, [Errno 111] again"), "connection refused"),
        (OSError("[Errno 111] refused, [Errno 101] no route"), "Network is unreachable and connection refused"),
        (ConnectionResetError(), "the server closed the connection"),
        (ConnectionResetError(errno.ECONNRESET, "reset"), "the server closed the connection"),
        (BrokenPipeError(errno.EPIPE, "pipe"), "the server closed the connection"),
        (OSError(errno.EHOSTUNREACH, "no route"), "No route to host"),
        (OSError(errno.ETIMEDOUT, "timed out"), "the host did not respond"),
        (OSError("of a driver"), "of a driver"),
        (OSError(), "OSError"),
        (TimeoutError(), "no response"),
        (asyncio.IncompleteReadError(b"", 1), None),
        (socket.gaierror(-2, "Name unknown"), "unknown host: the name cannot be resolved (Name unknown)"),
        (tls_error("WRONG_VERSION_NUMBER"), "TLS failed: the server does not use TLS on this port"),
        (tls_error("TLSV1_ALERT_UNKNOWN_CA"), "TLS failed: TLSV1_ALERT_UNKNOWN_CA"),
        (tls_error(None), "TLS failed: the server ended the handshake"),
        (KeyError("secret"), None),
    ],
)
def test_the_cause_of_a_failed_connection_is_described(error, cause):
    """None for an error that is not of the network."""
    assert describe_network_error(error) == cause


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (asyncpg.InterfaceError("pool is closing"), "PostgreSQL at h:5432 is unavailable: pool is closing"),
        (
            asyncpg.CannotConnectNowError("the database system is starting up"),
            "PostgreSQL at h:5432 accepts no connections yet, or no longer: the database system is starting up",
        ),
        (
            asyncpg.DiskFullError("could not extend file"),
            "PostgreSQL at h:5432 has no disk space: could not extend file",
        ),
        (
            asyncpg.AdminShutdownError("terminating connection"),
            "PostgreSQL at h:5432 is unavailable: terminating connection",
        ),
    ],
)
def test_an_outage_of_postgresql_is_described(error, message):
    """With the server's own words at the end."""
    mapped = map_error(error, "PostgreSQL at h:5432", 10.0)

    assert (type(mapped), str(mapped), mapped.__cause__) == (InboxUnavailableError, message, error)


def test_a_refused_statement_is_not_an_outage():
    """A repeat would fail too."""
    mapped = map_error(asyncpg.UndefinedColumnError("column x does not exist"), "PostgreSQL at h:5432", 10.0)

    assert type(mapped) is InboxError
    assert str(mapped) == "PostgreSQL at h:5432 rejected the statement: column x does not exist"
