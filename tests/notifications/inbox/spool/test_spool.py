"""What becomes of deliveries while the inbox elsewhere is away, and when it is back."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

import pytest
from notifications.inbox.processes import running
from notifications.inbox.suite import LEASE, all_entries, bodies_of, lease_of
from notifications.inbox.switched import SwitchedInbox

from callfire_async.errors import InboxError, InboxUnavailableError
from callfire_async.notifications import Notification, Postback, Receiver, Reply, Router
from callfire_async.notifications.inbox import Delivery, Inbox, InboxEntry, InboxStats, Lease
from callfire_async.notifications.inbox.memory import MemoryInbox
from callfire_async.notifications.inbox.spool import SpoolingInbox
from callfire_async.notifications.inbox.spool import _circuit_breaker as _spool_primary
from callfire_async.notifications.inbox.spool import _forwarder as _spool_forwarding
from callfire_async.notifications.inbox.sqlite import SqliteInbox

DEADLINE = 20
LATER = datetime.now(UTC) + timedelta(days=3650)


class Sleeper:
    """Time between probes that passes when a test says so."""

    def __init__(self) -> None:
        self.delays: list[float] = []
        self._woken = asyncio.Event()

    async def __call__(self, seconds: float) -> None:
        self.delays.append(seconds)
        await self._woken.wait()
        self._woken.clear()

    async def is_asleep(self, times: int) -> None:
        """Wait until there has been so much of it."""
        await eventually(lambda: len(self.delays) == times)

    def wake(self) -> None:
        self._woken.set()


async def eventually(holds: Callable[[], bool | Awaitable[bool]]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(DEADLINE):
        while not (held if isinstance(held := holds(), bool) else await held):  # noqa: ASYNC110  # others' doing
            await asyncio.sleep(0.001)


@pytest.fixture
def primary() -> SwitchedInbox:
    return SwitchedInbox(MemoryInbox())


@pytest.fixture
def spool(tmp_path: Path) -> SqliteInbox:
    return SqliteInbox(tmp_path / "spool.db")


@pytest.fixture
def make(primary: SwitchedInbox, spool: SqliteInbox) -> Callable[..., SpoolingInbox]:
    return lambda **options: SpoolingInbox(primary, spool, **{"recovery_timeout": 0.001} | options)


@pytest.fixture
async def inbox(make: Callable[..., SpoolingInbox]) -> AsyncIterator[SpoolingInbox]:
    async with make() as inbox:
        yield inbox


@pytest.fixture
def sleeper() -> Sleeper:
    return Sleeper()


@pytest.fixture
async def sleepy(make: Callable[..., SpoolingInbox], sleeper: Sleeper) -> AsyncIterator[SpoolingInbox]:
    """An inbox that probes its primary when the test says so."""
    async with make(recovery_timeout=2.0, sleep=sleeper) as inbox:
        yield inbox


async def spool_all(inbox: SpoolingInbox, primary: SwitchedInbox, *bodies: bytes) -> None:
    """Have deliveries taken in while the primary is away."""
    primary.away = True
    for body in bodies:
        await inbox.append(Delivery(body))
    primary.away = False


async def outage(inbox: SpoolingInbox, primary: SwitchedInbox, sleeper: Sleeper) -> None:
    """Let the primary go away, and everybody notice."""
    primary.away = True
    for _ in range(3):
        with pytest.raises(InboxUnavailableError):
            await inbox.stats()
    await sleeper.is_asleep(1)


async def nothing_is_spooled(inbox: SpoolingInbox) -> None:
    async def is_empty() -> bool:
        return not await inbox.spooled()

    await eventually(is_empty)


def messages(caplog: pytest.LogCaptureFixture, words: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if words in record.getMessage()]


class Listed(MemoryInbox):
    """Does something at the end of each listing."""

    def __init__(self, at_the_end: Callable[[], Awaitable[object]]) -> None:
        super().__init__()
        self.at_the_end = at_the_end

    async def entries(self, state: str | None = None) -> AsyncIterator[InboxEntry]:
        try:
            async for entry in super().entries(state):
                yield entry
        finally:
            await self.at_the_end()


class Iterated(MemoryInbox):
    """Lists in a way that cannot be closed."""

    def entries(self, state: str | None = None) -> AsyncIterator[InboxEntry]:
        return Anew(super().entries(state))


class Anew:
    """Hands on what another iterator has, and nothing else of it."""

    def __init__(self, entries: AsyncIterator[InboxEntry]) -> None:
        self._entries = entries

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> InboxEntry:
        return await anext(self._entries)


# --- taking in --------------------------------------------------------------------------------------------


async def test_while_the_primary_is_well_the_spool_is_not_used(inbox, primary, spool):
    """What it took has its id, and nothing else is written."""
    one = await inbox.append(Delivery(b"1"))
    two, again = await inbox.append_many([Delivery(b"2"), Delivery(b"1")])

    assert [one.id, two.id, again.id, again.duplicate] == [1, 2, 1, True]
    assert await all_entries(spool) == []


@pytest.mark.parametrize("trouble", ["away", "hangs", "forgets"])
async def test_what_the_primary_does_not_acknowledge_is_kept_all_the_same(make, primary, spool, trouble):
    """It fails, is silent, or did it and could not say so."""
    async with make(timeout=0.01, drain_timeout=0) as inbox:
        setattr(primary, trouble, True)
        one = await inbox.append(Delivery(b"1"))
        (two,) = await inbox.append_many([Delivery(b"2")])
        waiting = await inbox.spooled()
        setattr(primary, trouble, False)
        primary.went_on.set()
        await nothing_is_spooled(inbox)

        assert [one.id, two.id, waiting] == ["spool/1", "spool/2", 2]
        assert [entry.delivery.body for entry in await all_entries(inbox)] == [b"1", b"2"]


async def test_what_is_forwarded_is_what_came(inbox, primary):
    """With its key, its time and its type."""
    at = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)
    delivery = Delivery(b"<xml/>", "text/xml", received_at=at, key="a key")
    primary.away = True
    await inbox.append(delivery)
    primary.away = False

    await nothing_is_spooled(inbox)
    assert (await lease_of(inbox)).delivery == delivery


@pytest.mark.parametrize("error", [ValueError("secret words"), InboxError("no"), asyncio.CancelledError()])
async def test_whatever_the_primary_raises_the_delivery_is_kept(inbox, primary, error):
    """It may be the user's own, or say no, or break off; the spool says nothing of the words of others."""
    primary.refusal, primary.refuses = error, frozenset([b"body"])

    appended = await inbox.append(Delivery(b"body"))

    assert (appended.id, await inbox.spooled()) == ("spool/1", 1)


