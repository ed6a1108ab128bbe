"""Allow-lists of the subscriptions and webhooks whose events are handled."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Container
from typing import TypeAlias

from callfire_async._arguments import check_async_function, check_ids, is_async, is_id_container, type_name

__all__ = ["AllowList", "Source"]

#: Ids, or a coroutine function that returns them.
Source: TypeAlias = Container[int] | Callable[[], Awaitable[Container[int]]]

_CACHE_SECONDS = 60.0


class AllowList:
    """
    The subscriptions, or webhooks, whose events are handled.

    Args:
        name: The argument of the receiver, for error messages.
        source: Ids, or a coroutine function whose result is cached for a minute; None allows all.
        clock: Returns the time in seconds.

    Raises:
        TypeError: The source is neither, or an id is not an integer.
    """

    def __init__(self, name: str, source: Source | None, clock: Callable[[], float] = time.monotonic) -> None:
        #: The argument of the receiver.
        self.name = name
        self._fetch: Callable[[], Awaitable[Container[int]]] | None = None
        self._ids: Container[int] | None = None
        if callable(source) and (is_async(source) or not is_id_container(source)):
            check_async_function(name, source, "async def fetch() -> set[int]")
            self._fetch = source
        elif source is not None:
            self._ids = _checked(name, source)
        self._clock = clock
        self._fetched_at = float("-inf")
        #: The event loop of the last call, and its lock.
        self._loop_and_lock: tuple[asyncio.AbstractEventLoop | None, asyncio.Lock] = (None, asyncio.Lock())

    @property
    def allows_all(self) -> bool:
        """Whether no source was given."""
        return self._ids is None and self._fetch is None

    async def allows(self, id: int) -> bool:
        """Return whether events of a subscription or webhook are handled."""
        if self._fetch is not None and self._is_outdated:
            async with self._lock_of_loop():
                await self._update(self._fetch)
        return self._ids is None or id in self._ids

    @property
    def _is_outdated(self) -> bool:
        return self._clock() - self._fetched_at >= _CACHE_SECONDS

    def _lock_of_loop(self) -> asyncio.Lock:
        # A lock belongs to one event loop, and a receiver without an inbox may be used in several, in threads.
        loop = asyncio.get_running_loop()
        owner, lock = self._loop_and_lock
        if owner is not loop:
            lock = asyncio.Lock()
            self._loop_and_lock = loop, lock
        return lock

    async def _update(self, fetch: Callable[[], Awaitable[Container[int]]]) -> None:
        # The function may have been called for another event in the meantime.
        if self._is_outdated:
            self._ids = _checked(self.name, await fetch())
            self._fetched_at = self._clock()


def _checked(name: str, ids: object) -> Container[int]:
    if not isinstance(ids, Container) or not is_id_container(ids):
        raise TypeError(
            f"{name} must be a container of ids, such as {{41001}}, or a coroutine function that returns one, not "
            f"{type_name(ids)}"
        )
    check_ids(name, ids)
    return ids
