"""Replaces the delivery of an envelope that has several events with one delivery for each event."""

import asyncio
import logging
from collections.abc import Sequence

from callfire_async.notifications.inbox.base import Delivery, Inbox, Lease, safe_message
from callfire_async.notifications.retry import Outcome
from callfire_async.notifications.routing._user_code import inbox_result

__all__ = ["deliveries_of", "store_events"]

_log = logging.getLogger("callfire_async.worker")

_RETRY_INTERVAL_SECONDS = 1.0
# An inbox that is full accepts the events once other deliveries were handled, for which the worker needs the slot.
_MAX_TRIES = 30
_NEXT_ATTEMPT_SECONDS = 60.0
_MAX_ATTEMPTS = 12


def deliveries_of(
    envelope: Delivery, bodies: Sequence[bytes], envelope_id: int | str | None = None
) -> tuple[Delivery, ...]:
    """Return a delivery for each event of an envelope; *bodies* are the envelope with one event each, in UTF-8."""
    return tuple(
        Delivery(body, "application/json", envelope.received_at, f"{envelope.key}/{index}", envelope_id=envelope_id)
        for index, body in enumerate(bodies)
    )


async def store_events(inbox: Inbox, lease: Lease, bodies: Sequence[bytes]) -> Outcome:
    """
    Store a delivery for each event of a leased envelope, retrying for half a minute; return the envelope's outcome.

    An event that is stored already, because an earlier split was interrupted, does not change. If the events cannot be
    stored, the envelope is retried later without regard to the retry policy, which is for handlers.
    """
    deliveries = deliveries_of(lease.delivery, bodies, lease.id)
    cause = await _append_with_retry(inbox, lease, deliveries)
    if not cause:
        return Outcome.split()
    reason = f"cannot store its {len(deliveries)} events: {cause}"
    if lease.attempt < _MAX_ATTEMPTS:
        return Outcome.nack(_NEXT_ATTEMPT_SECONDS, frozenset(), reason)
    return Outcome.dead_letter(reason)


async def _append_with_retry(inbox: Inbox, lease: Lease, deliveries: Sequence[Delivery]) -> str:
    """Append deliveries; return an empty string, or the message of the last error."""
    cause = ""
    for number in range(_MAX_TRIES):
        try:
            await inbox_result(lambda: inbox.append_many(deliveries))
        except Exception as error:  # noqa: BLE001  # a custom inbox may raise anything, and the envelope is still leased
            cause = safe_message(error)
            if not number:
                _log_failure(lease, deliveries, cause)
            await asyncio.sleep(_RETRY_INTERVAL_SECONDS)
        else:
            return ""
    return cause


def _log_failure(lease: Lease, deliveries: Sequence[Delivery], cause: str) -> None:
    _log.error(
        "cannot store the %d events of delivery %s, retrying every %g s: %s",
        *(len(deliveries), lease.id, _RETRY_INTERVAL_SECONDS, cause),
    )
