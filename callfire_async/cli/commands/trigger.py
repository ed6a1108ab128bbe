"""Post events to a receiver as CallFire does."""

import asyncio
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import typer
from attrs import evolve, frozen

from callfire_async.cli._client_options import AsJson
from callfire_async.cli._exit import FAILED, REMEDIES, WRONG_USE, CliError
from callfire_async.cli._help import CommandApp
from callfire_async.cli._output import echo, echo_json, echo_table
from callfire_async.cli._tokens import PLACEHOLDER, fill_in_token, listen_tokens, signing_secrets_from_environment
from callfire_async.cli._validators import check_url
from callfire_async.errors import NotificationError
from callfire_async.models import (
    ActionState,
    BroadcastStatus,
    BroadcastType,
    NotificationFormat,
    Result,
    WebhookEvent,
    WebhookResource,
)
from callfire_async.notifications import Notification, SigningSecrets, UnknownNotification
from callfire_async.testing import encode, factories
from callfire_async.testing.fake_callfire._sender import OutgoingPostback, PostbackResult, PostbackSender

app: typer.Typer = CommandApp()

_EVENT = "Event"
_TIMEOUT_SECONDS = 30.0
_REMEDIES = REMEDIES | {
    None: "no response: check that a receiver is running at this address",
    401: "wrong or missing signature: use --api v2, and the receiver's secret in CALLFIRE_SIGNING_SECRET",
    500: "a handler failed: see the receiver's log",
}


class Api(StrEnum):
    """The generation of CallFire's API."""

    api_1_1 = "1.1"
    api_2 = "v2"


class Format(StrEnum):
    """The format of a postback of API 1.1."""

    xml = "xml"
    json = "json"
    soap = "soap"


@app.command(
    epilog="Example: `callfire-async trigger CallFinished --set call.result=AM --print`",
    help="""
    Post an event to a receiver as CallFire does; status 1 if any postback is rejected.

    With `--api v2` it is the postback of a webhook, signed with CALLFIRE_SIGNING_SECRET if that is set.
    """,
)
def trigger(
    event: Annotated[
        str | None, typer.Argument(help="Event type, e.g. CallFinished. Omit it to list all types.")
    ] = None,
    *,
    to: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="Endpoint to post to. {token} at the end is replaced with CALLFIRE_TOKEN, or `listen`'s token.",
        ),
    ] = "http://127.0.0.1:8484/callfire/{token}",
    api: Annotated[Api, typer.Option(rich_help_panel=_EVENT, help="API generation of the postback.")] = Api.api_1_1,
    format: Annotated[
        Format | None,
        typer.Option(rich_help_panel=_EVENT, help="Payload format. Default: xml for API 1.1; API v2 has json only."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", rich_help_panel=_EVENT, metavar="PATH=VALUE", help="Set a field, e.g. call.result=AM. Repeatable."
        ),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Number of different events to post.")] = 1,
    duplicate: Annotated[int, typer.Option(min=0, help="Number of times that each event is posted again.")] = 0,
    only_print: Annotated[bool, typer.Option("--print", help="Print the bodies instead of posting them.")] = False,
    as_json: AsJson = False,
) -> None:
    if event is None:
        _list_events(api, as_json=as_json)
        return
    if api is Api.api_2 and format not in (None, Format.json):
        raise typer.BadParameter("--format must be json with --api v2")
    if only_print and duplicate:
        raise typer.BadParameter("--duplicate cannot be used with --print, which posts nothing")
    options = TriggerOptions(
        event=event,
        to=to,
        format=NotificationFormat((format or Format.xml).upper()),
        settings=tuple(settings or ()),
        count=count,
        duplicate=duplicate,
        as_json=as_json,
        api=api,
    )
    if only_print:
        _print_bodies(options)
    else:
        sys.exit(asyncio.run(run(options)))


@frozen
class TriggerOptions:
    """The options of the command."""

    event: str
    to: str
    #: The format of API 1.1.
    format: NotificationFormat
    settings: tuple[str, ...]
    count: int
    #: The number of times that each event is posted again.
    duplicate: int
    as_json: bool
    api: Api = Api.api_1_1

    def encode(self, event: Notification) -> tuple[str, bytes]:
        """Return the content type and the body of a postback."""
        return encode(event, self.format if self.api is Api.api_1_1 else None, api=self.api.value)


# --- event types and their fields -------------------------------------------------------------------------

Reader = Callable[[str], Any]


def _read_boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError
    return text == "true"


