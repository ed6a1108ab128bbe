"""
Immutable values shared by the client and the receiver, and the open enumerations they use.

Attributes have CallFire's names in snake_case. A value that CallFire did not send is ``None`` or ``()``. A ``repr``
masks phone numbers except for their last two digits, messages, and the parts of an endpoint that may be secret; the
attributes hold the full values.
"""

from callfire_async.models._actions import (
    Action,
    Call,
    CallRecord,
    DeliveryReport,
    Media,
    Note,
    QuestionResponse,
    Record,
    RecordingMeta,
    Text,
    TextRecord,
)
from callfire_async.models._broadcasts import (
    Broadcast,
    CccBroadcastConfig,
    IvrBroadcastConfig,
    LocalTimeZoneRestriction,
    RetryConfig,
    TextBroadcastConfig,
    VoiceBroadcastConfig,
)
from callfire_async.models._broadcasts import BroadcastConfig as BroadcastConfig
from callfire_async.models._checks import checked_boolean as checked_boolean
from callfire_async.models._checks import checked_integer as checked_integer
from callfire_async.models._checks import checked_text as checked_text
from callfire_async.models._checks import type_name as type_name
from callfire_async.models._checks import wrong_type as wrong_type
from callfire_async.models._contact_lists import ContactList
from callfire_async.models._enumerations import (
    ActionState,
    BroadcastStatus,
    BroadcastType,
    NotificationFormat,
    Result,
    TriggerEvent,
)
from callfire_async.models._enumerations import OpenEnum as OpenEnum
from callfire_async.models._masking import RedactedStr as RedactedStr
from callfire_async.models._masking import masked_endpoint as masked_endpoint
from callfire_async.models._masking import masked_number as masked_number
from callfire_async.models._masking import masked_text as masked_text
from callfire_async.models._resources import Page, ResourceReference, Subscription, SubscriptionFilter
from callfire_async.models._webhooks import WEBHOOK_EVENTS as WEBHOOK_EVENTS
from callfire_async.models._webhooks import Webhook, WebhookEvent, WebhookResource, WebhookResourceInfo

__all__ = [
    "ActionState",
    "Broadcast",
    "BroadcastStatus",
    "BroadcastType",
    "Call",
    "CallRecord",
    "CccBroadcastConfig",
    "ContactList",
    "DeliveryReport",
    "IvrBroadcastConfig",
    "LocalTimeZoneRestriction",
    "Media",
    "Note",
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
    "Webhook",
    "WebhookEvent",
    "WebhookResource",
    "WebhookResourceInfo",
]

# Pickles, reprs and telemetry name a class by the path that users import, not by the module that defines it.
for _class in (*map(globals().__getitem__, __all__), Action, BroadcastConfig, OpenEnum, Record):
    _class.__module__ = __name__
