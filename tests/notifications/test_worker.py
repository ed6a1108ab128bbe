"""What becomes of a delivery after it was acknowledged."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from callfire_async import InboxError
from callfire_async.notifications import (
    Delivery,
    InboxEntry,
    Lease,
    MemoryInbox,
    Notification,
    Postback,
    Receiver,
    Reject,
    Reply,
    RetryPolicy,
    Router,
    SqliteInbox,
    TextFinished,
    UnknownNotification,
    worker,
)
from callfire_async.notifications.security._allowlist import SubscriptionAllowList
from callfire_async.notifications.worker import Worker, event_key

DEADLINE = 20
AT_ONCE = RetryPolicy(max_attempts=3, initial_delay=0.0)


class Handlers:
    """A router whose handlers do as they are told."""

    def __init__(self) -> None:
        self.router = Router()
        self.ran: list[str] = []
        self.started = asyncio.Event()
        self.go_on = asyncio.Event()

    def add(self, name: str, error: BaseException | None = None, *, times: int = 10**6) -> None:
        """Register one that notes that it ran, and raises so many times."""
        left = times

        async def handler(event: Notification) -> None:
            nonlocal left
            self.ran.append(name)
            left -= 1
            if error is not None and left >= 0:
                raise error

        self.router.on(TextFinished, name=name)(handler)

    def add_waiting(self, name: str) -> None:
        """Register one that waits until it may go on."""

        async def handler(event: Notification) -> None:
            self.ran.append(name)
            self.started.set()
            await self.go_on.wait()

        self.router.on(TextFinished, name=name)(handler)


@pytest.fixture
def handlers() -> Handlers:
    return Handlers()


@pytest.fixture
def inbox() -> MemoryInbox:
    return MemoryInbox()


def body(number: int = 1, subscription_id: int = 7) -> bytes:
    return b'{"TextSent": {"SubscriptionId": %d, "Text": {"@id": %d}}}' % (subscription_id, number)


def postback(content: bytes) -> Postback:
    return Postback("POST", None, {"Content-Type": "application/json"}, content)


def make_receiver(handlers: Handlers, inbox: MemoryInbox, **options: object) -> Receiver:
    return Receiver(handlers.router, tokens=None, inbox=inbox, **{"retry": AT_ONCE} | options)


async def handle(handlers: Handlers, inbox: MemoryInbox, *contents: bytes, **options: object) -> list[InboxEntry]:
    """Have a receiver take some bodies, and wait until nothing is left to do."""
    async with make_receiver(handlers, inbox, **options) as receiver:
        for content in contents:
            assert await receiver.receive(postback(content)) == Reply(204)
        await receiver.idle(timeout=DEADLINE)
    return [entry async for entry in inbox.entries()]


# --- handled ----------------------------------------------------------------------------------------------


async def test_the_answer_does_not_wait_for_the_handlers(handlers, inbox):
    """204 means that it is kept; what comes of it comes later."""
    handlers.add_waiting("waits")
    async with make_receiver(handlers, inbox) as receiver:
        reply = await receiver.receive(postback(body()))
        handlers.go_on.set()
        await receiver.idle(timeout=DEADLINE)

    assert (reply, handlers.ran) == (Reply(204), ["waits"])


async def test_what_was_handled_is_done_and_known_by_its_event(handlers, inbox):
    """So it can be told later what was missed."""
    handlers.add("runs")

    (entry,) = await handle(handlers, inbox, body(42))

    assert (entry.state, await inbox.handled(["text:42:", "text:43:"])) == ("done", {"text:42:"})


async def test_no_refusal_depends_on_what_stands_in_the_body(handlers, inbox):
    """What cannot be read is kept, and buried for somebody to look at."""
    handlers.add("runs")

    entries = await handle(handlers, inbox, b"nonsense", b'{"a": 1}', b'{"TextSent": {"Text": {}}}', b'{"Unheard": {}}')

    assert [(entry.state, entry.reason) for entry in entries] == [
        ("dead", "neither XML nor JSON: at line 1, column 1"),
        ("dead", "a JSON document whose one value is not an object is not a notification"),
        ("dead", "not a notification: missing @ Text.@id"),
        ("dead", "no handler matches UnknownNotification"),
    ]


async def test_the_fallback_keeps_an_event_from_being_buried(handlers, inbox):
    """It takes what nobody else does."""

    @handlers.router.fallback
    async def fallback(event: Notification) -> None:
        handlers.ran.append(type(event).__name__)

    (entry,) = await handle(handlers, inbox, b'{"Unheard": {}}')

    assert (entry.state, handlers.ran) == ("done", [UnknownNotification.__name__])


async def test_so_many_run_at_once_and_no_more(handlers, inbox):
    """No more is claimed than there are free slots."""
    handlers.add_waiting("waits")
    async with make_receiver(handlers, inbox, concurrency=3) as receiver:
        for number in range(5):
            await receiver.receive(postback(body(number)))
        await until(lambda: len(handlers.ran) == 3)
        leased = (await inbox.stats()).leased
        handlers.go_on.set()
        await receiver.idle(timeout=DEADLINE)

    assert (leased, len(handlers.ran)) == (3, 5)


async def test_a_receiver_with_no_slots_only_takes_in(handlers, inbox):
    """Others do the work."""
    handlers.add("runs")
    async with make_receiver(handlers, inbox, concurrency=0) as receiver:
        await receiver.receive(postback(body()))

    assert ((await inbox.stats()).ready, handlers.ran) == (1, [])


async def test_what_a_receiver_with_no_slots_takes_in_waits_for_others(handlers, inbox):
    """It is healthy, counts what waits, and is not idle while that does; nothing of it holds up its end."""
    handlers.add("runs")
    async with make_receiver(handlers, inbox, concurrency=0) as receiver:
        before = (await receiver.health()).healthy
        await receiver.idle(timeout=DEADLINE)
        await receiver.receive(postback(body()))
        stats = await receiver.stats()
        with pytest.raises(TimeoutError):
            await receiver.idle(timeout=0.01)
        (lease,) = await inbox.claim(1, lease=60)
        await inbox.ack(lease)
        await receiver.idle(timeout=DEADLINE)

    assert (before, (await receiver.health()).healthy, handlers.ran) == (True, False, [])
    assert (stats.inbox.ready, stats.handled, stats.refused) == (1, 0, {})


async def test_a_receiver_with_no_slots_that_cannot_store_is_not_healthy(handlers):
    """Until it can; the next postback tells."""
    inbox = MemoryInbox(max_deliveries=1)
    async with make_receiver(handlers_with_one(handlers), inbox, concurrency=0) as receiver:
        replies = [(await receiver.receive(postback(body(number)))).status for number in range(2)]
        full = (await receiver.health()).healthy
        (lease,) = await inbox.claim(1, lease=60)
        await inbox.ack(lease)
        replies.append((await receiver.receive(postback(body(3)))).status)

        assert (replies, full, (await receiver.health()).healthy) == ([204, 503, 204], False, True)


def handlers_with_one(handlers: Handlers) -> Handlers:
    handlers.add("runs")
    return handlers


async def test_a_receiver_with_no_slots_may_be_started_again(handlers, inbox):
    """As any other."""
    receiver = make_receiver(handlers_with_one(handlers), inbox, concurrency=0)
    for number in range(2):
        async with receiver:
            assert await receiver.receive(postback(body(number))) == Reply(204)

    assert (await inbox.stats()).ready == 2


async def test_a_receiver_may_only_work(handlers, inbox):
    """With no server, until its process is told to end: what is not finished then goes back."""
    handlers.add_waiting("waits")
    await inbox.append(Delivery(body()))

    async def work() -> None:
        async with make_receiver(handlers, inbox, shutdown_timeout=0.0):
            await asyncio.Event().wait()

    working = asyncio.create_task(work())
    async with asyncio.timeout(DEADLINE):
        await handlers.started.wait()
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working

    (lease,) = await inbox.claim(1, lease=60)
    assert (lease.attempt, lease.crashes, handlers.ran) == (1, 0, ["waits"])


# --- failed -----------------------------------------------------------------------------------------------


async def test_only_what_failed_runs_again(handlers, inbox):
    """A handler that has succeeded does not do it twice."""
    handlers.add("succeeds")
    handlers.add("fails once", ValueError(), times=1)

    (entry,) = await handle(handlers, inbox, body())

    assert (handlers.ran, entry.state, entry.attempt) == (["succeeds", "fails once", "fails once"], "done", 2)


async def test_attempts_end(handlers, inbox):
    """Then it is a dead letter, with the reason of the last failure, and no word of the exception's own."""
    handlers.add("fails", ValueError("secret words"))

    (entry,) = await handle(handlers, inbox, body())

    assert (len(handlers.ran), entry.state) == (3, "dead")
    assert entry.reason == "3 attempts failed, the last with fails: ValueError"


