"""Finding what was missed, and waiting for the end of a broadcast, against a CallFire in memory."""

import asyncio
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
    """Subscribe; return the subscription."""
    created = await callfire.subscriptions.create(endpoint, trigger, **options)
    return await callfire.subscriptions.get(created.id)


async def handle(inbox, *bodies):
    """Have a receiver take some bodies and handle all that its inbox holds; return the events."""
    events = []
    router = Router()

    @router.on(Notification)
    async def handled(event: Notification) -> None:
        events.append(event)

    async with Receiver(router, tokens=None, inbox=inbox) as receiver:
        for content_type, body in bodies:
            await inbox.append(Delivery(body, content_type))
        await receiver.idle(timeout=DEADLINE)
    return events


# --- what was missed --------------------------------------------------------------------------------------


async def test_what_was_missed_is_handled(fake, callfire, inbox):
    """What was handled is left alone; the rest comes as if CallFire had posted it."""
    subscription = await subscribe(callfire)
    missed, posted = make_text_sent(), make_text_sent(subscription_id=subscription.id)
    fake.add(missed.text, posted.text)
    await handle(inbox, encode(posted))

    found = await reconcile(callfire, inbox, [subscription], since=SINCE)

    assert found == ReconcileResult(listed=2, handled=1, appended=1)
    (event,) = await handle(inbox)
    assert event == evolve(missed, subscription_id=subscription.id)


async def test_each_subscription_gets_what_matches_it(fake, callfire, inbox):
    """By trigger and filter; a mailbox, and what is disabled, gets nothing."""
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
    fake.add(*(event.text for event in events), call.call)

    found = await reconcile(callfire, inbox, callfire.subscriptions, since=SINCE)

    handled = await handle(inbox)
    assert found == ReconcileResult(listed=4, appended=4)
    assert [(event.subscription_id, event.key) for event in handled] == [
        (everything.id, events[0].key),
        (broadcast.id, events[0].key),
        (inbound.id, events[1].key),
        (calls.id, call.key),
    ]
    assert isinstance(handled[2], TextReceived)


async def test_a_repeated_run_changes_nothing(fake, callfire, inbox):
    """Neither before what it found was handled, nor after."""
    await subscribe(callfire)
    fake.add(make_text_sent().text, make_text_sent().text)
    everyone = callfire.subscriptions.all

    found = [await reconcile(callfire, inbox, everyone(), since=SINCE) for _ in range(2)]
    handled = await handle(inbox)
    found.append(await reconcile(callfire, inbox, everyone(), since=SINCE))

    assert found == [
        ReconcileResult(listed=2, appended=2),
        ReconcileResult(listed=2, duplicates=2, waiting=2),
        ReconcileResult(listed=2, handled=2),
    ]
    assert len(handled) == 2


async def test_what_is_not_finished_is_not_missed(fake, callfire, inbox):
    """It was never to be posted yet; a call neither."""
    subscriptions = [await subscribe(callfire), await subscribe(callfire, TriggerEvent.OUTBOUND_CALL_FINISHED)]
    call = make_call_finished().call
    fake.add(make_text_notification().text, evolve(call, state="READY", final_result=None, records=()))

    assert await reconcile(callfire, inbox, subscriptions, since=SINCE) == ReconcileResult()


async def test_only_the_window_is_listed(fake, callfire, inbox):
    """From its beginning to its end."""
    subscription = await subscribe(callfire)
    events = [make_text_sent(created=NOW - timedelta(hours=hours)) for hours in (30, 20, 10, 1)]
    fake.add(*(event.text for event in events))

    found = await reconcile(
        callfire, inbox, [subscription], since=SINCE, until=NOW - timedelta(hours=5), retention=timedelta(days=9)
    )

    assert (found.listed, [event.key for event in await handle(inbox)]) == (2, [event.key for event in events[1:3]])


