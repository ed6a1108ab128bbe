"""How a worker claims, handles and settles deliveries."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import contextmanager

import pytest

from callfire_async import InboxError
from callfire_async.notifications import (
    Delivery,
    InboxEntry,
    Lease,
    MemoryInbox,
    Notification,
    Observer,
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
from callfire_async.notifications.inbox import Clock
from callfire_async.notifications.inbox._cancellation import StopProgress
from callfire_async.notifications.security._allowlist import AllowList
from callfire_async.notifications.worker import Worker, event_key
from callfire_async.notifications.worker._known_sources import KnownSources
from callfire_async.notifications.worker._work_in_progress import WorkInProgress

DEADLINE = 60
IMMEDIATE = RetryPolicy(max_attempts=3, initial_delay=0.0)


class Handlers:
    """A router with handlers that record their runs and fail or wait on demand."""

    def __init__(self) -> None:
        self.router = Router()
        self.ran: list[str] = []
        self.started = asyncio.Event()
        self.proceed = asyncio.Event()

    def add(self, name: str, error: BaseException | None = None, *, times: int = 10**6) -> None:
        """Register a handler that records its run, and raises *error* in its first *times* runs."""
        left = times

        async def handler(event: Notification) -> None:
            nonlocal left
            self.ran.append(name)
            left -= 1
            if error is not None and left >= 0:
                raise error

        self.router.on(TextFinished, name=name)(handler)

    def add_waiting(self, name: str) -> None:
        """Register a handler that waits for ``proceed``."""

        async def handler(event: Notification) -> None:
            self.ran.append(name)
            self.started.set()
            await self.proceed.wait()

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
    return Receiver(handlers.router, tokens=None, inbox=inbox, **{"retry": IMMEDIATE} | options)


async def handle(handlers: Handlers, inbox: MemoryInbox, *contents: bytes, **options: object) -> list[InboxEntry]:
    """Post bodies to a receiver, wait until it is idle, and return the inbox's entries."""
    async with make_receiver(handlers, inbox, **options) as receiver:
        for content in contents:
            assert await receiver.receive(postback(content)) == Reply(204)
        await receiver.idle(timeout=DEADLINE)
    return [entry async for entry in inbox.entries()]


# --- success ----------------------------------------------------------------------------------------------


async def test_the_response_does_not_wait_for_the_handlers(handlers, inbox):
    """204 means that the delivery is stored; handlers run afterwards."""
    handlers.add_waiting("waits")
    async with make_receiver(handlers, inbox) as receiver:
        reply = await receiver.receive(postback(body()))
        handlers.proceed.set()
        await receiver.idle(timeout=DEADLINE)

    assert (reply, handlers.ran) == (Reply(204), ["waits"])


async def test_a_handled_delivery_is_done_and_its_event_key_is_stored(handlers, inbox):
    """The key shows later which events were missed."""
    handlers.add("runs")

    (entry,) = await handle(handlers, inbox, body(42))

    assert (entry.state, await inbox.handled(["text:42:", "text:43:"])) == ("done", {"text:42:"})


async def test_no_rejection_depends_on_the_content_of_the_body(handlers, inbox):
    """An unreadable body is stored and becomes a dead letter."""
    handlers.add("runs")

    entries = await handle(handlers, inbox, b"nonsense", b'{"a": 1}', b'{"TextSent": {"Text": {}}}', b'{"Unheard": {}}')

    assert [(entry.state, entry.reason) for entry in entries] == [
        ("dead", "neither XML nor JSON: at line 1, column 1"),
        ("dead", "not a notification: the value of the JSON document's only key is not an object"),
        ("dead", "not a notification: missing @ Text.@id"),
        ("dead", "no handler matches UnknownNotification"),
    ]


async def test_an_event_that_only_the_fallback_handles_is_done(handlers, inbox):
    """The fallback gets events that match no handler."""

    @handlers.router.fallback
    async def fallback(event: Notification) -> None:
        handlers.ran.append(type(event).__name__)

    (entry,) = await handle(handlers, inbox, b'{"Unheard": {}}')

    assert (entry.state, handlers.ran) == ("done", [UnknownNotification.__name__])


async def leased_of(receiver: Receiver, numbers: Iterable[int], condition: Callable[[], bool]) -> int:
    """Post events, wait for a condition, and return how many deliveries are leased."""
    for number in numbers:
        await receiver.receive(postback(body(number)))
    await until(condition)
    return (await receiver.stats()).inbox.leased


async def test_concurrency_limits_the_handlers_that_run_at_once(handlers, inbox):
    """Only as many deliveries are claimed as there are free slots."""
    handlers.add_waiting("waits")
    async with make_receiver(handlers, inbox, concurrency=3) as receiver:
        leased = await leased_of(receiver, range(5), lambda: len(handlers.ran) == 3)
        handlers.proceed.set()
        await receiver.idle(timeout=DEADLINE)

    assert (leased, len(handlers.ran)) == (3, 5)


