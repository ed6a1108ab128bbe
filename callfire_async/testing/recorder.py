"""A transport that records the postbacks of a `FakeCallFire` instead of sending them over the network."""

from typing import TypeVar

import httpx
from starlette.types import ASGIApp

from callfire_async.notifications.events import Notification
from callfire_async.notifications.parsing import parse_all

__all__ = ["PostbackRecorder"]

E = TypeVar("E", bound=Notification)


class PostbackRecorder(httpx.AsyncBaseTransport):
    """
    A transport for `FakeCallFire` that records postbacks in order.

    Args:
        app: ASGI application that receives every postback, whatever the endpoint's host. Without one, each postback
            gets 204.
    """

    def __init__(self, app: ASGIApp | None = None) -> None:
        #: The application that receives postbacks; can be replaced at any time.
        self.app = app
        self._recorded: list[tuple[str, tuple[Notification, ...]]] = []

    @property
    def urls(self) -> tuple[str, ...]:
        """The URL of each postback, in order."""
        return tuple(url for url, _ in self._recorded)

    def of(self, event_type: type[E]) -> list[E]:
        """Return the recorded events of a type, in order; ``Notification`` matches all of them."""
        return [event for _, events in self._recorded for event in events if isinstance(event, event_type)]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Record a postback, and return the application's response or 204."""
        events = parse_all(await request.aread(), request.headers["Content-Type"])
        self._recorded.append((str(request.url), events))
        if self.app is None:
            return httpx.Response(204)
        return await httpx.ASGITransport(self.app).handle_async_request(request)


PostbackRecorder.__module__ = "callfire_async.testing"
