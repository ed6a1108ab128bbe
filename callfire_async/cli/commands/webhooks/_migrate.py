"""
Replace an account's subscriptions with webhooks.

No event is missed: all webhooks exist, and the account is read again to check it, before the first subscription is
disabled. Every run computes its changes from the account, so that it continues where an interrupted run stopped.
"""

import asyncio
import sys
import warnings
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from typing import Annotated, Any, TypeVar

import typer
from attrs import asdict, define, evolve, field, frozen

from callfire_async.cli._client_options import AsJson, BaseUrl, ClientOptions, Login, WebhooksBaseUrl
from callfire_async.cli._exit import FAILED, CliError
from callfire_async.cli._output import echo, echo_json
from callfire_async.cli._tokens import signing_secret, tokens_from_environment
from callfire_async.client import CallFire
from callfire_async.client.migration import MigrationPlan, MigrationStep, match_existing, plan_migration
from callfire_async.client.webhook_plan import WebhookSpec
from callfire_async.errors import AuthenticationError, CallFireError, NotFoundError, PermissionDeniedError
from callfire_async.inspector.views import to_jsonable
from callfire_async.models import Subscription, Webhook, masked_endpoint

__all__ = ["MigrationOptions", "migrate", "run"]

T = TypeVar("T")

# Leaves most of the pool, and of CallFire's unpublished limit of requests, to others.
_MAX_CONCURRENT_CHANGES = 4
# With more errors, the cause is probably not a single change.
_MAX_ERRORS = 10
# At the speed of a remote server, a line of progress every half a minute.
_PROGRESS_STEP = 500
_PAGE_SIZE = 1000


def migrate(
    *,
    apply: Annotated[bool, typer.Option("--apply", help="Create the webhooks.")] = False,
    disable_subscriptions: Annotated[
        bool, typer.Option("--disable-subscriptions", help="With --apply: disable the subscriptions afterwards.")
    ] = False,
    allow_unfiltered: Annotated[
        bool,
        typer.Option("--allow-unfiltered", help="Also replace subscriptions that have a filter. Webhooks have none."),
    ] = False,
    login: Login = None,
    base_url: BaseUrl = None,
    webhooks_base_url: WebhooksBaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Run `webhooks migrate`."""
    if disable_subscriptions and not apply:
        raise typer.BadParameter("--disable-subscriptions requires --apply")
    if (base_url is None) is not (webhooks_base_url is None):
        raise typer.BadParameter("--base-url and --webhooks-base-url must be given together: both are of one account")
    # Many webhooks can cause the same warning.
    warnings.simplefilter("once", UserWarning)
    options = MigrationOptions(apply, disable_subscriptions, allow_unfiltered, as_json)
    sys.exit(asyncio.run(_migrate(ClientOptions(login, base_url, webhooks_base_url), options)))


@frozen
class MigrationOptions:
    """The options of the command."""

    apply: bool = False
    disable_subscriptions: bool = False
    allow_unfiltered: bool = False
    as_json: bool = False


async def _migrate(client_options: ClientOptions, options: MigrationOptions) -> int:
    async with client_options.client() as callfire:
        return await run(callfire, options)


async def run(callfire: CallFire, options: MigrationOptions) -> int:
    """Print the plan, make the changes that the options allow, print the results and return the exit status."""
    changes = await _read_changes(callfire)
    if not options.as_json:
        echo(f"{changes.plan}\n{changes.counts()}")
    results = _Results()
    if options.apply:
        _check_filters(changes, options)
        await _apply(callfire, changes, options, results)
    _report(changes, options, results)
    return FAILED if results.errors else 0


# --- changes ----------------------------------------------------------------------------------------------


@frozen
class _Changes:
    """The changes that an account needs, so that webhooks replace its subscriptions."""

    plan: MigrationPlan
    create: tuple[WebhookSpec, ...]
    #: Existing webhooks, with the specs that they should match.
    update: tuple[tuple[Webhook, WebhookSpec], ...]
    #: The number of webhooks that stay as they are.
    unchanged: int

    @property
    def _enabled_steps(self) -> list[MigrationStep]:
        return [step for step in self.plan.steps if step.specs and step.subscription.enabled is not False]

    @property
    def disable(self) -> list[Subscription]:
        """The enabled subscriptions that webhooks replace."""
        return [step.subscription for step in self._enabled_steps]

    @property
    def unfiltered_ids(self) -> list[int]:
        """The IDs of those with a filter, which the webhooks do not have."""
        return [step.subscription.id for step in self._enabled_steps if step.loses_filter]

    def counts(self) -> str:
        """Return the numbers of changes on one line."""
        webhooks = f"{len(self.create)} to create, {len(self.update)} to update, {self.unchanged} unchanged"
        return f"webhooks: {webhooks}; subscriptions: {len(self.disable)} enabled that webhooks replace"


async def _read_changes(callfire: CallFire) -> _Changes:
    subscriptions = [item async for item in callfire.subscriptions.all()]
    webhooks = [item async for item in callfire.webhooks.all(page_size=_PAGE_SIZE)]
    plan = plan_migration(subscriptions, tokens=tokens_from_environment())
    matches = list(match_existing(plan.specs, webhooks))
    update = tuple((webhook, spec) for spec, webhook in matches if webhook and _differs(spec, webhook))
    create = tuple(spec for spec, webhook in matches if webhook is None)
    return _Changes(
        plan=plan,
        create=create,
        update=update,
        unchanged=len(matches) - len(create) - len(update),
    )


def _differs(spec: WebhookSpec, webhook: Webhook) -> bool:
    """Return whether a webhook has other values; one that CallFire did not return does not differ."""
    settings = {"enabled": spec.enabled, "non_strict_ssl": spec.non_strict_ssl}
    has_others = any(getattr(webhook, name) not in (None, value) for name, value in settings.items())
    return has_others or set(webhook.events) != set(spec.events or ())


def _check_filters(changes: _Changes, options: MigrationOptions) -> None:
    if changes.unfiltered_ids and not options.allow_unfiltered:
        raise CliError(
            f"webhooks have no filter, and {len(changes.unfiltered_ids)} of the subscriptions have one: pass the"
            " filters to the handlers as where=, then use --allow-unfiltered"
        )


# --- applying ---------------------------------------------------------------------------------------------


@define
class _Results:
    """The changes that were made, and the errors of those that failed."""

    created: list[int] = field(factory=list)
    updated: list[int] = field(factory=list)
    disabled: list[int] = field(factory=list)
    errors: list[tuple[str, CallFireError]] = field(factory=list)

    def summary(self) -> str:
        """Return the numbers of changes on one line."""
        if self.errors:
            return f"{len(self.errors)} failed; no subscription was disabled after that, so run this again"
        if not (self.created or self.updated or self.disabled):
            return "nothing to change"
        created, updated, disabled = len(self.created), len(self.updated), len(self.disabled)
        return f"done; webhooks created: {created}, updated: {updated}; subscriptions disabled: {disabled}"

    async def for_each(
        self, unit: str, items: Sequence[T], change: Callable[[T], Awaitable[None]], name: Callable[[T], str]
    ) -> None:
        """Change all items, several at a time, with a line of progress for every 500 of a *unit*."""
        remaining = enumerate(items, 1)

        async def work() -> None:
            for number, item in remaining:
                try:
                    await change(item)
                except CallFireError as error:
                    self.errors.append((name(item), error))
                if len(self.errors) >= _MAX_ERRORS:
                    return
                if number % _PROGRESS_STEP == 0:
                    typer.echo(f"{unit}: {number} of {len(items)}", err=True)

        async with asyncio.TaskGroup() as tasks:
            for _ in items[:_MAX_CONCURRENT_CHANGES]:
                tasks.create_task(work())
        for _, error in self.errors:
            if isinstance(error, AuthenticationError | PermissionDeniedError):
                raise error


async def _apply(callfire: CallFire, changes: _Changes, options: MigrationOptions, results: _Results) -> None:
    async def create(spec: WebhookSpec) -> None:
        values = _values(evolve(spec, name=f"{spec.resource} (migrated)"))
        results.created.append((await callfire.webhooks.create(**values)).id)

    async def update(change: tuple[Webhook, WebhookSpec]) -> None:
        # Complete, because it is not known whether CallFire keeps what an update leaves out.
        webhook, spec = change
        await callfire.webhooks.update(webhook.id, **_values(spec))
        results.updated.append(webhook.id)

    await results.for_each("webhooks created", changes.create, create, _describe)
    await results.for_each("webhooks updated", changes.update, update, lambda change: f"webhook {change[0].id}")
    if options.disable_subscriptions and not results.errors:
        await _disable_subscriptions(callfire, options, results)


async def _disable_subscriptions(callfire: CallFire, options: MigrationOptions, results: _Results) -> None:
    # The account is read again: it may have changed, and a webhook is only certain to exist if CallFire lists it.
    changes = await _read_changes(callfire)
    if changes.create or changes.update:
        raise CliError(f"not all webhooks exist yet ({changes.counts()}); no subscription was disabled: run this again")
    _check_filters(changes, options)

    async def disable(subscription: Subscription) -> None:
        # One that was deleted meanwhile posts nothing.
        with suppress(NotFoundError):
            await callfire.subscriptions.update(subscription.id, enabled=False)
        results.disabled.append(subscription.id)

    await results.for_each("subscriptions disabled", changes.disable, disable, lambda item: f"subscription {item.id}")


def _describe(spec: WebhookSpec) -> str:
    endpoint = masked_endpoint(spec.callback).strip("'\"")
    return f"{spec.resource} to {endpoint}"


def _values(spec: WebhookSpec) -> dict[str, Any]:
    """Return the fields of a spec, with the signing secret of the environment."""
    return asdict(evolve(spec, secret=signing_secret()), recurse=False)


# --- output -----------------------------------------------------------------------------------------------


def _report(changes: _Changes, options: MigrationOptions, results: _Results) -> None:
    errors = [{"failed": name, "error": str(error)} for name, error in results.errors]
    notes = list(_notes(changes, options, results))
    if options.as_json:
        plan = {**to_jsonable(changes.plan), "webhooks": to_jsonable(changes.plan.specs)}
        made = {name: sorted(getattr(results, name)) for name in ("created", "updated", "disabled")}
        echo_json({"plan": plan, **made, "errors": errors, "notes": notes})
        return
    for error in errors:
        echo(f"failed: {error['failed']}: {error['error']}")
    if options.apply:
        echo(results.summary())
    for note in notes:
        echo(f"note: {note}")


def _notes(changes: _Changes, options: MigrationOptions, results: _Results) -> Iterator[str]:
    """Yield the manual steps before and after the changes."""
    if signing_secret() is None and changes.create:
        yield "CALLFIRE_SIGNING_SECRET is not set: the postbacks of new webhooks are not signed"
    if changes.unfiltered_ids and not options.apply:
        yield f"subscriptions with a filter: {len(changes.unfiltered_ids)}; --apply also requires --allow-unfiltered"
    if len(changes.disable) > len(results.disabled):
        yield (
            "until the subscriptions are disabled, API 1.1 posts without a signature, and both post every event: the"
            " endpoint needs Receiver(..., require_signature=False) and idempotent handlers"
        )
    elif results.disabled:
        yield "the subscriptions are disabled: remove require_signature=False from the receiver"
