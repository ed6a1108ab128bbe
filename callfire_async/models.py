"""
Frozen values that both halves of the library share, and the open enumerations in them.

Names are CallFire's own in snake_case. What CallFire left out is ``None`` or ``()``. A ``repr`` masks phone
numbers (the last two digits stay), messages and whatever in an endpoint may be secret; attributes give the value.
This module imports nothing of the package.
"""

import re
from datetime import datetime, time, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any, Generic, Self, TypeVar
from urllib.parse import urlsplit

from attrs import field, frozen

__all__ = [
    "ActionState",
    "Broadcast",
    "BroadcastStatus",
    "BroadcastType",
    "Call",
    "CallRecord",
    "IvrBroadcastConfig",
    "LocalTimeZoneRestriction",
    "NotificationFormat",
    "Page",
    "QuestionResponse",
    "RecordingMeta",
    "ResourceReference",
    "Result",
    "RetryConfig",
    "Subscription",
    "SubscriptionFilter",
    "Text",
    "TextBroadcastConfig",
    "TextRecord",
    "TriggerEvent",
    "VoiceBroadcastConfig",
]

# No slots: attrs fills those of a frozen class with a call each, and a text would take twice as long to make.

T = TypeVar("T")


class RedactedStr(str):
    """A string whose ``repr`` is masked: a secret that may be part of a mapping or an object that is printed."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


# --- what a repr may show ---------------------------------------------------------------------------------


# Seven digits or more, in groups or not. A port has five, and the dots of an address are no part of it.
_NUMBER = re.compile(r"\d(?:-?\d){6,}")


def masked_number(number: str | None) -> str:
    """Mask a phone number for a ``repr``: its last two digits stay."""
    if number is None:
        return "None"
    return repr("***" + "".join(re.findall(r"\d", number))[2:][-2:])


def masked_text(text: object) -> str:
    """Mask a message, or whatever else people wrote, for a ``repr``."""
    return "None" if text is None else repr("***") if text else repr(text)


def masked_endpoint(endpoint: str | None) -> str:
    """
    Mask an endpoint for a ``repr``: its last path segment, query and userinfo, or the name in a mail address.

    What looks like a phone number is masked wherever it stands.
    """
    if endpoint is None:
        return "None"
    try:
        parts = urlsplit(endpoint)
    except ValueError:
        return repr("***")
    userinfo, at, host = parts.netloc.rpartition("@")
    if not host:
        return repr("***" + "".join(endpoint.rpartition("@")[1:]) if "@" in endpoint else "***")
    folder, slash, _ = parts.path.rstrip("/").rpartition("/")
    place = _NUMBER.sub(lambda number: masked_number(number[0]).strip("'"), host + folder)
    shown = f"{parts.scheme}://{'***' if userinfo else ''}{at}{place}{slash}{'***' if slash else ''}"
    return repr(shown + ("?***" if parts.query else "") + ("#***" if parts.fragment else ""))


def _number() -> Any:
    return field(default=None, repr=masked_number)


def _words() -> Any:
    return field(default=None, repr=masked_text)


# --- open enumerations ------------------------------------------------------------------------------------


class OpenEnum(StrEnum):
    """
    A string enumeration that keeps a value it does not know.

    CallFire has added to each of its sets over the years. An unknown value is a member of its own that equals
    its text; compare with ``==``, since it is made anew each time.
    """

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, str) or not value:
            return None
        member = str.__new__(cls, value)
        member._name_ = member._value_ = value
        return member

    @property
    def is_known(self) -> bool:
        """Whether this value is in the published set."""
        return self._value_ in type(self)._value2member_map_


class NotificationFormat(OpenEnum):
    """How CallFire words a postback. ``EMAIL`` goes to a mailbox; ``LEGACY`` is deprecated."""

    XML = "XML"
    JSON = "JSON"
    SOAP = "SOAP"
    EMAIL = "EMAIL"
    LEGACY = "LEGACY"


class TriggerEvent(OpenEnum):
    """What makes CallFire post to a subscription's endpoint."""

    UNDEFINED_EVENT = "UNDEFINED_EVENT"
    INBOUND_CALL_FINISHED = "INBOUND_CALL_FINISHED"
    INBOUND_TEXT_FINISHED = "INBOUND_TEXT_FINISHED"
    OUTBOUND_CALL_FINISHED = "OUTBOUND_CALL_FINISHED"
    OUTBOUND_TEXT_FINISHED = "OUTBOUND_TEXT_FINISHED"
    CAMPAIGN_STARTED = "CAMPAIGN_STARTED"
    CAMPAIGN_STOPPED = "CAMPAIGN_STOPPED"
    CAMPAIGN_FINISHED = "CAMPAIGN_FINISHED"


