"""Which handlers get an event, and how their exceptions are reported."""

import asyncio
import contextvars
import functools
import json

import pytest

from callfire_async import Call, HandlerErrors, ResourceReference, Subscription, Text, TriggerEvent
from callfire_async.models import WEBHOOK_EVENTS, Webhook, WebhookEvent, WebhookResource
from callfire_async.notifications import (
    AccountNotification,
    CallFinished,
    CampaignNotification,
    CampaignStarted,
    CampaignStopped,
    ContactListNotification,
    ContactListValidationFailed,
    DeliveryReportReceived,
    Notification,
    Router,
    TextFinished,
    TextNotification,
    TextReceived,
    TextSent,
    UnknownNotification,
    parse,
)
from callfire_async.notifications.routing._posted_types import TYPES_BY_WEBHOOK_EVENT

SENT = TextSent(subscription_id=7, text=Text(1))
OF_WEBHOOK = TextSent(webhook_id=5, text=Text(1))
CALL = CallFinished(subscription_id=8, call=Call(2))


@pytest.fixture
def router() -> Router:
    return Router()


@pytest.fixture
def ran() -> list[str]:
    return []


def add(router: Router, ran: list[str], name: str, event_type: type = Notification, **options: object) -> None:
    """Register a handler that records its name when it runs."""

    async def handler(event: Notification) -> None:
        ran.append(name)

    router.on(event_type, name=name, **options)(handler)


def add_failing(router: Router, name: str, error: Exception) -> None:
    async def handler(event: Notification) -> None:
        raise error

    router.on(Notification, name=name)(handler)


async def test_a_handler_gets_its_type_and_subclasses(router, ran):
    """Handlers run in the order of registration."""
    for kind in (Notification, TextReceived, TextSent, CallFinished, TextFinished, TextNotification):
        add(router, ran, kind.__name__, kind)

    names = await router.dispatch(SENT)

    assert ran == ["Notification", "TextSent", "TextFinished", "TextNotification"]
    assert names == set(ran)


@pytest.mark.parametrize("source", [7, Subscription(7), ResourceReference(7), {7, 9}, range(7, 8)])
async def test_a_handler_bound_to_a_subscription_gets_only_its_events(router, ran, source):
    """Bound by an id, by the result of create or get, or by a container."""
    add(router, ran, "bound", subscription_id=source)

    for event in (SENT, CALL, TextSent(text=Text(1))):
        await router.dispatch(event)

    assert ran == ["bound"]


@pytest.mark.parametrize("source", [5, Webhook(5), ResourceReference(5), {5, 9}, range(5, 6)])
async def test_a_handler_bound_to_a_webhook_gets_only_its_events(router, ran, source):
    """Bound by an id, by the result of create or get, or by a container."""
    add(router, ran, "bound", webhook_id=source)

    for event in (OF_WEBHOOK, SENT, TextSent(webhook_id=6, text=Text(1)), TextSent(text=Text(1))):
        await router.dispatch(event)

    assert ran == ["bound"]


async def test_a_handler_bound_to_both_gets_the_events_of_either(router, ran):
    """As while an account moves from subscriptions to webhooks."""
    add(router, ran, "bound", subscription_id=7, webhook_id=5)

    for event in (SENT, OF_WEBHOOK, CALL, TextSent(webhook_id=7, subscription_id=5, text=Text(1))):
        await router.dispatch(event)

    assert ran == ["bound", "bound"]


async def test_a_handler_bound_to_a_subscription_gets_no_event_of_a_webhook(router, ran):
    """The ids of both are independent."""
    add(router, ran, "bound", subscription_id=5)

    await router.dispatch(OF_WEBHOOK)

    assert ran == []


async def test_a_container_is_checked_at_each_dispatch(router, ran):
    """A set may be filled after create has returned."""
    ids: set[int] = set()
    add(router, ran, "bound", subscription_id=ids)

    await router.dispatch(SENT)
    ids.add(7)
    await router.dispatch(SENT)

    assert ran == ["bound"]


