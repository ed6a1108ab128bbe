"""
The operations on subscriptions.

It imports `connection`, `_protocol` and what stands above them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any
from uuid import uuid4
from warnings import warn

from callfire_async._protocol import (
    MAX_RESULTS,
    Operation,
    as_updated,
    create_subscription,
    delete_subscription,
    get_subscription,
    query_subscriptions,
    risks,
    same_subscription,
    update_subscription,
)
from callfire_async.connection import Connection
from callfire_async.models import (
    NotificationFormat,
    Page,
    ResourceReference,
    Subscription,
    SubscriptionFilter,
    TriggerEvent,
)

__all__ = ["Subscriptions"]

# A list that still goes on at ten times what an account may hold is none.
_MAX_LISTED = 100_000
# A page can be all known because others were added before it meanwhile; so much in a row is the same page for ever.
_MAX_STALE = 100


class Subscriptions:
    """
    The subscriptions of an account: which events CallFire posts, and where to.

    Each method raises what `Connection.execute` does; ids below 1 and other parameters out of their range raise
    `ValueError` before anything is sent.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def create(
        self,
        endpoint: str,
        trigger_event: TriggerEvent,
        *,
        notification_format: NotificationFormat | None = None,
        enabled: bool | None = None,
        non_strict_ssl: bool | None = None,
        filter: SubscriptionFilter | None = None,
        request_id: str | None = None,
    ) -> ResourceReference:
        """
        Subscribe *endpoint* to an event.

        Where the outcome of an attempt is unknown, a subscription with the same endpoint, trigger and filter counts
        as created, an older one too; it is created once more only if there is none.

        An ``http://`` endpoint that is not on loopback, and ``non_strict_ssl=True``, are warned of (`UserWarning`).

        Args:
            endpoint: A URL, best made by `EndpointTokens.url`, or an e-mail address.
            trigger_event: What is posted.
            notification_format: CallFire's default is XML.
            enabled: Whether CallFire posts to it yet.
            non_strict_ssl: Whether CallFire skips certificate checks when it posts.
            filter: Which texts, calls or campaigns it is for; all, unless given.
            request_id: CallFire's protection against duplicates; made up unless given, the same in each attempt.

        Returns:
            The new subscription's id, and its URL; the URL is None where one was found after an unknown outcome.
        """
        operation = create_subscription(
            {
                "endpoint": endpoint,
                "trigger_event": trigger_event,
                "notification_format": notification_format,
                "enabled": enabled,
                "non_strict_ssl": non_strict_ssl,
                "filter": filter,
                "request_id": _request_id(request_id),
            }
        )
        _warn_of_risks(operation)
        return await self._connection.execute(operation, recover=partial(self._find, operation))

    async def query(self, *, max_results: int = MAX_RESULTS, first_result: int = 0) -> Page[Subscription]:
        """Fetch one page: *max_results* subscriptions at most, 1 to 1000, from number *first_result*."""
        operation = query_subscriptions(max_results=max_results, first_result=first_result)
        return await self._connection.execute(operation)

    async def all(self, *, page_size: int = MAX_RESULTS) -> AsyncIterator[Subscription]:
        """
        Yield every subscription, none twice, *page_size* (1 to 1000) at a time.

        Always ends, also where CallFire says no total or gives short pages. One may be missed if others are deleted
        meanwhile.
        """
        seen: set[int] = set()
        first_result = stale = 0
        while first_result < _MAX_LISTED and stale < max(_MAX_STALE, 3 * page_size):
            page = await self.query(max_results=page_size, first_result=first_result)
            fresh = {item.id: item for item in page.items if item.id not in seen}
            seen |= fresh.keys()
            for item in fresh.values():
                yield item
            first_result += len(page.items)
            stale = 0 if fresh else stale + page_size
            if not page.items or first_result >= (_MAX_LISTED if page.total_results is None else page.total_results):
                return

    async def get(self, subscription_id: int) -> Subscription:
        """Fetch one subscription; `NotFoundError` where there is none."""
        return await self._connection.execute(get_subscription(subscription_id))

    async def update(
        self,
        subscription_id: int,
        *,
        endpoint: str | None = None,
        trigger_event: TriggerEvent | None = None,
        notification_format: NotificationFormat | None = None,
        enabled: bool | None = None,
        non_strict_ssl: bool | None = None,
        filter: SubscriptionFilter | None = None,
        request_id: str | None = None,
    ) -> None:
        """
        Change what is given; None is not sent, so nothing can be cleared this way. The parameters of `create`.

        Where CallFire refuses to repeat an attempt of unknown outcome, it is a success if all that was to change is
        found as it was to be.
        """
        operation = update_subscription(
            subscription_id,
            {
                "endpoint": endpoint,
                "trigger_event": trigger_event,
                "notification_format": notification_format,
                "enabled": enabled,
                "non_strict_ssl": non_strict_ssl,
                "filter": filter,
                "request_id": _request_id(request_id),
            },
        )
        _warn_of_risks(operation)
        await self._connection.execute(operation, recover=partial(self._confirm, subscription_id, operation))

    async def delete(self, subscription_id: int) -> None:
        """Delete one subscription; that it is gone when an attempt of unknown outcome is repeated is a success."""
        await self._connection.execute(delete_subscription(subscription_id))

    async def _find(self, operation: Operation[ResourceReference]) -> ResourceReference | None:
        """Look for what a create would make, once: it is part of an attempt that has its own retries."""
        listed = Subscriptions(self._connection.with_options(max_retries=0)).all()
        async for subscription in listed:
            if same_subscription(operation.form or {}, subscription):
                return ResourceReference(subscription.id)
        return None

    async def _confirm(self, subscription_id: int, operation: Operation[Subscription | None]) -> Subscription | None:
        """Return the subscription if it is as an update wants it."""
        found = await self.get(subscription_id)
        return found if as_updated(operation.form or {}, found) else None


def _request_id(given: str | None) -> str:
    return uuid4().hex if given is None else given


def _warn_of_risks(operation: Operation[Any]) -> None:
    # Not in the log: like a token that is too short, it belongs to a line of code, at which a warning points.
    for risk in risks(operation.form or {}):
        warn(risk, stacklevel=3)
