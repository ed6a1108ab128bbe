"""Exceptions that are not an `Exception`: cancelled tasks that user code awaits, and the end of the process."""

import asyncio
from contextlib import contextmanager

import pytest
from notifications.inbox.clocks import Clocks

from callfire_async import HandlerErrors, Text
from callfire_async.notifications import (
    AttemptRecord,
    Delivery,
    InboxEntry,
    MemoryInbox,
    Notification,
    Observer,
    Postback,
    Receiver,
    Reply,
    RetryPolicy,
    Router,
    TextFinished,
    TextSent,
    worker,
)

DEADLINE = 60
BODY = b'{"TextSent": {"SubscriptionId": 7, "Text": {"@id": 1}}}'
SENT = TextSent(subscription_id=7, text=Text(1))
POSTBACK = Postback("POST", None, {}, BODY)
ONE_ATTEMPT = RetryPolicy(max_attempts=1)


class Abort(BaseException):
    """An exception of the user's that is not an `Exception`, as test frameworks have."""


async def await_a_cancelled_task(*_: object) -> None:
    """Await a task that another part of the program has cancelled."""
    task = asyncio.create_task(asyncio.sleep(3600))
    asyncio.get_running_loop().call_soon(task.cancel)
    await task


async def raise_a_group(*_: object) -> None:
    raise BaseExceptionGroup("several", [asyncio.CancelledError(), ValueError()])


async def abort(*_: object) -> None:
    raise Abort


async def raise_generator_exit(*_: object) -> None:
    raise GeneratorExit


FAILURES = {
    "CancelledError": await_a_cancelled_task,
    "BaseExceptionGroup": raise_a_group,
    "Abort": abort,
    "GeneratorExit": raise_generator_exit,
}


def cancelled(*_: object) -> bool:
    """Raise CancelledError in a plain function, as ``task.result()`` does."""
    raise asyncio.CancelledError


@pytest.fixture
def ran() -> list[str]:
    return []


@pytest.fixture
def router(ran: list[str]) -> Router:
    """Return a router whose last handler records that it ran."""
    return Router()


def add_last(router: Router, ran: list[str]) -> None:
    @router.on(Notification, name="last")
    async def last(event: Notification) -> None:
        ran.append("last")


async def handle(receiver: Receiver, inbox: MemoryInbox) -> InboxEntry:
    """Post one body, wait until the receiver is idle, and return the inbox's entry."""
    async with receiver:
        assert await receiver.receive(POSTBACK) == Reply(204)
        await receiver.idle(timeout=DEADLINE)
        (entry,) = [entry async for entry in inbox.entries()]
        assert (await receiver.health()).live
    return entry


# --- handlers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAILURES)
async def test_it_is_a_failure_of_that_handler_alone(router, ran, name):
    """Later handlers run, and a retry runs only the failed one."""
    router.on(TextFinished, name="fails")(FAILURES[name])
    add_last(router, ran)
    inbox = MemoryInbox()

    entry = await handle(Receiver(router, tokens=None, inbox=inbox, retry=RetryPolicy(2, 0.0)), inbox)

    assert (entry.state, entry.reason) == ("dead", f"2 attempts failed, the last with fails: {name}")
    assert ran == ["last"]


@pytest.mark.parametrize("name", FAILURES)
async def test_without_an_inbox_the_response_is_500(router, ran, name):
    """Later handlers run, and `receive` does not raise."""
    router.on(TextFinished, name="fails")(FAILURES[name])
    add_last(router, ran)
    async with Receiver(router, tokens=None) as receiver:
        reply = await receiver.receive(POSTBACK)

    assert (reply, ran) == (Reply(500), ["last"])