async def test_where_selects_the_events_of_a_handler(router, ran):
    """It is called only with events of the handler's type."""
    add(router, ran, "first", TextFinished, where=lambda event: event.text.id == 1)
    add(router, ran, "other", TextFinished, where=lambda event: event.text.id == 2)

    await router.dispatch(CALL)
    await router.dispatch(SENT)

    assert ran == ["first"]


async def test_all_handlers_run_even_if_one_fails(router, ran):
    """Their exceptions are raised as one group with their names."""
    errors = ValueError("one"), KeyError("two")
    add_failing(router, "fails", errors[0])
    add(router, ran, "runs")
    add_failing(router, "fails too", errors[1])

    with pytest.raises(HandlerErrors) as caught:
        await router.dispatch(SENT)

    assert (caught.value.exceptions, caught.value.failed) == (errors, ("fails", "fails too"))
    assert (caught.value.completed, ran) == ({"runs"}, ["runs"])


async def test_a_where_that_raises_fails_its_handler(router, ran):
    """A bug in a filter does not silently lose the event."""
    add(router, ran, "filtered", where=lambda event: event.missing)
    add(router, ran, "runs")

    with pytest.raises(HandlerErrors) as caught:
        await router.dispatch(SENT)

    assert (caught.value.failed, ran) == (("filtered",), ["runs"])


async def test_cancellation_is_not_a_handler_failure(router, ran):
    """It propagates, and ``completed`` has the handlers that had succeeded."""
    started = asyncio.Event()
    add(router, ran, "runs")

    @router.on(Notification)
    async def hangs(event: Notification) -> None:
        started.set()
        await asyncio.Event().wait()

    completed: set[str] = set()
    task = asyncio.create_task(router.dispatch(SENT, completed=completed))
    await started.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert completed == {"runs"}


async def test_a_handler_that_takes_too_long_has_failed(router, ran):
    """Each handler has its own timeout; the next handler runs."""

    @router.on(Notification, name="hangs")
    async def hangs(event: Notification) -> None:
        await asyncio.Event().wait()

    add(router, ran, "runs")

    with pytest.raises(HandlerErrors) as caught:
        await router.dispatch(SENT, handler_timeout=0.01)

    (error,) = caught.value.exceptions
    assert (type(error), error.__notes__, ran) == (
        TimeoutError,
        ["the handler took longer than 0.01 seconds"],
        ["runs"],
    )


async def test_a_handler_that_never_awaits_cannot_time_out(router, monkeypatch):
    """Nothing can interrupt such a handler, so it succeeds although its time is over when it returns."""
    loop = asyncio.get_running_loop()
    clock = loop.time

    @router.on(TextSent, name="blocks")
    async def handler(event):
        monkeypatch.setattr(loop, "time", lambda: clock() + 1_000)

    assert await router.dispatch(SENT, handler_timeout=900) == {"blocks"}


async def test_a_timeout_includes_the_time_before_the_first_await(router, monkeypatch):
    """A handler that blocks beyond its timeout and then awaits is cancelled."""
    loop = asyncio.get_running_loop()
    clock = loop.time

    @router.on(TextSent)
    async def handler(event):
        monkeypatch.setattr(loop, "time", lambda: clock() + 1_000)
        await asyncio.Event().wait()

    with pytest.raises(HandlerErrors) as caught:
        await router.dispatch(SENT, handler_timeout=900)

    assert isinstance(caught.value.exceptions[0], TimeoutError)


async def test_a_handler_with_a_timeout_runs_in_the_task_and_context_of_the_dispatch(router):
    """Context variables that it sets remain set."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    tasks: list[object] = []

    @router.on(TextSent)
    async def handler(event):
        tasks.append(asyncio.current_task())
        await asyncio.sleep(0)
        tasks.append(asyncio.current_task())
        variable.set("set")

    await router.dispatch(SENT, handler_timeout=10)

    assert tasks == [asyncio.current_task()] * 2
    assert variable.get() == "set"


async def test_a_cancelled_dispatch_cancels_the_handler(router):
    """The handler gets the CancelledError, which propagates."""
    started, caught = asyncio.Event(), []

    @router.on(TextSent)
    async def handler(event):
        try:
            started.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            caught.append("cancelled")
            raise

    task = asyncio.create_task(router.dispatch(SENT, handler_timeout=10))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert caught == ["cancelled"]


async def test_a_handlers_own_timeout_error_has_no_note(router):
    """Only the router's timeout adds one."""
    add_failing(router, "fails", TimeoutError("its own"))

    with pytest.raises(HandlerErrors) as caught:
        await router.dispatch(SENT, handler_timeout=10)

    assert not hasattr(caught.value.exceptions[0], "__notes__")


