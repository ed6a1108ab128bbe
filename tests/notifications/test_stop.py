"""A receiver stops in limited time, whatever hangs, and logs what it leaves behind."""

import asyncio
import logging
import secrets
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import pytest
from engines.nats import NatsServer, running_nats
from engines.postgres import PostgresServer, running_postgres
from notifications.inbox.faulty_inbox import FaultyInbox

from callfire_async import InboxError
from callfire_async.notifications import (
    Delivery,
    MemoryInbox,
    Notification,
    Observer,
    Postback,
    Receiver,
    Reply,
    RequestRecord,
    Router,
    SqliteInbox,
    TextFinished,
    intake,
    observers,
    worker,
)
from callfire_async.notifications.inbox import Inbox, _cancellation
from callfire_async.notifications.inbox.jetstream import JetStreamInbox
from callfire_async.notifications.inbox.postgres import PostgresInbox
from callfire_async.notifications.inbox.spool import SpoolingInbox, _circuit_breaker

BODY = b'{"TextSent": {"SubscriptionId": 7, "Text": {"@id": 1}}}'
# A stop ends in a fraction of this time, or not at all.
WALL_SECONDS = 60.0
# The constant in the docstring of `Receiver`.
DOCUMENTED_SECONDS = 10.0

LIMITS = [
    (worker, "SETTLE_SECONDS"),
    (intake, "CLOSE_SECONDS"),
    (observers, "EXIT_SECONDS"),
    (observers, "_MAX_EXIT_SECONDS"),
    (_cancellation, "CANCEL_SECONDS"),
    (_circuit_breaker, "CLOSE_TIMEOUT_SECONDS"),
]


@pytest.fixture
def short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the limits of the stop."""
    for module, name in LIMITS:
        monkeypatch.setattr(module, name, 0.1)
    monkeypatch.setattr(worker, "_RETRY_INTERVAL_SECONDS", 0.01)


class Stuck:
    """Coroutine functions that do not end when they are cancelled, until the test has ended."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.ended = asyncio.Event()
        self._tasks: list[asyncio.Task[object]] = []

    async def __call__(self, *_: object, **__: object) -> None:
        self._tasks.append(asyncio.current_task())
        self.started.set()
        while not self.ended.is_set():
            with suppress(asyncio.CancelledError):
                await self.ended.wait()

    async def end(self) -> None:
        self.ended.set()
        if self._tasks:
            await asyncio.wait(self._tasks)


@pytest.fixture
async def stuck() -> AsyncIterator[Stuck]:
    stuck = Stuck()
    yield stuck
    await stuck.end()


async def hang(*_: object, **__: object) -> None:
    await asyncio.get_running_loop().create_future()


def make_router(handler: Callable[..., object], name: str = "handler") -> Router:
    router = Router()

    async def function(event: Notification) -> None:
        await handler(event)

    router.on(TextFinished, name=name)(function)
    return router


async def succeed(event: Notification) -> None:
    """Handle an event."""


def postback(body: bytes = BODY) -> Postback:
    return Postback("POST", None, {"Content-Type": "application/json"}, body)


@asynccontextmanager
async def stopped_in_time(receiver: Receiver) -> AsyncIterator[Receiver]:
    """Start a receiver; fail if it does not stop."""
    await receiver.__aenter__()
    try:
        yield receiver
    finally:
        async with asyncio.timeout(WALL_SECONDS):
            await receiver.__aexit__(None, None, None)


