"""Durable queues between the HTTP response and the handlers: the `Inbox` protocol, and one package per engine."""

from callfire_async.notifications.inbox.base import AppendResult, Clock, Delivery, Inbox, InboxEntry, InboxStats, Lease

__all__ = ["AppendResult", "Clock", "Delivery", "Inbox", "InboxEntry", "InboxStats", "Lease"]
