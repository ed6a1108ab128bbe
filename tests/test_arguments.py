"""Wrong arguments are refused where they are given, with an error that begins with the parameter's name."""

import asyncio
import functools
import math
import typing
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from types import MappingProxyType
from unittest.mock import AsyncMock, MagicMock

import pytest
from aiohttp import web
from fastapi import FastAPI

from callfire_async import Subscription
from callfire_async._arguments import is_async
from callfire_async.inspector import BindAddress, InspectorApp, ReceiverSource, serve_inspector
from callfire_async.notifications import (
    AttemptRecord,
    Delivery,
    EndpointTokens,
    InboxEntry,
    MemoryInbox,
    Notification,
    Observer,
    Postback,
    Receiver,
    RedactTokenFilter,
    RetryPolicy,
    Router,
    SigningSecrets,
    SqliteInbox,
    TextFinished,
    TextSent,
    parse,
    parse_all,
)
from callfire_async.notifications.aiohttp import add_health_routes, add_notification_routes
from callfire_async.notifications.asgi import HealthApp, NotificationApp
from callfire_async.notifications.fastapi import health_routes, notification_routes
from callfire_async.reconcile import audit, broadcast_results, reconcile
from callfire_async.telemetry import instrument_client, instrument_receiver
from callfire_async.testing import FakeCallFire, Fault, deliver, encode, make_text_sent

TOKEN = "0123456789abcdef"
WRONG = (TypeError, ValueError)


async def handler(event: Notification) -> None: ...


def make_router() -> Router:
    router = Router()
    router.on(Notification)(handler)
    return router


def make_receiver(**arguments: object) -> Receiver:
    return Receiver(**{"router": make_router(), "tokens": TOKEN, "inbox": MemoryInbox()} | arguments)


class StrEnumLike(IntEnum):
    """Ids with names."""

    BILLING = 41001


async def no_arguments() -> None: ...


async def two_arguments(first: object, second: object) -> None: ...


def plain(*_: object) -> None: ...


async def generator(event: Notification):
    yield event


def untyped_awaitable(event):
    return handler(event)


class SyncCall:
    """An object with a plain ``__call__``."""

    def __call__(self, *_: object) -> None: ...


class AsyncCall:
    """An object with an async ``__call__``."""

    async def __call__(self, *_: object) -> None: ...


# --- the receiver -----------------------------------------------------------------------------------------

NOT_NUMBERS = [True, "1", None, b"1", [1], Decimal(1)]
NOT_FINITE = [math.nan, math.inf, -math.inf]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("router", [None, "router", Router, {}, MagicMock()]),
        ("tokens", [TOKEN.encode(), [TOKEN], 7, EndpointTokens, object()]),
        (
            "inbox",
            ["callfire.db", b"callfire.db", SqliteInbox, MemoryInbox, SqliteInbox.in_directory, object(), 0, False],
        ),
        ("retry", [3, True, "3", RetryPolicy, {"max_attempts": 3}]),
        ("on_dead_letter", [print, plain, SyncCall(), AsyncCall, generator, no_arguments, two_arguments, "report", 1]),
        ("known_subscriptions", ["41001", b"41001", bytearray(b"1"), ["41001"], {"41001": 1}, {True}, [1.0], [None]]),
        ("known_webhooks", ["41001", b"41001", bytearray(b"1"), ["41001"], {"41001": 1}, {True}, [1.0], [None]]),
        ("known_subscriptions", [41001, True, [Subscription(1)], iter([1]), set, frozenset, plain, two_arguments]),
        ("known_webhooks", [41001, True, [Subscription(1)], iter([1]), set, frozenset, plain, two_arguments]),
        ("known_subscriptions", [lambda: {7}, SyncCall(), generator, functools.partial(plain), memoryview(b"1")]),
        ("known_webhooks", [lambda: {7}, SyncCall(), generator, functools.partial(plain), memoryview(b"1")]),
        ("handler_timeout", [0, -1, *NOT_FINITE, *(value for value in NOT_NUMBERS if value is not None)]),
        ("body_timeout", [0, -1, *NOT_FINITE, *NOT_NUMBERS]),
        ("shutdown_timeout", [-1, *NOT_FINITE, *(value for value in NOT_NUMBERS if value is not None)]),
        ("max_body_bytes", [0, -1, 1.5, 1e6, *NOT_FINITE, *NOT_NUMBERS]),
        ("concurrency", [-1, 1.0, *NOT_FINITE, *(value for value in NOT_NUMBERS if value is not None)]),
        ("handler_timeout", [10**400]),
        ("log_exceptions", [None, 1, "no", 0.0]),
        ("unhandled", ["drop", "dead-letter", True, 1, "IGNORE", ["ignore"], Router()]),
    ],
)
def test_a_wrong_argument_of_a_receiver_is_refused(name, values):
    """With the parameter's name first."""
    for value in values:
        with pytest.raises(WRONG, match=f"^{name} "):
            make_receiver(**{name: value})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("retry", 3, "retry must be a RetryPolicy, such as RetryPolicy(max_attempts=3), not int"),
        (
            "inbox",
            SqliteInbox,
            'inbox must be an inbox, such as SqliteInbox("callfire.db"), not the class SqliteInbox; ',
        ),
        ("inbox", "callfire.db", 'inbox must be an inbox, such as SqliteInbox("callfire.db"), not str'),
        ("on_dead_letter", print, "on_dead_letter must be a coroutine function, such as async def report(entry), not "),
        ("known_subscriptions", ["41001"], "known_subscriptions must have only integers, such as {41001}, but an "),
        ("known_webhooks", ["41001"], "known_webhooks must have only integers, such as {41001}, but an "),
        ("handler_timeout", "30", "handler_timeout must be a number, not str"),
        ("router", Router, "router must be a Router, such as Router(), not the class Router"),
    ],
)
def test_the_error_says_what_was_expected(name, value, message):
    """And what was given, by its type."""
    with pytest.raises(TypeError) as caught:
        make_receiver(**{name: value})

    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("name", ["retry", "inbox", "tokens", "known_subscriptions", "on_dead_letter", "body_timeout"])
