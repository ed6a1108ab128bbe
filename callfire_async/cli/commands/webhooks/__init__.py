"""Manage the webhooks of an account, one by one or from a file, and replace its subscriptions with webhooks."""

import asyncio
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from callfire_async.cli._client_options import AsJson, ClientOptions, Login, Yes
from callfire_async.cli._exit import WRONG_USE, CliError, confirm, usage_errors
from callfire_async.cli._help import ACCOUNT_PANEL, CommandApp
from callfire_async.cli._output import echo, echo_json, echo_pairs, echo_table
from callfire_async.cli._tokens import fill_in_token, signing_secret, tokens_from_environment
from callfire_async.cli._webhooks_file import read_webhook_specs
from callfire_async.cli.commands._plan_output import echo_plan, echo_result
from callfire_async.cli.commands.webhooks._migrate import migrate
from callfire_async.client.webhook_plan import WebhookPlan
from callfire_async.inspector.views import to_jsonable
from callfire_async.models import Webhook, WebhookEvent, WebhookResource

app: typer.Typer = CommandApp(
    panel="Single webhooks",
    no_args_is_help=True,
    help="List and change an account's webhooks, and replace its subscriptions with webhooks.",
)


def _complete_resource(incomplete: str) -> list[str]:
    return [value for value in WebhookResource if value.casefold().startswith(incomplete.casefold())]


def _complete_event(incomplete: str) -> list[str]:
    return [value for value in WebhookEvent if value.casefold().startswith(incomplete.casefold())]


def _parse_resource(text: str) -> WebhookResource:
    return WebhookResource(text)


def _parse_event(text: str) -> WebhookEvent:
    return WebhookEvent(text)


_resource_options: dict[str, Any] = {"parser": _parse_resource, "autocompletion": _complete_resource}
_event_options: dict[str, Any] = {"parser": _parse_event, "autocompletion": _complete_event}

BaseUrl = Annotated[
    str | None,
    typer.Option(
        "--webhooks-base-url",
        "--base-url",
        rich_help_panel=ACCOUNT_PANEL,
        metavar="URL",
        help="Base URL of API v2, for example that of `callfire-async sandbox`.",
    ),
]
Id = Annotated[int, typer.Argument(min=1, help="Webhook id.")]
File = Annotated[Path, typer.Argument(help="TOML file with the desired webhooks.")]
Name = Annotated[str | None, typer.Option(help="Name of the webhook. Each postback includes it.")]
Resource = Annotated[
    WebhookResource | None, typer.Option(**_resource_options, metavar="RESOURCE", help="Resource, e.g. OutboundText.")
]
Events = Annotated[
    list[WebhookEvent] | None,
    typer.Option("--event", **_event_options, metavar="EVENT", help="Event, e.g. Finished. Repeatable."),
]
Enabled = Annotated[bool | None, typer.Option("--enabled/--disabled", help="Whether CallFire sends postbacks.")]
SingleUse = Annotated[
    bool | None, typer.Option("--single-use/--reusable", help="Whether CallFire deletes the webhook after one event.")
]
ExpiresAt = Annotated[
    datetime | None, typer.Option(metavar="TIME", help="Local time at which the webhook expires, e.g. 2026-01-31.")
]
NonStrictSsl = Annotated[
    bool | None,
    typer.Option("--non-strict-ssl/--strict-ssl", help="Whether CallFire skips the check of the certificate."),
]
Fields = Annotated[str | None, typer.Option(help="The keys that CallFire posts, e.g. 'id,name'. Default: all.")]
Prune = Annotated[
    bool, typer.Option("--prune", help="Delete webhooks with one of your tokens that are not in the file.")
]
ResendSecrets = Annotated[
    bool, typer.Option("--resend-secrets", help="Send CALLFIRE_SIGNING_SECRET to existing webhooks too.")
]
_CALLBACK_HELP = "URL to post to. {token} at the end is replaced with CALLFIRE_TOKEN's current token."

_COLUMNS = ("id", "resource", "events", "enabled", "callback", "name")


# --- single webhooks --------------------------------------------------------------------------------------


@app.command("list", epilog="Example: `callfire-async webhooks list --json`", help="List webhooks.")
def list_all(
    *,
    name: Annotated[str | None, typer.Option(help="Only webhooks with this name.")] = None,
    resource: Resource = None,
    event: Annotated[
        WebhookEvent | None, typer.Option(**_event_options, metavar="EVENT", help="Only webhooks with this event.")
    ] = None,
    enabled: Annotated[
        bool | None, typer.Option("--enabled/--disabled", help="Only webhooks that are enabled, or disabled.")
    ] = None,
    login: Login = None,
    base_url: BaseUrl = None,
    as_json: AsJson = False,
) -> None:
    filters = _given(name=name, resource=resource, event=event, enabled=enabled)
    asyncio.run(_list_all(_client_options(login, base_url), filters, as_json=as_json))


def _client_options(login: str | None, base_url: str | None) -> ClientOptions:
    return ClientOptions(login, webhooks_base_url=base_url)


