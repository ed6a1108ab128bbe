"""Random operations in random order: each inbox behaves like the model."""

import asyncio
import secrets
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
from attrs import evolve
from engines.nats import NatsServer
from engines.postgres import PostgresServer
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule
from notifications.inbox.clocks import DAY, Clocks, ServerClocks
from notifications.inbox.faulty_inbox import FaultyInbox, SpoolFirstInbox
from notifications.inbox.model import DEDUPE_WINDOW, Model, Row

from callfire_async.notifications.inbox import Delivery, Inbox, InboxEntry, InboxStats, Lease
from callfire_async.notifications.inbox.jetstream import JetStreamInbox
from callfire_async.notifications.inbox.memory import MemoryInbox
from callfire_async.notifications.inbox.postgres import PostgresInbox
from callfire_async.notifications.inbox.sqlite import SqliteInbox

T = TypeVar("T")

EVENTS = ("event 1", "event 2")
seconds = st.sampled_from([0.0, 1.0, 10.0, 60.0, DEDUPE_WINDOW])
# An ID of no delivery.
NO_ID = 10**17
names = st.frozensets(st.sampled_from(["a", "b", "c\n"]), max_size=2)
bodies = st.sampled_from([b"", b"1", b"2", b"3", b"4", b"5"])


class Pair:
    """One lease: that of the model, and those of the inboxes."""

    def __init__(self, row: Row, leases: tuple[Lease, ...]) -> None:
        self.row = row
        self.leases = leases

    def __repr__(self) -> str:
        return f"<lease {self.row.lease} of {self.row.id}>"


class Agreement(RuleBasedStateMachine):
    """Several inboxes side by side; each rule calls all of them, and the model."""

    pairs = Bundle("pairs")
    jumps: ClassVar[tuple[float, ...]] = (0.0,)
    #: Whether leases end with the process.
    owned: ClassVar[bool] = True
    #: Duration of one second of the rules.
    second: ClassVar[float] = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp())
        self.clocks = Clocks()
        self.model = Model()
        self.inboxes: tuple[Any, ...] = ()
        #: The model's ID by ID of an inbox.
        self.numbers: dict[object, int] = {}

    def make(self) -> tuple[Any, ...]:
        """Create the inboxes; again, on the data of the last ones if they support it."""
        memory = self.inboxes[0] if self.inboxes else MemoryInbox(clock=self.clocks.clock())
        return memory, self.sqlite(), self.spool_first_inbox()

    def sqlite(self) -> SqliteInbox:
        return SqliteInbox(self.folder / "inbox.db", retention=1000 * DAY, clock=self.clocks.clock())

    def spool_first_inbox(self) -> SpoolFirstInbox:
        primary = SqliteInbox(self.folder / "primary.db", retention=1000 * DAY, clock=self.clocks.clock())
        spool = SqliteInbox(self.folder / "spool.db", clock=self.clocks.clock())
        return SpoolFirstInbox(FaultyInbox(primary), spool)

    @property
    def now(self) -> float:
        return self.clock.seconds()

    def call(self, operation: Callable[[Inbox], Awaitable[T]]) -> list[T]:
        async def call_all() -> list[T]:
            return [await operation(inbox) for inbox in self.inboxes]

        return self.runner.run(call_all())

    def check_all(self, operation: Callable[[Inbox], Awaitable[T]], expected: T) -> None:
        """Check that each inbox returns what the model does."""
        assert self.call(operation) == [expected] * len(self.inboxes)

    def number(self, id: object) -> int:
        """Return the model's ID of a delivery: its number in order of arrival."""
        return self.numbers.setdefault(id, len(self.numbers) + 1)

    def id(self, number: int) -> object:
        return next((id for id, other in self.numbers.items() if other == number), NO_ID)

    @initialize()
    def open(self) -> None:
        self.inboxes, self.clock = self.make(), self.clocks.clock()
        self.call(lambda inbox: inbox.__aenter__())

    def close(self) -> None:
        self.call(lambda inbox: inbox.__aexit__(None, None, None))

    def teardown(self) -> None:
        self.close()
        self.runner.close()
        shutil.rmtree(self.folder)

    # --- rules ------------------------------------------------------------------------------------------

    @rule(body=bodies)
    def append(self, body: bytes) -> None:
        async def append(inbox: Inbox) -> tuple[object, bool]:
            appended = await inbox.append(Delivery(body))
            return self.number(appended.id), appended.duplicate

        self.check_all(append, self.model.append(body, self.now))

    @rule(several=st.lists(bodies, max_size=4))
    def append_many(self, several: list[bytes]) -> None:
        async def append(inbox: Inbox) -> list[tuple[object, bool]]:
            appended = await inbox.append_many([Delivery(body) for body in several])
            return [(self.number(result.id), result.duplicate) for result in appended]

        self.check_all(append, [self.model.append(body, self.now) for body in several])

    @rule(target=pairs, limit=st.integers(0, 4), lease=st.sampled_from([1.0, 60.0]))
    def claim(self, limit: int, lease: float) -> Any:
        rows = self.model.claim(limit, lease * self.second, self.now)
        lists = self.call(lambda inbox: inbox.claim(limit, lease=lease * self.second))

        expected = [(row.id, row.body, row.attempt, row.crashes, row.completed) for row in rows]
        for leases in lists:
            assert [
                (self.number(leased.id), leased.delivery.body, leased.attempt, leased.crashes, leased.completed)
                for leased in leases
            ] == expected
        return multiple(*(Pair(row, leases) for row, *leases in zip(rows, *lists, strict=True)))

    def settle(self, pair: Pair, operation: Callable[[Inbox, Lease], Awaitable[bool]], expected: object) -> None:
        leases = dict(zip(self.inboxes, pair.leases, strict=True))
        self.check_all(lambda inbox: operation(inbox, leases[inbox]), expected)

    @rule(pair=pairs, lease=seconds)
    def extend(self, pair: Pair, lease: float) -> None:
        expected = self.model.extend(pair.row, lease * self.second, self.now)
        self.settle(pair, lambda inbox, leased: inbox.extend(leased, lease * self.second), expected)

    @rule(pair=pairs, event_key=st.sampled_from(["", *EVENTS]))
    def ack(self, pair: Pair, event_key: str) -> None:
        expected = self.model.ack(pair.row, event_key, self.now)
        self.settle(pair, lambda inbox, leased: inbox.ack(leased, event_key=event_key), expected)

    @rule(pair=pairs, delay=seconds, completed=names)
    def nack(self, pair: Pair, delay: float, completed: frozenset[str]) -> None:
        delay *= self.second
        expected = self.model.nack(pair.row, delay, completed, self.now)
        self.settle(
            pair, lambda inbox, leased: inbox.nack(leased, delay=delay, completed=completed, reason="failed"), expected
        )

    @rule(pair=pairs, completed=names)
    def release(self, pair: Pair, completed: frozenset[str]) -> None:
        expected = self.model.release(pair.row, completed, self.now)
        self.settle(pair, lambda inbox, leased: inbox.release(leased, completed=completed), expected)

    @rule(pair=pairs, completed=names)
    def dead_letter(self, pair: Pair, completed: frozenset[str]) -> None:
        expected = self.model.dead_letter(pair.row, completed, self.now)
        self.settle(pair, lambda inbox, leased: inbox.dead_letter(leased, "rejected", completed=completed), expected)

    @rule(ids=st.none() | st.lists(st.integers(1, 5), max_size=3))
    def replay(self, ids: list[int] | None) -> None:
        known = None if ids is None else [self.id(number) for number in ids]
        self.check_all(lambda inbox: inbox.replay(known), self.model.replay(ids, self.now))

    @rule(passed=st.sampled_from([1.0, 10.0, 60.0, DEDUPE_WINDOW]))
    def time_passes(self, passed: float) -> None:
        self.clocks.advance(passed)

    @rule(data=st.data())
    def crash_and_reopen(self, data: st.DataObject) -> None:
        """Close with leases left, which equals a crash: test_sqlite covers SIGKILL."""
        self.close()
        self.clocks.set_back(data.draw(st.sampled_from(self.jumps)))
        self.open()
        if self.owned:
            self.model.reopen(self.now)

    # --- invariants -------------------------------------------------------------------------------------

    @invariant()
    def all_have_the_same_data(self) -> None:
        async def entries(inbox: Inbox) -> list[tuple[object, ...]]:
            return [self.fields(entry) async for entry in inbox.entries()]

        async def stats(inbox: Inbox) -> InboxStats:
            return self.comparable(await inbox.stats())

        self.check_all(entries, [self.comparable(self.model.entry(row, self.now)) for row in self.model.rows])
        self.check_all(stats, self.comparable(self.model.stats(self.now)))
        self.check_all(lambda inbox: inbox.handled(EVENTS), self.model.handled() - {""})

    def fields(self, entry: InboxEntry) -> tuple[object, ...]:
        id, at = self.number(entry.id), entry.updated_at.timestamp()
        fields = (id, entry.state, entry.delivery.body, entry.attempt, entry.crashes, entry.reason, at)
        return self.comparable(fields)

    def comparable(self, known: T) -> T:
        """Return what can be compared for this inbox."""
        return known


class ClockJumps(Agreement):
    """The system clock is set a day back or forward while no process runs."""

    jumps = (0.0, DAY, -DAY)

    def make(self) -> tuple[Any, ...]:
        return (self.sqlite(),)


class ManyHosts(Agreement):
    """Leases outlive their process; the test moves the clock of the server."""

    owned = False
    postgres: ClassVar[PostgresServer]

    def __init__(self) -> None:
        super().__init__()
        self.server_clock = self.postgres.settable_clock()
        self.clocks = ServerClocks(self.server_clock)
        self.schema = f"machine_{secrets.token_hex(8)}"

    def make(self) -> tuple[Any, ...]:
        return (PostgresInbox(self.server_clock.dsn, schema=self.schema, retention=1000 * DAY),)


class OwnClock(ManyHosts):
    """The clock is real: deliveries are due at once or not during the test, and times are not compared."""

    second = 3_600.0
    time_passes = None

    def make(self) -> tuple[Any, ...]:
        return (PostgresInbox(self.postgres.dsn(), schema=self.schema),)

    def comparable(self, known: Any) -> Any:
        if isinstance(known, InboxStats):
            return evolve(known, oldest_ready_age=known.oldest_ready_age is not None)
        return known[:-1]

    @invariant()
    def time_advances(self) -> None:
        self.clocks.advance(0.001)


class OnStreams(OwnClock):
    """Returned deliveries are claimed first; leases end when the inbox is closed."""

    owned = True
    nats: ClassVar[NatsServer]

    def __init__(self) -> None:
        Agreement.__init__(self)
        self.name = f"machine_{secrets.token_hex(8)}"

    def make(self) -> tuple[Any, ...]:
        return (JetStreamInbox(self.nats.url(), name=self.name),)

    @rule(target=Agreement.pairs, limit=st.integers(0, 4), lease=st.sampled_from([1.0, 60.0]))
    def claim(self, limit: int, lease: float) -> Any:
        (leases,) = self.call(lambda inbox: inbox.claim(limit, lease=lease * self.second))

        rows = self.model.claim_chosen(
            [self.number(leased.id) for leased in leases], limit, lease * self.second, self.now
        )
        assert [(leased.delivery.body, leased.attempt, leased.crashes, leased.completed) for leased in leases] == [
            (row.body, row.attempt, row.crashes, row.completed) for row in rows
        ]
        return multiple(*(Pair(row, (leased,)) for row, leased in zip(rows, leases, strict=True)))


# An example creates a file and makes about fifty commits: run a fifth of the profile's examples.
EXAMPLES = settings(
    max_examples=max(1, settings.default.max_examples // 5),
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def postgres_machine(postgres: PostgresServer) -> None:
    ManyHosts.postgres = postgres


@pytest.fixture(scope="module")
def nats_machine(nats_server: NatsServer) -> None:
    OnStreams.nats = nats_server


TestAgreement = Agreement.TestCase
TestAgreement.settings = EXAMPLES
TestClockJumps = ClockJumps.TestCase
TestClockJumps.settings = EXAMPLES
# A server responds more slowly than a file.
FEWER = settings(EXAMPLES, max_examples=max(1, settings.default.max_examples // 10))
TestManyHosts = pytest.mark.usefixtures("postgres_machine")(ManyHosts.TestCase)
TestManyHosts.settings = FEWER
TestOwnClock = pytest.mark.usefixtures("postgres_machine")(OwnClock.TestCase)
TestOwnClock.settings = FEWER
TestOnStreams = pytest.mark.usefixtures("nats_machine")(OnStreams.TestCase)
TestOnStreams.settings = FEWER