async def test_only_when_both_fail_it_is_refused(primary):
    """Then the sender must know."""
    spool = SwitchedInbox(MemoryInbox())
    async with SpoolingInbox(primary, spool, recovery_timeout=0.001) as inbox:
        primary.away = spool.away = True
        with pytest.raises(InboxUnavailableError, match="away"):
            await inbox.append(Delivery(b"body"))
        with pytest.raises(InboxUnavailableError, match="away"):
            await inbox.append_many([Delivery(b"body")])
        primary.away = spool.away = False


async def test_an_append_that_is_cancelled_ends(make, primary):
    """Whoever waited is gone, and nothing runs on without them."""
    async with make() as inbox:
        primary.hangs = True
        appending = asyncio.create_task(inbox.append(Delivery(b"body")))
        await eventually(lambda: "append" in primary.asked)
        appending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await appending
        primary.hangs = False

        assert await inbox.stats() == InboxStats()


async def test_a_repeat_of_what_is_spooled_is_found(inbox, primary):
    """In the spool, and then by the primary, which may have taken the first of them itself."""
    await inbox.append(Delivery(b"before"))
    await spool_all(inbox, primary, b"same", b"before", b"same")
    await nothing_is_spooled(inbox)
    await inbox.append(Delivery(b"same"))

    assert await bodies_of(inbox) == [b"before", b"same"]


# --- the breaker ------------------------------------------------------------------------------------------


async def test_a_primary_that_is_away_is_not_asked(sleepy, sleeper, primary):
    """After some failures in a row; a postback does not wait for it then."""
    await outage(sleepy, primary, sleeper)
    asked = len(primary.asked)

    for number in range(10):
        await sleepy.append(Delivery(b"%d" % number))
    with pytest.raises(InboxUnavailableError, match="cannot be reached"):
        await sleepy.claim(1, lease=LEASE)

    assert len(primary.asked) == asked


async def test_probes_come_less_and_less_often(sleepy, sleeper, primary):
    """Up to half a minute apart; after an answer it begins anew."""
    primary.away = True
    await sleepy.append(Delivery(b"body"))
    for times in range(1, 8):
        await sleeper.is_asleep(times)
        sleeper.wake()
    await sleeper.is_asleep(8)
    primary.away = False
    sleeper.wake()
    await nothing_is_spooled(sleepy)
    primary.away = True
    await sleepy.append(Delivery(b"another"))
    await sleeper.is_asleep(9)
    primary.away = False

    assert sleeper.delays == [2, 4, 8, 16, 30, 30, 30, 30, 2]


async def test_a_probe_closes_it_where_nothing_is_spooled(sleepy, sleeper, primary, caplog):
    """Whoever only works must learn of it too; the outage is two lines in the log."""
    await outage(sleepy, primary, sleeper)
    primary.away = False
    sleeper.wake()

    await eventually(lambda: bool(messages(caplog, "can be reached again")))
    assert await sleepy.stats() == InboxStats()
    assert len(messages(caplog, "primary inbox")) == 2


