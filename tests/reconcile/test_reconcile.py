"""`reconcile` and `broadcast_results` against the in-memory CallFire."""

import asyncio
import math
from collections import Counter
from contextlib import aclosing, suppress
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from attrs import evolve

from callfire_async import (
    NotificationFormat,
    PermissionDeniedError,
    Result,
    ServerError,
    SubscriptionFilter,
    TriggerEvent,
)
from callfire_async.notifications import (
    Delivery,
    MemoryInbox,
    Notification,
    Receiver,
    Router,
    SqliteInbox,
    TextFinished,
    TextReceived,
    parse,
)
from callfire_async.reconcile import Progress, ReconcileResult, broadcast_results, reconcile
from callfire_async.testing import (
    FakeCallFire,
    Fault,
    encode,
    make_call_finished,
    make_text_notification,
    make_text_received,
    make_text_sent,
)

DEADLINE = 20
NOW = datetime.now(UTC)
SINCE = NOW - timedelta(days=1)
OUTBOUND, INBOUND = TriggerEvent.OUTBOUND_TEXT_FINISHED, TriggerEvent.INBOUND_TEXT_FINISHED
ENDPOINT = "https://hooks.example.com/callfire/token"


@pytest.fixture
def fake():
    return FakeCallFire(finishes_texts=False)


@pytest.fixture
async def callfire(fake):
    async with fake.client(max_retries=0) as client:
        yield client


@pytest.fixture
def inbox():
    return MemoryInbox()


async def subscribe(callfire, trigger=OUTBOUND, endpoint=ENDPOINT, **options):
    """Create a subscription and return it."""
    created = await callfire.subscriptions.create(endpoint, trigger, **options)
    return await callfire.subscriptions.get(created.id)


async def handle(inbox, *bodies):
    """Append bodies to the inbox, let a receiver handle all deliveries, and return the events."""
    events = []
    router = Router()

    @router.on(Notification)
    async def record(event: Notification) -> None:
        events.append(event)

    async with Receiver(router, tokens=None, inbox=inbox) as receiver:
        for content_type, body in bodies:
            await inbox.append(Delivery(body, content_type))
        await receiver.idle(timeout=DEADLINE)
    return events


# --- reconcile --------------------------------------------------------------------------------------------


async def test_missed_events_are_appended(fake, callfire, inbox):
    """Handled events are skipped; the others are handled as if CallFire had posted them."""
    subscription = await subscribe(callfire)
    missed, posted = make_text_sent(), make_text_sent(subscription_id=subscription.id)
    fake.add(missed.text, posted.text)
    await handle(inbox, encode(posted))

    result = await reconcile(callfire, inbox, [subscription], since=SINCE)

    assert result == ReconcileResult(listed=2, handled=1, appended=1)
    (event,) = await handle(inbox)
    assert event == evolve(missed, subscription_id=subscription.id)


async def test_each_matching_subscription_gets_a_delivery(fake, callfire, inbox):
    """Trigger and filter decide; e-mail and disabled subscriptions get none."""
    everything = await subscribe(callfire)
    broadcast = await subscribe(callfire, filter=SubscriptionFilter(broadcast_id=5))
    inbound = await subscribe(callfire, INBOUND, filter=SubscriptionFilter(to_number="67076:KEYWORD"))
    calls = await subscribe(callfire, TriggerEvent.INBOUND_CALL_FINISHED)
    await subscribe(callfire, filter=SubscriptionFilter(broadcast_id=6))
    await subscribe(callfire, enabled=False)
    await subscribe(callfire, endpoint="me@example.com")
    await subscribe(callfire, notification_format=NotificationFormat.EMAIL)
    events = [
        make_text_sent(broadcast_id=5),
        make_text_received(message="keyword please"),
        make_text_received(message="something else"),
    ]
    call = make_call_finished(inbound=True)
    # CallFire lists the newest first.
    fake.add(*(event.text for event in reversed(events)), call.call)

    result = await reconcile(callfire, inbox, callfire.subscriptions, since=SINCE)

    handled = await handle(inbox)
    assert result == ReconcileResult(listed=4, appended=4)
    assert [(event.subscription_id, event.key) for event in handled] == [
        (everything.id, events[0].key),
        (broadcast.id, events[0].key),
        (inbound.id, events[1].key),
        (calls.id, call.key),
    ]
    assert isinstance(handled[2], TextReceived)


