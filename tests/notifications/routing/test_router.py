"""Which handlers get an event, and what becomes of what they raise."""

import asyncio
import contextvars
import functools

import pytest

from callfire_async import Call, HandlerErrors, ResourceReference, Subscription, Text, TriggerEvent
from callfire_async.notifications import (
    CallFinished,
    CampaignNotification,
    CampaignStarted,
    Notification,
    Router,
    TextFinished,
    TextNotification,
    TextReceived,
    TextSent,
    UnknownNotification,
)

SENT = TextSent(subscription_id=7, text=Text(1))
CALL = CallFinished(subscription_id=8, call=Call(2))


@pytest.fixture
def router() -> Router:
    return Router()


@pytest.fixture
def ran() -> list[str]:
    return []


def add(router: Router, ran: list[str], name: str, event_type: type = Notification, **options: object) -> None:
    """Register a handler that notes that it ran."""

    async def handler(event: Notification) -> None:
        ran.append(name)

    router.on(event_type, name=name, **options)(handler)


def add_failing(router: Router, name: str, error: Exception) -> None:
    async def handler(event: Notification) -> None:
        raise error

    router.on(Notification, name=name)(handler)


async def test_a_handler_gets_its_type_and_the_types_below(router, ran):
    """In the order of registration, not of types."""
    for kind in (Notification, TextReceived, TextSent, CallFinished, TextFinished, TextNotification):
        add(router, ran, kind.__name__, kind)

    names = await router.dispatch(SENT)

    assert ran == ["Notification", "TextSent", "TextFinished", "TextNotification"]
    assert names == set(ran)


@pytest.mark.parametrize("source", [7, Subscription(7), ResourceReference(7), {7, 9}, range(7, 8)])
async def test_a_handler_bound_to_a_subscription_gets_only_what_that_sent(router, ran, source):
    """Bound by an id, by what create or get answered, or by a container."""
    add(router, ran, "bound", subscription_id=source)

    for event in (SENT, CALL, TextSent(text=Text(1))):
        await router.dispatch(event)

    assert ran == ["bound"]


async def test_a_container_is_asked_at_each_dispatch(router, ran):
    """A set may be filled once create has answered."""
    ids: set[int] = set()
    add(router, ran, "bound", subscription_id=ids)

    await router.dispatch(SENT)
    ids.add(7)
    await router.dispatch(SENT)

    assert ran == ["bound"]


async def test_where_narrows_what_a_handler_gets(router, ran):
    """It is asked last, of events of the handler's own type only."""
    add(router, ran, "first", TextFinished, where=lambda event: event.text.id == 1)
    add(router, ran, "other", TextFinished, where=lambda event: event.text.id == 2)

    await router.dispatch(CALL)
    await router.dispatch(SENT)

    assert ran == ["first"]


async def test_all_handlers_run_even_where_one_fails(router, ran):
    """What they raised comes as one group, beside their names."""
    errors = ValueError("one"), KeyError("two")
    add_failing(router, "fails", errors[0])
    add(router, ran, "runs")
    add_failing(router, "fails too", errors[1])

    with pytest.raises(HandlerErrors) as caught:
        await router.dispatch(SENT)

    assert (caught.value.exceptions, caught.value.failed) == (errors, ("fails", "fails too"))
    assert (caught.value.completed, ran) == ({"runs"}, ["runs"])


async def test_where_failing_is_its_handler_failing(router, ran):
    """The event is not passed over in silence because a filter has a bug."""
    add(router, ran, "filtered", where=lambda event: event.missing)
    add(router, ran, "runs")

    with pytest.raises(HandlerErrors) as caught:
        await router.dispatch(SENT)

    assert (caught.value.failed, ran) == (("filtered",), ["runs"])


async def test_cancellation_is_no_failure_of_a_handler(router, ran):
    """Only Exception is caught, and what had completed is known all the same."""
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
    """Each handler has its own time; the next one runs."""

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


async def test_what_a_handler_does_before_it_waits_counts(router, monkeypatch):
    """Its time begins with it, so it is over for one that blocks until then and waits afterwards."""
    loop = asyncio.get_running_loop()
    clock = loop.time

    @router.on(TextSent)
    async def handler(event):
        monkeypatch.setattr(loop, "time", lambda: clock() + 1_000)
        await asyncio.Event().wait()

    with pytest.raises(HandlerErrors) as caught:
        await router.dispatch(SENT, handler_timeout=900)

    assert isinstance(caught.value.exceptions[0], TimeoutError)


async def test_under_a_timeout_a_handler_is_its_task_in_its_context(router):
    """Also after it has waited; what it sets stays set for whoever dispatches."""
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


async def test_a_cancelled_dispatch_cancels_the_handler_under_its_timeout(router):
    """The handler sees it where it waits, and what it then raises goes up."""
    begun, seen = asyncio.Event(), []

    @router.on(TextSent)
    async def handler(event):
        try:
            begun.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    task = asyncio.create_task(router.dispatch(SENT, handler_timeout=10))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert seen == ["cancelled"]


async def test_a_timeout_of_the_handlers_own_is_not_ours(router):
    """A handler may well time something out itself."""
    add_failing(router, "fails", TimeoutError("its own"))

    with pytest.raises(HandlerErrors) as caught:
        await router.dispatch(SENT, handler_timeout=10)

    assert not hasattr(caught.value.exceptions[0], "__notes__")


async def test_what_has_succeeded_is_skipped(router, ran):
    """A second attempt runs only what failed in the first."""
    add(router, ran, "done")
    add(router, ran, "to do")

    names = await router.dispatch(SENT, skip={"done"})

    assert (ran, names) == (["to do"], {"to do"})


