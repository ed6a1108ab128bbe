"""Handlers, and which events match them."""

import inspect
from collections.abc import Callable, Container, Coroutine
from typing import Any, TypeAlias, TypeVar

from attrs import frozen

from callfire_async.models import ResourceReference, Subscription
from callfire_async.notifications.events import Notification

__all__ = ["Handler"]

E = TypeVar("E", bound=Notification)
HandlerFunction: TypeAlias = Callable[[E], Coroutine[Any, Any, None]]
SubscriptionSource: TypeAlias = int | Subscription | ResourceReference | Container[int]


@frozen(eq=False)
class Handler:
    """A registered handler: its name, its function, and which events it matches."""

    #: Unique in its router.
    name: str
    #: The handler matches events of this type and of its subclasses.
    event_type: type[Notification]
    #: The decorated function.
    function: HandlerFunction[Any]
    #: The ids of the subscriptions that the handler is bound to; None for any subscription.
    subscription_id: Container[int] | None = None
    #: A further condition; None for none.
    where: Callable[[Any], bool] | None = None

    def accepts(self, event_type: type[Notification], subscription_id: int | None) -> bool:
        """Return whether the handler is registered for a type of event and a subscription; ignores ``where``."""
        return issubclass(event_type, self.event_type) and _includes(self.subscription_id, subscription_id)

    def matches(self, event: Notification) -> bool:
        """Return whether the handler gets an event; raises what ``where`` raises."""
        return event_matches(event, self.event_type, self.subscription_id, self.where)

    def may_match(self, event: Notification) -> bool:
        """Return whether the handler gets an event or fails because ``where`` raises."""
        try:
            return self.matches(event)
        except Exception:  # noqa: BLE001  # user code may raise anything
            return True


def event_matches(
    event: Notification,
    event_type: type[Notification],
    ids: Container[int] | None,
    where: Callable[[Any], bool] | None,
) -> bool:
    """Return whether an event has a type, comes from one of some subscriptions, and fulfills ``where``."""
    return (
        isinstance(event, event_type)
        and _includes(ids, event.subscription_id)
        and (where is None or bool(where(event)))
    )


def _includes(ids: Container[int] | None, id: int | None) -> bool:
    return ids is None or (id is not None and id in ids)


def make_handler(
    name: str | None,
    event_type: type[Notification],
    function: HandlerFunction[Any],
    *,
    subscription_id: Container[int] | None = None,
    where: Callable[[Any], bool] | None = None,
) -> Handler:
    """
    Create a handler.

    Raises:
        TypeError: *function* is not a coroutine function of one argument or has no name, or *where* is not callable.
    """
    if not inspect.iscoroutinefunction(function):
        raise TypeError("handler must be a coroutine function: async def handler(event)")
    try:
        inspect.signature(function).bind(event_type)
    except TypeError as error:
        raise TypeError(f"handler must accept one argument, the event: {error}") from None
    if where is not None and not callable(where):
        raise TypeError("where must be a function of the event")
    return Handler(name or _default_name(function), event_type, function, subscription_id, where)


def _default_name(function: Callable[..., object]) -> str:
    try:
        return f"{function.__module__}.{function.__qualname__}"
    except AttributeError:
        raise TypeError("handler has no __qualname__; pass name=") from None


def check_event_type(event_type: object) -> None:
    """Raise a `TypeError` unless *event_type* is a type of events."""
    if not (isinstance(event_type, type) and issubclass(event_type, Notification)):
        raise TypeError("event_type must be Notification or a subclass")


def to_container(source: SubscriptionSource | None) -> Container[int] | None:
    """Return the ids that *source* names; a container is returned unchanged, so that it may change later."""
    if isinstance(source, Subscription | ResourceReference):
        source = source.id
    if isinstance(source, int) and not isinstance(source, bool):
        if source < 1:
            raise ValueError("subscription_id must be at least 1")
        return frozenset([source])
    if source is None or (isinstance(source, Container) and not isinstance(source, str | bytes)):
        return source
    raise TypeError("subscription_id must be an id, a Subscription, a ResourceReference or a container of ids")
