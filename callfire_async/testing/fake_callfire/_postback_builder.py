"""The postbacks of events: which subscriptions and webhooks get them, and how they are encoded and signed."""

import json
import warnings
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from attrs import evolve

from callfire_async._codec import documents
from callfire_async.models import NotificationFormat, Subscription, Webhook
from callfire_async.notifications.encoding import encode, encode_envelope
from callfire_async.notifications.events import Notification, TextNotification
from callfire_async.notifications.routing.subscription_filters import matches, matches_webhook
from callfire_async.notifications.security.signatures import SigningSecrets
from callfire_async.testing.fake_callfire._sender import OutgoingPostback

__all__ = ["PostbackShape", "build_subscription_postbacks", "build_webhook_postback"]

#: The shape of API 1.1's postbacks: see `FakeCallFire`.
PostbackShape = Literal["2016", "2015"]

# The formats that are posted over HTTP; ``EMAIL`` is sent to a mailbox, and ``LEGACY`` is not documented.
_POSTED_FORMATS = frozenset([NotificationFormat.XML, NotificationFormat.JSON, NotificationFormat.SOAP])


def _is_url(endpoint: str | None) -> bool:
    return (endpoint or "").startswith(("http://", "https://"))


def _has_expired(expires_at: datetime | None, now: datetime) -> bool:
    """Return whether a time has passed; one without an offset is in UTC."""
    if expires_at is None:
        return False
    return (expires_at if expires_at.tzinfo else expires_at.replace(tzinfo=UTC)) < now


# --- API 1.1 ----------------------------------------------------------------------------------------------


def build_subscription_postbacks(
    event: Notification, subscriptions: Iterable[Subscription], shape: PostbackShape, now: datetime
) -> list[OutgoingPostback]:
    """
    Return the postbacks of an event to the enabled subscriptions that it matches, each in its own format.

    A subscription that has expired before *now* gets none.
    """
    return [_subscription_postback(event, item, shape) for item in subscriptions if _is_posted_to(event, item, now)]


def _is_posted_to(event: Notification, subscription: Subscription, now: datetime) -> bool:
    return (
        bool(subscription.enabled)
        and not _has_expired(subscription.expires_at, now)
        and subscription.notification_format in _POSTED_FORMATS
        and _is_url(subscription.endpoint)
        and matches(event, subscription)
    )


def _subscription_postback(event: Notification, subscription: Subscription, shape: PostbackShape) -> OutgoingPostback:
    format = subscription.notification_format or NotificationFormat.XML
    posted = evolve(event, subscription_id=subscription.id)
    content_type, body = encode(_without_message(posted) if shape == "2015" else posted, format)
    if shape == "2015" and format == NotificationFormat.JSON:
        body = documents.write_json(_as_in_2015(json.loads(body)))
    return OutgoingPostback(subscription.id, subscription.endpoint or "", event.key, content_type, body)


def _without_message(event: Notification) -> Notification:
    """Return the event of an outbound text with its message in the records only."""
    if not isinstance(event, TextNotification) or event.text.inbound or not event.text.records:
        return event
    return evolve(event, text=evolve(event.text, message=None))


def _as_in_2015(node: Any, name: str = "") -> Any:
    """Return a JSON tree with lists of one item as the bare item, and phone numbers as numbers."""
    if isinstance(node, dict):
        # The text of an element with attributes is its value.
        return {key: _as_in_2015(value, name if key == "value" else key) for key, value in node.items()}
    if isinstance(node, list):
        items = [_as_in_2015(item, name) for item in node]
        return items[0] if len(items) == 1 else items
    is_number = name in ("FromNumber", "ToNumber") and node.isascii() and node.isdigit()
    return int(node) if is_number else node


# --- API v2 -----------------------------------------------------------------------------------------------


def build_webhook_postback(events: Sequence[Notification], webhook: Webhook, now: datetime) -> OutgoingPostback | None:
    """
    Return the postback of events to a webhook, or None if there is nothing to post.

    Args:
        events: The events that match the webhook are in the envelope; one that fires only once has the first of them.
        webhook: Its secret signs the body.
        now: The time of the events that have none.
    """
    if not webhook.enabled or not _is_url(webhook.callback) or _has_expired(webhook.expires_at, now):
        return None
    matching = [event for event in events if matches_webhook(event, webhook)]
    posted = [_posted_by(webhook, event, now) for event in (matching[:1] if webhook.single_use else matching)]
    if not posted:
        return None
    content_type, body = encode_envelope(posted)
    return OutgoingPostback(
        None,
        webhook.callback or "",
        posted[0].key,
        content_type,
        body,
        webhook_id=webhook.id,
        keys=tuple(event.key for event in posted),
        signature=_sign(body, webhook.secret) if webhook.secret else None,
    )


def _posted_by(webhook: Webhook, event: Notification, now: datetime) -> Notification:
    return evolve(event, webhook_id=webhook.id, webhook_name=webhook.name, occurred_at=event.occurred_at or now)


def _sign(body: bytes, secret: str) -> str:
    with warnings.catch_warnings():
        # The client warns when a webhook with a weak secret is created.
        warnings.simplefilter("ignore")
        return SigningSecrets(secret).sign(body)