async def test_sixteen_handlers_run_at_once_by_default(handlers, inbox):
    """As documented."""
    handlers.add_waiting("waits")
    async with make_receiver(handlers, inbox) as receiver:
        assert await leased_of(receiver, range(20), lambda: len(handlers.ran) == 16) == 16
        handlers.proceed.set()


async def test_settled_deliveries_do_not_raise_the_concurrency(handlers, inbox):
    """Only while a delivery is being settled, another one may be claimed for its slot."""
    handlers.add_waiting("waits")
    handlers.proceed.set()
    async with make_receiver(handlers, inbox, concurrency=2) as receiver:
        for number in range(10):
            await receiver.receive(postback(body(number)))
        await receiver.idle(timeout=DEADLINE)
        handlers.proceed.clear()
        assert await leased_of(receiver, range(10, 15), lambda: len(handlers.ran) == 12) == 2
        handlers.proceed.set()


async def test_a_receiver_without_concurrency_only_stores(handlers, inbox):
    """Other processes handle the deliveries."""
    handlers.add("runs")
    async with make_receiver(handlers, inbox, concurrency=0) as receiver:
        await receiver.receive(postback(body()))

    assert ((await inbox.stats()).ready, handlers.ran) == (1, [])


async def test_deliveries_of_a_receiver_without_concurrency_wait_for_another_worker(handlers, inbox):
    """The receiver is healthy, counts them, is idle once they are handled, and stops at once."""
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


async def test_a_receiver_without_concurrency_that_cannot_store_is_unhealthy(handlers):
    """It is healthy again once a postback has been stored."""
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


async def test_a_receiver_without_concurrency_may_be_restarted(handlers, inbox):
    """Like any other receiver."""
    receiver = make_receiver(handlers_with_one(handlers), inbox, concurrency=0)
    for number in range(2):
        async with receiver:
            assert await receiver.receive(postback(body(number))) == Reply(204)

    assert (await inbox.stats()).ready == 2


async def test_a_receiver_may_run_without_a_server(handlers, inbox):
    """It handles deliveries until it is cancelled, and then releases unfinished ones."""
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


# --- failures -----------------------------------------------------------------------------------------------


async def test_only_failed_handlers_run_again(handlers, inbox):
    """A handler that succeeded is skipped by the next attempt."""
    handlers.add("succeeds")
    handlers.add("fails once", ValueError(), times=1)

    (entry,) = await handle(handlers, inbox, body())

    assert (handlers.ran, entry.state, entry.attempt) == (["succeeds", "fails once", "fails once"], "done", 2)


async def test_a_delivery_is_dead_after_its_last_attempt(handlers, inbox):
    """Its reason names the last failure, without the exception's message."""
    handlers.add("fails", ValueError("secret words"))

    (entry,) = await handle(handlers, inbox, body())

    assert (len(handlers.ran), entry.state) == (3, "dead")
    assert entry.reason == "3 attempts failed, the last with fails: ValueError"


async def test_a_rejected_delivery_is_not_retried(handlers, inbox):
    """A handler that raises `Reject` ends the retries."""
    handlers.add("rejects", Reject("no such customer"))

    (entry,) = await handle(handlers, inbox, body())

    assert (handlers.ran, entry.state, entry.reason) == (["rejects"], "dead", "rejected: no such customer")


@pytest.mark.parametrize("error", [ValueError(), Reject("no")])
async def test_only_failed_handlers_run_after_a_replay(handlers, inbox, error):
    """Not those that succeeded in the attempt that made the delivery a dead letter."""
    handlers.add("succeeds")
    handlers.add("fails once", error, times=1)

    (dead,) = await handle(handlers, inbox, body(), retry=RetryPolicy(1))
    await inbox.replay()
    (done,) = await handle(handlers, inbox)

    assert (dead.state, done.state, handlers.ran) == ("dead", "done", ["succeeds", "fails once", "fails once"])


async def test_a_handler_that_times_out_has_failed(handlers, inbox):
    """It is cancelled; handlers that succeeded are not run again."""
    handlers.add("succeeds")
    handlers.add_waiting("hangs")

    (entry,) = await handle(handlers, inbox, body(), handler_timeout=0.01, retry=RetryPolicy(1))

    assert (handlers.ran, entry.reason) == (["succeeds", "hangs"], "the only attempt failed: hangs: TimeoutError")


async def test_a_handler_that_raises_cancelled_error_has_failed(handlers, inbox):
    """Only the worker's own stop is a cancellation."""
    handlers.add("cancels", asyncio.CancelledError(), times=2)

    (dead,) = await handle(handlers, inbox, body(), retry=RetryPolicy(1))
    await inbox.replay()
    (done,) = await handle(handlers, inbox)

    assert (dead.state, dead.reason) == ("dead", "the only attempt failed: cancels: CancelledError")
    assert (handlers.ran, done.state) == (["cancels"] * 3, "done")