@pytest.mark.parametrize("name", FAILURES)
async def test_a_dispatch_raises_handler_errors(router, ran, name):
    """Exceptions that a group cannot have are the cause of an exception in it."""
    router.on(TextFinished, name="fails")(FAILURES[name])
    add_last(router, ran)

    with pytest.raises(HandlerErrors) as caught:
        await router.dispatch(SENT, handler_timeout=DEADLINE)

    (error,) = caught.value.exceptions
    assert (caught.value.failed, caught.value.completed) == (("fails",), {"last"})
    assert (str(error), type(error.__cause__).__name__) == (f"the handler raised {name}", name)


async def test_a_fallback_that_is_cancelled_has_failed(router):
    """Like any other handler."""
    router.fallback(await_a_cancelled_task)

    with pytest.raises(HandlerErrors):
        await router.dispatch(SENT)


async def test_a_where_that_raises_cancelled_error_fails_its_handler(router, ran):
    """Later handlers run."""
    router.on(TextFinished, where=cancelled, name="chooses")(abort)
    add_last(router, ran)

    with pytest.raises(HandlerErrors) as caught:
        await router.dispatch(SENT)

    assert (caught.value.failed, ran) == (("chooses",), ["last"])
    assert [handler.name for handler in router.matching(SENT)] == ["chooses", "last"]


async def test_a_waiter_whose_where_raises_cancelled_error_is_not_cancelled(router):
    """The dispatch succeeds; `get` raises an error that has the exception as its cause."""
    add_last(router, [])
    async with router.expect(TextFinished, where=cancelled) as broken, router.expect(TextFinished) as expected:
        await router.dispatch(SENT)

        with pytest.raises(RuntimeError, match="where raised CancelledError") as caught:
            await broken.get()
        assert isinstance(caught.value.__cause__, asyncio.CancelledError)
        assert await expected.get() is SENT


# --- the receiver's own task ------------------------------------------------------------------------------


async def test_the_cancellation_of_the_current_task_propagates(router, ran):
    """Although the handler raises the CancelledError of another task."""

    @router.on(TextFinished)
    async def handler(event: TextFinished) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await await_a_cancelled_task()

    add_last(router, ran)
    async with Receiver(router, tokens=None) as receiver:
        task = asyncio.create_task(receiver.receive(POSTBACK))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert ran == []


async def test_a_cancellation_that_was_caught_before_does_not_count(router, ran):
    """A server may continue to use a cancelled task; only later cancellations cancel the request."""
    router.on(TextFinished, name="fails")(await_a_cancelled_task)
    add_last(router, ran)

    async def use() -> Reply:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            async with Receiver(router, tokens=None) as receiver:
                return await receiver.receive(POSTBACK)

    task = asyncio.create_task(use())
    await asyncio.sleep(0)
    task.cancel()

    assert (await task, ran) == (Reply(500), ["last"])


def test_a_closed_dispatch_runs_no_further_handler(router, ran):
    """Its event loop is gone, so nothing can be awaited."""

    @router.on(TextFinished)
    async def handler(event: TextFinished) -> None:
        await asyncio.Event().wait()

    add_last(router, ran)
    loop = asyncio.new_event_loop()
    dispatching = router.dispatch(SENT)
    task = loop.create_task(dispatching)
    loop.run_until_complete(asyncio.sleep(0))
    dispatching.close()
    task.cancel()
    loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    loop.close()

    assert ran == []


async def test_a_handler_that_cancels_its_own_task_has_failed(router):
    """The attempt is counted, so that the delivery becomes a dead letter in the end."""

    @router.on(TextFinished)
    async def handler(event: TextFinished) -> None:
        asyncio.current_task().cancel()
        await asyncio.sleep(0)

    inbox = MemoryInbox()
    entry = await handle(Receiver(router, tokens=None, inbox=inbox, retry=RetryPolicy(2, 0.0)), inbox)

    assert (entry.state, entry.attempt, entry.crashes) == ("dead", 2, 0)


