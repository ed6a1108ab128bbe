"""What observers get, and that they do not affect the receiver."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest

from callfire_async import InboxUnavailableError
from callfire_async.notifications import (
    AppendResult,
    AttemptRecord,
    CallFinished,
    Delivery,
    MemoryInbox,
    Observer,
    Postback,
    Receiver,
    Reply,
    RequestRecord,
    RetryPolicy,
    Router,
    TextFinished,
)

TOKEN = "0123456789abcdef"
DEADLINE = 60
VALID = b'{"TextSent": {"SubscriptionId": 1, "Text": {"@id": 42}}}'
FAILING = b'{"TextSent": {"SubscriptionId": 13, "Text": {"@id": 43}}}'
WHERE_FAILS = b'{"CallFinished": {"SubscriptionId": 1, "Call": {"@id": 44}}}'
UNMATCHED = b'{"CampaignStarted": {"Broadcast": {"@id": 45}}}'
ONE_ATTEMPT = RetryPolicy(max_attempts=1)


class RecordingObserver(Observer):
    """Keeps the records of requests, attempts and handler calls that have ended."""

    def __init__(self) -> None:
        self.requests: list[RequestRecord] = []
        self.attempts: list[AttemptRecord] = []
        self.calls: list[tuple[str, str | None]] = []
        self.attempts_of_calls: list[AttemptRecord] = []
        self.lifespans: list[str] = []

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        self.lifespans.append("started")
        yield
        self.lifespans.append("stopped")

    @contextmanager
    def request(self, record: RequestRecord) -> Iterator[None]:
        yield
        self.requests.append(record)

    @contextmanager
    def attempt(self, record: AttemptRecord) -> Iterator[None]:
        yield
        self.attempts.append(record)

    @contextmanager
    def handler(self, record: AttemptRecord, handler: str) -> Iterator[None]:
        self.attempts_of_calls.append(record)
        try:
            yield
        except Exception as error:
            self.calls.append((handler, type(error).__name__))
            raise
        self.calls.append((handler, None))


class FailingOnEntry(Observer):
    """Raises before its context is entered."""

    def request(self, record: RequestRecord):
        raise ValueError(record.method)

    attempt = request

    def lifespan(self):
        raise ValueError


class FailingOnExit(Observer):
    """Fails on exit, and suppresses an exception that it must not suppress."""

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        yield
        raise ValueError

    @contextmanager
    def request(self, record: RequestRecord) -> Iterator[None]:
        yield
        raise ValueError(record.method)

    @contextmanager
    def handler(self, record: AttemptRecord, handler: str) -> Iterator[None]:
        try:
            yield
        except ValueError:
            return


class FullInbox(MemoryInbox):
    """Stores nothing."""

    async def append(self, delivery: Delivery) -> AppendResult:
        raise InboxUnavailableError("the inbox is full")


@pytest.fixture
def router() -> Router:
    router = Router()

    @router.on(TextFinished, name="text")
    async def text(event: TextFinished) -> None:
        if event.subscription_id == 13:
            raise ValueError("secret words")

    @router.on(CallFinished, name="call", where=lambda event: event.call.nothing_of_the_kind)
    async def call(event: CallFinished) -> None:
        raise AssertionError("its where fails")

    return router


@pytest.fixture
def recorder() -> RecordingObserver:
    return RecordingObserver()


async def post(receiver: Receiver, *bodies: bytes, method: str = "POST", token: str = TOKEN) -> list[Reply]:
    return [await receiver.receive(Postback(method, token, {}, body)) for body in bodies]


async def test_a_request_is_recorded_with_its_result(router, recorder):
    """The reason of a rejection, the delivery, and whether it was a duplicate."""
    async with Receiver(router, tokens=TOKEN, inbox=MemoryInbox()) as receiver:
        receiver.observe(recorder)

        await post(receiver, VALID, VALID, b"")
        await post(receiver, VALID, token="wrong")
        await post(receiver, VALID, method="GET")

    recorded = [(r.method, r.reply.status, r.refused, r.appended) for r in recorder.requests]
    assert recorded == [
        ("POST", 204, None, AppendResult(1, duplicate=False)),
        ("POST", 204, None, AppendResult(1, duplicate=True)),
        ("POST", 400, "empty", None),
        ("POST", 404, "token", None),
        ("GET", 405, "method", None),
    ]
    assert [r.delivery and r.delivery.body for r in recorder.requests] == [
        VALID,
        VALID,
        None,
        None,
        None,
    ]


async def test_a_request_that_an_adapters_framework_rejects_is_recorded(router, recorder):
    """The reason is ``framework``; each is counted."""

    async def reject(body: bytes, accept: object) -> Reply:
        return Reply(401)

    receiver = Receiver(router, tokens=TOKEN)
    receiver.observe(recorder)
    async with receiver:
        for _ in range(2):
            await receiver.receive(Postback("POST", TOKEN, {}, VALID), around=reject)
        stats = await receiver.stats()

    assert [(each.reply, each.refused) for each in recorder.requests] == [(Reply(401), "framework")] * 2
    assert (stats.refused, recorder.attempts) == ({"framework": 2}, [])


async def test_a_request_that_cannot_be_stored_is_recorded(router, recorder):
    """The reason is ``storage``."""
    async with Receiver(router, tokens=TOKEN, inbox=FullInbox()) as receiver:
        receiver.observe(recorder)

        await post(receiver, VALID)

    (request,) = recorder.requests
    assert (request.reply.status, request.refused, request.appended) == (503, "storage", None)


async def test_an_attempt_is_recorded_with_its_outcome(router, recorder):
    """With the event, the number of the attempt, the outcome and a reason without the exception's message."""
    async with Receiver(router, tokens=TOKEN, inbox=MemoryInbox(), retry=ONE_ATTEMPT, concurrency=1) as receiver:
        receiver.observe(recorder)

        await post(receiver, VALID, FAILING, UNMATCHED, b"{")
        await receiver.idle(timeout=DEADLINE)

    recorded = [
        (attempt.id, attempt.attempt, attempt.event and attempt.event.name, attempt.outcome)
        for attempt in recorder.attempts
    ]
    assert recorded == [
        (1, 1, "TextSent", "handled"),
        (2, 1, "TextSent", "dead"),
        (3, 1, "CampaignStarted", "dead"),
        (4, 1, None, "dead"),
    ]
    assert "text: ValueError" in recorder.attempts[1].reason
    assert "secret" not in recorder.attempts[1].reason


