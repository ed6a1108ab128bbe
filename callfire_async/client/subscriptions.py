"""`Subscriptions`: create, list, change and delete subscriptions, and apply plans."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from datetime import datetime
from functools import partial
from typing import Any
from uuid import uuid4
from warnings import warn

from attrs import asdict

from callfire_async.client._operations.api_1_1 import (
    MAX_RESULTS,
    checked_page_size,
    create_subscription,
    delete_subscription,
    get_subscription,
    matches_update,
    query_subscriptions,
    same_subscription,
    update_subscription,
)
from callfire_async.client._operations.operation import Operation
from callfire_async.client._operations.validation import insecure_settings
from callfire_async.client._pagination import MAX_LISTED, iter_pages
from callfire_async.client._plans.comparison import ResourceKey
from callfire_async.client._plans.execution import PlanExecutor, ids_of
from callfire_async.client.connection import Connection
from callfire_async.client.plan import (
    SUBSCRIPTIONS,
    ApplyResult,
    Owned,
    Plan,
    SpecMatch,
    SubscriptionSpec,
    TokenMatcher,
    key_of,
)
from callfire_async.models import (
    NotificationFormat,
    Page,
    ResourceReference,
    Subscription,
    SubscriptionFilter,
    TriggerEvent,
    wrong_type,
)

__all__ = ["Subscriptions"]


class Subscriptions:
    """
    The subscriptions of an account: which events CallFire posts to which endpoints.

    Each method raises the errors of `Connection.execute`, and `TypeError` or `ValueError` for a wrong parameter,
    before anything is sent.
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
        expires_at: datetime | None = None,
        request_id: str | None = None,
    ) -> ResourceReference:
        """
        Create a subscription.

        If the outcome of an attempt is unknown, a subscription with the same endpoint, trigger and filter counts as
        created, even an older one; the create is repeated only if no such subscription exists.

        An ``http://`` endpoint that is not on loopback, and ``non_strict_ssl=True``, cause a `UserWarning`.

        Args:
            endpoint: A URL, best created with `EndpointTokens.url`, or an e-mail address.
            trigger_event: The event to post.
            notification_format: Format of the postbacks; default: CallFire's, which is XML by its reference.
            enabled: Whether CallFire posts to the endpoint; default: CallFire's.
            non_strict_ssl: Whether CallFire skips certificate checks when it posts; default: CallFire's.
            filter: The texts, calls or campaigns to post; default: all.
            expires_at: When the subscription ends, with a time zone; default: never. Sent in milliseconds, which
                CallFire's reference does not state.
            request_id: CallFire's protection against duplicates, the same in all attempts; default: a random one.

        Returns:
            The subscription's ID and URL; the URL is None if a lookup after an unknown outcome found the subscription.
        """
        operation = create_subscription(
            {
                "endpoint": endpoint,
                "trigger_event": trigger_event,
                "notification_format": notification_format,
                "enabled": enabled,
                "non_strict_ssl": non_strict_ssl,
                "filter": filter,
                "expires_at": expires_at,
                "request_id": _request_id(request_id),
            }
        )
        _warn_if_insecure(operation)
        return await self._connection.execute(operation, recover=partial(self._find, operation))

    async def query(self, *, max_results: int = MAX_RESULTS, first_result: int = 0) -> Page[Subscription]:
        """Return one page: at most *max_results* (1 to 1000) subscriptions, from index *first_result* (from 0)."""
        operation = query_subscriptions(max_results=max_results, first_result=first_result)
        return await self._connection.execute(operation)

    def all(self, *, page_size: int = MAX_RESULTS) -> AsyncIterator[Subscription]:
        """
        Yield all subscriptions, each once, fetching *page_size* (1 to 1000) at a time.

        Always ends, even if CallFire returns no total or short pages. A subscription can be missed if others are
        deleted meanwhile.
        """
        return self._all(checked_page_size(page_size))

    async def _all(self, page_size: int) -> AsyncIterator[Subscription]:
        async for page in iter_pages(self.query, page_size=page_size, max_items=MAX_LISTED):
            for subscription in page.items:
                yield subscription

    async def get(self, subscription_id: int) -> Subscription:
        """Return one subscription; raise `NotFoundError` if it does not exist."""
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
        expires_at: datetime | None = None,
        request_id: str | None = None,
    ) -> None:
        """
        Change the given fields of a subscription; the parameters are those of `create`.

        None is not sent, so no field can be cleared, and a filter without fields is a `ValueError`. If CallFire
        rejects the repetition of an attempt of unknown outcome, the update has succeeded if the subscription has all
        the new values.
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
                "expires_at": expires_at,
                "request_id": _request_id(request_id),
            },
        )
        _warn_if_insecure(operation)
        await self._connection.execute(operation, recover=partial(self._confirm, subscription_id, operation))

    async def delete(self, subscription_id: int) -> None:
        """Delete one subscription; a 404 after an attempt of unknown outcome is a success."""
        await self._connection.execute(delete_subscription(subscription_id))

    # --- plans --------------------------------------------------------------------------------------------

    async def plan(
        self,
        specs: Iterable[SubscriptionSpec],
        *,
        tokens: TokenMatcher | None = None,
        prune: bool = False,
        owned: Owned | None = None,
    ) -> Plan:
        """
        Diff the desired subscriptions against the account's. Read-only.

        A spec and a subscription are the same if endpoint, trigger and filter are equal.

        Args:
            specs: The desired subscriptions.
            tokens: The `EndpointTokens`. If given, endpoints are compared without a last segment that is one of the
                tokens, so that a subscription with an older token is updated, and another application's stays.
            prune: Whether to delete owned subscriptions without a spec. One that differs from a spec in its filter
                only is changed instead.
            owned: Returns whether a subscription is owned; default: if its endpoint has one of the *tokens*.

        Raises:
            TypeError: A parameter has the wrong type.
            ValueError: Two specs conflict.
        """
        SUBSCRIPTIONS.check_options(tokens=tokens, prune=prune, owned=owned)
        indexed = SUBSCRIPTIONS.index_specs(SUBSCRIPTIONS.checked_specs(specs), tokens)
        existing = [item async for item in self.all()]
        return SUBSCRIPTIONS.compare(indexed, existing, tokens=tokens, prune=prune, owned=owned)

    async def apply(self, plan: Plan) -> ApplyResult:
        """
        Apply a plan, four changes at a time, deletions last; continue after an error.

        If there is something to create, the account is read again first, so that an outdated plan, or one that is
        applied twice, creates no duplicates. A subscription that no longer exists counts as deleted.

        Returns:
            The IDs, and the errors of the changes that failed. To retry those, plan and apply again.

        Raises:
            TypeError: *plan* is not a `Plan`.
            CallFireError: The account could not be read; nothing was changed.
        """
        if not isinstance(plan, Plan):
            raise wrong_type("plan", "a Plan, as returned by plan()", plan)
        existing_ids = await self._existing_ids(plan)
        executor = PlanExecutor(SUBSCRIPTIONS, _SubscriptionChanges(self), plan.tokens, existing_ids)
        return ApplyResult(*await executor.run(plan))

    async def ensure(self, *specs: SubscriptionSpec, tokens: TokenMatcher | None = None) -> tuple[int, ...]:
        """
        Create or update subscriptions so that the account has all *specs*: `plan` and `apply` without deletions.

        Returns:
            The subscription IDs, in the order of *specs*.

        Raises:
            TypeError: A parameter has the wrong type.
            ValueError: Two specs conflict.
            CallFireError: The first error, after all changes were tried; its note has the number of failed ones. It
                is safe to call `ensure` again.
        """
        SUBSCRIPTIONS.check_unpacked(specs)
        result = await self.apply(await self.plan(specs, tokens=tokens))
        return ids_of(result, specs, SUBSCRIPTIONS, tokens)

    async def _existing_ids(self, plan: Plan) -> dict[ResourceKey, int]:
        """Return the IDs of all subscriptions by key, if the plan creates any."""
        if not (plan.create or plan.replace):
            return {}
        return {key_of(item, plan.tokens): item.id async for item in self.all()}

    async def _find(self, operation: Operation[ResourceReference]) -> ResourceReference | None:
        """Return the subscription that a create would make, if it exists."""
        # Without retries: the lookup is part of an attempt, which is retried as a whole.
        subscriptions = Subscriptions(self._connection.with_options(max_retries=0))
        async for subscription in subscriptions.all():
            if same_subscription(operation.form or {}, subscription):
                return ResourceReference(subscription.id)
        return None

    async def _confirm(self, subscription_id: int, operation: Operation[Subscription | None]) -> Subscription | None:
        """Return the subscription if it has the values of an update."""
        subscription = await self.get(subscription_id)
        return subscription if matches_update(operation.form or {}, subscription) else None


def _request_id(given: str | None) -> str:
    return uuid4().hex if given is None else given


def _warn_if_insecure(operation: Operation[Any]) -> None:
    # A warning rather than a log line: it points at the line of the user's code that has to change.
    form = operation.form or {}
    url, non_strict_ssl = form.get("Endpoint", ""), form.get("NonStrictSsl") == "true"
    for warning in insecure_settings("endpoint", url, non_strict_ssl=non_strict_ssl):
        warn(warning, stacklevel=3)


class _SubscriptionChanges:
    """The changes of a plan."""

    def __init__(self, subscriptions: Subscriptions) -> None:
        self._subscriptions = subscriptions
        self.delete = subscriptions.delete

    async def create(self, spec: SubscriptionSpec) -> ResourceReference:
        return await self._subscriptions.create(**asdict(spec, recurse=False))

    async def update(self, match: SpecMatch) -> None:
        changes: dict[str, Any] = {name: getattr(match.spec, name) for name in match.changed}
        await self._subscriptions.update(match.subscription.id, **changes)
