"""Envelopes of API v2 with several events: split by the worker, or handled before the response without an inbox."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from notifications.inbox.faulty_inbox import FaultyInbox

from callfire_async.errors import InboxError
from callfire_async.notifications import (
    AttemptRecord,
    Delivery,
    Inbox,
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
    TextReceived,
)
from callfire_async.notifications.worker import _envelope_splitter

DEADLINE = 60
IMMEDIATE = RetryPolicy(max_attempts=3, initial_delay=0)
REJECTED, FAILING = 13, 14
UNREADABLE = {"eventType": "Finished", "resource": {"id": "no id"}}


def element(number: int) -> dict[str, Any]:
    return {"eventType": "Finished", "resource": {"id": number, "message": "hello", "state": "FINISHED"}}


def envelope(*elements: object, **members: object) -> bytes:
    """Return the body of an envelope; a number is an event of a text with that id."""
    events = [element(one) if isinstance(one, int) else one for one in elements]
    head = {"timestamp": 1527695025000, "webhookId": 7, "webhookName": "texts", "resourceType": "InboundText"}
    return json.dumps(head | {"events": events} | members).encode()


def postback(body: bytes, content_type: str = "application/json") -> Postback:
    return Postback("POST", None, {"Content-Type": content_type}, body)


class Attempts(Observer):
    """Records the attempts of a receiver."""

    def __init__(self) -> None:
        self.records: list[AttemptRecord] = []

    def attempt(self, record: AttemptRecord) -> Any:
        self.records.append(record)
        return super().attempt(record)

    @property
    def outcomes(self) -> list[str | None]:
        return [record.outcome for record in self.records]


@pytest.fixture
def router(events: list[Notification]) -> Router:
    """Return a router whose handler rejects one event and fails for another."""
    router = Router()

    @router.on(TextReceived)
    async def collect(event: TextReceived) -> None:
        events.append(event)
        if event.text.id == REJECTED:
            raise Reject("unlucky")
        if event.text.id == FAILING:
            raise ValueError

    return router


@pytest.fixture
def attempts() -> Attempts:
    return Attempts()


@pytest.fixture
def make_receiver(router: Router, attempts: Attempts) -> Callable[..., Receiver]:
    def make(inbox: Inbox | None, **options: object) -> Receiver:
        receiver = Receiver(router, tokens=None, inbox=inbox, **options)
        receiver.observe(attempts)
        return receiver

    return make


@pytest.fixture
def fast_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try to store the events of an envelope three times, without a pause, and retry the envelope without a delay."""
    monkeypatch.setattr(_envelope_splitter, "_RETRY_INTERVAL_SECONDS", 0.0)
    monkeypatch.setattr(_envelope_splitter, "_MAX_TRIES", 3)
    monkeypatch.setattr(_envelope_splitter, "_NEXT_ATTEMPT_SECONDS", 0.0)


async def handle(receiver: Receiver, *bodies: bytes) -> None:
    """Post bodies to a receiver, and wait until it is idle."""
    async with receiver:
        for body in bodies:
            assert await receiver.receive(postback(body)) == Reply(204)
        await receiver.idle(timeout=DEADLINE)


async def entries_of(inbox: Inbox) -> list[InboxEntry]:
    return [entry async for entry in inbox.entries()]


def ids(events: Sequence[Any]) -> list[int]:
    return [event.text.id for event in events]


# --- with an inbox ----------------------------------------------------------------------------------------


async def test_each_event_is_a_delivery_of_its_own(make_receiver, events, attempts):
    """With the envelope's time, and the index in its key; the envelope is done."""
    inbox = MemoryInbox(keep_bodies=True)
    body = envelope(1, 2, 3)
    await handle(make_receiver(inbox), body)

    parent, *parts = await entries_of(inbox)
    assert (ids(events), {event.webhook_id for event in events}) == ([1, 2, 3], {7})
    assert attempts.outcomes == ["split", "handled", "handled", "handled"]
    assert [part.delivery.key for part in parts] == [f"{parent.delivery.key}/{index}" for index in range(3)]
    assert {part.delivery.received_at for part in parts} == {parent.delivery.received_at}
    assert [json.loads(part.delivery.body) for part in parts] == [json.loads(envelope(number)) for number in (1, 2, 3)]
    assert (parent.state, parent.delivery.body) == ("done", body)


