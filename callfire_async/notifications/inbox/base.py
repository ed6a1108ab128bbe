"""The `Inbox` protocol, its values, and the rules that all engines share."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Protocol, Self, TypeVar

from attrs import Factory, field, frozen

from callfire_async._arguments import type_name
from callfire_async.errors import InboxError

__all__ = ["AppendResult", "Clock", "Delivery", "Inbox", "InboxEntry", "InboxStats", "Lease"]

T = TypeVar("T")

# A delivery with this many crashes is a suspect: it is claimed alone.
SUSPECT_CRASHES = 2
# A hundred years. The servers' types of times cannot hold much more, nor infinity.
MAX_SECONDS = 100 * 365 * 86400.0


def _default_key(delivery: "Delivery") -> str:
    """Return the SHA-256 of the body."""
    try:
        return hashlib.sha256(delivery.body).hexdigest()
    except TypeError:
        raise TypeError(f"body must be bytes, not {type_name(delivery.body)}") from None


@frozen(slots=False)
class Delivery:
    """
    A postback as it was received.

    Raises:
        TypeError: *received_at* is not a datetime, or there is no *key* and *body* is not bytes.
        ValueError: *received_at* has no UTC offset.
    """

    #: The request's body, unchanged.
    body: bytes = field(repr=False)
    #: The ``Content-Type`` header: a hint for `parse`.
    content_type: str | None = None
    #: A time with a UTC offset. Default: now.
    received_at: datetime = field(factory=lambda: datetime.now(UTC))
    #: Within ``dedupe_window``, deliveries with the same key are one delivery. Default: the SHA-256 of the body.
    key: str = field(default=Factory(_default_key, takes_self=True))
    #: The ID of the delivery of an envelope of API v2 of which this is one event. For `Inbox.append_many`; not stored.
    envelope_id: int | str | None = field(default=None, eq=False, repr=False, kw_only=True)

    def __attrs_post_init__(self) -> None:
        """Check that the time has an offset."""
        _check_aware("received_at", self.received_at)


@frozen(slots=False)
class AppendResult:
    """The result of appending one delivery."""

    #: ID of the delivery; for a duplicate, the ID of the delivery that exists.
    id: int | str
    #: Whether a delivery with this key existed.
    duplicate: bool


@frozen(slots=False)
class Lease:
    """The right of one worker to handle a delivery for a limited time."""

    #: ID of the delivery.
    id: int | str
    #: Unique among the leases of this delivery; the inbox checks it when the lease is settled.
    token: str = field(repr=False)
    #: Number of the attempt, starting at 1.
    attempt: int
    #: Number of leases of this delivery that expired without being settled.
    crashes: int
    #: The delivery to handle.
    delivery: Delivery
    #: Names of the handlers that have succeeded.
    completed: frozenset[str]


@frozen
class InboxEntry:
    """A delivery and its state."""

    #: ID of the delivery.
    id: int | str
    #: ``ready`` (due), ``delayed`` (waits for its next attempt), ``leased``, ``done`` or ``dead``, as in `InboxStats`;
    #: a delivery whose lease has expired is ready.
    state: str
    #: Once done, the body is empty, unless the inbox keeps bodies.
    delivery: Delivery
    #: Number of the next, current or last attempt, starting at 1.
    attempt: int
    #: Number of leases that expired without being settled.
    crashes: int
    #: Why the last attempt failed, or why the delivery is dead: names of handlers and types of errors, or the message
    #: of a `Reject`. Empty once done.
    reason: str
    #: When the delivery last changed, with a UTC offset.
    updated_at: datetime


@frozen
class InboxStats:
    """Number of deliveries by state."""

    #: Deliveries that are due.
    ready: int = 0
    #: Deliveries that wait for their next attempt.
    delayed: int = 0
    #: Deliveries that a worker holds.
    leased: int = 0
    #: Handled deliveries that ``retention`` has not deleted yet.
    done: int = 0
    #: Dead letters.
    dead: int = 0
    #: Seconds since the oldest ready delivery became due; None if no delivery is ready.
    oldest_ready_age: float | None = None


class Clock:
    """
    The time of one process: the system clock when it starts, advanced by the monotonic clock.

    A change of the system clock therefore neither makes deliveries due nor keeps them leased.
    """

    def __init__(
        self, monotonic: Callable[[], float] = time.monotonic, system: Callable[[], float] = time.time
    ) -> None:
        self._monotonic = monotonic
        self._offset = system() - monotonic()

    def seconds(self) -> float:
        """Return the seconds since 1970-01-01 UTC."""
        return self._monotonic() + self._offset


def parse_row_id(id: int | str) -> int:
    """Return the row number in an ID, or 0, which no delivery has."""
    text = str(id)
    # Longer numbers may not fit into 64 bits, and no table has that many rows.
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 18 else 0


def public_state(state: str, due_at: float, now: float) -> str:
    """
    Return the state that an `InboxEntry` shows.

    Args:
        state: The stored state; *ready* covers both *ready* and *delayed*.
        due_at: When a ready delivery is due, or when a lease ends.
        now: The current time.
    """
    if state not in ("ready", "leased"):
        return state
    if due_at <= now:
        return "ready"
    return "delayed" if state == "ready" else "leased"


def isolate_suspects(due: list[T], crashes: Callable[[T], int]) -> list[T]:
    """
    Return the part of *due* that one claim may lease: everything before the first suspect, or that suspect alone.

    Args:
        due: Due deliveries, in the order in which they are claimed.
        crashes: Returns how many crashes a delivery has, including the one of an expired lease.
    """
    for index, delivery in enumerate(due):
        if crashes(delivery) >= SUSPECT_CRASHES:
            return due[: max(1, index)]
    return due


def encode_names(names: Iterable[str]) -> str:
    """Return handler names as one text that any database can store."""
    return "\n".join(name.encode("unicode_escape").decode() for name in sorted(names))


def decode_names(text: str) -> frozenset[str]:
    """Return the names in a text that `encode_names` returned; a name is never empty."""
    return frozenset(name.encode().decode("unicode_escape") for name in text.split("\n") if name)


def purge_limits(done_before: datetime | None, dead_before: datetime | None) -> dict[str, datetime]:
    """
    Return the time limits of a purge by state.

    Raises:
        TypeError: Both are None, or one is not a datetime.
        ValueError: One has no UTC offset.
    """
    limits = {"done": done_before, "dead": dead_before}
    given = {state: before for state, before in limits.items() if before is not None}
    if not given:
        raise TypeError("pass done_before, dead_before or both")
    for state, before in given.items():
        _check_aware(f"{state}_before", before)
    return given


def _check_aware(name: str, moment: object) -> None:
    if not isinstance(moment, datetime):
        raise TypeError(f"{name} must be a datetime, not {type_name(moment)}")
    if moment.utcoffset() is None:
        raise ValueError(f"{name} must have a UTC offset; pass an aware datetime")


async def wait_any(*awaitables: Awaitable[object], timeout: float | None = None) -> set[asyncio.Future[object]]:
    """Wait until one of these completes, cancel the others, and return those that have completed."""
    futures: list[asyncio.Future[object]] = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        completed, _ = await asyncio.wait(futures, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        return completed
    finally:
        for future in futures:
            future.cancel()
        await asyncio.gather(*futures, return_exceptions=True)


async def wait_for_event(event: asyncio.Event, timeout: float) -> None:
    """Wait until an event is set, at most *timeout* seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(max(0.0, timeout)):
            await event.wait()