async def test_a_run_that_broke_off_is_taken_up_again(fake, callfire, inbox):
    """At the page where it stopped, with what it had counted."""
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
            found = await reconcile(
                callfire, inbox, subscriptions, **window, page_size=2, progress=stop_at(number), resume=resume
            )

    assert found == ReconcileResult(listed=8, appended=8)
    assert [(step.kind, step.next_result, step.total_results) for step in steps] == [
        ("text", 2, 5),
        ("text", 4, 5),
        ("text", 5, 5),
        ("call", 2, 3),
        ("call", 3, 3),
    ]


async def test_a_run_is_taken_up_again_with_its_own_end(fake, callfire, inbox):
    """Unless that is given; with another window it would skip what it has not seen."""
    steps = []
    await reconcile(callfire, inbox, [], since=SINCE, progress=steps.append)

    assert await reconcile(callfire, inbox, [], since=SINCE, resume=steps[0]) == ReconcileResult()
    with pytest.raises(ValueError, match="its own since and until"):
        await reconcile(callfire, inbox, [], since=NOW, resume=steps[0])


@pytest.mark.parametrize(
    ("window", "message"),
    [
        ({"since": NOW - timedelta(days=31)}, "remembers what was handled since"),
        ({"since": SINCE, "retention": timedelta(hours=23)}, "remembers what was handled since"),
        ({"since": SINCE.replace(tzinfo=None)}, "offset"),
        ({"since": SINCE, "until": NOW.replace(tzinfo=None)}, "offset"),
        ({"since": NOW, "until": SINCE}, "after"),
    ],
)
async def test_a_window_that_cannot_be_reconciled_is_refused(callfire, inbox, window, message):
    """Above all one that is older than the inbox remembers: what was handled would be handled again."""
    with pytest.raises(ValueError, match=message):
        await reconcile(callfire, inbox, [], **window)


async def test_an_inbox_says_for_how_long_it_remembers(callfire, tmp_path):
    """Each of this library does; for another one somebody else has to."""
    hour = 3600.0
    inboxes = [
        MemoryInbox(retention=hour),
        SqliteInbox(tmp_path / "inbox.db", retention=hour),
        SqliteInbox.in_directory(tmp_path / "inboxes", retention=hour),
    ]
    silent = SqliteInbox.in_directory(tmp_path / "inboxes")
    silent.retention = None

    assert [inbox.retention for inbox in inboxes] == [hour] * 3
    with pytest.raises(TypeError, match="retention="):
        await reconcile(callfire, silent, [], since=SINCE)


async def test_a_page_that_cannot_be_fetched_is_an_error(fake, callfire, inbox):
    """With what was found before it kept."""
    fake.fail_next(Fault(status=403))

    with pytest.raises(PermissionDeniedError):
        await reconcile(callfire, inbox, [], since=SINCE)


# --- the end of a broadcast -------------------------------------------------------------------------------


@pytest.fixture
def router():
    return Router()


async def send(callfire, count=3):
    return await callfire.texts.send([f"1213555{number:04}" for number in range(count)], "Hello")


async def test_what_ended_before_anybody_asked_is_found():
    """The first poll is made at once, and is enough."""
    fake = FakeCallFire()
    async with fake.client() as callfire:
        broadcast = await send(callfire)

        texts = [
            text async for text in broadcast_results(broadcast, texts=callfire.texts, router=Router(), poll=DEADLINE)
        ]

    assert [(text.broadcast_id, text.final_result) for text in texts] == [(broadcast.id, Result.SENT)] * 3


class FirstPoll:
    """Notes that CallFire has answered the next request: what happens from then on, that answer does not show."""

    def __init__(self, fake):
        self.answered = asyncio.Event()
        fake.fail_next(Fault(hold=self.note))

    async def note(self):
        self.answered.set()


