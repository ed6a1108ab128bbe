"""
Which handlers an event goes to, and running them.

It imports `errors`, `models`, `events`, `expecting` and `stepping`.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Container, Coroutine
from contextlib import AbstractContextManager, asynccontextmanager
from functools import partial
from typing import Any, Self, TypeAlias, TypeVar

from attrs import frozen

from callfire_async.errors import HandlerErrors
from callfire_async.models import ResourceReference, Subscription, TriggerEvent
from callfire_async.notifications._eager import going_on
from callfire_async.notifications.events import (
    CallFinished,
    CampaignFinished,
    CampaignStarted,
    CampaignStopped,
    Notification,
    TextReceived,
    TextSent,
    UnknownNotification,
)
from callfire_async.notifications.routing.event_waiter import EventWaiter, _WaiterRegistry

__all__ = ["Handler", "Router"]

E = TypeVar("E", bound=Notification)
HandlerFunction: TypeAlias = Callable[[E], Coroutine[Any, Any, None]]
SubscriptionSource: TypeAlias = int | Subscription | ResourceReference | Container[int]
Check: TypeAlias = Callable[[Any], bool]
_Candidate: TypeAlias = "tuple[Handler, Check | None, frozenset[str]]"

_NO_NAMES: frozenset[str] = frozenset()
# Marks the fallback, of which is asked only whether another took the event.
_LAST: Check = frozenset().__contains__

# What each trigger makes CallFire post, at its most particular.
_POSTED = {
    TriggerEvent.INBOUND_CALL_FINISHED: CallFinished,
    TriggerEvent.INBOUND_TEXT_FINISHED: TextReceived,
    TriggerEvent.OUTBOUND_CALL_FINISHED: CallFinished,
    TriggerEvent.OUTBOUND_TEXT_FINISHED: TextSent,
    TriggerEvent.CAMPAIGN_STARTED: CampaignStarted,
    TriggerEvent.CAMPAIGN_STOPPED: CampaignStopped,
    TriggerEvent.CAMPAIGN_FINISHED: CampaignFinished,
}


@frozen(eq=False)
class Handler:
    """A registered handler: what it is called, and which events it takes."""

    #: Unlike every other in its router.
    name: str
    #: It takes events of this type, and of those below it.
    event_type: type[Notification]
    #: What was decorated.
    function: HandlerFunction[Any]
    #: The subscriptions that it is bound to; None where it is to none.
    subscription_id: Container[int] | None = None
    #: What else decides; None where nothing does.
    where: Callable[[Any], bool] | None = None

    @property
    def predicate(self) -> Check | None:
        """What decides about an event of its type, and from its subscription where it is bound to one for good."""
        if self.subscription_id is None or _bound_subscription_id(self):
            return self.where
        return partial(_make_filter, self.subscription_id, self.where)

    def accepts(self, event_type: type[Notification], subscription_id: int) -> bool:
        """Tell whether it takes events of a type from a subscription; what ``where`` wants is not asked."""
        return issubclass(event_type, self.event_type) and self._accepts_subscription(subscription_id)

    def _accepts_subscription(self, subscription_id: int | None) -> bool:
        return self.subscription_id is None or _contains(self.subscription_id, subscription_id)


class Router:
    """
    Handlers, and the events that they take.

    Every handler whose type, subscription and ``where`` fit gets an event, in the order of registration. All handlers
    are registered before the first dispatch.
    """

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}
        self._by_type: dict[type[Notification], _HandlerIndex] = {}
        self._fallback: Handler | None = None
        self._dispatching = False
        self._expectations = _WaiterRegistry()

    # --- registering --------------------------------------------------------------------------------------

    def on(
        self,
        event_type: type[E],
        *,
        subscription_id: SubscriptionSource | None = None,
        where: Callable[[E], bool] | None = None,
        name: str | None = None,
    ) -> Callable[[HandlerFunction[E]], HandlerFunction[E]]:
        """
        Register the decorated coroutine function for events of a type, and of the types below it.

        Args:
            event_type: ``Notification`` takes all.
            subscription_id: Only what this subscription sent: an id, what ``create`` or ``get`` answered, or a
                container of ids that is asked at each dispatch, and so may be filled later.
            where: Only events for which this is true. What it raises counts as the handler failing.
            name: Unlike every other in the router, and alike from one start of the program to the next, since
                deliveries remember which handlers have succeeded. Default: ``module.qualname``.

        Raises:
            TypeError: Not an event type, not a subscription, or not a coroutine function of one argument.
            ValueError: The name is taken, or the id is below 1.
            RuntimeError: An event was dispatched already.
        """
        _check_event_type(event_type)
        ids = _container(subscription_id)

        def register(function: HandlerFunction[E]) -> HandlerFunction[E]:
            self._add(_handler(name, event_type, function, subscription_id=ids, where=where))
            return function

        return register

    def fallback(self, function: HandlerFunction[Notification]) -> HandlerFunction[Notification]:
        """
        Register the coroutine function that gets what no handler took; there is one at most.

        Raises:
            TypeError: Not a coroutine function of one argument.
            ValueError: There is one already, or its name is taken.
            RuntimeError: An event was dispatched already.
        """
        self._set_fallback(_handler(None, Notification, function))
        return function

    def include(self, other: Self) -> None:
        """
        Copy another router's handlers, as they are at this moment, behind those that are here.

        Raises:
            ValueError: A name is taken, or both have a fallback; nothing is copied then.
            RuntimeError: An event was dispatched already.
        """
        if taken := self._names() & other._names():
            raise ValueError(f"there is a handler called {min(taken)} already; give one of them another name")
        if other._fallback is not None:
            self._set_fallback(other._fallback)
        for handler in other._handlers.values():
            self._add(handler)

    def _add(self, handler: Handler) -> None:
        self._check_open()
        if handler.name in self._names():
            raise ValueError(f"there is a handler called {handler.name} already; pass another name=")
        self._handlers[handler.name] = handler
        self._by_type.clear()

    def _set_fallback(self, handler: Handler) -> None:
        self._check_open()
        if self._fallback is not None:
            raise ValueError(f"there is a fallback already: {self._fallback.name}")
        if handler.name in self._handlers:
            raise ValueError(f"there is a handler called {handler.name} already")
        self._fallback = handler
        self._by_type.clear()

    def _names(self) -> set[str]:
        return {*self._handlers, *([self._fallback.name] if self._fallback else [])}

    def _check_open(self) -> None:
        if self._dispatching:
            raise RuntimeError("an event was dispatched already; register every handler before the first one")

    # --- asking -------------------------------------------------------------------------------------------

    @property
    def event_types(self) -> tuple[type[Notification], ...]:
        """The types that handlers are registered for, in that order; the fallback has none."""
        return tuple(dict.fromkeys(handler.event_type for handler in self._handlers.values()))

    @property
    def trigger_events(self) -> tuple[TriggerEvent, ...]:
        """What to subscribe to, so that each handler that is not bound to a subscription gets its events."""
        free = [handler.event_type for handler in self._handlers.values() if handler.subscription_id is None]
        return tuple(
            trigger for trigger, posted in _POSTED.items() if any(issubclass(posted, wanted) for wanted in free)
        )

    @property
    def is_empty(self) -> bool:
        """Whether there is neither a handler nor a fallback."""
        return not self._handlers and self._fallback is None

    @property
    def handlers(self) -> tuple[Handler, ...]:
        """The handlers in the order of registration; the fallback is not among them."""
        return tuple(self._handlers.values())

    def handlers_of(self, subscription: Subscription) -> tuple[Handler, ...]:
        """
        Return the handlers that get what a subscription posts, as far as ``where`` lets them; or else the fallback.

        What a trigger that is not known makes CallFire post is an `UnknownNotification`.
        """
        posted = _POSTED.get(subscription.trigger_event or TriggerEvent.UNDEFINED_EVENT, UnknownNotification)
        taken = tuple(handler for handler in self._handlers.values() if handler.accepts(posted, subscription.id))
        return taken or ((self._fallback,) if self._fallback else ())

    def matching(self, event: Notification) -> tuple[Handler, ...]:
        """
        Return the handlers that would get an event, in order; where there is none, the fallback.

        One whose ``where`` raises is among them: when dispatched it would fail.
        """
        asked = [(handler, check) for handler, check, _ in self._candidates(event) if check is not _LAST]
        taken = tuple(handler for handler, check in asked if _passes(check, event))
        return taken or ((self._fallback,) if self._fallback else ())

    # --- dispatching --------------------------------------------------------------------------------------

    async def dispatch(  # noqa: C901  # one loop: it says why
        self,
        event: Notification,
        *,
        skip: Container[str] = _NO_NAMES,
        handler_timeout: float | None = None,
        completed: set[str] | None = None,
        around: Callable[[str], AbstractContextManager[object]] | None = None,
    ) -> frozenset[str]:
        """
        Run every handler that takes an event, one after the other.

        Args:
            event: What was posted.
            skip: Names of handlers that are not to run: those that had succeeded.
            handler_timeout: Seconds for each handler; no limit, unless given.
            completed: A set of the caller's; the name of a handler is added the moment that it has returned, so that
                the set is right even where the dispatch is cancelled.
            around: Called with the name of each handler that runs; what it returns is entered around the run.

        Returns:
            The names of the handlers that ran.

        Raises:
            HandlerErrors: What handlers raised, a `TimeoutError` among them, after all have run.
        """
        self._dispatching = True
        returned, taken = _NO_NAMES, False
        failures: dict[str, Exception] | None = None
        by_subscription = self._by_type.get(type(event))
        # To choose in a generator, to run in a coroutine of its own and to gather the names takes twice as long.
        for handler, check, its_name in (
            self._candidates(event) if by_subscription is None else by_subscription[event.subscription_id]
        ):
            try:
                if check is not None and (taken if check is _LAST else not check(event)):
                    continue
                taken = True
                if skip is not _NO_NAMES and handler.name in skip:
                    continue
                if around is not None:
                    with around(handler.name):
                        await _run(handler, event, handler_timeout)
                elif handler_timeout is None:
                    await handler.function(event)
                else:
                    await _run(handler, event, handler_timeout)
            except Exception as error:  # noqa: BLE001  # the others are to run all the same
                taken = True
                if handler.name not in skip:
                    failures = {**(failures or {}), handler.name: error}
            else:
                returned = returned | its_name if returned else its_name
                if completed is not None:
                    completed.add(handler.name)
        if failures:
            raise _errors(failures, returned)
        if self._expectations.waiting:  # to call it for nothing is a tenth of a dispatch
            self._expectations.show(event)
        return returned

    @asynccontextmanager
    async def expect(
        self,
        event_type: type[E],
        *,
        where: Callable[[E], bool] | None = None,
        subscription_id: SubscriptionSource | None = None,
    ) -> AsyncIterator[EventWaiter[E]]:
        """
        Wait for an event in the middle of other work: ``async with router.expect(TextFinished) as expected``.

        Armed from the beginning of the block to its end, so what causes the event belongs inside it; then
        ``await expected.get(timeout=30)``. An event counts once a dispatch of *this* router, in this process, has run
        its handlers and none has failed; it need not have a handler, though a receiver with an inbox makes a dead
        letter of what nobody handles. May be used before and after the first dispatch, many at once.

        Args:
            event_type: ``Notification`` is any.
            where: Only an event for which this is true. What it raises is raised by ``get``, not by the dispatch.
            subscription_id: Only what this subscription sent; as of `on`.

        Raises:
            TypeError: Not an event type, or not a subscription.
            ValueError: The id is below 1.
        """
        _check_event_type(event_type)
        expected: EventWaiter[E] = EventWaiter(partial(_make_filter, _container(subscription_id), where))
        with self._expectations.register(event_type, expected):
            yield expected

    def _candidates(self, event: Notification) -> tuple[_Candidate, ...]:
        kind = type(event)
        if kind not in self._by_type:
            self._by_type[kind] = _HandlerIndex(kind, [*self._handlers.values()], self._fallback)
        return self._by_type[kind][event.subscription_id]


class _HandlerIndex(dict[int | None, "tuple[_Candidate, ...]"]):
    """
    Who may get an event of one type, by the subscription that sent it; found when it is first asked for.

    Each handler comes with what is still to be asked of the event, and its name as a set; the fallback is the last.
    """

    def __init__(self, kind: type[Notification], handlers: list[Handler], fallback: Handler | None) -> None:
        super().__init__()
        self._handlers = [handler for handler in handlers if issubclass(kind, handler.event_type)]
        self._bound = frozenset[int]().union(*map(_bound_subscription_id, self._handlers))
        self._fallback = fallback

    def __missing__(self, id: int | None) -> tuple[_Candidate, ...]:
        # A body may name any subscription: those that no handler names are all alike, and not remembered.
        if id is not None and id not in self._bound:
            return self[None]
        fitting = [
            (handler, handler.predicate)
            for handler in self._handlers
            if not (ids := _bound_subscription_id(handler)) or id in ids
        ]
        if self._fallback is not None:
            fitting.append((self._fallback, _LAST))
        self[id] = tuple([(handler, check, frozenset([handler.name])) for handler, check in fitting])
        return self[id]


async def _run(handler: Handler, event: Notification, seconds: float | None) -> None:
    """
    Run one handler under its timeout.

    A handler that never waits could not be interrupted: it is run without a limit, which takes more than all else here.
    """
    ends = None if seconds is None else asyncio.get_running_loop().time() + seconds
    handling = handler.function(event)
    try:
        waits_for = handling.send(None)
    except StopIteration:
        return
    limit = asyncio.timeout_at(ends)
    try:
        async with limit:
            await going_on(handling, waits_for)
    except Exception as error:
        if limit.expired():
            error.add_note(f"the handler took longer than {seconds} seconds")
        raise


def _bound_subscription_id(handler: Handler) -> frozenset[int]:
    """Return the one subscription that a handler is bound to for good; none where it may be others tomorrow."""
    ids = handler.subscription_id
    return ids if isinstance(ids, frozenset) and len(ids) == 1 else frozenset()


def _passes(check: Check | None, event: Notification) -> bool:
    try:
        return check is None or check(event)
    except Exception:  # noqa: BLE001  # the user's own code: it gets the event, and fails
        return True


def _errors(failures: dict[str, Exception], returned: frozenset[str]) -> HandlerErrors:
    message = f"{len(failures)} of {len(failures) + len(returned)} handlers failed: {', '.join(failures)}"
    return HandlerErrors(message, [*failures.values()], completed=returned, failed=[*failures])


def _handler(
    name: str | None,
    event_type: type[Notification],
    function: HandlerFunction[Any],
    *,
    subscription_id: Container[int] | None = None,
    where: Callable[[Any], bool] | None = None,
) -> Handler:
    """Make a handler of a function that can be one."""
    if not inspect.iscoroutinefunction(function):
        raise TypeError("a handler must be a coroutine function: async def handler(event)")
    try:
        inspect.signature(function).bind(event_type)
    except TypeError as error:
        raise TypeError(f"a handler is called with one argument, the event: {error}") from None
    if where is not None and not callable(where):
        raise TypeError("where must be a function of the event")
    return Handler(name or _default_name(function), event_type, function, subscription_id, where)


def _default_name(function: Callable[..., object]) -> str:
    try:
        return f"{function.__module__}.{function.__qualname__}"
    except AttributeError:
        raise TypeError("this handler has no name of its own; pass name=") from None


def _make_filter(ids: Container[int] | None, where: Callable[[Any], bool] | None, event: Notification) -> bool:
    return (ids is None or _contains(ids, event.subscription_id)) and (where is None or bool(where(event)))


def _contains(ids: Container[int], id: int | None) -> bool:
    return id is not None and id in ids


def _check_event_type(kind: object) -> None:
    if not (isinstance(kind, type) and issubclass(kind, Notification)):
        raise TypeError("event_type must be Notification or a class below it")


def _container(source: SubscriptionSource | None) -> Container[int] | None:
    """Make a container of what a handler is bound to; one of the caller's stays the caller's."""
    if isinstance(source, Subscription | ResourceReference):
        source = source.id
    if isinstance(source, int) and not isinstance(source, bool):
        if source < 1:
            raise ValueError("a subscription id is 1 or more")
        return frozenset([source])
    if source is None or (isinstance(source, Container) and not isinstance(source, str | bytes)):
        return source
    raise TypeError("subscription_id must be an id, a Subscription, a ResourceReference or a container of ids")