async def test_a_failure_is_logged_with_its_exception(handlers, inbox, caplog):
    """The line has the handler, the delivery, the attempt and what happens next."""
    handlers.add("fails", ValueError("the cause"))

    await handle(handlers, inbox, body(), retry=RetryPolicy(2, 0.0))

    failed = [record for record in caplog.records if record.name == "callfire_async.worker"]
    assert [record.getMessage() for record in failed] == [
        "handler fails failed: ValueError (delivery 1, attempt 1 of 2, next attempt in 0.0 s)",
        "handler fails failed: ValueError (delivery 1, attempt 2 of 2, no further attempt)",
    ]
    assert [str(record.exc_info[1]) for record in failed] == ["the cause"] * 2
    assert [(record.callfire_delivery_id, record.callfire_attempt) for record in failed] == [(1, 1), (1, 2)]


# --- events without a handler -----------------------------------------------------------------------------


UNMATCHED = b'{"CallFinished": {"SubscriptionId": 7, "Call": {"@id": %d}}}'


async def test_an_event_without_a_handler_may_be_ignored(handlers, inbox, caplog):
    """It is acked and counted as unhandled, with one WARNING for each type of event."""
    handlers.add("runs")
    contents = [UNMATCHED % 1, UNMATCHED % 2, b'{"Unheard": {}}', body()]
    async with make_receiver(handlers, inbox, unhandled="ignore") as receiver:
        for content in contents:
            await receiver.receive(postback(content))
        await receiver.idle(timeout=DEADLINE)
        stats = await receiver.stats()
        healthy = (await receiver.health()).healthy

    assert {entry.state async for entry in inbox.entries()} == {"done"}
    assert (stats.handled, stats.unhandled, stats.dead, stats.unknown, healthy) == (1, 3, 0, 1, True)
    assert [record.getMessage() for record in caplog.records] == [
        "no handler matches CallFinished; ignoring this and further events of this type",
        "no handler matches UnknownNotification; ignoring this and further events of this type",
    ]
    assert await inbox.handled(["call:1:"]) == {"call:1:"}


async def test_an_ignored_event_has_an_outcome_of_its_own(handlers, inbox):
    """As without an inbox."""
    handlers.add("runs")
    outcomes = []

    class Recorder(Observer):
        @contextmanager
        def attempt(self, record):
            yield
            outcomes.append(record.outcome)

    async with make_receiver(handlers, inbox, unhandled="ignore", concurrency=1) as receiver:
        receiver.observe(Recorder())
        await receiver.receive(postback(UNMATCHED % 1))
        await receiver.idle(timeout=DEADLINE)

    assert outcomes == ["unhandled"]


@pytest.mark.parametrize("unhandled", ["dead_letter", None])
async def test_an_event_without_a_handler_is_a_dead_letter_by_default(handlers, inbox, unhandled):
    """Nothing is lost."""
    handlers.add("runs")

    (entry,) = await handle(handlers, inbox, UNMATCHED % 1, unhandled=unhandled)

    assert (entry.state, entry.reason) == ("dead", "no handler matches CallFinished")


@pytest.mark.parametrize("content", [body(1, 8), UNMATCHED.replace(b"7", b"8") % 1])
async def test_an_event_of_an_unknown_subscription_is_never_ignored(handlers, inbox, content):
    """Whether or not a handler matches it."""
    handlers.add("runs")

    (entry,) = await handle(handlers, inbox, content, unhandled="ignore", known_subscriptions={7})

    assert (entry.state, entry.reason) == ("dead", "subscription 8 is not in known_subscriptions")


# --- known subscriptions ----------------------------------------------------------------------------------


async def test_an_event_of_an_unknown_subscription_is_a_dead_letter(handlers, inbox):
    """An event without a subscription id is handled."""
    handlers.add("runs")
    without_id = b'{"TextSent": {"Text": {"@id": 3}}}'

    entries = await handle(handlers, inbox, body(1, 7), body(2, 8), without_id, known_subscriptions={7})

    assert [entry.state for entry in entries] == ["done", "dead", "done"]
    assert entries[1].reason == "subscription 8 is not in known_subscriptions"


async def test_an_event_is_retried_while_known_subscriptions_fails(handlers, inbox):
    """As after any other failure."""
    handlers.add("runs")
    results = [OSError(), {7}]

    async def fetch() -> set[int]:
        result = results.pop(0)
        if isinstance(result, OSError):
            raise result
        return result

    (entry,) = await handle(handlers, inbox, body(), known_subscriptions=fetch)

    assert (entry.state, entry.attempt) == ("done", 2)


# --- dead letters -----------------------------------------------------------------------------------------


async def test_a_dead_letter_is_reported(handlers, inbox, caplog):
    """It is one ERROR with a logger of its own, one call of ``on_dead_letter``, and makes the receiver unhealthy."""
    handlers.add("rejects", Reject("no"))
    reported: list[InboxEntry] = []

    async def report(entry: InboxEntry) -> None:
        reported.append(entry)

    async with make_receiver(handlers, inbox, on_dead_letter=report) as receiver:
        before = (await receiver.health()).healthy
        await receiver.receive(postback(body()))
        await receiver.idle(timeout=DEADLINE)
        after = (await receiver.health()).healthy

    logged = [record for record in caplog.records if record.name == "callfire_async.dead_letters"]
    assert [record.getMessage() for record in logged] == ["delivery 1 became a dead letter: rejected: no"]
    assert (before, after, [(entry.id, entry.state) for entry in reported]) == (True, False, [(1, "dead")])


