"""Manage the subscriptions of an account, one by one or from a file."""

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from callfire_async.cli._client_options import AsJson, BaseUrl, ClientOptions, Login, Yes
from callfire_async.cli._exit import WRONG_USE, CliError, confirm, usage_errors
from callfire_async.cli._help import CommandApp
from callfire_async.cli._output import echo, echo_json, echo_pairs, echo_table
from callfire_async.cli._subscriptions_file import read_specs
from callfire_async.cli._tokens import fill_in_token, tokens_from_environment
from callfire_async.cli.commands._plan_output import echo_plan, echo_result
from callfire_async.client.plan import Plan
from callfire_async.inspector.views import to_jsonable
from callfire_async.models import NotificationFormat, Subscription, SubscriptionFilter, TriggerEvent

app: typer.Typer = CommandApp(
    panel="Single subscriptions", no_args_is_help=True, help="List and change an account's subscriptions."
)

Id = Annotated[int, typer.Argument(min=1, help="Subscription id.")]
File = Annotated[Path, typer.Argument(help="TOML file with the desired subscriptions.")]
Format = Annotated[NotificationFormat | None, typer.Option("--format", help="Format of the postbacks.")]
Enabled = Annotated[bool | None, typer.Option("--enabled/--disabled", help="Whether CallFire sends postbacks.")]
NonStrictSsl = Annotated[
    bool | None,
    typer.Option("--non-strict-ssl/--strict-ssl", help="Whether CallFire skips the check of the certificate."),
]
_FILTER = "Filter"
BroadcastId = Annotated[int | None, typer.Option(rich_help_panel=_FILTER, min=1, help="Only events of this broadcast.")]
BatchId = Annotated[int | None, typer.Option(rich_help_panel=_FILTER, min=1, help="Only events of this batch.")]
FromNumber = Annotated[str | None, typer.Option(rich_help_panel=_FILTER, help="Only texts and calls from this number.")]
ToNumber = Annotated[
    str | None,
    typer.Option(rich_help_panel=_FILTER, help="Only texts and calls to this number, or to SHORTCODE:KEYWORD."),
]
Prune = Annotated[
    bool, typer.Option("--prune", help="Delete subscriptions with one of your tokens that are not in the file.")
]
_ENDPOINT_HELP = "URL or e-mail address. {token} at the end of a URL is replaced with CALLFIRE_TOKEN's current token."
_TRIGGER_HELP = "Event that triggers a postback."

_COLUMNS = ("id", "trigger_event", "notification_format", "enabled", "endpoint", "filter")


# --- single subscriptions ---------------------------------------------------------------------------------


@app.command("list", epilog="Example: `callfire-async subscriptions list --json`", help="List all subscriptions.")
def list_all(*, login: Login = None, base_url: BaseUrl = None, as_json: AsJson = False) -> None:
    asyncio.run(_list_all(ClientOptions(login, base_url), as_json=as_json))


async def _list_all(options: ClientOptions, *, as_json: bool) -> None:
    async with options.client() as callfire:
        subscriptions = callfire.subscriptions.all()
        if as_json:
            async for subscription in subscriptions:
                echo_json(to_jsonable(subscription))
            return
        rows = [_row(subscription) async for subscription in subscriptions]
    if rows:
        echo_table(_COLUMNS, rows)
    else:
        echo("no subscriptions")


def _row(subscription: Subscription) -> list[object]:
    shown = _shown(subscription)
    return [shown[name] for name in _COLUMNS]


def _shown(subscription: Subscription) -> dict[str, Any]:
    """Return the fields for a person: the filter on one line."""
    fields: dict[str, object] = {} if subscription.filter is None else to_jsonable(subscription.filter)
    conditions = ", ".join(f"{name}={value}" for name, value in fields.items() if value is not None)
    return {**to_jsonable(subscription), "filter": conditions}


@app.command(epilog="Example: `callfire-async subscriptions get 609951003`", help="Show one subscription.")
def get(id: Id, *, login: Login = None, base_url: BaseUrl = None, as_json: AsJson = False) -> None:
    asyncio.run(_get(ClientOptions(login, base_url), id, as_json=as_json))


async def _get(options: ClientOptions, id: int, *, as_json: bool) -> None:
    async with options.client() as callfire:
        subscription = await callfire.subscriptions.get(id)
    if as_json:
        echo_json(to_jsonable(subscription))
    else:
        echo_pairs(_shown(subscription))


@app.command(
    epilog="Example: `callfire-async subscriptions create 'https://hooks.example.com/callfire/{token}'"
    " OUTBOUND_TEXT_FINISHED --format JSON --broadcast-id 12345`",
    help="Subscribe an endpoint to an event.",
)
def create(
    endpoint: Annotated[str, typer.Argument(help=_ENDPOINT_HELP)],
    trigger_event: Annotated[TriggerEvent, typer.Argument(help=_TRIGGER_HELP)],
    *,
    format: Format = None,
    enabled: Enabled = None,
    non_strict_ssl: NonStrictSsl = None,
    broadcast_id: BroadcastId = None,
    batch_id: BatchId = None,
    from_number: FromNumber = None,
    to_number: ToNumber = None,
    login: Login = None,
    base_url: BaseUrl = None,
    as_json: AsJson = False,
) -> None:
    fields = _given(
        endpoint=endpoint,
        trigger_event=trigger_event,
        notification_format=format,
        enabled=enabled,
        non_strict_ssl=non_strict_ssl,
        filter=_filter(broadcast_id, batch_id, from_number, to_number),
    )
    asyncio.run(_create(ClientOptions(login, base_url), fields, as_json=as_json))


