"""
Whose events are handled: the subscriptions that are one's own.

This module imports nothing of the package.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable, Container
from typing import TypeAlias

__all__ = ["SubscriptionAllowList"]

#: Ids, or a coroutine function that returns them.
Source: TypeAlias = Container[int] | Callable[[], Awaitable[Container[int]]]

_KNOWN_FOR_SECONDS = 60.0


class SubscriptionAllowList:
    """The subscriptions that events may come from: ids, or a coroutine function that is asked once a minute."""

    def __init__(self, known: Source | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._ask: Callable[[], Awaitable[Container[int]]] | None = None
        self._known: Container[int] | None = None
        if callable(known):
            if not inspect.iscoroutinefunction(known):
                raise TypeError("known_subscriptions must be ids, or a coroutine function that returns ids")
            self._ask = known
        else:
            self._known = known
        self._clock = clock
        self._asked_at = float("-inf")

    async def include(self, subscription_id: int | None) -> bool:
        """Tell whether an event may come from this one; an event that does not say passes."""
        if self._ask is not None and self._clock() - self._asked_at >= _KNOWN_FOR_SECONDS:
            self._known = await self._ask()
            self._asked_at = self._clock()
        return subscription_id is None or self._known is None or subscription_id in self._known
