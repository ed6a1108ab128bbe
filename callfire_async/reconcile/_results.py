"""Wait for the results of a broadcast: poll CallFire, and listen to the postbacks."""

import asyncio
import logging
from collections.abc import AsyncIterator

from attrs import define, field

from callfire_async.client.texts_and_calls import Texts
from callfire_async.errors import RateLimitError, ServerError, TransportError
from callfire_async.models import ActionState, ResourceReference, Text
from callfire_async.notifications.events import TextFinished, is_final
from callfire_async.notifications.routing.router import Router

__all__ = ["broadcast_results"]

_log = logging.getLogger("callfire_async.reconcile")

# A text in one of these goes no further, whether or not it ever gets a result. The others may be tried again.
_ENDED = frozenset(
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
    Yield the texts of a broadcast as they come to their ends, one for each recipient.

    CallFire is asked at once, so that nothing is missed that ended before; then a postback that *router* handles in
    this process counts, or the next poll, whichever is first. It ends when CallFire, asked last, lists texts and all
    of them have ended: a broadcast that has none is waited for until the caller gives up (`asyncio.timeout`). A poll
    that CallFire does not answer, or answers with 429 or 5xx, is left to the next one; the first must succeed.

    Args:
        broadcast: What `Texts.send` answered, or its id.
        texts: ``callfire.texts``.
        router: The receiver's.
        poll: Seconds between two polls.

    Raises:
        ValueError: *poll* is not positive.
        CallFireError: A poll failed for good.
    """
    if not poll > 0:
        raise ValueError("poll must be more than 0 seconds")
    broadcast_id = broadcast if isinstance(broadcast, int) else broadcast.id
    recipients = _BroadcastTracker(texts, broadcast_id)
    async with router.expect(TextFinished, where=lambda event: event.text.broadcast_id == broadcast_id) as expected:
        while not recipients.are_settled:
            async for text in recipients.poll():
                yield text
            due = asyncio.get_running_loop().time() + poll
            while not recipients.all_ended:
                try:
                    event = await expected.get(timeout=due - asyncio.get_running_loop().time())
                except TimeoutError:
                    break
                if recipients.is_new_result(event.text):
                    yield event.text


@define(eq=False)
class _BroadcastTracker:
    """Which texts of a broadcast are known, and which of them have ended."""

    _texts: Texts
    _broadcast_id: int
    _known: set[int] = field(factory=set)
    _ended: set[int] = field(factory=set)
    _polls: int = 0
    #: Whether all had ended when CallFire was last asked.
    are_settled: bool = False

    @property
    def all_ended(self) -> bool:
        return bool(self._known) and len(self._ended) == len(self._known)

    def is_new_result(self, text: Text) -> bool:
        """Note a text; tell whether it has ended, and was not known to have."""
        self._known.add(text.id)
        if text.id in self._ended or not (is_final(text) or text.state in _ENDED):
            return False
        self._ended.add(text.id)
        return True

    async def poll(self) -> AsyncIterator[Text]:
        """List the texts; yield the news."""
        try:
            async for text in self._texts.all(broadcast_id=self._broadcast_id):
                if self.is_new_result(text):
                    yield text
            self.are_settled = self.all_ended
        except (TransportError, ServerError, RateLimitError) as error:
            if not self._polls:
                raise
            _log.warning("the texts of broadcast %d are asked for again later: %s", self._broadcast_id, error)
        self._polls += 1
