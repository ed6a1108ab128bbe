"""
The intake does not wait for handlers: postbacks are acknowledged while every handler takes ten seconds.

They are posted over real HTTP to a receiver in a process of its own (uvicorn, one inbox on disk), each connection
sending the next postback once the last was answered. ``TMPDIR`` names a folder on the disk to be measured.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks.rows import Costs, Effort, Row

POSTS = 10_000
CONNECTIONS = 16
HANDLER_SECONDS = 10
# So many are posted first: what a process allocates once is no growth.
WARM_UP = 500


def _slow_handlers(effort: Effort) -> Costs:
    posts = effort.of(POSTS, least=50)
    return Costs(
        asyncio.run(_seconds(posts, effort, lambda _: f"wait {HANDLER_SECONDS}")),
        asyncio.run(_seconds(posts, effort, lambda _: "")),
    )


async def _seconds(posts: int, effort: Effort, message: Callable[[int], str]) -> float:
    """Return how long a postback takes to be acknowledged, of so many over all connections."""
    from notifications.crash.ledger import Ledger  # noqa: PLC0415  # from the tests, which may not be there
    from notifications.crash.poster import Poster  # noqa: PLC0415  # likewise
    from notifications.crash.processes import free_port, no_survivors  # noqa: PLC0415  # likewise
    from notifications.crash.server import Settings  # noqa: PLC0415  # likewise

    async def post(port: int, numbers: Iterable[int]) -> None:
        poster = Poster(port, message, numbers)
        await poster.post_all(CONNECTIONS)

    with tempfile.TemporaryDirectory() as folder, free_port() as port:
        ledger = Ledger(Path(folder) / "journal", Path(folder) / "inbox")
        async with no_survivors(
            Settings(str(ledger.journal), str(ledger.inbox), port, shutdown_timeout=0.0)
        ) as processes:
            await processes.start_ready()
            warm_up = effort.of(WARM_UP, least=20)
            await post(port, range(warm_up))
            begun = time.perf_counter()
            await post(port, range(warm_up, warm_up + posts))
            return (time.perf_counter() - begun) / posts


ROWS = (
    Row(
        f"a postback stored and answered over HTTP while each handler takes {HANDLER_SECONDS} seconds",
        "with handlers that return at once",
        1.1,
        _slow_handlers,
    ),
)
