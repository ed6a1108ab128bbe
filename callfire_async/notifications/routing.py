"""
Which handlers an event goes to, and running them.

It imports `errors`, `models`, `events` and `expecting`.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Container, Coroutine, Iterator
from contextlib import AbstractContextManager, asynccontextmanager
from functools import partial
from typing import Any, TypeAlias, TypeVar

from attrs import frozen

from callfire_async.errors import HandlerErrors
from callfire_async.models import ResourceReference, Subscription, TriggerEvent
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
from callfire_async.notifications.expecting import Expectations, Expected

__all__ = ["Handler", "Router"]

E = TypeVar("E", bound=Notification)
HandlerFunction: TypeAlias = Callable[[E], Coroutine[Any, Any, None]]
SubscriptionSource: TypeAlias = int | Subscription | ResourceReference | Container[int]

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

    name: str
    event_type: type[Notification]
    function: HandlerFunction[Any]
    subscription_id: Container[int] | None = None
    where: Callable[[Any], bool] | None = None

    def accepts(self, event: Notification) -> bool:
        """Tell whether the event is of its type, from its subscription, and what ``where`` wants."""
        return isinstance(event, self.event_type) and _fits(self.subscription_id, self.where, event)

    def is_fed(self, event_type: type[Notification], subscription_id: int) -> bool:
        """Tell whether it takes events of a type from a subscription; what ``where`` wants is not asked."""
        return issubclass(event_type, self.event_type) and self._hears(subscription_id)

    def _hears(self, subscription_id: int | None) -> bool:
        return self.subscription_id is None or _contains(self.subscription_id, subscription_id)


class Router:
    """
    Handlers, and the events that they take.

    Every handler whose type, subscription and ``where`` fit gets an event, in the order of registration. All handlers
    are registered before the first dispatch.
    """

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}
        self._fallback: Handler | None = None
        self._dispatching = False
        self._expectations = Expectations()

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

    def include(self, other: Router) -> None:
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

    def _set_fallback(self, handler: Handler) -> None:
        self._check_open()
        if self._fallback is not None:
            raise ValueError(f"there is a fallback already: {self._fallback.name}")
        if handler.name in self._handlers:
            raise ValueError(f"there is a handler called {handler.name} already")
        self._fallback = handler

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
        taken = tuple(handler for handler in self._handlers.values() if handler.is_fed(posted, subscription.id))
        return taken or ((self._fallback,) if self._fallback else ())

    def matching(self, event: Notification) -> tuple[Handler, ...]:
        """
        Return the handlers that would get an event, in order; where there is none, the fallback.

        One whose ``where`` raises is among them: when dispatched it would fail.
        """
        return tuple(handler for handler, _ in self._selected(event))

    # --- dispatching --------------------------------------------------------------------------------------

    async def dispatch(
        self,
        event: Notification,
        *,
        skip: Container[str] = frozenset(),
        handler_timeout: float | None = None,
        completed: set[str] | None = None,
        around: Callable[[str], AbstractContextManager[object]] | None = None,
    ) -> frozenset[str]:
        """
        Run every handler that takes an event, one after the other.

        Args:
            event: What was posted.
            skip: Names of handlers that are not to run: those that had succeeded.
            handler_timeout: Seconds for each handler.
            completed: A set of the caller's; the name of a handler is added the moment that it has returned, so that
                the set is right even where the dispatch is cancelled.
            around: Called with the name of each handler; what it returns is entered around the handler's run.

        Returns:
            The names of the handlers that ran.

        Raises:
            HandlerErrors: What handlers raised, after all have run.
        """
        self._dispatching = True
        returned: set[str] = set()
        failures: dict[str, Exception] = {}
        for handler, refused in self._selected(event):
            if handler.name in skip:
                continue
            if around is None:
                error = refused or await _run(handler, event, handler_timeout)
            else:
                error = await _run_inside(around(handler.name), handler, event, handler_timeout, refused)
            if error is not None:
                failures[handler.name] = error
                continue
            returned.add(handler.name)
            if completed is not None:
                completed.add(handler.name)
        if failures:
            raise _errors(failures, frozenset(returned))
        self._expectations.show(event)
        return frozenset(returned)

    @asynccontextmanager
    async def expect(
        self,
        event_type: type[E],
        *,
        where: Callable[[E], bool] | None = None,
        subscription_id: SubscriptionSource | None = None,
    ) -> AsyncIterator[Expected[E]]:
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
        expected: Expected[E] = Expected(partial(_fits, _container(subscription_id), where))
        with self._expectations.armed(event_type, expected):
            yield expected

    def _selected(self, event: Notification) -> Iterator[tuple[Handler, Exception | None]]:
        """Choose who gets an event; beside one whose ``where`` raised stands what it raised."""
        taken = False
        for handler in self._handlers.values():
            refused = None
            try:
                accepted = handler.accepts(event)
            except Exception as error:  # noqa: BLE001  # the user's own code: its failure is the handler's
                accepted, refused = True, error
            if accepted:
                taken = True
                yield handler, refused
        if not taken and self._fallback is not None:
            yield self._fallback, None


async def _run(handler: Handler, event: Notification, seconds: float | None) -> Exception | None:
    """Run one handler; return what it raised."""
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            await handler.function(event)
    except Exception as error:  # noqa: BLE001  # the others are to run all the same
        if limit.expired():
            error.add_note(f"the handler took longer than {seconds} seconds")
        return error
    return None


async def _run_inside(
    context: AbstractContextManager[object],
    handler: Handler,
    event: Notification,
    seconds: float | None,
    refused: Exception | None,
) -> Exception | None:
    """Run one handler inside a context that sees what it raised; what its ``where`` raised is as if it had."""
    try:
        with context:
            error = refused or await _run(handler, event, seconds)
            if error is not None:
                raise error  # noqa: TRY301  # through the context, which is to see it
    except Exception as seen:  # noqa: BLE001  # the others are to run all the same
        return seen
    return None


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


def _fits(ids: Container[int] | None, where: Callable[[Any], bool] | None, event: Notification) -> bool:
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
