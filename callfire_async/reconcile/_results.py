"""Results of a broadcast, from polls of CallFire and from postbacks."""

import asyncio
import logging
from collections.abc import AsyncIterator

from attrs import define, field

from callfire_async._arguments import check_number
from callfire_async.client.texts_and_calls import Texts
from callfire_async.errors import RateLimitError, ServerError, TransportError
from callfire_async.models import ActionState, ResourceReference, Text, checked_integer
from callfire_async.notifications.events import TextFinished, is_final
from callfire_async.notifications.routing.event_waiter import EventWaiter
from callfire_async.notifications.routing.router import Router

__all__ = ["broadcast_results"]

_log = logging.getLogger("callfire_async.reconcile")

# States that a text does not leave, even if it never gets a result. CallFire may retry a text in any other state.
_END_STATES = frozenset(
    [
        ActionState.SKIPPED,
        ActionState.DNC,
        ActionState.DUP,
        ActionState.INVALID,
        ActionState.TIMEOUT,
        ActionState.RESTRICTED_NUMBER,
    ]
)


async def broadcast_results(
    broadcast: ResourceReference | int, *, texts: Texts, router: Router, poll: float = 30.0
) -> AsyncIterator[Text]:
    """
    Yield each text of a broadcast once it has ended, one for each recipient.

    The first poll is made at once, so that texts that ended earlier are found. After that, results come from postbacks
    that *router* handles in this process, and from a poll every *poll* seconds. The iterator ends when a poll lists at
    least one text and all listed texts have ended. A broadcast without texts is polled until the caller gives up (use
    `asyncio.timeout`). A poll that fails with a transport error, 429 or 5xx is logged and repeated; the first one must
    succeed.

    Args:
        broadcast: The return value of `Texts.send`, or the broadcast's id.
        texts: ``callfire.texts``.
        router: The receiver's router.
        poll: Seconds between polls.

    Raises:
        TypeError: *broadcast* is not an id, or *poll* is not a number.
        ValueError: *poll* is not positive, or not finite.
        CallFireError: A poll failed and is not repeated.
    """
    check_number("poll", poll, is_exclusive=True)
    broadcast_id = checked_integer("broadcast", getattr(broadcast, "id", broadcast))
    tracker = _BroadcastTracker(texts, broadcast_id)
    async with router.expect(TextFinished, where=lambda event: event.text.broadcast_id == broadcast_id) as waiter:
        while True:
            async for text in tracker.poll():
                yield text
            if tracker.is_settled:
                return
            async for text in tracker.listen(waiter, poll):
                yield text


@define(eq=False)
class _BroadcastTracker:
    """Track which texts of a broadcast are known, and which have ended."""

    _texts: Texts
    _broadcast_id: int
    _known_ids: set[int] = field(factory=set)
    _ended_ids: set[int] = field(factory=set)
    _has_polled: bool = False
    #: Whether the last successful poll listed texts, and all had ended.
    is_settled: bool = False

    @property
    def has_ended(self) -> bool:
        """Whether there are texts and all of them have ended."""
        return bool(self._known_ids) and len(self._ended_ids) == len(self._known_ids)

    def is_new_result(self, text: Text) -> bool:
        """Record a text; return whether it has ended and that was not known yet."""
        self._known_ids.add(text.id)
        if text.id in self._ended_ids or not (is_final(text) or text.state in _END_STATES):
            return False
        self._ended_ids.add(text.id)
        return True

    async def poll(self) -> AsyncIterator[Text]:
        """List the texts of the broadcast; yield the new results."""
        is_listed = False
        try:
            async for text in self._texts.all(broadcast_id=self._broadcast_id):
                is_listed = True
                if self.is_new_result(text):
                    yield text
            self.is_settled = is_listed and self.has_ended
        except (TransportError, ServerError, RateLimitError) as error:
            if not self._has_polled:
                raise
            _log.warning("cannot list the texts of broadcast %d, retrying later: %s", self._broadcast_id, error)
        self._has_polled = True

    async def listen(self, waiter: EventWaiter[TextFinished], seconds: float) -> AsyncIterator[Text]:
        """Yield the new results from postbacks for *seconds*, or until one is the last of the known texts."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + seconds
        while True:
            try:
                event = await waiter.get(timeout=deadline - clock())
            except TimeoutError:
                return
            if self.is_new_result(event.text):
                yield event.text
                # Only after a new result: a poll that failed, or listed nothing, must not be repeated at once.
                if self.has_ended:
                    return
