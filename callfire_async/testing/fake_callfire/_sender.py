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

# Servers such as uvicorn close a connection that is idle for 5 s, and a postback is not repeated.
_KEEPALIVE_SECONDS = 4.0
_CUT = "the fake cut the connection in the middle of the body"


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
    """Sends postbacks over a pool of connections, or through a transport of httpx."""

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport | None,
        *,
        concurrency: int,
        timeout: float,
        clock: Callable[[], float],
    ) -> None:
        self._poster = _ConnectionPool(timeout) if transport is None else _TransportPoster(transport, timeout)
        self._slots = asyncio.Semaphore(concurrency)
        self._clock = clock

    async def aclose(self) -> None:
        """Close the connections."""
        await self._poster.aclose()

    async def post(self, postback: OutgoingPostback, *, cut: bool = False) -> PostbackResult:
        """Send a postback once; with *cut*, only half of its body."""
        async with self._slots:
            started = self._clock()
            status = await self._poster.post(postback, cut=cut)
            latency = self._clock() - started
        return PostbackResult(
            postback.subscription_id, status, latency, postback.key, webhook_id=postback.webhook_id, keys=postback.keys
        )


class _ConnectionPool:
    """Posts over TCP with aiohttp, which needs a fraction of httpx's CPU time."""

    def __init__(self, timeout: float) -> None:
        import aiohttp  # takes long, and a transport does not need it

        # Without a limit, since the sender's slots are one.
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_SECONDS)
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=["Accept", "Accept-Encoding"],
            auto_decompress=False,
        )
        # UnicodeError: a host name with an empty or too long label.
        self._failures = (aiohttp.ClientError, TimeoutError, UnicodeError)

    async def post(self, postback: OutgoingPostback, *, cut: bool) -> int | None:
        """Return the status of the response, or None without one."""
        content = _half(postback.body, ConnectionAbortedError(_CUT)) if cut else postback.body
        try:
            async with self._session.post(
                postback.endpoint, data=content, headers=_headers(postback), allow_redirects=False
            ) as response:
                await response.read()
                return response.status
        except self._failures:
            return None

    async def aclose(self) -> None:
        await self._session.close()


class _TransportPoster:
    """Posts through a transport of httpx, for example to an application in this process."""

    def __init__(self, transport: httpx.AsyncBaseTransport, timeout: float) -> None:
        self._client = httpx.AsyncClient(transport=transport)
        self._timeout = httpx.Timeout(timeout).as_dict()

    async def post(self, postback: OutgoingPostback, *, cut: bool) -> int | None:
        """Return the status of the response, or None without one."""
        content = _half(postback.body, httpx.WriteError(_CUT)) if cut else postback.body
        try:
            # `AsyncClient.build_request` would add httpx's own headers.
            request = httpx.Request(
                "POST",
                postback.endpoint,
                headers=_headers(postback),
                content=content,
                extensions={"timeout": self._timeout},
            )
            return (await self._client.send(request)).status_code
        except (httpx.TransportError, httpx.InvalidURL):
            return None

    async def aclose(self) -> None:
        await self._client.aclose()


def _headers(postback: OutgoingPostback) -> dict[str, str]:
    """Return only the headers that CallFire sends."""
    headers = {
        "User-Agent": "CallFire-HTTP/1.0",
        "Content-Type": postback.content_type,
        "Content-Length": str(len(postback.body)),
        "Connection": "Keep-Alive",
    }
    if postback.signature is not None:
        headers[SIGNATURE_HEADER] = postback.signature
    return headers


async def _half(body: bytes, error: Exception) -> AsyncIterator[bytes]:
    yield body[: len(body) // 2]
    raise error


PostbackResult.__module__ = "callfire_async.testing"
