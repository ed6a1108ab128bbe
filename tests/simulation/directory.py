"""The directory of inbox files that simulated processes on one host share, as with `SqliteInbox.in_directory`."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Self

from attrs import define, field
from simulation.remote_inbox import RemoteInbox
from simulation.server import Network, Operation, Server

from callfire_async.errors import InboxError, InboxLockedError
from callfire_async.notifications.inbox.base import AppendResult, Delivery, Lease
from callfire_async.notifications.inbox.memory import MemoryInbox

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: Range of the time that a disk needs, in seconds; each operation needs it twice.
LATENCY = (0.0001, 0.002)


@define(eq=False)
class SharedDirectory:
    """The files of a directory and their owners, with the methods of a path that the inbox uses."""

    make_server: Callable[[str], Server]
    #: The files by name; they outlive the processes.
    files: dict[str, Server] = field(factory=dict)
    owners: dict[str, FileInbox] = field(factory=dict)

    def absolute(self) -> Self:
        return self

    def is_file(self) -> bool:
        return False

    def mkdir(self, **_: object) -> None:
        pass

    def glob(self, _: str) -> Iterator[PurePath]:
        return (PurePath(f"{name}.db") for name in self.files)

    def __truediv__(self, name: str) -> PurePath:
        return PurePath(name)

    def file(self, name: str) -> Server:
        """Return a file; a new one is created."""
        if name not in self.files:
            self.files[name] = self.make_server(f"file {name}")
        return self.files[name]

    def unlock(self, life: str) -> None:
        """End the locks of a process that has crashed."""
        self.owners = {name: owner for name, owner in self.owners.items() if owner.life != life}


@define(eq=False)
class FileInbox(RemoteInbox):
    """An inbox in one file of the directory, as one process has opened it."""

    directory: SharedDirectory = field(kw_only=True)
    life: str = field(kw_only=True)

    @property
    def name(self) -> str:
        return self.server.name.removeprefix("file ")

    async def __aenter__(self) -> Self:
        if self.is_exclusive:
            if self.name in self.directory.owners:
                raise InboxLockedError(f"{self.name} is locked")
            self.directory.owners[self.name] = self
        try:
            return await super().__aenter__()
        except BaseException:
            await self.__aexit__()
            raise

    async def __aexit__(self, *_: object) -> None:
        if self._is_locked:
            del self.directory.owners[self.name]

    @property
    def _is_locked(self) -> bool:
        return self.directory.owners.get(self.name) is self

    async def _call(self, name: str, operation: Operation, lease: Lease | None = None) -> Any:
        def call_if_open(inbox: MemoryInbox) -> Coroutine[Any, Any, Any]:
            # What a process has requested does not outlive it: another one may own the file by now.
            if self.is_exclusive and not self._is_locked:
                raise InboxError(f"{self.name} is not open")
            return operation(inbox)

        return await super()._call(name, call_if_open, lease)

    async def append_many(self, deliveries: Sequence[Delivery]) -> list[AppendResult]:
        results = await super().append_many(deliveries)
        # The receiver counts duplicates among postbacks, not among the events of an envelope.
        pairs = zip(deliveries, results, strict=True)
        self.confirmed["duplicate"] += sum(each.envelope_id is None and result.duplicate for each, result in pairs)
        return results


def disk() -> Network:
    """Return the connection of a process to its disk."""
    return Network(LATENCY)
