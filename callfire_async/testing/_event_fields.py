"""The fields of events that the factories accept."""

from datetime import datetime
from typing import TypedDict

from callfire_async.models import (
    BroadcastType,
    CccBroadcastConfig,
    IvrBroadcastConfig,
    TextBroadcastConfig,
    VoiceBroadcastConfig,
)
from callfire_async.notifications.encoding import ApiGeneration


class WebhookFields(TypedDict, total=False):
    """Fields of every event of API v2 that can be chosen."""

    webhook_id: int | None
    webhook_name: str | None
    occurred_at: datetime | None


class OriginFields(WebhookFields, total=False):
    """Fields of every event that can be chosen: the API generation, and what posted it."""

    api: ApiGeneration
    subscription_id: int | None


class ActionFields(OriginFields, total=False):
    """Fields of texts and calls that can be chosen; the others are generated."""

    id: int
    from_number: str | None
    to_number: str | None
    to_number_attributes: tuple[tuple[str, str], ...]
    batch_id: int | None
    broadcast_id: int | None
    contact_id: int | None
    created: datetime | None
    modified: datetime | None
    labels: tuple[str, ...]


class TextFields(ActionFields, total=False):
    """Fields of texts that can be chosen."""

    message: str


class CampaignFields(OriginFields, total=False):
    """Fields of campaigns that can be chosen; the others are generated."""

    id: int
    name: str | None
    last_modified: datetime | None
    type: BroadcastType | None
    labels: tuple[str, ...]
    config: TextBroadcastConfig | VoiceBroadcastConfig | IvrBroadcastConfig | CccBroadcastConfig | None
    resume_next_day: bool | None


class ContactListFields(WebhookFields, total=False):
    """Fields of contact lists that can be chosen; the others are generated."""

    id: int
    name: str | None
    size: int | None
    created: datetime | None
    status: str | None


class DeliveryReportFields(WebhookFields, total=False):
    """Fields of delivery reports that can be chosen; the others are generated."""

    id: int
    text_id: int | None
    broadcast_id: int | None
    account_id: int | None
    from_number: str | None
    to_number: str | None
    reported_at: datetime | None
    delivery_state: str | None
    delivery_category: str | None
