"""Connects to one of several hosts of a URL."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import asyncpg

from callfire_async.notifications.inbox.postgres._source import list_hosts

__all__ = ["HostConnector"]

# Another host may accept the connection: this one cannot be reached in time, is starting, or is a standby.
_OTHER_HOST_ERRORS = (OSError, asyncpg.CannotConnectNowError, asyncpg.TargetServerAttributeNotMatched)


class HostConnector:
    """
    Connects to the first host that is suitable, beginning with the one that was suitable last.

    asyncpg tries the hosts of a URL in order and without a limit for each, so a host that does not respond, such as the
    machine of a lost primary, would use up the time for all.

    Args:
        source: The URL, or the caller's pool, which connects by itself.
        timeout: Seconds for an operation on the server, in which each host is tried.
    """

    def __init__(self, source: object, timeout: float) -> None:
        self._listed = self._hosts = list_hosts(source) if isinstance(source, str) else []
        self._seconds_each = timeout / (len(self._hosts) + 1)

    async def connect(self, *arguments: Any, **options: Any) -> asyncpg.Connection[Any]:
        """Connect with the arguments of `asyncpg.connect`; if no host is suitable, raise the error of the last."""
        hosts = self._hosts
        for host in hosts[:-1]:
            with suppress(*_OTHER_HOST_ERRORS):
                async with asyncio.timeout(self._seconds_each):
                    return await self._connect_to(host, *arguments, **options)
        # The last host has the rest of the time, which the caller limits.
        last = self._connect_to(hosts[-1], *arguments, **options) if hosts else _connect(*arguments, **options)
        return await last

    def forget(self) -> None:
        """Try the hosts in the order of the URL again, because the one that was suitable last is a standby."""
        self._hosts = self._listed

    async def _connect_to(self, host: tuple[str, int], *arguments: Any, **options: Any) -> asyncpg.Connection[Any]:
        connection = await _connect(*arguments, host=[host[0]], port=[host[1]], **options)
        # A new list, because other callers may be trying the hosts in their former order.
        self._hosts = [host, *(other for other in self._hosts if other != host)]
        return connection


async def _connect(*arguments: Any, **options: Any) -> asyncpg.Connection[Any]:
    connection: asyncpg.Connection[Any] = await asyncpg.connect(*arguments, **options)
    return connection