async def test_the_envelope_has_no_event_key(make_receiver):
    """Its events have."""
    inbox = MemoryInbox()
    await handle(make_receiver(inbox), envelope(1, 2))

    assert await inbox.handled(["", "text:1:FINISHED", "text:2:FINISHED"]) == {"text:1:FINISHED", "text:2:FINISHED"}


async def test_an_envelope_with_one_event_is_not_split(make_receiver, events, attempts):
    """It is handled as the body of API 1.1 is."""
    inbox = MemoryInbox()
    await handle(make_receiver(inbox), envelope(1))

    assert (ids(events), attempts.outcomes, len(await entries_of(inbox))) == ([1], ["handled"], 1)


async def test_each_event_has_its_own_attempts_and_dead_letter(make_receiver, events):
    """The handler fails for one event and rejects another; one cannot be read."""
    inbox = MemoryInbox()
    await handle(make_receiver(inbox, retry=IMMEDIATE), envelope(1, REJECTED, FAILING, UNREADABLE, 2))

    _, one, rejected, failing, unreadable, two = await entries_of(inbox)
    assert sorted(ids(events)) == [1, 2, REJECTED, *[FAILING] * 3]
    assert [entry.state for entry in (one, rejected, failing, unreadable, two)] == ["done", *["dead"] * 3, "done"]
    assert (rejected.reason, failing.attempt) == ("rejected: unlucky", 3)
    assert unreadable.reason.startswith("not a notification: ")


@pytest.mark.parametrize(
    "body",
    [
        envelope(),
        envelope(*range(1, 1002)),
        envelope(1, 2, events=7),
        envelope(1, 2)[:-1],
        envelope(1, 2, webhookName="x" * 5000),
    ],
)
async def test_a_broken_envelope_is_a_dead_letter(make_receiver, events, body):
    """Without events, with more than a thousand, incomplete, or with large members that would be repeated."""
    inbox = MemoryInbox()
    await handle(make_receiver(inbox), body)

    (entry,) = await entries_of(inbox)
    assert (entry.state, entry.delivery.body, events) == ("dead", body, [])


async def test_the_largest_envelope_is_split_within_limits(make_receiver, events):
    """A thousand events of a body of nearly 1 MiB become little more than 1 MiB."""
    inbox = MemoryInbox(keep_bodies=True)
    message = {"eventType": "Finished", "resource": {"id": 1, "message": "x" * 940}}
    body = envelope(*[message] * 1000)
    await handle(make_receiver(inbox), body)

    _, *parts = await entries_of(inbox)
    assert (len(body) > 1_000_000, len(events), len(parts)) == (True, 1000, 1000)
    assert sum(len(part.delivery.body) for part in parts) < 2 * len(body)


@pytest.mark.parametrize("smallest", ["{}", "0", "null", '{"eventType":"Finished"}'])
async def test_a_body_full_of_the_smallest_events_is_refused_fast(make_receiver, smallest):
    """The events are counted before they are converted; nothing is stored for them."""
    inbox = MemoryInbox()
    count = (1024 * 1024 - 100) // (len(smallest) + 1)
    body = ('{"resourceType":"InboundText","events":[' + ",".join([smallest] * count) + "]}").encode()
    started = time.process_time()
    await handle(make_receiver(inbox), body)

    assert time.process_time() - started < 2.0
    assert [entry.state for entry in await entries_of(inbox)] == ["dead"]


@pytest.mark.parametrize(
    ("encoding", "content_type"),
    [("utf-16", "application/json"), ("latin-1", "application/json; charset=latin-1")],
)
async def test_an_envelope_in_any_charset_is_split(make_receiver, events, encoding, content_type):
    """Its events are stored in UTF-8."""
    body = json.dumps(
        json.loads(envelope(1, {**element(2), "resource": {"id": 2, "message": "café"}})), ensure_ascii=False
    )
    async with make_receiver(MemoryInbox()) as receiver:
        await receiver.receive(postback(body.encode(encoding), content_type))
        await receiver.idle(timeout=DEADLINE)

    assert [event.text.message for event in events] == ["hello", "café"]


