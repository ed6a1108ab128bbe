"""Planning the migration from subscriptions to webhooks."""

from datetime import UTC, datetime

import pytest

from callfire_async import (
    MigrationPlan,
    MigrationStep,
    NotificationFormat,
    Subscription,
    SubscriptionFilter,
    TriggerEvent,
    Webhook,
    WebhookEvent,
    WebhookResource,
    WebhookSpec,
    plan_migration,
)
from callfire_async.client.migration import match_existing
from callfire_async.notifications import EndpointTokens

TOKEN = "current-token-1234"
URL = f"https://hooks.example.com/callfire/{TOKEN}"
STARTED, STOPPED, FINISHED = WebhookEvent.STARTED, WebhookEvent.STOPPED, WebhookEvent.FINISHED
CAMPAIGNS = [WebhookResource.CALL_BROADCAST, WebhookResource.TEXT_BROADCAST, WebhookResource.CCC_CAMPAIGN]
KEYWORD = "(event.text.message or '').casefold().split()[:1] == ['***']"


def subscription(id=1, trigger_event=TriggerEvent.OUTBOUND_TEXT_FINISHED, **details):
    defaults = {"endpoint": URL, "enabled": True, "notification_format": NotificationFormat.JSON}
    return Subscription(id, trigger_event=trigger_event, **(defaults | details))


def step_of(trigger_event=TriggerEvent.OUTBOUND_TEXT_FINISHED, **details) -> MigrationStep:
    (step,) = plan_migration([subscription(trigger_event=trigger_event, **details)]).steps
    return step


def text_spec(**details):
    return WebhookSpec(**{"callback": URL, "resource": WebhookResource.OUTBOUND_TEXT, "events": (FINISHED,)} | details)


# --- triggers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trigger_event", "resources", "event"),
    [
        ("INBOUND_TEXT_FINISHED", ["InboundText"], FINISHED),
        ("OUTBOUND_TEXT_FINISHED", ["OutboundText"], FINISHED),
        ("INBOUND_CALL_FINISHED", ["InboundCall"], FINISHED),
        ("OUTBOUND_CALL_FINISHED", ["OutboundCall"], FINISHED),
        ("CAMPAIGN_STARTED", CAMPAIGNS, STARTED),
        ("CAMPAIGN_STOPPED", CAMPAIGNS, STOPPED),
        ("CAMPAIGN_FINISHED", CAMPAIGNS, FINISHED),
    ],
)
def test_a_trigger_has_its_resources_and_event(trigger_event, resources, event):
    """A campaign's trigger needs three webhooks, because each of them watches one resource."""
    specs = step_of(TriggerEvent(trigger_event)).specs

    assert [(spec.callback, spec.resource, spec.events) for spec in specs] == [
        (URL, resource, (event,)) for resource in resources
    ]


def test_settings_are_kept():
    """A disabled subscription has a disabled webhook; white space around an endpoint is dropped."""
    step = step_of(enabled=False, non_strict_ssl=True, endpoint=f" {URL} ")

    assert step.specs == (text_spec(enabled=False, non_strict_ssl=True),)
    assert any("disabled" in limitation for limitation in step.limitations)


def test_a_subscription_of_unknown_state_is_taken_as_enabled():
    """CallFire may not return the field."""
    assert step_of(enabled=None, non_strict_ssl=None).specs == (text_spec(),)


# --- limitations ------------------------------------------------------------------------------------------


def test_handlers_of_the_subscription_need_another_argument():
    """Its ID is named; a subscription in JSON without a filter has no other limitation."""
    (limitation,) = step_of(id=609951003).limitations

    assert "subscription_id=609951003" in limitation
    assert "webhook_id=" in limitation


@pytest.mark.parametrize(
    ("details", "reason"),
    [
        ({"endpoint": "someone@example.com"}, "e-mail address"),
        ({"endpoint": None}, "endpoint is missing"),
        ({"trigger_event": TriggerEvent.UNDEFINED_EVENT}, "UNDEFINED_EVENT"),
        ({"trigger_event": TriggerEvent("SOMETHING_NEW")}, "SOMETHING_NEW"),
        ({"trigger_event": None}, "trigger"),
    ],
)
def test_no_webhook_replaces_it(details, reason):
    """The limitation has the reason; a filter does not matter then."""
    step = step_of(**details, filter=SubscriptionFilter(broadcast_id=7))

    (limitation,) = step.limitations
    assert (step.specs, reason in limitation, step.loses_filter) == ((), True, False)
    assert "someone" not in limitation


def test_an_endpoint_that_is_not_a_callback_affects_only_its_step():
    """CallFire's own list may have an endpoint that this library would not create."""
    broken, good = plan_migration([subscription(1, endpoint="http://["), subscription(2)]).steps

    assert (broken.specs, len(broken.limitations), len(good.specs)) == ((), 1, 1)
    assert "callback" in broken.limitations[0]