async def test_a_rejected_delivery_is_not_tried_again(handlers, inbox):
    """A handler that knows better says so."""
    handlers.add("rejects", Reject("no such customer"))

    (entry,) = await handle(handlers, inbox, body())

    assert (handlers.ran, entry.state, entry.reason) == (["rejects"], "dead", "rejected: no such customer")


async def test_a_handler_that_hangs_has_failed(handlers, inbox):
    """It is stopped at its timeout; those that had succeeded are not run again."""
    handlers.add("succeeds")
    handlers.add_waiting("hangs")

    (entry,) = await handle(handlers, inbox, body(), handler_timeout=0.01, retry=RetryPolicy(1))

    assert (handlers.ran, entry.reason) == (["succeeds", "hangs"], "the only attempt failed: hangs: TimeoutError")


async def test_a_handler_that_cancels_itself_has_failed(handlers, inbox):
    """Nobody stopped it but itself."""
    handlers.add("cancels", asyncio.CancelledError(), times=1)

    (entry,) = await handle(handlers, inbox, body())

    assert (handlers.ran, entry.state, entry.reason) == (["cancels", "cancels"], "done", "(unknown): CancelledError")


async def test_a_failure_is_logged_without_its_words(handlers, inbox, caplog):
    """The log says who failed and where; what an exception says may be somebody's message."""
    handlers.add("fails", ValueError("secret words"), times=1)

    await handle(handlers, inbox, body())

    assert ("handler fails failed: ValueError" in caplog.text, "secret words" in caplog.text) == (True, False)