def _read_labels(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _one_of(*values: WebhookResource | WebhookEvent) -> Reader:
    def read(text: str) -> WebhookResource | WebhookEvent:
        value = type(values[0])(text)
        if value not in values:
            raise ValueError
        return value

    return read


# The fields of an event of each API generation, in addition to its text, call or other subject.
_SOURCES: dict[Api, dict[str, Reader]] = {
    Api.api_1_1: {"subscription_id": int},
    Api.api_2: {"webhook_id": int, "webhook_name": str, "occurred_at": datetime.fromisoformat},
}
_ACTION: dict[str, Reader] = {
    "id": int,
    "from_number": str,
    "to_number": str,
    "batch_id": int,
    "broadcast_id": int,
    "contact_id": int,
    "created": datetime.fromisoformat,
    "modified": datetime.fromisoformat,
    "labels": _read_labels,
}
_TEXT = _ACTION | {"message": str}
_RESULT: dict[str, Reader] = {"result": Result, "inbound": _read_boolean}
_CAMPAIGN: dict[str, Reader] = {
    "id": int,
    "name": str,
    "last_modified": datetime.fromisoformat,
    "type": BroadcastType,
    "labels": _read_labels,
}


_CONTACT_LIST: dict[str, Reader] = {"id": int, "name": str, "size": int, "status": str}
_REPORT: dict[str, Reader] = {
    "id": int,
    "text_id": int,
    "broadcast_id": int,
    "from_number": str,
    "to_number": str,
    "delivery_state": str,
    "delivery_category": str,
}
_ACCOUNT: dict[str, Reader] = {
    "resource_type": _one_of(WebhookResource.MONTHLY_RENEWAL, WebhookResource.LOW_BALANCE),
    "event_type": _one_of(WebhookEvent.FINISHED, WebhookEvent.FAILED),
}


@frozen
class _EventTemplate:
    """The factory of an event type, and the fields that can be set."""

    create: Callable[..., Notification]
    #: The attribute of the event that has the fields; empty if the event has them itself.
    subject: str
    fields: Mapping[str, Reader]

    def readers(self, api: Api) -> dict[str, Reader]:
        """Return the readers of all fields, by path."""
        prefix = f"{self.subject}." if self.subject else ""
        return _SOURCES[api] | {f"{prefix}{name}": read for name, read in self.fields.items()}


def _make_unknown(api: str, **source: Any) -> UnknownNotification:
    # Unique, as the ids of other events are.
    name = "SomethingNew.Happened" if api == Api.api_2 else "SomethingNew"
    return UnknownNotification(name=name, payload={"Thing": {"@id": str(time.time_ns())}}, **source)


_CAMPAIGN_FACTORIES = {
    "Started": factories.make_campaign_started,
    "Stopped": factories.make_campaign_stopped,
    "Finished": factories.make_campaign_finished,
}
_IN_BOTH_APIS: dict[str, _EventTemplate] = {
    "TextSent": _EventTemplate(factories.make_text_sent, "text", _TEXT),
    "TextReceived": _EventTemplate(factories.make_text_received, "text", _TEXT),
    "TextFinished": _EventTemplate(factories.make_text_finished, "text", _TEXT | _RESULT),
    "CallFinished": _EventTemplate(factories.make_call_finished, "call", _ACTION | _RESULT),
    **{
        f"Campaign{change}": _EventTemplate(create, "broadcast", _CAMPAIGN)
        for change, create in _CAMPAIGN_FACTORIES.items()
    },
    "SomethingNew": _EventTemplate(_make_unknown, "", {}),
}
_TEMPLATES: dict[Api, dict[str, _EventTemplate]] = {
    Api.api_1_1: {
        "TextNotification": _EventTemplate(factories.make_text_notification, "text", _TEXT | {"state": ActionState}),
        "BroadcastNotification": _EventTemplate(
            factories.make_campaign_notification, "broadcast", _CAMPAIGN | {"status": BroadcastStatus}
        ),
        **{
            f"Broadcast{change}": _EventTemplate(create, "broadcast", _CAMPAIGN)
            for change, create in _CAMPAIGN_FACTORIES.items()
        },
        **_IN_BOTH_APIS,
    },
    Api.api_2: {
        **_IN_BOTH_APIS,
        "ContactListValidationFinished": _EventTemplate(
            factories.make_contact_list_validation_finished, "contact_list", _CONTACT_LIST
        ),
        "ContactListValidationFailed": _EventTemplate(
            factories.make_contact_list_validation_failed, "contact_list", _CONTACT_LIST
        ),
        "DeliveryReportReceived": _EventTemplate(factories.make_delivery_report_received, "report", _REPORT),
        "AccountNotification": _EventTemplate(factories.make_account_notification, "", _ACCOUNT),
    },
}


def _create_events(options: TriggerOptions) -> Iterator[Notification]:
    templates = _TEMPLATES[options.api]
    template = templates.get(options.event)
    if template is None:
        raise CliError(f"unknown event type {options.event}; expected one of {', '.join(templates)}", WRONG_USE)
    readers = template.readers(options.api)
    fields = dict(_parse_setting(setting, readers) for setting in options.settings)
    return (_create_event(template, options, fields) for _ in range(options.count))


def _create_event(template: _EventTemplate, options: TriggerOptions, fields: Mapping[str, Any]) -> Notification:
    try:
        event = template.create(api=options.api.value, **fields)
    except (ValueError, NotificationError) as error:
        raise CliError(f"{options.event} cannot be posted: {error}", WRONG_USE) from None
    # Several event types of API 1.1 share a factory.
    return evolve(event, name=options.event) if options.api is Api.api_1_1 else event


def _parse_setting(setting: str, readers: Mapping[str, Reader]) -> tuple[str, Any]:
    """Return the name of a factory's argument, which is the last part of the path, and the value."""
    path, equals, value = setting.partition("=")
    if not equals or path not in readers:
        raise CliError(f"--set {path}: expected PATH=VALUE with one of {', '.join(readers)}", WRONG_USE)
    try:
        return path.rpartition(".")[2], readers[path](value)
    except ValueError:
        raise CliError(f"--set {path}: invalid value", WRONG_USE) from None


# --- output and requests ----------------------------------------------------------------------------------


def _list_events(api: Api, *, as_json: bool) -> None:
    """Print the event types and the fields that can be set."""
    if as_json:
        for name, template in _TEMPLATES[api].items():
            echo_json({"event": name, "set": list(template.readers(api))})
    else:
        rows = [(name, ", ".join(template.readers(api))) for name, template in _TEMPLATES[api].items()]
        echo_table(("event", "--set"), rows)


def _print_bodies(options: TriggerOptions) -> None:
    for event in _create_events(options):
        content_type, body = options.encode(event)
        if options.as_json:
            echo_json({"event": options.event, "content_type": content_type, "body": body.decode()})
        else:
            echo(body.decode())


async def run(options: TriggerOptions) -> int:
    """Post the events, print a line for each postback and return the exit status."""
    endpoint, secrets = _endpoint(options.to), _signing_secrets(options.api)
    failed: list[int | None] = []
    async with aclosing(PostbackSender(None, concurrency=1, timeout=_TIMEOUT_SECONDS, clock=time.monotonic)) as sender:
        for event in _create_events(options):
            postback = _build_postback(event, endpoint, options, secrets)
            for repeat in range(1 + options.duplicate):
                result = await sender.post(postback)
                _print_result(options, result, is_repeat=repeat > 0)
                if not _is_success(result):
                    failed.append(result.status)
    if not failed:
        return 0
    typer.echo(f"error: {_REMEDIES.get(failed[0], 'see the log of the endpoint')}", err=True)
    return FAILED


def _endpoint(to: str) -> str:
    check_url("--to", to)
    return fill_in_token(to, listen_tokens()) if to.endswith(PLACEHOLDER) else to


def _signing_secrets(api: Api) -> SigningSecrets | None:
    """Return the secrets of the environment for API v2; API 1.1 does not sign."""
    return signing_secrets_from_environment() if api is Api.api_2 else None


def _build_postback(
    event: Notification, endpoint: str, options: TriggerOptions, secrets: SigningSecrets | None
) -> OutgoingPostback:
    content_type, body = options.encode(event)
    return OutgoingPostback(
        event.subscription_id,
        endpoint,
        event.key,
        content_type,
        body,
        webhook_id=event.webhook_id,
        signature=None if secrets is None else secrets.sign(body),
    )


def _is_success(result: PostbackResult) -> bool:
    return result.status is not None and 200 <= result.status < 300


def _print_result(options: TriggerOptions, result: PostbackResult, *, is_repeat: bool) -> None:
    milliseconds = round(1000 * result.latency, 1)
    if options.as_json:
        fields = {"event": options.event, "key": list(result.key), "status": result.status}
        echo_json(fields | {"milliseconds": milliseconds, "repeat": is_repeat})
        return
    repeat = " again" if is_repeat else ""
    key = ":".join(map(str, result.key))
    echo(f"{options.event} {key}{repeat}: {result.status or 'no response'} in {milliseconds:.0f} ms")