async def test_a_primary_that_is_lost_at_the_wrong_moment_is_probed(sleepy, sleeper, primary, spool, monkeypatch):
    """Between finding nothing to forward and waiting for it."""
    claim = spool.claim

    async def claim_in_an_outage(limit: int, *, lease: float) -> list[Lease]:
        if not primary.away:
            primary.away = True
            for _ in range(3):
                with pytest.raises(InboxUnavailableError):
                    await sleepy.stats()
            await claim(limit, lease=lease)
            return []
        return await claim(limit, lease=lease)

    monkeypatch.setattr(spool, "claim", claim_in_an_outage)
    await spool.append(Delivery(b"body"))

    await sleeper.is_asleep(1)


async def test_failures_that_are_not_in_a_row_do_not_open_it(make, primary):
    """An answer in between is an answer."""
    async with make(failure_threshold=2, drain_timeout=0) as inbox:
        for _ in range(5):
            primary.away = True
            with pytest.raises(InboxUnavailableError):
                await inbox.stats()
            primary.away = False
            await inbox.stats()


# --- forwarding -------------------------------------------------------------------------------------------


async def test_what_is_spooled_is_forwarded_in_order_of_arrival(sleepy, sleeper, primary):
    """Also where the primary goes away again in the middle of it."""
    bodies = [b"%d" % number for number in range(250)]
    primary.away = True
    await sleepy.append_many([Delivery(body) for body in bodies[:200]])
    await sleeper.is_asleep(1)
    sleeper.wake()
    await sleeper.is_asleep(2)
    await sleepy.append_many([Delivery(body) for body in bodies[200:]])
    primary.away = False
    sleeper.wake()

    await nothing_is_spooled(sleepy)
    assert await bodies_of(sleepy, limit=300) == bodies


async def test_what_a_healthy_primary_refuses_five_times_is_buried(inbox, primary, monkeypatch, caplog):
    """It holds up nothing that came after it; and it is a dead letter like others."""
    monkeypatch.setattr(_spool_forwarding, "_REFUSED_SECONDS", 0.001)
    primary.refuses = frozenset([b"bad"])
    await spool_all(inbox, primary, b"1", b"bad", b"2")

    await nothing_is_spooled(inbox)

    (dead,) = await all_entries(inbox, "dead")
    reason = "the primary inbox refused it 5 times, at last: it does not fit"
    assert await bodies_of(inbox) == [b"1", b"2"]
    assert (dead.id, dead.delivery.body, dead.attempt, dead.reason) == ("spool/2", b"bad", 5, reason)
    assert (await inbox.stats()).dead == 1
    assert messages(caplog, "became a dead letter") == [f"delivery spool/2 became a dead letter: {reason}"]


async def test_what_is_refused_waits_longer_each_time(inbox, primary, spool):
    """The primary may be full, and be emptied; what waits is in sight."""
    primary.refuses = frozenset([b"bad"])
    await inbox.append(Delivery(b"bad"))

    async def is_refused() -> bool:
        return (await spool.stats()).delayed == 1

    await eventually(is_refused)
    (entry,) = await all_entries(inbox)
    assert (entry.id, entry.state, entry.attempt, entry.reason) == ("spool/1", "ready", 2, "it does not fit")
    assert await inbox.stats() == InboxStats(delayed=1)


async def test_a_refusal_may_look_like_an_outage(inbox, primary, monkeypatch):
    """A server may end the connection over a delivery; that it takes others shows which it is."""
    monkeypatch.setattr(_spool_forwarding, "_REFUSED_SECONDS", 0.001)
    primary.refusal, primary.refuses = InboxUnavailableError("it broke off"), frozenset([b"bad"])
    await inbox.append(Delivery(b"bad"))

    async def is_buried() -> bool:
        await inbox.append(Delivery(b"good"))
        return (await inbox.stats()).dead == 1

    await eventually(is_buried)
    assert await bodies_of(inbox) == [b"good"]


async def test_a_primary_that_takes_nothing_buries_nothing(sleepy, sleeper, primary):
    """It can be read, and its disk is full: that is no fault of what waits."""
    primary.refusal, primary.refuses = InboxUnavailableError("its disk is full"), frozenset([b"1", b"2"])
    await sleepy.append(Delivery(b"1"))
    await sleepy.append(Delivery(b"2"))
    for times in range(1, 8):
        await sleeper.is_asleep(times)
        sleeper.wake()
    await sleeper.is_asleep(8)

    assert await sleepy.stats() == InboxStats(ready=2, oldest_ready_age=pytest.approx(0, abs=DEADLINE))
    primary.refuses = frozenset()
    sleeper.wake()
    await nothing_is_spooled(sleepy)
    assert await bodies_of(sleepy) == [b"1", b"2"]


