"""`Router`: handler registration and dispatch."""

from collections.abc import AsyncIterator, Callable, Container, Iterable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from typing import Any, Self, TypeVar

from callfire_async._arguments import check_instance, check_number, type_name
from callfire_async.models import Subscription, TriggerEvent, Webhook, WebhookEvent, WebhookResource
from callfire_async.notifications.events import Notification
from callfire_async.notifications.routing._dispatch import Dispatch
from callfire_async.notifications.routing._handler import (
    A,
    Handler,
    HandlerFunction,
    SubscriptionSource,
    WebhookSource,
    check_event_type,
    check_name,
    check_where,
    event_matches,
    make_handler,
    to_event_source,
)
from callfire_async.notifications.routing._posted_types import TYPES_BY_TRIGGER, TYPES_BY_WEBHOOK_EVENT, types_posted_to
from callfire_async.notifications.routing.event_waiter import EventWaiter

__all__ = ["Handler", "Router"]

E = TypeVar("E", bound=Notification)
T = TypeVar("T")


class Router:
    """
    A registry of handlers that dispatches events to them.

    An event goes to every handler whose type, source and ``where`` match it, in the order of registration. All
    handlers must be registered before the first dispatch.
    """

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}
        self._fallback: Handler | None = None
        self._has_dispatched = False
        self._waiters: dict[EventWaiter[Any], None] = {}

    # --- registration -------------------------------------------------------------------------------------

    def on(
        self,
        event_type: type[E],
        *,
        subscription_id: SubscriptionSource | None = None,
        webhook_id: WebhookSource | None = None,
        where: Callable[[E], bool] | None = None,
        name: str | None = None,
    ) -> Callable[[HandlerFunction[E, A]], HandlerFunction[E, A]]:
        """
        Register the decorated coroutine function for events of a type and of its subclasses.

        Args:
            event_type: ``Notification`` matches all events.
            subscription_id: Match only events of this subscription: an id, the result of ``create`` or ``get``, or a
                container of ids, which is checked at each dispatch and so may be filled later.
            webhook_id: Match only events of this webhook, in the same forms. With both, events of either match.
            where: Match only events for which this returns true. If it raises, the handler has failed.
            name: Must be unique in the router, and must not change when the program restarts, because deliveries
                store the names of the handlers that succeeded. Default: ``module.qualname``.

        Raises:
            TypeError: An argument has the wrong type, or the function is not a coroutine function of one argument: an
                ``async def``, a partial or a wrapper of one, an object with an async ``__call__``, or a function that
                is annotated to return an `Awaitable` or a `Coroutine`.
            ValueError: The name is empty or in use, or the id is below 1.
            RuntimeError: An event has been dispatched.
        """
        check_event_type(event_type)
        check_where(where)
        check_name(name)
        source = to_event_source(subscription_id, webhook_id)

        def register(function: HandlerFunction[E, A]) -> HandlerFunction[E, A]:
            self._add(make_handler(name, event_type, function, source=source, where=where))
            return function

        return register

    def fallback(self, function: HandlerFunction[Notification, A]) -> HandlerFunction[Notification, A]:
        """
        Register the coroutine function for events that match no handler. A router has at most one.

        Raises:
            TypeError: The function is not a coroutine function of one argument.
            ValueError: The router has a fallback, or the name is in use.
            RuntimeError: An event has been dispatched.
        """
        self._set_fallback(make_handler(None, Notification, function))
        return function

    def include(self, other: Self) -> None:
        """
        Append a copy of another router's current handlers.

        Raises:
            TypeError: *other* is not a Router.
            ValueError: A name is in use, or both routers have a fallback; nothing is copied.
            RuntimeError: An event has been dispatched.
        """
        check_instance("other", other, Router, "Router()")
        if duplicates := self._names() & other._names():
            raise ValueError(f"a handler named {min(duplicates)} exists in both routers; pass another name= to one")
        if other._fallback is not None:
            self._set_fallback(other._fallback)
        for handler in other._handlers.values():
            self._add(handler)

    def _add(self, handler: Handler) -> None:
        self._check_not_dispatched()
        if handler.name in self._names():
            raise ValueError(f"a handler named {handler.name} exists; pass another name=")
        self._handlers[handler.name] = handler

    def _set_fallback(self, handler: Handler) -> None:
        self._check_not_dispatched()
        if self._fallback is not None:
            raise ValueError(f"the router has a fallback: {self._fallback.name}")
        if handler.name in self._handlers:
            raise ValueError(f"a handler named {handler.name} exists")
        self._fallback = handler

    def _names(self) -> set[str]:
        return {*self._handlers, *([self._fallback.name] if self._fallback else [])}

    def _check_not_dispatched(self) -> None:
        if self._has_dispatched:
            raise RuntimeError("an event has been dispatched; register all handlers before the first dispatch")

    # --- queries ------------------------------------------------------------------------------------------

    @property
    def event_types(self) -> tuple[type[Notification], ...]:
        """The types that handlers are registered for, in the order of registration, without the fallback's."""
        return tuple(dict.fromkeys(handler.event_type for handler in self._handlers.values()))

    @property
    def trigger_events(self) -> tuple[TriggerEvent, ...]:
        """The triggers to subscribe to, so that each handler without an id gets its events of API 1.1."""
        return self._wanted(TYPES_BY_TRIGGER)

    @property
    def webhook_events(self) -> tuple[tuple[WebhookResource, WebhookEvent], ...]:
        """The events to create webhooks for, so that each handler without an id gets its events of API v2."""
        return self._wanted(TYPES_BY_WEBHOOK_EVENT)

    def _wanted(self, types: Mapping[T, type[Notification]]) -> tuple[T, ...]:
        """Return the keys of the types that match a handler without an id."""
        wanted = tuple(handler.event_type for handler in self.handlers if not handler.is_bound)
        return tuple(key for key, event_type in types.items() if issubclass(event_type, wanted))

    @property
    def is_empty(self) -> bool:
        """Whether there is neither a handler nor a fallback."""
        return not self._handlers and self._fallback is None

    @property
    def handlers(self) -> tuple[Handler, ...]:
        """The handlers in the order of registration, without the fallback."""
        return tuple(self._handlers.values())

    def handlers_of(self, subscription: Subscription | Webhook) -> tuple[Handler, ...]:
        """
        Return the handlers that may get events of a subscription or webhook, or else the fallback.

        ``where`` is ignored. Events of an unknown trigger, resource or name are `UnknownNotification`.

        Raises:
            TypeError: *subscription* is neither a subscription nor a webhook.
        """
        if not isinstance(subscription, Subscription | Webhook):
            raise TypeError(f"subscription must be a Subscription or a Webhook, not {type_name(subscription)}")
        types = types_posted_to(subscription)
        ids = (None, subscription.id) if isinstance(subscription, Webhook) else (subscription.id, None)
        return self._or_fallback(
            handler for handler in self.handlers if any(handler.accepts(event_type, *ids) for event_type in types)
        )

    def matching(self, event: Notification) -> tuple[Handler, ...]:
        """
        Return the handlers that a dispatch would run, or report as failed because ``where`` raises.

        Raises:
            TypeError: *event* is not an event.
        """
        check_instance("event", event, Notification, "parse(body)")
        return self._or_fallback(handler for handler in self.handlers if handler.may_match(event))

    def _or_fallback(self, handlers: Iterable[Handler]) -> tuple[Handler, ...]:
        return tuple(handlers) or ((self._fallback,) if self._fallback else ())

    # --- dispatch -----------------------------------------------------------------------------------------

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
        Run all handlers that match an event, one after the other.

        Args:
            event: The event.
            skip: Names of handlers that must not run, because they succeeded in an earlier attempt.
            handler_timeout: Seconds for each handler. Default: no limit.
            completed: A set to which the name of each handler is added as soon as it succeeds, so that the set is
                correct even if the dispatch is cancelled.
            around: Called with the name of each handler; returns a context manager that is entered around its run.

        Returns:
            The names of the handlers that ran.

        Raises:
            HandlerErrors: Handlers failed or timed out (`TimeoutError`); raised after all have run. Its exceptions are
                those of the handlers. An exception that is not an `Exception`, such as the CancelledError of a task
                that a handler awaits, is the ``__cause__`` of a `RuntimeError`.
            TypeError: *event* is not an event, or *handler_timeout* is not a number.
            ValueError: *handler_timeout* is negative or not finite.
        """
        check_instance("event", event, Notification, "parse(body)")
        if handler_timeout is not None:
            check_number("handler_timeout", handler_timeout)
        self._has_dispatched = True
        completed = set() if completed is None else completed
        dispatch = Dispatch(event, skip, handler_timeout, completed, around or nullcontext)
        for handler in self._handlers.values():
            await dispatch.offer(handler)
        if self._fallback is not None and not dispatch.is_matched:
            await dispatch.offer(self._fallback)
        succeeded = dispatch.result()
        for waiter in tuple(self._waiters):
            waiter.notify(event)
        return succeeded

    @asynccontextmanager
    async def expect(
        self,
        event_type: type[E],
        *,
        where: Callable[[E], bool] | None = None,
        subscription_id: SubscriptionSource | None = None,
        webhook_id: WebhookSource | None = None,
    ) -> AsyncIterator[EventWaiter[E]]:
        """
        Wait for an event: ``async with router.expect(TextFinished) as expected``, then ``await expected.get()``.

        Events are collected from the beginning of the block to its end, so start what causes the event inside the
        block. An event is collected when *this* router, in this process, has dispatched it and no handler has failed.
        It need not match a handler; but a receiver with an inbox dead-letters events that match none. May be used
        before and after the first dispatch, and many times at once.

        Args:
            event_type: ``Notification`` matches all events.
            where: Match only events for which this returns true. If it raises, ``get`` raises the exception.
            subscription_id: Match only events of this subscription, as for `on`.
            webhook_id: Match only events of this webhook, as for `on`.

        Raises:
            TypeError: An argument has the wrong type.
            ValueError: The id is below 1.
        """
        check_event_type(event_type)
        check_where(where)
        source = to_event_source(subscription_id, webhook_id)
        waiter: EventWaiter[E] = EventWaiter(lambda event: event_matches(event, event_type, source, where))
        self._waiters[waiter] = None
        try:
            yield waiter
        finally:
            del self._waiters[waiter]
