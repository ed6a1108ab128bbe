"""Allow-list of the subscriptions whose events are handled."""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable, Container
from typing import TypeAlias

__all__ = ["SubscriptionAllowList"]

#: Ids, or a coroutine function that returns them.
Source: TypeAlias = Container[int] | Callable[[], Awaitable[Container[int]]]

_CACHE_SECONDS = 60.0


class SubscriptionAllowList:
    """The subscriptions whose events are handled: ids, or a coroutine function whose result is cached for a minute."""

    def __init__(self, source: Source | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch: Callable[[], Awaitable[Container[int]]] | None = None
        self._ids: Container[int] | None = None
        if callable(source):
            if not inspect.iscoroutinefunction(source):
                raise TypeError("known_subscriptions must be ids, or a coroutine function that returns ids")
            self._fetch = source
        else:
            self._ids = source
        self._clock = clock
        self._fetched_at = float("-inf")

    async def allows(self, subscription_id: int | None) -> bool:
        """Return whether events of a subscription are handled; True for an event without a subscription id."""
        if self._fetch is not None and self._clock() - self._fetched_at >= _CACHE_SECONDS:
            self._ids = await self._fetch()
            self._fetched_at = self._clock()
        return subscription_id is None or self._ids is None or subscription_id in self._ids