# --- interrupted splits -----------------------------------------------------------------------------------


class LosingInbox(MemoryInbox):
    """An inbox that loses the first lease of an envelope before its ack, as if the process had crashed."""

    def __init__(self) -> None:
        super().__init__()
        self.acks = 0

    async def ack(self, lease: Lease, *, event_key: str = "") -> bool:
        self.acks += not event_key
        if not event_key and self.acks == 1:
            await asyncio.sleep(0)
            await super().release(lease)
        return await super().ack(lease, event_key=event_key)


async def test_a_repeated_split_adds_nothing(make_receiver, events, attempts):
    """The envelope is claimed again after a crash between the two operations."""
    inbox = LosingInbox()
    await handle(make_receiver(inbox), envelope(1, 2, REJECTED))

    states = [entry.state for entry in await entries_of(inbox)]
    assert (sorted(ids(events)), states) == ([1, 2, REJECTED], ["done", "done", "done", "dead"])
    assert sorted(attempts.outcomes) == ["dead", "handled", "handled", "lost", "split"]


async def test_a_repeated_split_does_not_change_a_dead_letter(make_receiver, events):
    """It was rejected, and its envelope is claimed again later."""
    inbox = MemoryInbox()
    body = envelope(1, REJECTED)
    async with inbox:
        await inbox.append(Delivery(body, "application/json"))
        (lease,) = await inbox.claim(1, lease=0)
        await _envelope_splitter.store_events(inbox, lease, [envelope(1), envelope(REJECTED)])
        (done, dead) = [one for one in await inbox.claim(10, lease=60) if "/" in one.delivery.key]
        await inbox.ack(done, event_key="event")
        await inbox.dead_letter(dead, "rejected: unlucky")
        for other in await inbox.claim(10, lease=60):
            await inbox.release(other)
    await handle(make_receiver(inbox))

    assert events == []
    assert [entry.state for entry in await entries_of(inbox)] == ["done", "done", "dead"]


async def test_a_repeated_postback_is_not_split_again(make_receiver, events):
    """Within the deduplication window."""
    body = envelope(1, REJECTED)
    inbox = MemoryInbox()
    receiver = make_receiver(inbox)
    await handle(receiver, body, body)

    assert (ids(events), (await receiver.stats()).duplicates) == ([1, REJECTED], 1)


# --- failures of the inbox --------------------------------------------------------------------------------


@pytest.mark.usefixtures("fast_retries")
@pytest.mark.parametrize(
    "trouble", [InboxError("the inbox is full"), OSError("secret words"), asyncio.CancelledError()]
)
async def test_events_that_cannot_be_stored_are_retried(make_receiver, events, attempts, caplog, trouble):
    """While the envelope is leased; one ERROR names the cause."""

    class Failing(MemoryInbox):
        failures = 2

        async def append_many(self, deliveries: Sequence[Delivery]) -> Any:
            if len(deliveries) > 1 and self.failures:
                self.failures -= 1
                raise trouble
            return await super().append_many(deliveries)

    await handle(make_receiver(Failing()), envelope(1, 2))

    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert (ids(events), attempts.outcomes) == ([1, 2], ["split", "handled", "handled"])
    assert len(errors) == 1
    assert errors[0].startswith("cannot store the 2 events of delivery 1, retrying every 0 s: ")
    assert "secret" not in errors[0]


async def test_a_lost_response_does_not_double_the_events(make_receiver, events, fast_retries):
    """The inbox has stored them, and the retry finds duplicates."""

    class Losing(MemoryInbox):
        is_first = True

        async def append_many(self, deliveries: Sequence[Delivery]) -> Any:
            results = await super().append_many(deliveries)
            if len(deliveries) > 1 and self.is_first:
                self.is_first = False
                raise InboxError("connection closed")
            return results

    await handle(make_receiver(Losing()), envelope(1, 2))

    assert sorted(ids(events)) == [1, 2]


