"""`SpoolingInbox` stores deliveries while the primary inbox is unavailable, and forwards them when it recovers."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

import pytest
from notifications.inbox.faulty_inbox import FaultyInbox
from notifications.inbox.processes import running
from notifications.inbox.suite import LEASE, all_entries, bodies_of, dead_letter, lease_of

from callfire_async.errors import InboxError, InboxUnavailableError
from callfire_async.notifications import Notification, Postback, Receiver, Reply, Router
from callfire_async.notifications.inbox import Delivery, Inbox, InboxEntry, InboxStats, Lease
from callfire_async.notifications.inbox.memory import MemoryInbox
from callfire_async.notifications.inbox.spool import SpoolingInbox, _circuit_breaker, _forwarder
from callfire_async.notifications.inbox.sqlite import SqliteInbox

DEADLINE = 60
LATER = datetime.now(UTC) + timedelta(days=3650)


class ManualSleep:
    """A sleep function that returns when the test calls `wake`."""

    def __init__(self) -> None:
        self.delays: list[float] = []
        self._woken = asyncio.Event()

    async def __call__(self, seconds: float) -> None:
        self.delays.append(seconds)
        await self._woken.wait()
        self._woken.clear()

    async def has_been_called(self, times: int) -> None:
        """Wait until it has been called this many times."""
        await eventually(lambda: len(self.delays) == times)

    def wake(self) -> None:
        self._woken.set()


async def eventually(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    """Wait until a condition is true."""
    async with asyncio.timeout(DEADLINE):
        while not (result if isinstance(result := condition(), bool) else await result):  # noqa: ASYNC110  # no event to wait for
            await asyncio.sleep(0.001)


@pytest.fixture
def primary() -> FaultyInbox:
    return FaultyInbox(MemoryInbox())


@pytest.fixture
def spool(tmp_path: Path) -> SqliteInbox:
    return SqliteInbox(tmp_path / "spool.db")


@pytest.fixture
def make(primary: FaultyInbox, spool: SqliteInbox) -> Callable[..., SpoolingInbox]:
    return lambda **options: SpoolingInbox(primary, spool, **{"recovery_timeout": 0.001} | options)


@pytest.fixture
async def inbox(make: Callable[..., SpoolingInbox]) -> AsyncIterator[SpoolingInbox]:
    async with make() as inbox:
        yield inbox


@pytest.fixture
def sleep() -> ManualSleep:
    return ManualSleep()


@pytest.fixture
async def manual_inbox(make: Callable[..., SpoolingInbox], sleep: ManualSleep) -> AsyncIterator[SpoolingInbox]:
    """An inbox whose probes are triggered by the test."""
    async with make(recovery_timeout=2.0, sleep=sleep) as inbox:
        yield inbox


async def spool_all(inbox: SpoolingInbox, primary: FaultyInbox, *bodies: bytes) -> None:
    """Append deliveries while the primary is unavailable."""
    primary.is_unavailable = True
    for body in bodies:
        await inbox.append(Delivery(body))
    primary.is_unavailable = False


async def begin_outage(inbox: SpoolingInbox, primary: FaultyInbox, sleep: ManualSleep) -> None:
    """Make the primary unavailable and open the circuit breaker."""
    primary.is_unavailable = True
    for _ in range(3):
        with pytest.raises(InboxUnavailableError):
            await inbox.stats()
    await sleep.has_been_called(1)


async def wait_until_forwarded(inbox: SpoolingInbox) -> None:
    async def is_empty() -> bool:
        return not await inbox.spooled()

    await eventually(is_empty)


def messages(caplog: pytest.LogCaptureFixture, text: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if text in record.getMessage()]


class InboxWithListingHook(MemoryInbox):
    """An inbox that calls a function at the end of each listing."""

    def __init__(self, on_end: Callable[[], Awaitable[object]]) -> None:
        super().__init__()
        self.on_end = on_end

    async def entries(self, state: str | None = None) -> AsyncIterator[InboxEntry]:
        try:
            async for entry in super().entries(state):
                yield entry
        finally:
            await self.on_end()


class InboxWithUnclosableListing(MemoryInbox):
    """An inbox whose listings have no ``aclose``."""

    def entries(self, state: str | None = None) -> AsyncIterator[InboxEntry]:
        return PlainIterator(super().entries(state))


class PlainIterator:
    """An iterator without the other methods of an asynchronous generator."""

    def __init__(self, entries: AsyncIterator[InboxEntry]) -> None:
        self._entries = entries

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> InboxEntry:
        return await anext(self._entries)


# --- storing ----------------------------------------------------------------------------------------------


async def test_spool_is_unused_while_primary_is_available(inbox, primary, spool):
    """Deliveries get the primary's ids, and nothing is written to the spool."""
    one = await inbox.append(Delivery(b"1"))
    two, again = await inbox.append_many([Delivery(b"2"), Delivery(b"1")])

    assert [one.id, two.id, again.id, again.duplicate] == [1, 2, 1, True]
    assert await all_entries(spool) == []


@pytest.mark.parametrize("trouble", ["is_unavailable", "is_hanging", "loses_responses"])
async def test_delivery_without_acknowledgement_is_spooled(make, primary, spool, trouble):
    """The primary fails, hangs, or stores the delivery and loses the acknowledgement."""
    async with make(timeout=0.01, drain_timeout=0) as inbox:
        setattr(primary, trouble, True)
        one = await inbox.append(Delivery(b"1"))
        (two,) = await inbox.append_many([Delivery(b"2")])
        waiting = await inbox.spooled()
        setattr(primary, trouble, False)
        primary.resumed.set()
        await wait_until_forwarded(inbox)

        assert [one.id, two.id, waiting] == ["spool/1", "spool/2", 2]
        assert [entry.delivery.body for entry in await all_entries(inbox)] == [b"1", b"2"]


async def test_forwarding_keeps_key_time_and_content_type(inbox, primary):
    """The primary gets the delivery as it was received."""
    at = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)
    delivery = Delivery(b"<xml/>", "text/xml", received_at=at, key="a key")
    primary.is_unavailable = True
    await inbox.append(delivery)
    primary.is_unavailable = False

    await wait_until_forwarded(inbox)
    assert (await lease_of(inbox)).delivery == delivery


@pytest.mark.parametrize("is_repeated", [False, True])
async def test_forwarded_event_of_an_envelope_does_not_make_its_dead_letter_ready(inbox, primary, is_repeated):
    """A repeated postback, which is spooled as well, does."""
    dead = await dead_letter(primary.inner)
    primary.is_unavailable = True
    await inbox.append_many([Delivery(b"dead", envelope_id=1), Delivery(b"new")])
    if is_repeated:
        await inbox.append(Delivery(b"dead"))
    primary.is_unavailable = False

    await wait_until_forwarded(inbox)
    assert (await primary.inner.get(dead.id)).state == ("ready" if is_repeated else "dead")


@pytest.mark.parametrize("error", [ValueError("secret words"), InboxError("no"), asyncio.CancelledError()])
async def test_delivery_is_spooled_whatever_the_primary_raises(inbox, primary, error):
    """A foreign exception, a rejection and a CancelledError of the driver all lead to the spool."""
    primary.rejection, primary.rejected_bodies = error, frozenset([b"body"])

    appended = await inbox.append(Delivery(b"body"))

    assert (appended.id, await inbox.spooled()) == ("spool/1", 1)


async def test_append_fails_only_if_both_inboxes_fail(primary):
    """The error of the spool is raised."""
    spool = FaultyInbox(MemoryInbox())
    async with SpoolingInbox(primary, spool, recovery_timeout=0.001) as inbox:
        primary.is_unavailable = spool.is_unavailable = True
        with pytest.raises(InboxUnavailableError, match="unavailable"):
            await inbox.append(Delivery(b"body"))
        with pytest.raises(InboxUnavailableError, match="unavailable"):
            await inbox.append_many([Delivery(b"body")])
        primary.is_unavailable = spool.is_unavailable = False


async def test_cancelled_append_is_cancelled_in_the_primary(make, primary):
    """Nothing is stored after the caller has been cancelled."""
    async with make() as inbox:
        primary.is_hanging = True
        appending = asyncio.create_task(inbox.append(Delivery(b"body")))
        await eventually(lambda: "append" in primary.calls)
        appending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await appending
        primary.is_hanging = False

        assert await inbox.stats() == InboxStats()


async def test_repeat_of_a_spooled_delivery_is_a_duplicate(inbox, primary):
    """The spool finds repeats among its own deliveries, the primary among all it has stored."""
    await inbox.append(Delivery(b"before"))
    await spool_all(inbox, primary, b"same", b"before", b"same")
    await wait_until_forwarded(inbox)
    await inbox.append(Delivery(b"same"))

    assert await bodies_of(inbox) == [b"before", b"same"]


# --- circuit breaker --------------------------------------------------------------------------------------


async def test_open_breaker_does_not_call_the_primary(manual_inbox, sleep, primary):
    """After the failure threshold, appends go straight to the spool and other operations fail."""
    await begin_outage(manual_inbox, primary, sleep)
    call_count = len(primary.calls)

    for number in range(10):
        await manual_inbox.append(Delivery(b"%d" % number))
    with pytest.raises(InboxUnavailableError, match="primary inbox is unavailable"):
        await manual_inbox.claim(1, lease=LEASE)

    assert len(primary.calls) == call_count


async def test_probe_interval_doubles_up_to_30_seconds(manual_inbox, sleep, primary):
    """A successful probe resets the interval."""
    primary.is_unavailable = True
    await manual_inbox.append(Delivery(b"body"))
    for times in range(1, 8):
        await sleep.has_been_called(times)
        sleep.wake()
    await sleep.has_been_called(8)
    primary.is_unavailable = False
    sleep.wake()
    await wait_until_forwarded(manual_inbox)
    primary.is_unavailable = True
    await manual_inbox.append(Delivery(b"another"))
    await sleep.has_been_called(9)
    primary.is_unavailable = False

    assert sleep.delays == [2, 4, 8, 16, 30, 30, 30, 30, 2]


async def test_probe_closes_the_breaker_if_nothing_is_spooled(manual_inbox, sleep, primary, caplog):
    """Workers resume after the outage, and the log has one line for its beginning and one for its end."""
    await begin_outage(manual_inbox, primary, sleep)
    primary.is_unavailable = False
    sleep.wake()

    await eventually(lambda: bool(messages(caplog, "is available again")))
    assert await manual_inbox.stats() == InboxStats()
    assert len(messages(caplog, "primary inbox")) == 2


async def test_an_outage_of_commits_is_one_outage(manual_inbox, sleep, primary, caplog):
    """If the primary can be read but stores nothing, nothing waits for it, and the log has no more lines."""
    bodies = [b"%d" % number for number in range(9)]
    primary.rejection, primary.rejected_bodies = InboxUnavailableError("its standby is away"), frozenset(bodies)
    await manual_inbox.append(Delivery(bodies[0]))
    await sleep.has_been_called(1)
    for body in bodies[1:4]:
        await manual_inbox.append(Delivery(body))
    calls = primary.calls.count("append")
    for times, body in enumerate(bodies[4:], 2):
        sleep.wake()
        await sleep.has_been_called(times)
        await manual_inbox.append(Delivery(body))
    before = messages(caplog, "primary inbox")
    primary.rejected_bodies = frozenset()
    sleep.wake()
    await wait_until_forwarded(manual_inbox)
    appended = await manual_inbox.append(Delivery(b"after"))

    unavailable = "the primary inbox is unavailable, storing deliveries in the spool: its standby is away"
    assert (before, messages(caplog, "primary inbox")) == (
        [unavailable],
        [unavailable, "the primary inbox is available again"],
    )
    assert len(messages(caplog, "cannot forward")) == 1
    assert (primary.calls.count("append"), appended.id) == (calls + 1, 10)


async def test_claims_continue_while_the_primary_stores_nothing(manual_inbox, sleep, primary):
    """A primary that is full has space again once its deliveries are handled."""
    await manual_inbox.append(Delivery(b"stored"))
    await begin_outage(manual_inbox, primary, sleep)
    primary.rejection, primary.rejected_bodies = InboxUnavailableError("it is full"), frozenset([b"new"])
    await manual_inbox.append(Delivery(b"new"))
    primary.is_unavailable = False
    sleep.wake()
    await sleep.has_been_called(2)

    assert await manual_inbox.ack(await lease_of(manual_inbox))
    assert await manual_inbox.spooled() == 1


async def test_breaker_that_opens_again_in_an_outage_logs_nothing(manual_inbox, sleep, primary, caplog):
    """The primary could be read in between, and has stored nothing."""
    await begin_outage(manual_inbox, primary, sleep)
    primary.rejection, primary.rejected_bodies = InboxUnavailableError("it is full"), frozenset([b"body"])
    await manual_inbox.append(Delivery(b"body"))
    primary.is_unavailable = False
    sleep.wake()
    await sleep.has_been_called(2)
    primary.is_unavailable = True
    for _ in range(3):
        with pytest.raises(InboxUnavailableError, match="the server is unavailable"):
            await manual_inbox.stats()
    with pytest.raises(InboxUnavailableError, match="probed in the background"):
        await manual_inbox.stats()
    primary.is_unavailable, primary.rejected_bodies = False, frozenset()

    assert len(messages(caplog, "primary inbox")) == 1


async def test_deliveries_go_to_the_primary_again_if_the_spool_fails_too(primary, sleep, caplog):
    """Once a probe has succeeded."""
    spool = FaultyInbox(MemoryInbox())
    async with SpoolingInbox(primary, spool, sleep=sleep) as inbox:
        await begin_outage(inbox, primary, sleep)
        spool.is_unavailable, primary.is_unavailable = True, False
        sleep.wake()
        await eventually(lambda: bool(messages(caplog, "is available again")))

        assert (await inbox.append(Delivery(b"body"))).id == 1
        spool.is_unavailable = False


async def test_breaker_that_opens_before_the_forwarder_waits_is_probed(
    manual_inbox, sleep, primary, spool, monkeypatch
):
    """The forwarder notices an outage between an empty claim and its wait."""
    claim = spool.claim

    async def claim_during_outage(limit: int, *, lease: float) -> list[Lease]:
        if not primary.is_unavailable:
            primary.is_unavailable = True
            for _ in range(3):
                with pytest.raises(InboxUnavailableError):
                    await manual_inbox.stats()
            await claim(limit, lease=lease)
            return []
        return await claim(limit, lease=lease)

    monkeypatch.setattr(spool, "claim", claim_during_outage)
    await spool.append(Delivery(b"body"))

    await sleep.has_been_called(1)


async def test_success_between_failures_keeps_the_breaker_closed(make, primary):
    """Only consecutive failures count."""
    async with make(failure_threshold=2, drain_timeout=0) as inbox:
        for _ in range(5):
            primary.is_unavailable = True
            with pytest.raises(InboxUnavailableError):
                await inbox.stats()
            primary.is_unavailable = False
            await inbox.stats()


# --- forwarding -------------------------------------------------------------------------------------------


async def test_spooled_deliveries_are_forwarded_in_order_of_arrival(manual_inbox, sleep, primary):
    """The order holds if the primary is unavailable for several attempts."""
    bodies = [b"%d" % number for number in range(250)]
    primary.is_unavailable = True
    await manual_inbox.append_many([Delivery(body) for body in bodies[:200]])
    await sleep.has_been_called(1)
    sleep.wake()
    await sleep.has_been_called(2)
    await manual_inbox.append_many([Delivery(body) for body in bodies[200:]])
    primary.is_unavailable = False
    sleep.wake()

    await wait_until_forwarded(manual_inbox)
    assert await bodies_of(manual_inbox, limit=300) == bodies


async def test_delivery_that_the_primary_rejects_five_times_is_a_dead_letter(inbox, primary, monkeypatch, caplog):
    """Later deliveries are forwarded meanwhile, and the dead letter is logged, listed and counted."""
    monkeypatch.setattr(_forwarder, "_REJECTION_DELAY_SECONDS", 0.001)
    primary.rejected_bodies = frozenset([b"bad"])
    await spool_all(inbox, primary, b"1", b"bad", b"2")

    await wait_until_forwarded(inbox)

    (dead,) = await all_entries(inbox, "dead")
    reason = "the primary inbox rejected the delivery 5 times, most recently: the body is too large"
    assert await bodies_of(inbox) == [b"1", b"2"]
    assert (dead.id, dead.delivery.body, dead.attempt, dead.reason) == ("spool/2", b"bad", 5, reason)
    assert (await inbox.stats()).dead == 1
    assert messages(caplog, "became a dead letter") == [f"delivery spool/2 became a dead letter: {reason}"]


async def test_rejected_delivery_is_delayed(inbox, primary, spool):
    """A full primary gets time to free space; the entry shows the attempt and the reason."""
    primary.rejected_bodies = frozenset([b"bad"])
    await inbox.append(Delivery(b"bad"))

    async def is_delayed() -> bool:
        return (await spool.stats()).delayed == 1

    await eventually(is_delayed)
    (entry,) = await all_entries(inbox)
    (spooled,) = await all_entries(spool)
    assert (entry.id, entry.attempt, entry.reason) == ("spool/1", 2, "the body is too large")
    assert (entry.state, await all_entries(inbox, spooled.state)) == (spooled.state, [entry])
    assert await inbox.stats() == InboxStats(delayed=1)


async def test_unavailability_for_one_delivery_counts_as_rejection(inbox, primary, monkeypatch):
    """A server may close the connection because of one delivery; accepting others proves that it is available."""
    monkeypatch.setattr(_forwarder, "_REJECTION_DELAY_SECONDS", 0.001)
    primary.rejection, primary.rejected_bodies = (
        InboxUnavailableError("connection closed"),
        frozenset([b"bad"]),
    )
    await inbox.append(Delivery(b"bad"))

    async def is_dead() -> bool:
        await inbox.append(Delivery(b"good"))
        return (await inbox.stats()).dead == 1

    await eventually(is_dead)
    assert await bodies_of(inbox) == [b"good"]


async def test_primary_that_stores_nothing_causes_no_dead_letters(manual_inbox, sleep, primary):
    """If the primary can be read but its disk is full, the deliveries wait."""
    primary.rejection, primary.rejected_bodies = (
        InboxUnavailableError("its disk is full"),
        frozenset([b"1", b"2"]),
    )
    await manual_inbox.append(Delivery(b"1"))
    await manual_inbox.append(Delivery(b"2"))
    for times in range(1, 8):
        await sleep.has_been_called(times)
        sleep.wake()
    await sleep.has_been_called(8)

    assert await manual_inbox.stats() == InboxStats(ready=2, oldest_ready_age=pytest.approx(0, abs=DEADLINE))
    primary.rejected_bodies = frozenset()
    sleep.wake()
    await wait_until_forwarded(manual_inbox)
    assert await bodies_of(manual_inbox) == [b"1", b"2"]


async def test_a_batch_that_the_primary_does_not_store_does_not_block_the_next_delivery(inbox, primary):
    """Nor do its deliveries stay in the way: they are delayed once the primary has stored another one."""
    bodies = [b"bad %d" % number for number in range(_forwarder._BATCH_SIZE)]
    primary.rejection, primary.rejected_bodies = InboxUnavailableError("connection closed"), frozenset(bodies)
    await spool_all(inbox, primary, *bodies, b"good")

    async def is_stored() -> bool:
        return (await primary.inner.stats()).ready == 1

    await eventually(is_stored)
    assert await bodies_of(primary.inner) == [b"good"]


async def test_replay_includes_dead_letters_of_the_spool(inbox, primary, monkeypatch):
    """All of them or by id; they are forwarded to the primary again."""
    monkeypatch.setattr(_forwarder, "_REJECTION_DELAY_SECONDS", 0.001)
    primary.rejected_bodies = frozenset([b"1", b"2", b"3"])
    for body in (b"1", b"2", b"3"):
        await inbox.append(Delivery(body))
    await wait_until_forwarded(inbox)
    await inbox.append(Delivery(b"dead in primary"))
    await inbox.dead_letter(await lease_of(inbox), "because")
    primary.rejected_bodies = frozenset()

    by_id = await inbox.replay(["spool/2", "spool/2", "spool/9", "9"])
    none = await inbox.replay([])
    rest = await inbox.replay()
    await wait_until_forwarded(inbox)

    assert (by_id, none, rest) == (1, 0, 3)
    assert sorted(await bodies_of(inbox)) == [b"1", b"2", b"3", b"dead in primary"]


async def test_purge_includes_dead_letters_of_the_spool(inbox, primary, monkeypatch):
    """``dead_before`` applies to both inboxes, ``done_before`` only to the primary."""
    monkeypatch.setattr(_forwarder, "_REJECTION_DELAY_SECONDS", 0.001)
    primary.rejected_bodies = frozenset([b"bad"])
    await inbox.append(Delivery(b"bad"))
    await wait_until_forwarded(inbox)

    assert await inbox.purge(done_before=LATER) == 0
    assert await inbox.purge(dead_before=LATER) == 1
    with pytest.raises(TypeError, match="done_before"):
        await inbox.purge()


async def test_delivery_that_cannot_be_deleted_from_the_spool_is_forwarded_again(inbox, primary, spool, monkeypatch):
    """If the spool's disk fails after forwarding, the primary drops the repeats."""
    ack = spool.ack

    async def ack_after_two_failures(lease: Lease) -> bool:
        if primary.calls.count("append_many") < 3:
            raise InboxUnavailableError("its disk fails")
        return await ack(lease)

    monkeypatch.setattr(spool, "ack", ack_after_two_failures)
    await spool_all(inbox, primary, b"body")
    await wait_until_forwarded(inbox)

    assert primary.calls.count("append_many") == 3
    assert await bodies_of(inbox) == [b"body"]


# --- operations of the primary ----------------------------------------------------------------------------

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


@pytest.mark.parametrize("trouble", ["is_unavailable", "is_hanging"])
@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
async def test_operation_of_the_primary_fails_in_bounded_time(make, primary, operation, trouble):
    """Each operation raises InboxUnavailableError if the primary fails or hangs."""
    async with make(operation_timeout=0.01, drain_timeout=0) as inbox:
        setattr(primary, trouble, True)

        async with asyncio.timeout(DEADLINE):
            with pytest.raises(InboxUnavailableError):
                await operation(inbox)

        setattr(primary, trouble, False)


async def test_foreign_exception_becomes_inbox_unavailable_error(inbox, primary, monkeypatch):
    """Only its class is in the message, because its own message may be private."""
    error = ValueError("secret words")

    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(primary.inner, "claim", broken)

    with pytest.raises(InboxUnavailableError) as raised:
        await inbox.claim(1, lease=LEASE)
    assert (str(raised.value), raised.value.__cause__) == ("the primary inbox failed: ValueError", error)


async def test_inbox_error_of_the_primary_is_raised_unchanged(inbox, primary, monkeypatch):
    """A rejection does not count as a failure of the primary."""

    async def reject(*_: object) -> None:
        raise InboxError("that cannot be done")

    monkeypatch.setattr(primary.inner, "replay", reject)

    for _ in range(5):
        with pytest.raises(InboxError, match="that cannot be done"):
            await inbox.replay()
    assert await inbox.stats() == InboxStats()


@pytest.mark.parametrize("end", ["time", "cancelled"])
async def test_leases_of_an_overdue_claim_are_released(make, primary, end):
    """After a timeout or a cancellation; an abandoned lease would count as a crash."""
    async with make(operation_timeout=0.01 if end == "time" else DEADLINE) as inbox:
        await inbox.append(Delivery(b"body"))
        inner, claimed = primary.inner, asyncio.Event()
        slow = SlowClaim(inner, claimed)
        primary.inner = slow
        claiming = asyncio.create_task(inbox.claim(1, lease=LEASE))
        await claimed.wait()
        if end == "cancelled":
            claiming.cancel()
        await asyncio.wait([claiming])
        inbox._breaker._operation_timeout = DEADLINE
        primary.inner = inner
        slow.proceed.set()
        await eventually(lambda: inner._rows[1].state == "ready")

        lease = await lease_of(inbox)
        assert (lease.attempt, lease.crashes) == (1, 0)


async def test_leases_of_a_claim_that_finishes_during_cancellation_are_released(make, primary):
    """The caller is cancelled at the moment in which the claim finishes."""
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
    """An inbox that cancels the caller when the claim finishes."""

    def __init__(self, inner: Inbox) -> None:
        self._inner = inner
        self.release = inner.release

    async def claim(self, limit: int, *, lease: float) -> list[Lease]:
        leases = await self._inner.claim(limit, lease=lease)
        self.claiming.cancel()
        return leases


class SlowClaim:
    """An inbox that claims at once and returns the leases later."""

    def __init__(self, inner: Inbox, claimed: asyncio.Event) -> None:
        self._inner = inner
        self._claimed = claimed
        self.proceed = asyncio.Event()

    async def claim(self, limit: int, *, lease: float) -> list[Lease]:
        leases = await self._inner.claim(limit, lease=lease)
        self._claimed.set()
        await self.proceed.wait()
        return leases


async def test_spooled_deliveries_count_as_ready(manual_inbox, sleep, primary):
    """Deliveries that are being forwarded are ready too, in the counts and in listings."""
    primary.rejection, primary.rejected_bodies = (
        InboxUnavailableError("its disk is full"),
        frozenset([b"held", b"next"]),
    )
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    await manual_inbox.append(Delivery(b"held", received_at=long_ago))
    await sleep.has_been_called(1)
    await manual_inbox.append(Delivery(b"next"))

    stats = await manual_inbox.stats()
    assert (stats.ready, stats.leased, stats.oldest_ready_age) == (2, 0, pytest.approx(3600, abs=DEADLINE))
    shown = [(entry.id, entry.state) for entry in await all_entries(manual_inbox)]
    assert shown == [("spool/1", "ready"), ("spool/2", "ready")]
    assert [entry.id for entry in await all_entries(manual_inbox, "ready")] == ["spool/1", "spool/2"]
    assert await all_entries(manual_inbox, "leased") == []


async def test_spooled_delivery_can_be_read_while_primary_is_away(manual_inbox, primary):
    """With `get` and its id, and through the ``spool`` property."""
    primary.is_unavailable = True
    appended = await manual_inbox.append(Delivery(b"body"))

    entry = await manual_inbox.get(appended.id)
    assert (entry.id, entry.state, entry.delivery.body) == ("spool/1", "ready", b"body")
    assert await manual_inbox.get("spool/2") is None
    assert (await manual_inbox.spooled(), len(await all_entries(manual_inbox.spool))) == (1, 1)


async def test_forwarded_delivery_has_an_id_of_the_primary(inbox, primary, monkeypatch):
    """The spool's entry is hidden, even if it has not been deleted yet."""

    async def purge_nothing(**_: object) -> int:
        return 0

    monkeypatch.setattr(inbox.spool, "purge", purge_nothing)
    await spool_all(inbox, primary, b"body")
    await wait_until_forwarded(inbox)

    assert await inbox.get("spool/1") is None
    assert [entry.id for entry in await all_entries(inbox)] == [1]


async def first_body(inbox: Inbox) -> bytes:
    """Return the body of the first entry, and close the listing."""
    async with aclosing(inbox.entries()) as entries:
        return (await anext(entries)).delivery.body


async def test_closing_a_listing_closes_that_of_the_primary(spool):
    """The listing of the primary may hold a connection."""
    ended = []

    async def record_end() -> None:
        await asyncio.sleep(0)
        ended.append(1)

    async with SpoolingInbox(InboxWithListingHook(record_end), spool) as inbox:
        await inbox.append_many([Delivery(b"1"), Delivery(b"2")])
        assert (await first_body(inbox), ended) == (b"1", [1])


async def fail() -> None:
    raise LookupError


@pytest.mark.parametrize(
    "primary", [InboxWithListingHook(fail), InboxWithListingHook(asyncio.Event().wait), InboxWithUnclosableListing()]
)
async def test_listing_that_cannot_be_closed_is_abandoned(primary, spool):
    """Closing is bounded by the operation timeout, and its errors are ignored."""
    async with SpoolingInbox(primary, spool, operation_timeout=0.5) as inbox:
        await inbox.append_many([Delivery(b"1"), Delivery(b"2")])
        assert (await first_body(inbox), (await inbox.stats()).ready) == (b"1", 2)


async def test_retention_is_that_of_the_primary(make):
    """For a primary without the attribute it has the value None."""
    assert make().retention == MemoryInbox().retention
    assert SpoolingInbox(object(), MemoryInbox()).retention is None


# --- waiting ----------------------------------------------------------------------------------------------


async def test_wait_returns_when_the_primary_recovers(manual_inbox, sleep, primary):
    """The primary is not called meanwhile."""
    await begin_outage(manual_inbox, primary, sleep)
    call_count = len(primary.calls)
    waiting = asyncio.create_task(manual_inbox.wait(DEADLINE))
    await asyncio.sleep(0)

    assert len(primary.calls) == call_count
    primary.is_unavailable = False
    sleep.wake()
    async with asyncio.timeout(DEADLINE):
        await waiting


async def test_wait_returns_after_its_timeout_while_the_primary_is_away(manual_inbox, sleep, primary):
    """The timeout holds during an outage too."""
    await begin_outage(manual_inbox, primary, sleep)

    async with asyncio.timeout(DEADLINE):
        await manual_inbox.wait(0.01)


# --- starting and stopping --------------------------------------------------------------------------------


async def test_inbox_starts_without_its_primary(make, primary, caplog):
    """Deliveries are spooled, and the primary is opened later; each is logged once."""
    primary.is_unavailable = True
    async with make() as inbox:
        await eventually(lambda: primary.calls.count("open") > 3)
        appended = await inbox.append(Delivery(b"body"))
        with pytest.raises(InboxUnavailableError):
            await inbox.claim(1, lease=LEASE)
        primary.is_unavailable = False
        await wait_until_forwarded(inbox)

        assert (appended.id, await bodies_of(inbox)) == ("spool/1", [b"body"])
    assert len(messages(caplog, "cannot open the primary inbox")) == 1
    assert len(messages(caplog, "opened the primary inbox")) == 1
    assert primary.calls.count("append") == 0


async def test_start_does_not_wait_longer_than_timeout(make, primary, caplog):
    """The primary may be opened while deliveries are being spooled."""
    primary.is_hanging = True
    async with make(timeout=0.01) as inbox:
        appended = await inbox.append(Delivery(b"body"))
        primary.is_hanging = False
        primary.resumed.set()
        await wait_until_forwarded(inbox)

        assert (appended.id, await bodies_of(inbox)) == ("spool/1", [b"body"])
    assert messages(caplog, "cannot open the primary inbox") == [
        "cannot open the primary inbox, retrying; deliveries are stored in the spool: not open after 0.01 s"
    ]


async def test_opening_is_retried_if_the_driver_raises_cancelled_error(primary, spool, caplog):
    """A CancelledError without a cancellation of the task does not stop the inbox."""
    attempts = []

    async def fail_once() -> MemoryInbox:
        attempts.append(1)
        if len(attempts) == 1:
            raise asyncio.CancelledError
        return await MemoryInbox.__aenter__(primary.inner)

    primary.inner = InboxWithOpenHook(fail_once)
    async with SpoolingInbox(primary, spool, recovery_timeout=0.001) as inbox:
        await inbox.append(Delivery(b"body"))
        await wait_until_forwarded(inbox)

    assert len(attempts) == 2
    assert messages(caplog, "cannot open the primary inbox")[0].endswith(": CancelledError")


class InboxWithOpenHook(MemoryInbox):
    """An inbox that is opened by a function of the test."""

    def __init__(self, open_inbox: Callable[[], Awaitable[MemoryInbox]]) -> None:
        super().__init__()
        self._open_inbox = open_inbox

    async def __aenter__(self) -> MemoryInbox:
        return await self._open_inbox()


async def test_opening_is_retried_if_the_primary_hangs(make, primary):
    """Each attempt is bounded by the operation timeout."""
    primary.is_hanging = True
    async with make(operation_timeout=0.01):
        await eventually(lambda: primary.calls.count("open") > 2)
        primary.is_hanging = False
        await eventually(lambda: primary.is_open)


@pytest.mark.parametrize("trouble", ["is_unavailable", "is_hanging"])
async def test_inbox_stops_if_its_primary_was_never_open(make, primary, trouble, caplog):
    """The number of spooled deliveries is logged, and they are forwarded after the next start."""
    setattr(primary, trouble, True)
    async with asyncio.timeout(DEADLINE):
        async with make(timeout=0.01, recovery_timeout=DEADLINE, drain_timeout=DEADLINE) as inbox:
            await inbox.append(Delivery(b"1"))
            await inbox.append(Delivery(b"2"))
    setattr(primary, trouble, False)

    assert messages(caplog, "remain in the spool") == ["2 deliveries remain in the spool until the next start"]
    async with make() as inbox:
        await wait_until_forwarded(inbox)
        assert await bodies_of(inbox) == [b"1", b"2"]


async def test_cancelled_start_closes_everything(make, primary, spool):
    """The spool can be opened again, and no task is left."""
    primary.is_hanging = True
    opening = asyncio.create_task(make(timeout=DEADLINE).__aenter__())
    await eventually(lambda: "open" in primary.calls)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening

    async with spool:
        assert len(asyncio.all_tasks()) == 1


async def test_spool_that_cannot_be_opened_is_an_error(primary, tmp_path):
    """The primary is not opened."""
    with pytest.raises(InboxUnavailableError):
        await SpoolingInbox(primary, SqliteInbox(tmp_path / "nowhere" / "spool.db")).__aenter__()
    assert not primary.is_open


async def test_close_forwards_spooled_deliveries(manual_inbox, sleep, primary, spool, caplog):
    """It does not wait for the next probe."""
    primary.is_unavailable = True
    for number in range(250):
        await manual_inbox.append(Delivery(b"%d" % number))
    await sleep.has_been_called(1)
    primary.is_unavailable = False

    await manual_inbox.__aexit__(None, None, None)

    assert await bodies_of(primary.inner, limit=300) == [b"%d" % number for number in range(250)]
    assert messages(caplog, "remain in the spool") == []
    async with manual_inbox:
        assert await manual_inbox.spooled() == 0


@pytest.fixture
def short_close_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the time for closing the primary."""
    monkeypatch.setattr(_circuit_breaker, "CLOSE_TIMEOUT_SECONDS", 0.01)


@pytest.mark.usefixtures("short_close_timeout")
@pytest.mark.parametrize("trouble", ["is_unavailable", "is_hanging", "loses_responses"])
async def test_close_is_bounded_while_the_primary_is_away(make, primary, spool, trouble, caplog):
    """The forwarder makes one more attempt; the deliveries stay in the spool."""
    async with asyncio.timeout(DEADLINE):
        async with make(timeout=0.01, drain_timeout=0.01, recovery_timeout=DEADLINE) as inbox:
            setattr(primary, trouble, True)
            await inbox.append_many([Delivery(b"1"), Delivery(b"2")])

    assert messages(caplog, "remain in the spool") == ["2 deliveries remain in the spool until the next start"]
    async with spool:
        assert await bodies_of(spool) == [b"1", b"2"]


async def test_inboxes_are_closed_in_reverse_order(primary):
    """The spool is opened first and closed last."""
    spool = FaultyInbox(MemoryInbox())
    order = []
    for name, inbox in (("primary", primary), ("spool", spool)):
        inbox.calls = CallRecorder(order, name)
    async with SpoolingInbox(primary, spool):
        pass

    assert [step for step in order if step[1] in ("open", "close")] == [
        ("spool", "open"),
        ("primary", "open"),
        ("primary", "close"),
        ("spool", "close"),
    ]


class CallRecorder(list[str]):
    """A list that records each appended operation, with the inbox's name, in a shared list."""

    def __init__(self, order: list[tuple[str, str]], name: str) -> None:
        super().__init__()
        self._order = order
        self._name = name

    def append(self, operation: str) -> None:
        self._order.append((self._name, operation))


async def test_failing_spool_does_not_prevent_closing_the_primary(primary):
    """The error of the spool is raised; the remaining deliveries are not counted."""
    spool = FaultyInbox(MemoryInbox())
    inbox = SpoolingInbox(primary, spool, recovery_timeout=0.001)
    await inbox.__aenter__()
    spool.is_unavailable = True
    with pytest.raises(InboxUnavailableError):
        await inbox.__aexit__(None, None, None)
    spool.is_unavailable = False

    assert not primary.is_open


async def test_close_leaves_no_tasks(make, primary):
    """Operations that the primary never finished are cancelled."""
    async with make(timeout=0.01, operation_timeout=0.01, drain_timeout=0) as inbox:
        primary.is_hanging = True
        await inbox.append(Delivery(b"body"))
        with pytest.raises(InboxUnavailableError):
            await inbox.claim(1, lease=LEASE)
        primary.is_hanging = False

    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize("option", ["timeout", "operation_timeout", "failure_threshold", "recovery_timeout"])