async def test_a_failing_on_dead_letter_changes_nothing(handlers, inbox, caplog):
    """This delivery and the next one become dead letters."""
    handlers.add("rejects", Reject("no"))

    async def report(entry: InboxEntry) -> None:
        raise OSError

    entries = await handle(handlers, inbox, body(1), body(2), on_dead_letter=report)

    assert [entry.state for entry in entries] == ["dead", "dead"]
    assert caplog.text.count("on_dead_letter failed: OSError") == 2


async def test_an_on_dead_letter_that_hangs_does_not_stop_the_worker(handlers, inbox, caplog):
    """It has as much time as a handler."""
    handlers.add("rejects", Reject("no"))

    async def hang(entry: InboxEntry) -> None:
        await asyncio.get_running_loop().create_future()

    options = {"concurrency": 1, "handler_timeout": 0.01, "on_dead_letter": hang}
    entries = await handle(handlers, inbox, body(1), body(2), body(3), **options)

    assert [entry.state for entry in entries] == ["dead"] * 3
    assert caplog.text.count("on_dead_letter failed: TimeoutError") == 3


async def test_a_purged_dead_letter_is_not_reported(handlers, inbox):
    """``on_dead_letter`` is not called if the entry is gone."""
    handlers.add("rejects", Reject("no"))
    reported: list[InboxEntry] = []

    async def report(entry: InboxEntry) -> None:
        reported.append(entry)

    async def gone(id: object) -> None: ...

    inbox.get = gone
    await handle(handlers, inbox, body(), on_dead_letter=report)

    assert reported == []


# --- crashes ----------------------------------------------------------------------------------------------


async def crash(inbox: MemoryInbox, *, times: int) -> None:
    """Lose a lease *times* times, as if the process had crashed."""
    for _ in range(times):
        assert await inbox.claim(1, lease=60)
        await inbox.__aenter__()


async def test_a_delivery_is_dead_after_four_crashes(handlers, inbox):
    """It is neither parsed nor handled again."""
    handlers.add("runs")
    await inbox.append(Delivery(body()))
    await crash(inbox, times=4)

    (entry,) = await handle(handlers, inbox)

    assert (handlers.ran, entry.state, entry.reason) == ([], "dead", "4 processes crashed while handling it")


async def test_a_delivery_runs_in_isolation_after_two_crashes(handlers, inbox):
    """Running handlers end first, and no others start, so that a third crash interrupts nothing else."""
    running: set[int] = set()
    together: list[int] = []

    @handlers.router.on(TextFinished)
    async def handler(event: TextFinished) -> None:
        running.add(event.text.id)
        if 1 in running:
            together.append(len(running))
        # Far more iterations of the event loop than a claim takes.
        for _ in range(100):
            await asyncio.sleep(0)
        running.discard(event.text.id)

    await inbox.append(Delivery(body(1)))
    await crash(inbox, times=2)
    for number in range(2, 9):
        await inbox.append(Delivery(body(number)))

    entries = await handle(handlers, inbox)

    assert ({entry.state for entry in entries}, together) == ({"done"}, [1])


async def test_a_delivery_that_waits_for_isolation_is_released_by_a_stop(handlers, inbox):
    """No attempt and no crash is counted."""
    handlers.add_waiting("waits")
    await inbox.append(Delivery(body(1)))
    suspect = await inbox.append(Delivery(body(2)))
    inbox._rows[suspect.id].crashes = 2
    async with make_receiver(handlers, inbox, shutdown_timeout=0.0):
        await until(lambda: inbox._rows[suspect.id].state == "leased")

    entries = [entry async for entry in inbox.entries()]
    assert ([entry.state for entry in entries], entries[1].crashes, handlers.ran) == (["ready", "ready"], 2, ["waits"])


# --- stopping ---------------------------------------------------------------------------------------------


async def test_a_stop_waits_for_running_handlers(handlers, inbox):
    """A handler that ends within the shutdown timeout is not cancelled."""
    handlers.add_waiting("waits")
    async with make_receiver(handlers, inbox) as receiver:
        await receiver.receive(postback(body()))
        await handlers.started.wait()
        asyncio.get_running_loop().call_soon(handlers.proceed.set)

    assert [entry.state async for entry in inbox.entries()] == ["done"]


async def test_a_delivery_is_released_after_the_shutdown_timeout(handlers, inbox):
    """No attempt is counted, and handlers that succeeded are not run again."""
    handlers.add("succeeds")
    handlers.add_waiting("waits")
    async with make_receiver(handlers, inbox, shutdown_timeout=0.0) as receiver:
        await receiver.receive(postback(body()))
        await handlers.started.wait()
    (entry,) = [entry async for entry in inbox.entries()]
    handlers.proceed.set()

    await handle(handlers, inbox)

    assert (entry.state, entry.attempt, handlers.ran) == ("ready", 1, ["succeeds", "waits", "waits"])