async def test_a_cancelled_handler_during_a_stop_has_failed(router, ran):
    """Only a handler that the stop cancels is released without counting the attempt."""
    started, stopping = asyncio.Event(), asyncio.Event()

    @router.on(TextFinished, name="fails")
    async def handler(event: TextFinished) -> None:
        started.set()
        await stopping.wait()
        await await_a_cancelled_task()

    inbox = MemoryInbox()
    async with Receiver(router, tokens=None, inbox=inbox, retry=ONE_ATTEMPT) as receiver:
        await receiver.receive(POSTBACK)
        await started.wait()
        asyncio.get_running_loop().call_soon(stopping.set)
    (entry,) = [entry async for entry in inbox.entries()]

    assert (entry.state, entry.reason) == ("dead", "the only attempt failed: fails: CancelledError")


@pytest.mark.parametrize("raised", [KeyboardInterrupt(), SystemExit(3), BaseExceptionGroup("", [SystemExit(3)])])
@pytest.mark.parametrize("make_inbox", [MemoryInbox, lambda: None])
def test_the_end_of_the_process_propagates(router, ran, raised, make_inbox):
    """KeyboardInterrupt and SystemExit end the event loop, whichever code raises them."""

    @router.on(TextFinished)
    async def handler(event: TextFinished) -> None:
        raise raised

    add_last(router, ran)

    async def use() -> None:
        async with Receiver(router, tokens=None, inbox=make_inbox()) as receiver:
            await receiver.receive(POSTBACK)
            await receiver.idle(timeout=DEADLINE)

    with pytest.raises((KeyboardInterrupt, SystemExit)):
        asyncio.run(use())
    assert ran == []


# --- other functions of the user --------------------------------------------------------------------------


async def test_a_cancelled_known_subscriptions_is_retried(router, ran):
    """It is a failure with its own name, not a cancellation of the worker."""
    calls = []

    async def fetch() -> set[int]:
        calls.append(7)
        if len(calls) == 1:
            await await_a_cancelled_task()
        return {7}

    add_last(router, ran)
    inbox = MemoryInbox()
    receiver = Receiver(router, tokens=None, inbox=inbox, known_subscriptions=fetch, retry=RetryPolicy(2, 0.0))

    entry = await handle(receiver, inbox)

    assert (entry.state, entry.attempt, ran) == ("done", 2, ["last"])


async def test_a_cancelled_known_subscriptions_is_named_in_the_reason(router, ran):
    """With an inbox in the dead letter's reason, without one as a 500."""
    add_last(router, ran)
    inbox = MemoryInbox()
    options = {"known_subscriptions": await_a_cancelled_task}

    entry = await handle(Receiver(router, tokens=None, inbox=inbox, retry=ONE_ATTEMPT, **options), inbox)
    async with Receiver(router, tokens=None, **options) as receiver:
        reply = await receiver.receive(POSTBACK)

    assert entry.reason == "the only attempt failed: known_subscriptions: CancelledError"
    assert (reply, ran) == (Reply(500), [])


async def test_a_cancelled_on_dead_letter_changes_nothing(router, caplog):
    """The delivery is a dead letter, and the attempt ends as usual."""
    router.on(TextFinished, name="fails")(abort)
    inbox, attempts = MemoryInbox(), []

    class Recorder(Observer):
        @contextmanager
        def attempt(self, record: AttemptRecord):
            yield
            attempts.append(record.outcome)

    receiver = Receiver(router, tokens=None, inbox=inbox, retry=ONE_ATTEMPT, on_dead_letter=await_a_cancelled_task)
    receiver.observe(Recorder())
    entry = await handle(receiver, inbox)

    assert (entry.state, attempts) == ("dead", ["dead"])
    assert "on_dead_letter failed: CancelledError" in caplog.text