def test_limits_must_be_positive(make, option):
    """Zero is a ValueError that begins with the parameter's name."""
    with pytest.raises(ValueError, match=option):
        make(**{option: 0})


def test_drain_timeout_must_not_be_negative(make):
    """Zero is allowed: nothing is forwarded at the end."""
    with pytest.raises(ValueError, match="drain_timeout"):
        make(drain_timeout=-1)


# --- crashed processes ------------------------------------------------------------------------------------

SPOOL_300_DELIVERIES = """
from callfire_async.errors import InboxUnavailableError
from callfire_async.notifications.inbox.memory import MemoryInbox
from callfire_async.notifications.inbox.spool import SpoolingInbox

class Away(MemoryInbox):
    async def append_many(self, deliveries):
        raise InboxUnavailableError("the server is unavailable")

    async def stats(self):
        raise InboxUnavailableError("the server is unavailable")

spool = SqliteInbox(sys.argv[1]) if sys.argv[1].endswith(".db") else SqliteInbox.in_directory(sys.argv[1])
async with SpoolingInbox(Away(), spool, recovery_timeout=0.01) as inbox:
    for number in range(300):
        await inbox.append(Delivery(b"%d" % number))
    report("spooled")
    await proceed()
"""


@pytest.mark.slow
async def test_next_process_forwards_deliveries_of_a_killed_one(make, primary, tmp_path):
    """Each delivery once, in order of arrival, except that those being forwarded at the crash come last."""
    async with running(SPOOL_300_DELIVERIES, tmp_path / "spool.db") as child:
        assert await child.read_line() == "spooled"
        await child.kill()

    async with make() as inbox:
        await wait_until_forwarded(inbox)
        bodies = [int(body) for body in await bodies_of(inbox, limit=1000)]
    assert bodies == [*range(bodies[0], 300), *range(bodies[0])]


@pytest.mark.slow
async def test_running_process_forwards_deliveries_of_a_killed_one(primary, tmp_path, monkeypatch):
    """Processes with spools in one directory take over from each other."""
    monkeypatch.setattr("callfire_async.notifications.inbox.sqlite._directory._TAKE_OVER_SECONDS", 0.05)
    async with SpoolingInbox(primary, SqliteInbox.in_directory(tmp_path / "spool"), recovery_timeout=0.001) as inbox:
        async with running(SPOOL_300_DELIVERIES, tmp_path / "spool") as child:
            assert await child.read_line() == "spooled"
            await child.kill()

        async def all_are_forwarded() -> bool:
            return (await primary.inner.stats()).ready == 300

        await eventually(all_are_forwarded)
        await spool_all(inbox, primary, b"own")
        await wait_until_forwarded(inbox)
        assert len(await bodies_of(inbox, limit=1000)) == 301


# --- with a receiver --------------------------------------------------------------------------------------


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


async def test_outage_loses_no_postback(router, make, primary):
    """The receiver responds 204 throughout, and the worker resumes when the primary recovers."""
    async with Receiver(router, tokens=None, inbox=make()) as receiver:
        replies = [await receiver.receive(postback(1))]
        await receiver.idle(DEADLINE)
        primary.is_unavailable = True
        replies += [await receiver.receive(postback(number)) for number in range(2, 12)]
        health = await receiver.health()
        primary.is_unavailable = False
        await receiver.idle(DEADLINE)

    assert (replies, health.live, health.ready) == ([Reply(204)] * 11, True, True)
    assert sorted(router.handled) == list(range(1, 12))


async def test_receiver_stays_ready_while_leases_cannot_be_settled(make, primary, sleep):
    """It is not healthy if a finished handler cannot be acked, but it still accepts postbacks."""
    router, started, finish = Router(), asyncio.Event(), asyncio.Event()

    @router.on(Notification)
    async def handler(event: Notification) -> None:
        started.set()
        await finish.wait()

    async with Receiver(router, tokens=None, inbox=make(sleep=sleep)) as receiver:
        await receiver.receive(postback(1))
        await started.wait()
        primary.is_unavailable = True
        finish.set()

        async def has_failed_to_ack() -> bool:
            return "the inbox cannot be written to" in (await receiver.health()).reasons

        await eventually(has_failed_to_ack)
        health = await receiver.health()
        reply = await receiver.receive(postback(2))
        primary.is_unavailable = False
        sleep.wake()

    assert (health.live, health.ready, health.healthy, reply) == (True, True, False, Reply(204))


async def test_receiver_is_not_idle_while_the_primary_is_away(router, make, primary, sleep):
    """The primary may hold deliveries that are due."""
    async with Receiver(router, tokens=None, inbox=make(sleep=sleep)) as receiver:
        primary.is_unavailable = True
        await receiver.receive(postback(1))
        with pytest.raises(TimeoutError):
            await receiver.idle(0.01)
        primary.is_unavailable = False


async def test_intake_and_workers_can_be_separate_receivers(router, primary, tmp_path):
    """With ``concurrency=0`` a receiver only stores; another one with the same primary runs the handlers."""
    shared = SharedInbox(MemoryInbox())
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


class SharedInbox(FaultyInbox):
    """An inbox for several receivers, which opening and closing does not affect."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass
