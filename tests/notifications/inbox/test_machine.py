"""Whatever is done to an inbox, in whatever order: it does what the plainest one does."""

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
from notifications.inbox.model import DEDUPE_WINDOW, Model, Row
from notifications.inbox.switched import SwitchedInbox, ThroughTheSpool

from callfire_async.notifications.inbox import Delivery, Inbox, InboxEntry, InboxStats, Lease
from callfire_async.notifications.inbox.jetstream import JetStreamInbox
from callfire_async.notifications.inbox.memory import MemoryInbox
from callfire_async.notifications.inbox.postgres import PostgresInbox
from callfire_async.notifications.inbox.sqlite import SqliteInbox

T = TypeVar("T")

EVENTS = ("event 1", "event 2")
seconds = st.sampled_from([0.0, 1.0, 10.0, 60.0, DEDUPE_WINDOW])
# Of no inbox.
NO_ID = 10**17
names = st.frozensets(st.sampled_from(["a", "b", "c\n"]), max_size=2)
bodies = st.sampled_from([b"", b"1", b"2", b"3", b"4", b"5"])


class Pair:
    """What one step handed out: the model's idea of it, and each inbox's."""

    def __init__(self, row: Row, leases: tuple[Lease, ...]) -> None:
        self.row = row
        self.leases = leases

    def __repr__(self) -> str:
        return f"<lease {self.row.lease} of {self.row.id}>"


class Agreement(RuleBasedStateMachine):
    """The inboxes side by side; each rule asks all of them, and the model."""

    pairs = Bundle("pairs")
    jumps: ClassVar[tuple[float, ...]] = (0.0,)
    #: Whether leases end with the process.
    owned: ClassVar[bool] = True
    #: How long a second of the rules lasts.
    second: ClassVar[float] = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp())
        self.clocks = Clocks()
        self.model = Model()
        self.inboxes: tuple[Any, ...] = ()
        #: The model's id of each that an inbox gave.
        self.numbers: dict[object, int] = {}

    def make(self) -> tuple[Any, ...]:
        """Make the inboxes, or make anew those that can be made on what is there."""
        memory = self.inboxes[0] if self.inboxes else MemoryInbox(clock=self.clocks.clock())
        return memory, self.sqlite(), self.through_the_spool()

    def sqlite(self) -> SqliteInbox:
        return SqliteInbox(self.folder / "inbox.db", retention=1000 * DAY, clock=self.clocks.clock())

    def through_the_spool(self) -> ThroughTheSpool:
        primary = SqliteInbox(self.folder / "primary.db", retention=1000 * DAY, clock=self.clocks.clock())
        spool = SqliteInbox(self.folder / "spool.db", clock=self.clocks.clock())
        return ThroughTheSpool(SwitchedInbox(primary), spool)

    @property
    def now(self) -> float:
        return self.clock.seconds()

    def ask(self, question: Callable[[Inbox], Awaitable[T]]) -> list[T]:
        async def all_of_them() -> list[T]:
            return [await question(inbox) for inbox in self.inboxes]

        return self.runner.run(all_of_them())

    def agree(self, question: Callable[[Inbox], Awaitable[T]], answer: T) -> None:
        """Every inbox answers what the model does."""
        assert self.ask(question) == [answer] * len(self.inboxes)

    def number(self, id: object) -> int:
        """Return which delivery that is, in order of arrival: the model's id of it."""
        return self.numbers.setdefault(id, len(self.numbers) + 1)

    def id(self, number: int) -> object:
        return next((id for id, other in self.numbers.items() if other == number), NO_ID)

    @initialize()
    def open(self) -> None:
        self.inboxes, self.clock = self.make(), self.clocks.clock()
        self.ask(lambda inbox: inbox.__aenter__())

    def close(self) -> None:
        self.ask(lambda inbox: inbox.__aexit__(None, None, None))

    def teardown(self) -> None:
        self.close()
        self.runner.close()
        shutil.rmtree(self.folder)

    # --- what may happen ----------------------------------------------------------------------------------

    @rule(body=bodies)
    def append(self, body: bytes) -> None:
        async def append(inbox: Inbox) -> tuple[object, bool]:
            appended = await inbox.append(Delivery(body))
            return self.number(appended.id), appended.duplicate

        self.agree(append, self.model.append(body, self.now))

    @rule(several=st.lists(bodies, max_size=4))
    def append_many(self, several: list[bytes]) -> None:
        async def append(inbox: Inbox) -> list[tuple[object, bool]]:
            appended = await inbox.append_many([Delivery(body) for body in several])
            return [(self.number(one.id), one.duplicate) for one in appended]

        self.agree(append, [self.model.append(body, self.now) for body in several])

    @rule(target=pairs, limit=st.integers(0, 4), lease=st.sampled_from([1.0, 60.0]))
    def claim(self, limit: int, lease: float) -> Any:
        rows = self.model.claim(limit, lease * self.second, self.now)
        lists = self.ask(lambda inbox: inbox.claim(limit, lease=lease * self.second))

        expected = [(row.id, row.body, row.attempt, row.crashes, row.completed) for row in rows]
        for leases in lists:
            assert [
                (self.number(one.id), one.delivery.body, one.attempt, one.crashes, one.completed) for one in leases
            ] == expected
        return multiple(*(Pair(row, leases) for row, *leases in zip(rows, *lists, strict=True)))

    def settle(self, pair: Pair, question: Callable[[Inbox, Lease], Awaitable[bool]], answer: object) -> None:
        leases = dict(zip(self.inboxes, pair.leases, strict=True))
        self.agree(lambda inbox: question(inbox, leases[inbox]), answer)

    @rule(pair=pairs, lease=seconds)
    def extend(self, pair: Pair, lease: float) -> None:
        answer = self.model.extend(pair.row, lease * self.second, self.now)
        self.settle(pair, lambda inbox, one: inbox.extend(one, lease * self.second), answer)

    @rule(pair=pairs, event_key=st.sampled_from(["", *EVENTS]))
    def ack(self, pair: Pair, event_key: str) -> None:
        answer = self.model.ack(pair.row, event_key, self.now)
        self.settle(pair, lambda inbox, one: inbox.ack(one, event_key=event_key), answer)

    @rule(pair=pairs, delay=seconds, completed=names)
    def nack(self, pair: Pair, delay: float, completed: frozenset[str]) -> None:
        delay *= self.second
        answer = self.model.nack(pair.row, delay, completed, self.now)
        self.settle(pair, lambda inbox, one: inbox.nack(one, delay=delay, completed=completed, reason="failed"), answer)

    @rule(pair=pairs, completed=names)
    def release(self, pair: Pair, completed: frozenset[str]) -> None:
        answer = self.model.release(pair.row, completed, self.now)
        self.settle(pair, lambda inbox, one: inbox.release(one, completed=completed), answer)

    @rule(pair=pairs)
    def dead_letter(self, pair: Pair) -> None:
        answer = self.model.dead_letter(pair.row, self.now)
        self.settle(pair, lambda inbox, one: inbox.dead_letter(one, "buried"), answer)

    @rule(ids=st.none() | st.lists(st.integers(1, 5), max_size=3))
    def replay(self, ids: list[int] | None) -> None:
        known = None if ids is None else [self.id(number) for number in ids]
        self.agree(lambda inbox: inbox.replay(known), self.model.replay(ids, self.now))

    @rule(passed=st.sampled_from([1.0, 10.0, 60.0, DEDUPE_WINDOW]))
    def time_passes(self, passed: float) -> None:
        self.clocks.advance(passed)

    @rule(data=st.data())
    def crash_and_reopen(self, data: st.DataObject) -> None:
        """What is closed with leases out is as what died with them: see test_sqlite for SIGKILL."""
        self.close()
        self.clocks.set_back(data.draw(st.sampled_from(self.jumps)))
        self.open()
        if self.owned:
            self.model.reopen(self.now)

    # --- what must be true then ---------------------------------------------------------------------------

    @invariant()
    def all_know_the_same(self) -> None:
        async def known(inbox: Inbox) -> list[tuple[object, ...]]:
            return [self.told(entry) async for entry in inbox.entries()]

        async def stats(inbox: Inbox) -> InboxStats:
            return self.comparable(await inbox.stats())

        self.agree(known, [self.comparable(self.model.known(row, self.now)) for row in self.model.rows])
        self.agree(stats, self.comparable(self.model.stats(self.now)))
        self.agree(lambda inbox: inbox.handled(EVENTS), self.model.handled() - {""})

    def told(self, entry: InboxEntry) -> tuple[object, ...]:
        id, at = self.number(entry.id), entry.updated_at.timestamp()
        told = (id, entry.state, entry.delivery.body, entry.attempt, entry.crashes, entry.reason, at)
        return self.comparable(told)

    def comparable(self, known: T) -> T:
        """Return as much of what is known as an inbox can be held to."""
        return known


