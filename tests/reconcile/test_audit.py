"""`audit` reports the mismatches between a router's handlers and an account's subscriptions."""

import pytest
from attrs import evolve

from callfire_async import NotificationFormat, Subscription, TriggerEvent, Webhook, WebhookEvent, WebhookResource
from callfire_async.notifications import (
    AccountNotification,
    CallFinished,
    ContactListNotification,
    ContactListValidationFailed,
    DeliveryReportReceived,
    Notification,
    Router,
    TextReceived,
    UnknownNotification,
)
from callfire_async.reconcile import AuditReport, audit


def router_of(*event_types, fallback=False, **options):
    router = Router()
    for number, event_type in enumerate(event_types):
        router.on(event_type, name=f"handler {number}", **options)(handler)
    if fallback:
        router.fallback(handler)
    return router


async def handler(event): ...


def subscription(id=1, trigger_event=TriggerEvent.INBOUND_TEXT_FINISHED, **details):
    return Subscription(id, endpoint="https://hooks.example.com/callfire/token", trigger_event=trigger_event, **details)


def unsubscribed(report):
    return [handler.name for handler in report.handlers_without_subscription]


def test_report_is_empty_if_everything_matches():
    """An empty report prints one line that says so."""
    report = audit(router_of(TextReceived, Notification), [subscription(enabled=True)])

    assert report == AuditReport()
    assert report.is_empty
    assert str(report) == "all handlers, subscriptions and webhooks match"


def test_handler_without_subscription_is_reported():
    """No trigger of the account makes CallFire post the handler's event."""
    report = audit(router_of(TextReceived, CallFinished), [subscription()])

    assert unsubscribed(report) == ["handler 1"]
    assert not report.is_empty


@pytest.mark.parametrize(
    "details",
    [
        {"enabled": False},
        {"notification_format": NotificationFormat.EMAIL},
        {"notification_format": NotificationFormat.LEGACY},
        {"notification_format": NotificationFormat("NEW_ONE")},
    ],
)
def test_handler_with_only_unusable_subscriptions_is_reported(details):
    """Disabled subscriptions and unsupported formats do not count."""
    assert unsubscribed(audit(router_of(TextReceived), [subscription(**details)])) == ["handler 0"]


def test_subscription_to_a_mailbox_does_not_count():
    """CallFire accepts an e-mail address together with a format for receivers."""
    mail = evolve(subscription(notification_format=NotificationFormat.XML), endpoint="me@example.com")

    assert unsubscribed(audit(router_of(TextReceived), [mail])) == ["handler 0"]


def test_bound_handler_needs_its_own_subscription():
    """A subscription with another id does not count."""
    router = router_of(TextReceived, subscription_id=2)

    assert unsubscribed(audit(router, [subscription(1)])) == ["handler 0"]
    assert unsubscribed(audit(router, [subscription(2)])) == []


def test_handler_of_unknown_events_is_not_reported():
    """No subscription can be created for unknown events."""
    assert audit(router_of(UnknownNotification), []).is_empty


@pytest.mark.parametrize(
    "event_type",
    [ContactListNotification, ContactListValidationFailed, DeliveryReportReceived, AccountNotification],
)
def test_handler_of_events_of_api_2_is_not_reported(event_type):
    """Only webhooks send such events."""
    assert audit(router_of(event_type), []).is_empty


def test_handler_bound_to_a_webhook_is_not_reported():
    """It needs no subscription, unless it is bound to one too."""
    assert audit(router_of(TextReceived, webhook_id=5), []).is_empty
    assert unsubscribed(audit(router_of(TextReceived, webhook_id=5, subscription_id=2), [])) == ["handler 0"]


def test_subscription_of_a_handler_that_is_bound_to_a_webhook_is_reported():
    """The handler gets no events of a subscription."""
    listed = subscription(5)

    assert audit(router_of(TextReceived, webhook_id=5), [listed]).subscriptions_without_handler == (listed,)


def test_subscription_without_handler_is_reported():
    """The router has no handler for the events of its trigger."""
    calls = subscription(1, TriggerEvent.INBOUND_CALL_FINISHED)
    texts = subscription(2)

    assert audit(router_of(TextReceived), [calls, texts]).subscriptions_without_handler == (calls,)


@pytest.mark.parametrize("trigger_event", [None, TriggerEvent.UNDEFINED_EVENT, TriggerEvent("NEW_ONE")])
def test_unknown_trigger_needs_a_handler_of_unknown_events(trigger_event):
    """A handler of `UnknownNotification` or of `Notification` matches; one of another type does not."""
    new = subscription(1, trigger_event)

    assert audit(router_of(TextReceived), [new]).subscriptions_without_handler == (new,)
    assert audit(router_of(UnknownNotification), [new]).subscriptions_without_handler == ()
    assert audit(router_of(Notification), [new]).is_empty


def test_fallback_matches_all_other_subscriptions():
    """A fallback is not reported itself, with or without subscriptions."""
    assert audit(router_of(TextReceived, fallback=True), [subscription(), subscription(2, None)]).is_empty
    assert audit(router_of(fallback=True), []).is_empty


def test_disabled_and_unsupported_subscriptions_are_reported():
    """They are reported even if a handler matches."""
    disabled, mail = subscription(1, enabled=False), subscription(2, notification_format=NotificationFormat.EMAIL)

    report = audit(router_of(Notification), iter([disabled, mail, subscription(3)]))

    assert report == AuditReport(disabled=(disabled,), unsupported_format=(mail,))


def test_report_prints_one_line_for_each_mismatch():
    """The lines contain no endpoint."""
    subscriptions = [
        subscription(7, TriggerEvent.CAMPAIGN_STARTED, enabled=False, notification_format=NotificationFormat.LEGACY)
    ]

    assert str(audit(router_of(TextReceived), subscriptions)).splitlines() == [
        "no subscription or webhook for handler handler 0",
        "no handler for subscription 7 (CAMPAIGN_STARTED)",
        "subscription 7 is disabled",
        "subscription 7 has the unsupported format LEGACY",
    ]


# --- webhooks ---------------------------------------------------------------------------------------------


def webhook(id=5, resource="InboundText", *events, **details):
    names = tuple(map(WebhookEvent, events or ["Finished"]))
    return Webhook(id, resource=WebhookResource(resource), events=names, **details)


def test_webhooks_send_the_events_of_handlers():
    """A service that has moved to API v2 has no subscriptions."""
    router = router_of(TextReceived, ContactListValidationFailed)
    webhooks = [webhook(), webhook(6, "ContactList", "ValidationFinished", "ValidationFailed")]

    assert audit(router, webhooks).is_empty
    assert unsubscribed(audit(router, [webhooks[0], subscription()])) == ["handler 1"]


@pytest.mark.parametrize(
    ("listed", "names"),
    [
        ([webhook(5)], []),
        ([webhook(6)], ["handler 0"]),
        ([webhook(5, enabled=False)], ["handler 0"]),
        ([webhook(6), subscription(2)], []),
    ],
)
def test_bound_handler_needs_its_own_webhook_or_subscription(listed, names):
    """One of the two that it is bound to is enough."""
    assert unsubscribed(audit(router_of(TextReceived, webhook_id=5, subscription_id=2), listed)) == names


def test_handler_bound_to_a_subscription_gets_no_events_of_webhooks():
    """After a migration it needs ``webhook_id`` too."""
    report = audit(router_of(TextReceived, subscription_id=2), [webhook()])

    assert (unsubscribed(report), report.subscriptions_without_handler) == (["handler 0"], (webhook(),))


@pytest.mark.parametrize("unknown", [Webhook(5), webhook(5, "InboundText", "Vanished"), webhook(5, "Ticket")])
def test_unknown_events_of_webhooks_need_a_handler_of_unknown_events(unknown):
    """Such a handler is not reported itself if no webhook needs it."""
    assert audit(router_of(TextReceived), [unknown]).subscriptions_without_handler == (unknown,)
    assert audit(router_of(UnknownNotification), [unknown]).is_empty
    assert audit(router_of(UnknownNotification, TextReceived), [webhook()]).is_empty


def test_report_has_webhooks():
    """With their resource and events."""
    listed = [webhook(7, "CallBroadcast", "Started", "Stopped", enabled=False)]

    assert str(audit(router_of(TextReceived), listed)).splitlines() == [
        "no subscription or webhook for handler handler 0",
        "no handler for webhook 7 (CallBroadcast Started, Stopped)",
        "webhook 7 is disabled",
    ]