async def test_each_matching_webhook_gets_a_delivery(fake, callfire, inbox):
    """Resource and events decide, and the handlers of the webhook run; a disabled webhook gets none."""
    texts, calls, disabled = [
        (await callfire.webhooks.create(ENDPOINT, resource, name="nightly", enabled=enabled)).id
        for resource, enabled in (("InboundText", True), ("OutboundCall", True), ("InboundText", False))
    ]
    received, sent, call = make_text_received(), make_text_sent(), make_call_finished(inbound=False)
    fake.add(received.text, sent.text, call.call)

    results = [await reconcile(callfire, inbox, callfire.webhooks, since=SINCE) for _ in range(2)]

    handled = await handle(inbox)
    assert results == [ReconcileResult(listed=3, appended=2), ReconcileResult(listed=3, duplicates=2, waiting=2)]
    assert [(type(event), event.key, event.webhook_id, event.webhook_name) for event in handled] == [
        (type(received), received.key, texts, "nightly"),
        (type(call), call.key, calls, "nightly"),
    ]
    assert disabled not in {event.webhook_id for event in handled}


async def test_events_of_both_generations_count_as_handled(fake, callfire, inbox):
    """An event that a webhook has posted is not appended for a subscription, nor the other way round."""
    subscription = await subscribe(callfire, INBOUND)
    webhook = await callfire.webhooks.get((await callfire.webhooks.create(ENDPOINT, "InboundText")).id)
    by_webhook, by_subscription, missed = make_text_received(), make_text_received(), make_text_received()
    fake.add(by_webhook.text, by_subscription.text, missed.text)
    await handle(inbox, encode(by_webhook, api="v2"), encode(by_subscription))

    result = await reconcile(callfire, inbox, [subscription, webhook], since=SINCE)

    handled = await handle(inbox)
    assert result == ReconcileResult(listed=3, handled=2, appended=2)
    assert [(event.key, event.subscription_id, event.webhook_id) for event in handled] == [
        (missed.key, subscription.id, None),
        (missed.key, None, webhook.id),
    ]


async def test_repeated_run_appends_nothing(fake, callfire, inbox):
    """This holds before and after the appended deliveries have been handled."""
    await subscribe(callfire)
    fake.add(make_text_sent().text, make_text_sent().text)
    list_all = callfire.subscriptions.all

    results = [await reconcile(callfire, inbox, list_all(), since=SINCE) for _ in range(2)]
    handled = await handle(inbox)
    results.append(await reconcile(callfire, inbox, list_all(), since=SINCE))

    assert results == [
        ReconcileResult(listed=2, appended=2),
        ReconcileResult(listed=2, duplicates=2, waiting=2),
        ReconcileResult(listed=2, handled=2),
    ]
    assert len(handled) == 2


async def test_unfinished_texts_and_calls_are_not_listed(fake, callfire, inbox):
    """CallFire has not posted them yet."""
    subscriptions = [await subscribe(callfire), await subscribe(callfire, TriggerEvent.OUTBOUND_CALL_FINISHED)]
    call = make_call_finished().call
    fake.add(make_text_notification().text, evolve(call, state="READY", final_result=None, records=()))

    assert await reconcile(callfire, inbox, subscriptions, since=SINCE) == ReconcileResult()


async def test_window_limits_what_is_listed(fake, callfire, inbox):
    """Events before *since* and after *until* are not listed."""
    subscription = await subscribe(callfire)
    events = [make_text_sent(created=NOW - timedelta(hours=hours)) for hours in (30, 20, 10, 1)]
    fake.add(*(event.text for event in reversed(events)))

    result = await reconcile(
        callfire, inbox, [subscription], since=SINCE, until=NOW - timedelta(hours=5), retention=timedelta(days=9)
    )

    assert (result.listed, [event.key for event in await handle(inbox)]) == (2, [event.key for event in events[1:3]])


async def test_interrupted_run_can_be_resumed(fake, callfire, inbox):
    """It continues at the page where it stopped, with the counts so far."""
    subscriptions = [await subscribe(callfire), await subscribe(callfire, TriggerEvent.OUTBOUND_CALL_FINISHED)]
    fake.add(*(make_text_sent().text for _ in range(5)), *(make_call_finished().call for _ in range(3)))
    steps = []
    window = {"since": SINCE, "until": datetime.now(UTC)}

    def stop_at(number):
        def progress(step: Progress) -> None:
            steps.append(step)
            if len(steps) == number:
                raise InterruptedError

        return progress

    for number in (2, 4, 0):
        resume = steps[-1] if steps else None
        with suppress(InterruptedError):
            result = await reconcile(
                callfire, inbox, subscriptions, **window, page_size=2, progress=stop_at(number), resume=resume
            )

    assert result == ReconcileResult(listed=8, appended=8)
    assert [(step.kind, step.next_result, step.total_results) for step in steps] == [
        ("text", 2, 5),
        ("text", 4, 5),
        ("text", 5, 5),
        ("call", 2, 3),
        ("call", 3, 3),
    ]


