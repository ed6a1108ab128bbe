"""A simulated process with a receiver, which is started again after a crash or a stop."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from contextvars import ContextVar
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from simulation.directory import FileInbox, disk
from simulation.environment import Environment, now
from simulation.handlers import make_router
from simulation.postbacks import all_delivery_keys, make_postback
from simulation.remote_inbox import RemoteInbox
from simulation.server import Network, Server

from callfire_async.errors import InboxError
from callfire_async.notifications import Inbox, Receiver, RetryPolicy
from callfire_async.notifications.inbox.base import SUSPECT_CRASHES, Lease
from callfire_async.notifications.inbox.spool import SpoolingInbox
from callfire_async.notifications.inbox.sqlite._directory import SqliteDirectoryInbox

if TYPE_CHECKING:
    import simloom

SHUTDOWN_TIMEOUT = 5.0
DRAIN_TIMEOUT = 2.0
#: Seconds that a stop may take in addition to both: the sum of the limits of its steps.
STOP_MARGIN = 10.5
HANDLER_TIMEOUT = 4.0
#: Many attempts, so that no event becomes a dead letter because its handlers fail.
RETRY = RetryPolicy(max_attempts=50, initial_delay=0.5, max_delay=5.0)
#: A receiver is idle after this time without faults and postbacks, in seconds: by then a spool has probed its server.
IDLE_TIMEOUT = 120.0
#: A task that was cancelled needs a moment to end, in seconds.
CANCEL_TIME = 0.1
#: A process that could not start, or that crashed, is started again after this time, in seconds.
RESTART_INTERVAL = 1.0

#: The life of a process to which a task belongs.
_LIFE: ContextVar[str] = ContextVar("life")


class Process:
    """
    A process on a host of its own, with a receiver.

    A life is the time from a start to a stop or a crash; each has a receiver of its own.
    """

    def __init__(self, env: Environment, name: str) -> None:
        self.env = env
        self.name = name
        self.network = disk() if env.settings.has_directory else Network()
        self.network.crash = self.crash
        #: Whether the process has ended for good.
        self.is_gone = False
        self.spool = env.make_server(f"spool of {name}") if env.settings.has_spool else None
        self.is_ready = False
        self._lives = 0
        self._keys = all_delivery_keys(env.settings)

    @property
    def life(self) -> str:
        """The name of the current life."""
        return f"{self.name}.{self._lives}"

    @property
    def has_crashed(self) -> bool:
        """Whether the current life ended with a crash."""
        return self._host.crashed

    @property
    def servers(self) -> list[Server]:
        """The server of the spool, if there is one."""
        return [] if self.spool is None else [self.spool]

    @property
    def has_requests(self) -> bool:
        """Whether postbacks wait for their replies."""
        return bool(self._requests)

    def is_suspect(self, event: int) -> bool:
        """Return whether the current attempt began with the lease of a suspect; the event may have a newer one."""
        lease = self._leases[self._keys[event]]
        return self._attempts.setdefault(asyncio.current_task(), lease.crashes >= SUSPECT_CRASHES)

    # --- lifecycle ----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin a new life."""
        self._lives += 1
        self._stopping = asyncio.Event()
        self._requests: set[asyncio.Task[Any]] = set()
        self._attempts: dict[asyncio.Task[Any] | None, bool] = {}
        self.replies: Counter[int | str] = Counter()
        self._leases: dict[str, Lease] = {}
        self._confirmed: Counter[str] = Counter()
        self._spooled: Counter[str] = Counter()
        self.receiver = self._make_receiver()
        self._host: simloom.Host = self.env.world.host(self.life)
        self._main = self._host.spawn(self._serve, name=self.life)

    def _make_receiver(self) -> Receiver:
        return Receiver(
            make_router(self),
            tokens=None,
            inbox=self._make_inbox(),
            concurrency=4,
            handler_timeout=HANDLER_TIMEOUT,
            shutdown_timeout=SHUTDOWN_TIMEOUT,
            retry=RETRY,
        )

    def _make_inbox(self) -> Inbox:
        if self.env.settings.has_directory:
            return SqliteDirectoryInbox(self.env.directory, self._make_file)
        primary = RemoteInbox(self.env.server, self.network, leases=self._leases, confirmed=self._confirmed)
        if self.spool is None:
            return primary
        local = RemoteInbox(self.spool, disk(), is_exclusive=True, confirmed=self._spooled)
        return SpoolingInbox(primary, local, drain_timeout=DRAIN_TIMEOUT)

    def _make_file(self, path: PurePath, *, read_only: bool) -> Inbox:
        return FileInbox(
            self.env.directory.file(path.stem),
            self.network,
            is_exclusive=not read_only,
            leases=self._leases,
            confirmed=self._confirmed,
            directory=self.env.directory,
            life=self.life,
        )

    async def _serve(self) -> None:
        _LIFE.set(self.life)
        if await self._open_receiver():
            self.is_ready = True
            await self._stopping.wait()
            self.is_ready = False
            await self._close_receiver()

    async def _open_receiver(self) -> bool:
        """Start the receiver, retrying while its server is unreachable; return False if the process stops first."""
        while not self._stopping.is_set():
            try:
                await self.receiver.__aenter__()
            except InboxError:
                await asyncio.sleep(RESTART_INTERVAL)
            else:
                return True
        return False

    async def _close_receiver(self) -> None:
        started = now()
        await self.receiver.__aexit__(None, None, None)
        seconds, limit = now() - started, SHUTDOWN_TIMEOUT + STOP_MARGIN + (DRAIN_TIMEOUT if self.spool else 0.0)
        if seconds > limit:
            self._report(f"the stop took {seconds:.1f} s, more than {limit:g} s")
        await asyncio.sleep(CANCEL_TIME)
        if remaining := self._remaining_tasks():
            self._report(f"tasks remained after the stop: {remaining}")

    def _remaining_tasks(self) -> list[str]:
        tasks = asyncio.all_tasks() - {self._main}
        mine = [task for task in tasks if task.get_context().get(_LIFE) == self.life]
        return sorted(task.get_coro().__qualname__ for task in mine)

    def _report(self, violation: str) -> None:
        self.env.history.violations.append(f"{self.life}: {violation}")

    def crash(self) -> None:
        """End the process at once, as SIGKILL does."""
        if self.has_crashed:
            return
        self.is_ready = False
        self._host.crash()
        self.env.directory.unlock(self.life)
        self.restart_at = now() + self.env.rng.uniform(*self.env.settings.restart_seconds)
        self._requests.clear()
        self.env.history.end_life(self.life)

    async def stop(self) -> None:
        """Stop the process in order, as SIGTERM does; it may crash meanwhile."""
        self._stopping.set()
        main, host = self._main, self._host
        while not (main.done() or host.crashed):
            await asyncio.wait([main], timeout=0.5)
        if main.done():
            main.result()

    # --- postbacks ----------------------------------------------------------------------------------------

    def post(self, number: int) -> None:
        """Send a postback to the process; nothing happens while it is not ready."""
        if not self.is_ready:
            return
        request = self._host.spawn(lambda: self._post(number), name=f"postback {number}")
        self._requests.add(request)
        request.add_done_callback(self._requests.discard)
        if self.env.happens(self.env.settings.cancelled_rate):
            self.env.server.call_later(self.env.rng.uniform(0.0, 0.1), request.cancel)

    async def _post(self, number: int) -> None:
        _LIFE.set(self.life)
        self.replies["none"] += 1
        with suppress(asyncio.CancelledError):
            reply = await self.receiver.receive(make_postback(number, self.env.settings))
            self.replies.update({reply.status: 1, "none": -1})
            if reply.status == 204:
                self.env.history.acknowledged.add(number)

    # --- counters -----------------------------------------------------------------------------------------

    async def check_counters(self) -> None:
        """Compare what the receiver has counted since its start with what it did; once it is idle."""
        await self.receiver.idle(IDLE_TIMEOUT)
        stats, done = await self.receiver.stats(), self._confirmed
        duplicates = self._confirmed["duplicate"] + self._spooled["duplicate"]
        counted = {"handled": stats.handled, "dead": stats.dead, "duplicates": stats.duplicates}
        if counted != {"handled": done["event"], "dead": done["dead_letter"], "duplicates": duplicates}:
            self._report(f"wrong counters: {counted}, and what happened: {dict(done)}, {duplicates} duplicates")
        if done["nack"] > stats.failed:
            self._report(f"{stats.failed} failed attempts were counted, and {done['nack']} deliveries were nacked")
        refused = stats.refused.get("storage", 0)
        if not self.replies[503] <= refused <= self.replies[503] + self.replies["none"]:
            self._report(f"{refused} postbacks were counted as not stored, and the replies were {dict(self.replies)}")
