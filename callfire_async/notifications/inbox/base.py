"""
The inbox: where a delivery is kept from the moment that it was acknowledged until it was handled.

What each operation does to the state of a delivery:

============  =========================================  =============================================================
state         operation                                  becomes
============  =========================================  =============================================================
(none)        ``append``                                 *ready*, due at once, attempt 1
ready, due    ``claim``                                  *leased*, under a new token
leased        ``extend``                                 *leased*, for so long from now
leased        ``ack``                                    *done*: the body is dropped, the keys stay until ``retention``
leased        ``nack``                                   *ready*, due after a delay, attempt + 1, ``completed`` added
leased        ``release``                                *ready*, due at once, the same attempt, ``completed`` added
leased        ``dead_letter``                                   *dead*, with a reason
leased        nothing until the lease ends, or a crash   as if *ready*, the same attempt, crashes + 1
dead          ``replay``                                 *ready*, due at once, attempt 1, no crashes, ``completed`` kept
dead          ``append`` of the same key, in the window  *ready*, due at once, attempt 1
done, dead    ``purge``, ``retention`` (done only)       (none)
============  =========================================  =============================================================

``extend``, ``ack``, ``nack``, ``release`` and ``dead_letter`` do nothing and return False where the lease is no longer the
delivery's: a late worker cannot settle what was handed to another. Order: due time, then arrival. What has been
through two crashes is handed out as the only lease of its list, since whatever else was in flight was innocent.

"""

import hashlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Protocol, Self

from attrs import Factory, field, frozen

from callfire_async.errors import InboxError

__all__ = ["AppendResult", "Clock", "Delivery", "Inbox", "InboxEntry", "InboxStats", "Lease"]

# What has crashed so often is handed out alone.
SUSPECT_CRASHES = 2


@frozen(slots=False)
class Delivery:
    """
    A postback as it came.

    Raises:
        ValueError: *received_at* has no offset.
    """

    #: The bytes as they came.
    body: bytes = field(repr=False)
    #: Its ``Content-Type``: a hint for `parse`.
    content_type: str | None = None
    #: Aware; now, unless given.
    received_at: datetime = field(factory=lambda: datetime.now(UTC))
    #: Two deliveries with one key are one, within the inbox's ``dedupe_window``. Default: the body's SHA-256.
    key: str = field(default=Factory(lambda self: hashlib.sha256(self.body).hexdigest(), takes_self=True))

    def __attrs_post_init__(self) -> None:
        """Refuse a time without an offset: which moment it is would depend on who reads it."""
        if self.received_at.tzinfo is None:
            raise ValueError("received_at must have an offset")


@frozen(slots=False)
class AppendResult:
    """What became of an append."""

    #: Which delivery it is: the one that was there, where it is a duplicate.
    id: int | str
    #: Whether it was there already.
    duplicate: bool


@frozen(slots=False)
class Lease:
    """A delivery that was handed out for a while."""

    #: As `AppendResult` has it.
    id: int | str
    #: Unlike that of any other lease of this delivery: what settles it.
    token: str = field(repr=False)
    #: From 1.
    attempt: int
    #: How often it was handed out and never settled.
    crashes: int
    #: What is to be handled.
    delivery: Delivery
    #: The names of the handlers that have succeeded.
    completed: frozenset[str]


@frozen
class InboxEntry:
    """What an inbox knows of one delivery."""

    #: As `AppendResult` has it.
    id: int | str
    #: ``ready``, ``leased``, ``done`` or ``dead``; a lease that has run out counts as ready.
    state: str
    #: Without its body once it is done, unless the inbox keeps bodies.
    delivery: Delivery
    #: The attempt that is next, under way or was the last, from 1.
    attempt: int
    #: How often it was handed out and never settled.
    crashes: int
    #: Why it was last put back, or buried: names of handlers and types of errors, or what a `Reject` said.
    reason: str
    #: When it last changed, aware.
    updated_at: datetime