def test_an_end_is_a_limitation():
    """The webhook would post events for ever."""
    step = step_of(expires_at=datetime(2030, 1, 1, tzinfo=UTC))

    assert step.specs == (text_spec(),)
    assert step.limitations[0].startswith("ends at 2030-01-01T00:00:00+00:00: ")


@pytest.mark.parametrize("format", ["XML", "SOAP", "LEGACY"])
def test_another_format_is_a_limitation(format):
    """Webhooks post JSON only."""
    limitations = step_of(notification_format=NotificationFormat(format)).limitations

    assert [limitation for limitation in limitations if f"format {format}" in limitation]


@pytest.mark.parametrize(
    ("trigger_event", "filter", "where"),
    [
        ("OUTBOUND_TEXT_FINISHED", {"broadcast_id": 1}, "event.text.broadcast_id == 1"),
        ("OUTBOUND_CALL_FINISHED", {"batch_id": 2}, "event.call.batch_id == 2"),
        (
            "INBOUND_TEXT_FINISHED",
            {"from_number": "+1 (213) 555-1212", "to_number": "67076:SECRET", "inbound": True},
            f"event.text.from_number == '***12' and event.text.to_number == '***76' and {KEYWORD}",
        ),
        ("INBOUND_CALL_FINISHED", {"to_number": "67076:SECRET"}, "event.call.to_number == '***76'"),
        ("INBOUND_CALL_FINISHED", {"inbound": False}, "event.call.inbound is False"),
        ("CAMPAIGN_STARTED", {"broadcast_id": 7, "inbound": False}, "event.broadcast.id == 7"),
        (
            "CAMPAIGN_STARTED",
            {"from_number": "12135551212"},
            "event.broadcast.config and event.broadcast.config.from_number == '***12'",
        ),
    ],
)
def test_a_filter_becomes_a_condition_of_the_handler(trigger_event, filter, where):
    """The limitation names the fields and has the `where=` to write, with numbers masked."""
    step = step_of(TriggerEvent(trigger_event), filter=SubscriptionFilter(**filter))

    assert step.loses_filter
    assert step.limitations[0].endswith(f": register the handler with where=lambda event: {where}")
    compile(where, "limitation", "eval")
    assert "1212" not in str(step.limitations)
    assert "SECRET" not in str(step.limitations)


def test_a_field_that_an_event_does_not_have_is_named_only():
    """A campaign has no batch."""
    limitation = step_of(TriggerEvent.CAMPAIGN_STARTED, filter=SubscriptionFilter(batch_id=2)).limitations[0]

    assert limitation == "filter on batch_id, which a webhook does not have"


@pytest.mark.parametrize("filter", [None, {}, {"inbound": False}])
def test_a_filter_that_excludes_nothing_is_not_a_limitation(filter):
    """It is empty, or has the direction of the trigger."""
    step = step_of(filter=None if filter is None else SubscriptionFilter(**filter))

    assert not step.loses_filter
    assert "filter" not in str(step.limitations)


# --- merging ----------------------------------------------------------------------------------------------


def test_specs_are_merged_by_callback_and_resource():
    """One webhook of a campaign has the events of three subscriptions, in CallFire's order; duplicates are merged."""
    other = f"https://other.example.com/{TOKEN}"
    plan = plan_migration(
        [
            subscription(1, TriggerEvent.CAMPAIGN_FINISHED),
            subscription(2, TriggerEvent.CAMPAIGN_STARTED),
            subscription(3, TriggerEvent.CAMPAIGN_STARTED, filter=SubscriptionFilter(broadcast_id=7)),
            subscription(4, TriggerEvent.CAMPAIGN_STOPPED, endpoint=other, non_strict_ssl=True),
            subscription(5),
            subscription(6, non_strict_ssl=True),
        ]
    )

    assert plan.specs == (
        *(WebhookSpec(URL, resource, (STARTED, FINISHED)) for resource in CAMPAIGNS),
        *(WebhookSpec(other, resource, (STOPPED,), non_strict_ssl=True) for resource in CAMPAIGNS),
        text_spec(non_strict_ssl=True),
    )


def test_a_disabled_subscription_adds_no_events_to_an_enabled_webhook():
    """Its events are not posted today; a webhook without any enabled subscription is disabled."""
    started, finished = TriggerEvent.CAMPAIGN_STARTED, TriggerEvent.CAMPAIGN_FINISHED
    mixed = plan_migration([subscription(1, started, enabled=False), subscription(2, finished)])
    disabled = plan_migration(
        [subscription(id, trigger, enabled=False) for id, trigger in enumerate((started, finished))]
    )

    assert [(spec.events, spec.enabled) for spec in mixed.specs] == [((FINISHED,), True)] * 3
    assert [(spec.events, spec.enabled) for spec in disabled.specs] == [((STARTED, FINISHED), False)] * 3


