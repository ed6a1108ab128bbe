"""Comparing specs with an account."""

import pytest

from callfire_async import (
    NotificationFormat,
    Plan,
    SpecMatch,
    Subscription,
    SubscriptionFilter,
    SubscriptionSpec,
    TriggerEvent,
)
from callfire_async.client.plan import SUBSCRIPTIONS
from callfire_async.notifications import EndpointTokens

CURRENT, PREVIOUS, FOREIGN = "current-token-1234", "previous-token-123", "another-apps-token"
TOKENS = EndpointTokens(CURRENT, PREVIOUS)
BASE = "https://hooks.example.com/callfire"
TRIGGER_EVENT = TriggerEvent.OUTBOUND_TEXT_FINISHED
FILTER = SubscriptionFilter(broadcast_id=7, from_number="+1 (213) 555-1212", to_number="67076:Word")


def spec(token=CURRENT, trigger_event=TRIGGER_EVENT, **details):
    return SubscriptionSpec(f"{BASE}/{token}", trigger_event, **details)


def found(id=1, token=CURRENT, **details):
    defaults = {"endpoint": f"{BASE}/{token}", "trigger_event": TRIGGER_EVENT, "enabled": True, "non_strict_ssl": False}
    return Subscription(id, **(defaults | details))


def plan_of(specs, subscriptions, *, tokens=None, **options):
    return SUBSCRIPTIONS.compare(SUBSCRIPTIONS.index_specs(specs, tokens), subscriptions, tokens=tokens, **options)


def shape(plan):
    """Return the IDs, or the number, of each non-empty part of a plan."""
    parts = {
        "create": len(plan.create),
        "update": [match.subscription.id for match in plan.update],
        "replace": [match.subscription.id for match in plan.replace],
        "delete": [one.id for one in plan.delete],
        "unchanged": [match.subscription.id for match in plan.unchanged],
        "duplicates": [one.id for one in plan.duplicates],
        "unmanaged": [one.id for one in plan.unmanaged],
    }
    return {name: part for name, part in parts.items() if part}


# --- identity --------------------------------------------------------------------------------------------


def test_a_spec_without_a_subscription_is_created():
    """A spec that is given twice is created once."""
    plan = plan_of([spec(), spec(), spec(filter=FILTER)], [])

    assert plan.create == (spec(), spec(filter=FILTER))
    assert not plan.is_empty


def test_a_matching_subscription_is_unchanged():
    """The plan is empty."""
    plan = plan_of([spec()], [found()])

    assert plan == Plan(unchanged=(SpecMatch(spec(), found()),))
    assert plan.is_empty


@pytest.mark.parametrize(
    "filter",
    [
        SubscriptionFilter(broadcast_id=7, from_number="12135551212", to_number="67076:WORD"),
        SubscriptionFilter(broadcast_id=7, from_number=" +1.213.555.1212", to_number="67076:word"),
    ],
)
def test_numbers_are_compared_by_their_digits(filter):
    """CallFire may return another format."""
    assert shape(plan_of([spec(filter=FILTER)], [found(filter=filter)])) == {"unchanged": [1]}


def test_an_empty_filter_equals_none():
    """CallFire returns it as missing, and as empty."""
    empty = [None, SubscriptionFilter()]

    plans = [plan_of([spec(filter=desired)], [found(filter=existing)]) for desired in empty for existing in empty]

    assert [shape(plan) for plan in plans] == [{"unchanged": [1]}] * 4


@pytest.mark.parametrize(
    "other",
    [
        {"trigger_event": TriggerEvent.INBOUND_TEXT_FINISHED},
        {"trigger_event": None},
        {"filter": SubscriptionFilter(broadcast_id=7)},
        {"endpoint": f"{BASE}/other"},
        {"endpoint": None},
        {"endpoint": "me@example.com"},
    ],
)
def test_another_trigger_filter_or_endpoint_is_another_subscription(other):
    """It stays as it is."""
    assert shape(plan_of([spec()], [found(**other)])) == {"create": 1, "unmanaged": [1]}


# --- tokens -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", [f"{BASE}/{PREVIOUS}", f"{BASE}/{PREVIOUS}/", f"{BASE}/{CURRENT}/"])
def test_a_rotated_token_is_an_update(endpoint):
    """The endpoints are equal without the token and a trailing slash."""
    plan = plan_of([spec()], [found(endpoint=endpoint)], tokens=TOKENS)

    assert shape(plan) == {"update": [1]}
    assert plan.update[0].changed == ("endpoint",)


@pytest.mark.parametrize(
    "endpoint",
    [
        f"{BASE}/{FOREIGN}",
        BASE,
        f"{BASE}/{CURRENT}?a=b",
        f"https://hooks.example.com/other/{CURRENT}",
        f"https://{CURRENT}",
        f"https:///{CURRENT}",
        f"https://[/{CURRENT}",
        f"{CURRENT}@example.com",
    ],
)
def test_another_endpoint_is_another_subscription_with_tokens(endpoint):
    """With another application's token, without a token, or with a host that equals the token."""
    assert shape(plan_of([spec()], [found(endpoint=endpoint)], tokens=TOKENS)) == {"create": 1, "unmanaged": [1]}


def test_without_tokens_whole_endpoints_are_compared():
    """The last segment can be anything."""
    assert shape(plan_of([spec()], [found(token=PREVIOUS)])) == {"create": 1, "unmanaged": [1]}


def test_specs_that_differ_in_their_token_conflict():
    """Both describe one subscription; the error contains no token."""
    with pytest.raises(ValueError, match="conflicting specs for the same subscription") as raised:
        SUBSCRIPTIONS.index_specs([spec(CURRENT), spec(PREVIOUS)], TOKENS)

    assert CURRENT not in str(raised.value)
    assert len(SUBSCRIPTIONS.index_specs([spec(CURRENT), spec(PREVIOUS)], None)) == 2


# --- differences ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("desired", "existing"),
    [
        ({"enabled": False}, {"enabled": True}),
        ({"non_strict_ssl": True}, {"non_strict_ssl": False}),
        ({"notification_format": NotificationFormat.JSON}, {"notification_format": NotificationFormat.XML}),
    ],
)
def test_a_different_field_is_an_update(desired, existing):
    """It changes that field only."""
    plan = plan_of([spec(**desired)], [found(**existing)])

    assert shape(plan) == {"update": [1]}
    assert plan.update[0].changed == tuple(desired)


def test_a_missing_value_is_not_a_difference():
    """A format that the spec leaves open, and fields that CallFire did not return."""
    left_open = plan_of([spec()], [found(notification_format=NotificationFormat.JSON)])
    not_returned = plan_of(
        [spec(notification_format=NotificationFormat.JSON)], [found(enabled=None, non_strict_ssl=None)]
    )

    assert shape(left_open) == shape(not_returned) == {"unchanged": [1]}


def test_conflicting_specs_are_an_error():
    """Specs for one subscription must be equal."""
    with pytest.raises(ValueError, match="conflicting specs for the same subscription"):
        SUBSCRIPTIONS.index_specs([spec(), spec(enabled=False)], None)


@pytest.mark.parametrize(
    "details",
    [
        {"endpoint": " ", "trigger_event": TRIGGER_EVENT},
        {"endpoint": BASE, "trigger_event": ""},
        {"endpoint": BASE, "trigger_event": TRIGGER_EVENT, "filter": SubscriptionFilter(broadcast_id=0)},
    ],
)
def test_an_invalid_spec_is_an_error(details):
    """It is raised by the constructor."""
    with pytest.raises(ValueError, match="must"):
        SubscriptionSpec(**details)


# --- duplicates -------------------------------------------------------------------------------------------


def test_duplicates_are_listed():
    """The one with the fewest changes is matched; the others stay without `prune`."""
    subscriptions = [found(1, PREVIOUS), found(2, enabled=False), found(3), found(4)]

    assert shape(plan_of([spec()], subscriptions, tokens=TOKENS)) == {"unchanged": [3], "duplicates": [1, 2, 4]}


def test_pruning_deletes_owned_duplicates():
    """An owned one is matched if the changes are equal; others stay."""
    subscriptions = [found(1), found(2), found(3), found(4, enabled=False)]

    plan = plan_of([spec()], subscriptions, prune=True, owned=lambda one: one.id > 1)

    assert shape(plan) == {"unchanged": [2], "delete": [3, 4], "duplicates": [1, 3, 4]}


def test_an_update_may_end_the_ownership():
    """The next plan matches the same subscription."""
    plan = plan_of([spec(enabled=False)], [found(1, enabled=False), found(2)], owned=lambda one: one.enabled)

    assert shape(plan) == {"unchanged": [1], "duplicates": [2]}


# --- pruning ----------------------------------------------------------------------------------------------

UNMANAGED = [
    found(1, trigger_event=TriggerEvent.CAMPAIGN_STARTED),
    found(2, PREVIOUS, trigger_event=TriggerEvent.CAMPAIGN_STARTED),
    found(3, FOREIGN),
    found(4, endpoint="me@example.com"),
]


def test_nothing_is_deleted_without_prune():
    """Subscriptions without a spec are unmanaged."""
    assert shape(plan_of([], UNMANAGED, tokens=TOKENS)) == {"unmanaged": [1, 2, 3, 4]}


def test_pruning_deletes_subscriptions_with_a_token():
    """Others are unmanaged."""
    assert shape(plan_of([], UNMANAGED, tokens=TOKENS, prune=True)) == {"delete": [1, 2], "unmanaged": [3, 4]}


def test_without_tokens_nothing_is_owned():
    """So nothing is deleted."""
    assert shape(plan_of([], UNMANAGED, prune=True)) == {"unmanaged": [1, 2, 3, 4]}