def test_the_error_does_not_quote_the_value(name):
    """It may be a misplaced secret."""
    with pytest.raises(TypeError) as caught:
        make_receiver(**{name: b"canary"})

    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        {"known_subscriptions": {41001}},
        {"known_subscriptions": frozenset()},
        {"known_subscriptions": [41001, 41002]},
        {"known_subscriptions": (41001,)},
        {"known_subscriptions": range(10**12)},
        {"known_subscriptions": {41001: "billing"}},
        {"known_subscriptions": MappingProxyType({41001: "billing"})},
        {"known_subscriptions": {41001: "billing"}.keys()},
        {"known_subscriptions": [StrEnumLike.BILLING]},
        {"known_subscriptions": no_arguments},
        {"known_webhooks": {41001}},
        {"known_webhooks": no_arguments},
        {"known_subscriptions": AsyncCall()},
        {"known_subscriptions": functools.partial(handler, None)},
        {"on_dead_letter": AsyncCall()},
        {"on_dead_letter": functools.partial(two_arguments, None)},
        {"on_dead_letter": AsyncMock()},
        {"handler_timeout": None},
        {"handler_timeout": Fraction(1, 2)},
        {"shutdown_timeout": 0},
        {"concurrency": 0},
        {"unhandled": "ignore"},
        {"unhandled": "dead_letter"},
        {"log_exceptions": False},
        {"router": type("SubclassedRouter", (Router,), {})()},
    ],
    ids="-".join,
)
def test_a_valid_argument_of_a_receiver_is_accepted(arguments):
    """Of any type that works."""
    if "router" in arguments:
        arguments["router"].on(Notification)(handler)

    make_receiver(**arguments)


@pytest.mark.parametrize("unhandled", ["ignore", "dead_letter"])
def test_unhandled_requires_an_inbox(unhandled):
    """Without one, such events are ignored anyway."""
    with pytest.raises(TypeError, match=r"^unhandled can only be used with an inbox"):
        make_receiver(inbox=None, unhandled=unhandled)


class AnyContainer:
    """A container that cannot be counted, such as one that asks a database."""

    def __contains__(self, id: object) -> bool:
        return id == 7


async def test_a_container_that_cannot_be_counted_is_accepted():
    """Its elements are not checked."""
    postback = Postback("POST", TOKEN, {}, b'{"TextSent": {"SubscriptionId": 7, "Text": {"@id": 1}}}')
    async with make_receiver(inbox=None, known_subscriptions=AnyContainer()) as receiver:
        assert (await receiver.receive(postback)).status == 204