async def test_dead_letters_of_the_spool_are_replayed(inbox, primary, monkeypatch):
    """All, or named; they go to the primary then."""
    monkeypatch.setattr(_spool_forwarding, "_REFUSED_SECONDS", 0.001)
    primary.refuses = frozenset([b"1", b"2", b"3"])
    for body in (b"1", b"2", b"3"):
        await inbox.append(Delivery(body))
    await nothing_is_spooled(inbox)
    await inbox.append(Delivery(b"dead there"))
    await inbox.dead_letter(await lease_of(inbox), "because")
    primary.refuses = frozenset()

    named = await inbox.replay(["spool/2", "spool/2", "spool/9", "9"])
    none = await inbox.replay([])
    rest = await inbox.replay()
    await nothing_is_spooled(inbox)

    assert (named, none, rest) == (1, 0, 3)
    assert sorted(await bodies_of(inbox)) == [b"1", b"2", b"3", b"dead there"]


async def test_dead_letters_of_the_spool_are_purged(inbox, primary, monkeypatch):
    """With those of the primary; what is done is not a matter of the spool."""
    monkeypatch.setattr(_spool_forwarding, "_REFUSED_SECONDS", 0.001)
    primary.refuses = frozenset([b"bad"])
    await inbox.append(Delivery(b"bad"))
    await nothing_is_spooled(inbox)

    assert await inbox.purge(done_before=LATER) == 0
    assert await inbox.purge(dead_before=LATER) == 1
    with pytest.raises(TypeError, match="done_before"):
        await inbox.purge()


async def test_what_cannot_be_deleted_from_the_spool_is_sent_again(inbox, primary, spool, monkeypatch):
    """The spool's disk fails at the wrong moment; the primary knows a repeat when it sees one."""
    ack = spool.ack

    async def failing(lease: Lease) -> bool:
        if primary.asked.count("append_many") < 3:
            raise InboxUnavailableError("its disk fails")
        return await ack(lease)

    monkeypatch.setattr(spool, "ack", failing)
    await spool_all(inbox, primary, b"body")
    await nothing_is_spooled(inbox)

    assert primary.asked.count("append_many") == 3
    assert await bodies_of(inbox) == [b"body"]


# --- the rest is the primary's ----------------------------------------------------------------------------

LEASED = Lease(1, "token", 1, 0, Delivery(b"body"), frozenset())
OPERATIONS: dict[str, Callable[[Inbox], Awaitable[object]]] = {
    "claim": lambda inbox: inbox.claim(1, lease=LEASE),
    "extend": lambda inbox: inbox.extend(LEASED, 1),
    "ack": lambda inbox: inbox.ack(LEASED),
    "nack": lambda inbox: inbox.nack(LEASED, delay=0),
    "release": lambda inbox: inbox.release(LEASED),
    "dead_letter": lambda inbox: inbox.dead_letter(LEASED, "why"),
    "handled": lambda inbox: inbox.handled(["a"]),
    "get": lambda inbox: inbox.get(1),
    "entries": all_entries,
    "replay": lambda inbox: inbox.replay(),
    "purge": lambda inbox: inbox.purge(dead_before=LATER),
    "stats": lambda inbox: inbox.stats(),
    "wait": lambda inbox: inbox.wait(0),
}


@pytest.mark.parametrize("trouble", ["away", "hangs"])
@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
async def test_what_only_the_primary_can_do_fails_in_bounded_time(make, primary, operation, trouble):
    """Whoever asks is told, whether it says that it is away or says nothing."""
    async with make(operation_timeout=0.01, drain_timeout=0) as inbox:
        setattr(primary, trouble, True)

        async with asyncio.timeout(DEADLINE):
            with pytest.raises(InboxUnavailableError):
                await operation(inbox)

        setattr(primary, trouble, False)


async def test_an_error_of_a_stranger_is_made_one_of_ours(inbox, primary, monkeypatch):
    """Its words are not repeated: they may quote anything."""
    error = ValueError("secret words")

    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(primary.inner, "claim", broken)

    with pytest.raises(InboxUnavailableError) as raised:
        await inbox.claim(1, lease=LEASE)
    assert (str(raised.value), raised.value.__cause__) == ("the primary inbox failed: ValueError", error)


async def test_a_no_of_the_primary_is_its_own(inbox, primary, monkeypatch):
    """It is there, and says what is wrong."""

    async def refusing(*_: object) -> None:
        raise InboxError("that cannot be done")

    monkeypatch.setattr(primary.inner, "replay", refusing)

    for _ in range(5):
        with pytest.raises(InboxError, match="that cannot be done"):
            await inbox.replay()
    assert await inbox.stats() == InboxStats()


@pytest.mark.parametrize("end", ["time", "cancelled"])
async def test_what_is_handed_out_too_late_goes_back(make, primary, end):
    """Nobody waits for it any more, and a lease that nobody has would count as a crash."""
    async with make(operation_timeout=0.01 if end == "time" else DEADLINE) as inbox:
        await inbox.append(Delivery(b"body"))
        inner, handed_out = primary.inner, asyncio.Event()
        slow = SlowClaim(inner, handed_out)
        primary.inner = slow
        claiming = asyncio.create_task(inbox.claim(1, lease=LEASE))
        await handed_out.wait()
        if end == "cancelled":
            claiming.cancel()
        await asyncio.wait([claiming])
        inbox._primary._operation_timeout = DEADLINE
        primary.inner = inner
        slow.go_on.set()
        await eventually(lambda: inner._rows[1].state == "ready")

        lease = await lease_of(inbox)
        assert (lease.attempt, lease.crashes) == (1, 0)


