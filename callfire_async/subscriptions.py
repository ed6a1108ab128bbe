"""
The operations on subscriptions.

It imports `connection`, `_protocol`, `paging` and what stands above them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from uuid import uuid4

from callfire_async._protocol import (
    MAX_RESULTS,
    Operation,
    create_subscription,
    delete_subscription,
    get_subscription,
    query_subscriptions,
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
from callfire_async.paging import steps

__all__ = ["Subscriptions"]

# A list that still goes on at ten times what an account may hold is none.
_MAX_LISTED = 100_000


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
        async for step in steps(self.query, page_size=page_size, most=_MAX_LISTED):
            for subscription in step.items:
                yield subscription

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
        """Change what is given; None is not sent, so nothing can be cleared this way. The parameters of `create`."""
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
        await self._connection.execute(operation)

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


def _request_id(given: str | None) -> str:
    return uuid4().hex if given is None else given
