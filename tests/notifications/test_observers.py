"""What can be seen of a receiver from outside, and that seeing it changes nothing."""

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
DEADLINE = 20
FINE = b'{"TextSent": {"SubscriptionId": 1, "Text": {"@id": 42}}}'
FAILING = b'{"TextSent": {"SubscriptionId": 13, "Text": {"@id": 43}}}'
SELDOM = b'{"CallFinished": {"SubscriptionId": 1, "Call": {"@id": 44}}}'
UNWANTED = b'{"CampaignStarted": {"Broadcast": {"@id": 45}}}'
NEVER_AGAIN = RetryPolicy(max_attempts=1)


class Diary(Observer):
    """Writes down what it was told, once it is over."""

    def __init__(self) -> None:
        self.requests: list[RequestRecord] = []
        self.handlings: list[AttemptRecord] = []
        self.runs: list[tuple[str, str | None]] = []
        self.served: list[str] = []

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        self.served.append("started")
        yield
        self.served.append("stopped")

    @contextmanager
    def request(self, record: RequestRecord) -> Iterator[None]:
        yield
        self.requests.append(record)

    @contextmanager
    def attempt(self, record: AttemptRecord) -> Iterator[None]:
        yield
        self.handlings.append(record)

    @contextmanager
    def handler(self, record: AttemptRecord, handler: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.runs.append((handler, type(error).__name__))
            raise
        self.runs.append((handler, None))


class FailingAtFirst(Observer):
    """Fails when it is asked."""

    def request(self, record: RequestRecord):
        raise ValueError(record.method)

    attempt = request

    def lifespan(self):
        raise ValueError


class FailingAtLast(Observer):
    """Fails when it is over; keeps back what it may not."""

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
    """Takes nothing."""

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
def diary() -> Diary:
    return Diary()


async def post(receiver: Receiver, *bodies: bytes, method: str = "POST", token: str = TOKEN) -> list[Reply]:
    return [await receiver.receive(Postback(method, token, {}, body)) for body in bodies]


async def test_a_request_is_told_with_what_became_of_it(router, diary):
    """Whether it was refused and why, what was in it, and whether it was there already."""
    async with Receiver(router, tokens=TOKEN, inbox=MemoryInbox()) as receiver:
        receiver.observe(diary)

        await post(receiver, FINE, FINE, b"")
        await post(receiver, FINE, token="wrong")
        await post(receiver, FINE, method="GET")

    told = [(one.method, one.reply.status, one.refused, one.appended) for one in diary.requests]
    assert told == [
        ("POST", 204, None, AppendResult(1, duplicate=False)),
        ("POST", 204, None, AppendResult(1, duplicate=True)),
        ("POST", 400, "empty", None),
        ("POST", 404, "token", None),
        ("GET", 405, "method", None),
    ]
    assert [one.delivery and one.delivery.body for one in diary.requests] == [FINE, FINE, None, None, None]


async def test_a_request_that_cannot_be_stored_is_told(router, diary):
    """The reason is the storage's."""
    async with Receiver(router, tokens=TOKEN, inbox=FullInbox()) as receiver:
        receiver.observe(diary)

        await post(receiver, FINE)

    (request,) = diary.requests
    assert (request.reply.status, request.refused, request.appended) == (503, "storage", None)


async def test_an_attempt_is_told_with_its_outcome(router, diary):
    """What was parsed, which attempt it was, what came of it, and why: never in a handler's own words."""
    async with Receiver(router, tokens=TOKEN, inbox=MemoryInbox(), retry=NEVER_AGAIN, concurrency=1) as receiver:
        receiver.observe(diary)

        await post(receiver, FINE, FAILING, UNWANTED, b"{")
        await receiver.idle(timeout=DEADLINE)

    told = [(one.id, one.attempt, one.event and one.event.name, one.outcome) for one in diary.handlings]
    assert told == [
        (1, 1, "TextSent", "handled"),
        (2, 1, "TextSent", "dead"),
        (3, 1, "CampaignStarted", "dead"),
        (4, 1, None, "dead"),
    ]
    assert "text: ValueError" in diary.handlings[1].reason
    assert "secret" not in diary.handlings[1].reason


async def test_a_failed_attempt_is_told_apart_from_the_end(router, diary):
    """What is to be tried again has failed; it is not dead."""
    async with Receiver(router, tokens=TOKEN, inbox=MemoryInbox()) as receiver:
        receiver.observe(diary)

        await post(receiver, FAILING)
        await receiver.idle(timeout=DEADLINE)

    assert [one.outcome for one in diary.handlings] == ["failed"]


async def test_what_is_put_back_when_the_receiver_stops_is_told(diary):
    """It was neither handled nor has it failed."""
    router, begun = Router(), asyncio.Event()

    @router.on(TextFinished)
    async def text(event: TextFinished) -> None:
        begun.set()
        await asyncio.get_running_loop().create_future()

    async with Receiver(router, tokens=TOKEN, inbox=MemoryInbox(), shutdown_timeout=0) as receiver:
        receiver.observe(diary)
        await post(receiver, FINE)
        async with asyncio.timeout(DEADLINE):
            await begun.wait()

    assert [one.outcome for one in diary.handlings] == ["released"]


async def test_what_another_worker_has_is_told_as_lost(diary):
    """Whatever came of it here."""
    router, inbox, begun = Router(), MemoryInbox(), asyncio.Event()

    @router.on(TextFinished)
    async def text(event: TextFinished) -> None:
        begun.set()
        async for entry in inbox.entries("leased"):
            inbox._rows[entry.id].token = "another worker's"

    async with Receiver(router, tokens=TOKEN, inbox=inbox) as receiver:
        receiver.observe(diary)
        await post(receiver, FINE)
        async with asyncio.timeout(DEADLINE):
            await begun.wait()

    assert [one.outcome for one in diary.handlings] == ["lost"]


async def test_each_handler_that_runs_is_told_with_what_it_raised(router, diary):
    """One whose ``where`` raised did not run: the handling's reason names it."""
    async with Receiver(router, tokens=TOKEN) as receiver:
        receiver.observe(diary)

        await post(receiver, FINE, FAILING, SELDOM)

    assert diary.runs == [("text", None), ("text", "ValueError")]
    assert diary.handlings[2].reason == "call: AttributeError"


async def test_without_an_inbox_requests_and_handlings_are_told_alike(router, diary):
    """The handling takes place inside the request; what an inbox would bury is unhandled, or refused."""
    async with Receiver(router, tokens=TOKEN) as receiver:
        receiver.observe(diary)

        await post(receiver, FINE, FAILING, UNWANTED, b"{")

    assert [one.outcome for one in diary.handlings] == ["handled", "failed", "unhandled", "refused"]
    assert [(one.reply.status, one.refused) for one in diary.requests] == [
        (204, None),
        (500, None),
        (204, None),
        (400, "no notification"),
    ]


async def test_an_observer_lives_as_long_as_the_receiver(router, diary):
    """From the first entry to the last exit, as often as it is started."""
    receiver = Receiver(router, tokens=TOKEN)
    receiver.observe(diary)

    async with receiver, receiver:
        assert diary.served == ["started"]
    assert diary.served == ["started", "stopped"]
    async with receiver:
        assert diary.served[2:] == ["started"]


@pytest.mark.parametrize("harmful", [FailingAtFirst, FailingAtLast])
async def test_an_observer_that_cannot_be_started_or_stopped_does_no_harm(router, diary, caplog, harmful):
    """The receiver and the other observers start and stop without it."""
    receiver = Receiver(router, tokens=TOKEN, inbox=MemoryInbox())
    receiver.observe(diary)
    receiver.observe(harmful())

    async with receiver:
        assert receiver.is_running

    assert (receiver.is_running, diary.served) == (False, ["started", "stopped"])
    assert f"observer {harmful.__name__} failed, ignoring it: ValueError" in caplog.text


async def test_a_start_that_is_given_up_stops_what_was_started(router, diary):
    """An observer may take long to begin; whoever loses patience leaves nothing behind."""
    begun = asyncio.Event()

    class Slow(Observer):
        @asynccontextmanager
        async def lifespan(self) -> AsyncIterator[None]:
            begun.set()
            await asyncio.get_running_loop().create_future()
            yield

    receiver = Receiver(router, tokens=TOKEN, inbox=MemoryInbox())
    receiver.observe(diary)
    receiver.observe(Slow())
    starting = asyncio.create_task(receiver.__aenter__())
    async with asyncio.timeout(DEADLINE):
        await begun.wait()
    starting.cancel()
    await asyncio.wait([starting])

    assert (receiver.is_running, diary.served) == (False, ["started", "stopped"])
    assert all(task.done() for task in receiver._intake._worker._tasks)


@pytest.mark.parametrize("harmful", [FailingAtFirst, FailingAtLast])
async def test_an_observer_cannot_do_harm(router, diary, caplog, harmful):
    """What it raises is logged without its words; answers, handlers, failures and other observers are as without it."""
    async with Receiver(router, tokens=TOKEN) as receiver:
        receiver.observe(harmful())
        receiver.observe(diary)

        replies = await post(receiver, FINE, FAILING)

    assert [reply.status for reply in replies] == [204, 500]
    assert [one.outcome for one in diary.handlings] == ["handled", "failed"]
    assert f"observer {harmful.__name__} failed, ignoring it: ValueError" in caplog.text
    assert "POST" not in caplog.text


async def test_an_observer_that_wants_nothing_needs_nothing(router):
    """Each method of the base tells nobody."""
    receiver = Receiver(router, tokens=TOKEN)
    receiver.observe(Observer())

    async with receiver:
        assert await post(receiver, FINE) == [Reply(204)]