async def test_what_is_handed_out_when_nobody_waits_any_more_goes_back(make, primary):
    """Cancelled in the very moment of the answer."""
    async with make() as inbox:
        await inbox.append(Delivery(b"body"))
        inner = primary.inner
        primary.inner = ClaimThatCancels(inner)
        claiming = asyncio.create_task(inbox.claim(1, lease=LEASE))
        primary.inner.claiming = claiming
        with pytest.raises(asyncio.CancelledError):
            await claiming
        primary.inner = inner
        await eventually(lambda: inner._rows[1].state == "ready")

        assert (await lease_of(inbox)).crashes == 0


class ClaimThatCancels:
    """Whoever asks is cancelled when the answer is there."""

    def __init__(self, inner: Inbox) -> None:
        self._inner = inner
        self.release = inner.release

    async def claim(self, limit: int, *, lease: float) -> list[Lease]:
        leases = await self._inner.claim(limit, lease=lease)
        self.claiming.cancel()
        return leases


class SlowClaim:
    """Hands out leases and is slow to say so."""

    def __init__(self, inner: Inbox, handed_out: asyncio.Event) -> None:
        self._inner = inner
        self._handed_out = handed_out
        self.go_on = asyncio.Event()

    async def claim(self, limit: int, *, lease: float) -> list[Lease]:
        leases = await self._inner.claim(limit, lease=lease)
        self._handed_out.set()
        await self.go_on.wait()
        return leases


async def test_what_is_spooled_counts_as_ready(sleepy, sleeper, primary):
    """Nobody is to be told that nothing waits; also not of what is about to be sent."""
    primary.refusal, primary.refuses = InboxUnavailableError("its disk is full"), frozenset([b"held", b"behind it"])
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    await sleepy.append(Delivery(b"held", received_at=long_ago))
    await sleeper.is_asleep(1)
    await sleepy.append(Delivery(b"behind it"))

    stats = await sleepy.stats()
    assert (stats.ready, stats.leased, stats.oldest_ready_age) == (2, 0, pytest.approx(3600, abs=DEADLINE))
    shown = [(entry.id, entry.state) for entry in await all_entries(sleepy)]
    assert shown == [("spool/1", "ready"), ("spool/2", "ready")]
    assert [entry.id for entry in await all_entries(sleepy, "ready")] == ["spool/1", "spool/2"]
    assert await all_entries(sleepy, "leased") == []


async def test_what_is_spooled_can_be_looked_at_while_the_primary_is_away(sleepy, primary):
    """By its id, and in the spool itself."""
    primary.away = True
    appended = await sleepy.append(Delivery(b"body"))

    entry = await sleepy.get(appended.id)
    assert (entry.id, entry.state, entry.delivery.body) == ("spool/1", "ready", b"body")
    assert await sleepy.get("spool/2") is None
    assert (await sleepy.spooled(), len(await all_entries(sleepy.spool))) == (1, 1)


async def test_what_was_forwarded_is_known_by_its_new_id(inbox, primary, monkeypatch):
    """In the spool there is nothing of it; where it cannot be deleted at once, it is not shown."""

    async def kept(**_: object) -> int:
        return 0

    monkeypatch.setattr(inbox.spool, "purge", kept)
    await spool_all(inbox, primary, b"body")
    await nothing_is_spooled(inbox)

    assert await inbox.get("spool/1") is None
    assert [entry.id for entry in await all_entries(inbox)] == [1]


async def first_of(inbox: Inbox) -> bytes:
    """Look at the first entry, and at no more."""
    async with aclosing(inbox.entries()) as entries:
        return (await anext(entries)).delivery.body


async def test_a_listing_that_is_not_read_to_its_end_is_ended_in_the_primary_too(spool):
    """It may hold a connection there."""
    ended = []

    async def note() -> None:
        await asyncio.sleep(0)
        ended.append(1)

    async with SpoolingInbox(Listed(note), spool) as inbox:
        await inbox.append_many([Delivery(b"1"), Delivery(b"2")])
        assert (await first_of(inbox), ended) == (b"1", [1])


async def fail() -> None:
    raise LookupError


@pytest.mark.parametrize("primary", [Listed(fail), Listed(asyncio.Event().wait), Iterated()])
async def test_a_listing_that_cannot_be_ended_in_the_primary_is_left(primary, spool):
    """Who has seen enough waits for it no longer than for an answer."""
    async with SpoolingInbox(primary, spool, operation_timeout=0.5) as inbox:
        await inbox.append_many([Delivery(b"1"), Delivery(b"2")])
        assert (await first_of(inbox), (await inbox.stats()).ready) == (b"1", 2)


