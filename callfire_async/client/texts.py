"""
Texts: what became of them, and sending them.

It imports `actions` and what stands above it.
"""

from __future__ import annotations

from collections.abc import Iterable

from callfire_async.client._operations.api_1_1 import send_text
from callfire_async.client.texts_and_calls import Actions
from callfire_async.models import ResourceReference, Text

__all__ = ["Texts"]


class Texts(Actions[Text]):
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
