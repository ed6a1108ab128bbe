"""
An asyncio client for CallFire's API, and a receiver that dispatches CallFire's postbacks to typed handlers.

This package has the client, the errors and the models. The receiver is in `callfire_async.notifications`.
"""

from callfire_async.client import CallFire
from callfire_async.client.connection import Connection
from callfire_async.client.plan import ApplyResult, Plan, SpecMatch, SubscriptionSpec
from callfire_async.client.subscriptions import Subscriptions
from callfire_async.client.texts_and_calls import Calls, Texts
from callfire_async.errors import (
    APIError,
    AuthenticationError,
    BadRequestError,
    CallFireError,
    ClientClosedError,
    EventLoopError,
    HandlerErrors,
    InboxError,
    InboxLockedError,
    InboxUnavailableError,
    InvalidNotificationError,
    MalformedNotificationError,
    NotFoundError,
    NotificationError,
    PermissionDeniedError,
    RateLimitError,
    RequestTimeoutError,
    ResponseError,
    ServerError,
    TransportError,
)
from callfire_async.models import (
    ActionState,
    Broadcast,
    BroadcastStatus,
    BroadcastType,
    Call,
    CallRecord,
    IvrBroadcastConfig,
    LocalTimeZoneRestriction,
    NotificationFormat,
    Page,
    QuestionResponse,
    RecordingMeta,
    ResourceReference,
    Result,
    RetryConfig,
    Subscription,
    SubscriptionFilter,
    Text,
    TextBroadcastConfig,
    TextRecord,
    TriggerEvent,
    VoiceBroadcastConfig,
)

__all__ = [
    "APIError",
    "ActionState",
    "ApplyResult",
    "AuthenticationError",
    "BadRequestError",
    "Broadcast",
    "BroadcastStatus",
    "BroadcastType",
    "Call",
    "CallFire",
    "CallFireError",
    "CallRecord",
    "Calls",
    "ClientClosedError",
    "Connection",
    "EventLoopError",
    "HandlerErrors",
    "InboxError",
    "InboxLockedError",
    "InboxUnavailableError",
    "InvalidNotificationError",
    "IvrBroadcastConfig",
    "LocalTimeZoneRestriction",
    "MalformedNotificationError",
    "NotFoundError",
    "NotificationError",
    "NotificationFormat",
    "Page",
    "PermissionDeniedError",
    "Plan",
    "QuestionResponse",
    "RateLimitError",
    "RecordingMeta",
    "RequestTimeoutError",
    "ResourceReference",
    "ResponseError",
    "Result",
    "RetryConfig",
    "ServerError",
    "SpecMatch",
    "Subscription",
    "SubscriptionFilter",
    "SubscriptionSpec",
    "Subscriptions",
    "Text",
    "TextBroadcastConfig",
    "TextRecord",
    "Texts",
    "TransportError",
    "TriggerEvent",
    "VoiceBroadcastConfig",
]

# Pickles, reprs and telemetry name a class by the path that users import, not by the module that defines it.
for _name in __all__:
    if globals()[_name].__module__ not in {"callfire_async.errors", "callfire_async.models"}:
        globals()[_name].__module__ = __name__
