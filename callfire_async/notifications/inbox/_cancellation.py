"""Waits for tasks no longer than a time limit, and cancels those that are still running then."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Iterable
from typing import Any, TypeAlias

from attrs import define, field

__all__ = [
    "CANCEL_SECONDS",
    "StopProgress",
    "cancel_all",
    "cancel_repeatedly",
    "count_cancellations",
    "finish_within",
    "wait_for_tasks",
]

Tasks: TypeAlias = Iterable[asyncio.Task[Any]]

#: How long `cancel_repeatedly` waits.
CANCEL_SECONDS = 0.5
# Time for one step of a task that closes several things one after the other.
_REPEAT_SECONDS = 0.1


def count_cancellations() -> int:
    """Return how often the current task was cancelled."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


@define(eq=False)
class StopProgress:
    """A stop that several parts carry out one after the other, in one task."""

    #: Descriptions of everything that has not ended in its time.
    unfinished: list[str] = field(factory=list)
    _cancellations: int = field(factory=count_cancellations)

    def begin(self) -> None:
        """Begin the stop: earlier cancellations do not count."""
        self._cancellations = count_cancellations()

    @property
    def is_cancelled(self) -> bool:
        """Whether the stop was cancelled, so that the parts must not wait for handlers and observers."""
        return count_cancellations() > self._cancellations


async def wait_for_tasks(tasks: Collection[asyncio.Task[Any]], seconds: float) -> None:
    """Wait up to *seconds* until all tasks have ended."""
    if tasks:
        await asyncio.wait(tasks, timeout=seconds)


async def cancel_all(tasks: Tasks, seconds: float) -> set[asyncio.Task[Any]]:
    """Cancel tasks, wait up to *seconds* for them, and return those that are still running."""
    running = {task for task in tasks if not task.done()}
    for task in running:
        task.cancel()
        task.add_done_callback(_retrieve_exception)
    if running:
        _, running = await asyncio.wait(running, timeout=seconds)
    return running


async def cancel_repeatedly(tasks: Tasks) -> set[asyncio.Task[Any]]:
    """
    Cancel tasks until they end, for half a second at most; return those that are still running.

    The cancellation is repeated, because a task may wait for several things before it ends.
    """
    deadline = asyncio.get_running_loop().time() + CANCEL_SECONDS
    running = await cancel_all(tasks, min(_REPEAT_SECONDS, CANCEL_SECONDS))
    while running and (remaining := deadline - asyncio.get_running_loop().time()) > 0:
        running = await cancel_all(running, min(_REPEAT_SECONDS, remaining))
    return running


async def finish_within(seconds: float, coroutine: Coroutine[Any, Any, object]) -> bool:
    """
    Run *coroutine* for up to *seconds*, then cancel it; return whether it has finished.

    It runs in a task of its own, which is left running if it ignores its cancellation. If it raises an exception, so
    does this.
    """
    task = asyncio.create_task(coroutine)
    try:
        await asyncio.wait([task], timeout=seconds)
    finally:
        await cancel_repeatedly([task])
    if not task.done() or task.cancelled():
        return False
    task.result()
    return True


def _retrieve_exception(task: asyncio.Task[Any]) -> None:
    """Retrieve the exception of a task that nothing awaits, which asyncio would otherwise log."""
    _ = task.cancelled() or task.exception()