def test_owned_replaces_the_tokens():
    """It alone decides what is pruned."""
    plan = plan_of([], UNMANAGED, tokens=TOKENS, prune=True, owned=lambda one: one.id == 4)

    assert shape(plan) == {"delete": [4], "unmanaged": [1, 2, 3]}


# --- changed filters --------------------------------------------------------------------------------------


def test_a_changed_filter_is_an_update_when_pruning():
    """The subscription to delete is updated to the spec to create, and keeps its ID."""
    subscriptions = [found(filter=SubscriptionFilter(broadcast_id=7))]
    specs = [spec(filter=SubscriptionFilter(broadcast_id=8, batch_id=9))]

    plan = plan_of(specs, subscriptions, tokens=TOKENS, prune=True)

    assert shape(plan) == {"update": [1]}
    assert plan.update[0].changed == ("filter",)


@pytest.mark.parametrize("filter", [None, SubscriptionFilter(batch_id=9)])
def test_a_field_removed_from_a_filter_is_a_replacement_when_pruning(filter):
    """An update cannot remove a field from a filter."""
    subscriptions = [found(filter=SubscriptionFilter(broadcast_id=7, batch_id=9))]

    plan = plan_of([spec(filter=filter)], subscriptions, tokens=TOKENS, prune=True)

    assert shape(plan) == {"replace": [1]}


def test_a_changed_filter_is_another_subscription_unless_pruning():
    """The old one may still be needed."""
    subscriptions = [found(filter=SubscriptionFilter(broadcast_id=7))]

    assert shape(plan_of([spec()], subscriptions, tokens=TOKENS)) == {"create": 1, "unmanaged": [1]}


def test_an_unowned_subscription_is_not_updated():
    """Its filter stays."""
    subscriptions = [found(token=FOREIGN, filter=SubscriptionFilter(broadcast_id=7))]
    specs = [spec(FOREIGN)]

    assert shape(plan_of(specs, subscriptions, tokens=TOKENS, prune=True)) == {"create": 1, "unmanaged": [1]}


# --- text -------------------------------------------------------------------------------------------------


def test_a_plan_reads_like_a_diff_without_secrets():
    """One line for each subscription, with masked tokens and numbers."""
    subscriptions = [
        found(1, PREVIOUS, trigger_event=TriggerEvent.CAMPAIGN_STARTED, enabled=False),
        found(2, filter=SubscriptionFilter(batch_id=9, from_number="12135551212")),
        found(3, trigger_event=TriggerEvent.CAMPAIGN_STOPPED),
        found(4, trigger_event=TriggerEvent.CAMPAIGN_FINISHED),
        found(5, trigger_event=TriggerEvent.CAMPAIGN_FINISHED),
        found(6, trigger_event=TriggerEvent.CAMPAIGN_FINISHED),
        found(7, endpoint=None),
    ]
    specs = [
        spec(trigger_event=TriggerEvent.INBOUND_TEXT_FINISHED, filter=SubscriptionFilter(to_number="67076:SECRET")),
        spec(trigger_event=TriggerEvent.CAMPAIGN_STARTED),
        spec(),
        spec(trigger_event=TriggerEvent.CAMPAIGN_FINISHED),
    ]

    plan = plan_of(specs, subscriptions, tokens=TOKENS, prune=True, owned=lambda one: one.id != 6)

    assert str(plan).splitlines() == [
        f"+ INBOUND_TEXT_FINISHED to {BASE}/*** where to_number='***76'",
        f"~ 1 CAMPAIGN_STARTED to {BASE}/***: new token; enabled False -> True",
        (
            f"± 2 OUTBOUND_TEXT_FINISHED to {BASE}/*** where batch_id=9, from_number='***12': "
            "filter batch_id=9, from_number='***12' -> all"
        ),
        f"- 3 CAMPAIGN_STOPPED to {BASE}/***",
        "- 7 OUTBOUND_TEXT_FINISHED to None",
        f"- 5 CAMPAIGN_FINISHED to {BASE}/***: duplicate",
        f"= 4 CAMPAIGN_FINISHED to {BASE}/***",
        f"= 6 CAMPAIGN_FINISHED to {BASE}/***: duplicate",
        "1 to create, 1 to update, 1 to replace, 3 to delete, 1 unchanged, 2 duplicate",
    ]


def test_an_empty_plan_is_printed():
    """Not as an empty line."""
    assert str(plan_of([], [])) == "no subscriptions"
    assert str(plan_of([], [found()])) == "1 unmanaged"


@pytest.mark.parametrize("show", [str, repr])
def test_no_text_of_a_plan_contains_a_token(show):
    """Neither the plan's nor that of its parts."""
    subscriptions = [found(1, PREVIOUS), found(2, FOREIGN), found(3, CURRENT)]

    plan = plan_of([spec()], subscriptions, tokens=TOKENS, prune=True)

    shown = show(plan) + show(plan.update) + show(plan.unchanged) + show(spec())
    assert not [token for token in (CURRENT, PREVIOUS, FOREIGN) if token in shown]