class ClockJumps(Agreement):
    """Somebody sets the system's clock while nobody runs: a day back, or a day on."""

    jumps = (0.0, DAY, -DAY)

    def make(self) -> tuple[Any, ...]:
        return (self.sqlite(),)


class ManyHosts(Agreement):
    """What a host had leased outlives it, until the lease ends; the server's clock is turned."""

    owned = False
    postgres: ClassVar[PostgresServer]

    def __init__(self) -> None:
        super().__init__()
        self.turned = self.postgres.turned_clock()
        self.clocks = ServerClocks(self.turned)
        self.schema = f"machine_{secrets.token_hex(8)}"

    def make(self) -> tuple[Any, ...]:
        return (PostgresInbox(self.turned.dsn, schema=self.schema, retention=1000 * DAY),)


class OwnClock(ManyHosts):
    """Nobody turns the clock: what is due then is due at once, or not while this runs; and no time is compared."""

    second = 3_600.0
    time_passes = None

    def make(self) -> tuple[Any, ...]:
        return (PostgresInbox(self.postgres.dsn(), schema=self.schema),)

    def comparable(self, known: Any) -> Any:
        if isinstance(known, InboxStats):
            return evolve(known, oldest_ready_age=known.oldest_ready_age is not None)
        return known[:-1]

    @invariant()
    def later_is_later(self) -> None:
        self.clocks.advance(0.001)


class OnStreams(OwnClock):
    """What was put back comes first; leases end with the inbox that is closed."""

    owned = True
    nats: ClassVar[NatsServer]

    def __init__(self) -> None:
        Agreement.__init__(self)
        self.name = f"machine_{secrets.token_hex(8)}"

    def make(self) -> tuple[Any, ...]:
        return (JetStreamInbox(self.nats.url(), name=self.name),)

    @rule(target=Agreement.pairs, limit=st.integers(0, 4), lease=st.sampled_from([1.0, 60.0]))
    def claim(self, limit: int, lease: float) -> Any:
        (leases,) = self.ask(lambda inbox: inbox.claim(limit, lease=lease * self.second))

        rows = self.model.claim_these([self.number(one.id) for one in leases], limit, lease * self.second, self.now)
        assert [(one.delivery.body, one.attempt, one.crashes, one.completed) for one in leases] == [
            (row.body, row.attempt, row.crashes, row.completed) for row in rows
        ]
        return multiple(*(Pair(row, (one,)) for row, one in zip(rows, leases, strict=True)))


# An example is a file, and some fifty commits: a fifth of what the profile says.
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
# A server's answers take longer than a file's.
FEWER = settings(EXAMPLES, max_examples=max(1, settings.default.max_examples // 10))
TestManyHosts = pytest.mark.usefixtures("postgres_machine")(ManyHosts.TestCase)
TestManyHosts.settings = FEWER
TestOwnClock = pytest.mark.usefixtures("postgres_machine")(OwnClock.TestCase)
TestOwnClock.settings = FEWER
TestOnStreams = pytest.mark.usefixtures("nats_machine")(OnStreams.TestCase)
TestOnStreams.settings = FEWER