async def test_leases_claimed_during_a_stop_are_released(handlers):
    """A claim in progress is awaited."""
    handlers.add("runs")
    inbox = SlowInbox()
    await inbox.append(Delivery(body()))
    receiver = make_receiver(handlers, inbox)
    async with receiver:
        await inbox.claiming.wait()
        asyncio.get_running_loop().call_soon(inbox.proceed.set)

    assert ([entry.state async for entry in inbox.entries()], handlers.ran) == (["ready"], [])


async def test_a_cancelled_stop_only_skips_the_shutdown_timeout(handlers, tmp_path):
    """Deliveries are released, with no attempt and no crash counted, and the file is closed."""
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


async def test_each_lease_is_released_although_another_release_fails(handlers):
    """Leases that a claim returns during a stop are released one by one."""
    handlers.add("runs")
    inbox = FailingRelease()
    for number in (1, 2):
        await inbox.append(Delivery(body(number)))
    async with make_receiver(handlers, inbox):
        await inbox.claiming.wait()
        asyncio.get_running_loop().call_soon(inbox.proceed.set)

    assert [entry.state async for entry in inbox.entries()] == ["leased", "ready"]


class SlowInbox(MemoryInbox):
    """An inbox whose claims wait for ``proceed``."""

    def __init__(self) -> None:
        super().__init__()
        self.claiming, self.proceed = asyncio.Event(), asyncio.Event()

    async def claim(self, limit: int, *, lease: float) -> list[Lease]:
        self.claiming.set()
        await self.proceed.wait()
        return await super().claim(limit, lease=lease)


class FailingRelease(SlowInbox):
    """An inbox that cannot release its first delivery."""

    async def release(self, lease: Lease, *, completed: frozenset[str] = frozenset()) -> bool:
        if lease.id == 1:
            raise InboxError("no space")
        return await super().release(lease, completed=completed)


async def test_a_receiver_may_be_restarted(handlers, inbox):
    """As in tests that start an application twice."""
    handlers.add("runs")
    for number in (1, 2):
        await handle(handlers, inbox, body(number))

    assert handlers.ran == ["runs", "runs"]


@pytest.mark.parametrize("make_inbox", [MemoryInbox, lambda: SqliteInbox("inbox.db")])
def test_a_receiver_may_be_started_in_another_event_loop(handlers, make_inbox, tmp_path, monkeypatch):
    """As in tests that use one event loop each."""
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


# --- inbox failures ----------------------------------------------------------------------------------


