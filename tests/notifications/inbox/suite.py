"""
What every inbox keeps to.

One subclass of `InboxSuite` for each inbox, with a factory. An inbox whose engine owns the clock leaves `CLOCK` out of
its capabilities, one that several processes may have open at once `OWNER`; what only the others can show is skipped.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, ClassVar

import pytest
from attrs import define, field
from notifications.inbox.clocks import Clocks

from callfire_async.notifications.inbox import Delivery, Inbox, InboxEntry, InboxStats, Lease

CLOCK = "takes the clock that it is given"
OWNER = "belongs to one process, with which its leases end"

DEADLINE = 10
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
    """What surrounds an inbox: the folder for its files, the clocks, and whatever a factory keeps for the next time."""

    folder: Path
    clocks: Clocks = field(factory=Clocks)
    kept: dict[str, Any] = field(factory=dict)


async def lease_of(inbox: Inbox, *, lease: float = LEASE) -> Lease:
    (handed_out,) = await inbox.claim(10, lease=lease)
    return handed_out


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
    """The tests; a subclass says what ``make`` makes, and what that can do."""

    capabilities: ClassVar[frozenset[str]] = frozenset([CLOCK, OWNER])

    @abstractmethod
    def make(self, world: World, **options: Any) -> Inbox:
        """Make an inbox; called again with one world, one that holds what the last one held."""

    @pytest.fixture
    def world(self, tmp_path: Path) -> World:
        return World(tmp_path)

    @pytest.fixture
    def clocks(self, world: World) -> Clocks:
        if CLOCK not in self.capabilities:
            pytest.skip(f"no inbox that {CLOCK}")
        return world.clocks

    @pytest.fixture
    async def inbox(self, world: World) -> AsyncIterator[Inbox]:
        async with self.make(world) as inbox:
            yield inbox

    # --- taking in ----------------------------------------------------------------------------------------

    async def test_a_delivery_is_handed_out_as_it_came(self, inbox):
        """Nothing is added to it, and nothing is missing."""
        at = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=timezone(timedelta(hours=-7)))
        delivery = Delivery(b"<xml/>", "text/xml; charset=utf-8", received_at=at, key="a key")

        appended = await inbox.append(delivery)

        lease = await lease_of(inbox)
        assert (lease.id, lease.delivery, appended.duplicate) == (appended.id, delivery, False)
        assert (lease.attempt, lease.crashes, lease.completed) == (1, 0, frozenset())

    @bodies
    async def test_any_bytes_come_back_unchanged(self, inbox, body):
        """A body is whatever was posted; and no content type is none."""
        await inbox.append(Delivery(body))

        lease = await lease_of(inbox)
        assert (lease.delivery.body, lease.delivery.content_type) == (body, None)

    @odd_texts
    async def test_any_content_type_and_any_key_are_kept(self, inbox, text):
        """What a stranger puts into a header must not cost us the body."""
        first = await inbox.append(Delivery(b"body", text, key=text))
        again = await inbox.append(Delivery(b"another", text, key=text))

        entry = await inbox.get(first.id)
        assert (entry.delivery.content_type, entry.delivery.key, again.id) == (text, text, first.id)
        assert (await lease_of(inbox)).delivery.content_type == text

    @odd_texts
    async def test_any_reason_and_any_name_are_kept(self, inbox, text):
        """A reason is what some exception said, a name what the user chose."""
        await inbox.append(Delivery(b"body"))
        await inbox.nack(await lease_of(inbox), delay=0, completed=frozenset([text]), reason=text)
        lease = await lease_of(inbox)
        await inbox.dead_letter(lease, text)

        (entry,) = await all_entries(inbox, "dead")
        assert (lease.completed, entry.reason) == ({text}, text)

    @odd_texts
    async def test_any_event_key_is_found_again(self, inbox, text):
        """An unknown event is identified by what a stranger wrote."""
        await inbox.append(Delivery(b"body"))
        await inbox.ack(await lease_of(inbox), event_key=text)

        assert await inbox.handled([text, text + "x"]) == {text}

    async def test_several_are_kept_in_order(self, inbox):
        """One call, one answer for each, in the order of the call."""
        appended = await inbox.append_many([Delivery(b"%d" % number) for number in (3, 1, 2)])

        leases = await inbox.claim(10, lease=LEASE)
        assert [lease.delivery.body for lease in leases] == [b"3", b"1", b"2"]
        assert [one.id for one in appended] == [lease.id for lease in leases]

    async def test_several_may_be_none(self, inbox):
        """Nothing is kept then."""
        assert await inbox.append_many([]) == []
        assert await inbox.stats() == InboxStats()

    async def test_repeats_among_several_are_found(self, inbox):
        """The first is kept, wherever the second stands."""
        first, other, repeat = await inbox.append_many([Delivery(b"a"), Delivery(b"b"), Delivery(b"a")])

        assert (repeat.id, repeat.duplicate, other.duplicate, first.duplicate) == (first.id, True, False, False)
        assert await bodies_of(inbox) == [b"a", b"b"]

    async def test_identical_bytes_are_one_delivery(self, inbox):
        """Whatever their content type says."""
        first = await inbox.append(Delivery(b"same", "text/xml"))
        again = await inbox.append(Delivery(b"same", "application/json"))

        assert (again.id, again.duplicate) == (first.id, True)
        assert await bodies_of(inbox) == [b"same"]

    async def test_a_key_decides_what_is_identical(self, inbox):
        """Where one is given, the bytes do not matter."""
        await inbox.append_many([Delivery(b"a", key="1"), Delivery(b"b", key="1"), Delivery(b"a", key="2")])

        assert await bodies_of(inbox) == [b"a", b"a"]

    async def test_many_duplicates_at_once_are_one(self, inbox):
        """A sender that repeats itself does not wait for our answer."""
        appended = await asyncio.gather(*(inbox.append(Delivery(b"same")) for _ in range(32)))

        assert len({one.id for one in appended}) == 1
        assert [one.duplicate for one in appended].count(False) == 1
        assert (await inbox.stats()).ready == 1

    async def test_without_a_window_every_delivery_is_new(self, world):
        """Zero turns it off."""
        async with self.make(world, dedupe_window=0) as inbox:
            appended = await inbox.append_many([Delivery(b"same"), Delivery(b"same")])
            again = await inbox.append(Delivery(b"same"))

            assert [one.duplicate for one in (*appended, again)] == [False] * 3
            assert await bodies_of(inbox) == [b"same"] * 3

    async def test_after_the_window_identical_bytes_are_new(self, inbox, clocks):
        """Two runs of a campaign may post the same bytes; the window starts with the newest of them."""
        first = await inbox.append(Delivery(b"same"))
        clocks.advance(WINDOW - 1)
        within = await inbox.append(Delivery(b"same"))
        clocks.advance(1)
        after = await inbox.append(Delivery(b"same"))
        clocks.advance(WINDOW - 1)
        again = await inbox.append(Delivery(b"same"))

        assert [one.duplicate for one in (first, within, after, again)] == [False, True, False, True]
        assert (within.id, again.id) == (first.id, after.id)
        assert await bodies_of(inbox) == [b"same"] * 2

    @pytest.mark.parametrize("settled", ["nothing", "claim", "ack"])
    async def test_a_repeat_of_what_is_not_dead_changes_nothing(self, inbox, settled):
        """It waits, is being handled, or was handled already."""
        appended = await inbox.append(Delivery(b"same"))
        if settled != "nothing":
            lease = await lease_of(inbox)
        if settled == "ack":
            await inbox.ack(lease)
        before = await inbox.get(appended.id)

        again = await inbox.append(Delivery(b"same"))

        assert (again.id, again.duplicate) == (appended.id, True)
        assert await inbox.get(appended.id) == before

    async def test_a_repeat_of_a_dead_letter_makes_that_ready_again(self, inbox):
        """The sender gives it another chance, and so do we; what has succeeded is not run again."""
        await inbox.append(Delivery(b"dead"))
        await inbox.nack(await lease_of(inbox), delay=0, completed=frozenset(["a"]))
        buried = await lease_of(inbox)
        await inbox.dead_letter(buried, "because")

        again = await inbox.append(Delivery(b"dead"))

        lease = await lease_of(inbox)
        assert (again.id, again.duplicate, lease.id) == (buried.id, True, buried.id)
        assert (lease.attempt, lease.completed, lease.delivery.body) == (1, {"a"}, b"dead")

    async def test_after_the_window_a_dead_letter_stays_dead(self, inbox, clocks):
        """What comes then is a delivery of its own."""
        buried = await dead_letter(inbox)
        clocks.advance(WINDOW)

        again = await inbox.append(Delivery(b"dead"))

        assert (again.duplicate, (await inbox.get(buried.id)).state) == (False, "dead")

    # --- handing out --------------------------------------------------------------------------------------

    async def test_an_empty_inbox_hands_out_nothing(self, inbox):
        """And says so at once."""
        assert await inbox.claim(10, lease=LEASE) == []

    async def test_no_more_is_handed_out_than_asked_for(self, inbox):
        """The first come first; none may be asked for."""
        await inbox.append_many([Delivery(b"%d" % number) for number in range(5)])

        assert [await bodies_of(inbox, limit=limit) for limit in (0, 2, 2, 2)] == [
            [],
            [b"0", b"1"],
            [b"2", b"3"],
            [b"4"],
        ]

    async def test_what_is_handed_out_is_nobody_elses(self, inbox):
        """Several may claim at once."""
        await inbox.append_many([Delivery(b"%d" % number) for number in range(40)])

        lists = await asyncio.gather(*(inbox.claim(7, lease=LEASE) for _ in range(8)))

        ids = [lease.id for leases in lists for lease in leases]
        assert (len(ids), len(set(ids))) == (40, 40)

    async def test_what_is_due_first_comes_first(self, inbox, clocks):
        """Due time, then arrival; a retry waits behind what was due before it."""
        await inbox.append_many([Delivery(b"late"), Delivery(b"early"), Delivery(b"as early")])
        for lease, delay in zip(await inbox.claim(3, lease=LEASE), (9, 3, 3), strict=True):
            await inbox.nack(lease, delay=delay)
        clocks.advance(1)
        await inbox.append(Delivery(b"new"))
        clocks.advance(8)

        assert await bodies_of(inbox) == [b"new", b"early", b"as early", b"late"]

    async def test_what_is_not_due_is_not_handed_out(self, inbox, clocks):
        """To the second."""
        await inbox.append(Delivery(b"body"))
        await inbox.nack(await lease_of(inbox), delay=100)

        clocks.advance(99)
        early = await inbox.claim(1, lease=LEASE)
        clocks.advance(1)
        assert (early, await bodies_of(inbox)) == ([], [b"body"])

    # --- leases that end ----------------------------------------------------------------------------------

    async def test_a_lease_that_has_ended_counts_as_ready_and_as_a_crash(self, inbox, clocks):
        """Whoever had it died or hung; the attempt stays, since nobody knows of a failure."""
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
    async def test_a_late_worker_cannot_settle_what_was_handed_to_another(self, inbox, clocks, settle):
        """Its lease has ended, and is not its own any more."""
        appended = await inbox.append(Delivery(b"body"))
        late = await lease_of(inbox)
        clocks.advance(LEASE)
        other = await lease_of(inbox)
        before = await inbox.get(appended.id)

        assert not await settle(inbox, late)
        assert await inbox.get(appended.id) == before
        assert await inbox.ack(other)

    @settles
    async def test_a_late_worker_may_settle_what_nobody_else_was_given(self, inbox, clocks, settle):
        """It was slow, but the work is done, and done once."""
        await inbox.append(Delivery(b"body"))
        late = await lease_of(inbox)
        clocks.advance(LEASE)

        assert await settle(inbox, late)

    async def test_what_has_crashed_twice_is_handed_out_alone(self, inbox, clocks):
        """Whatever else would be in flight is innocent."""
        await inbox.append_many([Delivery(b"a"), Delivery(b"b")])
        for _ in range(2):
            await inbox.claim(1, lease=1)
            await inbox.claim(1, lease=LEASE)
            clocks.advance(LEASE)
        await inbox.append(Delivery(b"innocent"))

        lists = [await bodies_of(inbox) for _ in range(4)]

        assert lists == [[b"a"], [b"b"], [b"innocent"], []]

    async def test_what_has_crashed_twice_ends_the_list_before_it(self, inbox, clocks):
        """What is due before it goes first, and without it."""
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

    async def test_one_crash_does_not_part_it_from_others(self, inbox, clocks):
        """Deploys happen."""
        await inbox.append_many([Delivery(b"a"), Delivery(b"b")])
        await inbox.claim(2, lease=1)
        clocks.advance(1)

        assert await bodies_of(inbox) == [b"a", b"b"]

    # --- settling -----------------------------------------------------------------------------------------

    @pytest.mark.parametrize("before", [settle for settle in SETTLE if settle != "extend"])
    @settles
    async def test_a_lease_is_settled_once(self, inbox, before, settle):
        """What comes after says so, and does nothing."""
        appended = await inbox.append(Delivery(b"body"))
        lease = await lease_of(inbox)
        await SETTLE[before](inbox, lease)
        entry = await inbox.get(appended.id)

        assert not await settle(inbox, lease)
        assert await inbox.get(appended.id) == entry

    async def test_of_those_that_are_acked_at_once_each_is_told_its_own(self, inbox):
        """One was given back meanwhile, one is acked twice; the others are done all the same."""
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

    @settles
    async def test_a_lease_that_was_given_back_is_lost(self, inbox, settle):
        """Another has it now, and its token fences the first one off."""
        await inbox.append(Delivery(b"body"))
        first = await lease_of(inbox)
        await inbox.release(first)
        second = await lease_of(inbox)

        assert not await settle(inbox, first)
        assert await settle(inbox, second)

    @settles
    async def test_what_is_gone_cannot_be_settled(self, inbox, settle):
        """It was settled, and purged since."""
        lease = await dead_letter(inbox)
        await inbox.purge(dead_before=datetime.now(UTC) + timedelta(days=3650))

        assert not await settle(inbox, lease)

    async def test_an_ack_drops_the_body_and_keeps_the_keys(self, inbox):
        """The personal data in it has served its purpose."""
        appended = await inbox.append(Delivery(b"body", "text/xml", key="a key"))

        assert await inbox.ack(await lease_of(inbox), event_key="text 1")

        entry = await inbox.get(appended.id)
        assert (entry.state, entry.delivery.body, entry.delivery.key) == ("done", b"", "a key")
        assert (await inbox.append(Delivery(b"body", key="a key"))).duplicate
        assert await inbox.handled(["text 1"]) == {"text 1"}

    async def test_an_ack_clears_the_reason(self, inbox):
        """The last failure says nothing about a delivery that has been handled since."""
        appended = await inbox.append(Delivery(b"body"))
        await inbox.nack(await lease_of(inbox), delay=0, reason="it failed")

        await inbox.ack(await lease_of(inbox))

        assert (await inbox.get(appended.id)).reason == ""

    async def test_bodies_may_be_kept(self, world):
        """Whoever wants to look at them later says so."""
        async with self.make(world, keep_bodies=True) as inbox:
            appended = await inbox.append(Delivery(b"body"))
            await inbox.ack(await lease_of(inbox))

            assert (await inbox.get(appended.id)).delivery.body == b"body"

    async def test_a_nack_counts_the_attempt_and_adds_what_has_succeeded(self, inbox):
        """Only failed handlers run again."""
        appended = await inbox.append(Delivery(b"body"))
        await inbox.nack(await lease_of(inbox), delay=0, completed=frozenset("ab"), reason="c failed")
        await inbox.nack(await lease_of(inbox), delay=0, completed=frozenset("bd"), reason="e failed")

        entry = await inbox.get(appended.id)
        lease = await lease_of(inbox)
        assert (lease.attempt, lease.crashes, lease.completed) == (3, 0, frozenset("abd"))
        assert (entry.state, entry.attempt, entry.reason) == ("ready", 3, "e failed")

    async def test_a_release_counts_nothing(self, inbox):
        """The process stops, and the delivery is not to blame; what has succeeded is kept all the same."""
        await inbox.append(Delivery(b"body"))
        await inbox.nack(await lease_of(inbox), delay=0, completed=frozenset("a"))
        await inbox.release(await lease_of(inbox), completed=frozenset("b"))

        lease = await lease_of(inbox)
        assert (lease.attempt, lease.crashes, lease.completed) == (2, 0, frozenset("ab"))

    async def test_what_was_released_is_due_from_then_on(self, inbox, clocks):
        """It stands behind what was due before."""
        await inbox.append(Delivery(b"released"))
        lease = await lease_of(inbox)
        await inbox.append(Delivery(b"waiting"))
        clocks.advance(1)
        await inbox.release(lease)

        assert await bodies_of(inbox) == [b"waiting", b"released"]

    async def test_a_dead_letter_is_kept_with_its_reason(self, inbox):
        """It is not handed out, and not forgotten."""
        appended = await inbox.append(Delivery(b"body", "text/xml"))
        lease = await lease_of(inbox)

        assert await inbox.dead_letter(lease, "no handler")

        entry = await inbox.get(appended.id)
        assert (entry.state, entry.reason, entry.delivery) == ("dead", "no handler", lease.delivery)
        assert await inbox.claim(1, lease=LEASE) == []

    # --- looking after it ---------------------------------------------------------------------------------

    async def test_an_entry_tells_what_is_known(self, inbox, clocks):
        """Of a delivery that waits for its third attempt after a crash."""
        delivery = Delivery(b"body", "text/xml")
        appended = await inbox.append(delivery)
        await lease_of(inbox, lease=1)
        clocks.advance(1)
        await inbox.nack(await lease_of(inbox), delay=5, reason="it failed")

        at = datetime.fromtimestamp(clocks.system, UTC)
        assert await inbox.get(appended.id) == InboxEntry(appended.id, "delayed", delivery, 2, 1, "it failed", at)

    @pytest.mark.parametrize("id", ODD_IDS, ids=[ascii(odd)[:20] for odd in ODD_IDS])
    async def test_an_id_that_there_is_not_names_nothing(self, inbox, id):
        """Whatever was typed."""
        await dead_letter(inbox)

        assert await inbox.get(id) is None
        assert await inbox.replay([id]) == 0

    async def test_an_id_may_have_been_written_down(self, inbox):
        """What is read from a command line is text."""
        lease = await dead_letter(inbox)

        assert (await inbox.get(str(lease.id))).state == "dead"
        assert await inbox.replay([str(lease.id), lease.id]) == 1

    async def test_entries_come_by_state_and_in_order_of_arrival(self, inbox, clocks):
        """A lease that has ended is ready."""
        names = ["ended", "acked", "buried", "put back", "leased", "new"]
        await inbox.append_many([Delivery(b"%d" % number) for number in range(5)])
        ended, acked, buried, put_back, leased = await inbox.claim(5, lease=10)
        await inbox.extend(leased, LEASE)
        await inbox.ack(acked)
        await inbox.dead_letter(buried, "because")
        await inbox.nack(put_back, delay=LEASE)
        clocks.advance(10)
        new = await inbox.append(Delivery(b"5"))

        ids = [one.id for one in (ended, acked, buried, put_back, leased, new)]
        states = (None, "ready", "delayed", "leased", "done", "dead")
        listed = {state: await all_entries(inbox, state) for state in states}
        assert {state: [names[ids.index(entry.id)] for entry in entries] for state, entries in listed.items()} == {
            None: names,
            "ready": ["ended", "new"],
            "delayed": ["put back"],
            "leased": ["leased"],
            "done": ["acked"],
            "dead": ["buried"],
        }
        assert [entry.state for entry in listed[None]] == ["ready", "done", "dead", "delayed", "leased", "ready"]

    async def test_a_delivery_that_waits_for_its_next_attempt_is_delayed(self, inbox):
        """Without a delay it is ready at once."""
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

        assert [entry.id for entry in await all_entries(inbox)] == [one.id for one in appended]

    async def test_all_dead_letters_are_replayed(self, inbox, clocks):
        """As new, but for what has succeeded; nothing else is touched."""
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
        """Those that are dead, each once; one that is not is no error."""
        one, two, three = [await dead_letter(inbox, body) for body in (b"1", b"2", b"3")]
        waiting = await inbox.append(Delivery(b"waiting"))

        assert await inbox.replay(id for id in (three.id, one.id, one.id, waiting.id)) == 2
        assert await inbox.replay([]) == 0

        assert [entry.id for entry in await all_entries(inbox, "dead")] == [two.id]

    async def test_purge_must_be_told_what(self, inbox):
        """Nothing is deleted by oversight."""
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
    async def test_purge_deletes_what_was_settled_before_a_time(self, inbox, clocks, limits, left):
        """The time is that of the ack or the burial."""
        start = datetime.fromtimestamp(clocks.system, UTC)
        names = ["done", "dead", "done later", "dead later", "ready"]
        await inbox.append_many([Delivery(name.encode(), key=name) for name in names])
        for name, lease in zip(names[:4], await inbox.claim(4, lease=LEASE), strict=True):
            clocks.advance(1)
            await (inbox.ack(lease) if name.startswith("done") else inbox.dead_letter(lease, "because"))

        purged = await inbox.purge(**{name: start + timedelta(seconds=seconds) for name, seconds in limits.items()})

        assert sorted(entry.delivery.key for entry in await all_entries(inbox)) == sorted(left)
        assert purged == 5 - len(left)

    async def test_what_was_purged_is_forgotten(self, inbox):
        """The same bytes are new then."""
        await dead_letter(inbox)
        await inbox.purge(dead_before=datetime.now(UTC) + timedelta(days=3650))

        assert not (await inbox.append(Delivery(b"dead"))).duplicate

    async def test_what_was_purged_leaves_a_newer_one_in_place(self, inbox, clocks):
        """A repeat is one of the newest with its key."""
        await dead_letter(inbox, b"same")
        clocks.advance(WINDOW)
        newer = await inbox.append(Delivery(b"same"))
        await inbox.purge(dead_before=datetime.now(UTC) + timedelta(days=3650))

        assert (await inbox.append(Delivery(b"same"))).id == newer.id

    async def test_what_is_done_is_kept_for_its_retention(self, world, clocks):
        """So long are its keys remembered; then it goes by itself, as work goes on."""
        async with self.make(world, retention=10 * WINDOW) as inbox:
            appended = await inbox.append(Delivery(b"old"))
            await inbox.ack(await lease_of(inbox), event_key="old")
            buried = await dead_letter(inbox)

            clocks.advance(10 * WINDOW - 1)
            await inbox.append(Delivery(b"new"))
            await inbox.claim(1, lease=1)
            kept = (await inbox.get(appended.id)).state, await inbox.handled(["old"])
            clocks.advance(2)
            await inbox.append(Delivery(b"newer"))
            await inbox.claim(1, lease=1)

            assert kept == ("done", {"old"})
            assert (await inbox.get(appended.id), await inbox.handled(["old"])) == (None, frozenset())
            assert (await inbox.get(buried.id)).state == "dead"

    async def test_only_what_was_acked_is_seen(self, inbox):
        """And only under the key that it was acked with; no key is none."""
        await inbox.append_many([Delivery(b"a"), Delivery(b"b"), Delivery(b"c")])
        a, b, c = await inbox.claim(3, lease=LEASE)
        await inbox.ack(a, event_key="event a")
        await inbox.ack(b)
        await inbox.dead_letter(c, "event c")

        assert await inbox.handled(key for key in ("event a", "event a", "", "event c")) == {"event a"}
        assert await inbox.handled([]) == frozenset()

    async def test_stats_count_each_state(self, inbox, clocks):
        """A lease that has ended is ready, and has been since its end."""
        await inbox.append_many([Delivery(b"%d" % number) for number in range(6)])
        leases = await inbox.claim(6, lease=LEASE)
        await inbox.nack(leases[0], delay=1)
        await inbox.nack(leases[1], delay=100)
        await inbox.extend(leases[2], 2)
        await inbox.ack(leases[4])
        await inbox.dead_letter(leases[5], "because")
        clocks.advance(5)

        assert await inbox.stats() == InboxStats(ready=2, delayed=1, leased=1, done=1, dead=1, oldest_ready_age=4)

    async def test_where_nothing_is_ready_nothing_is_old(self, inbox):
        """What is leased has been found."""
        await inbox.append(Delivery(b"body"))
        new = await inbox.stats()
        await lease_of(inbox)

        assert (new.ready, new.oldest_ready_age >= 0) == (1, True)
        assert await inbox.stats() == InboxStats(leased=1)

    # --- waiting ------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("cause", ["append", "append_many", "nack", "release", "replay", "repeat"])
    async def test_waiting_ends_when_there_is_work(self, inbox, cause):
        """At once: nobody polls."""
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

    async def test_several_may_wait(self, inbox):
        """Each is told."""
        async with waiting(inbox), waiting(inbox):
            await inbox.append(Delivery(b"new"))

    async def test_waiting_ends_when_something_is_due(self, inbox):
        """A delay, or a lease that ends."""
        await inbox.append_many([Delivery(b"a"), Delivery(b"b")])
        lease, _ = await inbox.claim(2, lease=LEASE)
        await inbox.nack(lease, delay=0.01)

        async with asyncio.timeout(DEADLINE):
            await inbox.wait(LEASE)

    async def test_waiting_ends_when_a_lease_does(self, inbox):
        """Whoever had it may be gone."""
        await inbox.append(Delivery(b"body"))
        await lease_of(inbox, lease=0.01)

        async with asyncio.timeout(DEADLINE):
            await inbox.wait(LEASE)

    async def test_what_is_ready_need_not_be_waited_for(self, inbox):
        """Whatever happened before."""
        await inbox.append(Delivery(b"body"))

        async with asyncio.timeout(DEADLINE):
            await inbox.wait(LEASE)
            await inbox.wait(LEASE)

    async def test_waiting_ends_in_time(self, inbox):
        """Where nothing happens, and nothing is due."""
        async with asyncio.timeout(DEADLINE):
            await inbox.wait(0.01)
            await inbox.wait(0)

    # --- closing and opening again ------------------------------------------------------------------------

    async def test_what_it_held_is_there_when_it_is_opened_again(self, world):
        """What was settled stays settled, in its order; a lease that nobody settled was a crash."""
        async with self.make(world) as inbox:
            await inbox.append_many([Delivery(b"%d" % number, "text/xml") for number in range(5)])
            acked, nacked, buried, lost = await inbox.claim(4, lease=LEASE)
            await inbox.ack(acked, event_key="event")
            await inbox.nack(nacked, delay=0, completed=frozenset("a"), reason="it failed")
            await inbox.dead_letter(buried, "because")
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
            assert sorted((one.delivery.body, one.attempt, one.crashes, *one.completed) for one in leases) == [
                (b"1", 2, 0, "a"),
                (b"3", 1, 1),
                (b"4", 1, 0),
            ]

    @settles
    async def test_a_lease_ends_with_its_process(self, world, settle):
        """Another has what it held."""
        if OWNER not in self.capabilities:
            pytest.skip(f"no inbox that {OWNER}")
        async with self.make(world) as inbox:
            await inbox.append(Delivery(b"body"))
            lease = await lease_of(inbox)

        async with self.make(world) as inbox:
            assert not await settle(inbox, lease)
            assert await bodies_of(inbox) == [b"body"]

    def test_it_may_be_opened_again_in_another_event_loop(self, world):
        """A server is started once for each test of an application."""
        inbox = self.make(world)
        assert [asyncio.run(use_of(inbox, body)) for body in (b"1", b"2")] == [b"1", b"2"]


async def use_of(inbox: Inbox, body: bytes) -> bytes:
    """Open it, wait for something, take it, close it."""
    async with inbox:
        async with waiting(inbox):
            await inbox.append(Delivery(body))
        lease = await lease_of(inbox)
        await inbox.ack(lease)
        return lease.delivery.body


@asynccontextmanager
async def waiting(inbox: Inbox) -> AsyncIterator[None]:
    """Wait for work in an inbox that has none, in the background; the body of this must end that."""
    task = asyncio.create_task(inbox.wait(LEASE))
    # After one turn of the loop and one answer, what was asked before has been answered too.
    await asyncio.sleep(0)
    await inbox.stats()
    yield
    async with asyncio.timeout(DEADLINE):
        await task
