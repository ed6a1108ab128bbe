"""
The texts and calls that a send creates from its form.

A recipient is valid if it has ten digits, or eleven that begin with 1. The messages of the errors are CallFire's own.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl

from attrs import evolve, fields, frozen

from callfire_async._codec import converters, documents
from callfire_async.models import (
    ActionState,
    Broadcast,
    BroadcastStatus,
    BroadcastType,
    Call,
    IvrBroadcastConfig,
    RetryConfig,
    Text,
    TextBroadcastConfig,
    VoiceBroadcastConfig,
)
from callfire_async.notifications.events import CallFinished, TextSent
from callfire_async.testing.factories import make_call_finished, make_text_notification, make_text_sent
from callfire_async.testing.fake_callfire._api_error import ApiErrorResponse
from callfire_async.testing.fake_callfire._parameters import Parameters, listed_values

__all__ = ["create_broadcast", "create_message", "finish_message", "read_recipients"]

Config = TextBroadcastConfig | VoiceBroadcastConfig | IvrBroadcastConfig

_CONFIGS: dict[BroadcastType, type[Config]] = {
    BroadcastType.TEXT: TextBroadcastConfig,
    BroadcastType.VOICE: VoiceBroadcastConfig,
    BroadcastType.IVR: IvrBroadcastConfig,
}
# The fields of an unfinished text or call that the finished one has as well.
_KEPT = ("id", "broadcast_id", "from_number", "to_number", "to_number_attributes", "contact_id", "labels", "created")
_RETRY_NAMES = [converters.wire_name(RetryConfig, field.name) for field in fields(RetryConfig)]
# The fields of the restriction have other names as parameters.
_RESTRICTION_NAMES = {"LocalRestrictBegin": "BeginTime", "LocalRestrictEnd": "EndTime"}
_PHONE_NUMBER = re.compile(r"\+?1?[0-9]{10}")
_SHORT_CODE = re.compile(r"[0-9]{5,6}")
_SEPARATORS = re.compile(r"[\s,]+")
# The attributes of a number may have spaces and commas, too.
_SEPARATORS_BEFORE_NUMBER = re.compile(r"[\s,]+(?=\+?[0-9]{10,11}(?:[?,\s]|$))")


@frozen
class Recipient:
    """A number to which a text or a call is sent, with the attributes that the sender attached."""

    number: str
    attributes: tuple[tuple[str, str], ...]

    @property
    def is_valid(self) -> bool:
        """Whether it is a phone number."""
        return _is_phone_number(self.number)


def _is_phone_number(number: str) -> bool:
    return _PHONE_NUMBER.fullmatch(re.sub("[-.()]", "", number)) is not None


def read_recipients(form: Parameters) -> list[Recipient]:
    """Return the recipients of all ``To`` parameters: numbers, each as ``12135550142?name=value&…``."""
    found = [_recipient(item) for value in form.getlist("To") for item in _split(value)]
    if not found:
        raise ApiErrorResponse(400, "To is required")
    return [*dict.fromkeys(found)] if form.get("ScrubBroadcastDuplicates", "").lower() == "true" else found


def _split(value: str) -> Iterator[str]:
    separators = _SEPARATORS_BEFORE_NUMBER if "?" in value else _SEPARATORS
    return filter(None, separators.split(value.strip()))


def _recipient(item: str) -> Recipient:
    number, _, text = item.partition("?")
    attributes = tuple(sorted(parse_qsl(text, keep_blank_values=True)))
    if attributes:
        _check_attributes(dict(attributes))
    return Recipient(number, attributes)


def _check_attributes(attributes: Mapping[str, str]) -> None:
    """Raise an error for a name that cannot be an attribute of an element, as which CallFire returns it."""
    try:
        documents.read(documents.write_xml({"ToNumber": {f"@{name}": value for name, value in attributes.items()}}))
    except ValueError:
        raise ApiErrorResponse(400, "The name of an attribute of To is not valid in XML") from None


# --- broadcasts -------------------------------------------------------------------------------------------


def create_broadcast(kind: type[Text | Call], id: int, form: Parameters, now: datetime) -> Broadcast:
    """Return the broadcast of a send."""
    if kind is Text and not form.get("Message", "").strip():
        raise ApiErrorResponse(400, "Message is required")
    type_ = _broadcast_type(kind, form)
    config = _config(_CONFIGS[type_], form)
    _check_from_number(kind, config.from_number)
    return Broadcast(
        id,
        name=form.get("BroadcastName") or None,
        status=BroadcastStatus.RUNNING,
        last_modified=now,
        type=type_,
        labels=_labels(form),
        config=evolve(config, id=id, created=now),
    )


def _config(kind: type[Config], form: Parameters) -> Config:
    """Return the configuration of a form, which has the fields of nested objects at the top level."""
    content: dict[str, Any] = {**form, "FromNumber": form.get("From") or None}
    content["RetryConfig"] = {name: listed_values(form, name) for name in _RETRY_NAMES if name in form}
    content["LocalTimeZoneRestriction"] = {
        name: form[parameter] for parameter, name in _RESTRICTION_NAMES.items() if parameter in form
    }
    config, problems = converters.structure(kind, content, kind.__name__)
    if problems:
        raise ApiErrorResponse(400, ", ".join(problems))
    return config


def _broadcast_type(kind: type[Text | Call], form: Parameters) -> BroadcastType:
    default = (
        BroadcastType.TEXT if kind is Text else BroadcastType.IVR if "DialplanXml" in form else BroadcastType.VOICE
    )
    type_ = BroadcastType(form.get("Type") or default)
    if type_ not in _CONFIGS or (type_ == BroadcastType.TEXT) != (kind is Text):
        raise ApiErrorResponse(400, f"Type is unknown: {type_}")
    return type_


def _check_from_number(kind: type[Text | Call], number: str | None) -> None:
    if number is None or _is_phone_number(number):
        return
    if kind is Call:
        raise ApiErrorResponse(400, f"{number} is not a valid from number")
    if not _SHORT_CODE.fullmatch(number):
        raise ApiErrorResponse(400, "invalid from number")


def _labels(form: Parameters) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, form.getlist("Label"))))


# --- texts and calls --------------------------------------------------------------------------------------


def create_message(
    kind: type[Text | Call], id: int, recipient: Recipient, broadcast: Broadcast, form: Parameters
) -> Text | Call:
    """Return the unfinished text or call to a recipient; one to an invalid number is ``INVALID``, and stays so."""
    values: dict[str, Any] = {
        "id": id,
        "broadcast_id": broadcast.id,
        "to_number": recipient.number,
        "to_number_attributes": recipient.attributes,
        "labels": _labels(form),
    }
    if broadcast.config and broadcast.config.from_number:
        values["from_number"] = broadcast.config.from_number
    state = ActionState.READY if recipient.is_valid else ActionState.INVALID
    if kind is Call:
        return evolve(make_call_finished(**values).call, state=state, final_result=None, records=())
    text = make_text_notification(state=state, **values).text
    return evolve(text, message=form["Message"] if recipient.is_valid else None)


def finish_message(message: Text | Call) -> TextSent | CallFinished:
    """Return the event of a text that was sent, or of a call that was answered."""
    values: dict[str, Any] = {name: getattr(message, name) for name in _KEPT}
    if isinstance(message, Call):
        return make_call_finished(**values)
    return make_text_sent(message=message.message or "", **values)