def unfinished(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the lines that list what a stop has left behind."""
    prefix = "the receiver stopped without finishing: "
    return [text.removeprefix(prefix) for text in caplog.messages if text.startswith(prefix)]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(WALL_SECONDS):
        while not condition():  # noqa: ASYNC110  # there is no event for it
            await asyncio.sleep(0.005)


# --- limits -----------------------------------------------------------------------------------------------


def test_the_documented_constant_covers_all_limits():
    """The limits of the parts that follow each other add up to less."""
    steps = observers.EXIT_SECONDS + worker.SETTLE_SECONDS + intake.CLOSE_SECONDS + 3 * _cancellation.CANCEL_SECONDS

    assert f"within {DOCUMENTED_SECONDS:g} more seconds" in Receiver.__doc__
    assert steps < DOCUMENTED_SECONDS
    assert _circuit_breaker.CLOSE_TIMEOUT_SECONDS + 2 * _cancellation.CANCEL_SECONDS < intake.CLOSE_SECONDS


async def test_a_stop_without_trouble_logs_nothing(caplog):
    """Everything is settled, stored and closed."""
    caplog.set_level(logging.WARNING)
    async with stopped_in_time(Receiver(make_router(succeed), tokens=None, inbox=MemoryInbox())) as receiver:
        await receiver.receive(postback())
        await receiver.idle(WALL_SECONDS)

    assert caplog.messages == []


# --- an inbox that is away ----------------------------------------------------------------------------------


@pytest.fixture
def faulty() -> Iterator[FaultyInbox]:
    inbox = FaultyInbox(MemoryInbox())
    yield inbox
    inbox.resumed.set()


def make_inbox(faulty: FaultyInbox, *, spooled: bool) -> Inbox:
    if not spooled:
        return faulty
    return SpoolingInbox(faulty, MemoryInbox(), timeout=0.1, drain_timeout=0.1, recovery_timeout=3600.0)


@pytest.mark.usefixtures("short_limits")
def test_an_event_loop_ends_although_its_receiver_was_not_stopped():
    """`asyncio.run` cancels all tasks and waits for them: none may retry for ever."""

    async def serve() -> None:
        handling, faulty = asyncio.Event(), FaultyInbox(MemoryInbox())

        async def handle(event: Notification) -> None:
            handling.set()
            await hang()

        receiver = await Receiver(make_router(handle), tokens=None, inbox=faulty).__aenter__()
        await receiver.receive(postback())
        await handling.wait()
        faulty.is_unavailable = True

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    thread.join(WALL_SECONDS)

    assert not thread.is_alive()


@pytest.mark.usefixtures("short_limits")
@pytest.mark.parametrize("spooled", [False, True])
@pytest.mark.parametrize("trouble", ["is_unavailable", "is_hanging", "loses_responses"])
@pytest.mark.parametrize("moment", ["handling", "settling"])
async def test_a_stop_ends_while_the_inbox_is_away(faulty, caplog, spooled, trouble, moment):
    """The delivery's lease is left to expire, whether its handler runs or its outcome cannot be stored."""
    handling, proceed = asyncio.Event(), asyncio.Event()

    async def handle(event: Notification) -> None:
        handling.set()
        await proceed.wait()

    inbox = make_inbox(faulty, spooled=spooled)
    receiver = Receiver(make_router(handle), tokens=None, inbox=inbox, shutdown_timeout=0.05)
    async with stopped_in_time(receiver):
        assert await receiver.receive(postback()) == Reply(204)
        await handling.wait()
        setattr(faulty, trouble, True)
        if moment == "settling":
            proceed.set()
            await until(lambda: faulty.calls.count("ack"))

    (line,) = unfinished(caplog)
    assert "leases that expire on their own: 1" in line


@pytest.mark.usefixtures("short_limits")
async def test_the_line_has_the_cause(faulty, caplog):
    """It is the message of the last attempt to settle a delivery."""
    handling = asyncio.Event()

    async def handle(event: Notification) -> None:
        handling.set()
        await hang()

    receiver = Receiver(make_router(handle), tokens=None, inbox=faulty, shutdown_timeout=0.0)
    async with stopped_in_time(receiver):
        await receiver.receive(postback())
        await handling.wait()
        faulty.is_unavailable = True

    (line,) = unfinished(caplog)
    leases, inbox = line.split("; ")
    assert leases == "leases that expire on their own: 1 (the server is unavailable)"
    assert inbox == "the inbox, which failed to close (the server is unavailable)"


async def test_an_inbox_that_comes_back_during_the_stop_gets_the_outcome(faulty, caplog, monkeypatch):
    """The last attempt follows the shutdown timeout, even if the one before has failed just now."""
    monkeypatch.setattr(worker, "_RETRY_INTERVAL_SECONDS", 0.01)
    receiver = Receiver(make_router(succeed), tokens=None, inbox=faulty, shutdown_timeout=0.2)
    monkey = receiver._intake._worker
    async with stopped_in_time(receiver):
        faulty.is_unavailable = False
        original = faulty.inner.ack
        failures = []

        async def fail_until_the_last(*arguments: object, **options: object) -> bool:
            if not monkey._giving_up.is_set():
                failures.append(1)
                raise InboxError("no space")
            return await original(*arguments, **options)

        faulty.inner.ack = fail_until_the_last
        await receiver.receive(postback())
        await until(lambda: failures)

    assert unfinished(caplog) == []
    assert [entry.state async for entry in faulty.inner.entries()] == ["done"]


@pytest.mark.usefixtures("short_limits")
@pytest.mark.parametrize("ignores_cancellation", [False, True])
@pytest.mark.parametrize("operation", ["claim", "wait", "extend", "get", "ack"])
async def test_an_operation_that_hangs_does_not_delay_a_stop(
    caplog, monkeypatch, operation, stuck, ignores_cancellation
):
    """Whether it ignores its cancellation or not. An interrupted call whose effect is unknown is listed."""
    monkeypatch.setattr(worker, "_MIN_LEASE_SECONDS", 0.03)
    called = asyncio.Event()

    async def call(*_: object, **__: object) -> None:
        called.set()
        await (stuck if ignores_cancellation else hang)()

    inbox = MemoryInbox()
    setattr(inbox, operation, call)
    receiver = Receiver(
        make_router({"extend": hang, "ack": succeed}.get(operation, _fail)),
        tokens=None,
        inbox=inbox,
        handler_timeout=None,
        shutdown_timeout=0.0,
        retry=worker.RetryPolicy(max_attempts=1),
        on_dead_letter=succeed,
    )
    async with stopped_in_time(receiver):
        if operation != "claim":
            await receiver.receive(postback())
        await called.wait()

    listed = {
        "ack": ["leases that expire on their own: 1"],
        "claim": ["calls that were interrupted: claim"],
        "get": [
            "functions still running, which may keep the process from exiting: on_dead_letter"
            if ignores_cancellation
            else "calls that were interrupted: on_dead_letter of delivery 1"
        ],
    }
    assert unfinished(caplog) == listed.get(operation, [])


async def _fail(event: Notification) -> None:
    raise ValueError


# --- appends ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("short_limits")
@pytest.mark.parametrize("ignores_cancellation", [False, True])
async def test_an_append_that_hangs_gets_503(caplog, stuck, ignores_cancellation):
    """It may have been stored, but 204 means that it is."""
    inbox = MemoryInbox()
    inbox.append = stuck if ignores_cancellation else hang
    receiver = Receiver(make_router(succeed), tokens=None, inbox=inbox, shutdown_timeout=0.0)
    refusals = Refusals()
    receiver.observe(refusals)
    async with stopped_in_time(receiver):
        *receiving, disconnected = [asyncio.create_task(receiver.receive(postback())) for _ in range(3)]
        await until(lambda: len(receiver._intake._storing) == 3)
        disconnected.cancel()

    assert [await reply for reply in receiving] == [Reply(503, (("Retry-After", "5"),))] * 2
    assert unfinished(caplog) == ["postbacks that were not stored in time and got 503: 3"]
    assert (await receiver.stats()).refused["storage"] == 2
    assert refusals.reasons == ["storage"] * 2


class Refusals(Observer):
    """Keeps why requests were refused."""

    def __init__(self) -> None:
        self.reasons: list[str | None] = []

    @contextmanager
    def request(self, record: RequestRecord) -> Iterator[None]:
        yield
        self.reasons.append(record.refused)


async def test_an_append_that_ends_during_a_stop_gets_204():
    """The stop waits for it."""
    appending, proceed = asyncio.Event(), asyncio.Event()

    class SlowInbox(MemoryInbox):
        async def append(self, delivery: Delivery):
            appending.set()
            await proceed.wait()
            return await super().append(delivery)

    receiver = Receiver(make_router(succeed), tokens=None, inbox=SlowInbox(), shutdown_timeout=0.0)
    async with stopped_in_time(receiver):
        receiving = asyncio.create_task(receiver.receive(postback()))
        await appending.wait()
        asyncio.get_running_loop().call_later(0.05, proceed.set)

    assert await receiving == Reply(204)


async def test_an_append_whose_driver_raises_cancelled_error_gets_503():
    """The request is not cancelled."""

    class CancellingInbox(MemoryInbox):
        async def append(self, delivery: Delivery):
            raise asyncio.CancelledError

    async with stopped_in_time(Receiver(make_router(succeed), tokens=None, inbox=CancellingInbox())) as receiver:
        assert (await receiver.receive(postback())).status == 503


# --- functions of the user ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("short_limits")
@pytest.mark.parametrize("place", ["handler", "known_subscriptions", "on_dead_letter"])
async def test_a_function_that_ignores_cancellation_is_left_running(caplog, stuck, place):
    """The line names it, because it may keep the process from exiting."""

    async def call(*_: object) -> None:
        await stuck()

    options = {} if place == "handler" else {place: call}
    handler = {"handler": stuck, "on_dead_letter": _fail}.get(place, succeed)
    receiver = Receiver(
        make_router(handler),
        tokens=None,
        inbox=MemoryInbox(),
        shutdown_timeout=0.0,
        retry=worker.RetryPolicy(max_attempts=1),
        **options,
    )
    async with stopped_in_time(receiver):
        await receiver.receive(postback())
        await stuck.started.wait()

    left = f"functions still running, which may keep the process from exiting: {place}"
    lease = "" if place == "on_dead_letter" else "leases that expire on their own: 1; "
    assert unfinished(caplog) == [lease + left]


@pytest.mark.usefixtures("short_limits")
async def test_a_receiver_can_start_again_while_a_handler_of_its_last_run_is_running(stuck):
    """What the last stop has left behind takes no slot and has no effect when it ends."""
    receiver = Receiver(
        make_router(stuck), tokens=None, inbox=MemoryInbox(), shutdown_timeout=0.0, concurrency=1, handler_timeout=None
    )
    async with stopped_in_time(receiver):
        await receiver.receive(postback())
        await stuck.started.wait()
    async with stopped_in_time(receiver):
        await stuck.end()
        await receiver.idle(WALL_SECONDS)

    assert (await receiver.stats()).inbox.done == 1


@pytest.mark.usefixtures("short_limits")
async def test_a_handler_that_a_stop_has_left_behind_does_not_raise_the_concurrency(stuck):
    """When it ends, the delivery is not among those of the current run."""
    running, peak = 0, 0

    async def handle(event: Notification) -> None:
        nonlocal running, peak
        if not stuck.started.is_set():
            await stuck()
            return
        running, peak = running + 1, max(peak, running + 1)
        for _ in range(50):
            await asyncio.sleep(0)
        running -= 1

    receiver = Receiver(
        make_router(handle), tokens=None, inbox=MemoryInbox(), shutdown_timeout=0.0, concurrency=1, handler_timeout=None
    )
    async with stopped_in_time(receiver):
        await receiver.receive(postback())
        await stuck.started.wait()
    async with stopped_in_time(receiver):
        await receiver.idle(WALL_SECONDS)
        await stuck.end()
        for number in (2, 3, 4):
            await receiver.receive(postback(BODY.replace(b'"@id": 1', b'"@id": %d' % number)))
        await receiver.idle(WALL_SECONDS)

    assert ((await receiver.stats()).inbox.done, peak) == (4, 1)


# --- observers ----------------------------------------------------------------------------------------------


class StuckObserver(Observer):
    """An observer whose lifespan exits when *function* returns."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        yield
        await self._function()


class RecordingObserver(Observer):
    """An observer with a task group around its lifespan."""

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[object]] = []
        self.has_exited = False

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup():
            self.tasks.append(asyncio.current_task())
            yield
        self.tasks.append(asyncio.current_task())
        self.has_exited = True


@pytest.mark.usefixtures("short_limits")
@pytest.mark.parametrize("has_inbox", [False, True])
async def test_observers_that_hang_do_not_delay_a_stop(caplog, stuck, has_inbox, monkeypatch):
    """The others exit, and the line names those that do not."""
    # Time enough for the others on a busy machine.
    for name in ("EXIT_SECONDS", "_MAX_EXIT_SECONDS"):
        monkeypatch.setattr(observers, name, 0.5)
    receiver = Receiver(make_router(succeed), tokens=None, inbox=MemoryInbox() if has_inbox else None)
    first, last = RecordingObserver(), RecordingObserver()
    for observer in (first, StuckObserver(stuck), StuckObserver(hang), last):
        receiver.observe(observer)
    async with stopped_in_time(receiver):
        pass

    assert unfinished(caplog) == ["observers that did not exit: StuckObserver, StuckObserver"]
    assert (first.has_exited, last.has_exited) == (True, True)


async def test_a_lifespan_is_entered_and_exited_in_one_task():
    """It may use task groups, even if the receiver is started and stopped by different tasks."""
    observer = RecordingObserver()
    receiver = Receiver(make_router(succeed), tokens=None)
    receiver.observe(observer)

    await asyncio.create_task(receiver.__aenter__())
    await asyncio.create_task(receiver.__aexit__(None, None, None))

    assert len(set(observer.tasks)) == 1


async def test_a_start_that_is_cancelled_ends_although_an_observer_hangs(caplog, stuck, monkeypatch):
    """Observers that were not started yet are left out."""
    monkeypatch.setattr(_cancellation, "CANCEL_SECONDS", 0.1)
    first, last = RecordingObserver(), RecordingObserver()

    class StuckAtStart(Observer):
        @asynccontextmanager
        async def lifespan(self) -> AsyncIterator[None]:
            await stuck()
            yield

    receiver = Receiver(make_router(succeed), tokens=None, inbox=MemoryInbox())
    for observer in (first, StuckAtStart(), last):
        receiver.observe(observer)
    starting = asyncio.create_task(receiver.__aenter__())
    await stuck.started.wait()
    starting.cancel()
    async with asyncio.timeout(WALL_SECONDS):
        await asyncio.wait([starting])

    assert (starting.cancelled(), first.has_exited, last.tasks) == (True, True, [])
    assert unfinished(caplog) == ["observers that did not exit: StuckAtStart"]


async def test_an_observer_may_be_slow_to_exit(caplog):
    """It has five seconds, of which the other parts wait only for some."""
    observer = StuckObserver(lambda: asyncio.sleep(2 * observers.EXIT_SECONDS))
    receiver = Receiver(make_router(succeed), tokens=None, inbox=MemoryInbox())
    receiver.observe(observer)
    async with stopped_in_time(receiver):
        pass

    assert unfinished(caplog) == []


# --- cancelled stops ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("cancellations", range(1, 8))
async def test_a_cancelled_stop_ends(faulty, stuck, cancellations):
    """However often it is cancelled, and although every part of it hangs."""
    handling = asyncio.Event()

    async def handle(event: Notification) -> None:
        handling.set()
        await hang()

    receiver = Receiver(make_router(handle), tokens=None, inbox=faulty, shutdown_timeout=3600.0)
    receiver.observe(StuckObserver(stuck))
    await receiver.__aenter__()
    await receiver.receive(postback())
    await handling.wait()
    faulty.is_hanging = True
    stopping = asyncio.create_task(receiver.__aexit__(None, None, None))
    for _ in range(cancellations):
        await asyncio.sleep(0.02)
        stopping.cancel()
    async with asyncio.timeout(WALL_SECONDS):
        await asyncio.wait([stopping])

    assert (stopping.cancelled(), receiver.is_running) == (True, False)


# --- inboxes that hang when they close ----------------------------------------------------------------------


@pytest.mark.usefixtures("short_limits")
@pytest.mark.parametrize("operation", ["__aenter__", "__aexit__"])
@pytest.mark.parametrize("ignores_cancellation", [False, True])
async def test_a_primary_that_hangs_while_it_opens_or_closes(tmp_path, caplog, stuck, operation, ignores_cancellation):
    """The spool is closed, and can be opened by the next process."""
    function = stuck if ignores_cancellation else hang
    primary = type("HangingInbox", (MemoryInbox,), {operation: lambda *arguments: function()})()
    spool = SqliteInbox(tmp_path / "spool.db")
    # A receiver waits longer by this time, although there is nothing to forward.
    inbox = SpoolingInbox(primary, spool, timeout=0.1, drain_timeout=WALL_SECONDS / 2)
    async with stopped_in_time(Receiver(make_router(succeed), tokens=None, inbox=inbox)):
        pass

    async with SqliteInbox(tmp_path / "spool.db", lock_timeout=0.0):
        pass
    assert unfinished(caplog) == []
    if operation == "__aexit__":
        assert "cannot close the primary inbox within 0.1 s, ignoring it" in caplog.text
    elif ignores_cancellation:
        assert "cannot close the primary inbox, which ignores cancellation" in caplog.text


@pytest.mark.usefixtures("short_limits")
@pytest.mark.parametrize("ignores_cancellation", [False, True])
async def test_an_inbox_that_hangs_while_it_closes(caplog, stuck, ignores_cancellation):
    """The line says so."""
    function = stuck if ignores_cancellation else hang
    inbox = type("HangingInbox", (MemoryInbox,), {"__aexit__": lambda *arguments: function()})()
    async with stopped_in_time(Receiver(make_router(succeed), tokens=None, inbox=inbox)):
        pass

    assert unfinished(caplog) == ["the inbox, which did not close within 0.1 s"]


async def test_a_faulty_inbox_raises_its_error():
    """An exception that is no `InboxError` is a programming error."""

    class FaultyInbox(MemoryInbox):
        async def __aexit__(self, *_: object) -> None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async with Receiver(make_router(succeed), tokens=None, inbox=FaultyInbox()):
            pass


@pytest.mark.parametrize("in_directory", [False, True])
async def test_a_disk_that_hangs(tmp_path, caplog, monkeypatch, in_directory):
    """The thread that waits for it is left running, and the file is unlocked once it has ended."""
    for module, name in LIMITS:
        monkeypatch.setattr(module, name, 0.1)
    working, proceed = threading.Event(), threading.Event()
    path = tmp_path / "inbox.db"
    inbox = SqliteInbox.in_directory(tmp_path) if in_directory else SqliteInbox(path)
    receiver = Receiver(make_router(succeed), tokens=None, inbox=inbox, shutdown_timeout=0.0)

    def wait_for_disk(_: object) -> None:
        working.set()
        proceed.wait(WALL_SECONDS)

    async with stopped_in_time(receiver):
        files = list(inbox._files.inboxes.values()) if in_directory else [inbox]
        path = files[0]._path
        job = files[0]._writer.submit(wait_for_disk)
        await asyncio.to_thread(working.wait)
    is_locked = not await is_free(path)
    proceed.set()
    async with asyncio.timeout(WALL_SECONDS):
        while not await is_free(path):  # noqa: ASYNC110  # the thread sets no event
            await asyncio.sleep(0.005)

    assert is_locked
    assert job.done()
    assert f"cannot close the inbox {path}: its disk does not respond; it stays locked until then" in caplog.text


async def is_free(path) -> bool:
    with suppress(InboxError):
        async with SqliteInbox(path, lock_timeout=0.0):
            return True
    return False


# --- servers that are away ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="module")
def own_nats() -> Iterator[NatsServer]:
    with running_nats() as server:
        yield server


@contextmanager
def frozen(server) -> Iterator[None]:
    server.freeze()
    try:
        yield
    finally:
        server.thaw()


@contextmanager
def down(server) -> Iterator[None]:
    """End a server; start it again afterwards."""
    getattr(server, "stop", getattr(server, "kill", None))()
    try:
        yield
    finally:
        server.start()
        getattr(server, "wait", lambda: None)()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of nats-py, which is not closed
@pytest.mark.usefixtures("collect_garbage")
@pytest.mark.parametrize("outage", [frozen, down])
@pytest.mark.parametrize("spooled", [False, True])
@pytest.mark.parametrize("engine", ["own_postgres", "own_nats"])
async def test_a_server_that_is_away_during_the_stop(request, caplog, engine, spooled, outage):
    """With handlers and appends in progress, and with the default timeouts of the inbox."""
    server = request.getfixturevalue(engine)
    name = f"test_{secrets.token_hex(8)}"
    if engine == "own_postgres":
        inbox = PostgresInbox(server.dsn(), schema=name)
    else:
        inbox = JetStreamInbox(server.url(), name=name)
    if spooled:
        inbox = SpoolingInbox(inbox, MemoryInbox(), drain_timeout=0.5)
    handling = asyncio.Event()

    async def handle(event: Notification) -> None:
        handling.set()
        await hang()

    receiver = Receiver(make_router(handle), tokens=None, inbox=inbox, shutdown_timeout=0.2)
    await receiver.__aenter__()
    assert await receiver.receive(postback()) == Reply(204)
    async with asyncio.timeout(WALL_SECONDS):
        await handling.wait()
    with outage(server):
        receiving = asyncio.create_task(receiver.receive(postback(BODY.replace(b"1", b"2"))))
        await until(lambda: receiver._intake._storing or receiving.done())
        started_at = asyncio.get_running_loop().time()
        async with asyncio.timeout(WALL_SECONDS):
            await receiver.__aexit__(None, None, None)
            seconds = asyncio.get_running_loop().time() - started_at
            reply = await receiving

    assert reply.status == (204 if spooled else 503)
    assert "leases that expire on their own: 1" in "".join(unfinished(caplog))
    # Generous: the machine may be busy.
    assert seconds < 2 * DOCUMENTED_SECONDS


# --- the whole process --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_second_interrupt_ends_the_process():
    """While the inbox, the observers and the handlers hang, and cancellation is not ignored."""
    script = textwrap.dedent(
        """
        import asyncio, os, signal
        from contextlib import asynccontextmanager
        from callfire_async.notifications import MemoryInbox, Observer, Postback, Receiver, Router, TextFinished

        router = Router()

        async def hang(*_, **__):
            await asyncio.get_running_loop().create_future()

        @router.on(TextFinished)
        async def handle(event):
            loop = asyncio.get_running_loop()
            loop.call_later(0.1, os.kill, os.getpid(), signal.SIGINT)
            loop.call_later(0.5, os.kill, os.getpid(), signal.SIGINT)
            await hang()

        class HangingObserver(Observer):
            @asynccontextmanager
            async def lifespan(self):
                yield
                await hang()

        async def main():
            inbox = MemoryInbox()
            receiver = Receiver(router, tokens=None, inbox=inbox, shutdown_timeout=3600)
            receiver.observe(HangingObserver())
            async with receiver:
                body = b'{"TextSent": {"SubscriptionId": 7, "Text": {"@id": 1}}}'
                await receiver.receive(Postback("POST", None, {"Content-Type": "application/json"}, body))
                inbox.ack = inbox.release = inbox.nack = MemoryInbox.__aexit__ = hang
                await hang()

        asyncio.run(main())
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=WALL_SECONDS
    )

    assert "KeyboardInterrupt" in done.stderr
    assert "the receiver stopped without finishing: " in done.stderr
