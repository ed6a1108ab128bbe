"""Open enumerations: the sets of values that CallFire publishes and extends over time."""

from enum import StrEnum
from typing import Self


class OpenEnum(StrEnum):
    """
    A string enumeration that accepts unknown values, because CallFire extends its sets over time.

    An unknown value becomes an instance that equals its text. Each call creates a new instance, so compare values with
    ``==``, not ``is``.
    """

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, str) or not value:
            return None
        member = str.__new__(cls, value)
        member._name_ = member._value_ = value
        return member

    def __repr__(self) -> str:
        """Return the usual form of an enumeration; the name of an unknown value, which is its text, is escaped too."""
        name = repr(self._name_)[1:-1]
        return f"<{type(self).__name__}.{name}: {self._value_!r}>"

    @property
    def is_known(self) -> bool:
        """Whether CallFire has published this value."""
        return self._value_ in type(self)._value2member_map_


class NotificationFormat(OpenEnum):
    """The format of a postback's body. ``EMAIL`` is sent to a mailbox; ``LEGACY`` is deprecated."""

    XML = "XML"
    JSON = "JSON"
    SOAP = "SOAP"
    EMAIL = "EMAIL"
    LEGACY = "LEGACY"


class TriggerEvent(OpenEnum):
    """The event that makes CallFire send a postback to a subscription's endpoint."""

    UNDEFINED_EVENT = "UNDEFINED_EVENT"
    INBOUND_CALL_FINISHED = "INBOUND_CALL_FINISHED"
    INBOUND_TEXT_FINISHED = "INBOUND_TEXT_FINISHED"
    OUTBOUND_CALL_FINISHED = "OUTBOUND_CALL_FINISHED"
    OUTBOUND_TEXT_FINISHED = "OUTBOUND_TEXT_FINISHED"
    CAMPAIGN_STARTED = "CAMPAIGN_STARTED"
    CAMPAIGN_STOPPED = "CAMPAIGN_STOPPED"
    CAMPAIGN_FINISHED = "CAMPAIGN_FINISHED"


class ActionState(OpenEnum):
    """The state of a text or a call."""

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
    """The result of a text or a call, for example ``LA`` (live answer), ``AM`` (answering machine) or ``SENT``."""

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
    """The status of a broadcast."""

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
    """The kind of messages or calls that a broadcast sends."""

    VOICE = "VOICE"
    IVR = "IVR"
    TEXT = "TEXT"
    CCC = "CCC"
