"""Wait for changes that servers make."""

import asyncio
from collections.abc import Awaitable, Callable

POLL_SECONDS = 0.01


async def until(condition: Callable[[], Awaitable[bool]], *, deadline: float) -> None:
    """Wait until a condition is true; raise `TimeoutError` after *deadline* seconds."""
    async with asyncio.timeout(deadline):
        while not await condition():  # noqa: ASYNC110  # servers set no events
            await asyncio.sleep(POLL_SECONDS)