async def test_skipped_handlers_do_not_run(router, ran):
    """A second attempt runs only the handlers that failed in the first."""
    add(router, ran, "done")
    add(router, ran, "to do")

    names = await router.dispatch(SENT, skip={"done"})

    assert (ran, names) == (["to do"], {"to do"})


async def test_the_fallback_gets_events_without_a_matching_handler(router, ran):
    """No others; a skipped handler counts as matching."""
    add(router, ran, "texts", TextFinished)

    @router.fallback
    async def fallback(event: Notification) -> None:
        ran.append(event.name)

    await router.dispatch(SENT, skip={"texts"})
    await router.dispatch(CALL)

    assert ran == ["CallFinished"]


async def test_include_copies_the_current_handlers(router, ran):
    """Handlers that the other router gets later are not included."""
    other = Router()
    add(router, ran, "a")
    add(other, ran, "b", TextFinished)
    add(other, ran, "c")
    other.fallback(_fallback)

    router.include(other)
    add(other, ran, "late")
    await router.dispatch(SENT)

    assert ran == ["a", "b", "c"]


async def test_where_may_be_any_callable(router, ran):
    """For example the type ``bool``."""
    add(router, ran, "all", Notification)
    add(router, ran, "true", TextFinished, where=bool)

    await router.dispatch(SENT)

    assert ran == ["all", "true"]


async def _fallback(event: Notification) -> None: ...


async def test_including_a_router_without_a_fallback_keeps_the_fallback(router, ran):
    """The including router's fallback stays."""
    other = Router()
    add(other, ran, "a", CallFinished)
    router.fallback(_fallback)

    router.include(other)

    assert [handler.name for handler in router.matching(SENT)] == [f"{__name__}._fallback"]


def test_matching_returns_the_handlers_of_an_event(router, ran):
    """Nothing runs, and handlers may still be registered. A handler whose where raises is included."""
    add(router, ran, "texts", TextFinished)
    add(router, ran, "broken", where=lambda event: event.missing)

    names = [handler.name for handler in router.matching(SENT)]
    add(router, ran, "later")

    assert (names, ran) == (["texts", "broken"], [])


def test_matching_returns_the_fallback_if_no_handler_matches(router):
    """A dispatch would run it."""
    router.fallback(_fallback)

    assert [handler.name for handler in router.matching(SENT)] == [f"{__name__}._fallback"]


def test_names_default_to_module_and_qualname(router):
    """They are the same after a restart of the program."""
    router.on(TextSent)(_fallback)

    assert router.matching(SENT)[0].name == f"{__name__}._fallback"


def test_event_types_lists_the_types_of_the_handlers(router, ran):
    """Each once, in the order of registration."""
    for name, kind in [("a", CallFinished), ("b", TextSent), ("c", CallFinished)]:
        add(router, ran, name, kind)

    assert router.event_types == (CallFinished, TextSent)


@pytest.mark.parametrize(
    ("event_type", "triggers"),
    [
        (TextSent, ["OUTBOUND_TEXT_FINISHED"]),
        (TextReceived, ["INBOUND_TEXT_FINISHED"]),
        (TextFinished, ["INBOUND_TEXT_FINISHED", "OUTBOUND_TEXT_FINISHED"]),
        (TextNotification, ["INBOUND_TEXT_FINISHED", "OUTBOUND_TEXT_FINISHED"]),
        (CallFinished, ["INBOUND_CALL_FINISHED", "OUTBOUND_CALL_FINISHED"]),
        (CampaignStarted, ["CAMPAIGN_STARTED"]),
        (CampaignNotification, ["CAMPAIGN_STARTED", "CAMPAIGN_STOPPED", "CAMPAIGN_FINISHED"]),
        (UnknownNotification, []),
        (Notification, [trigger for trigger in TriggerEvent if trigger != "UNDEFINED_EVENT"]),
    ],
)
def test_trigger_events_lists_the_triggers_to_subscribe_to(router, ran, event_type, triggers):
    """Each trigger whose events match a handler, in the order of the enum."""
    add(router, ran, "handler", event_type)

    assert list(router.trigger_events) == triggers


