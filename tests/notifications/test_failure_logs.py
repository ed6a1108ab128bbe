"""What the log, the attempt's record and the dead letter have about a handler that failed."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from callfire_async.notifications import (
    AttemptRecord,
    InboxEntry,
    MemoryInbox,
    Notification,
    Observer,
    Postback,
    Receiver,
    Reject,
    RetryPolicy,
    Router,
)

DEADLINE = 60
POSTBACK = Postback("POST", None, {}, b'{"TextSent": {"Text": {"@id": 1}}}')
ONE_ATTEMPT = RetryPolicy(max_attempts=1)
FORMATTER = logging.Formatter()


async def raise_group(event: Notification) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(raise_with_cause())


async def raise_with_cause() -> None:
    customer = 7
    try:
        raise_for(customer)
    except LookupError as error:
        error.add_note(f"a note about {customer}")
        raise ValueError(f"no invoice of {customer}") from error


def raise_for(customer: int) -> None:
    raise LookupError(f"customer {customer}")


async def hang_here() -> None:
    await asyncio.Event().wait()


async def hang(event: Notification) -> None:
    await hang_here()


async def hang_and_hide(event: Notification) -> None:
    try:
        await hang_here()
    except asyncio.CancelledError:
        raise ValueError("interrupted") from None


class RecordingObserver(Observer):
    """Keeps the records of the attempts."""

    def __init__(self) -> None:
        self.attempts: list[AttemptRecord] = []

    @contextmanager
    def attempt(self, record: AttemptRecord) -> Iterator[None]:
        yield
        self.attempts.append(record)


@pytest.fixture(params=[MemoryInbox, lambda: None], ids=["inbox", "no inbox"])
def inbox(request) -> MemoryInbox | None:
    return request.param()


@pytest.fixture
def observer() -> RecordingObserver:
    return RecordingObserver()


@pytest.fixture
def fail(inbox, observer, caplog):
    """Return a function that posts an event to handlers, and returns what their failures logged."""

    async def fail(*handlers: object, **options: object) -> str:
        router = Router()
        for handler in handlers:
            router.on(Notification)(handler)
        if inbox is not None:
            options = {"inbox": inbox, "retry": ONE_ATTEMPT} | options
        async with Receiver(router, tokens=None, **options) as receiver:
            receiver.observe(observer)
            await receiver.receive(POSTBACK)
            await receiver.idle(timeout=DEADLINE)
        records = [record for record in caplog.records if record.name == "callfire_async.worker"]
        return "\n".join(FORMATTER.format(record) for record in records)

    return fail


async def test_messages_causes_groups_and_notes_are_logged(fail):
    """As Python prints them."""
    logged = await fail(raise_group)

    assert f"handler {__name__}.raise_group failed: ExceptionGroup (" in logged
    for text in ("ValueError: no invoice of 7", "LookupError: customer 7", "a note about 7", "in raise_with_cause"):
        assert text in logged


async def test_types_and_lines_are_logged_if_exceptions_must_not_be(fail, caplog):
    """Those of causes and of members of groups as well."""
    logged = await fail(raise_group, log_exceptions=False)

    for text in ("failed: ExceptionGroup (", "ValueError\n", "LookupError\n", "in raise_with_cause"):
        assert text in logged
    for text in ("customer 7", "about 7", "of 7"):
        assert text not in logged
    assert not any(record.exc_info for record in caplog.records)


@pytest.mark.parametrize("handler", [hang, hang_and_hide])
@pytest.mark.parametrize("log_exceptions", [True, False])
async def test_a_timeout_shows_where_the_handler_was_interrupted(fail, handler, log_exceptions):
    """The stack of the handler, also with a handler that hides the cancellation."""
    logged = await fail(handler, handler_timeout=0.01, log_exceptions=log_exceptions)

    assert ("in hang_here" in logged) is (log_exceptions or handler is hang)
    assert ("the handler took longer than 0.01 seconds" in logged) is log_exceptions
    assert f"in {handler.__name__}" in logged


async def test_an_attempt_has_the_exceptions_by_handler(fail, inbox, observer):
    """The reason has only their types."""
    error = KeyError("customer 7")

    async def succeed(event: Notification) -> None: ...

    async def fail_too(event: Notification) -> None:
        raise error

    await fail(raise_group, succeed, fail_too)

    (attempt,) = observer.attempts
    names = [f"{__name__}.raise_group", f"{fail_too.__module__}.{fail_too.__qualname__}"]
    assert list(attempt.exceptions) == names
    assert attempt.exceptions[names[1]] is error
    assert attempt.reason.endswith(f"{names[0]}: ExceptionGroup, {names[1]}: KeyError")
    if inbox is not None:
        assert (await inbox.get(1)).reason == attempt.reason


async def test_an_attempt_has_the_original_exception_of_a_cancelled_handler(fail, observer):
    """Not the one that `HandlerErrors` has in its place."""

    async def cancelled(event: Notification) -> None:
        raise asyncio.CancelledError

    await fail(cancelled)

    (error,) = observer.attempts[0].exceptions.values()
    assert type(error) is asyncio.CancelledError


async def test_an_attempt_that_succeeds_has_no_exceptions(fail, observer):
    """An empty mapping."""

    async def succeed(event: Notification) -> None: ...

    await fail(succeed)

    assert observer.attempts[0].exceptions == {}


async def test_a_failing_on_dead_letter_is_logged_with_its_exception(fail, inbox):
    """And with the delivery that stays a dead letter."""
    if inbox is None:
        pytest.skip("requires an inbox")

    async def report(entry: InboxEntry) -> None:
        raise OSError("no mail server")

    logged = await fail(raise_group, on_dead_letter=report)

    assert "on_dead_letter failed: OSError (delivery 1 remains a dead letter)" in logged
    assert "OSError: no mail server" in logged


async def test_on_dead_letter_is_not_called_if_the_entry_cannot_be_read(fail, inbox, monkeypatch):
    """The log says so; the delivery is a dead letter."""
    if inbox is None:
        pytest.skip("requires an inbox")
    reported = []

    async def report(entry: InboxEntry) -> None:
        reported.append(entry)

    async def broken(id: object) -> None:
        raise OSError("disk /secret")

    monkeypatch.setattr(inbox, "get", broken)
    logged = await fail(raise_group, on_dead_letter=report)

    assert "cannot read dead letter 1, not calling on_dead_letter: OSError" in logged
    assert ("/secret" in logged, reported) == (False, [])


class BrokenReject(Reject):
    """A `Reject` whose message cannot be made."""

    def __str__(self) -> str:
        raise ValueError


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Reject("no such customer"), "rejected: no such customer"),
        (Reject(), "rejected by rejects"),
        (Reject(" "), "rejected by rejects"),
        (BrokenReject(), "rejected by rejects"),
        (Reject("\ud800 and \0"), "rejected: \\ud800 and \\x00"),
        (Reject("x" * 5_000), f"rejected: {'x' * 1990}…"),
    ],
)
async def test_any_reject_can_be_stored(tmp_path, error, reason):
    """Its reason is never empty, too long, or a text that a database refuses."""
    from callfire_async.notifications import SqliteInbox

    router = Router()

    @router.on(Notification, name="rejects")
    async def rejects(event: Notification) -> None:
        raise error

    inbox = SqliteInbox(tmp_path / "inbox.db")
    async with Receiver(router, tokens=None, inbox=inbox, log_exceptions=False) as receiver:
        await receiver.receive(POSTBACK)
        await receiver.idle(timeout=DEADLINE)
        (entry,) = [entry async for entry in inbox.entries("dead")]

    assert entry.reason == reason


async def test_the_line_says_when_the_next_attempt_is_due(caplog):
    """In seconds; short delays have a decimal."""
    router = Router()

    @router.on(Notification, name="fails")
    async def fails(event: Notification) -> None:
        raise ValueError

    receiver = Receiver(router, tokens=None, inbox=MemoryInbox(), retry=RetryPolicy(initial_delay=50.0))
    receiver._intake._worker.random = lambda: 0.5
    async with receiver:
        await receiver.receive(POSTBACK)
        await receiver.idle(timeout=DEADLINE)

    (record,) = caplog.records
    line = "handler fails failed: ValueError (delivery 1, attempt 1 of 12, next attempt in 25 s)"
    assert (record.getMessage(), record.callfire_handler) == (line, "fails")


async def test_invented_subscriptions_do_not_fill_the_log(caplog):
    """After a hundred, further unknown ones are only counted."""
    router = Router()

    @router.on(Notification)
    async def handler(event: Notification) -> None: ...

    async with Receiver(router, tokens=None, known_subscriptions={1}) as receiver:
        for number in range(2, 202):
            body = b'{"TextSent": {"SubscriptionId": %d, "Text": {"@id": 1}}}' % number
            await receiver.receive(Postback("POST", None, {}, body))
        stats = await receiver.stats()

    assert (len(caplog.messages), stats.unhandled) == (100, 200)
    assert caplog.messages[-1] == "subscription 101 is not in known_subscriptions; ignoring its events"
