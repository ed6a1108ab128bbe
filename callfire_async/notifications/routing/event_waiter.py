"""
Waiting for an event in the middle of other work.

It imports `events`.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from attrs import define, field

from callfire_async.notifications.events import Notification

__all__ = ["EventWaiter", "_WaiterRegistry"]

E = TypeVar("E", bound=Notification)


@define(eq=False)
class EventWaiter(Generic[E]):
    """Events that somebody waits for, in the order in which they were handled; made by `Router.expect`."""

    _accepts: Callable[[Notification], bool] = field(repr=False)
    _seen: asyncio.Queue[E | Exception] = field(factory=asyncio.Queue, repr=False)

    async def get(self, timeout: float | None = None) -> E:
        """
        Wait for the next event.

        Args:
            timeout: Seconds; without end, unless given.

        Raises:
            TimeoutError: None came in time. It may still come: ask again.
            Exception: What ``where`` raised for an event.
        """
        async with asyncio.timeout(timeout):
            seen = await self._seen.get()
        if isinstance(seen, Exception):
            raise seen
        return seen

    def show(self, event: Any) -> None:
        """Keep an event for whoever waits, if it is one of those; keep what ``where`` raised for them too."""
        try:
            if self._accepts(event):
                self._seen.put_nowait(event)
        except Exception as error:  # noqa: BLE001  # the user's own code, and none of the dispatch's business
            self._seen.put_nowait(error)


class _WaiterRegistry:
    """All that somebody waits for, by type of event, so that an event is shown to few of many."""

    def __init__(self) -> None:
        #: By type of event; empty where nobody waits.
        self.waiting: dict[type[Notification], dict[EventWaiter[Any], None]] = {}

    @contextmanager
    def register(self, event_type: type[Notification], expected: EventWaiter[Any]) -> Iterator[None]:
        """Show it events of a type for as long as this lasts."""
        waiting = self.waiting.setdefault(event_type, {})
        waiting[expected] = None
        try:
            yield
        finally:
            del waiting[expected]
            if not waiting:
                self.waiting.pop(event_type, None)

    def show(self, event: Notification) -> None:
        """Show an event to all who may wait for it."""
        for kind in type(event).__mro__:
            for expected in self.waiting.get(kind, ()):
                expected.show(event)