async def test_a_failed_attempt_that_is_retried_is_not_dead(router, recorder):
    """Its outcome is ``failed``."""
    async with Receiver(router, tokens=TOKEN, inbox=MemoryInbox()) as receiver:
        receiver.observe(recorder)

        await post(receiver, FAILING)
        await receiver.idle(timeout=DEADLINE)

    assert [attempt.outcome for attempt in recorder.attempts] == ["failed"]


async def test_each_attempt_is_recorded_with_its_delivery_and_number(router, recorder):
    """Each handler call ends with its exception, as without an inbox."""
    retry = RetryPolicy(max_attempts=2, initial_delay=0.0)
    async with Receiver(router, tokens=TOKEN, inbox=MemoryInbox(), retry=retry) as receiver:
        receiver.observe(recorder)

        await post(receiver, FAILING)
        await receiver.idle(timeout=DEADLINE)

    assert [(each.delivery.body, each.attempt) for each in recorder.attempts] == [(FAILING, 1), (FAILING, 2)]
    assert recorder.calls == [("text", "ValueError")] * 2


async def test_an_attempt_that_a_stop_interrupts_is_released(recorder):
    """It is neither handled nor failed."""
    router, started = Router(), asyncio.Event()

    @router.on(TextFinished)
    async def text(event: TextFinished) -> None:
        started.set()
        await asyncio.get_running_loop().create_future()

    async with Receiver(router, tokens=TOKEN, inbox=MemoryInbox(), shutdown_timeout=0) as receiver:
        receiver.observe(recorder)
        await post(receiver, VALID)
        async with asyncio.timeout(DEADLINE):
            await started.wait()

    assert [attempt.outcome for attempt in recorder.attempts] == ["released"]


async def test_an_attempt_whose_lease_was_lost_is_recorded(recorder):
    """Its outcome is ``lost``, even if its handlers succeeded."""
    router, inbox, started = Router(), MemoryInbox(), asyncio.Event()

    @router.on(TextFinished)
    async def text(event: TextFinished) -> None:
        started.set()
        async for entry in inbox.entries("leased"):
            inbox._rows[entry.id].token = "another worker's"

    async with Receiver(router, tokens=TOKEN, inbox=inbox) as receiver:
        receiver.observe(recorder)
        await post(receiver, VALID)
        async with asyncio.timeout(DEADLINE):
            await started.wait()

    assert [attempt.outcome for attempt in recorder.attempts] == ["lost"]


async def test_a_redelivery_is_recorded_with_its_delivery(router, recorder):
    """Whether the receiver runs or not."""
    delivery = Delivery(VALID)
    receiver = Receiver(router, tokens=TOKEN, inbox=MemoryInbox())
    receiver.observe(recorder)

    await receiver.redeliver(delivery)
    async with receiver:
        await receiver.redeliver(delivery)

    recorded = [(r.method, r.delivery, r.reply.status, r.refused) for r in recorder.requests]
    assert recorded == [("POST", delivery, 503, "not running"), ("POST", delivery, 204, None)]