class ActionState(OpenEnum):
    """Where a text or a call stands."""

    READY = "READY"
    SELECTED = "SELECTED"
    CALLBACK = "CALLBACK"
    DISABLED = "DISABLED"
    SKIPPED = "SKIPPED"
    FINISHED = "FINISHED"
    DNC = "DNC"
    DUP = "DUP"
    INVALID = "INVALID"
    TIMEOUT = "TIMEOUT"
    PERIOD_LIMIT = "PERIOD_LIMIT"
    RESTRICTED_NUMBER = "RESTRICTED_NUMBER"


class Result(OpenEnum):
    """How a text or a call ended: live answer ``LA``, answering machine ``AM``, do not text ``DNT``, and so on."""

    LA = "LA"
    AM = "AM"
    BUSY = "BUSY"
    DNC = "DNC"
    XFER = "XFER"
    XFER_LEG = "XFER_LEG"
    NO_ANS = "NO_ANS"
    UNDIALED = "UNDIALED"
    ABANDONED = "ABANDONED"
    SENT = "SENT"
    RECEIVED = "RECEIVED"
    DNT = "DNT"
    TOO_BIG = "TOO_BIG"
    INTERNAL_ERROR = "INTERNAL_ERROR"
    CARRIER_ERROR = "CARRIER_ERROR"
    CARRIER_TEMP_ERROR = "CARRIER_TEMP_ERROR"
    SD = "SD"
    POSTPONED = "POSTPONED"
    SKIPPED = "SKIPPED"
    INVALID_NUMBER = "INVALID_NUMBER"


class BroadcastStatus(OpenEnum):
    """Where a broadcast stands."""

    START_PENDING = "START_PENDING"
    RUNNING = "RUNNING"
    STOPPED = "STOPPED"
    FINISHED = "FINISHED"
    ARCHIVED = "ARCHIVED"
    TEST = "TEST"
    SETUP = "SETUP"
    SCHEDULED = "SCHEDULED"
    SUSPENDED = "SUSPENDED"
    VALIDATING_EMAIL = "VALIDATING_EMAIL"
    VALIDATING_START = "VALIDATING_START"
    BLOCKED_SUSPICIOUS = "BLOCKED_SUSPICIOUS"
    APPROVED = "APPROVED"
    DECLINED = "DECLINED"
    PAUSED = "PAUSED"
    CANCELED = "CANCELED"


class BroadcastType(OpenEnum):
    """What a broadcast sends."""

    VOICE = "VOICE"
    IVR = "IVR"
    TEXT = "TEXT"
    CCC = "CCC"


# --- subscriptions ----------------------------------------------------------------------------------------


@frozen(slots=False)
class SubscriptionFilter:
    """Which texts, calls or campaigns a subscription is for: those that fit every field that is not None."""

    broadcast_id: int | None = None
    batch_id: int | None = None
    from_number: str | None = _number()
    #: A phone number, or ``SHORTCODE:KEYWORD`` as in ``67076:KEYWORD``.
    to_number: str | None = _number()
    #: Deprecated by CallFire: the trigger event says it.
    inbound: bool | None = None


@frozen(slots=False)
class Subscription:
    """An endpoint that CallFire posts events to."""

    id: int
    enabled: bool | None = None
    #: A URI, or an e-mail address.
    endpoint: str | None = field(default=None, repr=masked_endpoint)
    #: Whether CallFire skips certificate checks when it posts.
    non_strict_ssl: bool | None = None
    notification_format: NotificationFormat | None = None
    trigger_event: TriggerEvent | None = None
    filter: SubscriptionFilter | None = None


@frozen(slots=False)
class ResourceReference:
    """What a create answers."""

    #: The new resource's.
    id: int
    #: Its URL; None where CallFire gave none, or it was found after an unknown outcome.
    location: str | None = None


@frozen(slots=False)
class Page(Generic[T]):
    """One page of a list."""

    #: What is on it.
    items: tuple[T, ...]
    #: How many the whole list has; None where CallFire did not say.
    total_results: int | None
    #: The number of the first of them in the whole list, from 0, as it was asked for.
    first_result: int


# --- texts and calls --------------------------------------------------------------------------------------


@frozen(slots=False)
class QuestionResponse:
    """A question of an IVR, and what was answered."""

    question: str | None = None
    response: str | None = _words()