async def test_how_long_it_remembers_is_the_primarys_to_say(make):
    """As far as it does."""
    assert make().retention == MemoryInbox().retention
    assert SpoolingInbox(object(), MemoryInbox()).retention is None


# --- waiting ----------------------------------------------------------------------------------------------


async def test_waiting_ends_when_the_primary_is_back(sleepy, sleeper, primary):
    """Whoever works goes on at once, and asks nothing meanwhile."""
    await outage(sleepy, primary, sleeper)
    asked = len(primary.asked)
    waiting = asyncio.create_task(sleepy.wait(DEADLINE))
    await asyncio.sleep(0)

    assert len(primary.asked) == asked
    primary.away = False
    sleeper.wake()
    async with asyncio.timeout(DEADLINE):
        await waiting


async def test_waiting_ends_in_time_while_the_primary_is_away(sleepy, sleeper, primary):
    """As it does otherwise."""
    await outage(sleepy, primary, sleeper)

    async with asyncio.timeout(DEADLINE):
        await sleepy.wait(0.01)


# --- starting and stopping --------------------------------------------------------------------------------


async def test_it_starts_without_its_primary(make, primary, caplog):
    """Deliveries are taken in, and the primary is opened when it can be; both are said once."""
    primary.away = True
    async with make() as inbox:
        await eventually(lambda: primary.asked.count("open") > 3)
        appended = await inbox.append(Delivery(b"body"))
        with pytest.raises(InboxUnavailableError):
            await inbox.claim(1, lease=LEASE)
        primary.away = False
        await nothing_is_spooled(inbox)

        assert (appended.id, await bodies_of(inbox)) == ("spool/1", [b"body"])
    assert len(messages(caplog, "not open yet")) == 1
    assert len(messages(caplog, "is open now")) == 1
    assert primary.asked.count("append") == 0


async def test_it_does_not_wait_for_long_for_its_primary(make, primary, caplog):
    """It may be opened while deliveries are taken in."""
    primary.hangs = True
    async with make(timeout=0.01) as inbox:
        appended = await inbox.append(Delivery(b"body"))
        primary.hangs = False
        primary.went_on.set()
        await nothing_is_spooled(inbox)

        assert (appended.id, await bodies_of(inbox)) == ("spool/1", [b"body"])
    assert messages(caplog, "not open yet") == [
        "the primary inbox is not open yet, and deliveries are kept in the spool: it has taken more than 0.01 s"
    ]


async def test_a_primary_that_breaks_off_when_it_is_opened_is_tried_again(primary, spool, caplog):
    """A driver that gives up is not somebody who wants all of it to end."""
    attempts = []

    async def broken_at_first() -> MemoryInbox:
        attempts.append(1)
        if len(attempts) == 1:
            raise asyncio.CancelledError
        return await MemoryInbox.__aenter__(primary.inner)

    primary.inner = Opening(broken_at_first)
    async with SpoolingInbox(primary, spool, recovery_timeout=0.001) as inbox:
        await inbox.append(Delivery(b"body"))
        await nothing_is_spooled(inbox)

    assert len(attempts) == 2
    assert messages(caplog, "not open yet")[0].endswith(": CancelledError")


class Opening(MemoryInbox):
    """Is opened as a test says."""

    def __init__(self, opening: Callable[[], Awaitable[MemoryInbox]]) -> None:
        super().__init__()
        self._opening = opening

    async def __aenter__(self) -> MemoryInbox:
        return await self._opening()


async def test_a_primary_that_hangs_when_it_is_opened_is_tried_again(make, primary):
    """A connection that is silent may be followed by one that is not."""
    primary.hangs = True
    async with make(operation_timeout=0.01):
        await eventually(lambda: primary.asked.count("open") > 2)
        primary.hangs = False
        await eventually(lambda: primary.is_open)


@pytest.mark.parametrize("trouble", ["away", "hangs"])
async def test_it_stops_without_its_primary_ever_being_open(make, primary, trouble, caplog):
    """What was taken in waits for the next start, and its number is logged."""
    setattr(primary, trouble, True)
    async with asyncio.timeout(DEADLINE):
        async with make(timeout=0.01, recovery_timeout=DEADLINE, drain_timeout=DEADLINE) as inbox:
            await inbox.append(Delivery(b"1"))
            await inbox.append(Delivery(b"2"))
    setattr(primary, trouble, False)

    assert messages(caplog, "stay in the spool") == ["deliveries that stay in the spool until the next start: 2"]
    async with make() as inbox:
        await nothing_is_spooled(inbox)
        assert await bodies_of(inbox) == [b"1", b"2"]