async def test_an_inbox_that_stays_full_delays_the_envelope(make_receiver, events, attempts, fast_retries):
    """Its slot becomes free, so that other deliveries are handled, and the inbox has space for the events."""
    inbox = MemoryInbox(max_deliveries=4)
    receiver = make_receiver(inbox, concurrency=1, retry=RetryPolicy(max_attempts=1))
    async with inbox:
        await inbox.append_many([Delivery(envelope(1, 2, 3), key="a"), Delivery(envelope(4)), Delivery(envelope(5))])
    await handle(receiver)

    assert sorted(ids(events)) == [1, 2, 3, 4, 5]
    assert attempts.outcomes[0] == "failed"
    assert attempts.records[0].reason == "cannot store its 3 events: the inbox is full: max_deliveries is 4"
    assert "dead" not in attempts.outcomes


async def test_an_envelope_that_can_never_be_stored_is_a_dead_letter(make_receiver, events, attempts, fast_retries):
    """After twelve attempts, with the reason; nothing is lost."""
    inbox = MemoryInbox(max_deliveries=3)
    await handle(make_receiver(inbox), envelope(1, 2, 3, 4))

    (entry,) = await entries_of(inbox)
    assert (events, attempts.outcomes) == ([], ["failed"] * 11 + ["dead"])
    assert (entry.state, entry.reason) == ("dead", "cannot store its 4 events: the inbox is full: max_deliveries is 3")


async def test_a_stop_releases_an_envelope_whose_events_cannot_be_stored(make_receiver, events, attempts, caplog):
    """The next start splits it."""
    inbox = FaultyInbox(MemoryInbox())
    inbox.rejected_bodies = frozenset([json.dumps(json.loads(envelope(1)), separators=(",", ":")).encode()])
    receiver = make_receiver(inbox, shutdown_timeout=0.0)
    async with receiver:
        await receiver.receive(postback(envelope(1, 2)))
        async with asyncio.timeout(DEADLINE):
            while "cannot store the 2 events" not in caplog.text:  # noqa: ASYNC110  # no event signals it
                await asyncio.sleep(0.001)
    inbox.rejected_bodies = frozenset()
    await handle(receiver)

    assert (attempts.outcomes, ids(events)) == (["released", "split", "handled", "handled"], [1, 2])


async def test_the_events_persist(make_receiver, events, tmp_path):
    """A process that stops after the split leaves one delivery for each event."""
    path = tmp_path / "inbox.db"
    async with SqliteInbox(path) as inbox:
        await inbox.append(Delivery(envelope(1, 2, 3), "application/json"))
        (lease,) = await inbox.claim(1, lease=60)
        await _envelope_splitter.store_events(inbox, lease, [envelope(number) for number in (1, 2, 3)])
    await handle(make_receiver(SqliteInbox(path)))

    assert sorted(ids(events)) == [1, 2, 3]


# --- without an inbox -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("elements", "status", "outcomes"),
    [
        ((1, 2), 204, ["handled", "handled"]),
        ((1, FAILING, 2), 500, ["handled", "failed", "handled"]),
        ((1, UNREADABLE, 2), 500, ["handled", "refused", "handled"]),
        ((UNREADABLE, FAILING, 2), 500, ["refused", "failed", "handled"]),
        ((UNREADABLE, UNREADABLE), 422, ["refused", "refused"]),
        ((1, {"eventType": "Vanished", "resource": {}}), 204, ["handled", "unhandled"]),
        ((), 422, ["refused"]),
        (range(1, 1002), 422, ["refused"]),
    ],
)
async def test_all_events_are_handled_before_the_response(make_receiver, attempts, elements, status, outcomes):
    """204 only if all succeeded; an event that cannot be read, or whose handler fails, does not prevent the others."""
    async with make_receiver(None) as receiver:
        reply = await receiver.receive(postback(envelope(*elements)))

    assert (reply.status, attempts.outcomes) == (status, outcomes)


async def test_each_attempt_without_an_inbox_has_its_own_event(make_receiver, attempts):
    """And its own delivery, with the index in its key."""
    body = envelope(1, 2)
    async with make_receiver(None) as receiver:
        await receiver.receive(postback(body))
        stats = await receiver.stats()

    assert [(record.event.text.id, record.delivery.key) for record in attempts.records] == [
        (number + 1, f"{Delivery(body).key}/{number}") for number in range(2)
    ]
    assert stats.handled == 2