async def _list_all(options: ClientOptions, filters: Mapping[str, Any], *, as_json: bool) -> None:
    async with options.client() as callfire:
        webhooks = callfire.webhooks.all(**filters)
        if as_json:
            async for webhook in webhooks:
                echo_json(to_jsonable(webhook))
            return
        rows = [_row(webhook) async for webhook in webhooks]
    if rows:
        echo_table(_COLUMNS, rows)
    else:
        echo("no webhooks")


def _row(webhook: Webhook) -> list[object]:
    shown = _shown(webhook)
    return [shown[name] for name in _COLUMNS]


def _shown(webhook: Webhook) -> dict[str, Any]:
    """Return the fields for a person: the events on one line."""
    return {**to_jsonable(webhook), "events": ", ".join(webhook.events)}


@app.command(epilog="Example: `callfire-async webhooks get 7420600003`", help="Show one webhook.")
def get(id: Id, *, login: Login = None, base_url: BaseUrl = None, as_json: AsJson = False) -> None:
    asyncio.run(_get(_client_options(login, base_url), id, as_json=as_json))


async def _get(options: ClientOptions, id: int, *, as_json: bool) -> None:
    async with options.client() as callfire:
        webhook = await callfire.webhooks.get(id)
    if as_json:
        echo_json(to_jsonable(webhook))
    else:
        echo_pairs(_shown(webhook))


@app.command(
    epilog="Example: `callfire-async webhooks create 'https://hooks.example.com/callfire/{token}' OutboundText"
    " --event Finished --name 'finished texts'`",
    help="""
    Create a webhook for the events of a resource.

    Its postbacks are signed with CALLFIRE_SIGNING_SECRET, if that is set.
    """,
)
def create(
    callback: Annotated[str, typer.Argument(help=_CALLBACK_HELP)],
    resource: Annotated[
        WebhookResource, typer.Argument(**_resource_options, metavar="RESOURCE", help="Resource, e.g. OutboundText.")
    ],
    *,
    events: Events = None,
    name: Name = None,
    enabled: Enabled = None,
    single_use: SingleUse = None,
    expires_at: ExpiresAt = None,
    non_strict_ssl: NonStrictSsl = None,
    fields: Fields = None,
    login: Login = None,
    base_url: BaseUrl = None,
    as_json: AsJson = False,
) -> None:
    settings = _given(
        callback=callback,
        resource=resource,
        events=events,
        name=name,
        enabled=enabled,
        single_use=single_use,
        expires_at=expires_at,
        non_strict_ssl=non_strict_ssl,
        fields=fields,
        secret=signing_secret(),
    )
    asyncio.run(_create(_client_options(login, base_url), settings, as_json=as_json))


async def _create(options: ClientOptions, settings: Mapping[str, Any], *, as_json: bool) -> None:
    async with options.client() as callfire:
        with usage_errors():
            created = await callfire.webhooks.create(**settings)
    is_signed = "secret" in settings
    if as_json:
        echo_json({**to_jsonable(created), "signed": is_signed})
    else:
        echo(f"created {created.id}" + ("" if is_signed else "; not signed: CALLFIRE_SIGNING_SECRET is not set"))


@app.command(
    epilog="Example: `callfire-async webhooks update 7420600003 --disabled`",
    help="Change the given fields of a webhook. Fields cannot be cleared.",
)
def update(
    id: Id,
    *,
    callback: Annotated[str | None, typer.Option(help=_CALLBACK_HELP)] = None,
    resource: Resource = None,
    events: Events = None,
    name: Name = None,
    enabled: Enabled = None,
    secret: Annotated[bool, typer.Option("--secret", help="Sign with CALLFIRE_SIGNING_SECRET from now on.")] = False,
    single_use: SingleUse = None,
    expires_at: ExpiresAt = None,
    non_strict_ssl: NonStrictSsl = None,
    fields: Fields = None,
    login: Login = None,
    base_url: BaseUrl = None,
    as_json: AsJson = False,
) -> None:
    changes = _given(
        callback=callback,
        resource=resource,
        events=events,
        name=name,
        enabled=enabled,
        secret=_required_secret("--secret") if secret else None,
        single_use=single_use,
        expires_at=expires_at,
        non_strict_ssl=non_strict_ssl,
        fields=fields,
    )
    if not changes:
        raise CliError("nothing to change: give at least one option, such as --disabled", WRONG_USE)
    asyncio.run(_update(_client_options(login, base_url), id, changes, as_json=as_json))


async def _update(options: ClientOptions, id: int, changes: Mapping[str, Any], *, as_json: bool) -> None:
    async with options.client() as callfire:
        with usage_errors():
            await callfire.webhooks.update(id, **changes)
    if as_json:
        echo_json({"id": id, "changed": sorted(changes)})
    else:
        echo(f"updated {id}")


def _required_secret(option: str) -> str:
    if secret := signing_secret():
        return secret
    raise CliError(f"{option} requires a signing secret: set CALLFIRE_SIGNING_SECRET in the environment", WRONG_USE)