class FailingInbox(MemoryInbox):
    """An inbox whose operations fail a given number of times."""

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
def short_retry_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry settle operations quickly."""
    monkeypatch.setattr(worker, "_RETRY_INTERVAL_SECONDS", 0.01)


@pytest.mark.parametrize("error", [InboxError("no space"), OSError("disk /secret")])
async def test_a_postback_that_cannot_be_stored_gets_503(handlers, error, caplog):
    """With Retry-After; the receiver is unhealthy until a postback has been stored."""
    handlers.add("runs")
    inbox = FailingInbox(error, append=1)
    async with make_receiver(handlers, inbox) as receiver:
        refused = await receiver.receive(postback(body()))
        healthy = (await receiver.health()).healthy
        stored = await receiver.receive(postback(body()))
        await receiver.idle(timeout=DEADLINE)
        stats = await receiver.stats()

    assert (refused, healthy, stored) == (Reply(503, (("Retry-After", "5"),)), False, Reply(204))
    assert (stats.refused, "/secret" in caplog.text) == ({"storage": 1}, False)


async def test_a_claim_that_fails_is_logged_once_and_makes_the_receiver_unready(handlers, caplog):
    """However often it is repeated with the same cause; the recovery is logged too."""
    handlers.add("runs")
    inbox = FailingInbox(InboxError("no such table"), claim=10**9, wait=10**9)
    async with make_receiver(handlers, inbox) as receiver:
        await until(lambda: inbox.times["claim"] < 10**9 - 3)
        unready = await receiver.health()
        inbox.times["claim"] = 0
        await until(lambda: "again" in caplog.text)
        inbox.times["wait"] = 0
        await until(lambda: receiver._intake.can_accept)
        ready = await receiver.health()

    assert (unready.ready, unready.reasons, ready.ready) == (False, ("the inbox cannot be written to",), True)
    assert [record.getMessage() for record in caplog.records] == [
        "cannot claim deliveries, retrying in 0.01 s: no such table",
        "deliveries can be claimed again",
    ]


async def test_a_wait_that_fails_makes_the_receiver_unready_until_the_next_claim(handlers):
    """The inbox has reported a failure, and the claim finds out whether it has passed."""
    handlers.add("runs")
    inbox = FailingInbox(InboxError("consumer deleted"), wait=1)
    async with make_receiver(handlers, inbox) as receiver:
        await until(lambda: not receiver._intake.can_accept)
        await until(lambda: receiver._intake.can_accept)


async def test_nothing_is_claimed_while_an_ack_fails(handlers):
    """Handlers whose ack is not stored would run again."""
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


async def test_leases_claimed_while_an_ack_fails_are_released(handlers):
    """They start once the inbox accepts writes again."""
    handlers.add("runs")
    inbox = AckFailingDuringClaim()
    for number in (1, 2):
        await inbox.append(Delivery(body(number)))
    async with make_receiver(handlers, inbox, concurrency=1) as receiver:
        await until(lambda: inbox.released)
        ran = list(handlers.ran)
        inbox.may_write.set()
        await receiver.idle(timeout=DEADLINE)

    assert (ran, handlers.ran, inbox.released) == (["runs"], ["runs", "runs"], [2])


class AckFailingDuringClaim(MemoryInbox):
    """An inbox whose first ack fails during the next claim."""

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
async def test_the_worker_survives_a_failing_inbox(handlers, operation):
    """It retries after an interval."""
    handlers.add("runs")
    inbox = FailingInbox(OSError("disk"), **{operation: 2})
    async with make_receiver(handlers, inbox) as receiver:
        await until(lambda: inbox.times[operation] < 2)
        await receiver.receive(postback(body()))
        await receiver.idle(timeout=DEADLINE)

    assert handlers.ran == ["runs"]


async def test_a_failed_claim_is_retried_after_the_interval_that_is_logged(handlers, caplog):
    """The worker does not wait for new deliveries before."""
    handlers.add("runs")
    inbox = NeverNotifying(InboxError("no connection"), claim=2)
    await inbox.append(Delivery(body()))
    async with make_receiver(handlers, inbox) as receiver:
        await receiver.idle(timeout=DEADLINE)

    assert (handlers.ran, inbox.times["claim"] < 0) == (["runs"], True)
    assert caplog.text.count("cannot claim deliveries, retrying in 0.01 s: no connection") == 1


class NeverNotifying(FailingInbox):
    """An inbox on a server that cannot notify its clients."""

    async def wait(self, timeout: float) -> None:
        await asyncio.sleep(timeout)


async def test_a_claim_that_fails_during_a_stop_is_ignored(handlers):
    """There is nothing to release."""
    handlers.add("runs")
    inbox = SlowFailingInbox()
    async with make_receiver(handlers, inbox):
        await inbox.claiming.wait()
        asyncio.get_running_loop().call_soon(inbox.proceed.set)

    assert handlers.ran == []


class SlowFailingInbox(SlowInbox):
    """An inbox whose claims wait and then fail."""

    async def claim(self, limit: int, *, lease: float) -> list[Lease]:
        await super().claim(limit, lease=lease)
        raise InboxError("no space")


# --- leases -----------------------------------------------------------------------------------------------


LEASE_SECONDS = 0.03


@pytest.fixture
async def start_worker(handlers: Handlers) -> AsyncIterator[Callable[[MemoryInbox], Worker]]:
    """Return a function that starts workers with short leases; by default, claims take no time on their clock."""
    workers: list[Worker] = []

    def start(inbox: MemoryInbox, monotonic: Callable[[], float] = lambda: 0.0) -> Worker:
        new_worker = Worker(
            inbox=inbox,
            router=handlers.router,
            concurrency=2,
            handler_timeout=None,
            retry=IMMEDIATE,
            shutdown_timeout=0.0,
            known_sources=KnownSources(AllowList("known_subscriptions", None), AllowList("known_webhooks", None)),
            on_dead_letter=None,
            lease_seconds=LEASE_SECONDS,
        )
        workers.append(new_worker)
        new_worker.start()
        new_worker._work.clock = Clock(monotonic)
        return new_worker

    yield start
    for new_worker in workers:
        await new_worker.stop(StopProgress())


async def test_leases_are_extended_while_handlers_run(handlers, start_worker):
    """At each third of their duration, so that a slow handler does not count as a crash."""
    handlers.add_waiting("waits")
    inbox = ThirdsInbox()
    await inbox.append(Delivery(body()))
    start_worker(inbox)
    await until(lambda: inbox.thirds >= 4)
    handlers.proceed.set()
    await until(lambda: inbox._rows[1].state == "done")

    assert (handlers.ran, inbox._rows[1].crashes) == (["waits"], 0)


class ThirdsInbox(FailingInbox):
    """An inbox in whose time each call of `extend` comes after a third of the lease, however busy the machine is."""

    def __init__(self, error: Exception | None = None, **times: int) -> None:
        super().__init__(error or InboxError("no space"), **times)
        self.thirds = 0
        self.extended: list[int | str] = []
        self._clock = Clock(monotonic=lambda: self.thirds * LEASE_SECONDS / 3)

    async def extend(self, lease: Lease, seconds: float) -> bool:
        self.thirds += 1
        self.extended.append(lease.id)
        return await super().extend(lease, seconds)


async def test_leases_are_extended_after_a_third_of_their_duration(inbox, monkeypatch):
    """So that two further attempts remain if the inbox does not respond."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            raise asyncio.CancelledError

    monkeypatch.setattr(asyncio, "sleep", sleep)

    with pytest.raises(asyncio.CancelledError):
        await WorkInProgress().renew_leases(inbox, 30.0)
    assert slept == [10.0, 10.0, 10.0]


