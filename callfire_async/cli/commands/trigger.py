"""Post events to a receiver as CallFire does."""

import asyncio
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import typer
from attrs import evolve, frozen

from callfire_async.cli._client_options import AsJson
from callfire_async.cli._exit import FAILED, WRONG_USE, CliError
from callfire_async.cli._output import echo, echo_json, echo_table
from callfire_async.cli._tokens import PLACEHOLDER, fill_in_token, listen_tokens
from callfire_async.cli._validators import check_url
from callfire_async.models import ActionState, BroadcastStatus, BroadcastType, NotificationFormat, Result
from callfire_async.notifications import Notification, UnknownNotification
from callfire_async.testing import encode, factories
from callfire_async.testing.fake_callfire._sender import OutgoingPostback, PostbackResult, PostbackSender

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")

_TIMEOUT_SECONDS = 30.0


class Format(StrEnum):
    """The format of a postback."""

    xml = "xml"
    json = "json"
    soap = "soap"


@app.command(
    epilog="Example: `callfire-async trigger CallFinished --set call.result=AM --print`",
    help="Post an event to a receiver as CallFire does; status 1 if any postback is rejected.",
)
def trigger(
    event: Annotated[
        str | None, typer.Argument(help="Event type, e.g. CallFinished. Omit it to list all types.")
    ] = None,
    *,
    to: Annotated[
        str,
        typer.Option(metavar="URL", help="Endpoint to post to. {token} at the end is replaced with `listen`'s token."),
    ] = "http://127.0.0.1:8484/callfire/{token}",
    format: Annotated[Format, typer.Option(help="Payload format.")] = Format.xml,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Set a field, e.g. call.result=AM. Repeatable."),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Number of different events to post.")] = 1,
    duplicate: Annotated[int, typer.Option(min=0, help="Number of times that each event is posted again.")] = 0,
    only_print: Annotated[bool, typer.Option("--print", help="Print the bodies instead of posting them.")] = False,
    as_json: AsJson = False,
) -> None:
    if event is None:
        _list_events(as_json=as_json)
        return
    notification_format = NotificationFormat(format.name.upper())
    options = TriggerOptions(event, to, notification_format, tuple(settings or ()), count, duplicate, as_json)
    if only_print:
        _print_bodies(options)
    else:
        sys.exit(asyncio.run(run(options)))


@frozen
class TriggerOptions:
    """The options of the command."""

    event: str
    to: str
    format: NotificationFormat
    settings: tuple[str, ...]
    count: int
    #: The number of times that each event is posted again.
    duplicate: int
    as_json: bool


# --- event types and their fields -------------------------------------------------------------------------

Reader = Callable[[str], Any]


def _read_boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError
    return text == "true"


def _read_labels(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


_EVENT: dict[str, Reader] = {"subscription_id": int}
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


@frozen
class _EventTemplate:
    """The factory of an event type, and the fields that can be set."""

    create: Callable[..., Notification]
    #: The attribute of the event that has the fields.
    subject: str
    fields: Mapping[str, Reader]

    @property
    def readers(self) -> dict[str, Reader]:
        """Return the readers of all fields, by path."""
        return dict(_EVENT) | {f"{self.subject}.{name}": read for name, read in self.fields.items()}


def _make_unknown(subscription_id: int | None = None) -> UnknownNotification:
    # Unique, as the ids of other events are.
    payload = {"Thing": {"@id": str(time.time_ns())}}
    return UnknownNotification(name="SomethingNew", subscription_id=subscription_id, payload=payload)


_CAMPAIGN_FACTORIES = {
    "Started": factories.make_campaign_started,
    "Stopped": factories.make_campaign_stopped,
    "Finished": factories.make_campaign_finished,
}
_TEMPLATES: dict[str, _EventTemplate] = {
    "TextNotification": _EventTemplate(factories.make_text_notification, "text", _TEXT | {"state": ActionState}),
    "TextSent": _EventTemplate(factories.make_text_sent, "text", _TEXT),
    "TextReceived": _EventTemplate(factories.make_text_received, "text", _TEXT),
    "TextFinished": _EventTemplate(factories.make_text_finished, "text", _TEXT | _RESULT),
    "CallFinished": _EventTemplate(factories.make_call_finished, "call", _ACTION | _RESULT),
    "BroadcastNotification": _EventTemplate(
        factories.make_campaign_notification, "broadcast", _CAMPAIGN | {"status": BroadcastStatus}
    ),
    **{
        f"{prefix}{change}": _EventTemplate(create, "broadcast", _CAMPAIGN)
        for prefix in ("Broadcast", "Campaign")
        for change, create in _CAMPAIGN_FACTORIES.items()
    },
    "SomethingNew": _EventTemplate(_make_unknown, "", {}),
}


def _create_events(options: TriggerOptions) -> Iterable[Notification]:
    template = _TEMPLATES.get(options.event)
    if template is None:
        raise CliError(f"unknown event type {options.event}; expected one of {', '.join(_TEMPLATES)}", WRONG_USE)
    fields = dict(_parse_setting(setting, template.readers) for setting in options.settings)
    # Several event types share a factory.
    return (evolve(template.create(**fields), name=options.event) for _ in range(options.count))


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


def _list_events(*, as_json: bool) -> None:
    """Print the event types and the fields that can be set."""
    if as_json:
        for name, template in _TEMPLATES.items():
            echo_json({"event": name, "set": list(template.readers)})
    else:
        rows = [(name, ", ".join(template.readers)) for name, template in _TEMPLATES.items()]
        echo_table(("event", "--set"), rows)


def _print_bodies(options: TriggerOptions) -> None:
    for event in _create_events(options):
        content_type, body = encode(event, options.format)
        if options.as_json:
            echo_json({"event": event.name, "content_type": content_type, "body": body.decode()})
        else:
            echo(body.decode())


async def run(options: TriggerOptions) -> int:
    """Post the events, print a line for each postback and return the exit status."""
    endpoint = _endpoint(options.to)
    failed = 0
    async with aclosing(PostbackSender(None, concurrency=1, timeout=_TIMEOUT_SECONDS, clock=time.monotonic)) as sender:
        for event in _create_events(options):
            content_type, body = encode(event, options.format)
            postback = OutgoingPostback(event.subscription_id or 0, endpoint, event.key, content_type, body)
            for repeat in range(1 + options.duplicate):
                result = await sender.post(postback)
                _print_result(event, result, is_repeat=repeat > 0, as_json=options.as_json)
                failed += not _is_success(result)
    return FAILED if failed else 0


def _endpoint(to: str) -> str:
    check_url("--to", to)
    return fill_in_token(to, listen_tokens()) if to.endswith(PLACEHOLDER) else to


def _is_success(result: PostbackResult) -> bool:
    return result.status is not None and 200 <= result.status < 300


def _print_result(event: Notification, result: PostbackResult, *, is_repeat: bool, as_json: bool) -> None:
    milliseconds = round(1000 * result.latency, 1)
    if as_json:
        fields = {"event": event.name, "key": list(event.key), "status": result.status}
        echo_json(fields | {"milliseconds": milliseconds, "repeat": is_repeat})
        return
    repeat = " again" if is_repeat else ""
    key = ":".join(map(str, event.key))
    echo(f"{event.name} {key}{repeat}: {result.status or 'no answer'} in {milliseconds:.0f} ms")