# --- known subscriptions ----------------------------------------------------------------------------------


async def test_an_event_of_a_strange_subscription_is_buried(handlers, inbox):
    """One that does not say passes."""
    handlers.add("runs")
    nobody_s = b'{"TextSent": {"Text": {"@id": 3}}}'

    entries = await handle(handlers, inbox, body(1, 7), body(2, 8), nobody_s, known_subscriptions={7})

    assert [entry.state for entry in entries] == ["done", "dead", "done"]
    assert entries[1].reason == "subscription 8 is not in known_subscriptions"


async def test_while_they_cannot_be_asked_an_event_waits(handlers, inbox):
    """It is tried again like any that fails."""
    handlers.add("runs")
    answers = [OSError(), {7}]

    async def ask() -> set[int]:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    (entry,) = await handle(handlers, inbox, body(), known_subscriptions=ask)

    assert (entry.state, entry.attempt) == ("done", 2)


# --- dead letters -----------------------------------------------------------------------------------------


async def test_a_dead_letter_is_loud(handlers, inbox, caplog):
    """One error in a log of its own, a call to whoever wants to know, and a receiver that is not healthy."""
    handlers.add("rejects", Reject("no"))
    told: list[InboxEntry] = []

    async def tell(entry: InboxEntry) -> None:
        told.append(entry)

    async with make_receiver(handlers, inbox, on_dead_letter=tell) as receiver:
        before = (await receiver.health()).healthy
        await receiver.receive(postback(body()))
        await receiver.idle(timeout=DEADLINE)
        after = (await receiver.health()).healthy

    logged = [record for record in caplog.records if record.name == "callfire_async.dead_letters"]
    assert [record.getMessage() for record in logged] == ["delivery 1 became a dead letter: rejected: no"]
    assert (before, after, [(entry.id, entry.state) for entry in told]) == (True, False, [(1, "dead")])


