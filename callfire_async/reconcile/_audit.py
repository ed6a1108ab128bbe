"""Comparison of a router's handlers with an account's subscriptions."""

from collections.abc import Iterable

from attrs import astuple, frozen

from callfire_async.models import NotificationFormat, Subscription
from callfire_async.notifications.events import (
    AccountNotification,
    ContactListNotification,
    DeliveryReportReceived,
    UnknownNotification,
)
from callfire_async.notifications.routing.router import Handler, Router

__all__ = ["AuditReport", "audit"]

# EMAIL is sent to a mailbox, LEGACY has no published format, and a format that is not listed here is unknown.
_SUPPORTED_FORMATS = (NotificationFormat.XML, NotificationFormat.JSON, NotificationFormat.SOAP, None)

# No subscription has events of these types.
_UNSUBSCRIBABLE = (UnknownNotification, ContactListNotification, DeliveryReportReceived, AccountNotification)


@frozen
class AuditReport:
    """
    Mismatches between handlers and subscriptions. ``str()`` gives one line for each, without secrets.

    Attributes:
        handlers_without_subscription: Handlers that no enabled subscription in a supported format sends events to.
        subscriptions_without_handler: Subscriptions whose events match no handler.
        disabled: Subscriptions that are disabled, so that CallFire sends no postbacks for them.
        unsupported_format: Subscriptions in a format that may not be parsed: ``EMAIL``, ``LEGACY``, or an unknown one.
    """

    handlers_without_subscription: tuple[Handler, ...] = ()
    subscriptions_without_handler: tuple[Subscription, ...] = ()
    disabled: tuple[Subscription, ...] = ()
    unsupported_format: tuple[Subscription, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is no mismatch."""
        return not any(astuple(self, recurse=False))

    def __str__(self) -> str:
        lines = [
            *(f"no subscription for handler {handler.name}" for handler in self.handlers_without_subscription),
            *(
                f"no handler for subscription {subscription.id} ({subscription.trigger_event})"
                for subscription in self.subscriptions_without_handler
            ),
            *(f"subscription {subscription.id} is disabled" for subscription in self.disabled),
            *(
                f"subscription {subscription.id} has the unsupported format {subscription.notification_format}"
                for subscription in self.unsupported_format
            ),
        ]
        return "\n".join(lines) or "all handlers and subscriptions match"


def audit(router: Router, subscriptions: Iterable[Subscription]) -> AuditReport:
    """
    Compare a router's handlers with an account's subscriptions.

    A handler that no subscription can send events to is never reported: a handler of `UnknownNotification`, of events
    that only API v2 has, or one that is bound to webhooks alone.

    Args:
        router: The router, with all its handlers. A handler that is bound to a set of subscription ids is compared with
            the current contents of the set.
        subscriptions: The subscriptions that post to this receiver, such as
            ``[subscription async for subscription in callfire.subscriptions.all()]``.
    """
    listed = list(subscriptions)
    active = [item for item in listed if item.enabled is not False and item.notification_format in _SUPPORTED_FORMATS]
    subscribed = {handler.name for item in active for handler in router.handlers_of(item)}
    return AuditReport(
        handlers_without_subscription=tuple(
            handler for handler in router.handlers if handler.name not in subscribed and _needs_subscription(handler)
        ),
        subscriptions_without_handler=tuple(item for item in listed if not router.handlers_of(item)),
        disabled=tuple(item for item in listed if item.enabled is False),
        unsupported_format=tuple(item for item in listed if item.notification_format not in _SUPPORTED_FORMATS),
    )


def _needs_subscription(handler: Handler) -> bool:
    """Return whether a handler can get events of a subscription."""
    is_bound_to_webhooks_only = handler.is_bound and handler.subscription_id is None
    return not (is_bound_to_webhooks_only or issubclass(handler.event_type, _UNSUBSCRIBABLE))
