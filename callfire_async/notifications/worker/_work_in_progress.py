"""The deliveries that a worker has claimed and not settled yet: extends their leases, and describes unfinished work."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from types import TracebackType
from typing import TypeAlias

from attrs import define, field

from callfire_async.notifications.attempt import Around, LeaseEnd
from callfire_async.notifications.inbox.base import Clock, Inbox, Lease, safe_message
from callfire_async.notifications.routing._user_code import inbox_result

__all__ = ["WorkInProgress"]

LeaseKey: TypeAlias = tuple[int | str, str]

_log = logging.getLogger("callfire_async.worker")


@define(eq=False)
class _NamedRun(AbstractContextManager[None]):
    """The run of a function of the user in a context, with its name in *functions*."""

    _functions: dict[LeaseKey, str]
    _key: LeaseKey
    _name: str
    _context: AbstractContextManager[object]

    def __enter__(self) -> None:
        self._functions[self._key] = self._name
        self._context.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._context.__exit__(kind, error, trace)
        finally:
            del self._functions[self._key]


@define(eq=False)
class WorkInProgress:
    """The deliveries of one run of a worker, from the claim until they are settled."""

    #: The task that handles, or is about to handle, a delivery.
    running: dict[asyncio.Task[None], Lease] = field(factory=dict)
    #: Ids of the deliveries that are being settled.
    settling: set[int | str] = field(factory=set)
    #: Calls that were cancelled, and whose effect is unknown.
    interrupted: list[str] = field(factory=list)
    #: Whether the worker has stopped.
    has_ended: bool = False
    #: The message of the last settle operation that failed.
    last_error: str = ""
    clock: Clock = field(factory=Clock)
    #: When the leases end that were neither settled nor released nor lost. A nacked delivery may have its next lease
    #: before the nack has returned.
    _leased: dict[LeaseKey, LeaseEnd] = field(factory=dict)
    #: Names of the functions of the user that run.
    _functions: dict[LeaseKey, str] = field(factory=dict)

    # --- leases -------------------------------------------------------------------------------------------

    async def add(self, inbox: Inbox, leases: Sequence[Lease], end: float, duration: float) -> Sequence[Lease]:
        """
        Add leases that were claimed, and that end at a time of the clock; return those that last long enough.

        If the claim took more than a third of their duration, they are extended. One that may end before the next
        extension is not returned: another worker may have it.
        """
        self._leased.update((_key(lease), LeaseEnd(end)) for lease in leases)
        if self.clock.seconds() <= end - duration * 2 / 3:
            return leases
        held = await asyncio.gather(*(self._extend(inbox, lease, duration) for lease in leases))
        earliest = self.clock.seconds() + duration / 3
        late = [
            lease
            for lease, is_held in zip(leases, held, strict=True)
            if not is_held or self._leased[_key(lease)].seconds < earliest
        ]
        await asyncio.gather(*(self._abandon(inbox, lease) for lease in late))
        return [lease for lease in leases if lease not in late]

    async def _abandon(self, inbox: Inbox, lease: Lease) -> None:
        """Release a lease, so that it does not count as a crash when it ends."""
        self.remove(lease)
        _log.warning("not handling delivery %s: its claim took too long", lease.id)
        with suppress(Exception):
            await inbox_result(lambda: inbox.release(lease))

    def remove(self, lease: Lease) -> None:
        """Remove a lease that was settled, released or lost."""
        self._leased.pop(_key(lease), None)

    def end_of(self, lease: Lease) -> LeaseEnd | None:
        """Return when a lease ends, which later extensions change; None if it was settled."""
        return self._leased.get(_key(lease))

    async def renew_leases(self, inbox: Inbox, duration: float) -> None:
        """Extend the leases of running deliveries each time a third of their duration has passed, until cancelled."""
        while True:
            await asyncio.sleep(duration / 3)
            # At once: if the inbox does not respond, each call takes until its timeout, and later leases would end.
            await asyncio.gather(*(self._renew(inbox, *item, duration) for item in self.running.items()))

    async def _renew(self, inbox: Inbox, task: asyncio.Task[None], lease: Lease, duration: float) -> None:
        if not self._needs_lease(task, lease) or await self._extend(inbox, lease, duration):
            return
        if self._needs_lease(task, lease):
            _log.warning("lost the lease of delivery %s; another worker may handle it too", lease.id)

    def _needs_lease(self, task: asyncio.Task[None], lease: Lease) -> bool:
        return task in self.running and lease.id not in self.settling

    async def _extend(self, inbox: Inbox, lease: Lease, duration: float) -> bool:
        """Extend a lease; return False if it was lost, True also if the inbox failed: two thirds are left to retry."""
        end = self.clock.seconds() + duration
        lease_end = self._leased.get(_key(lease), LeaseEnd(end))
        try:
            is_extended = await inbox_result(lambda: inbox.extend(lease, duration))
        except Exception as error:  # noqa: BLE001  # a custom inbox may raise anything, and the worker must continue
            _log.error(
                "cannot extend the lease of delivery %s, retrying in %g s: %s",
                *(lease.id, duration / 3, safe_message(error)),
            )
            return True
        if is_extended:
            lease_end.seconds = end
        return is_extended

    # --- handlers -----------------------------------------------------------------------------------------

    def around_handlers(self, lease: Lease, observed: Around) -> Around:
        """Return a function like *observed*, which also stores the name of the handler that runs for a delivery."""
        return lambda name: _NamedRun(self._functions, _key(lease), name, observed(name))

    def naming(self, lease: Lease) -> Around:
        """Return a function that stores the name of the function of the user that runs for a delivery."""
        return lambda name: _NamedRun(self._functions, _key(lease), name, nullcontext())

    # --- stopping -----------------------------------------------------------------------------------------

    def describe(self) -> Iterator[str]:
        """Describe everything that has not ended."""
        if self._leased:
            error = f" ({self.last_error})" if self.last_error else ""
            yield f"leases that expire on their own: {len(self._leased)}{error}"
        if names := sorted({self._function_of(lease) for lease in self.running.values()} - {""}):
            yield f"functions still running, which may keep the process from exiting: {', '.join(names)}"
        if self.interrupted:
            yield f"calls that were interrupted: {', '.join(self.interrupted)}"

    def _function_of(self, lease: Lease) -> str:
        """Return the name of the user's function that runs for a delivery; empty if the inbox is being called."""
        key = _key(lease)
        if key in self._functions:
            return self._functions[key]
        return "on_dead_letter" if lease.id in self.settling and key not in self._leased else ""


def _key(lease: Lease) -> LeaseKey:
    return lease.id, lease.token