@frozen
class InboxStats:
    """How many deliveries there are in each state."""

    #: Due, and waiting for a worker.
    ready: int = 0
    #: Not due yet.
    delayed: int = 0
    #: Handed out to a worker.
    leased: int = 0
    #: Handled, and not forgotten yet.
    done: int = 0
    #: Dead letters.
    dead: int = 0
    #: Seconds for which the first of the ready ones has been due; None where there is none.
    oldest_ready_age: float | None = None


class Clock:
    """
    The time of one process: starts at the system's clock, and runs on the monotonic one.

    So nothing becomes due, or stays leased for ever, because somebody has set the system's clock.
    """

    def __init__(
        self, monotonic: Callable[[], float] = time.monotonic, system: Callable[[], float] = time.time
    ) -> None:
        self._monotonic = monotonic
        self._offset = system() - monotonic()

    def seconds(self) -> float:
        """Return seconds since 1970."""
        return self._monotonic() + self._offset


def parse_row_id(id: int | str) -> int:
    """Return the number that an id says, or 0, which no delivery has."""
    text = str(id)
    # No table comes to 10 ** 18 rows, and what is beyond 64 bits cannot even be asked for.
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 18 else 0


def safe_message(error: BaseException) -> str:
    """Return the message of an `InboxError`; of another error only the type, because its message may be private."""
    return str(error) if isinstance(error, InboxError) else type(error).__name__


class Inbox(Protocol):
    """
    What a receiver keeps its deliveries in.

    It is opened and closed with ``async with``; a receiver does that for its own. Each operation raises `InboxError`
    where it could not be carried out, and then nothing has changed; unless it is an `InboxUnavailableError` of an inbox
    on a server, which may have carried it out and been unable to say so.
    """

    async def __aenter__(self) -> Self:
        """Open it."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        ...

    async def append(self, delivery: Delivery) -> AppendResult:
        """Keep a delivery; return once it is durable."""
        ...

    async def append_many(self, deliveries: Sequence[Delivery]) -> list[AppendResult]:
        """Keep several, all or none; in order."""
        ...

    async def claim(self, limit: int, *, lease: float) -> list[Lease]:
        """Hand out up to *limit* deliveries that are due, for *lease* seconds."""
        ...

    async def extend(self, lease: Lease, seconds: float) -> bool:
        """Let a lease end so many seconds from now; False: it was lost."""
        ...

    async def ack(self, lease: Lease, *, event_key: str = "") -> bool:
        """Note that a delivery was handled, and which event it was; False: the lease was lost."""
        ...

    async def nack(
        self, lease: Lease, *, delay: float, completed: frozenset[str] = frozenset(), reason: str = ""
    ) -> bool:
        """Put a delivery back for another attempt after *delay* seconds; False: the lease was lost."""
        ...

    async def release(self, lease: Lease, *, completed: frozenset[str] = frozenset()) -> bool:
        """Put a delivery back at once, the attempt not counted; False: the lease was lost."""
        ...

    async def dead_letter(self, lease: Lease, reason: str) -> bool:
        """Make a delivery a dead letter; False: the lease was lost."""
        ...

    async def handled(self, event_keys: Iterable[str]) -> frozenset[str]:
        """Return which of these events were acked, within ``retention``."""
        ...

    async def get(self, id: int | str) -> InboxEntry | None:
        """Return what is known of one delivery, or None."""
        ...

    def entries(self, state: str | None = None) -> AsyncIterator[InboxEntry]:
        """Iterate over the deliveries, all or those in one state, in order of arrival."""
        ...

    async def replay(self, ids: Iterable[int | str] | None = None) -> int:
        """Make dead letters ready again, all unless named; return how many."""
        ...

    async def purge(self, *, done_before: datetime | None = None, dead_before: datetime | None = None) -> int:
        """
        Delete what was done, or buried, before a time; return how many.

        Raises:
            TypeError: Neither is given.
        """
        ...

    async def stats(self) -> InboxStats:
        """Count."""
        ...

    async def wait(self, timeout: float) -> None:
        """Wait until there may be work, *timeout* seconds at most."""
        ...
