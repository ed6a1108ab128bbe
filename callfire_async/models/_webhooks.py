"""Webhooks of API v2: their resources and events, and the values of the REST API that describe them."""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Self

from attrs import field, frozen

from callfire_async.models._enumerations import OpenEnum
from callfire_async.models._masking import masked_endpoint, masked_text


class _CaseInsensitiveEnum(OpenEnum):
    """An open enumeration that finds its members regardless of case: CallFire's documents and its API differ in it."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        folded = value.casefold() if isinstance(value, str) else None
        return next((member for member in cls if member.casefold() == folded), None) or super()._missing_(value)


class WebhookResource(_CaseInsensitiveEnum):
    """The kind of resource that a webhook watches."""

    OUTBOUND_CALL = "OutboundCall"
    INBOUND_CALL = "InboundCall"
    OUTBOUND_TEXT = "OutboundText"
    INBOUND_TEXT = "InboundText"
    CALL_BROADCAST = "CallBroadcast"
    TEXT_BROADCAST = "TextBroadcast"
    CCC_CAMPAIGN = "CccCampaign"
    CONTACT_LIST = "ContactList"
    #: Only for accounts that send from a short code. May arrive up to 72 hours late, or never.
    OUTBOUND_TEXT_DELIVERY_REPORT = "OutboundTextDeliveryReport"
    MONTHLY_RENEWAL = "MonthlyRenewal"
    LOW_BALANCE = "LowBalance"


class WebhookEvent(_CaseInsensitiveEnum):
    """The event of a resource that makes CallFire send a postback to a webhook's callback."""

    STARTED = "Started"
    STOPPED = "Stopped"
    FINISHED = "Finished"
    FAILED = "Failed"
    VALIDATION_FINISHED = "ValidationFinished"
    VALIDATION_FAILED = "ValidationFailed"
    RECEIVED = "Received"
    UPDATED = "Updated"


_BROADCAST_EVENTS = (WebhookEvent.STARTED, WebhookEvent.STOPPED, WebhookEvent.FINISHED)

#: The events of each resource, as CallFire publishes them.
WEBHOOK_EVENTS: Mapping[WebhookResource, tuple[WebhookEvent, ...]] = MappingProxyType(
    {
        WebhookResource.OUTBOUND_CALL: (WebhookEvent.FINISHED,),
        WebhookResource.INBOUND_CALL: (WebhookEvent.FINISHED,),
        WebhookResource.OUTBOUND_TEXT: (WebhookEvent.FINISHED,),
        WebhookResource.INBOUND_TEXT: (WebhookEvent.FINISHED,),
        WebhookResource.CALL_BROADCAST: _BROADCAST_EVENTS,
        WebhookResource.TEXT_BROADCAST: _BROADCAST_EVENTS,
        WebhookResource.CCC_CAMPAIGN: _BROADCAST_EVENTS,
        WebhookResource.CONTACT_LIST: (WebhookEvent.VALIDATION_FINISHED, WebhookEvent.VALIDATION_FAILED),
        WebhookResource.OUTBOUND_TEXT_DELIVERY_REPORT: (WebhookEvent.RECEIVED,),
        WebhookResource.MONTHLY_RENEWAL: (WebhookEvent.FINISHED, WebhookEvent.FAILED),
        WebhookResource.LOW_BALANCE: (WebhookEvent.FINISHED, WebhookEvent.FAILED),
    }
)


@frozen
class Webhook:
    """A webhook of API v2: CallFire sends a postback to its callback for each of its events."""

    id: int
    name: str | None = None
    enabled: bool | None = None
    resource: WebhookResource | None = None
    events: tuple[WebhookEvent, ...] = ()
    #: The URL to which CallFire posts.
    callback: str | None = field(default=None, repr=masked_endpoint)
    #: The key of the signature. It is not known whether CallFire ever returns it.
    secret: str | None = field(default=None, repr=masked_text)
    #: Limits the keys that CallFire posts.
    fields: str | None = None
    #: Whether CallFire deletes the webhook after its first event.
    single_use: bool | None = None
    expires_at: datetime | None = None
    #: Whether CallFire skips the TLS certificate check when it sends a postback.
    non_strict_ssl: bool | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None


@frozen
class WebhookResourceInfo:
    """A kind of resource that the account's webhooks can watch."""

    resource: WebhookResource | None = None
    events: tuple[WebhookEvent, ...] = ()
