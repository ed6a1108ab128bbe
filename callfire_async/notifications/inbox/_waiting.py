"""Logs at once that an inbox waits for a server or a lock when it is opened."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["log_slow_start"]

_log = logging.getLogger("callfire_async.inbox")

# A shorter start is not worth a log line.
_SLOW_SECONDS = 1.0


@asynccontextmanager
async def log_slow_start(awaited: str, timeout: float) -> AsyncIterator[None]:
    """
    Log one warning if the block takes longer than a second.

    Args:
        awaited: The server or lock that the block waits for.
        timeout: Seconds after which the caller gives up.
    """
    loop = asyncio.get_running_loop()
    timer = loop.call_later(_SLOW_SECONDS, _log.warning, "waiting for %s, up to %g s", awaited, timeout)
    try:
        yield
    finally:
        timer.cancel()