async def test_an_opening_that_is_cancelled_leaves_nothing_open(make, primary, spool):
    """The server gave up while it started."""
    primary.hangs = True
    opening = asyncio.create_task(make(timeout=DEADLINE).__aenter__())
    await eventually(lambda: "open" in primary.asked)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening

    async with spool:
        assert len(asyncio.all_tasks()) == 1


async def test_a_spool_that_cannot_be_opened_is_an_error(primary, tmp_path):
    """Nothing would be kept in an outage."""
    with pytest.raises(InboxUnavailableError):
        await SpoolingInbox(primary, SqliteInbox(tmp_path / "nowhere" / "spool.db")).__aenter__()
    assert not primary.is_open


async def test_what_is_spooled_is_forwarded_before_it_stops(sleepy, sleeper, primary, spool, caplog):
    """As far as the primary takes it, and without waiting for the next probe."""
    primary.away = True
    for number in range(250):
        await sleepy.append(Delivery(b"%d" % number))
    await sleeper.is_asleep(1)
    primary.away = False

    await sleepy.__aexit__(None, None, None)

    assert await bodies_of(primary.inner, limit=300) == [b"%d" % number for number in range(250)]
    assert messages(caplog, "stay in the spool") == []
    async with sleepy:
        assert await sleepy.spooled() == 0


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let closing take no time."""
    monkeypatch.setattr(_spool_primary, "CLOSING_SECONDS", 0.01)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("trouble", ["away", "hangs", "forgets"])
async def test_it_stops_in_time_while_the_primary_is_away(make, primary, spool, trouble, caplog):
    """One more attempt, and the rest waits for the next start."""
    async with asyncio.timeout(DEADLINE):
        async with make(timeout=0.01, drain_timeout=0.01, recovery_timeout=DEADLINE) as inbox:
            setattr(primary, trouble, True)
            await inbox.append_many([Delivery(b"1"), Delivery(b"2")])

    assert messages(caplog, "stay in the spool") == ["deliveries that stay in the spool until the next start: 2"]
    async with spool:
        assert await bodies_of(spool) == [b"1", b"2"]


async def test_it_is_closed_in_reverse_order(primary):
    """What is spooled may be forwarded until the last moment."""
    spool = SwitchedInbox(MemoryInbox())
    order = []
    for name, one in (("primary", primary), ("spool", spool)):
        one.asked = Noting(order, name)
    async with SpoolingInbox(primary, spool):
        pass

    assert [step for step in order if step[1] in ("open", "close")] == [
        ("spool", "open"),
        ("primary", "open"),
        ("primary", "close"),
        ("spool", "close"),
    ]


class Noting(list[str]):
    """Writes down elsewhere whose operation it was."""

    def __init__(self, order: list[tuple[str, str]], name: str) -> None:
        super().__init__()
        self._order = order
        self._name = name

    def append(self, asked: str) -> None:
        self._order.append((self._name, asked))


async def test_a_spool_that_fails_while_it_is_closed_is_closed(primary):
    """What stays cannot be counted then."""
    spool = SwitchedInbox(MemoryInbox())
    inbox = SpoolingInbox(primary, spool, recovery_timeout=0.001)
    await inbox.__aenter__()
    spool.away = True
    with pytest.raises(InboxUnavailableError):
        await inbox.__aexit__(None, None, None)
    spool.away = False

    assert not primary.is_open


async def test_nothing_runs_on_when_it_is_closed(make, primary):
    """Not what was asked and never answered, either."""
    async with make(timeout=0.01, operation_timeout=0.01, drain_timeout=0) as inbox:
        primary.hangs = True
        await inbox.append(Delivery(b"body"))
        with pytest.raises(InboxUnavailableError):
            await inbox.claim(1, lease=LEASE)
        primary.hangs = False

    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize("option", ["timeout", "operation_timeout", "failure_threshold", "recovery_timeout"])
def test_a_limit_is_positive(make, option):
    """Zero would use the spool alone, or never end."""
    with pytest.raises(ValueError, match=option):
        make(**{option: 0})


def test_grace_is_not_negative(make):
    """None is given with 0."""
    with pytest.raises(ValueError, match="drain_timeout"):
        make(drain_timeout=-1)


# --- processes that die -----------------------------------------------------------------------------------

SPOOL_IT = """
from callfire_async.errors import InboxUnavailableError
from callfire_async.notifications.inbox.memory import MemoryInbox
from callfire_async.notifications.inbox.spool import SpoolingInbox

class Away(MemoryInbox):
    async def append_many(self, deliveries):
        raise InboxUnavailableError("it is away")

    async def stats(self):
        raise InboxUnavailableError("it is away")

spool = SqliteInbox(sys.argv[1]) if sys.argv[1].endswith(".db") else SqliteInbox.in_directory(sys.argv[1])
async with SpoolingInbox(Away(), spool, recovery_timeout=0.01) as inbox:
    for number in range(300):
        await inbox.append(Delivery(b"%d" % number))
    report("spooled")
    await proceed()
