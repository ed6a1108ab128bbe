"""
The conformance suite of all inboxes.

Each inbox has a subclass of `InboxSuite` with a factory. If the engine uses its own clock, the capabilities do not have
`CLOCK`; if several processes may have the inbox open at once, they do not have `OWNER`. Tests that need one of them are
skipped then.
"""

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, ClassVar

import pytest
from attrs import define, field
from notifications.inbox.clocks import Clocks

from callfire_async.notifications import Postback, Receiver, Reject, Router, TextReceived
from callfire_async.notifications.inbox import Delivery, Inbox, InboxEntry, InboxStats, Lease

CLOCK = "uses the clock that it is given"
OWNER = "belongs to one process and ends its leases with it"

DEADLINE = 60
LEASE = 60.0
WINDOW = 3600.0

BODIES = {
    "nothing": b"",
    "zeros": b"\0\0",
    "every byte": bytes(range(256)),
    "no UTF-8": b"\xff\xfe\xed\xa0\x80",
    "a megabyte": bytes(range(256)) * 4096,
}
ODD_TEXTS = {
    "NUL": "a\0b",
    "line ends": "a\nb\r\nc\u2028d",
    "a lone surrogate": "application/\udcff\ud800xml",
    "beyond the first plane": "\U0001f4de \u0627\u0644",
    "quotes": "'; DROP TABLE deliveries; --\\n",
    "long": "x" * 100_000,
}
ODD_IDS = ["", "no id", "0", -1, 0, 10**30, str(10**30), "1/1", "a/b/c", "\ud800", "\u0663\u00b2", "file/" + "9" * 5000]

bodies = pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
odd_texts = pytest.mark.parametrize("text", ODD_TEXTS.values(), ids=ODD_TEXTS)

Settle = Callable[[Inbox, Lease], Awaitable[bool]]
SETTLE: dict[str, Settle] = {
    "extend": lambda inbox, lease: inbox.extend(lease, LEASE),
    "ack": lambda inbox, lease: inbox.ack(lease),
    "nack": lambda inbox, lease: inbox.nack(lease, delay=0),
    "release": lambda inbox, lease: inbox.release(lease),
    "dead_letter": lambda inbox, lease: inbox.dead_letter(lease, "why"),
}
settles = pytest.mark.parametrize("settle", SETTLE.values(), ids=SETTLE)


@define
class World:
    """The surroundings of an inbox: a directory for its files, clocks, and objects that a factory reuses."""

    directory: Path
    clocks: Clocks = field(factory=Clocks)
    reused: dict[str, Any] = field(factory=dict)


async def lease_of(inbox: Inbox, *, lease: float = LEASE) -> Lease:
    """Claim the only delivery that is due; a server may send a large one after the claim has ended."""
    async with asyncio.timeout(DEADLINE):
        while not (leases := await inbox.claim(10, lease=lease)):
            await inbox.wait(1.0)
    (leased,) = leases
    return leased


async def bodies_of(inbox: Inbox, *, limit: int = 100) -> list[bytes]:
    return [lease.delivery.body for lease in await inbox.claim(limit, lease=LEASE)]


async def all_entries(inbox: Inbox, state: str | None = None) -> list[InboxEntry]:
    return [entry async for entry in inbox.entries(state)]


async def dead_letter(inbox: Inbox, body: bytes = b"dead") -> Lease:
    await inbox.append(Delivery(body))
    lease = await lease_of(inbox)
    await inbox.dead_letter(lease, "because")
    return lease