async def test_an_observer_that_raises_cancelled_error_changes_nothing(router, ran, caplog):
    """It is logged, as any other exception of an observer."""
    add_last(router, ran)

    class Cancelled(Observer):
        lifespan = request = attempt = cancelled

        @contextmanager
        def handler(self, record: AttemptRecord, handler: str):
            yield
            raise asyncio.CancelledError

    inbox = MemoryInbox()
    receiver = Receiver(router, tokens=None, inbox=inbox)
    receiver.observe(Cancelled())

    entry = await handle(receiver, inbox)

    assert (entry.state, ran) == ("done", ["last"])
    assert caplog.text.count("observer Cancelled failed, ignoring it: CancelledError") == 4


# --- inboxes ----------------------------------------------------------------------------------------------


class CancelledInbox(MemoryInbox):
    """
    An inbox some of whose operations raise CancelledError once, as a driver does whose task was cancelled.

    Its time does not pass, so no lease expires, however slow the machine is.
    """

    def __init__(self, operation: str) -> None:
        super().__init__(clock=Clocks().clock())
        self.left = {operation: 1}

    async def fail(self, operation: str) -> None:
        if self.left.pop(operation, 0):
            await await_a_cancelled_task()

    async def append(self, delivery):
        await self.fail("append")
        return await super().append(delivery)

    async def claim(self, limit, *, lease):
        await self.fail("claim")
        return await super().claim(limit, lease=lease)

    async def ack(self, lease, *, event_key=""):
        await self.fail("ack")
        return await super().ack(lease, event_key=event_key)

    async def extend(self, lease, seconds):
        await self.fail("extend")
        return await super().extend(lease, seconds)

    async def wait(self, timeout):
        await self.fail("wait")
        await super().wait(timeout)


@pytest.mark.parametrize("operation", ["claim", "ack", "wait"])
async def test_the_worker_survives_a_cancelled_operation(router, ran, operation, monkeypatch):
    """It is retried, as after an InboxError."""
    monkeypatch.setattr(worker, "_RETRY_INTERVAL_SECONDS", 0.01)
    add_last(router, ran)
    inbox = CancelledInbox(operation)

    entry = await handle(Receiver(router, tokens=None, inbox=inbox), inbox)

    assert (entry.state, entry.crashes, ran, inbox.left) == ("done", 0, ["last"], {})


async def test_a_cancelled_extension_is_retried(router, ran, monkeypatch, caplog):
    """The lease renewal loop continues."""
    monkeypatch.setattr(worker, "_MIN_LEASE_SECONDS", 0.03)
    inbox = CancelledInbox("extend")

    @router.on(TextFinished, name="waits")
    async def handler(event: TextFinished) -> None:
        while "cannot extend" not in caplog.text:  # noqa: ASYNC110  # no event signals a log record
            await asyncio.sleep(0.001)
        ran.append("waits")

    entry = await handle(Receiver(router, tokens=None, inbox=inbox, handler_timeout=None), inbox)

    assert (entry.state, ran) == ("done", ["waits"])
    assert "cannot extend the lease of delivery 1, retrying in 0.01 s: the operation was cancelled" in caplog.text


async def test_a_cancelled_append_gets_503(router, ran, caplog):
    """Nothing was stored, so the sender may try again."""
    add_last(router, ran)
    inbox = CancelledInbox("append")
    async with Receiver(router, tokens=None, inbox=inbox) as receiver:
        reply = await receiver.receive(POSTBACK)
        again = await receiver.redeliver(Delivery(BODY))

    assert (reply.status, again.status) == (503, 204)
    assert "cannot store a postback, responded 503: the operation was cancelled" in caplog.text


async def test_a_claim_that_is_cancelled_during_a_stop_is_ignored(router, ran):
    """The stop is not delayed."""
    add_last(router, ran)

    class Stopping(MemoryInbox):
        claiming = asyncio.Event()

        async def claim(self, limit, *, lease):
            self.claiming.set()
            await asyncio.sleep(0)
            raise asyncio.CancelledError

    inbox = Stopping()
    async with asyncio.timeout(DEADLINE):
        async with Receiver(router, tokens=None, inbox=inbox):
            await inbox.claiming.wait()

    assert ran == []
