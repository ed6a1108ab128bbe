"""
The operations on subscriptions.

It imports `declare`, `connection`, `_protocol`, `paging` and what stands above them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar
from uuid import uuid4
from warnings import warn

from attrs import asdict

from callfire_async.client._operations.api_1_1 import (
    MAX_RESULTS,
    Operation,
    create_subscription,
    delete_subscription,
    get_subscription,
    insecure_settings,
    matches_update,
    query_subscriptions,
    same_subscription,
    update_subscription,
)
from callfire_async.client._pagination import iter_pages
from callfire_async.client.connection import Connection
from callfire_async.client.plan import (
    ApplyResult,
    Owned,
    Plan,
    SpecMatch,
    SubscriptionKey,
    SubscriptionSpec,
    TokenMatcher,
    compare,
    index_specs,
    key_of,
)
from callfire_async.errors import CallFireError, NotFoundError
from callfire_async.models import (
    NotificationFormat,
    Page,
    ResourceReference,
    Subscription,
    SubscriptionFilter,
    TriggerEvent,
)

__all__ = ["Subscriptions"]

C = TypeVar("C", bound=SubscriptionSpec | SpecMatch | Subscription)

# A list that still goes on at ten times what an account may hold is none.
_MAX_LISTED = 100_000
# How many changes of a plan are under way at once: most of the pool stays free for others.
_CHANGES_AT_ONCE = 4


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
            notification_format: CallFire's default, by its reference, is XML.
            enabled: Whether CallFire posts to it yet; CallFire's default, unless given.
            non_strict_ssl: Whether CallFire skips certificate checks when it posts; likewise.
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
        """Fetch one page: *max_results* subscriptions at most, 1 to 1000, from number *first_result*, from 0."""
        operation = query_subscriptions(max_results=max_results, first_result=first_result)
        return await self._connection.execute(operation)

    async def all(self, *, page_size: int = MAX_RESULTS) -> AsyncIterator[Subscription]:
        """
        Yield every subscription, none twice, *page_size* (1 to 1000) at a time.

        Always ends, also where CallFire says no total or gives short pages. One may be missed if others are deleted
        meanwhile.
        """
        async for step in iter_pages(self.query, page_size=page_size, most=_MAX_LISTED):
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

    # --- declaring ----------------------------------------------------------------------------------------

    async def plan(
        self,
        specs: Iterable[SubscriptionSpec],
        *,
        tokens: TokenMatcher | None = None,
        prune: bool = False,
        owned: Owned | None = None,
    ) -> Plan:
        """
        Compare what the account is to have with what it has; nothing is changed.

        Two are the same when endpoint, trigger and filter are; one that is the same as a spec is that spec's, whoever
        made it.

        Args:
            specs: What the account is to have.
            tokens: The `EndpointTokens`. Given, endpoints are compared without a last segment that is one of these,
                so that a subscription with an older token is updated, and another application's is another.
            prune: Whether to delete what is owned and not wanted. Where only the filter differs, it is changed to what
                is wanted instead.
            owned: Tells what may be pruned; default: endpoints that *tokens* recognises, and nothing without them.

        Raises:
            ValueError: Two specs say different things of one subscription.
        """
        wanted = index_specs(specs, tokens)
        return compare(wanted, [item async for item in self.all()], tokens=tokens, prune=prune, owned=owned)

    async def apply(self, plan: Plan) -> ApplyResult:
        """
        Carry out a plan, four changes at a time; after an error it goes on with the rest.

        The account is read once more where something is to be created, so that a plan that has become old, or is
        applied again, creates nothing twice. Deletions come last. What is gone already counts as deleted.

        Returns:
            The ids, and the errors of what failed. Planning and applying once more tries that again.

        Raises:
            CallFireError: The account could not be read; nothing was changed.
        """
        applying = _PlanExecutor(self, plan.tokens, await self._existing_ids(plan))
        return await applying.run(plan)

    async def ensure(self, *specs: SubscriptionSpec, tokens: TokenMatcher | None = None) -> tuple[int, ...]:
        """
        Make sure that the account has these subscriptions: `plan` and `apply` in one. Nothing is deleted.

        Returns:
            Their ids, in the order of *specs*.

        Raises:
            ValueError: Two specs say different things of one subscription.
            CallFireError: What failed first, once all the others were tried; a note says how many failed. It is safe
                to try again.
        """
        applied = await self.apply(await self.plan(specs, tokens=tokens))
        if applied.errors:
            raise _first_error(applied.errors.values(), of=len(specs))
        ids = {key_of(spec, tokens): subscription_id for spec, subscription_id in applied.ids.items()}
        return tuple(ids[key_of(spec, tokens)] for spec in specs)

    async def _existing_ids(self, plan: Plan) -> dict[SubscriptionKey, int]:
        """Look which of a plan's new subscriptions there are meanwhile."""
        if not (plan.create or plan.replace):
            return {}
        return {key_of(item, plan.tokens): item.id async for item in self.all()}

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
        return found if matches_update(operation.form or {}, found) else None