@pytest.mark.parametrize("result", [None, "41001", ["41001"], 41001, {True}])
async def test_a_wrong_result_of_known_subscriptions_is_a_failure(result, caplog):
    """None does not allow all subscriptions."""

    async def fetch() -> object:
        return result

    postback = Postback("POST", TOKEN, {}, b'{"TextSent": {"SubscriptionId": 7, "Text": {"@id": 1}}}')
    async with make_receiver(inbox=None, known_subscriptions=fetch) as receiver:
        assert (await receiver.receive(postback)).status == 500

    assert "TypeError: known_subscriptions must " in caplog.text


def test_an_inbox_without_a_method_is_refused():
    """The error names what is missing."""

    class Partial:
        async def __aenter__(self): ...

        async def __aexit__(self, *_: object): ...

        async def append(self, delivery: Delivery): ...

    with pytest.raises(
        TypeError, match=r"^inbox must be an inbox.* not Partial, which has no append_many, claim, extend, ack, "
    ):
        make_receiver(inbox=Partial())


def test_an_observer_must_be_one():
    """Not the class, and not a function."""
    receiver = make_receiver()
    for wrong in (Observer, plain, None, AttemptRecord):
        with pytest.raises(TypeError, match=r"^observer must be an Observer"):
            receiver.observe(wrong)


async def test_only_a_delivery_can_be_redelivered():
    """An entry of an inbox has one."""
    async with make_receiver() as receiver:
        for wrong in (b"body", None, AttemptRecord(Delivery(b""))):
            with pytest.raises(TypeError, match=r"^delivery must be a Delivery, such as entry\.delivery"):
                await receiver.redeliver(wrong)


@pytest.mark.parametrize("token", [TOKEN.encode(), None, 7])
def test_tokens_must_be_strings(token):
    """Also the previous ones."""
    for tokens in ((token,), (TOKEN, token)):
        with pytest.raises(TypeError, match=r"^tokens must be strings"):
            EndpointTokens(*tokens)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("max_attempts", [0, -1, 1.0, *NOT_FINITE, *NOT_NUMBERS]),
        ("initial_delay", [-1, *NOT_FINITE, *NOT_NUMBERS]),
        ("max_delay", [-1, *NOT_FINITE, *NOT_NUMBERS]),
    ],
)
def test_a_wrong_field_of_a_retry_policy_is_refused(name, values):
    """With its name first."""
    for value in values:
        with pytest.raises(WRONG, match=f"^{name} must "):
            RetryPolicy(**{name: value})


# --- the router -------------------------------------------------------------------------------------------

WRONG_ROUTER_ARGUMENTS = [
    ("event_type", [None, "TextSent", TextSent | TextFinished, (TextSent, TextFinished), object, handler]),
    ("where", [True, "event.text", handler, AsyncCall(), functools.partial(handler), no_arguments, lambda: True]),
    ("subscription_id", ["41001", b"41001", True, 7.0, ["41001"], {True}, {"41001": 1}, [Subscription(1)], 0, -1]),
    ("subscription_id", [iter([1]), object(), Decimal(1)]),
]


@pytest.mark.parametrize(("name", "values"), [*WRONG_ROUTER_ARGUMENTS, ("name", [7, b"name", "", " "])])
def test_a_wrong_argument_of_on_is_refused(name, values):
    """Before a function is decorated."""
    for value in values:
        with pytest.raises(WRONG, match=f"^{name} must "):
            Router().on(**{"event_type": TextSent} | {name: value})


@pytest.mark.parametrize(("name", "values"), WRONG_ROUTER_ARGUMENTS)
async def test_a_wrong_argument_of_expect_is_refused(name, values):
    """As for a handler."""
    for value in values:
        with pytest.raises(WRONG, match=f"^{name} must "):
            async with Router().expect(**{"event_type": TextSent} | {name: value}):
                pass


async def test_a_wrong_timeout_of_a_waiter_is_refused():
    """A negative one has passed already."""
    async with Router().expect(TextSent) as expected:
        for value in ("1", True, math.nan):
            with pytest.raises(WRONG, match=r"^timeout must "):
                await expected.get(timeout=value)
        with pytest.raises(TimeoutError):
            await expected.get(timeout=-1)


async def test_a_wrong_argument_of_dispatch_is_refused():
    """It is not a failure of a handler."""
    router = make_router()
    for wrong in (b"body", None, TextSent):
        with pytest.raises(TypeError, match=r"^event must be a Notification"):
            await router.dispatch(wrong)
    for wrong in ("1", True, math.nan, -1):
        with pytest.raises(WRONG, match=r"^handler_timeout must "):
            await router.dispatch(Notification(), handler_timeout=wrong)


def test_where_may_have_no_signature():
    """Some functions that are written in C have none."""
    Router().on(TextSent, where=type)(handler)


