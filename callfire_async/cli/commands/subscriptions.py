"""The subscriptions of an account: looked at, changed one by one, or declared in a file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from callfire_async.cli._client_options import ClientOptions
from callfire_async.cli._exit import FAILED, WRONG_USE, CliError, usage_errors
from callfire_async.cli._output import echo, say_json, say_pairs, say_table, to_jsonable
from callfire_async.cli._own_tokens import fill_in_token, tokens_from_environment
from callfire_async.cli._subscriptions_file import read_specs
from callfire_async.client.plan import Plan
from callfire_async.models import Subscription, SubscriptionFilter, TriggerEvent

__all__ = ["apply", "create", "delete", "get", "list_all", "make_plan", "show_plan", "update"]

_COLUMNS = ("id", "trigger_event", "notification_format", "enabled", "endpoint", "filter")


async def list_all(account: ClientOptions, *, as_json: bool) -> None:
    """Show every subscription."""
    async with account.client() as callfire:
        found = callfire.subscriptions.all()
        if as_json:
            async for subscription in found:
                say_json(to_jsonable(subscription))
            return
        rows = [_row(subscription) async for subscription in found]
    if rows:
        say_table(_COLUMNS, rows)
    else:
        echo("no subscriptions")


async def get(account: ClientOptions, id: int, *, as_json: bool) -> None:
    """Show one."""
    async with account.client() as callfire:
        subscription = await callfire.subscriptions.get(id)
    if as_json:
        say_json(to_jsonable(subscription))
    else:
        say_pairs(to_jsonable(subscription) | {"filter": _filter_words(subscription.filter)})


async def create(
    account: ClientOptions,
    endpoint: str,
    trigger_event: TriggerEvent,
    details: Mapping[str, Any],
    *,
    as_json: bool,
) -> None:
    """Subscribe an endpoint; show the new id."""
    endpoint = fill_in_token(endpoint, tokens_from_environment())
    async with account.client() as callfire:
        with usage_errors():
            created = await callfire.subscriptions.create(endpoint, trigger_event, **details)
    if as_json:
        say_json(to_jsonable(created))
    else:
        echo(f"created {created.id}")


async def update(account: ClientOptions, id: int, details: Mapping[str, Any], *, as_json: bool) -> None:
    """Change what is given."""
    changes = {name: value for name, value in details.items() if value is not None}
    if not changes:
        raise CliError("nothing to change: say what, as in --disabled", WRONG_USE)
    if "endpoint" in changes:
        changes["endpoint"] = fill_in_token(changes["endpoint"], tokens_from_environment())
    async with account.client() as callfire:
        with usage_errors():
            await callfire.subscriptions.update(id, **changes)
    if as_json:
        say_json({"id": id, "changed": sorted(changes)})
    else:
        echo(f"updated {id}")


async def delete(account: ClientOptions, id: int, *, as_json: bool) -> None:
    """Delete one."""
    async with account.client() as callfire:
        await callfire.subscriptions.delete(id)
    if as_json:
        say_json({"id": id, "deleted": True})
    else:
        echo(f"deleted {id}")


def _row(subscription: Subscription) -> list[object]:
    shown = to_jsonable(subscription) | {"filter": _filter_words(subscription.filter)}
    return [shown[name] for name in _COLUMNS]


def _filter_words(filter: SubscriptionFilter | None) -> str:
    said: dict[str, object] = {} if filter is None else to_jsonable(filter)
    return ", ".join(f"{name}={value}" for name, value in said.items() if value is not None)


# --- declared ---------------------------------------------------------------------------------------------


async def make_plan(account: ClientOptions, path: Path, *, prune: bool) -> Plan:
    """Compare what a file declares with what the account has."""
    tokens = tokens_from_environment()
    if prune and tokens is None:
        raise CliError("--prune deletes what has one of your tokens: set CALLFIRE_TOKEN in the environment", WRONG_USE)
    specs = read_specs(path, tokens)
    async with account.client() as callfire:
        with usage_errors():
            return await callfire.subscriptions.plan(specs, tokens=tokens, prune=prune)


def show_plan(plan: Plan, *, as_json: bool) -> None:
    """Show what is to be done."""
    if as_json:
        say_json(_plan_words(plan))
    else:
        echo(str(plan))


async def apply(account: ClientOptions, plan: Plan, *, as_json: bool) -> int:
    """Carry out a plan; show what came of it, and return the exit status."""
    async with account.client() as callfire:
        applied = await callfire.subscriptions.apply(plan)
    errors = [(to_jsonable(failed), str(error)) for failed, error in applied.errors.items()]
    if as_json:
        words = [{"failed": subject, "error": error} for subject, error in errors]
        say_json({"plan": _plan_words(plan), "ids": sorted(applied.ids.values()), "errors": words})
    else:
        for subject, error in errors:
            echo(f"failed: {_one_line(subject)}: {error}")
        went_well = "nothing differs" if plan.is_empty else "done"
        echo(f"{len(errors)} failed; apply the file again" if errors else went_well)
    return FAILED if errors else 0


def _plan_words(plan: Plan) -> dict[str, Any]:
    return {"is_empty": plan.is_empty, **to_jsonable(plan)}


def _one_line(subject: Mapping[str, Any]) -> str:
    number = f"{subject['id']} " if "id" in subject else ""
    return f"{number}{subject['trigger_event']} to {subject['endpoint']}"
