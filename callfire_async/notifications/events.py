"""
The events that CallFire posts: `Notification` and its kinds.

::

    Notification
    ├── TextNotification         .text
    │   └── TextFinished         a text in its final state
    │       ├── TextSent         outbound, with the result SENT
    │       └── TextReceived     inbound
    ├── CallFinished             .call
    ├── CampaignNotification     .broadcast
    │   ├── CampaignStarted
    │   ├── CampaignStopped
    │   └── CampaignFinished
    └── UnknownNotification      a root that API 1.1 does not name

It imports `models`, `encoding` and, for what two unknown documents have in common, `_wire`.
"""

from datetime import UTC, datetime
from typing import Any, ClassVar

from attrs import Factory, field, frozen

from callfire_async._codec import documents
from callfire_async.models import ActionState, Broadcast, Call, NotificationFormat, Result, Text
from callfire_async.notifications.encoding import SoapVersion, encode

__all__ = [
    "CallFinished",
    "CampaignFinished",
    "CampaignNotification",
    "CampaignStarted",
    "CampaignStopped",
    "Notification",
    "TextFinished",
    "TextNotification",
    "TextReceived",
    "TextSent",
    "UnknownNotification",
]

Key = tuple[str | int | float, ...]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _fingerprint(payload: dict[str, Any]) -> str:
    return documents.fingerprint({name: value for name, value in payload.items() if name.lower() != "subscriptionid"})


@frozen(kw_only=True, slots=False)
class Notification:
    """
    What CallFire posted, whatever its format.

    Two are equal when they say the same; the format, ``payload`` and ``problems`` are no part of that.
    """

    #: The subscription that sent it; None where the notification does not say.
    subscription_id: int | None = None
    #: The local name of the root as it was sent.
    name: str = field(default=Factory(lambda self: self.root, takes_self=True))
    #: Fields that could not be read and are None therefore: ``kind @ path`` in the wire's words, never a value.
    problems: tuple[str, ...] = field(default=(), eq=False)
    #: All that stands inside the root: attributes as ``@name``, text beside them as ``#text``.
    payload: dict[str, Any] = field(factory=dict, eq=False, repr=False)

    root: ClassVar[str] = "Notification"

    def __init_subclass__(cls) -> None:
        """Let an event that is made by hand bear the root that its class is named after."""
        if "root" not in cls.__dict__:
            cls.root = cls.__name__

    @property
    def key(self) -> Key:
        """
        What happened, as text and numbers: alike across formats, deliveries and subscriptions.

        The idempotency key for a side effect. Where nothing better is known, ``("unknown", SHA-256 of the payload in a
        canonical form)``.
        """
        return "unknown", _fingerprint(self.payload)

    @property
    def subject(self) -> Text | Call | Broadcast | None:
        """The text, call or broadcast that it is about; None where the root says nothing of that."""
        return None

    def to_xml(self) -> bytes:
        """
        Return the body that CallFire would post, under the root that ``name`` says.

        What the model does not know of the payload, and what could not be read, is left out; `parse` gives an equal
        event back.
        """
        return encode(self, NotificationFormat.XML)[1]

    def to_json(self) -> bytes:
        """Return that body as JSON, with CallFire's oddities: ids as text, numbers as objects."""
        return encode(self, NotificationFormat.JSON)[1]

    def to_soap(self, version: SoapVersion = "1.1") -> bytes:
        """Return that body in a SOAP envelope."""
        return encode(self, NotificationFormat.SOAP, soap_version=version)[1]


@frozen(kw_only=True, slots=False)
class TextNotification(Notification):
    """News of a text; by itself, of one that is not in its final state."""

    text: Text

    @property
    def subject(self) -> Text:
        """The text."""
        return self.text

    @property
    def key(self) -> Key:
        """``("text", id, result or state)``."""
        return "text", self.text.id, _outcome(self.text)


@frozen(kw_only=True, slots=False)
class TextFinished(TextNotification):
    """A text in its final state: what both text triggers send."""


@frozen(kw_only=True, slots=False)
class TextSent(TextFinished):
    """An outbound text in its final state, with the result ``SENT``."""


@frozen(kw_only=True, slots=False)
class TextReceived(TextFinished):
    """An inbound text in its final state."""


@frozen(kw_only=True, slots=False)
class CallFinished(Notification):
    """A call that has ended, either way."""

    call: Call

    @property
    def subject(self) -> Call:
        """The call."""
        return self.call

    @property
    def key(self) -> Key:
        """``("call", id, result or state)``."""
        return "call", self.call.id, _outcome(self.call)


@frozen(kw_only=True, slots=False)
class CampaignNotification(Notification):
    """News of a campaign; by itself, of one that neither runs or is about to, nor was stopped, nor has finished."""

    broadcast: Broadcast

    root: ClassVar[str] = "BroadcastNotification"
    _kind: ClassVar[str] = ""

    @property
    def subject(self) -> Broadcast:
        """The broadcast."""
        return self.broadcast

    @property
    def key(self) -> Key:
        """``("broadcast", id, kind, last_modified)``: seconds since 1970, or as text where no offset was given."""
        kind = self._kind or str(self.broadcast.status or "")
        return "broadcast", self.broadcast.id, kind, _instant(self.broadcast.last_modified)


@frozen(kw_only=True, slots=False)
class CampaignStarted(CampaignNotification):
    """A campaign runs, or is about to."""

    _kind: ClassVar[str] = "started"


@frozen(kw_only=True, slots=False)
class CampaignStopped(CampaignNotification):
    """A campaign was stopped."""

    _kind: ClassVar[str] = "stopped"


@frozen(kw_only=True, slots=False)
class CampaignFinished(CampaignNotification):
    """A campaign has come to its end."""

    _kind: ClassVar[str] = "finished"


@frozen(kw_only=True, slots=False)
class UnknownNotification(Notification):
    """A notification whose root API 1.1 does not name; ``payload`` has all of it, and counts for equality."""

    payload: dict[str, Any] = field(factory=dict, eq=_fingerprint, repr=False)


def result_of(action: Text | Call) -> Result | None:
    """Return how a text or a call ended: its final result, else that of its last record."""
    return action.final_result or (action.records[-1].result if action.records else None)


def is_final(action: Text | Call) -> bool:
    """Tell whether a text or a call is in its final state."""
    return action.state == ActionState.FINISHED or action.final_result is not None


def _outcome(action: Text | Call) -> str:
    return str(result_of(action) or action.state or "")


def _instant(moment: datetime | None) -> str | float:
    if moment is None:
        return ""
    return moment.isoformat() if moment.tzinfo is None else (moment - _EPOCH).total_seconds()