@frozen(slots=False)
class RecordingMeta:
    """A recording made during a call; its link plays it to whoever has it."""

    id: int | None = None
    name: str | None = None
    created: datetime | None = None
    length: timedelta | None = None
    link: str | None = field(default=None, repr=masked_endpoint)


@frozen(slots=False)
class Record:
    """One attempt of a text or a call."""

    id: int | None = None
    result: Result | None = None
    #: Aware where CallFire gave an offset, as every time here.
    finish_time: datetime | None = None
    #: Credits.
    billed_amount: Decimal | None = None
    question_responses: tuple[QuestionResponse, ...] = ()
    switch_id: str | None = None
    caller_name: str | None = _words()


@frozen(slots=False)
class TextRecord(Record):
    """One attempt of a text."""

    message: str | None = _words()


@frozen(slots=False)
class CallRecord(Record):
    """One attempt of a call."""

    originate_time: datetime | None = None
    answer_time: datetime | None = None
    duration: timedelta | None = None
    recordings: tuple[RecordingMeta, ...] = ()


@frozen(slots=False)
class Action:
    """What a text and a call have in common."""

    id: int
    from_number: str | None = _number()
    to_number: str | None = _number()
    #: What the sender attached to the number, ``ClientData`` among it: pairs of name and value, sorted.
    to_number_attributes: tuple[tuple[str, str], ...] = field(default=(), repr=masked_text)
    state: ActionState | None = None
    batch_id: int | None = None
    broadcast_id: int | None = None
    contact_id: int | None = None
    inbound: bool | None = None
    #: Aware where CallFire gave an offset, as every time here.
    created: datetime | None = None
    #: May be a second before ``created``.
    modified: datetime | None = None
    #: How it ended; None while it has not, and where only the last record says it.
    final_result: Result | None = None
    #: Their names.
    labels: tuple[str, ...] = ()


@frozen(slots=False)
class Text(Action):
    """A text message."""

    #: May be missing here and stand in the records (an outbound text), or stand in both (an inbound one).
    message: str | None = _words()
    records: tuple[TextRecord, ...] = ()


@frozen(slots=False)
class Call(Action):
    """A call."""

    records: tuple[CallRecord, ...] = ()
    agent_call: bool | None = None


# --- broadcasts -------------------------------------------------------------------------------------------


@frozen(slots=False)
class LocalTimeZoneRestriction:
    """Between which times of day a number may be reached, in the time zone of that number."""

    begin_time: time | None = None
    end_time: time | None = None


@frozen(slots=False)
class RetryConfig:
    """How a broadcast tries again."""

    max_attempts: int | None = None
    minutes_between_attempts: int | None = None
    retry_results: tuple[Result, ...] = ()
    retry_phone_types: tuple[str, ...] = ()


@frozen(slots=False)
class BroadcastConfig:
    """What the configurations of all broadcasts have in common."""

    id: int | None = None
    created: datetime | None = None
    from_number: str | None = _number()
    local_time_zone_restriction: LocalTimeZoneRestriction | None = None
    retry_config: RetryConfig | None = None


@frozen(slots=False)
class TextBroadcastConfig(BroadcastConfig):
    """The configuration of a broadcast of texts."""

    message: str | None = _words()
    #: ``SEND_MULTIPLE``, ``DO_NOT_SEND`` or ``TRIM``.
    big_message_strategy: str | None = None


@frozen(slots=False)
class VoiceBroadcastConfig(BroadcastConfig):
    """The configuration of a broadcast of calls: what is played, and which digits transfer or opt out."""

    answering_machine_config: str | None = None
    live_sound_text: str | None = _words()
    live_sound_id: int | None = None
    machine_sound_text: str | None = _words()
    machine_sound_id: int | None = None
    transfer_sound_text: str | None = _words()
    transfer_sound_id: int | None = None
    transfer_digit: str | None = None
    transfer_number: str | None = _number()
    dnc_sound_text: str | None = _words()
    dnc_sound_id: int | None = None
    dnc_digit: str | None = None
    max_active_transfers: int | None = None


@frozen(slots=False)
class IvrBroadcastConfig(BroadcastConfig):
    """The configuration of an interactive voice response."""

    dialplan_xml: str | None = _words()


@frozen(slots=False)
class Broadcast:
    """A campaign of texts or calls."""

    id: int
    name: str | None = None
    status: BroadcastStatus | None = None
    last_modified: datetime | None = None
    type: BroadcastType | None = None
    labels: tuple[str, ...] = ()
    config: TextBroadcastConfig | VoiceBroadcastConfig | IvrBroadcastConfig | None = None
