"""Comparison of a router's handlers with an account's subscriptions and webhooks."""

from collections.abc import Iterable
from typing import TypeGuard

from attrs import astuple, frozen

from callfire_async._arguments import check_instance
from callfire_async.models import NotificationFormat, Subscription, Webhook, wrong_type
from callfire_async.notifications.events import (
    AccountNotification,
    ContactListNotification,
    DeliveryReportReceived,
    UnknownNotification,
)
from callfire_async.notifications.inbox._inbox_arguments import checked_list
from callfire_async.notifications.routing.router import Handler, Router
from callfire_async.reconcile._reconcile import is_email

__all__ = ["AuditReport", "audit"]

# EMAIL is sent to a mailbox, LEGACY has no published format, and a format that is not listed here is unknown.
_SUPPORTED_FORMATS = (NotificationFormat.XML, NotificationFormat.JSON, NotificationFormat.SOAP, None)

# No subscription has events of these types.
_UNSUBSCRIBABLE = (UnknownNotification, ContactListNotification, DeliveryReportReceived, AccountNotification)


@frozen
class AuditReport:
    """
    Mismatches of handlers with subscriptions and webhooks. ``str()`` gives one line for each, without secrets.

    Attributes:
        handlers_without_subscription: Handlers that no enabled webhook, and no enabled subscription to a URL in a
            supported format, sends events to.
        subscriptions_without_handler: Subscriptions and webhooks of whose events none matches a handler.
        disabled: Subscriptions and webhooks that are disabled, so that CallFire sends no postbacks for them.
        unsupported_format: Subscriptions in a format that may not be parsed: ``EMAIL``, ``LEGACY``, or an unknown one.
    """

    handlers_without_subscription: tuple[Handler, ...] = ()
    subscriptions_without_handler: tuple[Subscription | Webhook, ...] = ()
    disabled: tuple[Subscription | Webhook, ...] = ()
    unsupported_format: tuple[Subscription, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is no mismatch."""
        return not any(astuple(self, recurse=False))

    def __str__(self) -> str:
        lines = [
            *(
                f"no subscription or webhook for handler {handler.name}"
                for handler in self.handlers_without_subscription
            ),
            *(f"no handler for {_describe(item)} ({_posted(item)})" for item in self.subscriptions_without_handler),
            *(f"{_describe(item)} is disabled" for item in self.disabled),
            *(
                f"subscription {subscription.id} has the unsupported format {subscription.notification_format}"
                for subscription in self.unsupported_format
            ),
        ]
        return "\n".join(lines) or "all handlers, subscriptions and webhooks match"


def _describe(source: Subscription | Webhook) -> str:
    return f"{'webhook' if isinstance(source, Webhook) else 'subscription'} {source.id}"


def _posted(source: Subscription | Webhook) -> str:
    """Return what makes CallFire post: a trigger, or a resource and its events."""
    if isinstance(source, Webhook):
        return f"{source.resource} {', '.join(source.events)}"
    return str(source.trigger_event)


def audit(router: Router, subscriptions: Iterable[Subscription | Webhook]) -> AuditReport:
    """
    Compare a router's handlers with an account's subscriptions and webhooks.

    A handler of `UnknownNotification` is never reported. A handler that no subscription can send events to, because
    only API v2 has such events or it is bound to webhooks alone, is reported only if webhooks are passed.

    Args:
        router: The router, with all its handlers. A handler that is bound to a set of ids is compared with the current
            contents of the set.
        subscriptions: The subscriptions and webhooks that post to this receiver, such as
            ``[subscription async for subscription in callfire.subscriptions.all()]``.

    Raises:
        TypeError: An argument has the wrong type.
    """
    check_instance("router", router, Router, "Router()")
    listed = _checked_sources(subscriptions)
    active = [item for item in listed if _posts_to_receiver(item)]
    served = {handler.name for item in active for handler in router.handlers_of(item)}
    has_webhooks = any(isinstance(item, Webhook) for item in listed)
    return AuditReport(
        handlers_without_subscription=tuple(
            handler
            for handler in router.handlers
            if handler.name not in served and _is_reported(handler, has_webhooks=has_webhooks)
        ),
        subscriptions_without_handler=tuple(item for item in listed if not router.handlers_of(item)),
        disabled=tuple(item for item in listed if item.enabled is False),
        unsupported_format=tuple(item for item in listed if _has_unsupported_format(item)),
    )


def _checked_sources(sources: Iterable[Subscription | Webhook]) -> list[Subscription | Webhook]:
    listed = checked_list("subscriptions", sources)
    for index, item in enumerate(listed):
        if not isinstance(item, Subscription | Webhook):
            raise wrong_type(f"subscriptions[{index}]", "a Subscription or a Webhook", item)
    return listed


def _posts_to_receiver(source: Subscription | Webhook) -> bool:
    return source.enabled is not False and not is_email(source) and not _has_unsupported_format(source)


def _has_unsupported_format(source: Subscription | Webhook) -> TypeGuard[Subscription]:
    return isinstance(source, Subscription) and source.notification_format not in _SUPPORTED_FORMATS


def _is_reported(handler: Handler, *, has_webhooks: bool) -> bool:
    """Return whether a handler without events is a mismatch: not if none of the listed kinds can send it events."""
    if has_webhooks:
        return not issubclass(handler.event_type, UnknownNotification)
    is_bound_to_webhooks_only = handler.is_bound and handler.subscription_id is None
    return not (is_bound_to_webhooks_only or issubclass(handler.event_type, _UNSUBSCRIBABLE))
