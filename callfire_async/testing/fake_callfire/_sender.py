"""Send postbacks over HTTP as CallFire does."""

import asyncio
from collections.abc import AsyncIterator, Callable

import httpx
from attrs import evolve, field, frozen

from callfire_async.models import NotificationFormat, Subscription, masked_endpoint
from callfire_async.notifications.encoding import encode
from callfire_async.notifications.events import Key, Notification

__all__ = ["POSTED_FORMATS", "OutgoingPostback", "PostbackResult", "PostbackSender", "build_postback"]

#: The formats that are posted over HTTP; ``EMAIL`` is sent to a mailbox, and ``LEGACY`` is not documented.
POSTED_FORMATS = frozenset([NotificationFormat.XML, NotificationFormat.JSON, NotificationFormat.SOAP])


@frozen
class OutgoingPostback:
    """A postback to be sent."""

    subscription_id: int
    endpoint: str = field(repr=masked_endpoint)
    key: Key
    content_type: str
    body: bytes = field(repr=False)


@frozen
class PostbackResult:
    """The result of one postback."""

    #: ID of the subscription.
    subscription_id: int
    #: The endpoint's HTTP status; None if it did not respond.
    status: int | None
    #: Seconds from the start of the request to the end of the response, or to its failure.
    latency: float
    #: The event's key.
    key: Key


def build_postback(event: Notification, subscription: Subscription) -> OutgoingPostback:
    """Encode an event in the subscription's format."""
    format = subscription.notification_format or NotificationFormat.XML
    content_type, body = encode(evolve(event, subscription_id=subscription.id), format)
    return OutgoingPostback(subscription.id, subscription.endpoint or "", event.key, content_type, body)


class PostbackSender:
    """Sends postbacks over a pool of connections."""

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport | None,
        *,
        concurrency: int,
        timeout: float,
        clock: Callable[[], float],
    ) -> None:
        # Keep every connection open: with fewer idle ones, a full pool would reconnect for each postback.
        limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
        self._client = httpx.AsyncClient(transport=transport or httpx.AsyncHTTPTransport(limits=limits))
        self._slots = asyncio.Semaphore(concurrency)
        self._timeout = httpx.Timeout(timeout).as_dict()
        self._clock = clock

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def post(self, postback: OutgoingPostback, *, cut: bool = False) -> PostbackResult:
        """Send a postback once; with *cut*, only half of its body."""
        async with self._slots:
            started = self._clock()
            status = await self._send(self._request(postback, cut=cut))
            return PostbackResult(postback.subscription_id, status, self._clock() - started, postback.key)

    async def _send(self, request: httpx.Request) -> int | None:
        try:
            return (await self._client.send(request)).status_code
        except httpx.TransportError:
            return None

    def _request(self, postback: OutgoingPostback, *, cut: bool) -> httpx.Request:
        # Only the headers that CallFire sends; `AsyncClient.build_request` would add httpx's own.
        headers = {
            "User-Agent": "CallFire-HTTP/1.0",
            "Content-Type": postback.content_type,
            "Content-Length": str(len(postback.body)),
            "Connection": "Keep-Alive",
        }
        content = _half(postback.body) if cut else postback.body
        return httpx.Request(
            "POST", postback.endpoint, headers=headers, content=content, extensions={"timeout": self._timeout}
        )


async def _half(body: bytes) -> AsyncIterator[bytes]:
    yield body[: len(body) // 2]
    raise httpx.WriteError("the fake cut the connection in the middle of the body")


PostbackResult.__module__ = "callfire_async.testing"
