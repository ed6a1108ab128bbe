"""Waiting for what servers do by themselves."""

import asyncio
from collections.abc import Awaitable, Callable

POLL_SECONDS = 0.01


async def until(holds: Callable[[], Awaitable[bool]], *, deadline: float) -> None:
    """Wait for something to hold; `TimeoutError` where it does not in time."""
    async with asyncio.timeout(deadline):
        while not await holds():  # noqa: ASYNC110  # a server's doing
            await asyncio.sleep(POLL_SECONDS)
