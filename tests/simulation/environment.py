"""What all parts of a simulated run share."""

from __future__ import annotations

import asyncio
import contextvars
from random import Random
from typing import TYPE_CHECKING, Any

from attrs import define, field
from simulation.directory import SharedDirectory
from simulation.history import History
from simulation.server import Server
from simulation.settings import Settings

if TYPE_CHECKING:
    import simloom


@define(eq=False)
class Environment:
    """The world of one run. It is created in the event loop of the run."""

    world: simloom.World
    settings: Settings
    rng: Random
    history: History = field(factory=History)
    server: Server = field(init=False)
    directory: SharedDirectory = field(init=False)
    _context: contextvars.Context = field(init=False, factory=contextvars.copy_context)

    def __attrs_post_init__(self) -> None:
        self.server = self.make_server("server")
        self.directory = SharedDirectory(self.make_server)

    def make_server(self, name: str) -> Server:
        """Return a new server or file; it belongs to no process, even if one creates it."""
        return self._context.run(Server, name, self.history, self.rng)

    @property
    def primaries(self) -> list[Server]:
        """The servers or files from which deliveries are handled."""
        return list(self.directory.files.values()) if self.settings.has_directory else [self.server]

    def happens(self, rate: float) -> bool:
        """Return whether something happens that has this rate."""
        return self.rng.random() < rate


def set_task_order(rng: Random) -> None:
    """Give a random order to the sets of tasks in this event loop, which otherwise depends on addresses in memory."""

    class OrderedTask(asyncio.Task[Any]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            # First, because a task is added to sets while it is created.
            self._hash = rng.getrandbits(60)
            super().__init__(*arguments, **options)

        def __hash__(self) -> int:
            return self._hash

    asyncio.get_running_loop().set_task_factory(
        lambda loop, coroutine, **options: OrderedTask(coroutine, loop=loop, **options)
    )


def now() -> float:
    """Return the simulated time, in seconds."""
    return asyncio.get_running_loop().time()
