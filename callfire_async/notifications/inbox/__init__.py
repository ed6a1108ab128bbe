"""Durable queues between the HTTP response and the handlers: the `Inbox` protocol, and one package per engine."""

from callfire_async.notifications.inbox.base import Appended, Clock, Delivery, Entry, Inbox, Lease, Stats

__all__ = ["Appended", "Clock", "Delivery", "Entry", "Inbox", "Lease", "Stats"]