async def test_the_lease_of_a_delivery_that_waits_for_isolation_is_extended(handlers, start_worker):
    """Otherwise another worker would claim it, and its wait would count as a crash."""
    handlers.add_waiting("waits")
    inbox = ThirdsInbox()
    await inbox.append(Delivery(body(1)))
    suspect = await inbox.append(Delivery(body(2)))
    inbox._rows[suspect.id].crashes = 2
    start_worker(inbox)
    await until(lambda: inbox.extended.count(suspect.id) >= 2)
    handlers.proceed.set()
    await until(lambda: inbox._rows[suspect.id].state == "done")

    assert inbox._rows[suspect.id].crashes == 2


async def test_a_lost_lease_is_logged(handlers, start_worker, caplog):
    """Its handler finishes, but cannot be acked: another worker has the lease."""
    handlers.add_waiting("waits")
    inbox = LosingInbox()
    await inbox.append(Delivery(body()))
    start_worker(inbox)
    await until(lambda: "lost the lease of delivery 1" in caplog.text)
    handlers.proceed.set()
    await until(lambda: "cannot ack delivery 1: its lease was lost" in caplog.text)

    assert inbox._rows[1].state == "leased"


class LosingInbox(MemoryInbox):
    """An inbox in which another worker has each lease."""

    async def extend(self, lease: Lease, seconds: float) -> bool:
        return False

    async def ack(self, lease: Lease, *, event_key: str = "") -> bool:
        return False

    async def claim(self, limit: int, *, lease: float) -> list[Lease]:
        return await super().claim(limit, lease=60.0)


async def test_a_lease_that_is_settled_during_its_extension_was_not_lost(handlers, start_worker, caplog):
    """No warning is logged."""
    handlers.add_waiting("waits")
    inbox = SlowExtend()
    await inbox.append(Delivery(body()))
    start_worker(inbox)
    await inbox.extending.wait()
    handlers.proceed.set()
    await until(lambda: inbox._rows[1].state == "done")
    inbox.proceed.set()
    await until(lambda: inbox.extended)

    assert caplog.records == []


class SlowExtend(MemoryInbox):
    """An inbox whose extensions wait for ``proceed``."""

    def __init__(self) -> None:
        super().__init__()
        self.extending, self.proceed = asyncio.Event(), asyncio.Event()
        self.extended = False

    async def extend(self, lease: Lease, seconds: float) -> bool:
        self.extending.set()
        await self.proceed.wait()
        self.extended = True
        return await super().extend(lease, seconds)

    async def claim(self, limit: int, *, lease: float) -> list[Lease]:
        return await super().claim(limit, lease=60.0)


async def test_leases_are_extended_at_once(handlers, start_worker):
    """A call that waits for an inbox that does not respond does not keep other leases from being extended."""
    handlers.add_waiting("waits")
    inbox = UnresponsiveInbox()
    await inbox.append_many([Delivery(body(number)) for number in (1, 2)])
    start_worker(inbox)

    await until(lambda: inbox.extending == {1, 2})
    inbox.proceed.set()
    handlers.proceed.set()
    await until(lambda: [row.state for row in inbox._rows.values()] == ["done"] * 2)


class UnresponsiveInbox(MemoryInbox):
    """An inbox whose extensions get no response until ``proceed``; its leases are long."""

    def __init__(self) -> None:
        super().__init__()
        self.extending: set[int | str] = set()
        self.proceed = asyncio.Event()

    async def extend(self, lease: Lease, seconds: float) -> bool:
        self.extending.add(lease.id)
        await self.proceed.wait()
        return await super().extend(lease, seconds)

    async def claim(self, limit: int, *, lease: float) -> list[Lease]:
        return await super().claim(limit, lease=60.0)


async def test_a_failed_extension_is_retried(handlers, start_worker, caplog):
    """Two thirds of the lease are left."""
    handlers.add_waiting("waits")
    inbox = ThirdsInbox(InboxError("no space"), extend=1)
    await inbox.append(Delivery(body()))
    start_worker(inbox)
    await until(lambda: "cannot extend the lease of delivery 1, retrying in 0.01 s: no space" in caplog.text)
    await until(lambda: inbox.thirds >= 4)
    handlers.proceed.set()
    await until(lambda: inbox._rows[1].state == "done")

    assert inbox._rows[1].crashes == 0
    assert "lost the lease" not in caplog.text


async def test_leases_are_extended_after_a_slow_claim(handlers, start_worker):
    """Otherwise, they could end before the first extension."""
    inbox = SlowClaims(LEASE_SECONDS / 2)
    await inbox.append(Delivery(body()))

    @handlers.router.on(TextFinished)
    async def handle(event: TextFinished) -> None:
        inbox.calls.append("handle")

    start_worker(inbox, inbox.time)
    await until(lambda: inbox._rows[1].state == "done")

    assert inbox.calls[:3] == ["claim", "extend", "handle"]