def test_an_account_without_subscriptions_has_an_empty_plan():
    """The plan has no steps."""
    plan = plan_migration(iter([]))

    assert (plan, plan.specs, str(plan)) == (MigrationPlan(), (), "0 subscriptions, 0 webhooks, 0 limitations")


# --- existing webhooks ------------------------------------------------------------------------------------


UPDATED = WebhookEvent.UPDATED


def webhook(id=1, **details):
    defaults = {"name": "mine", "enabled": True, "callback": URL, "resource": "OutboundText", "events": (FINISHED,)}
    return Webhook(id, **(defaults | details))


@pytest.mark.parametrize(
    ("spec", "existing", "kept"),
    [
        ({}, {"events": ()}, {}),
        ({}, {"events": (UPDATED,)}, {"events": (FINISHED, UPDATED)}),
        ({}, {"enabled": False}, {}),
        ({}, {"non_strict_ssl": True}, {"non_strict_ssl": True}),
        ({"enabled": False}, {"events": (UPDATED,)}, {"events": (UPDATED,)}),
        ({"enabled": False, "non_strict_ssl": True}, {"enabled": None}, {}),
        ({"enabled": False}, {"enabled": False}, {"enabled": False}),
    ],
)
def test_nothing_is_taken_from_an_existing_webhook(spec, existing, kept):
    """Neither an event, nor its name, nor its being enabled: the subscriptions may be disabled already."""
    found = webhook(**existing)

    assert list(match_existing([text_spec(**spec)], [found])) == [(text_spec(name="mine", **kept), found)]


@pytest.mark.parametrize(
    "existing",
    [
        {"resource": WebhookResource.INBOUND_TEXT},
        {"callback": "https://example.com/other"},
        {"single_use": True},
        {"expires_at": datetime(2030, 1, 1, tzinfo=UTC)},
        {"fields": "id"},
    ],
)
def test_a_webhook_that_is_not_a_replacement(existing):
    """It watches something else, or does not post every event in full."""
    assert list(match_existing([text_spec()], [webhook(**existing)])) == [(text_spec(), None)]


@pytest.mark.parametrize("enabled", [True, None])
def test_an_enabled_webhook_comes_before_a_disabled_one(enabled):
    """An account can have several for the same callback and resource; CallFire may not return the field."""
    webhooks = [webhook(1, enabled=False), webhook(2, enabled=enabled), webhook(3, enabled=False)]

    ((_, found),) = match_existing([text_spec()], webhooks)

    assert found == webhooks[1]


# --- text -------------------------------------------------------------------------------------------------


def test_text_reads_like_a_diff():
    """Each subscription has a line, each limitation and each webhook; tokens and numbers are masked."""
    plan = plan_migration(
        [
            subscription(609951003, notification_format=NotificationFormat.XML),
            subscription(609952003, enabled=False, endpoint=f"https://example.com/{TOKEN}/in", non_strict_ssl=True),
            subscription(609953003, endpoint="someone@example.com"),
        ],
        tokens=EndpointTokens(TOKEN),
    )

    assert str(plan).splitlines() == [
        "- 609951003 OUTBOUND_TEXT_FINISHED to https://hooks.example.com/callfire/***",
        "!   format XML: a webhook posts JSON only; a Receiver reads both",
        "!   handlers registered with subscription_id=609951003 need webhook_id= with the id of the webhook",
        "- 609952003 OUTBOUND_TEXT_FINISHED to https://example.com/***/***, disabled",
        "!   disabled: the webhook is created disabled, or without this event if an enabled subscription needs it",
        "!   handlers registered with subscription_id=609952003 need webhook_id= with the id of the webhook",
        "= 609953003 OUTBOUND_TEXT_FINISHED to ***@example.com",
        "!   the endpoint is an e-mail address: a webhook posts to a URL only",
        "+ OutboundText Finished to https://hooks.example.com/callfire/***",
        "+ OutboundText Finished to https://example.com/***/***, disabled, no certificate check",
        "3 subscriptions, 2 webhooks, 5 limitations",
    ]
    assert TOKEN not in str(plan)


# --- arguments --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subscriptions", "tokens", "message"),
    [
        (subscription(), None, "subscriptions must be"),
        (None, None, "subscriptions must be"),
        ([subscription(), text_spec()], None, r"subscriptions\[1\] must be a Subscription"),
        ([], "a-token", "tokens must be EndpointTokens"),
    ],
)
def test_wrong_arguments_are_type_errors(subscriptions, tokens, message):
    """The parameter is named first."""
    with pytest.raises(TypeError, match=message):
        plan_migration(subscriptions, tokens=tokens)
