"""Forward deliveries to a URL with their original body and content type, signed."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from attrs import frozen

from callfire_async.cli._output import escape_control_characters
from callfire_async.cli._validators import check_url
from callfire_async.client.failure_reasons import failure_reason
from callfire_async.notifications.inbox.base import Delivery
from callfire_async.notifications.security.signatures import SIGNATURE_HEADER, SigningSecrets

__all__ = ["ForwardResult", "HttpForwarder", "open_forwarder"]

# CallFire's own timeout is not documented.
TIMEOUT_SECONDS = 25.0
_MAX_SHOWN_CHARACTERS = 500


@frozen
class ForwardResult:
    """The response to a forwarded delivery."""

    #: None without a response.
    status: int | None
    seconds: float
    #: The beginning of an error response's body, or why there was no response.
    message: str = ""

    @property
    def is_success(self) -> bool:
        """Whether the response is 2xx."""
        return self.status is not None and 200 <= self.status < 300


@frozen
class HttpForwarder:
    """Posts deliveries to one URL."""

    client: httpx.AsyncClient
    url: str
    #: Sign each delivery, because an inbox does not store the original signature.
    secrets: SigningSecrets | None = None

    async def forward(self, delivery: Delivery) -> ForwardResult:
        """Post a delivery once; return HTTP errors as results."""
        started = time.monotonic()
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                response = await self.client.post(self.url, content=delivery.body, headers=self._headers(delivery))
        except (httpx.HTTPError, TimeoutError) as error:
            return ForwardResult(None, time.monotonic() - started, failure_reason(error) or type(error).__name__)
        message = "" if response.is_success else " ".join(response.text.split())[:_MAX_SHOWN_CHARACTERS]
        return ForwardResult(response.status_code, time.monotonic() - started, escape_control_characters(message))

    def _headers(self, delivery: Delivery) -> dict[str, str]:
        headers = {} if delivery.content_type is None else {"Content-Type": delivery.content_type}
        return headers | ({SIGNATURE_HEADER: self.secrets.sign(delivery.body)} if self.secrets else {})


@asynccontextmanager
async def open_forwarder(url: str | None, secrets: SigningSecrets | None = None) -> AsyncIterator[HttpForwarder | None]:
    """Open a forwarder; None without a URL."""
    if url is None:
        yield None
        return
    check_url("--forward-to", url)
    async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS, trust_env=False) as client:
        yield HttpForwarder(client, url, secrets)