async def test_whoever_cannot_be_told_changes_nothing(handlers, inbox, caplog):
    """The letter is buried all the same, and the next one too."""
    handlers.add("rejects", Reject("no"))

    async def tell(entry: InboxEntry) -> None:
        raise OSError

    entries = await handle(handlers, inbox, body(1), body(2), on_dead_letter=tell)

    assert [entry.state for entry in entries] == ["dead", "dead"]
    assert caplog.text.count("on_dead_letter failed: OSError") == 2


async def test_a_letter_that_is_gone_is_told_of_to_nobody(handlers, inbox):
    """Somebody has purged it already."""
    handlers.add("rejects", Reject("no"))
    told: list[InboxEntry] = []

    async def tell(entry: InboxEntry) -> None:
        told.append(entry)

    async def gone(id: object) -> None: ...

    inbox.get = gone
    await handle(handlers, inbox, body(), on_dead_letter=tell)

    assert told == []


# --- crashes ----------------------------------------------------------------------------------------------


async def crash(inbox: MemoryInbox, *, times: int) -> None:
    """Have the process die so often while all that is ready is handled."""
    for _ in range(times):
        assert await inbox.claim(1, lease=60)
        await inbox.__aenter__()


async def test_what_has_crashed_four_times_is_buried_unread(handlers, inbox):
    """It would kill the fifth process too."""
    handlers.add("runs")
    await inbox.append(Delivery(body()))
    await crash(inbox, times=4)

    (entry,) = await handle(handlers, inbox)

    assert (handlers.ran, entry.state, entry.reason) == ([], "dead", "4 processes crashed while handling it")


async def test_what_has_crashed_twice_runs_alone(handlers, inbox):
    """What runs ends first, and nothing else is begun meanwhile: the others in flight are innocent."""
    running: set[int] = set()
    together: list[int] = []

    @handlers.router.on(TextFinished)
    async def handler(event: TextFinished) -> None:
        running.add(event.text.id)
        if 1 in running:
            together.append(len(running))
        await asyncio.sleep(0)
        running.discard(event.text.id)

    await inbox.append(Delivery(body(1)))
    await crash(inbox, times=2)
    for number in range(2, 9):
        await inbox.append(Delivery(body(number)))

    entries = await handle(handlers, inbox)

    assert ({entry.state for entry in entries}, together) == ({"done"}, [1])


async def test_what_waits_to_run_alone_is_put_back_when_the_receiver_stops(handlers, inbox):
    """It was not handled, and nothing is counted."""
    handlers.add_waiting("waits")
    await inbox.append(Delivery(body(1)))
    suspect = await inbox.append(Delivery(body(2)))
    inbox._rows[suspect.id].crashes = 2
    async with make_receiver(handlers, inbox, shutdown_timeout=0.0):
        await until(lambda: inbox._rows[suspect.id].state == "leased")

    entries = [entry async for entry in inbox.entries()]
    assert ([entry.state for entry in entries], entries[1].crashes, handlers.ran) == (["ready", "ready"], 2, ["waits"])


# --- stopping ---------------------------------------------------------------------------------------------


async def test_running_handlers_get_their_grace(handlers, inbox):
    """Nothing is cut off that ends in time."""
    handlers.add_waiting("waits")
    async with make_receiver(handlers, inbox) as receiver:
        await receiver.receive(postback(body()))
        await handlers.started.wait()
        asyncio.get_running_loop().call_soon(handlers.go_on.set)

    assert [entry.state async for entry in inbox.entries()] == ["done"]


