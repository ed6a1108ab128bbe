"""Checks the source of a `PostgresInbox`, a URL or a pool, and names its server in messages."""

from __future__ import annotations

import os
from urllib.parse import SplitResult, parse_qs, unquote

import asyncpg

from callfire_async.notifications.inbox._addresses import AddressError, parse_address

__all__ = ["check_source", "list_hosts", "server_name"]

_EXPECTED = (
    "postgresql://user:password@host/database, with special characters percent-encoded"
    " (urllib.parse.quote(password, safe=''))"
)
_SCHEMES = ("postgresql", "postgres")


def check_source(source: object) -> None:
    """
    Check that *source* is a PostgreSQL URL or a pool.

    Raises:
        TypeError: *source* is of another type.
        ValueError: *source* is not a valid PostgreSQL URL. The message does not quote it.
    """
    if isinstance(source, asyncpg.Pool):
        return
    if not isinstance(source, str):
        raise TypeError(f"source must be {_EXPECTED}, or an asyncpg.Pool, not {_type_name(source)}")
    try:
        _check_parts(parse_address(source, _SCHEMES))
    except AddressError as error:
        hint = "; a string of keywords (host=… dbname=…) is not supported" if "://" not in source else ""
        raise ValueError(f"source must be {_EXPECTED}: {error}{hint}") from None


def _type_name(source: object) -> str:
    return f"the class {source.__name__}" if isinstance(source, type) else type(source).__name__


def _check_parts(parts: SplitResult) -> None:
    credentials, _, hosts = parts.netloc.rpartition("@")
    query = _query(parts)
    if ":" in credentials and not (hosts or _given(query, "host", "service")):
        raise AddressError("the host is missing")
    if hosts and not (parts.path.strip("/") or _given(query, "database", "dbname", "service")):
        raise AddressError("the database is missing")


def _query(parts: SplitResult) -> dict[str, str]:
    try:
        fields = parse_qs(parts.query, strict_parsing=True) if parts.query else {}
    except ValueError:  # its message quotes a field
        raise AddressError("the query after '?' is not name=value; in a password, '?' must be %3F") from None
    return {name: values[-1] for name, values in fields.items()}


def _given(query: dict[str, str], *names: str) -> str | None:
    """Return the first of these settings in the URL or the environment, as asyncpg reads them."""
    values = [query.get(name) or os.environ.get(f"PG{name.upper()}") for name in names]
    return next(filter(None, values), None)


def server_name(source: object) -> str:
    """Return ``PostgreSQL at host:port`` for messages; without an address for a pool, whose address is unknown."""
    if not isinstance(source, str):
        return "PostgreSQL"
    hosts, port = _hosts_and_port(source)
    return f"PostgreSQL at {', '.join(_with_port(host, port) for host in hosts)}"


def list_hosts(source: str) -> list[tuple[str, int]]:
    """Return the hosts and ports of a URL with several hosts; empty if it has one, or a list of ports."""
    hosts, default = _hosts_and_port(source)
    # In the authority of a URL, a port may follow the encoded directory of a socket.
    has_socket_port = any(host.startswith("/") and _has_port(host) for host in hosts)
    if len(hosts) < 2 or "," in default or has_socket_port:
        return []
    return [_split_port(host, default) for host in hosts]


def _hosts_and_port(source: str) -> tuple[list[str], str]:
    """Return the hosts of a URL, each with its port if it has one, and the port of the others."""
    parts = parse_address(source, _SCHEMES)
    hosts, query = unquote(parts.netloc.rpartition("@")[2]), _query(parts)
    # asyncpg ignores the port of the query if the host is not there too.
    port = _given({} if hosts else query, "port") or "5432"
    return (hosts or _given(query, "host") or "localhost").split(","), port


def _with_port(host: str, port: str) -> str:
    host = host.removesuffix(":")
    return host if host.startswith("/") or _has_port(host) else f"{host}:{port}"


def _split_port(host: str, default: str) -> tuple[str, int]:
    """Return a host without the brackets of an IPv6 address, and its port."""
    name, _, port = host.rpartition(":") if _has_port(host) and not host.startswith("/") else (host, "", "")
    return name.strip("[]"), int(port or default)


def _has_port(host: str) -> bool:
    return ":" in host.rpartition("]")[2]