def test_only_a_router_can_be_included():
    """With the parameter's name first."""
    for wrong in (None, Router, handler):
        with pytest.raises(TypeError, match=r"^other must be a Router"):
            Router().include(wrong)


# --- which functions are handlers -------------------------------------------------------------------------


@functools.wraps(handler)
def wrapper(*arguments: object):
    return handler(*arguments)


def returns_awaitable(event: Notification) -> Awaitable[None]:
    return handler(event)


def returns_coroutine(event: Notification) -> Coroutine[typing.Any, typing.Any, None]:
    return handler(event)


def returns_typing_awaitable(event: Notification) -> typing.Awaitable[None]:  # the older spelling
    return handler(event)


def returns_bare_coroutine(event: Notification) -> Coroutine:
    return handler(event)


def returns_future(event: Notification) -> asyncio.Future[None]:
    return asyncio.ensure_future(handler(event))


def returns_string(event: Notification) -> "Awaitable[None]":
    return handler(event)


def returns_unresolved(event: "Missing") -> "typing.Awaitable[None]":  # noqa: F821  # only for type checkers
    return handler(event)


def returns_unresolved_awaitable(event: Notification) -> "abc.Coroutine[Any, Any, Missing]":  # noqa: F821  # as above
    return handler(event)


def returns_unresolved_other(event: Notification) -> "Missing[Awaitable[None]]":  # noqa: F821  # as above
    return None


def returns_optional(event: Notification) -> Awaitable[None] | None:
    return None


def returns_callable(event: Notification) -> Callable[[], Awaitable[None]]:
    return no_arguments


class Methods:
    """Bound methods of all kinds."""

    async def method(self, event: Notification) -> None: ...

    def annotated(self, event: Notification) -> Awaitable[None]:
        return handler(event)

    @classmethod
    async def class_method(cls, event: Notification) -> None: ...

    @staticmethod
    async def static_method(event: Notification) -> None: ...

    def plain(self, event: Notification) -> None: ...


class AnnotatedCall:
    """An object whose ``__call__`` is annotated."""

    def __call__(self, event: Notification) -> Awaitable[None]:
        return handler(event)


class Decorator:
    """A wrapper that is an object."""

    def __init__(self, function: object) -> None:
        functools.update_wrapper(self, function)

    def __call__(self, *arguments: object) -> object:
        return self.__wrapped__(*arguments)


class Endless:
    """An object that has any attribute."""

    def __call__(self, *_: object) -> None: ...

    def __getattr__(self, name: str) -> object:
        return Endless()


ASYNC = {
    "async def": handler,
    "partial": functools.partial(handler),
    "partial of a partial": functools.partial(functools.partial(two_arguments, 1)),
    "partial of an object": functools.partial(AsyncCall()),
    "partial of a wrapper": functools.partial(wrapper),
    "wrapper": wrapper,
    "wrapper of a wrapper": functools.wraps(wrapper)(lambda *arguments: wrapper(*arguments, *())),
    "wrapper that is an object": Decorator(handler),
    "cache": functools.cache(handler),
    "object": AsyncCall(),
    "object that is annotated": AnnotatedCall(),
    "method": Methods().method,
    "annotated method": Methods().annotated,
    "class method": Methods.class_method,
    "static method": Methods.static_method,
    "AsyncMock": AsyncMock(),
    **{
        function.__name__: function
        for function in (
            *(returns_awaitable, returns_coroutine, returns_typing_awaitable, returns_bare_coroutine, returns_future),
            *(returns_string, returns_unresolved, returns_unresolved_awaitable),
        )
    },
}
NOT_ASYNC = {
    "plain function": plain,
    "lambda": lambda _: handler(None),
    "no annotation": untyped_awaitable,
    "async generator": generator,
    "built-in": print,
    "class with an async call": AsyncCall,
    "partial of a class": functools.partial(AsyncCall),
    "object with a plain call": SyncCall(),
    "partial of a plain function": functools.partial(plain),
    "wrapper of a plain function": functools.wraps(plain)(lambda *_: None),
    "plain method": Methods().plain,
    "MagicMock": MagicMock(),
    "any attribute": Endless(),
    "optional": returns_optional,
    "callable": returns_callable,
    "unresolved": returns_unresolved_other,
    "text": "handler",
    "None": None,
}


@pytest.mark.parametrize("name", ASYNC)
def test_a_function_that_returns_something_to_await_is_a_handler(name):
    """An async def, a partial or wrapper of one, an object with an async call, or an annotated function."""
    function = ASYNC[name]

    assert is_async(function)
    Router().on(Notification, name="named")(function)
    make_receiver(on_dead_letter=function)


@pytest.mark.parametrize("name", NOT_ASYNC)
def test_any_other_function_is_not_a_handler(name):
    """A TypeError at the registration, not at the first event."""
    function = NOT_ASYNC[name]

    assert not is_async(function)
    with pytest.raises(TypeError, match=r"^handler must be a coroutine function, such as async def handler\(event\)"):
        Router().on(Notification, name="named")(function)
    with pytest.raises(TypeError, match=r"^handler must be a coroutine function"):
        Router().fallback(function)
    if function is not None:
        with pytest.raises(TypeError, match=r"^on_dead_letter must be a coroutine function"):
            make_receiver(on_dead_letter=function)


async def test_handlers_of_all_kinds_are_awaited():
    """Each returns something to await."""
    router = Router()
    for name in (
        "partial",
        "wrapper",
        "wrapper that is an object",
        "object",
        "method",
        "returns_awaitable",
        "AsyncMock",
    ):
        router.on(Notification, name=name)(ASYNC[name])

    assert len(await router.dispatch(TextSent(text=None))) == 7


async def test_a_wrapper_that_returns_nothing_to_await_is_a_failed_handler():
    """Nothing can know that at the registration."""
    from callfire_async import HandlerErrors

    router = Router()
    router.on(Notification, name="broken")(functools.wraps(handler)(lambda event: None))

    with pytest.raises(HandlerErrors):
        await router.dispatch(TextSent(text=None))


async def test_on_dead_letter_may_be_an_object():
    """It is called with the dead letter."""
    reported = []

    class Report:
        async def __call__(self, entry: InboxEntry) -> None:
            reported.append(entry.id)

    async with make_receiver(on_dead_letter=Report()) as receiver:
        await receiver.receive(Postback("POST", TOKEN, {}, b"nonsense"))
        await receiver.idle(timeout=20)

    assert reported == [1]


# --- the other classes and functions ----------------------------------------------------------------------

NAIVE = datetime(2026, 1, 31)  # noqa: DTZ001  # under test
SINCE = datetime(2026, 1, 31, tzinfo=UTC)


@pytest.mark.parametrize(
    ("create", "name"),
    [
        (lambda: Delivery("body"), "body"),
        (lambda: Delivery(b"", received_at="2026-01-31"), "received_at"),
        (lambda: Delivery(b"", received_at=NAIVE), "received_at"),
        (lambda: parse(None), "body"),
        (lambda: parse(bytearray(b"<TextSent/>")), "body"),
        (lambda: parse_all(7), "body"),
        (lambda: SigningSecrets(2 * TOKEN).sign("body"), "body"),
        (lambda: SigningSecrets(2 * TOKEN).verify("body", ""), "body"),
        (lambda: RedactTokenFilter(None), "tokens"),
        (lambda: RedactTokenFilter([TOKEN]), "tokens"),
        (lambda: NotificationApp(make_router()), "receiver"),
        (lambda: NotificationApp(Receiver), "receiver"),
        (lambda: HealthApp(make_receiver(), max_age="300"), "max_age"),
        (lambda: notification_routes(make_router()), "receiver"),
        (lambda: health_routes(make_router()), "receiver"),
        (lambda: health_routes(make_receiver(), max_age=-1), "max_age"),
        (lambda: add_notification_routes(FastAPI(), make_receiver()), "app"),
        (lambda: add_notification_routes(web.Application(), make_router()), "receiver"),
        (lambda: add_notification_routes(web.Application(), make_receiver(), "callfire"), "prefix"),
        (lambda: add_notification_routes(web.Application(), make_receiver(), None), "prefix"),
        (lambda: add_health_routes(web.Application(), make_router()), "receiver"),
        (lambda: add_health_routes(web.Application(), make_receiver(), "health"), "path"),
        (lambda: add_health_routes(web.Application(), make_receiver(), max_age=math.nan), "max_age"),
        (lambda: instrument_client(make_receiver()), "callfire"),
        (lambda: instrument_receiver(make_router()), "receiver"),
        (lambda: audit(make_receiver(), []), "router"),
        (lambda: audit(make_router(), Subscription(1)), "subscriptions"),
        (lambda: audit(make_router(), [Subscription(1), "2"]), r"subscriptions\[1\]"),
        (lambda: InspectorApp(make_receiver()), "source"),
        (lambda: ReceiverSource(make_receiver(), MemoryInbox()), "inbox"),
        (lambda: ReceiverSource(None, make_router()), "receiver"),
        (lambda: EndpointTokens(TOKEN).url(None), "base"),
        (lambda: EndpointTokens(TOKEN).url(8484), "base"),
        (lambda: make_router().handlers_of(41001), "subscription"),
        (lambda: make_router().matching(b"body"), "event"),
        (lambda: encode("TextSent"), "event"),
        (lambda: encode(make_text_sent(), soap_version="1.3"), "soap_version"),
        (lambda: make_text_sent().to_soap("1.0"), "soap_version"),
        (lambda: make_text_sent(api="2"), "api"),
        (lambda: make_text_sent(api="2", webhook_id=5), "api"),
        (lambda: Fault(status="500"), "status"),
        (lambda: Fault(status=5), "status"),
        (lambda: Fault(cut="response"), "cut"),
        (lambda: BindAddress(8485), "host"),
        (lambda: BindAddress(port="8485"), "port"),
        (lambda: BindAddress(port=65536), "port"),
        (lambda: BindAddress(port=-1), "port"),
        (lambda: FakeCallFire(drop_rate=1.5), "drop_rate"),
        (lambda: FakeCallFire(drop_rate=-1), "drop_rate"),
        (lambda: FakeCallFire(duplicate_rate="1"), "duplicate_rate"),
        (lambda: FakeCallFire(events_per_postback=0), "events_per_postback"),
        (lambda: FakeCallFire(events_per_postback=1.5), "events_per_postback"),
        (lambda: FakeCallFire(repeated_request_id="second"), "repeated_request_id"),
        (lambda: FakeCallFire(list_of_one="list"), "list_of_one"),
        (lambda: FakeCallFire(update_status=201), "update_status"),
        (lambda: FakeCallFire(webhook_update="keep"), "webhook_update"),
        (lambda: FakeCallFire(postback_shape=2016), "postback_shape"),
    ],
)
def test_a_wrong_argument_of_another_class_or_function_is_refused(create, name):
    """With the parameter's name first, before anything is called."""
    with pytest.raises(WRONG, match=f"^{name} must "):
        create()


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda callfire, inbox: reconcile(callfire.texts, inbox, [], since=SINCE), "callfire"),
        (lambda callfire, inbox: reconcile(callfire, make_receiver(), [], since=SINCE), "inbox"),
        (lambda callfire, inbox: reconcile(callfire, inbox, Subscription(1), since=datetime.now(UTC)), "subscriptions"),
        (lambda callfire, inbox: reconcile(callfire, inbox, [], since="2026-01-31"), "since"),
        (lambda callfire, inbox: reconcile(callfire, inbox, [], since=SINCE, until="now"), "until"),
        (lambda callfire, inbox: reconcile(callfire, inbox, [], since=SINCE, retention=86400), "retention"),
        (lambda callfire, inbox: reconcile(callfire, inbox, [], since=SINCE, progress=handler), "progress"),
        (lambda callfire, inbox: reconcile(callfire, inbox, [], since=SINCE, progress=[]), "progress"),
        (lambda callfire, inbox: reconcile(callfire, inbox, [], since=SINCE, resume={}), "resume"),
        (lambda callfire, inbox: anext(broadcast_results("7", texts=callfire.texts, router=Router())), "broadcast"),
        (lambda callfire, inbox: anext(broadcast_results(7, texts=callfire.texts, router=Router(), poll="1")), "poll"),
        (lambda callfire, inbox: deliver(make_receiver(), "TextSent"), "event"),
        (lambda callfire, inbox: make_receiver().health(max_age="300"), "max_age"),
        (lambda callfire, inbox: make_receiver().health(max_age=-1), "max_age"),
        (lambda callfire, inbox: serve_inspector(inbox).__aenter__(), "source"),
        (lambda callfire, inbox: serve_inspector(ReceiverSource(None, make_receiver()), 8485).__aenter__(), "place"),
    ],
)
async def test_a_wrong_argument_of_a_coroutine_is_refused(call, name):
    """With the parameter's name first, before anything is sent."""
    with pytest.raises(WRONG, match=f"^{name} must "):
        await call(FakeCallFire().client(), MemoryInbox())


async def test_a_receiver_without_a_limit_for_the_backlog_is_healthy():
    """Infinity is a number of seconds."""
    async with make_receiver() as receiver:
        assert (await receiver.health(max_age=math.inf)).healthy