async def test_a_delivery_whose_lease_was_lost_during_the_claim_is_not_handled(handlers, start_worker, caplog):
    """Another worker has claimed it, and may have settled it."""
    inbox = SlowClaims(LEASE_SECONDS * 2, loses=True)
    await inbox.append(Delivery(body()))
    handlers.add("handles")
    start_worker(inbox, inbox.time)
    await until(lambda: "release" in inbox.calls)

    assert handlers.ran == []
    assert inbox.calls == ["claim", "extend", "release"]
    assert "not handling delivery 1: its claim took too long" in caplog.text


@pytest.mark.parametrize("share", [2.0, 0.8], ids=["ended", "about to end"])
async def test_a_lease_that_cannot_be_extended_after_a_slow_claim_is_released(handlers, start_worker, share):
    """It does not count as a crash, and the next claim returns it."""
    inbox = SlowClaims(LEASE_SECONDS * share, InboxError("no space"), extend=1)
    await inbox.append(Delivery(body()))
    handlers.add("handles")
    start_worker(inbox, inbox.time)
    await until(lambda: inbox._rows[1].state == "done")

    assert (handlers.ran, inbox._rows[1].crashes) == (["handles"], 0)
    assert inbox.calls == ["claim", "extend", "release", "claim"]


class SlowClaims(FailingInbox):
    """
    An inbox and a clock; the first claim takes some seconds.

    Args:
        seconds: The duration of the first claim.
        error: The error of calls that fail, *times* by name.
        loses: Whether another worker claims each delivery meanwhile.
    """

    def __init__(self, seconds: float, error: Exception | None = None, *, loses: bool = False, **times: int) -> None:
        super().__init__(error or InboxError("no space"), **times)
        self._seconds, self._loses, self._now = seconds, loses, 0.0
        self.calls: list[str] = []
        self._clock = Clock(monotonic=self.time)

    def time(self) -> float:
        return self._now

    async def claim(self, limit: int, *, lease: float) -> list[Lease]:
        leases = await super().claim(limit, lease=lease)
        if leases:
            self.calls.append("claim")
            self._now, self._seconds = self._now + self._seconds, 0.0
            if self._loses:
                await super().claim(limit, lease=60.0)
        return leases

    async def extend(self, lease: Lease, seconds: float) -> bool:
        self.calls.append("extend")
        return await super().extend(lease, seconds)

    async def release(self, lease: Lease, *, completed: frozenset[str] = frozenset()) -> bool:
        self.calls.append("release")
        return await super().release(lease, completed=completed)


async def test_a_worker_may_claim_a_delivery_again_whose_handler_still_runs(handlers, start_worker):
    """Its lease has expired; neither handler fails because of the other one."""
    handlers.add_waiting("waits")
    inbox = LosingInbox()
    await inbox.append(Delivery(body()))
    late_worker = start_worker(inbox)
    await until(lambda: handlers.ran == ["waits"])
    inbox._update(inbox._rows[1], due_at=0.0)
    inbox._work_added.set()
    await until(lambda: handlers.ran == ["waits", "waits"])
    handlers.proceed.set()
    await until(lambda: not late_worker.is_busy)

    assert late_worker.counts["failed"] == 0


# --- administration -------------------------------------------------------------------------------------


async def test_the_stats_count_outcomes(handlers, inbox):
    """They contain the inbox's and the receiver's counts."""
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


async def test_each_failed_attempt_is_counted(handlers, inbox):
    """A delivery that succeeds in the end is counted as handled."""
    handlers.add("fails", ValueError(), times=2)
    async with make_receiver(handlers, inbox) as receiver:
        await receiver.receive(postback(body()))
        await receiver.idle(timeout=DEADLINE)
        stats = await receiver.stats()

    assert (stats.failed, stats.handled, stats.dead) == (2, 1, 0)


async def test_idle_times_out(handlers, inbox):
    """A test should fail instead of hanging."""
    handlers.add_waiting("waits")
    async with make_receiver(handlers, inbox, shutdown_timeout=0.0) as receiver:
        await receiver.receive(postback(body()))
        with pytest.raises(TimeoutError):
            await receiver.idle(timeout=0.01)


def test_event_keys_are_strings():
    """As inboxes store them."""
    event = UnknownNotification(payload={})

    assert event_key(event) == f"unknown:{event.key[1]}"


async def test_worker_settings_require_an_inbox(handlers):
    """An argument that has no effect is an error."""
    handlers.add("runs")
    needing = {"concurrency": 4, "retry": IMMEDIATE, "shutdown_timeout": 1.0, "on_dead_letter": until}
    for name, value in needing.items():
        with pytest.raises(TypeError, match=name):
            Receiver(handlers.router, tokens=None, **{name: value})


@pytest.mark.parametrize("name", ["concurrency", "shutdown_timeout"])
def test_worker_settings_must_not_be_negative(handlers, inbox, name):
    """The constructor raises."""
    handlers.add("runs")
    with pytest.raises(ValueError, match=name):
        Receiver(handlers.router, tokens=None, inbox=inbox, **{name: -1})


async def until(condition: Callable[[], bool]) -> None:
    """Poll until a condition is true."""
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110  # no event signals the condition
            await asyncio.sleep(0.001)
