"""Waits for a single event, for example in the middle of a test or a request."""

import asyncio
import math
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from attrs import define, field

from callfire_async._arguments import check_number
from callfire_async.notifications.events import Notification
from callfire_async.notifications.routing._user_code import as_exception, raise_exit

__all__ = ["EventWaiter"]

E = TypeVar("E", bound=Notification)


@define(eq=False)
class EventWaiter(Generic[E]):
    """A queue of handled events, in the order in which they were handled; created by `Router.expect`."""

    _accepts: Callable[[Notification], bool] = field(repr=False)
    _events: asyncio.Queue[E | Exception] = field(factory=asyncio.Queue, repr=False)

    async def get(self, timeout: float | None = None) -> E:
        """
        Wait for the next event.

        Args:
            timeout: Seconds. Default: no limit.

        Raises:
            TimeoutError: No event arrived in time. A later call may still return one.
            TypeError: *timeout* is not a number.
            ValueError: *timeout* is not finite.
            Exception: The exception that ``where`` raised for an event; if that is not an `Exception`, a
                `RuntimeError` with it as its ``__cause__``.
        """
        if timeout is not None:
            check_number("timeout", timeout, minimum=-math.inf)
        async with asyncio.timeout(timeout):
            event = await self._events.get()
        if isinstance(event, Exception):
            raise event
        return event

    def notify(self, event: Any) -> None:
        """Queue an event that is waited for, or the exception that ``where`` raises for it."""
        try:
            if self._accepts(event):
                self._events.put_nowait(event)
        except BaseException as error:  # noqa: BLE001  # user code may raise anything, and must not fail the dispatch
            raise_exit(error)
            self._events.put_nowait(as_exception(error, "where"))
