"""Checks the servers that a `JetStreamInbox` is given, and separates their addresses from the credentials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias
from urllib.parse import SplitResult, unquote

from attrs import field, frozen

from callfire_async.notifications.inbox._addresses import AddressError, parse_address

__all__ = ["ServerList"]

# A user and a password, or a token and None.
_Credentials: TypeAlias = tuple[str, str | None]

_EXPECTED = (
    "nats://user:password@host:4222, with special characters percent-encoded (urllib.parse.quote(password, safe='')),"
    " or a list of such URLs"
)
_WEB_SCHEMES = ("ws", "wss")
_SCHEMES = ("nats", "tls", *_WEB_SCHEMES)
_DEFAULT_PORTS = {"ws": 80, "wss": 443}


@frozen
class ServerList:
    """The servers of an inbox, without credentials."""

    urls: list[str]
    #: Hosts and ports.
    address: str
    #: Whether an address requires TLS.
    requires_tls: bool
    #: Whether the addresses are of WebSockets, which have TLS of their own.
    uses_websockets: bool
    _credentials: _Credentials | None = field(repr=False)

    @classmethod
    def parse(cls, servers: str | Sequence[str]) -> ServerList:
        """
        Return the list of these servers.

        Raises:
            TypeError: *servers* is neither a string nor a sequence of strings.
            ValueError: *servers* is empty, an address is invalid, or the servers have different credentials. The
                message quotes no address.
        """
        parts = [_parse_server(server) for server in _checked(servers)]
        if len(uses_websockets := {part.scheme in _WEB_SCHEMES for part in parts}) > 1:
            raise ValueError("servers must not mix addresses of WebSockets (ws://, wss://) with others")
        hosts = [(part.scheme, part.netloc.rpartition("@")[2]) for part in parts]
        urls = [f"{scheme}://{_with_port(host, scheme)}" for scheme, host in hosts]
        address = ", ".join(url.partition("://")[2] for url in urls)
        requires_tls = any(part.scheme == "tls" for part in parts)
        return cls(urls, address, requires_tls, uses_websockets.pop(), _common_credentials(parts))

    def connect_options(self) -> dict[str, str]:
        """Return the credentials as options of nats-py, which does not decode those of an address."""
        if self._credentials is None:
            return {}
        user, password = self._credentials
        return {"token": user} if password is None else {"user": user, "password": password}


def _checked(servers: object) -> Sequence[str]:
    listed = [servers] if isinstance(servers, str) else servers
    if not isinstance(listed, Sequence) or isinstance(listed, bytes | bytearray | memoryview):
        raise TypeError(f"servers must be {_EXPECTED}, not {_type_name(servers)}")
    if not listed:
        raise ValueError(f"servers must be {_EXPECTED}: the list is empty")
    for server in listed:
        if not isinstance(server, str):
            raise TypeError(f"servers must be {_EXPECTED}: the list contains {_type_name(server)}")
    return listed


def _type_name(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


def _parse_server(server: str) -> SplitResult:
    try:
        parts = parse_address(server if "://" in server or not server else f"nats://{server}", _SCHEMES)
        _check_parts(parts)
    except AddressError as error:
        raise ValueError(f"servers must be {_EXPECTED}: {error}") from None
    return parts


def _check_parts(parts: SplitResult) -> None:
    if "," in parts.netloc.rpartition("@")[2]:
        raise AddressError("one address has several hosts; give a list of addresses")
    if not parts.hostname:
        raise AddressError("the host is missing")
    if parts.path.strip("/") or parts.query:
        raise AddressError("a path or query follows the host; the inbox has its name in name=")


def _with_port(host: str, scheme: str) -> str:
    host = host.removesuffix(":")
    return host if ":" in host.rpartition("]")[2] else f"{host}:{_DEFAULT_PORTS.get(scheme, 4222)}"


def _common_credentials(parts: Sequence[SplitResult]) -> _Credentials | None:
    """Return the credentials, which nats-py sends to all servers, also to those that it discovers."""
    found = {_credentials(part) for part in parts if part.username}
    if len(found) > 1:
        raise ValueError("servers must have the same user and password in all addresses; they are one cluster")
    return next(iter(found), None)


def _credentials(parts: SplitResult) -> _Credentials:
    return unquote(parts.username or ""), None if parts.password is None else unquote(parts.password)
