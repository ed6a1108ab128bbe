"""Whether a router's handlers and an account's subscriptions fit together."""

import pytest

from callfire_async import NotificationFormat, Subscription, TriggerEvent
from callfire_async.notifications import CallFinished, Notification, Router, TextReceived, UnknownNotification
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


def names(findings):
    return [one.name for one in findings.handlers_without_subscription]


def test_nothing_is_found_where_all_fits():
    """It says so when it is printed."""
    findings = audit(router_of(TextReceived, Notification), [subscription(enabled=True)])

    assert findings == AuditReport()
    assert findings.is_empty
    assert str(findings) == "every handler is fed, and every subscription handled"


def test_a_handler_that_nothing_feeds_is_found():
    """No trigger of the account makes CallFire post its event."""
    findings = audit(router_of(TextReceived, CallFinished), [subscription()])

    assert names(findings) == ["handler 1"]
    assert not findings.is_empty


@pytest.mark.parametrize(
    "details",
    [
        {"enabled": False},
        {"notification_format": NotificationFormat.EMAIL},
        {"notification_format": NotificationFormat.LEGACY},
        {"notification_format": NotificationFormat("NEW_ONE")},
    ],
)
def test_what_is_disabled_or_unreadable_feeds_nobody(details):
    """Nothing of it can be counted on to arrive."""
    assert names(audit(router_of(TextReceived), [subscription(**details)])) == ["handler 0"]


def test_a_bound_handler_is_fed_by_its_subscription_only():
    """What another one sends, it does not get."""
    router = router_of(TextReceived, subscription_id=2)

    assert names(audit(router, [subscription(1)])) == ["handler 0"]
    assert names(audit(router, [subscription(2)])) == []


def test_a_handler_of_the_unknown_is_never_missed():
    """Nobody can subscribe to what is not published."""
    assert audit(router_of(UnknownNotification), []).is_empty


def test_a_subscription_that_nobody_handles_is_found():
    """Its events would be acknowledged and dropped."""
    calls = subscription(1, TriggerEvent.INBOUND_CALL_FINISHED)
    texts = subscription(2)

    assert audit(router_of(TextReceived), [calls, texts]).subscriptions_without_handler == (calls,)


@pytest.mark.parametrize("trigger_event", [None, TriggerEvent.UNDEFINED_EVENT, TriggerEvent("NEW_ONE")])
def test_a_trigger_that_is_not_known_posts_the_unknown(trigger_event):
    """Who takes everything, or the unknown, takes it."""
    new = subscription(1, trigger_event)

    assert audit(router_of(TextReceived), [new]).subscriptions_without_handler == (new,)
    assert audit(router_of(UnknownNotification), [new]).subscriptions_without_handler == ()
    assert audit(router_of(Notification), [new]).is_empty


def test_a_fallback_takes_whatever_no_handler_takes():
    """It is fed by everything, or by nothing, and neither is a finding."""
    assert audit(router_of(TextReceived, fallback=True), [subscription(), subscription(2, None)]).is_empty
    assert audit(router_of(fallback=True), []).is_empty


def test_disabled_and_unreadable_subscriptions_are_found():
    """They are named, whoever handles them."""
    disabled, mail = subscription(1, enabled=False), subscription(2, notification_format=NotificationFormat.EMAIL)

    findings = audit(router_of(Notification), iter([disabled, mail, subscription(3)]))

    assert findings == AuditReport(disabled=(disabled,), unsupported_format=(mail,))


def test_each_finding_is_a_line():
    """There is no endpoint in it."""
    there = [
        subscription(7, TriggerEvent.CAMPAIGN_STARTED, enabled=False, notification_format=NotificationFormat.LEGACY)
    ]

    assert str(audit(router_of(TextReceived), there)).splitlines() == [
        "no subscription feeds the handler handler 0",
        "no handler takes what subscription 7 posts (CAMPAIGN_STARTED)",
        "subscription 7 is disabled",
        "subscription 7 posts LEGACY",
    ]
