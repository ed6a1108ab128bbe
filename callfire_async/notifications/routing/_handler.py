"""Handlers, and which events match them."""

from collections.abc import Awaitable, Callable, Container
from typing import Any, TypeAlias, TypeVar

from attrs import frozen

from callfire_async._arguments import check_async_function, check_ids, check_plain_function, is_id_container, type_name
from callfire_async.models import ResourceReference, Subscription
from callfire_async.notifications.events import Notification
from callfire_async.notifications.routing._user_code import raise_exit

__all__ = ["Handler"]

E = TypeVar("E", bound=Notification)
A = TypeVar("A", bound=Awaitable[None])
HandlerFunction: TypeAlias = Callable[[E], A]
SubscriptionSource: TypeAlias = int | Subscription | ResourceReference | Container[int]


@frozen(eq=False)
class Handler:
    """A registered handler: its name, its function, and which events it matches."""

    #: Unique in its router.
    name: str
    #: The handler matches events of this type and of its subclasses.
    event_type: type[Notification]
    #: The decorated function.
    function: Callable[[Any], Awaitable[None]]
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
        except BaseException as error:  # noqa: BLE001  # user code may raise anything
            raise_exit(error)
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
    function: Callable[[Any], Awaitable[None]],
    *,
    subscription_id: Container[int] | None = None,
    where: Callable[[Any], bool] | None = None,
) -> Handler:
    """
    Create a handler.

    Raises:
        TypeError: *function* is not a coroutine function of one argument, or has no name.
    """
    check_async_function("handler", function, "async def handler(event)", event_type)
    return Handler(name or _default_name(function), event_type, function, subscription_id, where)


def _default_name(function: Callable[..., object]) -> str:
    try:
        return f"{function.__module__}.{function.__qualname__}"
    except AttributeError:
        raise TypeError("handler has no __qualname__; pass name=, or define it with async def") from None


def check_name(name: object) -> None:
    """Raise an error unless *name* is None or a text that is not empty."""
    if name is None:
        return
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, not {type_name(name)}")
    if not name.strip():
        raise ValueError("name must not be empty")


def check_where(where: object) -> None:
    """Raise a `TypeError` unless *where* is None or a plain function of the event."""
    if where is not None:
        check_plain_function("where", where, Notification)


def check_event_type(event_type: object) -> None:
    """Raise a `TypeError` unless *event_type* is a type of events."""
    if not (isinstance(event_type, type) and issubclass(event_type, Notification)):
        raise TypeError(
            "event_type must be Notification or a subclass, as in @router.on(TextFinished), not "
            f"{type_name(event_type)}"
        )


def to_container(source: SubscriptionSource | None) -> Container[int] | None:
    """Return the ids that *source* names; a container is returned unchanged, so that it may change later."""
    if isinstance(source, Subscription | ResourceReference):
        source = source.id
    if isinstance(source, int) and not isinstance(source, bool):
        if source < 1:
            raise ValueError("subscription_id must be at least 1")
        return frozenset([source])
    if source is not None and (isinstance(source, int) or not is_id_container(source)):
        raise TypeError(
            "subscription_id must be an id, a Subscription, a ResourceReference or a container of ids, not "
            f"{type_name(source)}"
        )
    if source is not None:
        check_ids("subscription_id", source)
    return source