def test_handlers_bound_to_a_subscription_need_no_trigger(router, ran):
    """Their subscription exists."""
    add(router, ran, "bound", TextSent, subscription_id=7)

    assert (router.trigger_events, router.webhook_events) == ((), ())


BROADCASTS = ("CallBroadcast", "TextBroadcast", "CccCampaign")


@pytest.mark.parametrize(
    ("event_type", "events"),
    [
        (TextSent, ["OutboundText.Finished"]),
        (TextReceived, ["InboundText.Finished"]),
        (TextFinished, ["OutboundText.Finished", "InboundText.Finished"]),
        (CallFinished, ["OutboundCall.Finished", "InboundCall.Finished"]),
        (CampaignStopped, [f"{broadcast}.Stopped" for broadcast in BROADCASTS]),
        (
            CampaignNotification,
            [f"{broadcast}.{event}" for broadcast in BROADCASTS for event in ("Started", "Stopped", "Finished")],
        ),
        (ContactListValidationFailed, ["ContactList.ValidationFailed"]),
        (ContactListNotification, ["ContactList.ValidationFinished", "ContactList.ValidationFailed"]),
        (DeliveryReportReceived, ["OutboundTextDeliveryReport.Received"]),
        (
            AccountNotification,
            [
                f"{resource}.{event}"
                for resource in ("MonthlyRenewal", "LowBalance")
                for event in ("Finished", "Failed")
            ],
        ),
        (UnknownNotification, []),
        (Notification, [f"{resource}.{event}" for resource, events in WEBHOOK_EVENTS.items() for event in events]),
    ],
)
def test_webhook_events_lists_the_events_to_create_webhooks_for(router, ran, event_type, events):
    """Each event that matches a handler, in the order of CallFire's documentation."""
    add(router, ran, "handler", event_type)

    assert [f"{resource}.{event}" for resource, event in router.webhook_events] == events
    assert {(type(resource), type(event)) for resource, event in router.webhook_events} <= {
        (WebhookResource, WebhookEvent)
    }


@pytest.mark.parametrize("pair", TYPES_BY_WEBHOOK_EVENT, ids=".".join)
def test_the_types_of_webhook_events_are_those_that_parse_returns(pair):
    """Here of a text that was sent."""
    resource = {"id": 1, "finalTextResult": "SENT"}
    event = {"resourceType": pair[0], "eventType": pair[1], "resource": resource}

    assert type(parse(json.dumps({"events": [event]}))) is TYPES_BY_WEBHOOK_EVENT[pair]


def test_handlers_bound_to_a_webhook_need_no_webhook(router, ran):
    """It exists; and they get no events of a subscription."""
    add(router, ran, "bound", TextSent, webhook_id=5)
    add(router, ran, "either", TextSent, subscription_id=7, webhook_id=5)

    assert (router.webhook_events, router.trigger_events) == ((), ())


def test_a_handler_shows_what_it_is_bound_to(router, ran):
    """None if it is not bound."""
    add(router, ran, "free")
    add(router, ran, "bound", subscription_id={7}, webhook_id=5)

    assert [(handler.subscription_id, handler.webhook_id, handler.is_bound) for handler in router.handlers] == [
        (None, None, False),
        ({7}, {5}, True),
    ]


async def test_registering_after_the_first_dispatch_raises(router, ran):
    """The handler might have missed an event."""
    await router.dispatch(SENT)

    with pytest.raises(RuntimeError, match="before the first"):
        add(router, ran, "late")
    with pytest.raises(RuntimeError, match="before the first"):
        router.fallback(_fallback)