async def test_resumed_run_uses_its_own_window(fake, callfire, inbox):
    """*until* is optional; another window is a ValueError, because events would be skipped."""
    steps = []
    await reconcile(callfire, inbox, [], since=SINCE, progress=steps.append)

    assert await reconcile(callfire, inbox, [], since=SINCE, resume=steps[0]) == ReconcileResult()
    with pytest.raises(ValueError, match="must be those of the resumed run"):
        await reconcile(callfire, inbox, [], since=NOW, resume=steps[0])


@pytest.mark.parametrize(
    ("window", "message"),
    [
        ({"since": NOW - timedelta(days=31)}, "since is older than the inbox's retention"),
        ({"since": SINCE, "retention": timedelta(hours=23)}, "since is older than the inbox's retention"),
        ({"since": SINCE.replace(tzinfo=None)}, "timezone-aware"),
        ({"since": SINCE, "until": NOW.replace(tzinfo=None)}, "timezone-aware"),
        ({"since": NOW, "until": SINCE}, "after"),
    ],
)
async def test_invalid_window_is_a_value_error(callfire, inbox, window, message):
    """So is one that begins before the inbox's retention, since handled events would be handled again."""
    with pytest.raises(ValueError, match=message):
        await reconcile(callfire, inbox, [], **window)


async def test_retention_is_read_from_the_inbox(callfire, tmp_path):
    """All inboxes of this library have it; for another inbox the argument is required."""
    hour = 3600.0
    inboxes = [
        MemoryInbox(retention=hour),
        SqliteInbox(tmp_path / "inbox.db", retention=hour),
        SqliteInbox.in_directory(tmp_path / "inboxes", retention=hour),
    ]
    without_retention = SqliteInbox.in_directory(tmp_path / "inboxes")
    without_retention.retention = None

    assert [inbox.retention for inbox in inboxes] == [hour] * 3
    with pytest.raises(TypeError, match="retention is required"):
        await reconcile(callfire, without_retention, [], since=SINCE)


async def test_page_size_is_checked_first(callfire, inbox):
    """The error names the parameter."""
    with pytest.raises(ValueError, match=r"^page_size must be an integer from 1"):
        await reconcile(callfire, inbox, [], since=SINCE, page_size=0)


async def test_retention_may_be_endless(callfire, tmp_path):
    """Then the window may begin at any time."""
    async with SqliteInbox(tmp_path / "inbox.db", retention=math.inf) as inbox:
        result = await reconcile(callfire, inbox, [], since=datetime(2000, 1, 1, tzinfo=UTC))

    assert result == ReconcileResult()


async def test_page_that_cannot_be_listed_is_an_error(fake, callfire, inbox):
    """The client's exception is raised."""
    fake.fail_next(Fault(status=403))

    with pytest.raises(PermissionDeniedError):
        await reconcile(callfire, inbox, [], since=SINCE)


# --- broadcast_results ------------------------------------------------------------------------------------


@pytest.fixture
def router():
    return Router()


async def send(callfire, count=3):
    return await callfire.texts.send([f"1213555{number:04}" for number in range(count)], "Hello")


async def test_texts_that_ended_before_are_found():
    """The first poll is made at once and finds all of them."""
    fake = FakeCallFire()
    async with fake.client() as callfire:
        broadcast = await send(callfire)

        texts = [
            text async for text in broadcast_results(broadcast, texts=callfire.texts, router=Router(), poll=DEADLINE)
        ]

    assert [(text.broadcast_id, text.final_result) for text in texts] == [(broadcast.id, Result.SENT)] * 3


class FirstPoll:
    """Sets ``responded`` when the fake responds to the next request: later changes are not in that response."""

    def __init__(self, fake):
        self.responded = asyncio.Event()
        fake.fail_next(Fault(hold=self.set_responded))

    async def set_responded(self):
        self.responded.set()


async def test_postbacks_yield_results_between_polls(fake, callfire, router):
    """Each text is yielded with its postback; a repeated postback yields nothing."""
    broadcast = await send(callfire)
    async with (
        asyncio.timeout(DEADLINE),
        aclosing(broadcast_results(broadcast.id, texts=callfire.texts, router=router, poll=1000.0)) as results,
    ):
        poll = FirstPoll(fake)
        first = asyncio.create_task(anext(results))
        await poll.responded.wait()
        finished = list(fake._message_store.finish())
        # An event of another broadcast.
        await router.dispatch(make_text_sent(broadcast_id=7))
        for event in [finished[0], *finished]:
            await router.dispatch(event)
        texts = [await first, *[text async for text in results]]

    assert sorted(text.id for text in texts) == sorted(event.text.id for event in finished)


async def test_poll_finds_results_without_postback(fake, callfire, router):
    """Texts whose postbacks were lost are found by the next poll."""
    broadcast = await send(callfire, count=2)
    results = broadcast_results(broadcast, texts=callfire.texts, router=router, poll=0.01)
    poll = FirstPoll(fake)
    first = asyncio.create_task(anext(results))
    await poll.responded.wait()
    list(fake._message_store.finish())

    async with asyncio.timeout(DEADLINE):
        texts = [await first, *[text async for text in results]]

    assert Counter(text.final_result for text in texts) == {Result.SENT: 2}