def _given(**settings: Any) -> dict[str, Any]:
    """Return the settings that were given, with the token in the callback, and local times with their zone."""
    given = {name: value for name, value in settings.items() if value is not None}
    if "callback" in given:
        given["callback"] = fill_in_token(given["callback"], tokens_from_environment())
    if "expires_at" in given:
        given["expires_at"] = _with_zone(given["expires_at"])
    return given


def _with_zone(local: datetime) -> datetime:
    try:
        return local.astimezone()
    except (OverflowError, ValueError):
        raise CliError("--expires-at is too early or too late", WRONG_USE) from None


@app.command(epilog="Example: `callfire-async webhooks delete 7420600003`", help="Delete one webhook.")
def delete(id: Id, *, login: Login = None, base_url: BaseUrl = None, as_json: AsJson = False) -> None:
    asyncio.run(_delete(_client_options(login, base_url), id, as_json=as_json))


async def _delete(options: ClientOptions, id: int, *, as_json: bool) -> None:
    async with options.client() as callfire:
        await callfire.webhooks.delete(id)
    if as_json:
        echo_json({"id": id, "deleted": True})
    else:
        echo(f"deleted {id}")


@app.command(epilog="Example: `callfire-async webhooks resources`", help="List the resources that webhooks can watch.")
def resources(*, login: Login = None, base_url: BaseUrl = None, as_json: AsJson = False) -> None:
    asyncio.run(_resources(_client_options(login, base_url), as_json=as_json))


async def _resources(options: ClientOptions, *, as_json: bool) -> None:
    async with options.client() as callfire:
        found = await callfire.webhooks.resources()
    if not as_json:
        echo_table(("resource", "events"), [(info.resource, ", ".join(info.events)) for info in found])
        return
    for info in found:
        echo_json(to_jsonable(info))


# --- webhooks file ----------------------------------------------------------------------------------------


@app.command(
    rich_help_panel="Files of webhooks",
    epilog="Example: `callfire-async webhooks plan webhooks.toml --prune`",
    help="Show the changes that `apply` would make, as a diff. Read-only.",
)
def plan(
    file: File,
    *,
    prune: Prune = False,
    resend_secrets: ResendSecrets = False,
    login: Login = None,
    base_url: BaseUrl = None,
    as_json: AsJson = False,
) -> None:
    options = _client_options(login, base_url)
    changes = asyncio.run(_create_plan(options, file, prune=prune, resend_secrets=resend_secrets))
    echo_plan(changes, as_json=as_json)


@app.command(
    rich_help_panel="Files of webhooks",
    epilog="Example: `callfire-async webhooks apply webhooks.toml --yes`",
    help="Apply a webhooks file: show the plan, ask, then make the changes. Idempotent.",
)
def apply(
    file: File,
    *,
    prune: Prune = False,
    resend_secrets: ResendSecrets = False,
    yes: Yes = False,
    login: Login = None,
    base_url: BaseUrl = None,
    as_json: AsJson = False,
) -> None:
    if as_json and not yes:
        raise typer.BadParameter("--json requires --yes")
    options = _client_options(login, base_url)
    changes = asyncio.run(_create_plan(options, file, prune=prune, resend_secrets=resend_secrets))
    if not as_json:
        echo(str(changes))
    # Outside the event loop, where Ctrl-C ends the prompt at once.
    if not (changes.is_empty or yes):
        confirm("Apply these changes?")
    sys.exit(asyncio.run(_apply(options, changes, as_json=as_json)))


async def _create_plan(options: ClientOptions, path: Path, *, prune: bool, resend_secrets: bool) -> WebhookPlan:
    tokens = tokens_from_environment()
    if prune and tokens is None:
        raise CliError("--prune requires your tokens: set CALLFIRE_TOKEN in the environment", WRONG_USE)
    if resend_secrets:
        _required_secret("--resend-secrets")
    specs = read_webhook_specs(path, tokens)
    async with options.client() as callfire:
        with usage_errors():
            return await callfire.webhooks.plan(specs, tokens=tokens, prune=prune, resend_secrets=resend_secrets)


async def _apply(options: ClientOptions, plan: WebhookPlan, *, as_json: bool) -> int:
    """Make the changes of a plan, print the results and return the exit status."""
    async with options.client() as callfire:
        result = await callfire.webhooks.apply(plan)
    return echo_result(plan, result, _describe, as_json=as_json)


def _describe(subject: Mapping[str, Any]) -> str:
    """Return the resource and the callback of a spec or a webhook."""
    return f"{subject['resource']} to {subject['callback']}"


# --- migration --------------------------------------------------------------------------------------------

app.command(
    rich_help_panel="Migration",
    epilog="Example: `callfire-async webhooks migrate`",
    help="""
    Show the webhooks that replace the account's subscriptions, and create them with --apply.

    Subscriptions stay enabled, and both post every event, until they are disabled with --disable-subscriptions, which
    happens after all webhooks exist. Every run continues where an interrupted run stopped.
    """,
)(migrate)