"""


async def test_what_a_killed_process_had_spooled_is_forwarded_by_the_next(make, primary, tmp_path):
    """Each delivery once, in order of arrival; what it was about to send when it was killed comes last."""
    async with running(SPOOL_IT, tmp_path / "spool.db") as child:
        assert await child.read_line() == "spooled"
        await child.kill()

    async with make() as inbox:
        await nothing_is_spooled(inbox)
        bodies = [int(body) for body in await bodies_of(inbox, limit=1000)]
    assert bodies == [*range(bodies[0], 300), *range(bodies[0])]


async def test_what_a_killed_process_had_spooled_is_forwarded_by_another(primary, tmp_path, monkeypatch):
    """In a folder, by one that has a spool of its own."""
    monkeypatch.setattr("callfire_async.notifications.inbox.sqlite._directory._TAKE_OVER_SECONDS", 0.05)
    async with SpoolingInbox(primary, SqliteInbox.in_directory(tmp_path / "spool"), recovery_timeout=0.001) as inbox:
        async with running(SPOOL_IT, tmp_path / "spool") as child:
            assert await child.read_line() == "spooled"
            await child.kill()

        async def all_are_there() -> bool:
            return (await primary.inner.stats()).ready == 300

        await eventually(all_are_there)
        await spool_all(inbox, primary, b"own")
        await nothing_is_spooled(inbox)
        assert len(await bodies_of(inbox, limit=1000)) == 301


# --- the receiver in front of it --------------------------------------------------------------------------


def postback(number: int) -> Postback:
    return Postback("POST", None, {}, b'{"TextSent": {"SubscriptionId": 7, "Text": {"@id": %d}}}' % number)


@pytest.fixture
def router() -> Router:
    router = Router()
    router.handled = []

    @router.on(Notification)
    async def handler(event: Notification) -> None:
        router.handled.append(event.text.id)

    return router


async def test_an_outage_refuses_nothing_and_loses_nothing(router, make, primary):
    """The receiver answers 204 throughout, and the worker goes on when the primary is back."""
    async with Receiver(router, tokens=None, inbox=make()) as receiver:
        replies = [await receiver.receive(postback(1))]
        await receiver.idle(DEADLINE)
        primary.away = True
        replies += [await receiver.receive(postback(number)) for number in range(2, 12)]
        healthy = (await receiver.health()).healthy
        primary.away = False
        await receiver.idle(DEADLINE)

    assert (replies, healthy) == ([Reply(204)] * 11, True)
    assert sorted(router.handled) == list(range(1, 12))


async def test_an_endpoint_stays_while_nothing_can_be_settled(make, primary, sleeper):
    """What a handler has done cannot be noted; postbacks are taken all the same, and somebody should look at it."""
    router, begun, ended = Router(), asyncio.Event(), asyncio.Event()

    @router.on(Notification)
    async def handler(event: Notification) -> None:
        begun.set()
        await ended.wait()

    async with Receiver(router, tokens=None, inbox=make(sleep=sleeper)) as receiver:
        await receiver.receive(postback(1))
        await begun.wait()
        primary.away = True
        ended.set()

        async def is_to_be_looked_at() -> bool:
            return not (await receiver.health()).healthy

        await eventually(is_to_be_looked_at)
        health = await receiver.health()
        reply = await receiver.receive(postback(2))
        primary.away = False

    assert (health.live, health.ready, reply) == (True, True, Reply(204))
    assert "the inbox cannot be written to" in health.reasons


async def test_a_receiver_is_not_idle_while_its_primary_is_away(router, make, primary, sleeper):
    """Who knows what waits there."""
    async with Receiver(router, tokens=None, inbox=make(sleep=sleeper)) as receiver:
        primary.away = True
        await receiver.receive(postback(1))
        with pytest.raises(TimeoutError):
            await receiver.idle(0.01)
        primary.away = False


async def test_some_take_in_and_others_work(router, primary, tmp_path):
    """A receiver with no slots keeps what comes; one without a server handles it, and both have the primary."""
    shared = Shared(MemoryInbox())
    intake = Receiver(router, tokens=None, inbox=SpoolingInbox(shared, SqliteInbox(tmp_path / "1.db")), concurrency=0)
    worker = Receiver(router, tokens=None, inbox=SpoolingInbox(shared, SqliteInbox(tmp_path / "2.db")))
    async with intake:
        replies = [await intake.receive(postback(number)) for number in range(10)]
        before = await intake.stats()
        async with worker:
            await intake.idle(DEADLINE)
            await worker.idle(DEADLINE)
        after = await intake.stats()

    assert (replies, sorted(router.handled)) == ([Reply(204)] * 10, list(range(10)))
    assert (before.inbox.ready, before.handled, after.inbox.done, after.handled) == (10, 0, 10, 0)


class Shared(SwitchedInbox):
    """One engine for several: it is not closed with the first that leaves."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass
