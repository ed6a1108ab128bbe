"""Allow-list of the subscriptions whose events are handled."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Container
from typing import TypeAlias

from callfire_async._arguments import check_async_function, check_ids, is_async, is_id_container, type_name

__all__ = ["SubscriptionAllowList"]

#: Ids, or a coroutine function that returns them.
Source: TypeAlias = Container[int] | Callable[[], Awaitable[Container[int]]]

_CACHE_SECONDS = 60.0


class SubscriptionAllowList:
    """
    The subscriptions whose events are handled: ids, or a coroutine function whose result is cached for a minute.

    Raises:
        TypeError: The source is neither, or an id is not an integer.
    """

    def __init__(self, source: Source | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch: Callable[[], Awaitable[Container[int]]] | None = None
        self._ids: Container[int] | None = None
        if callable(source) and (is_async(source) or not is_id_container(source)):
            check_async_function("known_subscriptions", source, "async def fetch() -> set[int]")
            self._fetch = source
        elif source is not None:
            self._ids = _checked(source)
        self._clock = clock
        self._fetched_at = float("-inf")

    async def allows(self, subscription_id: int | None) -> bool:
        """Return whether events of a subscription are handled; True for an event without a subscription id."""
        if self._fetch is not None and self._clock() - self._fetched_at >= _CACHE_SECONDS:
            self._ids = _checked(await self._fetch())
            self._fetched_at = self._clock()
        return subscription_id is None or self._ids is None or subscription_id in self._ids


def _checked(ids: object) -> Container[int]:
    if not isinstance(ids, Container) or not is_id_container(ids):
        raise TypeError(
            "known_subscriptions must be a container of ids, such as {41001}, or a coroutine function that returns one,"
            f" not {type_name(ids)}"
        )
    check_ids("known_subscriptions", ids)
    return ids