def test_handler_names_are_unique(router, ran):
    """Deliveries store the names of handlers."""
    add(router, ran, "twice")

    with pytest.raises(ValueError, match="twice"):
        add(router, ran, "twice")


def test_there_is_one_fallback_with_a_unique_name(router):
    """A second fallback raises."""
    router.fallback(_fallback)
    other = Router()
    other.on(TextSent)(_fallback)

    with pytest.raises(ValueError, match="fallback"):
        router.fallback(_fallback)
    with pytest.raises(ValueError, match="_fallback"):
        other.fallback(_fallback)


def test_a_failed_include_copies_nothing(router, ran):
    """A name exists in both routers."""
    other = Router()
    add(router, ran, "taken")
    add(other, ran, "free")
    add(other, ran, "taken")

    with pytest.raises(ValueError, match="taken"):
        router.include(other)

    assert [handler.name for handler in router.matching(SENT)] == ["taken"]


def _plain(event: Notification) -> None: ...


async def _no_argument() -> None: ...


async def _two_arguments(event: Notification, other: object) -> None: ...


async def _generator(event: Notification):
    yield event


@pytest.mark.parametrize("function", [_plain, _no_argument, _two_arguments, _generator, print, "text", None])
def test_an_invalid_handler_raises_at_registration(router, function):
    """Not at the first event."""
    with pytest.raises(TypeError, match="handler"):
        router.on(TextSent)(function)


def test_a_function_without_a_name_needs_one(router):
    """A partial function has no ``__qualname__``."""
    function = functools.partial(_two_arguments, other=1)

    with pytest.raises(TypeError, match="name="):
        router.on(TextSent)(function)
    router.on(TextSent, name="partial")(function)


@pytest.mark.parametrize("event_type", ["TextSent", Text, None, object])
def test_event_type_must_be_a_notification_type(router, event_type):
    """A model or a name raises."""
    with pytest.raises(TypeError, match="event_type"):
        router.on(event_type)


@pytest.mark.parametrize(("source", "error"), [("7", TypeError), (True, TypeError), (7.0, TypeError), (0, ValueError)])
def test_subscription_id_must_be_an_id_or_a_container(router, source, error):
    """A string is not a container of ids."""
    with pytest.raises(error, match="subscription"):
        router.on(TextSent, subscription_id=source)


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("5", TypeError),
        (True, TypeError),
        (5.0, TypeError),
        (Subscription(5), TypeError),
        ({"5"}, TypeError),
        (0, ValueError),
    ],
)
def test_webhook_id_must_be_an_id_or_a_container(router, source, error):
    """A subscription is not a webhook."""
    with pytest.raises(error, match=r"^webhook_id must "):
        router.on(TextSent, webhook_id=source)


def test_where_must_be_callable(router):
    """Anything else raises."""
    with pytest.raises(TypeError, match="where"):
        router.on(TextSent, where=True)(_fallback)


async def test_a_skipped_handler_does_not_fail_if_its_where_raises(router):
    """The exception is ignored, and the handler counts as matching."""
    router.on(TextSent, where=lambda _: 1 / 0, name="done")(_fallback)

    assert await router.dispatch(SENT, skip={"done"}) == frozenset()


async def test_matching_is_the_same_before_and_after_a_dispatch(router, ran):
    """Handlers of other subscriptions are excluded, unbound handlers included."""
    add(router, ran, "bound", subscription_id=7)
    add(router, ran, "other", subscription_id=8)
    add(router, ran, "free")
    before = router.matching(SENT)

    await router.dispatch(SENT)

    assert router.matching(SENT) == before
    assert ran == ["bound", "free"]


async def test_events_of_any_subscription_reach_handlers_without_one(router, ran):
    """A handler that is bound to another subscription gets none of them."""
    add(router, ran, "bound", subscription_id=7)
    add(router, ran, "free")

    for id in range(100, 200):
        await router.dispatch(TextSent(subscription_id=id, text=Text(1)))

    assert ran == ["free"] * 100