def _request_id(given: str | None) -> str:
    return uuid4().hex if given is None else given


def _warn_of_risks(operation: Operation[Any]) -> None:
    # Not in the log: like a token that is too short, it belongs to a line of code, at which a warning points.
    for risk in insecure_settings(operation.form or {}):
        warn(risk, stacklevel=3)


def _first_error(errors: Collection[CallFireError], *, of: int) -> CallFireError:
    first = next(iter(errors))
    first.add_note(f"{len(errors)} of {of} subscriptions could not be ensured; the others are as they should be")
    return first


class _PlanExecutor:
    """A plan being carried out, and what has come of it so far."""

    def __init__(
        self, subscriptions: Subscriptions, tokens: TokenMatcher | None, there: Mapping[SubscriptionKey, int]
    ) -> None:
        self._subscriptions = subscriptions
        self._tokens = tokens
        self._there = there
        self._ids: dict[SubscriptionSpec, int] = {}
        self._errors: dict[SubscriptionSpec | Subscription, CallFireError] = {}

    async def run(self, plan: Plan) -> ApplyResult:
        """Carry it out; what is new is there before what is old goes, so that no event falls between the two."""
        self._ids |= {match.spec: match.subscription.id for match in (*plan.unchanged, *plan.update)}
        await self._each(plan.create, self._create)
        await self._each(plan.update, self._update)
        await self._each(plan.replace, self._replace)
        await self._each(plan.delete, self._delete)
        return ApplyResult(self._ids, self._errors)

    async def _each(self, items: Sequence[C], change: Callable[[C], Awaitable[None]]) -> None:
        """Change a few at a time; keep what each raises."""
        waiting = iter(items)

        async def work() -> None:
            for item in waiting:
                try:
                    await change(item)
                except CallFireError as error:
                    self._errors[item.spec if isinstance(item, SpecMatch) else item] = error

        async with asyncio.TaskGroup() as tasks:
            for _ in items[:_CHANGES_AT_ONCE]:
                tasks.create_task(work())

    async def _create(self, spec: SubscriptionSpec) -> None:
        subscription_id = self._there.get(key_of(spec, self._tokens))
        if subscription_id is None:
            created = await self._subscriptions.create(**asdict(spec, recurse=False))
            subscription_id = created.id
        self._ids[spec] = subscription_id

    async def _update(self, match: SpecMatch) -> None:
        changes: dict[str, Any] = {name: getattr(match.spec, name) for name in match.changed}
        await self._subscriptions.update(match.subscription.id, **changes)

    async def _replace(self, match: SpecMatch) -> None:
        await self._create(match.spec)
        await self._delete(match.subscription)

    async def _delete(self, subscription: Subscription) -> None:
        with suppress(NotFoundError):
            await self._subscriptions.delete(subscription.id)
