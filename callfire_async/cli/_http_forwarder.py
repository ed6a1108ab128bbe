"""Postbacks handed on to another URL as they came: the same bytes, the same content type."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from attrs import frozen

from callfire_async.cli._output import escape_control_characters
from callfire_async.cli._validators import check_url
from callfire_async.notifications.inbox.base import Delivery

__all__ = ["ForwardResult", "HttpForwarder", "forwarder"]

# CallFire's own patience is not known; a handler has as long as this.
TIMEOUT_SECONDS = 25.0
# As much of an answer as a person reads in a terminal.
_SHOWN_LETTERS = 500


@frozen
class ForwardResult:
    """What came back."""

    #: None where no answer came.
    status: int | None
    seconds: float
    #: The beginning of the body, or why none came; empty where all went well.
    words: str = ""

    @property
    def is_success(self) -> bool:
        """Whether it was taken."""
        return self.status is not None and 200 <= self.status < 300


@frozen
class HttpForwarder:
    """Hands deliveries on to one URL."""

    client: httpx.AsyncClient
    url: str

    async def forward(self, delivery: Delivery) -> ForwardResult:
        """Post a delivery once; never raises for what the other side does."""
        started = time.monotonic()
        headers = {} if delivery.content_type is None else {"Content-Type": delivery.content_type}
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                response = await self.client.post(self.url, content=delivery.body, headers=headers)
        except (httpx.HTTPError, TimeoutError) as error:
            return ForwardResult(None, time.monotonic() - started, type(error).__name__)
        words = (
            "" if response.is_success else escape_control_characters(" ".join(response.text.split())[:_SHOWN_LETTERS])
        )
        return ForwardResult(response.status_code, time.monotonic() - started, words)


@asynccontextmanager
async def forwarder(url: str | None) -> AsyncIterator[HttpForwarder | None]:
    """Open what hands on to *url*; nothing where that is None."""
    if url is None:
        yield None
        return
    check_url("--forward-to", url)
    async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS, trust_env=False) as client:
        yield HttpForwarder(client, url)
