"""Handlers, and which events match them."""

from collections.abc import Awaitable, Callable, Container
from typing import Any, TypeAlias, TypeVar

from attrs import frozen

from callfire_async._arguments import check_async_function, check_ids, check_plain_function, is_id_container, type_name
from callfire_async.models import ResourceReference, Subscription, Webhook
from callfire_async.notifications.events import Notification
from callfire_async.notifications.routing._user_code import raise_exit

__all__ = ["Handler"]

E = TypeVar("E", bound=Notification)
A = TypeVar("A", bound=Awaitable[None])
HandlerFunction: TypeAlias = Callable[[E], A]
SubscriptionSource: TypeAlias = int | Subscription | ResourceReference | Container[int]
WebhookSource: TypeAlias = int | Webhook | ResourceReference | Container[int]


@frozen(eq=False)
class EventSource:
    """The subscriptions and webhooks whose events are matched: any if both are None, else those of either."""

    subscription_ids: Container[int] | None = None
    webhook_ids: Container[int] | None = None

    @property
    def is_any(self) -> bool:
        """Whether events of any subscription and any webhook are matched."""
        return self.subscription_ids is None and self.webhook_ids is None

    def includes(self, subscription_id: int | None, webhook_id: int | None) -> bool:
        """Return whether an event with these ids is matched."""
        return (
            self.is_any or _contains(self.subscription_ids, subscription_id) or _contains(self.webhook_ids, webhook_id)
        )


def _contains(ids: Container[int] | None, id: int | None) -> bool:
    return ids is not None and id is not None and id in ids


@frozen(eq=False)
class Handler:
    """A registered handler: its name, its function, and which events it matches."""

    #: Unique in its router.
    name: str
    #: The handler matches events of this type and of its subclasses.
    event_type: type[Notification]
    #: The decorated function.
    function: Callable[[Any], Awaitable[None]]
    #: The subscriptions and webhooks that the handler is bound to.
    _source: EventSource = EventSource()
    #: A further condition; None for none.
    where: Callable[[Any], bool] | None = None

    @property
    def subscription_id(self) -> Container[int] | None:
        """The ids of the subscriptions that the handler is bound to; None if it is bound to none."""
        return self._source.subscription_ids

    @property
    def webhook_id(self) -> Container[int] | None:
        """The ids of the webhooks that the handler is bound to; None if it is bound to none."""
        return self._source.webhook_ids

    @property
    def is_bound(self) -> bool:
        """Whether the handler gets only events of some subscriptions or webhooks."""
        return not self._source.is_any

    def accepts(
        self, event_type: type[Notification], subscription_id: int | None, webhook_id: int | None = None
    ) -> bool:
        """Return whether the handler is registered for a type of event and its source; ignores ``where``."""
        return issubclass(event_type, self.event_type) and self._source.includes(subscription_id, webhook_id)

    def matches(self, event: Notification) -> bool:
        """Return whether the handler gets an event; raises what ``where`` raises."""
        return event_matches(event, self.event_type, self._source, self.where)

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
    source: EventSource,
    where: Callable[[Any], bool] | None,
) -> bool:
    """Return whether an event has a type, comes from a source, and fulfills ``where``."""
    return (
        isinstance(event, event_type)
        and source.includes(event.subscription_id, event.webhook_id)
        and (where is None or bool(where(event)))
    )


def make_handler(
    name: str | None,
    event_type: type[Notification],
    function: Callable[[Any], Awaitable[None]],
    *,
    source: EventSource | None = None,
    where: Callable[[Any], bool] | None = None,
) -> Handler:
    """
    Create a handler.

    Raises:
        TypeError: *function* is not a coroutine function of one argument, or has no name.
    """
    check_async_function("handler", function, "async def handler(event)", event_type)
    return Handler(name or _default_name(function), event_type, function, source or EventSource(), where)


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


def to_event_source(subscription_id: SubscriptionSource | None, webhook_id: WebhookSource | None) -> EventSource:
    """
    Return the source that the arguments name; a container is used unchanged, so that it may change later.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An id is below 1.
    """
    return EventSource(
        _to_container("subscription_id", subscription_id, Subscription),
        _to_container("webhook_id", webhook_id, Webhook),
    )


def _to_container(name: str, source: object, model: type[Subscription | Webhook]) -> Container[int] | None:
    if isinstance(source, model | ResourceReference):
        source = source.id
    if isinstance(source, int) and not isinstance(source, bool):
        if source < 1:
            raise ValueError(f"{name} must be at least 1")
        return frozenset([source])
    if source is None:
        return None
    if not isinstance(source, Container) or not is_id_container(source):
        raise TypeError(
            f"{name} must be an id, a {model.__name__}, a ResourceReference or a container of ids, not "
            f"{type_name(source)}"
        )
    check_ids(name, source)
    return source
