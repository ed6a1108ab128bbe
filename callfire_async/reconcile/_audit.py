"""Compare a router's handlers with an account's subscriptions."""

from collections.abc import Iterable

from attrs import frozen

from callfire_async.models import NotificationFormat, Subscription
from callfire_async.notifications.events import UnknownNotification
from callfire_async.notifications.routing.router import Handler, Router

__all__ = ["AuditReport", "audit"]

# EMAIL goes to a mailbox, LEGACY has no published form, and nobody knows what comes after them.
_READABLE = (NotificationFormat.XML, NotificationFormat.JSON, NotificationFormat.SOAP, None)


@frozen
class AuditReport:
    """
    What does not fit between handlers and subscriptions; printed, one line for each, and no secret in it.

    Attributes:
        handlers_without_subscription: Handlers that no enabled subscription in a format that can be read feeds.
        subscriptions_without_handler: Subscriptions whose events no handler takes.
        disabled: Subscriptions that CallFire does not post for.
        unsupported_format: Subscriptions in a format that a receiver cannot promise to read: ``EMAIL``, ``LEGACY``.
    """

    handlers_without_subscription: tuple[Handler, ...] = ()
    subscriptions_without_handler: tuple[Subscription, ...] = ()
    disabled: tuple[Subscription, ...] = ()
    unsupported_format: tuple[Subscription, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether all is well."""
        return not (
            self.handlers_without_subscription
            or self.subscriptions_without_handler
            or self.disabled
            or self.unsupported_format
        )

    def __str__(self) -> str:
        lines = [
            *(f"no subscription feeds the handler {handler.name}" for handler in self.handlers_without_subscription),
            *(
                f"no handler takes what subscription {one.id} posts ({one.trigger_event})"
                for one in self.subscriptions_without_handler
            ),
            *(f"subscription {one.id} is disabled" for one in self.disabled),
            *(f"subscription {one.id} posts {one.notification_format}" for one in self.unsupported_format),
        ]
        return "\n".join(lines) or "every handler is fed, and every subscription handled"


def audit(router: Router, subscriptions: Iterable[Subscription]) -> AuditReport:
    """
    Find what does not fit between a router's handlers and an account's subscriptions.

    A handler of `UnknownNotification` waits for what nobody can subscribe to, and is never missed.

    Args:
        router: With all its handlers; those bound to a container are judged by what is in it now.
        subscriptions: Those that post to this program: ``[item async for item in callfire.subscriptions.all()]``.
    """
    listed = [*subscriptions]
    live = [item for item in listed if item.enabled is not False and item.notification_format in _READABLE]
    fed = {handler.name for item in live for handler in router.handlers_of(item)}
    return AuditReport(
        handlers_without_subscription=tuple(
            handler
            for handler in router.handlers
            if handler.name not in fed and handler.event_type is not UnknownNotification
        ),
        subscriptions_without_handler=tuple(item for item in listed if not router.handlers_of(item)),
        disabled=tuple(item for item in listed if item.enabled is False),
        unsupported_format=tuple(item for item in listed if item.notification_format not in _READABLE),
    )
