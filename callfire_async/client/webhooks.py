"""`Webhooks`: create, list, change and delete webhooks of API v2, and apply plans."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import datetime
from functools import partial
from typing import Any
from warnings import warn

from attrs import asdict

from callfire_async.client._operations.api_2 import (
    DEFAULT_LIMIT,
    checked_webhook_filters,
    checked_webhook_page_size,
    create_webhook,
    delete_webhook,
    get_webhook,
    list_resources,
    query_webhooks,
    same_webhook,
    update_webhook,
    weak_settings,
)
from callfire_async.client._operations.operation import Operation
from callfire_async.client._pagination import MAX_LISTED, iter_pages
from callfire_async.client._plans.comparison import ResourceKey
from callfire_async.client._plans.execution import PlanExecutor, ids_of
from callfire_async.client.connection import Connection
from callfire_async.client.webhook_plan import (
    WEBHOOKS,
    WEBHOOKS_WITH_SECRETS,
    OwnedWebhook,
    TokenMatcher,
    WebhookApplyResult,
    WebhookMatch,
    WebhookPlan,
    WebhookSpec,
    events_of,
    key_of_webhook,
)
from callfire_async.models import (
    Page,
    ResourceReference,
    Webhook,
    WebhookEvent,
    WebhookResource,
    WebhookResourceInfo,
    checked_boolean,
    wrong_type,
)

__all__ = ["Webhooks"]


class Webhooks:
    """
    The webhooks of an account, in API v2: which events of which resources CallFire posts to which callbacks.

    Each method raises the errors of `Connection.execute`, and `TypeError` or `ValueError` for a wrong parameter,
    before anything is sent. A resource or an event may be given as a string, in any case; one that is not known is sent
    as it is, because CallFire extends its sets.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def create(
        self,
        callback: str,
        resource: WebhookResource | str,
        *,
        events: Iterable[WebhookEvent | str] | None = None,
        name: str | None = None,
        enabled: bool | None = True,
        secret: str | None = None,
        single_use: bool | None = None,
        expires_at: datetime | None = None,
        non_strict_ssl: bool | None = None,
        fields: str | None = None,
    ) -> ResourceReference:
        """
        Create a webhook. None is not sent.

        API v2 has no protection against duplicates. If the outcome of an attempt is unknown, a webhook with the same
        callback, resource, events and, if it is given, name counts as created, even an older one; the create is
        repeated only if no such webhook exists.

        An ``http://`` callback that is not on loopback, ``non_strict_ssl=True``, and a secret that is empty or has
        fewer than 16 characters cause a `UserWarning`.

        Args:
            callback: A URL, best created with `EndpointTokens.url`.
            resource: The kind of resource to watch.
            events: The events to post; default: all events of the resource, which must be a known one.
            name: A name, which CallFire sends in each postback.
            enabled: Whether CallFire posts to the callback.
            secret: The key with which CallFire signs each postback, best created with `SigningSecrets.generate`.
            single_use: Whether CallFire deletes the webhook after its first event; default: CallFire's.
            expires_at: An aware time; CallFire does not document its effect.
            non_strict_ssl: Whether CallFire skips certificate checks when it posts; default: CallFire's.
            fields: Limits the keys that CallFire posts, in CallFire's syntax for partial responses.

        Returns:
            The webhook's ID. API v2 returns no URL.
        """
        operation = create_webhook(
            {
                "callback": callback,
                "resource": resource,
                "events": events,
                "name": name,
                "enabled": enabled,
                "secret": secret,
                "single_use": single_use,
                "expires_at": expires_at,
                "non_strict_ssl": non_strict_ssl,
                "fields": fields,
            }
        )
        _warn_if_weak(operation)
        return await self._connection.execute(operation, recover=partial(self._find, operation))

    async def query(
        self,
        *,
        limit: int = DEFAULT_LIMIT,
        offset: int = 0,
        name: str | None = None,
        resource: WebhookResource | str | None = None,
        event: WebhookEvent | str | None = None,
        callback: str | None = None,
        enabled: bool | None = None,
        fields: str | None = None,
    ) -> Page[Webhook]:
        """
        Return one page of webhooks.

        Args:
            limit: Maximum number of webhooks, 1 to 1000.
            offset: Index of the first webhook, from 0.
            name: Only webhooks with this name. CallFire does not document whether a part of the name is enough.
            resource: Only webhooks of this resource.
            event: Only webhooks with this event.
            callback: Only webhooks with this callback. CallFire does not document whether a part of it is enough.
            enabled: Only webhooks that are enabled, or only those that are not.
            fields: Limits what CallFire returns, for example ``items(id,name)``; must include the IDs.
        """
        filters = {
            "name": name,
            "resource": resource,
            "event": event,
            "callback": callback,
            "enabled": enabled,
            "fields": fields,
        }
        return await self._query(filters, max_results=limit, first_result=offset)

    async def _query(self, filters: Mapping[str, object], *, max_results: int, first_result: int) -> Page[Webhook]:
        return await self._connection.execute(query_webhooks(filters, limit=max_results, offset=first_result))

    def all(
        self,
        *,
        page_size: int = DEFAULT_LIMIT,
        name: str | None = None,
        resource: WebhookResource | str | None = None,
        event: WebhookEvent | str | None = None,
        callback: str | None = None,
        enabled: bool | None = None,
        fields: str | None = None,
    ) -> AsyncIterator[Webhook]:
        """
        Yield all webhooks, each once, fetching *page_size* (1 to 1000) at a time; the filters are those of `query`.

        Always ends, even if CallFire returns no total or short pages. A webhook can be missed if others are deleted
        meanwhile.
        """
        filters = checked_webhook_filters(
            {
                "name": name,
                "resource": resource,
                "event": event,
                "callback": callback,
                "enabled": enabled,
                "fields": fields,
            }
        )
        return self._all(checked_webhook_page_size(page_size), filters)

    async def _all(self, page_size: int, filters: Mapping[str, object]) -> AsyncIterator[Webhook]:
        fetch = partial(self._query, filters)
        async for page in iter_pages(fetch, page_size=page_size, max_items=MAX_LISTED):
            for webhook in page.items:
                yield webhook

    async def get(self, webhook_id: int, *, fields: str | None = None) -> Webhook:
        """Return one webhook, or only its *fields*, such as ``name,events``; `NotFoundError` if it does not exist."""
        return await self._connection.execute(get_webhook(webhook_id, fields=fields))

    async def update(
        self,
        webhook_id: int,
        *,
        callback: str | None = None,
        resource: WebhookResource | str | None = None,
        events: Iterable[WebhookEvent | str] | None = None,
        name: str | None = None,
        enabled: bool | None = None,
        secret: str | None = None,
        single_use: bool | None = None,
        expires_at: datetime | None = None,
        non_strict_ssl: bool | None = None,
        fields: str | None = None,
    ) -> None:
        """
        Change the given fields of a webhook; the parameters are those of `create`.

        None is not sent. CallFire does not document whether it keeps fields that are not sent: if that matters, pass
        all fields that the webhook should have, as `apply` does.
        """
        operation = update_webhook(
            webhook_id,
            {
                "callback": callback,
                "resource": resource,
                "events": events,
                "name": name,
                "enabled": enabled,
                "secret": secret,
                "single_use": single_use,
                "expires_at": expires_at,
                "non_strict_ssl": non_strict_ssl,
                "fields": fields,
            },
        )
        _warn_if_weak(operation)
        await self._connection.execute(operation)

    async def delete(self, webhook_id: int) -> None:
        """Delete one webhook; a 404 after an attempt of unknown outcome is a success."""
        await self._connection.execute(delete_webhook(webhook_id))

    async def resources(self) -> tuple[WebhookResourceInfo, ...]:
        """Return the resources that webhooks of the account can watch, with their events."""
        return await self._connection.execute(list_resources())

    # --- plans --------------------------------------------------------------------------------------------

    async def plan(
        self,
        specs: Iterable[WebhookSpec],
        *,
        tokens: TokenMatcher | None = None,
        prune: bool = False,
        owned: OwnedWebhook | None = None,
        resend_secrets: bool = False,
    ) -> WebhookPlan:
        """
        Diff the desired webhooks against the account's. Read-only.

        A spec and a webhook are the same if callback and resource are equal.

        Args:
            specs: The desired webhooks.
            tokens: The `EndpointTokens`. If given, callbacks are compared without a last segment that is one of the
                tokens, so that a webhook with an older token is updated, and another application's stays.
            prune: Whether to delete owned webhooks without a spec.
            owned: Returns whether a webhook is owned; default: if its callback has one of the *tokens*.
            resend_secrets: Whether to update each webhook whose spec has a secret. Without it, a secret is sent if the
                webhook is created or updated for another reason: CallFire may not return it, so it cannot be compared.

        Raises:
            TypeError: A parameter has the wrong type.
            ValueError: Two specs conflict.
        """
        kind = WEBHOOKS_WITH_SECRETS if checked_boolean("resend_secrets", resend_secrets) else WEBHOOKS
        kind.check_options(tokens=tokens, prune=prune, owned=owned)
        indexed = kind.index_specs(kind.checked_specs(specs), tokens)
        existing = [item async for item in self.all()]
        return kind.compare(indexed, existing, tokens=tokens, prune=prune, owned=owned)

    async def apply(self, plan: WebhookPlan) -> WebhookApplyResult:
        """
        Apply a plan, four changes at a time, deletions last; continue after an error.

        If there is something to create, the account is read again first, so that an outdated plan, or one that is
        applied twice, creates no duplicates. A webhook that no longer exists counts as deleted.

        Returns:
            The IDs, and the errors of the changes that failed. To retry those, plan and apply again.

        Raises:
            TypeError: *plan* is not a `WebhookPlan`.
            CallFireError: The account could not be read; nothing was changed.
        """
        if not isinstance(plan, WebhookPlan):
            raise wrong_type("plan", "a WebhookPlan, as returned by plan()", plan)
        executor = PlanExecutor(WEBHOOKS, _WebhookChanges(self), plan.tokens, await self._existing_ids(plan))
        return WebhookApplyResult(*await executor.run(plan))

    async def ensure(
        self, *specs: WebhookSpec, tokens: TokenMatcher | None = None, resend_secrets: bool = False
    ) -> tuple[int, ...]:
        """
        Create or update webhooks so that the account has all *specs*: `plan` and `apply` without deletions.

        Returns:
            The webhook IDs, in the order of *specs*.

        Raises:
            TypeError: A parameter has the wrong type.
            ValueError: Two specs conflict.
            CallFireError: The first error, after all changes were tried; its note has the number of failed ones. It
                is safe to call `ensure` again.
        """
        WEBHOOKS.check_unpacked(specs)
        result = await self.apply(await self.plan(specs, tokens=tokens, resend_secrets=resend_secrets))
        return ids_of(result, specs, WEBHOOKS, tokens)

    async def _existing_ids(self, plan: WebhookPlan) -> dict[ResourceKey, int]:
        """Return the IDs of all webhooks by key, if the plan creates any."""
        if not plan.create:
            return {}
        return {key_of_webhook(item, plan.tokens): item.id async for item in self.all()}

    async def _find(self, operation: Operation[ResourceReference]) -> ResourceReference | None:
        """Return the webhook that a create would make, if it exists."""
        # Without retries: the lookup is part of an attempt, which is retried as a whole. Without filters: CallFire does
        # not document how it compares them.
        webhooks = Webhooks(self._connection.with_options(max_retries=0))
        async for webhook in webhooks.all():
            if same_webhook(operation.json or {}, webhook):
                return ResourceReference(webhook.id)
        return None


def _warn_if_weak(operation: Operation[Any]) -> None:
    # A warning rather than a log line: it points at the line of the user's code that has to change.
    for warning in weak_settings(operation.json or {}):
        warn(warning, stacklevel=3)


class _WebhookChanges:
    """The changes of a plan."""

    def __init__(self, webhooks: Webhooks) -> None:
        self._webhooks = webhooks
        self.delete = webhooks.delete

    async def create(self, spec: WebhookSpec) -> ResourceReference:
        return await self._webhooks.create(**asdict(spec, recurse=False))

    async def update(self, match: WebhookMatch) -> None:
        # All fields: it is not known whether CallFire keeps those that an update leaves out.
        values: dict[str, Any] = {**asdict(match.spec, recurse=False), "events": events_of(match.spec)}
        await self._webhooks.update(match.webhook.id, **values)
