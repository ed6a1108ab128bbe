"""Postbacks: parse what CallFire posts, and dispatch it to typed handlers."""

from callfire_async.notifications.events import (
    CallFinished,
    CampaignFinished,
    CampaignNotification,
    CampaignStarted,
    CampaignStopped,
    Notification,
    TextFinished,
    TextNotification,
    TextReceived,
    TextSent,
    UnknownNotification,
)
from callfire_async.notifications.parsing import parse
from callfire_async.notifications.receiver import Postback, Receiver, Reply
from callfire_async.notifications.routing import Handler, Router
from callfire_async.notifications.tokens import EndpointTokens

__all__ = [
    "CallFinished",
    "CampaignFinished",
    "CampaignNotification",
    "CampaignStarted",
    "CampaignStopped",
    "EndpointTokens",
    "Handler",
    "Notification",
    "Postback",
    "Receiver",
    "Reply",
    "Router",
    "TextFinished",
    "TextNotification",
    "TextReceived",
    "TextSent",
    "UnknownNotification",
    "parse",
]
