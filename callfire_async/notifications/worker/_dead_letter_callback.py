"""Calls the user's ``on_dead_letter``."""

import logging
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from callfire_async.errors import HandlerErrors
from callfire_async.notifications.inbox.base import Inbox, InboxEntry, safe_message
from callfire_async.notifications.routing._failures import FailureLog
from callfire_async.notifications.routing._user_code import exceptions_by_name, inbox_result, user_result

__all__ = ["OnDeadLetter", "report_dead_letter"]

OnDeadLetter: TypeAlias = Callable[[InboxEntry], Awaitable[None]]

_log = logging.getLogger("callfire_async.worker")


async def report_dead_letter(
    inbox: Inbox, id: int | str, on_dead_letter: OnDeadLetter, timeout: float | None, failure_log: FailureLog
) -> None:
    """Read a dead letter and call *on_dead_letter* with it, for up to *timeout* seconds; log the failure of either."""
    try:
        entry = await inbox_result(lambda: inbox.get(id))
    except Exception as error:  # noqa: BLE001  # a custom inbox may raise anything, and the delivery is settled
        _log.error("cannot read dead letter %s, not calling on_dead_letter: %s", id, safe_message(error))
        return
    if entry is not None:
        await _call(on_dead_letter, entry, timeout, failure_log)


async def _call(
    on_dead_letter: OnDeadLetter, entry: InboxEntry, timeout: float | None, failure_log: FailureLog
) -> None:
    try:
        await user_result(timeout, "on_dead_letter", on_dead_letter, entry)
    except HandlerErrors as errors:
        (error,) = exceptions_by_name(errors).values()
        failure_log.log("on_dead_letter", error, f"delivery {entry.id} remains a dead letter", delivery_id=entry.id)