async def test_what_is_not_finished_in_time_is_put_back(handlers, inbox):
    """No attempt is counted, and what had succeeded is known: only the rest runs again."""
    handlers.add("succeeds")
    handlers.add_waiting("waits")
    async with make_receiver(handlers, inbox, shutdown_timeout=0.0) as receiver:
        await receiver.receive(postback(body()))
        await handlers.started.wait()
    (entry,) = [entry async for entry in inbox.entries()]
    handlers.go_on.set()

    await handle(handlers, inbox)

    assert (entry.state, entry.attempt, handlers.ran) == ("ready", 1, ["succeeds", "waits", "waits"])


async def test_what_comes_to_hand_while_it_stops_goes_back(handlers):
    """A claim that was under way is not lost with its leases."""
    handlers.add("runs")
    inbox = SlowInbox()
    await inbox.append(Delivery(body()))
    receiver = make_receiver(handlers, inbox)
    async with receiver:
        await inbox.claiming.wait()
        asyncio.get_running_loop().call_soon(inbox.go_on.set)

    assert ([entry.state async for entry in inbox.entries()], handlers.ran) == (["ready"], [])


async def test_whoever_cancels_the_stop_ends_the_grace_and_nothing_else(handlers, tmp_path):
    """What runs is put back, with no attempt and no crash counted, and the file is let go."""
    handlers.add_waiting("waits")
    receiver = make_receiver(handlers, SqliteInbox(tmp_path / "inbox.db"), shutdown_timeout=3600.0)
    await receiver.__aenter__()
    await receiver.receive(postback(body()))
    await handlers.started.wait()

    stopping = asyncio.create_task(receiver.__aexit__(None, None, None))
    await asyncio.sleep(0)
    stopping.cancel()
    await asyncio.wait([stopping])

    async with SqliteInbox(tmp_path / "inbox.db", lock_timeout=0.0) as inbox:
        (entry,) = [entry async for entry in inbox.entries()]
    assert (stopping.cancelled(), entry.state, entry.attempt, entry.crashes) == (True, "ready", 1, 0)


async def test_what_cannot_be_put_back_keeps_nothing_else_from_it(handlers):
    """Each lease that a claim brings while the worker stops goes back by itself."""
    handlers.add("runs")
    inbox = PuttingBackFails()
    for number in (1, 2):
        await inbox.append(Delivery(body(number)))
    async with make_receiver(handlers, inbox):
        await inbox.claiming.wait()
        asyncio.get_running_loop().call_soon(inbox.go_on.set)

    assert [entry.state async for entry in inbox.entries()] == ["leased", "ready"]


class SlowInbox(MemoryInbox):
    """One whose claims take their time."""

    def __init__(self) -> None:
        super().__init__()
        self.claiming, self.go_on = asyncio.Event(), asyncio.Event()

    async def claim(self, limit: int, *, lease: float) -> list[Lease]:
        self.claiming.set()
        await self.go_on.wait()
        return await super().claim(limit, lease=lease)


class PuttingBackFails(SlowInbox):
    """One that fails to put back what it has handed out first."""

    async def release(self, lease: Lease, *, completed: frozenset[str] = frozenset()) -> bool:
        if lease.id == 1:
            raise InboxError("no space")
        return await super().release(lease, completed=completed)


async def test_a_receiver_may_be_started_again(handlers, inbox):
    """As one that an application is started with twice, in tests."""
    handlers.add("runs")
    for number in (1, 2):
        await handle(handlers, inbox, body(number))

    assert handlers.ran == ["runs", "runs"]


@pytest.mark.parametrize("make_inbox", [MemoryInbox, lambda: SqliteInbox("inbox.db")])
def test_a_receiver_may_be_started_in_another_event_loop(handlers, make_inbox, tmp_path, monkeypatch):
    """As an application is whose every test has a loop of its own."""
    monkeypatch.chdir(tmp_path)
    handlers.add("runs")
    receiver = make_receiver(handlers, make_inbox())

    async def use(number: int) -> None:
        async with receiver:
            await asyncio.gather(*(receiver.receive(postback(body(number + more))) for more in range(3)))
            await receiver.idle(timeout=DEADLINE)

    for number in (1, 11):
        asyncio.run(use(number))

    assert handlers.ran == ["runs"] * 6