async def _create(options: ClientOptions, fields: Mapping[str, Any], *, as_json: bool) -> None:
    async with options.client() as callfire:
        with usage_errors():
            created = await callfire.subscriptions.create(**fields)
    if as_json:
        echo_json(to_jsonable(created))
    else:
        echo(f"created {created.id}")


@app.command(
    epilog="Example: `callfire-async subscriptions update 609951003 --disabled`",
    help="Change the given fields of a subscription. Fields cannot be cleared.",
)
def update(
    id: Id,
    *,
    endpoint: Annotated[str | None, typer.Option(help=_ENDPOINT_HELP)] = None,
    trigger_event: Annotated[TriggerEvent | None, typer.Option(help=_TRIGGER_HELP)] = None,
    format: Format = None,
    enabled: Enabled = None,
    non_strict_ssl: NonStrictSsl = None,
    broadcast_id: BroadcastId = None,
    batch_id: BatchId = None,
    from_number: FromNumber = None,
    to_number: ToNumber = None,
    login: Login = None,
    base_url: BaseUrl = None,
    as_json: AsJson = False,
) -> None:
    changes = _given(
        endpoint=endpoint,
        trigger_event=trigger_event,
        notification_format=format,
        enabled=enabled,
        non_strict_ssl=non_strict_ssl,
        filter=_filter(broadcast_id, batch_id, from_number, to_number),
    )
    if not changes:
        raise CliError("nothing to change: give at least one option, such as --disabled", WRONG_USE)
    asyncio.run(_update(ClientOptions(login, base_url), id, changes, as_json=as_json))


async def _update(options: ClientOptions, id: int, changes: Mapping[str, Any], *, as_json: bool) -> None:
    async with options.client() as callfire:
        with usage_errors():
            await callfire.subscriptions.update(id, **changes)
    if as_json:
        echo_json({"id": id, "changed": sorted(changes)})
    else:
        echo(f"updated {id}")


def _filter(
    broadcast_id: int | None, batch_id: int | None, from_number: str | None, to_number: str | None
) -> SubscriptionFilter:
    with usage_errors():
        return SubscriptionFilter(broadcast_id, batch_id, from_number, to_number)


def _given(**fields: Any) -> dict[str, Any]:
    """Return the fields that were given, with the token in the endpoint."""
    given = {name: value for name, value in fields.items() if value not in (None, SubscriptionFilter())}
    if "endpoint" in given:
        given["endpoint"] = fill_in_token(given["endpoint"], tokens_from_environment())
    return given


@app.command(epilog="Example: `callfire-async subscriptions delete 609951003`", help="Delete one subscription.")
def delete(id: Id, *, login: Login = None, base_url: BaseUrl = None, as_json: AsJson = False) -> None:
    asyncio.run(_delete(ClientOptions(login, base_url), id, as_json=as_json))


async def _delete(options: ClientOptions, id: int, *, as_json: bool) -> None:
    async with options.client() as callfire:
        await callfire.subscriptions.delete(id)
    if as_json:
        echo_json({"id": id, "deleted": True})
    else:
        echo(f"deleted {id}")


# --- subscriptions file -----------------------------------------------------------------------------------


@app.command(
    rich_help_panel="Files of subscriptions",
    epilog="Example: `callfire-async subscriptions plan subscriptions.toml --prune`",
    help="Show the changes that `apply` would make, as a diff. Read-only.",
)
def plan(
    file: File, *, prune: Prune = False, login: Login = None, base_url: BaseUrl = None, as_json: AsJson = False
) -> None:
    changes = asyncio.run(_create_plan(ClientOptions(login, base_url), file, prune=prune))
    echo_plan(changes, as_json=as_json)


@app.command(
    rich_help_panel="Files of subscriptions",
    epilog="Example: `callfire-async subscriptions apply subscriptions.toml --yes`",
    help="Apply a subscriptions file: show the plan, ask, then make the changes. Idempotent.",
)
def apply(
    file: File,
    *,
    prune: Prune = False,
    yes: Yes = False,
    login: Login = None,
    base_url: BaseUrl = None,
    as_json: AsJson = False,
) -> None:
    if as_json and not yes:
        raise typer.BadParameter("--json requires --yes")
    options = ClientOptions(login, base_url)
    changes = asyncio.run(_create_plan(options, file, prune=prune))
    if not as_json:
        echo(str(changes))
    # Outside the event loop, where Ctrl-C ends the prompt at once.
    if not (changes.is_empty or yes):
        confirm("Apply these changes?")
    sys.exit(asyncio.run(_apply(options, changes, as_json=as_json)))


async def _create_plan(options: ClientOptions, path: Path, *, prune: bool) -> Plan:
    tokens = tokens_from_environment()
    if prune and tokens is None:
        raise CliError("--prune requires your tokens: set CALLFIRE_TOKEN in the environment", WRONG_USE)
    specs = read_specs(path, tokens)
    async with options.client() as callfire:
        with usage_errors():
            return await callfire.subscriptions.plan(specs, tokens=tokens, prune=prune)


async def _apply(options: ClientOptions, plan: Plan, *, as_json: bool) -> int:
    """Make the changes of a plan, print the results and return the exit status."""
    async with options.client() as callfire:
        result = await callfire.subscriptions.apply(plan)
    return echo_result(plan, result, _describe, as_json=as_json)


def _describe(subject: Mapping[str, Any]) -> str:
    """Return the trigger event and the endpoint of a spec or a subscription."""
    return f"{subject['trigger_event']} to {subject['endpoint']}"