class InboxSuite(ABC):
    """The tests; a subclass defines ``make`` and the capabilities of its inbox."""

    capabilities: ClassVar[frozenset[str]] = frozenset([CLOCK, OWNER])

    @abstractmethod
    def make(self, world: World, **options: Any) -> Inbox:
        """Return an inbox; with the same world, one that has the data of the last one."""

    @pytest.fixture
    def world(self, tmp_path: Path) -> World:
        return World(tmp_path)

    @pytest.fixture
    def clocks(self, world: World) -> Clocks:
        if CLOCK not in self.capabilities:
            pytest.skip(f"needs an inbox that {CLOCK}")
        return world.clocks

    @pytest.fixture
    async def inbox(self, world: World) -> AsyncIterator[Inbox]:
        async with self.make(world) as inbox:
            yield inbox

    # --- appending -----------------------------------------------------------------------------------------

    async def test_a_claimed_delivery_equals_the_appended_one(self, inbox):
        """Time, content type and key included."""
        at = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=timezone(timedelta(hours=-7)))
        delivery = Delivery(b"<xml/>", "text/xml; charset=utf-8", received_at=at, key="a key")

        appended = await inbox.append(delivery)

        lease = await lease_of(inbox)
        assert (lease.id, lease.delivery, appended.duplicate) == (appended.id, delivery, False)
        assert (lease.attempt, lease.crashes, lease.completed) == (1, 0, frozenset())

    @bodies
    async def test_any_bytes_are_stored_unchanged(self, inbox, body):
        """A missing content type stays None."""
        await inbox.append(Delivery(body))

        lease = await lease_of(inbox)
        assert (lease.delivery.body, lease.delivery.content_type) == (body, None)

    @odd_texts
    async def test_any_content_type_and_any_key_are_stored(self, inbox, text):
        """An unusual header does not prevent storage."""
        first = await inbox.append(Delivery(b"body", text, key=text))
        again = await inbox.append(Delivery(b"another", text, key=text))

        entry = await inbox.get(first.id)
        assert (entry.delivery.content_type, entry.delivery.key, again.id) == (text, text, first.id)
        assert (await lease_of(inbox)).delivery.content_type == text

    @odd_texts
    async def test_any_reason_and_any_handler_name_are_stored(self, inbox, text):
        """Reasons contain messages of exceptions, names are chosen by the user."""
        await inbox.append(Delivery(b"body"))
        await inbox.nack(await lease_of(inbox), delay=0, completed=frozenset([text]), reason=text)
        lease = await lease_of(inbox)
        await inbox.dead_letter(lease, text)

        (entry,) = await all_entries(inbox, "dead")
        assert (lease.completed, entry.reason) == ({text}, text)

    @odd_texts
    async def test_any_event_key_is_found(self, inbox, text):
        """The key of an unknown event contains what the sender chose."""
        await inbox.append(Delivery(b"body"))
        await inbox.ack(await lease_of(inbox), event_key=text)

        assert await inbox.handled([text, text + "x"]) == {text}

    async def test_append_many_stores_deliveries_in_order(self, inbox):
        """The results have the order of the deliveries."""
        appended = await inbox.append_many([Delivery(b"%d" % number) for number in (3, 1, 2)])

        leases = await inbox.claim(10, lease=LEASE)
        assert [lease.delivery.body for lease in leases] == [b"3", b"1", b"2"]
        assert [result.id for result in appended] == [lease.id for lease in leases]

    async def test_append_many_accepts_an_empty_list(self, inbox):
        """Nothing is stored."""
        assert await inbox.append_many([]) == []
        assert await inbox.stats() == InboxStats()

    async def test_append_many_finds_duplicates_in_its_list(self, inbox):
        """The first one is stored."""
        first, other, repeat = await inbox.append_many([Delivery(b"a"), Delivery(b"b"), Delivery(b"a")])

        assert (repeat.id, repeat.duplicate, other.duplicate, first.duplicate) == (first.id, True, False, False)
        assert await bodies_of(inbox) == [b"a", b"b"]

    async def test_identical_bytes_are_one_delivery(self, inbox):
        """Even if their content types differ."""
        first = await inbox.append(Delivery(b"same", "text/xml"))
        again = await inbox.append(Delivery(b"same", "application/json"))

        assert (again.id, again.duplicate) == (first.id, True)
        assert await bodies_of(inbox) == [b"same"]

    async def test_an_explicit_key_identifies_duplicates(self, inbox):
        """The bodies do not matter then."""
        await inbox.append_many([Delivery(b"a", key="1"), Delivery(b"b", key="1"), Delivery(b"a", key="2")])

        assert await bodies_of(inbox) == [b"a", b"a"]

    async def test_concurrent_duplicates_are_one_delivery(self, inbox):
        """One of the appends is not a duplicate."""
        appended = await asyncio.gather(*(inbox.append(Delivery(b"same")) for _ in range(32)))

        assert len({result.id for result in appended}) == 1
        assert [result.duplicate for result in appended].count(False) == 1
        assert (await inbox.stats()).ready == 1

    async def test_without_a_window_every_delivery_is_new(self, world):
        """A window of 0 turns deduplication off."""
        async with self.make(world, dedupe_window=0) as inbox:
            appended = await inbox.append_many([Delivery(b"same"), Delivery(b"same")])
            again = await inbox.append(Delivery(b"same"))

            assert [result.duplicate for result in (*appended, again)] == [False] * 3
            assert {result.id for result in (*appended, again)} == {entry.id for entry in await all_entries(inbox)}
            assert await bodies_of(inbox) == [b"same"] * 3

    async def test_after_the_window_identical_bytes_are_new(self, inbox, clocks):
        """The window starts at the newest delivery with the key."""
        first = await inbox.append(Delivery(b"same"))
        clocks.advance(WINDOW - 1)
        within = await inbox.append(Delivery(b"same"))
        clocks.advance(1)
        after = await inbox.append(Delivery(b"same"))
        clocks.advance(WINDOW - 1)
        again = await inbox.append(Delivery(b"same"))

        assert [result.duplicate for result in (first, within, after, again)] == [False, True, False, True]
        assert (within.id, again.id) == (first.id, after.id)
        assert await bodies_of(inbox) == [b"same"] * 2

    @pytest.mark.parametrize("settled", ["nothing", "claim", "ack"])
    async def test_a_duplicate_of_a_delivery_that_is_not_dead_changes_nothing(self, inbox, settled):
        """The delivery is ready, leased or done."""
        appended = await inbox.append(Delivery(b"same"))
        if settled != "nothing":
            lease = await lease_of(inbox)
        if settled == "ack":
            await inbox.ack(lease)
        before = await inbox.get(appended.id)

        again = await inbox.append(Delivery(b"same"))

        assert (again.id, again.duplicate) == (appended.id, True)
        assert await inbox.get(appended.id) == before

    async def test_a_duplicate_of_a_dead_letter_makes_it_ready(self, inbox):
        """Handlers that have succeeded stay completed."""
        await inbox.append(Delivery(b"dead"))
        await inbox.nack(await lease_of(inbox), delay=0, completed=frozenset(["a"]))
        dead = await lease_of(inbox)
        await inbox.dead_letter(dead, "because")

        again = await inbox.append(Delivery(b"dead"))

        lease = await lease_of(inbox)
        assert (again.id, again.duplicate, lease.id) == (dead.id, True, dead.id)
        assert (lease.attempt, lease.completed, lease.delivery.body) == (1, {"a"}, b"dead")

    async def test_a_dead_letter_is_not_made_ready_by_its_envelope(self, inbox):
        """An envelope may be split several times; a repeated postback makes the dead letter ready."""
        dead = await dead_letter(inbox)
        before = await inbox.get(dead.id)
        part = Delivery(b"dead", envelope_id=dead.id)

        again, other = await inbox.append_many([part, Delivery(b"other")])

        assert (again.id, again.duplicate, other.duplicate) == (dead.id, True, False)
        assert (await inbox.append(part)).duplicate
        assert (await inbox.get(dead.id), await bodies_of(inbox)) == (before, [b"other"])
        await inbox.append_many([part, Delivery(b"dead")])
        assert await bodies_of(inbox) == [b"dead"]

    async def test_an_envelope_may_be_split_again(self, inbox):
        """Its events have keys with a slash; those that are waiting, leased, done or dead do not change."""
        envelope = await inbox.append(Delivery(b"envelope", key="parent"))
        await lease_of(inbox)
        parts = [Delivery(b"%d" % index, key=f"parent/{index}", envelope_id=envelope.id) for index in range(1000)]
        first = await inbox.append_many(parts)
        done, dead, _ = await inbox.claim(3, lease=LEASE)
        await inbox.ack(done, event_key="event 0")
        await inbox.dead_letter(dead, "because")
        before = [await inbox.get(result.id) for result in first[:4]]

        again = await inbox.append_many(parts)

        assert [result.duplicate for result in (*first, *again)] == [False] * 1000 + [True] * 1000
        assert [result.id for result in again] == [result.id for result in first]
        assert [await inbox.get(result.id) for result in first[:4]] == before
        assert [entry.delivery.key for entry in before] == [f"parent/{index}" for index in range(4)]
        assert (await inbox.stats()).ready == 997

    async def test_a_receiver_splits_an_envelope(self, world):
        """Each event is handled once, and has a state of its own."""
        router, handled = Router(), []

        @router.on(TextReceived)
        async def handle(event: TextReceived) -> None:
            handled.append(event.text.id)
            if event.text.id == 2:
                raise Reject("because")

        elements = [{"eventType": "Finished", "resource": {"id": number}} for number in (1, 2, 3)]
        body = json.dumps({"resourceType": "InboundText", "events": elements}).encode()
        async with Receiver(router, tokens=None, inbox=self.make(world)) as receiver:
            assert (await receiver.receive(Postback("POST", None, {}, body))).status == 204
            await receiver.idle(timeout=DEADLINE)
            stats = (await receiver.stats()).inbox

        assert (sorted(handled), stats.done, stats.dead) == ([1, 2, 3], 3, 1)

    async def test_dead_letters_and_new_deliveries_of_one_append_are_claimed_in_order_of_arrival(self, inbox):
        """They become due at one moment, whatever their order in the list."""
        for body in (b"1", b"2"):
            await dead_letter(inbox, body)
        await inbox.append_many([Delivery(body) for body in (b"new", b"2", b"1")])

        assert await bodies_of(inbox) == [b"1", b"2", b"new"]

    async def test_after_the_window_a_dead_letter_stays_dead(self, inbox, clocks):
        """The same bytes are a new delivery."""
        dead = await dead_letter(inbox)
        clocks.advance(WINDOW)

        again = await inbox.append(Delivery(b"dead"))

        assert (again.duplicate, (await inbox.get(dead.id)).state) == (False, "dead")

    # --- claiming -----------------------------------------------------------------------------------------

    async def test_a_claim_of_an_empty_inbox_returns_nothing(self, inbox):
        """It does not wait."""
        assert await inbox.claim(10, lease=LEASE) == []

    async def test_a_claim_returns_at_most_its_limit(self, inbox):
        """In order of arrival; the limit may be 0."""
        await inbox.append_many([Delivery(b"%d" % number) for number in range(5)])

        assert [await bodies_of(inbox, limit=limit) for limit in (0, 2, 2, 2)] == [
            [],
            [b"0", b"1"],
            [b"2", b"3"],
            [b"4"],
        ]

    async def test_concurrent_claims_never_return_the_same_delivery(self, inbox):
        """Each delivery is leased once."""
        await inbox.append_many([Delivery(b"%d" % number) for number in range(40)])

        lists = await asyncio.gather(*(inbox.claim(7, lease=LEASE) for _ in range(8)))

        ids = [lease.id for leases in lists for lease in leases]
        assert (len(ids), len(set(ids))) == (40, 40)

    async def test_deliveries_are_claimed_in_order_of_due_time(self, inbox, clocks):
        """Then in order of arrival."""
        await inbox.append_many([Delivery(b"late"), Delivery(b"early"), Delivery(b"as early")])
        for lease, delay in zip(await inbox.claim(3, lease=LEASE), (9, 3, 3), strict=True):
            await inbox.nack(lease, delay=delay)
        clocks.advance(1)
        await inbox.append(Delivery(b"new"))
        clocks.advance(8)

        assert await bodies_of(inbox) == [b"new", b"early", b"as early", b"late"]

    async def test_a_delayed_delivery_is_not_claimed_before_it_is_due(self, inbox, clocks):
        """To the second."""
        await inbox.append(Delivery(b"body"))
        await inbox.nack(await lease_of(inbox), delay=100)

        clocks.advance(99)
        early = await inbox.claim(1, lease=LEASE)
        clocks.advance(1)
        assert (early, await bodies_of(inbox)) == ([], [b"body"])

    # --- expired leases -----------------------------------------------------------------------------------

    async def test_an_expired_lease_is_ready_and_counts_as_a_crash(self, inbox, clocks):
        """The attempt is not counted: the worker reported no failure."""
        await inbox.append(Delivery(b"body"))
        await inbox.nack(await lease_of(inbox), delay=0)
        lost = await lease_of(inbox)

        clocks.advance(LEASE - 1)
        early = await inbox.claim(1, lease=LEASE)
        clocks.advance(1)
        lease = await lease_of(inbox)

        assert (early, lease.id, lease.attempt, lease.crashes) == ([], lost.id, 2, 1)
        assert lease.token != lost.token

    async def test_a_lease_can_be_extended(self, inbox, clocks):
        """From now, not from its end."""
        await inbox.append(Delivery(b"body"))
        lease = await lease_of(inbox)
        clocks.advance(LEASE - 1)

        extended = await inbox.extend(lease, LEASE)

        clocks.advance(LEASE - 1)
        assert (extended, await inbox.claim(1, lease=LEASE)) == (True, [])
        clocks.advance(1)
        assert await bodies_of(inbox) == [b"body"]

    @settles
    async def test_a_late_worker_cannot_settle_a_delivery_that_another_worker_holds(self, inbox, clocks, settle):
        """Its lease has expired."""
        appended = await inbox.append(Delivery(b"body"))
        late = await lease_of(inbox)
        clocks.advance(LEASE)
        other = await lease_of(inbox)
        before = await inbox.get(appended.id)

        assert not await settle(inbox, late)
        assert await inbox.get(appended.id) == before
        assert await inbox.ack(other)

    @settles
    async def test_a_late_worker_can_settle_a_delivery_that_no_other_worker_holds(self, inbox, clocks, settle):
        """The work was slow, but it was done once."""
        await inbox.append(Delivery(b"body"))
        late = await lease_of(inbox)
        clocks.advance(LEASE)

        assert await settle(inbox, late)

    async def test_a_delivery_with_two_crashes_is_claimed_alone(self, inbox, clocks):
        """A third crash does not affect other deliveries."""
        await inbox.append_many([Delivery(b"a"), Delivery(b"b")])
        for _ in range(2):
            await inbox.claim(1, lease=1)
            await inbox.claim(1, lease=LEASE)
            clocks.advance(LEASE)
        await inbox.append(Delivery(b"other"))

        lists = [await bodies_of(inbox) for _ in range(4)]

        assert lists == [[b"a"], [b"b"], [b"other"], []]

    async def test_a_claim_ends_before_a_delivery_with_two_crashes(self, inbox, clocks):
        """Deliveries that are due before it are claimed first, without it."""
        await inbox.append(Delivery(b"suspect"))
        for _ in range(2):
            await lease_of(inbox, lease=1)
            clocks.advance(1)
        await inbox.nack(await lease_of(inbox), delay=5)
        await inbox.append_many([Delivery(b"a"), Delivery(b"b")])
        clocks.advance(5)
        await inbox.append(Delivery(b"c"))

        lists = [await bodies_of(inbox) for _ in range(4)]

        assert lists == [[b"a", b"b"], [b"suspect"], [b"c"], []]

    async def test_a_delivery_with_one_crash_is_claimed_with_others(self, inbox, clocks):
        """Deployments interrupt deliveries too."""
        await inbox.append_many([Delivery(b"a"), Delivery(b"b")])
        await inbox.claim(2, lease=1)
        clocks.advance(1)

        assert await bodies_of(inbox) == [b"a", b"b"]

    # --- settling -----------------------------------------------------------------------------------------

    @pytest.mark.parametrize("before", [settle for settle in SETTLE if settle != "extend"])
    @settles
    async def test_a_lease_is_settled_once(self, inbox, before, settle):
        """Later attempts return False and change nothing."""
        appended = await inbox.append(Delivery(b"body"))
        lease = await lease_of(inbox)
        await SETTLE[before](inbox, lease)
        entry = await inbox.get(appended.id)

        assert not await settle(inbox, lease)
        assert await inbox.get(appended.id) == entry

    async def test_each_concurrent_ack_gets_its_own_result(self, inbox):
        """One lease is lost, one is acked twice; the others are done."""
        await inbox.append_many([Delivery(b"%d" % number) for number in range(6)])
        leases = [*await inbox.claim(4, lease=LEASE), *await inbox.claim(2, lease=LEASE)]
        await inbox.release(leases[1])

        acks = [inbox.ack(lease, event_key=f"event {lease.id}") for lease in [*leases, leases[5]]]
        acked = await asyncio.gather(*acks)

        assert (acked[:5], sorted(acked[5:])) == ([True, False, True, True, True], [False, True])
        assert await inbox.handled(f"event {lease.id}" for lease in leases) == {
            f"event {lease.id}" for lease in leases if lease is not leases[1]
        }
        assert await bodies_of(inbox) == [leases[1].delivery.body]

    async def test_the_ack_of_a_lost_lease_does_not_affect_a_concurrent_one(self, inbox):
        """Also if there are only two."""
        await inbox.append_many([Delivery(b"lost"), Delivery(b"held")])
        lost, held = await inbox.claim(2, lease=LEASE)
        await inbox.release(lost)

        assert await asyncio.gather(inbox.ack(lost), inbox.ack(held)) == [False, True]
        assert await bodies_of(inbox) == [lost.delivery.body]

    @settles
    async def test_a_released_lease_is_lost(self, inbox, settle):
        """The token of the next lease differs."""
        await inbox.append(Delivery(b"body"))
        first = await lease_of(inbox)
        await inbox.release(first)
        second = await lease_of(inbox)

        assert not await settle(inbox, first)
        assert await settle(inbox, second)

    @settles
    async def test_a_purged_delivery_cannot_be_settled(self, inbox, settle):
        """Its lease is lost."""
        lease = await dead_letter(inbox)
        await inbox.purge(dead_before=datetime.now(UTC) + timedelta(days=3650))

        assert not await settle(inbox, lease)

    async def test_an_ack_deletes_the_body_and_keeps_the_keys(self, inbox):
        """The body contains personal data."""
        appended = await inbox.append(Delivery(b"body", "text/xml", key="a key"))

        assert await inbox.ack(await lease_of(inbox), event_key="text 1")

        entry = await inbox.get(appended.id)
        assert (entry.state, entry.delivery.body, entry.delivery.key) == ("done", b"", "a key")
        assert (await inbox.append(Delivery(b"body", key="a key"))).duplicate
        assert await inbox.handled(["text 1"]) == {"text 1"}

    async def test_an_ack_clears_the_reason(self, inbox):
        """A handled delivery does not show its last failure."""
        appended = await inbox.append(Delivery(b"body"))
        await inbox.nack(await lease_of(inbox), delay=0, reason="it failed")

        await inbox.ack(await lease_of(inbox))

        assert (await inbox.get(appended.id)).reason == ""

    async def test_bodies_may_be_kept(self, world):
        """If keep_bodies is set."""
        async with self.make(world, keep_bodies=True) as inbox:
            appended = await inbox.append(Delivery(b"body"))
            await inbox.ack(await lease_of(inbox))

            assert (await inbox.get(appended.id)).delivery.body == b"body"

    async def test_a_nack_counts_the_attempt_and_adds_completed_handlers(self, inbox):
        """Only failed handlers run again."""
        appended = await inbox.append(Delivery(b"body"))
        await inbox.nack(await lease_of(inbox), delay=0, completed=frozenset("ab"), reason="c failed")
        await inbox.nack(await lease_of(inbox), delay=0, completed=frozenset("bd"), reason="e failed")

        entry = await inbox.get(appended.id)
        lease = await lease_of(inbox)
        assert (lease.attempt, lease.crashes, lease.completed) == (3, 0, frozenset("abd"))
        assert (entry.state, entry.attempt, entry.reason) == ("ready", 3, "e failed")

    async def test_a_release_does_not_count_the_attempt(self, inbox):
        """Completed handlers are stored."""
        await inbox.append(Delivery(b"body"))
        await inbox.nack(await lease_of(inbox), delay=0, completed=frozenset("a"))
        await inbox.release(await lease_of(inbox), completed=frozenset("b"))

        lease = await lease_of(inbox)
        assert (lease.attempt, lease.crashes, lease.completed) == (2, 0, frozenset("ab"))

    async def test_a_released_delivery_is_due_now(self, inbox, clocks):
        """It is claimed after deliveries that were due before."""
        await inbox.append(Delivery(b"released"))
        lease = await lease_of(inbox)
        await inbox.append(Delivery(b"waiting"))
        clocks.advance(1)
        await inbox.release(lease)

        assert await bodies_of(inbox) == [b"waiting", b"released"]

    async def test_a_dead_letter_is_kept_with_its_reason(self, inbox):
        """It is not claimed, and keeps its body."""
        appended = await inbox.append(Delivery(b"body", "text/xml"))
        lease = await lease_of(inbox)

        assert await inbox.dead_letter(lease, "no handler")

        entry = await inbox.get(appended.id)
        assert (entry.state, entry.reason, entry.delivery) == ("dead", "no handler", lease.delivery)
        assert await inbox.claim(1, lease=LEASE) == []

    async def test_a_replayed_dead_letter_keeps_its_completed_handlers(self, inbox):
        """Those of earlier attempts, and those of the last one: only failed handlers run again."""
        await inbox.append(Delivery(b"body"))
        await inbox.nack(await lease_of(inbox), delay=0, completed=frozenset("a"))
        assert await inbox.dead_letter(await lease_of(inbox), "rejected", completed=frozenset("b"))

        await inbox.replay()

        lease = await lease_of(inbox)
        assert (lease.attempt, lease.completed) == (1, frozenset("ab"))

    # --- administration -----------------------------------------------------------------------------------

    async def test_an_entry_shows_the_state_of_a_delivery(self, inbox, clocks):
        """Here of one that waits for its second attempt after a crash."""
        delivery = Delivery(b"body", "text/xml")
        appended = await inbox.append(delivery)
        await lease_of(inbox, lease=1)
        clocks.advance(1)
        await inbox.nack(await lease_of(inbox), delay=5, reason="it failed")

        at = datetime.fromtimestamp(clocks.system, UTC)
        assert await inbox.get(appended.id) == InboxEntry(appended.id, "delayed", delivery, 2, 1, "it failed", at)

    @pytest.mark.parametrize("id", ODD_IDS, ids=[ascii(odd)[:20] for odd in ODD_IDS])
    async def test_an_unknown_id_names_no_delivery(self, inbox, id):
        """Any text or number is accepted."""
        await dead_letter(inbox)

        assert await inbox.get(id) is None
        assert await inbox.replay([id]) == 0

    async def test_a_single_id_is_refused_by_replay(self, inbox):
        """The characters of a text are not ids."""
        await dead_letter(inbox)

        for wrong in ("1", b"1", 1):
            with pytest.raises(TypeError, match=r"^ids must "):
                await inbox.replay(wrong)
        assert len(await all_entries(inbox, "dead")) == 1

    async def test_an_id_may_be_given_as_text(self, inbox):
        """As on a command line."""
        lease = await dead_letter(inbox)

        assert (await inbox.get(str(lease.id))).state == "dead"
        assert await inbox.replay([str(lease.id), lease.id]) == 1

    async def test_entries_are_filtered_by_state_in_order_of_arrival(self, inbox, clocks):
        """An expired lease is ready."""
        names = ["expired", "acked", "dead", "delayed", "leased", "new"]
        await inbox.append_many([Delivery(b"%d" % number) for number in range(5)])
        expired, acked, dead, delayed, leased = await inbox.claim(5, lease=10)
        await inbox.extend(leased, LEASE)
        await inbox.ack(acked)
        await inbox.dead_letter(dead, "because")
        await inbox.nack(delayed, delay=LEASE)
        clocks.advance(10)
        new = await inbox.append(Delivery(b"5"))

        ids = [lease.id for lease in (expired, acked, dead, delayed, leased, new)]
        states = (None, "ready", "delayed", "leased", "done", "dead")
        listed = {state: await all_entries(inbox, state) for state in states}
        assert {state: [names[ids.index(entry.id)] for entry in entries] for state, entries in listed.items()} == {
            None: names,
            "ready": ["expired", "new"],
            "delayed": ["delayed"],
            "leased": ["leased"],
            "done": ["acked"],
            "dead": ["dead"],
        }
        assert [entry.state for entry in listed[None]] == ["ready", "done", "dead", "delayed", "leased", "ready"]

    async def test_a_delivery_that_waits_for_its_next_attempt_is_delayed(self, inbox):
        """With a delay of 0 it is ready."""
        delayed, ready = await inbox.append_many([Delivery(b"delayed"), Delivery(b"ready")])
        for lease in await inbox.claim(2, lease=LEASE):
            await inbox.nack(lease, delay=LEASE if lease.id == delayed.id else 0)

        assert ((await inbox.get(delayed.id)).state, (await inbox.get(ready.id)).state) == ("delayed", "ready")
        listed = [await all_entries(inbox, state) for state in ("delayed", "ready")]
        assert [[entry.id for entry in entries] for entries in listed] == [[delayed.id], [ready.id]]
        assert (await inbox.stats()).delayed == 1

    async def test_many_entries_are_all_listed(self, inbox):
        """More than an inbox reads at a time."""
        appended = await inbox.append_many([Delivery(b"%d" % number) for number in range(450)])

        assert [entry.id for entry in await all_entries(inbox)] == [result.id for result in appended]

    async def test_all_dead_letters_are_replayed(self, inbox, clocks):
        """Attempts and crashes start again, completed handlers stay completed; other deliveries do not change."""
        await inbox.append(Delivery(b"crashes"))
        for _ in range(3):
            await lease_of(inbox, lease=1)
            clocks.advance(1)
        await inbox.nack(await lease_of(inbox), delay=0, completed=frozenset("a"))
        await inbox.dead_letter(await lease_of(inbox), "crashes")
        await dead_letter(inbox)
        await inbox.append(Delivery(b"done"))
        await inbox.ack(await lease_of(inbox))

        assert await inbox.replay() == 2

        leases = await inbox.claim(10, lease=LEASE)
        assert [(lease.delivery.body, lease.completed) for lease in leases] == [
            (b"crashes", frozenset("a")),
            (b"dead", frozenset()),
        ]
        assert {(lease.attempt, lease.crashes) for lease in leases} == {(1, 0)}

    async def test_named_dead_letters_are_replayed(self, inbox):
        """Each once; IDs of other deliveries are ignored."""
        one, two, three = [await dead_letter(inbox, body) for body in (b"1", b"2", b"3")]
        waiting = await inbox.append(Delivery(b"waiting"))

        assert await inbox.replay(id for id in (three.id, one.id, one.id, waiting.id)) == 2
        assert await inbox.replay([]) == 0

        assert [entry.id for entry in await all_entries(inbox, "dead")] == [two.id]

    async def test_replayed_dead_letters_are_claimed_in_order_of_arrival(self, inbox):
        """They become due at one moment, whatever the order of their IDs in the call."""
        leases = [await dead_letter(inbox, body) for body in (b"1", b"2", b"3")]
        await inbox.replay([lease.id for lease in reversed(leases)])

        assert await bodies_of(inbox) == [b"1", b"2", b"3"]

    @pytest.mark.parametrize("limit", ["done_before", "dead_before"])
    async def test_the_limits_of_purge_have_a_utc_offset(self, inbox, limit):
        """A time without one has another meaning on each machine."""
        with pytest.raises(ValueError, match=f"^{limit} must have a UTC offset"):
            await inbox.purge(**{limit: datetime(2026, 1, 31)})  # noqa: DTZ001  # under test
        with pytest.raises(TypeError, match=f"^{limit} must be a datetime"):
            await inbox.purge(**{limit: "2026-01-31"})

    async def test_purge_requires_a_limit(self, inbox):
        """Nothing is deleted by mistake."""
        await dead_letter(inbox)

        with pytest.raises(TypeError, match="done_before"):
            await inbox.purge()
        assert (await inbox.stats()).dead == 1

    @pytest.mark.parametrize(
        ("limits", "left"),
        [
            ({"done_before": 3}, ["done later", "dead", "dead later", "ready"]),
            ({"dead_before": 3}, ["done", "done later", "dead later", "ready"]),
            ({"done_before": 3, "dead_before": 4}, ["done later", "dead later", "ready"]),
            ({"done_before": 1, "dead_before": 2}, ["done", "done later", "dead", "dead later", "ready"]),
        ],
    )
    async def test_purge_deletes_deliveries_settled_before_a_time(self, inbox, clocks, limits, left):
        """The time is that of the ack or of the dead letter."""
        start = datetime.fromtimestamp(clocks.system, UTC)
        names = ["done", "dead", "done later", "dead later", "ready"]
        await inbox.append_many([Delivery(name.encode(), key=name) for name in names])
        for name, lease in zip(names[:4], await inbox.claim(4, lease=LEASE), strict=True):
            clocks.advance(1)
            await (inbox.ack(lease) if name.startswith("done") else inbox.dead_letter(lease, "because"))

        purged = await inbox.purge(**{name: start + timedelta(seconds=seconds) for name, seconds in limits.items()})

        assert sorted(entry.delivery.key for entry in await all_entries(inbox)) == sorted(left)
        assert purged == 5 - len(left)

    async def test_the_key_of_a_purged_delivery_is_deleted(self, inbox):
        """The same bytes are a new delivery."""
        await dead_letter(inbox)
        await inbox.purge(dead_before=datetime.now(UTC) + timedelta(days=3650))

        assert not (await inbox.append(Delivery(b"dead"))).duplicate

    async def test_purging_a_delivery_keeps_a_newer_one_with_its_key(self, inbox, clocks):
        """A duplicate refers to the newest delivery with its key."""
        await dead_letter(inbox, b"same")
        clocks.advance(WINDOW)
        newer = await inbox.append(Delivery(b"same"))
        await inbox.purge(dead_before=datetime.now(UTC) + timedelta(days=3650))

        assert (await inbox.append(Delivery(b"same"))).id == newer.id

    async def test_done_deliveries_are_kept_for_the_retention(self, world, clocks):
        """Later claims and appends delete them; dead letters stay."""
        async with self.make(world, retention=10 * WINDOW) as inbox:
            appended = await inbox.append(Delivery(b"old"))
            await inbox.ack(await lease_of(inbox), event_key="old")
            dead = await dead_letter(inbox)

            clocks.advance(10 * WINDOW - 1)
            await inbox.append(Delivery(b"new"))
            await inbox.claim(1, lease=1)
            kept = (await inbox.get(appended.id)).state, await inbox.handled(["old"])
            clocks.advance(2)
            await inbox.append(Delivery(b"newer"))
            await inbox.claim(1, lease=1)

            assert kept == ("done", {"old"})
            assert (await inbox.get(appended.id), await inbox.handled(["old"])) == (None, frozenset())
            assert (await inbox.get(dead.id)).state == "dead"

    async def test_only_acked_events_are_handled(self, inbox):
        """An empty key is never handled."""
        await inbox.append_many([Delivery(b"a"), Delivery(b"b"), Delivery(b"c")])
        a, b, c = await inbox.claim(3, lease=LEASE)
        await inbox.ack(a, event_key="event a")
        await inbox.ack(b)
        await inbox.dead_letter(c, "event c")

        assert await inbox.handled(key for key in ("event a", "event a", "", "event c")) == {"event a"}
        assert await inbox.handled([]) == frozenset()

    async def test_stats_count_each_state(self, inbox, clocks):
        """A delivery whose lease has expired has been ready since the lease ended."""
        await inbox.append_many([Delivery(b"%d" % number) for number in range(6)])
        leases = await inbox.claim(6, lease=LEASE)
        await inbox.nack(leases[0], delay=1)
        await inbox.nack(leases[1], delay=100)
        await inbox.extend(leases[2], 2)
        await inbox.ack(leases[4])
        await inbox.dead_letter(leases[5], "because")
        clocks.advance(5)

        assert await inbox.stats() == InboxStats(ready=2, delayed=1, leased=1, done=1, dead=1, oldest_ready_age=4)

    async def test_there_is_no_oldest_age_if_no_delivery_is_ready(self, inbox):
        """A leased delivery has no age."""
        await inbox.append(Delivery(b"body"))
        new = await inbox.stats()
        await lease_of(inbox)

        assert (new.ready, new.oldest_ready_age >= 0) == (1, True)
        assert await inbox.stats() == InboxStats(leased=1)

    # --- waiting ------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("cause", ["append", "append_many", "nack", "release", "replay", "repeat"])
    async def test_wait_returns_when_a_delivery_becomes_ready(self, inbox, cause):
        """Without polling."""
        await dead_letter(inbox)
        await inbox.append(Delivery(b"leased"))
        lease = await lease_of(inbox)
        causes = {
            "append": lambda: inbox.append(Delivery(b"new")),
            "append_many": lambda: inbox.append_many([Delivery(b"new")]),
            "nack": lambda: inbox.nack(lease, delay=0),
            "release": lambda: inbox.release(lease),
            "replay": inbox.replay,
            "repeat": lambda: inbox.append(Delivery(b"dead")),
        }
        async with waiting(inbox):
            await causes[cause]()

    async def test_several_workers_may_wait(self, inbox):
        """Each of them wakes up."""
        async with waiting(inbox), waiting(inbox):
            await inbox.append(Delivery(b"new"))

    async def test_wait_returns_when_a_delivery_is_due(self, inbox):
        """After its delay."""
        await inbox.append_many([Delivery(b"a"), Delivery(b"b")])
        lease, _ = await inbox.claim(2, lease=LEASE)
        await inbox.nack(lease, delay=0.01)

        async with asyncio.timeout(DEADLINE):
            await inbox.wait(LEASE)

    async def test_wait_returns_when_a_lease_expires(self, inbox):
        """Its worker may have died."""
        await inbox.append(Delivery(b"body"))
        await lease_of(inbox, lease=0.01)

        async with asyncio.timeout(DEADLINE):
            await inbox.wait(LEASE)

    async def test_wait_returns_at_once_if_a_delivery_is_ready(self, inbox):
        """Each time."""
        await inbox.append(Delivery(b"body"))

        async with asyncio.timeout(DEADLINE):
            await inbox.wait(LEASE)
            await inbox.wait(LEASE)

    async def test_wait_returns_after_its_timeout(self, inbox):
        """If no delivery is due."""
        async with asyncio.timeout(DEADLINE):
            await inbox.wait(0.01)
            await inbox.wait(0)

    # --- closing and opening again ------------------------------------------------------------------------

    async def test_deliveries_persist_when_the_inbox_is_reopened(self, world):
        """Settled deliveries stay settled; an unsettled lease counts as a crash."""
        async with self.make(world) as inbox:
            await inbox.append_many([Delivery(b"%d" % number, "text/xml") for number in range(5)])
            acked, nacked, dead, lost = await inbox.claim(4, lease=LEASE)
            await inbox.ack(acked, event_key="event")
            await inbox.nack(nacked, delay=0, completed=frozenset("a"), reason="it failed")
            await inbox.dead_letter(dead, "because")
            if OWNER not in self.capabilities:
                await inbox.extend(lost, 0)

        async with self.make(world) as inbox:
            assert await inbox.handled(["event"]) == {"event"}
            assert [(entry.state, entry.reason) for entry in await all_entries(inbox)] == [
                ("done", ""),
                ("ready", "it failed"),
                ("dead", "because"),
                ("ready", ""),
                ("ready", ""),
            ]
            leases = await inbox.claim(10, lease=LEASE)
            assert sorted(
                (lease.delivery.body, lease.attempt, lease.crashes, *lease.completed) for lease in leases
            ) == [
                (b"1", 2, 0, "a"),
                (b"3", 1, 1),
                (b"4", 1, 0),
            ]

    async def test_reopening_the_inbox_does_not_postpone_a_delayed_delivery(self, world, clocks):
        """A process that restarts often still makes its next attempts in time."""
        async with self.make(world) as inbox:
            await inbox.append(Delivery(b"body"))
            await inbox.nack(await lease_of(inbox), delay=100)
            clocks.advance(99)

        async with self.make(world) as inbox:
            assert await inbox.claim(1, lease=LEASE) == []
            clocks.advance(1)
            assert await bodies_of(inbox) == [b"body"]

    @settles
    async def test_a_lease_ends_with_its_process(self, world, settle):
        """The next owner claims the delivery."""
        if OWNER not in self.capabilities:
            pytest.skip(f"needs an inbox that {OWNER}")
        async with self.make(world) as inbox:
            await inbox.append(Delivery(b"body"))
            lease = await lease_of(inbox)

        async with self.make(world) as inbox:
            assert not await settle(inbox, lease)
            assert await bodies_of(inbox) == [b"body"]

    def test_the_inbox_can_be_reopened_in_another_event_loop(self, world):
        """As in the tests of an application, which start a server each."""
        inbox = self.make(world)
        assert [asyncio.run(use_of(inbox, body)) for body in (b"1", b"2")] == [b"1", b"2"]


async def use_of(inbox: Inbox, body: bytes) -> bytes:
    """Open an inbox, wait for a delivery, claim and ack it, close the inbox."""
    async with inbox:
        async with waiting(inbox):
            await inbox.append(Delivery(body))
        lease = await lease_of(inbox)
        await inbox.ack(lease)
        return lease.delivery.body


@asynccontextmanager
async def waiting(inbox: Inbox) -> AsyncIterator[None]:
    """Run ``wait`` of an empty inbox in the background; the body of this context must make it return."""
    task = asyncio.create_task(inbox.wait(LEASE))
    # After one turn of the loop and one call, the query of `wait` has its result too.
    await asyncio.sleep(0)
    await inbox.stats()
    yield
    async with asyncio.timeout(DEADLINE):
        await task
