"""The inbox of one process, which calls a simulated server."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime
from typing import Any, Self

from attrs import define, field
from simulation.server import Network, Operation, Server

from callfire_async.errors import InboxUnavailableError
from callfire_async.notifications.inbox.base import AppendResult, Delivery, InboxEntry, InboxStats, Lease
from callfire_async.notifications.inbox.memory import MemoryInbox

#: How long an inbox waits for the response of its server, in seconds.
RESPONSE_TIMEOUT = 5.0
#: After which time an inbox asks for new work, at least and at most, in seconds: its server sends no notifications.
POLL_SECONDS = (0.1, 5.0)


@define(eq=False)
class RemoteInbox:
    """An `Inbox` on a `Server`."""

    server: Server
    network: Network
    #: Whether opening ends all leases, as in an inbox that belongs to one process.
    is_exclusive: bool = False
    #: The newest lease that this process received, by key of the delivery.
    leases: dict[str, Lease] = field(factory=dict)
    #: Operations of which the process knows that they succeeded.
    confirmed: Counter[str] = field(factory=Counter)

    async def __aenter__(self) -> Self:
        await self._call("open", self._open)
        return self

    async def _open(self, inbox: MemoryInbox) -> None:
        if self.is_exclusive:
            await inbox.__aenter__()
            self.server.history.end_leases(self.server.name)

    async def __aexit__(self, *_: object) -> None:
        pass

    async def _call(self, name: str, operation: Operation, lease: Lease | None = None) -> Any:
        response: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.server.request(self.network, name, operation, lease, response)
        try:
            async with asyncio.timeout(RESPONSE_TIMEOUT):
                return await response
        except TimeoutError:
            raise InboxUnavailableError(f"no response to {name}") from None

    async def _settle(self, name: str, operation: Operation, lease: Lease) -> bool:
        is_settled = await self._call(name, operation, lease)
        self.confirmed[name] += is_settled
        return is_settled

    # --- appending ----------------------------------------------------------------------------------------

    async def append(self, delivery: Delivery) -> AppendResult:
        (result,) = await self.append_many([delivery])
        self.confirmed["duplicate"] += result.duplicate
        return result

    async def append_many(self, deliveries: Sequence[Delivery]) -> list[AppendResult]:
        return await self._call("append", lambda inbox: inbox.append_many(deliveries))

    # --- leases -------------------------------------------------------------------------------------------

    async def claim(self, limit: int, *, lease: float) -> list[Lease]:
        leases = await self._call("claim", lambda inbox: inbox.claim(limit, lease=lease))
        self.leases.update({each.delivery.key: each for each in leases})
        return leases

    async def extend(self, lease: Lease, seconds: float) -> bool:
        return await self._call("extend", lambda inbox: inbox.extend(lease, seconds), lease)

    async def ack(self, lease: Lease, *, event_key: str = "") -> bool:
        is_settled = await self._settle("ack", lambda inbox: inbox.ack(lease, event_key=event_key), lease)
        self.confirmed["event"] += is_settled and event_key != ""
        return is_settled

    async def nack(
        self, lease: Lease, *, delay: float, completed: frozenset[str] = frozenset(), reason: str = ""
    ) -> bool:
        return await self._settle(
            "nack", lambda inbox: inbox.nack(lease, delay=delay, completed=completed, reason=reason), lease
        )

    async def release(self, lease: Lease, *, completed: frozenset[str] = frozenset()) -> bool:
        return await self._settle("release", lambda inbox: inbox.release(lease, completed=completed), lease)

    async def dead_letter(self, lease: Lease, reason: str, *, completed: frozenset[str] = frozenset()) -> bool:
        return await self._settle(
            "dead_letter", lambda inbox: inbox.dead_letter(lease, reason, completed=completed), lease
        )

    # --- administration -----------------------------------------------------------------------------------

    async def handled(self, event_keys: Iterable[str]) -> frozenset[str]:
        keys = list(event_keys)
        return await self._call("handled", lambda inbox: inbox.handled(keys))

    async def get(self, id: int | str) -> InboxEntry | None:
        return await self._call("get", lambda inbox: inbox.get(id))

    async def entries(self, state: str | None = None) -> AsyncIterator[InboxEntry]:
        async def collect(inbox: MemoryInbox) -> list[InboxEntry]:
            return [entry async for entry in inbox.entries(state)]

        for entry in await self._call("entries", collect):
            yield entry

    async def replay(self, ids: Iterable[int | str] | None = None) -> int:
        return await self._call("replay", lambda inbox: inbox.replay(ids))

    async def purge(self, *, done_before: datetime | None = None, dead_before: datetime | None = None) -> int:
        return await self._call("purge", lambda inbox: inbox.purge(done_before=done_before, dead_before=dead_before))

    async def stats(self) -> InboxStats:
        return await self._call("stats", lambda inbox: inbox.stats())

    async def wait(self, timeout: float) -> None:
        if self.is_exclusive:
            # The deliveries come from this process.
            await self.server.inbox.wait(timeout)
        else:
            await asyncio.sleep(min(timeout, self.server.rng.uniform(*POLL_SECONDS)))