async def test_each_handler_call_is_recorded_with_its_exception(router, recorder):
    """A handler whose ``where`` raised was not called; the attempt's reason names it."""
    async with Receiver(router, tokens=TOKEN) as receiver:
        receiver.observe(recorder)

        await post(receiver, VALID, FAILING, WHERE_FAILS)

    assert recorder.calls == [("text", None), ("text", "ValueError")]
    assert recorder.attempts[2].reason == "call: AttributeError"


@pytest.mark.parametrize("make_inbox", [lambda: None, MemoryInbox], ids=["without an inbox", "with an inbox"])
async def test_each_handler_call_has_the_record_of_its_attempt(router, recorder, make_inbox):
    """It has the event, so that a trace of the call can name it."""
    async with Receiver(router, tokens=TOKEN, inbox=make_inbox()) as receiver:
        receiver.observe(recorder)

        await post(receiver, VALID)
        await receiver.idle(timeout=DEADLINE)

    assert recorder.attempts_of_calls == recorder.attempts
    assert recorder.attempts[0].event.text.id == 42


async def test_requests_and_attempts_are_recorded_without_an_inbox(router, recorder):
    """Outcomes that an inbox would dead-letter are ``unhandled`` and ``refused``."""
    async with Receiver(router, tokens=TOKEN) as receiver:
        receiver.observe(recorder)

        await post(receiver, VALID, FAILING, UNMATCHED, b"{")

    assert [attempt.outcome for attempt in recorder.attempts] == ["handled", "failed", "unhandled", "refused"]
    assert [(request.reply.status, request.refused) for request in recorder.requests] == [
        (204, None),
        (500, None),
        (204, None),
        (400, "no notification"),
    ]
    assert recorder.attempts[3].reason.startswith("neither XML nor JSON")


async def test_the_lifespan_lasts_while_the_receiver_runs(router, recorder):
    """From the first entry to the last exit, each time the receiver is started."""
    receiver = Receiver(router, tokens=TOKEN)
    receiver.observe(recorder)

    async with receiver, receiver:
        assert recorder.lifespans == ["started"]
    assert recorder.lifespans == ["started", "stopped"]
    async with receiver:
        assert recorder.lifespans[2:] == ["started"]


@pytest.mark.parametrize("failing", [FailingOnEntry, FailingOnExit])
async def test_a_lifespan_that_fails_has_no_effect(router, recorder, caplog, failing):
    """The receiver and the other observers start and stop."""
    receiver = Receiver(router, tokens=TOKEN, inbox=MemoryInbox())
    receiver.observe(recorder)
    receiver.observe(failing())

    async with receiver:
        assert receiver.is_running

    assert (receiver.is_running, recorder.lifespans) == (False, ["started", "stopped"])
    assert f"observer {failing.__name__} failed, ignoring it: ValueError" in caplog.text


async def test_a_cancelled_start_stops_everything_that_has_started(router, recorder):
    """For example if an observer takes too long to start."""
    started = asyncio.Event()

    class Slow(Observer):
        @asynccontextmanager
        async def lifespan(self) -> AsyncIterator[None]:
            started.set()
            await asyncio.get_running_loop().create_future()
            yield

    receiver = Receiver(router, tokens=TOKEN, inbox=MemoryInbox())
    receiver.observe(recorder)
    receiver.observe(Slow())
    starting = asyncio.create_task(receiver.__aenter__())
    async with asyncio.timeout(DEADLINE):
        await started.wait()
    starting.cancel()
    await asyncio.wait([starting])

    assert (receiver.is_running, recorder.lifespans) == (False, ["started", "stopped"])
    assert all(task.done() for task in receiver._intake._worker._tasks)


async def test_an_observer_can_be_removed(router):
    """The others stay."""
    removed, kept = RecordingObserver(), RecordingObserver()
    async with Receiver(router, tokens=TOKEN) as receiver:
        receiver.observe(removed)
        receiver.observe(kept)
        await post(receiver, VALID)
        receiver.stop_observing(removed)
        await post(receiver, VALID)

    assert [len(observer.requests) for observer in (removed, kept)] == [1, 2]


@pytest.mark.parametrize("failing", [FailingOnEntry, FailingOnExit])
async def test_a_failing_observer_has_no_effect(router, recorder, caplog, failing):
    """Its exceptions are logged by type; responses, handlers and other observers are unchanged."""
    async with Receiver(router, tokens=TOKEN) as receiver:
        receiver.observe(failing())
        receiver.observe(recorder)

        replies = await post(receiver, VALID, FAILING)

    assert [reply.status for reply in replies] == [204, 500]
    assert [attempt.outcome for attempt in recorder.attempts] == ["handled", "failed"]
    assert f"observer {failing.__name__} failed, ignoring it: ValueError" in caplog.text
    assert "POST" not in caplog.text


async def test_an_observer_may_override_nothing(router):
    """The base class does nothing."""
    receiver = Receiver(router, tokens=TOKEN)
    receiver.observe(Observer())

    async with receiver:
        assert await post(receiver, VALID) == [Reply(204)]
