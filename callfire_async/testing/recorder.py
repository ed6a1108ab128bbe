"""
Postbacks that stay in memory: what a fake CallFire posts, kept to be looked at.

It imports `notifications.events` and `parsing`.
"""

from typing import TypeVar

import httpx
from starlette.types import ASGIApp

from callfire_async.notifications.events import Notification
from callfire_async.notifications.parsing import parse

__all__ = ["PostbackRecorder"]

E = TypeVar("E", bound=Notification)


class PostbackRecorder(httpx.AsyncBaseTransport):
    """
    The transport of a `FakeCallFire` whose postbacks reach no network: kept here, in order, and answered.

    Args:
        app: The ASGI application that they go on to, whatever the host of the endpoint; answered 204 without one.
    """

    def __init__(self, app: ASGIApp | None = None) -> None:
        #: May be set at any time.
        self.app = app
        self._posted: list[tuple[str, Notification]] = []

    @property
    def urls(self) -> tuple[str, ...]:
        """Where each was posted to."""
        return tuple(url for url, _ in self._posted)

    def of(self, event_type: type[E]) -> list[E]:
        """Return the events of a type, in the order in which they were posted; ``Notification`` is any."""
        return [event for _, event in self._posted if isinstance(event, event_type)]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Keep one, and answer it."""
        event = parse(await request.aread(), request.headers["Content-Type"])
        self._posted.append((str(request.url), event))
        if self.app is None:
            return httpx.Response(204)
        return await httpx.ASGITransport(self.app).handle_async_request(request)


PostbackRecorder.__module__ = "callfire_async.testing"
