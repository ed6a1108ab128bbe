"""`ReceiverStats`: the counts of a receiver."""

from collections.abc import Mapping

from attrs import frozen

from callfire_async.notifications.inbox.base import InboxStats

__all__ = ["ReceiverStats"]


@frozen
class ReceiverStats:
    """The counts of a receiver since it was created, and those of its inbox."""

    #: Number of rejected requests, by reason: those of `RequestRecord.refused` except ``no notification``.
    refused: Mapping[str, int]
    #: Deliveries that the inbox had already; 0 without an inbox.
    duplicates: int
    #: Events that are not documented: of an unknown root element, or of an unknown resource or event of API v2.
    unknown: int
    #: Events that matched no handler.
    unhandled: int
    #: Deliveries whose handlers have all succeeded.
    handled: int
    #: Attempts in which a handler failed.
    failed: int
    #: Deliveries that became dead letters; 0 without an inbox.
    dead: int
    #: None without an inbox.
    inbox: InboxStats | None