def safe_message(error: BaseException) -> str:
    """Return the message of an `InboxError`; of another error only the type, because its message may be private."""
    return str(error) if isinstance(error, InboxError) else type(error).__name__


async def complete_in(inbox: object, lease: Lease | None, handler: str, connection: object) -> None:
    """
    Record in the open transaction of *connection* that a handler has succeeded.

    Raises:
        TypeError: The inbox has no ``complete_in``, or is None.
    """
    record = getattr(inbox, "complete_in", None)
    if record is None or lease is None:
        name = "a receiver without an inbox" if inbox is None else type(inbox).__name__
        raise TypeError(
            f"complete_in needs a PostgresInbox, not {name}: insert event.key into a table with a unique index, in the"
            " transaction of the handler's other writes"
        )
    await record(lease, handler, connection)


class Inbox(Protocol):
    """
    The durable queue in which a receiver stores deliveries.

    Open and close an inbox with ``async with``; a receiver does so for its own. Operations raise `InboxError` if they
    fail, and have no effect then. The exception is `InboxUnavailableError`: the operation may have been carried out if
    the response of a server was lost, or the sync of a disk failed.
    """

    async def __aenter__(self) -> Self:
        """Open the inbox."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the inbox."""
        ...

    async def append(self, delivery: Delivery) -> AppendResult:
        """
        Store a delivery; return once it is durable.

        If a dead letter has the same key, within ``dedupe_window``, it becomes ready instead. If the delivery has an
        ``envelope_id``, the dead letter does not change, because an envelope may be split several times.
        """
        ...

    async def append_many(self, deliveries: Sequence[Delivery]) -> list[AppendResult]:
        """Store several deliveries, all or none; return the results in the same order."""
        ...

    async def claim(self, limit: int, *, lease: float) -> list[Lease]:
        """Lease up to *limit* due deliveries for *lease* seconds."""
        ...

    async def extend(self, lease: Lease, seconds: float) -> bool:
        """Make a lease expire *seconds* from now; return False if the lease was lost."""
        ...

    async def ack(self, lease: Lease, *, event_key: str = "") -> bool:
        """Mark a delivery as done and store the key of its event; return False if the lease was lost."""
        ...

    async def nack(
        self, lease: Lease, *, delay: float, completed: frozenset[str] = frozenset(), reason: str = ""
    ) -> bool:
        """Schedule another attempt in *delay* seconds; return False if the lease was lost."""
        ...

    async def release(self, lease: Lease, *, completed: frozenset[str] = frozenset()) -> bool:
        """Return a delivery without counting the attempt; return False if the lease was lost."""
        ...

    async def dead_letter(self, lease: Lease, reason: str, *, completed: frozenset[str] = frozenset()) -> bool:
        """
        Make a delivery a dead letter; return False if the lease was lost.

        Once it is replayed, handlers in *completed* do not run again.
        """
        ...

    async def handled(self, event_keys: Iterable[str]) -> frozenset[str]:
        """Return which of these events were acked within ``retention``."""
        ...

    async def get(self, id: int | str) -> InboxEntry | None:
        """Return a delivery and its state; None if there is no such delivery."""
        ...

    def entries(self, state: str | None = None) -> AsyncIterator[InboxEntry]:
        """Yield all deliveries, or those in one state, in order of arrival."""
        ...

    async def replay(self, ids: Iterable[int | str] | None = None) -> int:
        """
        Make these dead letters ready again, by default all; return their number.

        Raises:
            TypeError: *ids* is a single ID.
        """
        ...

    async def purge(self, *, done_before: datetime | None = None, dead_before: datetime | None = None) -> int:
        """
        Delete deliveries that were done, or became dead letters, before a time; return their number.

        Raises:
            TypeError: Neither time is given, or one is not a datetime.
            ValueError: A time has no UTC offset.
        """
        ...

    async def stats(self) -> InboxStats:
        """Count the deliveries in each state."""
        ...

    async def wait(self, timeout: float) -> None:
        """Wait until a delivery may be ready, at most *timeout* seconds."""
        ...
