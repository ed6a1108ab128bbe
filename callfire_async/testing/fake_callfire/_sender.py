"""
Postbacks over HTTP, as CallFire sends them.

It imports `models`, `notifications.events`, `encoding` and `faults`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

import httpx
from attrs import evolve, field, frozen

from callfire_async.models import NotificationFormat, Subscription, masked_endpoint
from callfire_async.notifications.encoding import encode
from callfire_async.notifications.events import Key, Notification

__all__ = ["POSTED_FORMATS", "OutgoingPostback", "PostbackResult", "PostbackSender", "build_postback"]

#: The formats in which an event is posted; ``EMAIL`` goes to a mailbox, and nobody knows ``LEGACY`` any more.
POSTED_FORMATS = frozenset([NotificationFormat.XML, NotificationFormat.JSON, NotificationFormat.SOAP])


@frozen
class OutgoingPostback:
    """What is to be posted where."""

    subscription_id: int
    endpoint: str = field(repr=masked_endpoint)
    key: Key
    content_type: str
    body: bytes = field(repr=False)


@frozen
class PostbackResult:
    """What became of one postback."""

    #: Which subscription it was for.
    subscription_id: int
    #: The HTTP status that the endpoint answered; None where no answer came.
    status: int | None
    #: Seconds from the start of the request to the end of the answer, or to its failure.
    latency: float
    #: The key of the event.
    key: Key


def build_postback(event: Notification, subscription: Subscription) -> OutgoingPostback:
    """Word an event as a subscription asked for it."""
    asked_for = subscription.notification_format or NotificationFormat.XML
    content_type, body = encode(evolve(event, subscription_id=subscription.id), asked_for)
    return OutgoingPostback(subscription.id, subscription.endpoint or "", event.key, content_type, body)


class PostbackSender:
    """A pool of connections to endpoints."""

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport | None,
        *,
        concurrency: int,
        timeout: float,
        clock: Callable[[], float],
    ) -> None:
        # As many connections are kept as may be under way: an idle one less would be opened anew all the time.
        limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
        self._client = httpx.AsyncClient(transport=transport or httpx.AsyncHTTPTransport(limits=limits))
        self._slots = asyncio.Semaphore(concurrency)
        self._timeout = httpx.Timeout(timeout).as_dict()
        self._clock = clock

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def post(self, what: OutgoingPostback, *, cut: bool = False) -> PostbackResult:
        """Post once; with *cut*, only half of the body."""
        async with self._slots:
            started = self._clock()
            status = await self._status_of(self._request(what, cut=cut))
            return PostbackResult(what.subscription_id, status, self._clock() - started, what.key)

    async def _status_of(self, request: httpx.Request) -> int | None:
        try:
            return (await self._client.send(request)).status_code
        except httpx.TransportError:
            return None

    def _request(self, what: OutgoingPostback, *, cut: bool) -> httpx.Request:
        # Made by hand, so that it bears the headers that CallFire was seen to send and none of httpx's own.
        headers = {
            "User-Agent": "CallFire-HTTP/1.0",
            "Content-Type": what.content_type,
            "Content-Length": str(len(what.body)),
            "Connection": "Keep-Alive",
        }
        content = _half(what.body) if cut else what.body
        return httpx.Request(
            "POST", what.endpoint, headers=headers, content=content, extensions={"timeout": self._timeout}
        )


async def _half(body: bytes) -> AsyncIterator[bytes]:
    yield body[: len(body) // 2]
    raise httpx.WriteError("cut in the middle of the body, as was asked for")


PostbackResult.__module__ = "callfire_async.testing"
