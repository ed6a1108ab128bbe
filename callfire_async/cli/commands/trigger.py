"""Events of one's own, posted as CallFire would post them."""

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing
from datetime import datetime
from typing import Any

from attrs import evolve, frozen

from callfire_async.cli._exit import FAILED, WRONG_USE, CliError
from callfire_async.cli._output import echo, say_json, say_table
from callfire_async.cli._own_tokens import PLACEHOLDER, fill_in_token
from callfire_async.cli._tokens import listen_tokens
from callfire_async.cli._validators import check_url
from callfire_async.models import ActionState, BroadcastStatus, BroadcastType, NotificationFormat, Result
from callfire_async.notifications import Notification, UnknownNotification
from callfire_async.testing import encode, factories
from callfire_async.testing.fake_callfire._sender import OutgoingPostback, PostbackResult, PostbackSender

__all__ = ["TriggerOptions", "list_events", "run", "show"]

_TIMEOUT_SECONDS = 30.0

Read = Callable[[str], Any]


def _boolean(words: str) -> bool:
    if words not in ("true", "false"):
        raise ValueError
    return words == "true"


def _labels(words: str) -> tuple[str, ...]:
    return tuple(words.split(","))


_EVENT: dict[str, Read] = {"subscription_id": int}
_ACTION: dict[str, Read] = {
    "id": int,
    "from_number": str,
    "to_number": str,
    "batch_id": int,
    "broadcast_id": int,
    "contact_id": int,
    "created": datetime.fromisoformat,
    "modified": datetime.fromisoformat,
    "labels": _labels,
}
_TEXT = _ACTION | {"message": str}
_RESULT: dict[str, Read] = {"result": Result, "inbound": _boolean}
_CAMPAIGN: dict[str, Read] = {
    "id": int,
    "name": str,
    "last_modified": datetime.fromisoformat,
    "type": BroadcastType,
    "labels": _labels,
}


@frozen
class _EventTemplate:
    """How an event is made, and what can be said of it."""

    make: Callable[..., Notification]
    #: What the event is about, as its attribute is called.
    about: str
    fields: Mapping[str, Read]

    @property
    def readers(self) -> dict[str, Read]:
        """What can be set, by its path."""
        return dict(_EVENT) | {f"{self.about}.{name}": read for name, read in self.fields.items()}


def _make_unknown(subscription_id: int | None = None) -> UnknownNotification:
    # Unlike any other of its kind, as the others are by their ids.
    payload = {"Thing": {"@id": str(time.time_ns())}}
    return UnknownNotification(name="SomethingNew", subscription_id=subscription_id, payload=payload)


_CAMPAIGNS = {
    "Started": factories.make_campaign_started,
    "Stopped": factories.make_campaign_stopped,
    "Finished": factories.make_campaign_finished,
}
_SAMPLES: dict[str, _EventTemplate] = {
    "TextNotification": _EventTemplate(factories.make_text_notification, "text", _TEXT | {"state": ActionState}),
    "TextSent": _EventTemplate(factories.make_text_sent, "text", _TEXT),
    "TextReceived": _EventTemplate(factories.make_text_received, "text", _TEXT),
    "TextFinished": _EventTemplate(factories.make_text_finished, "text", _TEXT | _RESULT),
    "CallFinished": _EventTemplate(factories.make_call_finished, "call", _ACTION | _RESULT),
    "BroadcastNotification": _EventTemplate(
        factories.make_campaign_notification, "broadcast", _CAMPAIGN | {"status": BroadcastStatus}
    ),
    **{
        f"{word}{what}": _EventTemplate(make, "broadcast", _CAMPAIGN)
        for word in ("Broadcast", "Campaign")
        for what, make in _CAMPAIGNS.items()
    },
    "SomethingNew": _EventTemplate(_make_unknown, "", {}),
}


@frozen
class TriggerOptions:
    """What is to be posted, where and how often."""

    event: str
    to: str
    format: NotificationFormat
    settings: tuple[str, ...]
    count: int
    #: How often each is posted once more.
    duplicate: int
    as_json: bool


def list_events(*, as_json: bool) -> None:
    """Show which events there are, and what can be set."""
    rows = [(name, ", ".join(sample.readers)) for name, sample in _SAMPLES.items()]
    if as_json:
        for name, sample in _SAMPLES.items():
            say_json({"event": name, "set": list(sample.readers)})
    else:
        say_table(("event", "--set"), rows)


async def run(trigger: TriggerOptions) -> int:
    """Post; show a line for each postback, and return the exit status: 0 if all were taken."""
    endpoint = _endpoint(trigger.to)
    failed = 0
    async with aclosing(PostbackSender(None, concurrency=1, timeout=_TIMEOUT_SECONDS, clock=time.monotonic)) as poster:
        for event in _events(trigger):
            content_type, body = encode(event, trigger.format)
            posting = OutgoingPostback(event.subscription_id or 0, endpoint, event.key, content_type, body)
            for repeat in range(1 + trigger.duplicate):
                posted = await poster.post(posting)
                _show(event, posted, is_repeat=repeat > 0, as_json=trigger.as_json)
                failed += not _is_success(posted)
    return FAILED if failed else 0


def show(trigger: TriggerOptions) -> None:
    """Show the bodies in place of posting them."""
    for event in _events(trigger):
        content_type, body = encode(event, trigger.format)
        if trigger.as_json:
            say_json({"event": event.name, "content_type": content_type, "body": body.decode()})
        else:
            echo(body.decode())


def _events(trigger: TriggerOptions) -> Iterable[Notification]:
    sample = _SAMPLES.get(trigger.event)
    if sample is None:
        raise CliError(f"there is no event {trigger.event}; there are {', '.join(_SAMPLES)}", WRONG_USE)
    fields = dict(_setting(words, sample.readers) for words in trigger.settings)
    # Each is about a thing of its own, unless its id was set; it bears the root that was asked for.
    return (evolve(sample.make(**fields), name=trigger.event) for _ in range(trigger.count))


def _setting(words: str, readers: Mapping[str, Read]) -> tuple[str, Any]:
    """Read a path and its value; the factory knows the last segment."""
    path, equals, value = words.partition("=")
    if not equals or path not in readers:
        raise CliError(f"--set {path} cannot be set; there are {', '.join(readers)}, each with =VALUE", WRONG_USE)
    try:
        return path.rpartition(".")[2], readers[path](value)
    except ValueError:
        raise CliError(f"--set {path}: this is no value for it", WRONG_USE) from None


def _endpoint(to: str) -> str:
    check_url("--to", to)
    return fill_in_token(to, listen_tokens()) if to.endswith(PLACEHOLDER) else to


def _is_success(posted: PostbackResult) -> bool:
    return posted.status is not None and 200 <= posted.status < 300


def _show(event: Notification, posted: PostbackResult, *, is_repeat: bool, as_json: bool) -> None:
    milliseconds = round(1000 * posted.latency, 1)
    if as_json:
        say_json(
            {
                "event": event.name,
                "key": list(event.key),
                "status": posted.status,
                "milliseconds": milliseconds,
                "repeat": is_repeat,
            }
        )
        return
    again = " once more" if is_repeat else ""
    echo(
        f"{event.name} {':'.join(map(str, event.key))}{again}: {posted.status or 'no answer'} in {milliseconds:.0f} ms"
    )