@pytest.mark.parametrize("state", ["SKIPPED", "DNC", "DUP", "INVALID", "TIMEOUT", "RESTRICTED_NUMBER"])
async def test_text_in_an_end_state_has_ended(fake, callfire, router, state):
    """Such a text never gets a result or a postback."""
    text = make_text_notification(state=state, broadcast_id=5).text
    fake.add(text)

    assert [result async for result in broadcast_results(5, texts=callfire.texts, router=router)] == [text]


async def test_broadcast_without_texts_is_polled_until_the_caller_gives_up(callfire, router):
    """CallFire may create the texts later. The event waiter is removed afterwards."""

    async def wait():
        return [text async for text in broadcast_results(5, texts=callfire.texts, router=router, poll=0.01)]

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(wait(), 0.1)

    assert router._waiters == {}


async def test_failed_poll_is_repeated(fake, callfire, router, caplog):
    """A server error is logged and the next poll continues; only the first poll must succeed."""
    broadcast = await send(callfire, count=1)
    fake.fail_next(Fault(status=503))
    with pytest.raises(ServerError):
        await anext(broadcast_results(broadcast, texts=callfire.texts, router=router))

    results = broadcast_results(broadcast, texts=callfire.texts, router=router, poll=0.01)
    first = asyncio.create_task(anext(results))
    fake.fail_next(Fault(hold=partial(asyncio.sleep, 0)), Fault(status=503))
    async with asyncio.timeout(DEADLINE):
        while "retrying later" not in caplog.text:  # noqa: ASYNC110  # the log is the only sign of the failure
            await asyncio.sleep(0.01)
        await fake.finish_texts()
        texts = [await first, *[text async for text in results]]

    assert len(texts) == 1


async def test_iteration_continues_until_a_poll_lists_texts(fake, callfire, router):
    """CallFire may post the first result before it lists the texts of the broadcast."""
    early, late = make_text_sent(broadcast_id=5), make_text_sent(broadcast_id=5)
    results = broadcast_results(5, texts=callfire.texts, router=router, poll=0.01)
    poll = FirstPoll(fake)
    first = asyncio.create_task(anext(results))
    await poll.responded.wait()
    await router.dispatch(early)
    async with asyncio.timeout(DEADLINE):
        assert await first == early.text
        poll = FirstPoll(fake)
        second = asyncio.create_task(anext(results))
        await poll.responded.wait()
        fake.add(early.text, late.text)
        assert await second == late.text
        assert [text async for text in results] == []


async def test_polls_are_not_repeated_at_once_after_a_failure(fake, callfire, router):
    """Not even if all known texts have ended: CallFire may have asked for fewer requests."""
    broadcast, poll_seconds = await send(callfire, count=1), 0.1
    results = broadcast_results(broadcast, texts=callfire.texts, router=router, poll=poll_seconds)
    poll = FirstPoll(fake)
    first = asyncio.create_task(anext(results))
    await poll.responded.wait()
    for event in fake._message_store.finish():
        await router.dispatch(event)
    async with asyncio.timeout(DEADLINE):
        await first
        fake.fail_next(*[Fault(status=429, retry_after=120)] * 3)
        started = asyncio.get_running_loop().time()
        assert [text async for text in results] == []

    assert asyncio.get_running_loop().time() - started >= 3 * poll_seconds


@pytest.mark.parametrize(
    ("poll", "kind"), [(0, ValueError), (-1.0, ValueError), (float("inf"), ValueError), ("30", TypeError)]
)
async def test_poll_must_be_a_positive_number(callfire, router, poll, kind):
    """The error names the parameter."""
    with pytest.raises(kind, match=r"^poll must be"):
        await anext(broadcast_results(5, texts=callfire.texts, router=router, poll=poll))


async def test_results_from_postbacks_equal_the_listed_texts(router):
    """The fake's postbacks, encoded and parsed, carry the same texts."""
    received = []

    @router.on(TextFinished)
    async def finished(event: TextFinished) -> None:
        received.append(parse(encode(event)[1]))

    fake = FakeCallFire(finishes_texts=False)
    async with fake.client() as callfire:
        broadcast = await send(callfire)
        results = broadcast_results(broadcast, texts=callfire.texts, router=router, poll=1000.0)
        poll = FirstPoll(fake)
        first = asyncio.create_task(anext(results))
        await poll.responded.wait()
        for event in fake._message_store.finish():
            await router.dispatch(event)
        async with asyncio.timeout(DEADLINE):
            texts = [await first, *[text async for text in results]]

    assert [event.text for event in received] == texts