# --- an inbox that fails ----------------------------------------------------------------------------------


class FailingInbox(MemoryInbox):
    """One of whose operations fail so many times."""

    def __init__(self, error: Exception, **times: int) -> None:
        super().__init__()
        self.error, self.times = error, times

    def fail(self, operation: str) -> None:
        self.times[operation] = self.times.get(operation, 0) - 1
        if self.times[operation] >= 0:
            raise self.error

    async def append(self, delivery):
        self.fail("append")
        return await super().append(delivery)

    async def claim(self, limit, *, lease):
        self.fail("claim")
        return await super().claim(limit, lease=lease)

    async def ack(self, lease, *, event_key=""):
        self.fail("ack")
        return await super().ack(lease, event_key=event_key)

    async def extend(self, lease, seconds):
        self.fail("extend")
        return await super().extend(lease, seconds)

    async def wait(self, timeout):
        self.fail("wait")
        await super().wait(timeout)


@pytest.fixture(autouse=True)
def in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait long before writing again."""
    monkeypatch.setattr(worker, "_RETRY_INTERVAL_SECONDS", 0.01)


@pytest.mark.parametrize("error", [InboxError("no space"), OSError("disk /secret")])
async def test_what_cannot_be_stored_is_answered_503(handlers, error, caplog):
    """With Retry-After; the receiver is not healthy until something was stored again."""
    handlers.add("runs")
    inbox = FailingInbox(error, append=1)
    async with make_receiver(handlers, inbox) as receiver:
        refused = await receiver.receive(postback(body()))
        sick = (await receiver.health()).healthy
        stored = await receiver.receive(postback(body()))
        await receiver.idle(timeout=DEADLINE)
        stats = await receiver.stats()

    assert (refused, sick, stored) == (Reply(503, (("Retry-After", "5"),)), False, Reply(204))
    assert (stats.refused, "/secret" in caplog.text) == ({"storage": 1}, False)


async def test_while_an_ack_cannot_be_written_nothing_more_is_claimed(handlers):
    """What is done and not noted would be done again, and again."""
    handlers.add("runs")
    inbox = FailingInbox(InboxError("no space"), ack=3)
    async with make_receiver(handlers, inbox, concurrency=1) as receiver:
        await receiver.receive(postback(body(1)))
        await receiver.receive(postback(body(2)))
        await until(lambda: not receiver._intake.last_store_succeeded)
        assert not (await receiver.health()).ready
        ran = list(handlers.ran)
        await receiver.idle(timeout=DEADLINE)

    assert (ran, handlers.ran) == (["runs"], ["runs", "runs"])
    assert receiver._intake._worker.can_write


async def test_what_is_claimed_while_an_ack_turns_out_not_to_be_written_goes_back(handlers):
    """It is claimed with the ack, and begun no earlier than something can be written."""
    handlers.add("runs")
    inbox = FailingWithTheClaim()
    for number in (1, 2):
        await inbox.append(Delivery(body(number)))
    async with make_receiver(handlers, inbox, concurrency=1) as receiver:
        await until(lambda: inbox.released)
        ran = list(handlers.ran)
        inbox.may_write.set()
        await receiver.idle(timeout=DEADLINE)

    assert (ran, handlers.ran, inbox.released) == (["runs"], ["runs", "runs"], [2])


class FailingWithTheClaim(MemoryInbox):
    """One whose first ack fails while the next claim is under way."""

    def __init__(self) -> None:
        super().__init__()
        self.claims, self.released = 0, []
        self.acking, self.may_write = asyncio.Event(), asyncio.Event()

    async def claim(self, limit: int, *, lease: float) -> list[Lease]:
        self.claims += 1
        leases = await super().claim(limit, lease=lease)
        if self.claims == 2:
            self.acking.set()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        return leases

    async def ack(self, lease: Lease, *, event_key: str = "") -> bool:
        await self.acking.wait()
        if not self.may_write.is_set():
            raise InboxError("no space")
        return await super().ack(lease, event_key=event_key)

    async def release(self, lease: Lease, *, completed: frozenset[str] = frozenset()) -> bool:
        self.released.append(lease.id)
        return await super().release(lease, completed=completed)


@pytest.mark.parametrize("operation", ["claim", "wait"])
async def test_the_worker_outlives_an_inbox_that_fails(handlers, operation):
    """It tries again after a while."""
    handlers.add("runs")
    inbox = FailingInbox(OSError("disk"), **{operation: 2})
    async with make_receiver(handlers, inbox) as receiver:
        await until(lambda: inbox.times[operation] < 2)
        await receiver.receive(postback(body()))
        await receiver.idle(timeout=DEADLINE)

    assert handlers.ran == ["runs"]


async def test_a_claim_that_fails_while_the_worker_stops_is_nobody_s_problem(handlers):
    """There is nothing to put back."""
    handlers.add("runs")
    inbox = FailingSlowly()
    async with make_receiver(handlers, inbox):
        await inbox.claiming.wait()
        asyncio.get_running_loop().call_soon(inbox.go_on.set)

    assert handlers.ran == []


class FailingSlowly(SlowInbox):
    """One whose claims take their time to fail."""

    async def claim(self, limit: int, *, lease: float) -> list[Lease]:
        await super().claim(limit, lease=lease)
        raise InboxError("no space")


# --- leases -----------------------------------------------------------------------------------------------


@pytest.fixture
async def extending(handlers: Handlers) -> AsyncIterator[Callable[[MemoryInbox], Worker]]:
    """Make workers whose leases are short."""
    workers: list[Worker] = []

    def start(inbox: MemoryInbox) -> Worker:
        made = Worker(
            inbox=inbox,
            router=handlers.router,
            concurrency=2,
            handler_timeout=None,
            retry=AT_ONCE,
            shutdown_timeout=0.0,
            subscriptions=SubscriptionAllowList(None),
            on_dead_letter=None,
            lease_seconds=0.03,
        )
        workers.append(made)
        made.start()
        return made

    yield start
    for made in workers:
        await made.stop()


async def test_leases_are_extended_while_handlers_run(handlers, extending):
    """At each third, so that a slow handler is not taken for a dead process."""
    handlers.add_waiting("waits")
    inbox = CountingInbox()
    await inbox.append(Delivery(body()))
    extending(inbox)
    await until(lambda: inbox.extended >= 4)
    handlers.go_on.set()
    await until(lambda: inbox._rows[1].state == "done")

    assert (handlers.ran, inbox._rows[1].crashes) == (["waits"], 0)


class CountingInbox(MemoryInbox):
    """One that counts how often leases were extended."""

    extended = 0

    async def extend(self, lease: Lease, seconds: float) -> bool:
        self.extended += 1
        return await super().extend(lease, seconds)


async def test_a_lease_that_was_lost_is_said(handlers, extending, caplog):
    """Its handler ends, and what it did cannot be noted: another worker has it."""
    handlers.add_waiting("waits")
    inbox = LosingInbox()
    await inbox.append(Delivery(body()))
    extending(inbox)
    await until(lambda: "lost the lease of delivery 1" in caplog.text)
    handlers.go_on.set()
    await until(lambda: "cannot ack delivery 1: its lease was lost" in caplog.text)

    assert inbox._rows[1].state == "leased"


class LosingInbox(MemoryInbox):
    """One that has given each lease to another."""

    async def extend(self, lease: Lease, seconds: float) -> bool:
        return False

    async def ack(self, lease: Lease, *, event_key: str = "") -> bool:
        return False

    async def claim(self, limit: int, *, lease: float) -> list[Lease]:
        return await super().claim(limit, lease=60.0)


async def test_a_lease_that_ends_while_it_is_extended_was_not_lost(handlers, extending, caplog):
    """It was settled: there is nothing to warn of."""
    handlers.add_waiting("waits")
    inbox = SlowlyExtending()
    await inbox.append(Delivery(body()))
    extending(inbox)
    await inbox.extending.wait()
    handlers.go_on.set()
    await until(lambda: inbox._rows[1].state == "done")
    inbox.go_on.set()
    await until(lambda: inbox.extended)

    assert caplog.records == []


class SlowlyExtending(MemoryInbox):
    """One whose extensions take their time."""

    def __init__(self) -> None:
        super().__init__()
        self.extending, self.go_on = asyncio.Event(), asyncio.Event()
        self.extended = False

    async def extend(self, lease: Lease, seconds: float) -> bool:
        self.extending.set()
        await self.go_on.wait()
        self.extended = True
        return await super().extend(lease, seconds)

    async def claim(self, limit: int, *, lease: float) -> list[Lease]:
        return await super().claim(limit, lease=60.0)


async def test_an_extension_that_fails_is_tried_again(handlers, extending, caplog):
    """The lease has two thirds left."""
    handlers.add_waiting("waits")
    inbox = FailingInbox(InboxError("no space"), extend=1)
    await inbox.append(Delivery(body()))
    extending(inbox)
    await until(lambda: "cannot extend the lease of delivery 1, retrying in 0.01 s: no space" in caplog.text)
    handlers.go_on.set()
    await until(lambda: inbox._rows[1].state == "done")

    assert inbox._rows[1].crashes == 0


# --- looking after it -------------------------------------------------------------------------------------


async def test_the_stats_count_what_came_of_it_all(handlers, inbox):
    """What the inbox holds, and what the receiver did."""
    handlers.add("runs")
    async with make_receiver(handlers, inbox, known_subscriptions={7}) as receiver:
        for content in (body(1), body(1), body(2, 8), b'{"Unheard": {}}', b""):
            await receiver.receive(postback(content))
        await receiver.idle(timeout=DEADLINE)
        stats = await receiver.stats()

    assert (stats.refused, stats.duplicates, stats.unknown, stats.unhandled) == ({"empty": 1}, 1, 1, 1)
    assert (stats.handled, stats.failed, stats.dead) == (1, 0, 2)
    assert stats.inbox is not None
    assert (stats.inbox.done, stats.inbox.dead) == (1, 2)


async def test_idle_gives_up(handlers, inbox):
    """A test that hangs is worth less than one that fails."""
    handlers.add_waiting("waits")
    async with make_receiver(handlers, inbox, shutdown_timeout=0.0) as receiver:
        await receiver.receive(postback(body()))
        with pytest.raises(TimeoutError):
            await receiver.idle(timeout=0.01)


def test_event_keys_are_words():
    """As an inbox keeps them."""
    event = UnknownNotification(payload={})

    assert event_key(event) == f"unknown:{event.key[1]}"


async def test_settings_of_the_worker_need_an_inbox(handlers):
    """An option that did nothing would be a promise broken."""
    handlers.add("runs")
    needing = {"concurrency": 4, "retry": AT_ONCE, "shutdown_timeout": 1.0, "on_dead_letter": until}
    for name, value in needing.items():
        with pytest.raises(TypeError, match=name):
            Receiver(handlers.router, tokens=None, **{name: value})


@pytest.mark.parametrize("name", ["concurrency", "shutdown_timeout"])
def test_settings_of_the_worker_are_not_negative(handlers, inbox, name):
    """Refused when the receiver is made."""
    handlers.add("runs")
    with pytest.raises(ValueError, match=name):
        Receiver(handlers.router, tokens=None, inbox=inbox, **{name: -1})


async def until(holds: Callable[[], bool]) -> None:
    """Wait for a thing to happen."""
    async with asyncio.timeout(DEADLINE):
        while not holds():  # noqa: ASYNC110  # the thing waited for is not ours to signal
            await asyncio.sleep(0.001)