async def test_a_postback_is_not_waited_for_by_polling(fake, callfire, router):
    """Each text comes with the postback that says it; one that comes twice comes once."""
    broadcast = await send(callfire)
    async with (
        asyncio.timeout(DEADLINE),
        aclosing(broadcast_results(broadcast.id, texts=callfire.texts, router=router, poll=1000.0)) as ends,
    ):
        poll = FirstPoll(fake)
        first = asyncio.create_task(anext(ends))
        await poll.answered.wait()
        finished = list(fake._traffic.finish())
        # Not of this broadcast, and not the end of a text.
        await router.dispatch(make_text_sent(broadcast_id=7))
        for event in [finished[0], *finished]:
            await router.dispatch(event)
        texts = [await first, *[text async for text in ends]]

    assert sorted(text.id for text in texts) == sorted(event.text.id for event in finished)


async def test_polling_finds_what_no_postback_said(fake, callfire, router):
    """Postback or poll, whichever is first."""
    broadcast = await send(callfire, count=2)
    ends = broadcast_results(broadcast, texts=callfire.texts, router=router, poll=0.01)
    poll = FirstPoll(fake)
    first = asyncio.create_task(anext(ends))
    await poll.answered.wait()
    list(fake._traffic.finish())

    async with asyncio.timeout(DEADLINE):
        texts = [await first, *[text async for text in ends]]

    assert Counter(text.final_result for text in texts) == {Result.SENT: 2}


@pytest.mark.parametrize("state", ["SKIPPED", "DNC", "DUP", "INVALID", "TIMEOUT", "RESTRICTED_NUMBER"])
async def test_a_text_that_goes_no_further_has_ended(fake, callfire, router, state):
    """It is never posted, and never gets a result."""
    text = make_text_notification(state=state, broadcast_id=5).text
    fake.add(text)

    assert [found async for found in broadcast_results(5, texts=callfire.texts, router=router)] == [text]


async def test_a_broadcast_without_texts_is_waited_for(callfire, router):
    """Until the caller gives up: CallFire may be about to make them."""

    async def wait():
        return [text async for text in broadcast_results(5, texts=callfire.texts, router=router, poll=0.01)]

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(wait(), 0.1)

    assert router._waiters == {}


async def test_a_poll_that_fails_is_left_to_the_next(fake, callfire, router, caplog):
    """CallFire's bad minute does not end the wait; the first poll must succeed, and so must what is asked for."""
    broadcast = await send(callfire, count=1)
    fake.fail_next(Fault(status=503))
    with pytest.raises(ServerError):
        await anext(broadcast_results(broadcast, texts=callfire.texts, router=router))

    ends = broadcast_results(broadcast, texts=callfire.texts, router=router, poll=0.01)
    first = asyncio.create_task(anext(ends))
    fake.fail_next(Fault(hold=partial(asyncio.sleep, 0)), Fault(status=503))
    async with asyncio.timeout(DEADLINE):
        while "asked for again later" not in caplog.text:  # noqa: ASYNC110  # until it has failed
            await asyncio.sleep(0.01)
        await fake.finish_texts()
        texts = [await first, *[text async for text in ends]]

    assert len(texts) == 1


@pytest.mark.parametrize("poll", [0, -1.0])
async def test_a_poll_takes_time(callfire, router, poll):
    """Otherwise it would be nothing but polling."""
    with pytest.raises(ValueError, match="poll"):
        await anext(broadcast_results(5, texts=callfire.texts, router=router, poll=poll))


async def test_a_receiver_and_the_fake_work_together(router):
    """From sending to the end, over the fake's own postbacks."""
    seen = []

    @router.on(TextFinished)
    async def finished(event: TextFinished) -> None:
        seen.append(parse(encode(event)[1]))

    fake = FakeCallFire(finishes_texts=False)
    async with fake.client() as callfire:
        broadcast = await send(callfire)
        ends = broadcast_results(broadcast, texts=callfire.texts, router=router, poll=1000.0)
        poll = FirstPoll(fake)
        first = asyncio.create_task(anext(ends))
        await poll.answered.wait()
        for event in fake._traffic.finish():
            await router.dispatch(event)
        async with asyncio.timeout(DEADLINE):
            texts = [await first, *[text async for text in ends]]

    assert [event.text for event in seen] == texts