async def test_the_fallback_gets_what_no_handler_took(router, ran):
    """And nothing else; a skipped handler had taken it."""
    add(router, ran, "texts", TextFinished)

    @router.fallback
    async def fallback(event: Notification) -> None:
        ran.append(event.name)

    await router.dispatch(SENT, skip={"texts"})
    await router.dispatch(CALL)

    assert ran == ["CallFinished"]


async def test_included_handlers_are_copied_as_they_are_then(router, ran):
    """What the other router gets later stays its own."""
    other = Router()
    add(router, ran, "a")
    add(other, ran, "b", TextFinished)
    add(other, ran, "c")
    other.fallback(_fallback)

    router.include(other)
    add(other, ran, "late")
    await router.dispatch(SENT)

    assert ran == ["a", "b", "c"]


async def test_a_handler_with_any_where_is_no_fallback(router, ran):
    """Whatever function it is."""
    add(router, ran, "all", Notification)
    add(router, ran, "true", TextFinished, where=bool)

    await router.dispatch(SENT)

    assert ran == ["all", "true"]


async def _fallback(event: Notification) -> None: ...


async def test_an_included_router_need_not_have_a_fallback(router, ran):
    """The one that is here stays."""
    other = Router()
    add(other, ran, "a", CallFinished)
    router.fallback(_fallback)

    router.include(other)

    assert [handler.name for handler in router.matching(SENT)] == [f"{__name__}._fallback"]


def test_matching_says_who_would_get_an_event(router, ran):
    """Pure: nothing runs, and registering goes on. A where that raises is a handler that would fail."""
    add(router, ran, "texts", TextFinished)
    add(router, ran, "broken", where=lambda event: event.missing)

    names = [handler.name for handler in router.matching(SENT)]
    add(router, ran, "later")

    assert (names, ran) == (["texts", "broken"], [])


def test_matching_says_the_fallback_where_there_is_no_other(router):
    """It is what would run."""
    router.fallback(_fallback)

    assert [handler.name for handler in router.matching(SENT)] == [f"{__name__}._fallback"]


def test_names_default_to_module_and_qualname(router):
    """So a delivery remembers a handler across a restart of the program."""
    router.on(TextSent)(_fallback)

    assert router.matching(SENT)[0].name == f"{__name__}._fallback"


def test_event_types_lists_what_handlers_are_for(router, ran):
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
def test_trigger_events_says_what_to_subscribe_to(router, ran, event_type, triggers):
    """Every trigger that feeds a handler, in the order of the enumeration."""
    add(router, ran, "handler", event_type)

    assert list(router.trigger_events) == triggers


def test_handlers_bound_to_a_subscription_ask_for_no_trigger(router, ran):
    """Their subscription is there already."""
    add(router, ran, "bound", TextSent, subscription_id=7)

    assert router.trigger_events == ()


async def test_registering_after_the_first_dispatch_is_an_error(router, ran):
    """An event may have been missed already."""
    await router.dispatch(SENT)

    with pytest.raises(RuntimeError, match="before the first"):
        add(router, ran, "late")
    with pytest.raises(RuntimeError, match="before the first"):
        router.fallback(_fallback)


def test_a_name_is_given_once(router, ran):
    """Retries know handlers by their names."""
    add(router, ran, "twice")

    with pytest.raises(ValueError, match="twice"):
        add(router, ran, "twice")


def test_a_fallback_is_set_once_and_under_a_free_name(router):
    """Two would leave it to chance which one runs."""
    router.fallback(_fallback)
    other = Router()
    other.on(TextSent)(_fallback)

    with pytest.raises(ValueError, match="fallback"):
        router.fallback(_fallback)
    with pytest.raises(ValueError, match="_fallback"):
        other.fallback(_fallback)


def test_including_what_does_not_fit_copies_nothing(router, ran):
    """Neither a taken name nor a second fallback."""
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
def test_a_handler_of_the_wrong_shape_is_refused_when_it_is_registered(router, function):
    """Not when the first event comes."""
    with pytest.raises(TypeError, match="handler"):
        router.on(TextSent)(function)


def test_a_handler_without_a_name_asks_for_one(router):
    """A partial function has none of its own."""
    function = functools.partial(_two_arguments, other=1)

    with pytest.raises(TypeError, match="name="):
        router.on(TextSent)(function)
    router.on(TextSent, name="partial")(function)


@pytest.mark.parametrize("event_type", ["TextSent", Text, None, object])
def test_an_event_type_is_a_notification(router, event_type):
    """A model or a name is not one."""
    with pytest.raises(TypeError, match="event_type"):
        router.on(event_type)


@pytest.mark.parametrize(("source", "error"), [("7", TypeError), (True, TypeError), (7.0, TypeError), (0, ValueError)])
def test_a_subscription_is_an_id_or_what_holds_one(router, source, error):
    """A string would be taken for a container."""
    with pytest.raises(error, match="subscription"):
        router.on(TextSent, subscription_id=source)


def test_where_is_a_function(router):
    """Nothing else can be asked."""
    with pytest.raises(TypeError, match="where"):
        router.on(TextSent, where=True)(_fallback)


async def test_what_has_succeeded_does_not_fail_where_its_filter_does(router):
    """A handler that is skipped has taken the event; what its ``where`` raises this time is nobody's business."""
    router.on(TextSent, where=lambda _: 1 / 0, name="done")(_fallback)

    assert await router.dispatch(SENT, skip={"done"}) == frozenset()


async def test_who_gets_an_event_is_found_alike_before_and_after_a_dispatch(router, ran):
    """Handlers of other subscriptions are left out both times, and those of none are not."""
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
