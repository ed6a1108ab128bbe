"""Receive CallFire's postbacks, parse them into events and dispatch the events to typed handlers."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from callfire_async.notifications.attempt import CurrentAttempt, current_attempt
from callfire_async.notifications.events import (
    AccountNotification,
    CallFinished,
    CampaignFinished,
    CampaignNotification,
    CampaignStarted,
    CampaignStopped,
    ContactListNotification,
    ContactListValidationFailed,
    ContactListValidationFinished,
    DeliveryReportReceived,
    Notification,
    TextFinished,
    TextNotification,
    TextReceived,
    TextSent,
    UnknownNotification,
)
from callfire_async.notifications.inbox import AppendResult, Delivery, Inbox, InboxEntry, InboxStats, Lease
from callfire_async.notifications.inbox.memory import MemoryInbox
from callfire_async.notifications.observers import AttemptRecord, Observer, RequestRecord
from callfire_async.notifications.parsing import parse, parse_all
from callfire_async.notifications.receiver import Postback, Receiver, ReceiverStats, Reply
from callfire_async.notifications.retry import Reject, RetryPolicy
from callfire_async.notifications.routing.event_waiter import EventWaiter
from callfire_async.notifications.routing.router import Handler, Router
from callfire_async.notifications.security.log_redaction import RedactTokenFilter
from callfire_async.notifications.security.signatures import SigningSecrets
from callfire_async.notifications.security.tokens import EndpointTokens

if TYPE_CHECKING:
    from callfire_async.notifications.inbox.sqlite import SqliteInbox

__all__ = [
    "AccountNotification",
    "AppendResult",
    "AttemptRecord",
    "CallFinished",
    "CampaignFinished",
    "CampaignNotification",
    "CampaignStarted",
    "CampaignStopped",
    "ContactListNotification",
    "ContactListValidationFailed",
    "ContactListValidationFinished",
    "CurrentAttempt",
    "Delivery",
    "DeliveryReportReceived",
    "EndpointTokens",
    "EventWaiter",
    "Handler",
    "Inbox",
    "InboxEntry",
    "InboxStats",
    "Lease",
    "MemoryInbox",
    "Notification",
    "Observer",
    "Postback",
    "Receiver",
    "ReceiverStats",
    "RedactTokenFilter",
    "Reject",
    "Reply",
    "RequestRecord",
    "RetryPolicy",
    "Router",
    "SigningSecrets",
    "SqliteInbox",
    "TextFinished",
    "TextNotification",
    "TextReceived",
    "TextSent",
    "UnknownNotification",
    "current_attempt",
    "parse",
    "parse_all",
]

# Pickles, reprs and telemetry name a class by the path that users import, not by the module that defines it.
for _name in set(__all__) - {"SqliteInbox"}:
    if isinstance(globals()[_name], type):
        globals()[_name].__module__ = __name__


def __getattr__(name: str) -> Any:
    # Imported on demand, because sqlite3 is not needed with another inbox or without one.
    if name != "SqliteInbox":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module("callfire_async.notifications.inbox.sqlite").SqliteInbox
