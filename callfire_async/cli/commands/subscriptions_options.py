"""The commands on subscriptions, and their options; what they do stands in `subscriptions`."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from callfire_async.cli._client_options import ClientOptions
from callfire_async.cli._options import AsJson, BaseUrl, Login, Yes
from callfire_async.client.plan import Plan
from callfire_async.models import NotificationFormat, SubscriptionFilter, TriggerEvent

subscriptions = typer.Typer(no_args_is_help=True, help="Look at an account's subscriptions, and change them.")

Id = Annotated[int, typer.Argument(min=1, help="The subscription's id.")]
File = Annotated[
    Path,
    typer.Argument(help="Which subscriptions there are to be; TOML where its name ends so, else YAML."),
]
Format = Annotated[NotificationFormat | None, typer.Option("--format", help="How CallFire words a postback.")]
Enabled = Annotated[bool | None, typer.Option("--enabled/--disabled", help="Whether CallFire posts to it.")]
NonStrictSsl = Annotated[
    bool | None,
    typer.Option("--non-strict-ssl/--strict-ssl", help="Whether CallFire skips certificate checks when it posts."),
]
BroadcastId = Annotated[int | None, typer.Option(min=1, help="Only this broadcast.")]
BatchId = Annotated[int | None, typer.Option(min=1, help="Only this batch.")]
FromNumber = Annotated[str | None, typer.Option(help="Only what comes from this number.")]
ToNumber = Annotated[str | None, typer.Option(help="Only what goes to this number, or to SHORTCODE:KEYWORD.")]
Prune = Annotated[bool, typer.Option("--prune", help="Delete what has one of your tokens and is not in the file.")]

_ENDPOINT = "A URL, with {token} at its end for the current token in CALLFIRE_TOKEN; or an e-mail address."


def _filter(
    broadcast_id: int | None, batch_id: int | None, from_number: str | None, to_number: str | None
) -> SubscriptionFilter | None:
    chosen = SubscriptionFilter(broadcast_id, batch_id, from_number, to_number)
    return None if chosen == SubscriptionFilter() else chosen


@subscriptions.command("list", epilog="Example: `callfire-async subscriptions list --json`")
def list_all(*, login: Login = None, base_url: BaseUrl = None, as_json: AsJson = False) -> None:
    """Show every subscription."""
    from callfire_async.cli.commands import subscriptions as work

    asyncio.run(work.list_all(ClientOptions(login, base_url), as_json=as_json))


@subscriptions.command(epilog="Example: `callfire-async subscriptions get 609951003`")
def get(id: Id, *, login: Login = None, base_url: BaseUrl = None, as_json: AsJson = False) -> None:
    """Show one subscription."""
    from callfire_async.cli.commands import subscriptions as work

    asyncio.run(work.get(ClientOptions(login, base_url), id, as_json=as_json))


@subscriptions.command(
    epilog="Example: `callfire-async subscriptions create 'https://hooks.example.com/callfire/{token}'"
    " OUTBOUND_TEXT_FINISHED --format JSON --broadcast-id 12345`"
)
def create(
    endpoint: Annotated[str, typer.Argument(help=_ENDPOINT)],
    trigger_event: Annotated[TriggerEvent, typer.Argument(help="What is posted.")],
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
    """Subscribe an endpoint to an event."""
    from callfire_async.cli.commands import subscriptions as work

    details = {
        "notification_format": format,
        "enabled": enabled,
        "non_strict_ssl": non_strict_ssl,
        "filter": _filter(broadcast_id, batch_id, from_number, to_number),
    }
    account = ClientOptions(login, base_url)
    asyncio.run(work.create(account, endpoint, trigger_event, details, as_json=as_json))


@subscriptions.command(epilog="Example: `callfire-async subscriptions update 609951003 --disabled`")
def update(
    id: Id,
    *,
    endpoint: Annotated[str | None, typer.Option(help=_ENDPOINT)] = None,
    trigger_event: Annotated[TriggerEvent | None, typer.Option(help="What is posted.")] = None,
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
    """Change what is given; nothing can be cleared this way."""
    from callfire_async.cli.commands import subscriptions as work

    details = {
        "endpoint": endpoint,
        "trigger_event": trigger_event,
        "notification_format": format,
        "enabled": enabled,
        "non_strict_ssl": non_strict_ssl,
        "filter": _filter(broadcast_id, batch_id, from_number, to_number),
    }
    asyncio.run(work.update(ClientOptions(login, base_url), id, details, as_json=as_json))


@subscriptions.command(epilog="Example: `callfire-async subscriptions delete 609951003`")
def delete(id: Id, *, login: Login = None, base_url: BaseUrl = None, as_json: AsJson = False) -> None:
    """Delete one subscription."""
    from callfire_async.cli.commands import subscriptions as work

    asyncio.run(work.delete(ClientOptions(login, base_url), id, as_json=as_json))


@subscriptions.command(epilog="Example: `callfire-async subscriptions plan subscriptions.yaml --prune`")
def plan(
    file: File, *, prune: Prune = False, login: Login = None, base_url: BaseUrl = None, as_json: AsJson = False
) -> None:
    """Show what stands between the account and a file, like a diff; change nothing."""
    from callfire_async.cli.commands import subscriptions as work

    made = asyncio.run(work.make_plan(ClientOptions(login, base_url), file, prune=prune))
    work.show_plan(made, as_json=as_json)


@subscriptions.command(epilog="Example: `callfire-async subscriptions apply subscriptions.yaml --yes`")
def apply(
    file: File,
    *,
    prune: Prune = False,
    yes: Yes = False,
    login: Login = None,
    base_url: BaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Make the account as a file says, after a look at the plan; applied again, it does nothing."""
    from callfire_async.cli.commands import subscriptions as work

    if as_json and not yes:
        raise typer.BadParameter("with --json nobody is asked: say --yes too")
    account = ClientOptions(login, base_url)
    made = asyncio.run(work.make_plan(account, file, prune=prune))
    # Not inside the event loop, where Ctrl-C would wait for the answer.
    _show_and_ask(made, yes=yes, as_json=as_json)
    sys.exit(asyncio.run(work.apply(account, made, as_json=as_json)))


def _show_and_ask(made: Plan, *, yes: bool, as_json: bool) -> None:
    from callfire_async.cli.commands import subscriptions as work

    if not as_json:
        work.show_plan(made, as_json=False)
    if not (made.is_empty or yes):
        typer.confirm("Apply this?", abort=True)
