"""The handlers of the simulated receivers: they succeed, fail, run into their timeout, or crash their process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from simulation.history import Run

from callfire_async.notifications import Router, TextFinished

if TYPE_CHECKING:
    from simulation.process import Process

#: Names of the handlers of each event.
HANDLERS = ("first", "second")


def make_router(process: Process) -> Router:
    """Return a router whose handlers record what they do."""
    router = Router()
    for name in HANDLERS:
        router.on(TextFinished, name=name)(_make_handler(name, process))
    return router


def _make_handler(name: str, process: Process) -> Callable[[TextFinished], Awaitable[None]]:
    async def handle(event: TextFinished) -> None:
        run = Run(event.text.id, name, process.life, process.is_suspect(event.text.id))
        process.env.history.start_run(run)
        with _recorded(run):
            await _behave(run, process)

    return handle


@contextmanager
def _recorded(run: Run) -> Iterator[None]:
    try:
        yield
    except BaseException:
        run.outcome = "failed"
        raise
    run.outcome = "succeeded"


async def _behave(run: Run, process: Process) -> None:
    settings, rng = process.env.settings, process.env.rng
    await asyncio.sleep(rng.uniform(0.0, 0.3))
    if run.event < settings.crashing_events and run.handler == HANDLERS[0]:
        process.crash()
        await _hang()
    if process.env.happens(settings.failure_rate):
        raise RuntimeError("planned")
    if process.env.happens(settings.hang_rate):
        await _hang()


async def _hang() -> None:
    await asyncio.sleep(3600.0)
