"""List, fetch and send texts; list and fetch calls."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from datetime import datetime
from functools import partial
from typing import Any, Generic, TypedDict, Unpack

from callfire_async.client._operations.api_1_1 import MAX_RESULTS, A, get_action, query_actions, send_text
from callfire_async.client._pagination import iter_pages
from callfire_async.client.connection import Connection
from callfire_async.models import ActionState, Call, Page, ResourceReference, Result, Text

__all__ = ["Calls", "Filters", "Texts", "TextsOrCalls"]

# More than an account can have: whatever CallFire answers, a list ends.
MAX_LISTED = 10**9


class Filters(TypedDict, total=False):
    """Which texts or calls are listed; described at `Texts.query`, and alike for calls."""

    broadcast_id: int | None
    batch_id: int | None
    state: ActionState | Iterable[ActionState] | None
    result: Result | Iterable[Result] | None
    inbound: bool | None
    interval_begin: datetime | None
    interval_end: datetime | None
    from_number: str | None
    to_number: str | Iterable[str] | None
    label_name: str | None


class TextsOrCalls(Generic[A]):
    """
    The texts, or the calls, of an account.

    Each method raises what `Connection.execute` does; parameters out of their range raise `ValueError` before
    anything is sent.
    """

    _kind: type[A]

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def get(self, id: int) -> A:
        """Fetch one; `NotFoundError` where there is none."""
        return await self._connection.execute(get_action(self._kind, id))

    async def query(
        self,
        *,
        max_results: int = MAX_RESULTS,
        first_result: int = 0,
        broadcast_id: int | None = None,
        batch_id: int | None = None,
        state: ActionState | Iterable[ActionState] | None = None,
        result: Result | Iterable[Result] | None = None,
        inbound: bool | None = None,
        interval_begin: datetime | None = None,
        interval_end: datetime | None = None,
        from_number: str | None = None,
        to_number: str | Iterable[str] | None = None,
        label_name: str | None = None,
    ) -> Page[A]:
        """
        Fetch one page of those that fit every filter that is given.

        Args:
            max_results: How many at most, 1 to 1000.
            first_result: The number of the first one in the whole list, from 0.
            broadcast_id: The broadcast they belong to: what `Texts.send` answers.
            batch_id: The batch of contacts they belong to.
            state: One state or several.
            result: One result or several.
            inbound: Whether they came in; both, unless given.
            interval_begin: Not earlier than this, to the second; a time without an offset is sent as it is. Which of
                their times CallFire compares is not documented.
            interval_end: Not later, likewise.
            from_number: Who they are from.
            to_number: Who they are to, one or several.
            label_name: A label that they bear.
        """
        filters = {
            "broadcast_id": broadcast_id,
            "batch_id": batch_id,
            "state": state,
            "result": result,
            "inbound": inbound,
            "interval_begin": interval_begin,
            "interval_end": interval_end,
            "from_number": from_number,
            "to_number": to_number,
            "label_name": label_name,
        }
        operation = query_actions(self._kind, filters, max_results=max_results, first_result=first_result)
        return await self._connection.execute(operation)

    async def all(self, *, page_size: int = MAX_RESULTS, **filters: Unpack[Filters]) -> AsyncIterator[A]:
        """
        Yield every one that fits, none twice, *page_size* (1 to 1000) at a time; the filters are those of `query`.

        Always ends, also where CallFire says no total or gives short pages.
        """
        async for step in iter_pages(partial(self.query, **_once(filters)), page_size=page_size, most=MAX_LISTED):
            for action in step.items:
                yield action


class Texts(TextsOrCalls[Text]):
    """
    The texts of an account: what became of them, and sending them.

    Each method raises what `Connection.execute` does; parameters out of their range raise `ValueError` before
    anything is sent.
    """

    _kind = Text

    async def send(
        self,
        to: str | Iterable[str],
        message: str,
        *,
        from_number: str | None = None,
        broadcast_name: str | None = None,
        big_message_strategy: str | None = None,
    ) -> ResourceReference:
        """
        Send a text to one number or several, as a broadcast of its own.

        It is never sent again once a byte may have left, since CallFire documents no protection against duplicates for
        it: an error of unknown outcome bears a note that the text may have been sent.

        Args:
            to: The recipients' numbers, one or several, without white space or commas in them.
            message: What it says; not empty.
            from_number: Your number or short code that it comes from; CallFire's choice, unless given.
            broadcast_name: What the broadcast is to be called.
            big_message_strategy: What is done with a message that is too long for one text: ``SEND_MULTIPLE``,
                ``DO_NOT_SEND`` or ``TRIM``.

        Returns:
            The broadcast; its id is the ``broadcast_id`` of the texts, one for each recipient.
        """
        values = {
            "to": to,
            "message": message,
            "from": from_number,
            "broadcast_name": broadcast_name,
            "big_message_strategy": big_message_strategy,
        }
        return await self._connection.execute(send_text(values))


class Calls(TextsOrCalls[Call]):
    """
    The calls of an account: what became of them.

    Each method raises what `Connection.execute` does; parameters out of their range raise `ValueError` before
    anything is sent.
    """

    _kind = Call


def _once(filters: Filters) -> Filters:
    """Keep what can be iterated over only once: each page asks for it anew."""
    kept: Any = {
        name: tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else value
        for name, value in filters.items()
    }
    return kept  # type: ignore[no-any-return]  # the names are those of the filters
