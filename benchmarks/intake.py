"""
Intake with slow handlers: postbacks are acknowledged while each handler takes ten seconds.

Postbacks are sent over HTTP to a receiver in a new process (uvicorn, one inbox on disk); each connection sends the next
postback after the response to the last. Set ``TMPDIR`` to a directory on the disk to be measured.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks.rows import Costs, Effort, Row

POSTBACKS = 10_000
CONNECTIONS = 16
HANDLER_SECONDS = 10
# Sent first, because a new process is slower.
WARM_UP = 500


def _slow_handlers(effort: Effort) -> Costs:
    postbacks = effort.of(POSTBACKS, minimum=50)
    return Costs(
        asyncio.run(_seconds(postbacks, effort, lambda _: f"wait {HANDLER_SECONDS}")),
        asyncio.run(_seconds(postbacks, effort, lambda _: "")),
    )


async def _seconds(postbacks: int, effort: Effort, message: Callable[[int], str]) -> float:
    """Return the seconds per acknowledged postback, over all connections."""
    from notifications.crash.poster import Poster  # noqa: PLC0415  # the tests may not be there
    from notifications.crash.processes import free_port, run_processes  # noqa: PLC0415  # the tests may not be there
    from notifications.crash.results import HandlerResults  # noqa: PLC0415  # the tests may not be there
    from notifications.crash.server import Settings  # noqa: PLC0415  # the tests may not be there

    async def post(port: int, numbers: Iterable[int]) -> None:
        poster = Poster(port, message, numbers)
        await poster.post_all(CONNECTIONS)

    with tempfile.TemporaryDirectory() as directory, free_port() as port:
        results = HandlerResults(Path(directory) / "journal", Path(directory) / "inbox")
        async with run_processes(
            Settings(str(results.journal), str(results.inbox), port, shutdown_timeout=0.0)
        ) as processes:
            await processes.start_ready()
            warm_up = effort.of(WARM_UP, minimum=20)
            await post(port, range(warm_up))
            start = time.perf_counter()
            await post(port, range(warm_up, warm_up + postbacks))
            return (time.perf_counter() - start) / postbacks


ROWS = (
    Row(
        f"a postback stored and acknowledged over HTTP while each handler takes {HANDLER_SECONDS} seconds",
        "with handlers that return immediately",
        1.1,
        _slow_handlers,
    ),
)
