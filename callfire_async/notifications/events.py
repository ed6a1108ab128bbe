"""
Events: the typed values that postbacks are parsed into.

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
    ├── ContactListNotification  .contact_list (API v2)
    │   ├── ContactListValidationFinished
    │   └── ContactListValidationFailed
    ├── DeliveryReportReceived   .report (API v2)
    ├── AccountNotification      .resource_type, .event_type (API v2)
    └── UnknownNotification      a root of API 1.1, or an event of API v2, that is not documented
"""

import math
from datetime import UTC, datetime
from typing import Any, ClassVar

from attrs import Factory, field, frozen

from callfire_async._codec import documents
from callfire_async.models import (
    ActionState,
    Broadcast,
    Call,
    ContactList,
    DeliveryReport,
    NotificationFormat,
    Result,
    Text,
    WebhookEvent,
    WebhookResource,
)
from callfire_async.notifications.encoding import SoapVersion, encode

__all__ = [
    "AccountNotification",
    "CallFinished",
    "CampaignFinished",
    "CampaignNotification",
    "CampaignStarted",
    "CampaignStopped",
    "ContactListNotification",
    "ContactListValidationFailed",
    "ContactListValidationFinished",
    "DeliveryReportReceived",
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


@frozen(kw_only=True)
class Notification:
    """
    The base class of all events.

    Events of equal content are equal, regardless of format, ``payload``, ``problems`` and webhook. Events of API 1.1
    and v2 are never equal, because their names differ; their keys are equal.
    """

    #: The id of the subscription, or None if the postback has none.
    subscription_id: int | None = None
    #: The local name of the postback's root; for API v2 its resource and event, as in ``OutboundText.Finished``.
    name: str = field(default=Factory(lambda self: self.root, takes_self=True))
    #: The fields that are None because they could not be read, and the values with characters that XML or JSON forbids,
    #: which are repaired; as ``kind @ path`` with CallFire's names, never a value.
    problems: tuple[str, ...] = field(default=(), eq=False)
    #: The content of the root: attributes as ``@name``, text beside them as ``#text``; for API v2 the event's resource.
    payload: dict[str, Any] = field(factory=dict, eq=False, repr=False)
    #: The id of the webhook; None for API 1.1, as are the next two.
    webhook_id: int | None = field(default=None, eq=False)
    webhook_name: str | None = field(default=None, eq=False)
    #: When the event occurred, as CallFire states it.
    occurred_at: datetime | None = field(default=None, eq=False)

    root: ClassVar[str] = "Notification"

    def __init_subclass__(cls) -> None:
        """Set the class name as the root of events that are created without a name."""
        if "root" not in cls.__dict__:
            cls.root = cls.__name__

    @property
    def key(self) -> Key:
        """
        The idempotency key of the event: the same for every format, delivery, subscription, webhook and API generation.

        For an unknown event it is ``("unknown", SHA-256 of the payload in a canonical form)``; for API v2 the name is
        part of the payload.
        """
        # The root of an event of API 1.1 has no dot, and the stored keys of such events must stay valid.
        return "unknown", _fingerprint({self.name: self.payload} if "." in self.name else self.payload)

    @property
    def subject(self) -> Text | Call | Broadcast | ContactList | DeliveryReport | None:
        """The event's text, call, broadcast, contact list or report; None if it has none of these."""
        return None

    def to_xml(self) -> bytes:
        """
        Return the body of a postback in XML, with ``name`` as its root.

        Fields of the payload that the model does not have, or that could not be read, are left out. `parse` returns an
        equal event, in which U+FFFD replaces each character that XML forbids.
        """
        return encode(self, NotificationFormat.XML)[1]

    def to_json(self) -> bytes:
        """Return the body of a postback in JSON, with CallFire's oddities: ids as text, phone numbers as objects."""
        return encode(self, NotificationFormat.JSON)[1]

    def to_soap(self, version: SoapVersion = "1.1") -> bytes:
        """Return the body of a postback in a SOAP envelope."""
        return encode(self, NotificationFormat.SOAP, soap_version=version)[1]


@frozen(kw_only=True)
class TextNotification(Notification):
    """An event about a text. Of this class itself if the text is not in its final state."""

    text: Text

    @property
    def subject(self) -> Text:
        """The text."""
        return self.text

    @property
    def key(self) -> Key:
        """``("text", id, result or state)``."""
        return "text", self.text.id, _result_or_state(self.text)


@frozen(kw_only=True)
class TextFinished(TextNotification):
    """A text in its final state. Of this class itself if the text was neither sent nor received."""


@frozen(kw_only=True)
class TextSent(TextFinished):
    """An outbound text in its final state, with the result ``SENT``."""


@frozen(kw_only=True)
class TextReceived(TextFinished):
    """An inbound text in its final state."""


@frozen(kw_only=True)
class CallFinished(Notification):
    """A finished call, inbound or outbound."""

    call: Call

    @property
    def subject(self) -> Call:
        """The call."""
        return self.call

    @property
    def key(self) -> Key:
        """``("call", id, result or state)``."""
        return "call", self.call.id, _result_or_state(self.call)


@frozen(kw_only=True)
class CampaignNotification(Notification):
    """An event about a campaign. Of this class itself if the campaign has not started, stopped or finished."""

    broadcast: Broadcast

    root: ClassVar[str] = "BroadcastNotification"
    _kind: ClassVar[str] = ""

    @property
    def subject(self) -> Broadcast:
        """The broadcast."""
        return self.broadcast

    @property
    def key(self) -> Key:
        """
        ``("broadcast", id, kind, last_modified)``, in seconds since 1970, or as text if CallFire sent no offset.

        Fractions of a second are cut off, because API 1.1 does not send them.
        """
        kind = self._kind or str(self.broadcast.status or "")
        timestamp = _timestamp(self.broadcast.last_modified)
        whole = float(math.floor(timestamp)) if isinstance(timestamp, float) else timestamp
        return "broadcast", self.broadcast.id, kind, whole


@frozen(kw_only=True)
class CampaignStarted(CampaignNotification):
    """A campaign that has started or is about to start."""

    _kind: ClassVar[str] = "started"


@frozen(kw_only=True)
class CampaignStopped(CampaignNotification):
    """A campaign that was stopped."""

    _kind: ClassVar[str] = "stopped"


@frozen(kw_only=True)
class CampaignFinished(CampaignNotification):
    """A campaign that has finished."""

    _kind: ClassVar[str] = "finished"


@frozen(kw_only=True)
class ContactListNotification(Notification):
    """An event about a contact list."""

    contact_list: ContactList

    _kind: ClassVar[str] = ""

    @property
    def subject(self) -> ContactList:
        """The contact list."""
        return self.contact_list

    @property
    def key(self) -> Key:
        """``("contact_list", id, kind, occurred_at)``, in seconds since 1970."""
        return "contact_list", self.contact_list.id, self._kind, _timestamp(self.occurred_at)


@frozen(kw_only=True)
class ContactListValidationFinished(ContactListNotification):
    """A contact list whose numbers CallFire has validated."""

    root: ClassVar[str] = "ContactList.ValidationFinished"
    _kind: ClassVar[str] = "validation finished"


@frozen(kw_only=True)
class ContactListValidationFailed(ContactListNotification):
    """A contact list whose validation has failed."""

    root: ClassVar[str] = "ContactList.ValidationFailed"
    _kind: ClassVar[str] = "validation failed"


@frozen(kw_only=True)
class DeliveryReportReceived(Notification):
    """A carrier's report on the delivery of a text."""

    report: DeliveryReport

    root: ClassVar[str] = "OutboundTextDeliveryReport.Received"

    @property
    def subject(self) -> DeliveryReport:
        """The report."""
        return self.report

    @property
    def key(self) -> Key:
        """``("delivery_report", id, delivery_state)``."""
        return "delivery_report", self.report.id, self.report.delivery_state or ""


@frozen(kw_only=True)
class AccountNotification(Notification):
    """A monthly renewal or a low balance of the account. Its ``payload`` has the content."""

    #: ``MonthlyRenewal`` or ``LowBalance``.
    resource_type: WebhookResource
    #: ``Finished`` or ``Failed``.
    event_type: WebhookEvent
    name: str = field(default=Factory(lambda self: f"{self.resource_type}.{self.event_type}", takes_self=True))

    @property
    def key(self) -> Key:
        """``("account", resource_type, event_type, occurred_at)``, in seconds since 1970."""
        return "account", str(self.resource_type), str(self.event_type), _timestamp(self.occurred_at)


@frozen(kw_only=True)
class UnknownNotification(Notification):
    """
    An event that CallFire does not document: a root of API 1.1, or a resource and event of API v2.

    Its ``payload`` has the content and takes part in equality.
    """

    payload: dict[str, Any] = field(factory=dict, eq=_fingerprint, repr=False)


def result_of(action: Text | Call) -> Result | None:
    """Return the final result of a text or a call, or else the result of its last record."""
    return action.final_result or (action.records[-1].result if action.records else None)


def is_final(action: Text | Call) -> bool:
    """Return whether a text or a call is in its final state."""
    return action.state == ActionState.FINISHED or action.final_result is not None


def _result_or_state(action: Text | Call) -> str:
    return str(result_of(action) or action.state or "")


def _timestamp(moment: datetime | None) -> str | float:
    if moment is None:
        return ""
    return moment.isoformat() if moment.tzinfo is None else (moment - _EPOCH).total_seconds()


def event_key(event: Notification) -> str:
    """Format an event's key as inboxes store it."""
    return ":".join(map(str, event.key))
