"""Send postbacks over HTTP as CallFire does."""

import asyncio
from collections.abc import AsyncIterator, Callable

import httpx
from attrs import Factory, field, frozen

from callfire_async.models import masked_endpoint
from callfire_async.notifications.events import Key
from callfire_async.notifications.security.signatures import SIGNATURE_HEADER

__all__ = ["OutgoingPostback", "PostbackResult", "PostbackSender"]

_ONLY_KEY = Factory(lambda self: (self.key,), takes_self=True)


@frozen
class OutgoingPostback:
    """A postback to be sent, to a subscription or to a webhook."""

    subscription_id: int | None
    endpoint: str = field(repr=masked_endpoint)
    key: Key
    content_type: str
    body: bytes = field(repr=False)
    webhook_id: int | None = None
    keys: tuple[Key, ...] = _ONLY_KEY
    signature: str | None = field(default=None, repr=False)


@frozen
class PostbackResult:
    """The result of one postback."""

    #: ID of the subscription; None if it was posted to a webhook.
    subscription_id: int | None
    #: The endpoint's HTTP status; None if it did not respond.
    status: int | None
    #: Seconds from the start of the request to the end of the response, or to its failure.
    latency: float
    #: The event's key; of several events the first one's.
    key: Key
    #: ID of the webhook; None if it was posted to a subscription.
    webhook_id: int | None = None
    #: The keys of all events in the postback.
    keys: tuple[Key, ...] = _ONLY_KEY


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
            latency = self._clock() - started
        return PostbackResult(
            postback.subscription_id, status, latency, postback.key, webhook_id=postback.webhook_id, keys=postback.keys
        )

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
        if postback.signature is not None:
            headers[SIGNATURE_HEADER] = postback.signature
        content = _half(postback.body) if cut else postback.body
        return httpx.Request(
            "POST", postback.endpoint, headers=headers, content=content, extensions={"timeout": self._timeout}
        )


async def _half(body: bytes) -> AsyncIterator[bytes]:
    yield body[: len(body) // 2]
    raise httpx.WriteError("the fake cut the connection in the middle of the body")


PostbackResult.__module__ = "callfire_async.testing"
