"""`Texts` and `Calls`: list, fetch and send texts and calls."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import datetime
from functools import partial
from typing import Any, Generic, TypedDict, Unpack

from callfire_async.client._operations.api_1_1 import (
    MAX_RESULTS,
    A,
    checked_filters,
    checked_page_size,
    get_action,
    query_actions,
    send_call,
    send_text,
)
from callfire_async.client._pagination import iter_pages
from callfire_async.client.connection import Connection
from callfire_async.models import (
    ActionState,
    Call,
    IvrBroadcastConfig,
    Page,
    ResourceReference,
    Result,
    Text,
    VoiceBroadcastConfig,
)

__all__ = ["Calls", "Filters", "Texts", "TextsOrCalls"]

# More than any account can have, so that a list ends whatever CallFire returns.
MAX_LISTED = 10**9


class Filters(TypedDict, total=False):
    """The filters of texts and of calls; `Texts.query` describes each."""

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

    Each method raises the errors of `Connection.execute`, and `TypeError` or `ValueError` for a wrong parameter,
    before anything is sent.
    """

    _kind: type[A]

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def get(self, id: int) -> A:
        """Return one text or call; raise `NotFoundError` if it does not exist."""
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
        Return one page of the items that match all given filters.

        Args:
            max_results: Maximum number of items, 1 to 1000.
            first_result: Index of the first item in the whole list, from 0.
            broadcast_id: ID of the broadcast, as returned by `Texts.send`.
            batch_id: ID of the batch of contacts.
            state: One state or several.
            result: One result or several.
            inbound: Whether to return inbound or outbound items only; default: both.
            interval_begin: Earliest time, truncated to the second; a naive time is sent without an offset. CallFire
                does not document which timestamp it is compared with.
            interval_end: Latest time, rounded up to the second; otherwise as *interval_begin*.
            from_number: The sender's number.
            to_number: The recipient's number, one or several.
            label_name: Name of a label of the item.
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

    def all(self, *, page_size: int = MAX_RESULTS, **filters: Unpack[Filters]) -> AsyncIterator[A]:
        """
        Yield all items that match the filters of `query`, each once, fetching *page_size* (1 to 1000) at a time.

        Always ends, even if CallFire returns no total or short pages.
        """
        checked_page_size(page_size)
        # Each page is a new request, so an iterator has to become a tuple.
        return self._all(page_size, checked_filters(filters))

    async def _all(self, page_size: int, filters: Mapping[str, Any]) -> AsyncIterator[A]:
        query = partial(self.query, **filters)
        async for page in iter_pages(query, page_size=page_size, max_items=MAX_LISTED):
            for action in page.items:
                yield action


class Texts(TextsOrCalls[Text]):
    """
    The texts of an account, and sending texts.

    Each method raises the errors of `Connection.execute`, and `TypeError` or `ValueError` for a wrong parameter,
    before anything is sent.
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

        CallFire does not document what a repeated ``RequestId`` does to this operation, so it is never retried after
        any part of the request may have been sent. An error of unknown outcome has a note that the text may have been
        sent.

        Args:
            to: The recipients' numbers, one or several, without white space or commas.
            message: The message; not empty.
            from_number: Your number or short code to send from; default: CallFire chooses.
            broadcast_name: Name of the new broadcast.
            big_message_strategy: How CallFire handles a message that is too long for one text: ``SEND_MULTIPLE``,
                ``DO_NOT_SEND`` or ``TRIM``.

        Returns:
            The broadcast; its ID is the ``broadcast_id`` of the texts, one for each recipient.
        """
        values = {
            "to": to,
            "message": message,
            "from_number": from_number,
            "broadcast_name": broadcast_name,
            "big_message_strategy": big_message_strategy,
        }
        return await self._connection.execute(send_text(values))


class Calls(TextsOrCalls[Call]):
    """
    The calls of an account, and placing calls.

    Each method raises the errors of `Connection.execute`, and `TypeError` or `ValueError` for a wrong parameter,
    before anything is sent.
    """

    _kind = Call

    async def send(
        self,
        to: str | Iterable[str],
        config: VoiceBroadcastConfig | IvrBroadcastConfig,
        *,
        broadcast_name: str | None = None,
        max_active: int | None = None,
        scrub_broadcast_duplicates: bool | None = None,
    ) -> ResourceReference:
        """
        Call one number or several, as a broadcast of its own.

        As `Texts.send`, it is never retried after any part of the request may have been sent. An error of unknown
        outcome has a note that the call may have been placed.

        Args:
            to: The recipients' numbers, one or several, without white space or commas.
            config: What is played and the number to call from (``from_number``): sounds, or a dialplan in XML.
                ``id`` and ``created`` are not sent.
            broadcast_name: Name of the new broadcast.
            max_active: Maximum number of concurrent calls, at least 1.
            scrub_broadcast_duplicates: Whether CallFire calls a repeated number only once.

        Returns:
            The broadcast; its ID is the ``broadcast_id`` of the calls, one for each recipient.
        """
        values = {
            "to": to,
            "config": config,
            "broadcast_name": broadcast_name,
            "max_active": max_active,
            "scrub_broadcast_duplicates": scrub_broadcast_duplicates,
        }
        return await self._connection.execute(send_call(values))
