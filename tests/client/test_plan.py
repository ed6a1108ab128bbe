"""Comparing what an account is to have with what it has: no network, and no time that grows with the square."""

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
from callfire_async.client.plan import compare, index_specs
from callfire_async.notifications import EndpointTokens

CURRENT, PREVIOUS, STRANGER = "current-token-1234", "previous-token-123", "a-stranger-s-token"
TOKENS = EndpointTokens(CURRENT, PREVIOUS)
BASE = "https://hooks.example.com/callfire"
TRIGGER_EVENT = TriggerEvent.OUTBOUND_TEXT_FINISHED
FILTER = SubscriptionFilter(broadcast_id=7, from_number="+1 (213) 555-1212", to_number="67076:Word")


def spec(token=CURRENT, trigger_event=TRIGGER_EVENT, **details):
    return SubscriptionSpec(f"{BASE}/{token}", trigger_event, **details)


def found(id=1, token=CURRENT, **details):
    there = {"endpoint": f"{BASE}/{token}", "trigger_event": TRIGGER_EVENT, "enabled": True, "non_strict_ssl": False}
    return Subscription(id, **(there | details))


def plan_of(specs, subscriptions, *, tokens=None, **options):
    return compare(index_specs(specs, tokens), subscriptions, tokens=tokens, **options)


def shape(plan):
    """Give the ids, or how many, in each part of a plan that has something in it."""
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


# --- what is the same -------------------------------------------------------------------------------------


def test_what_is_not_there_is_created():
    """With an empty account, that is all; a spec given twice is one."""
    plan = plan_of([spec(), spec(), spec(filter=FILTER)], [])

    assert plan.create == (spec(), spec(filter=FILTER))
    assert not plan.is_empty


def test_what_is_as_wanted_is_left():
    """There is nothing to do."""
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
def test_a_number_in_other_words_is_the_same(filter):
    """CallFire may word a number in its own way."""
    assert shape(plan_of([spec(filter=FILTER)], [found(filter=filter)])) == {"unchanged": [1]}


def test_a_filter_that_says_nothing_is_none():
    """It comes as missing, as empty, and with empty words."""
    empty = [None, SubscriptionFilter(), SubscriptionFilter(from_number="")]

    plans = [plan_of([spec(filter=wanted)], [found(filter=there)]) for wanted in empty for there in empty]

    assert [shape(plan) for plan in plans] == [{"unchanged": [1]}] * 9


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
    """Nothing happens to it."""
    assert shape(plan_of([spec()], [found(**other)])) == {"create": 1, "unmanaged": [1]}


# --- tokens -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", [f"{BASE}/{PREVIOUS}", f"{BASE}/{PREVIOUS}/", f"{BASE}/{CURRENT}/"])
def test_a_rotated_token_is_an_update(endpoint):
    """The endpoint is the same without it, and with a slash at its end."""
    plan = plan_of([spec()], [found(endpoint=endpoint)], tokens=TOKENS)

    assert shape(plan) == {"update": [1]}
    assert plan.update[0].changed == ("endpoint",)


@pytest.mark.parametrize(
    "endpoint",
    [
        f"{BASE}/{STRANGER}",
        BASE,
        f"{BASE}/{CURRENT}?a=b",
        f"https://hooks.example.com/other/{CURRENT}",
        f"https://{CURRENT}",
        f"https:///{CURRENT}",
        f"https://[/{CURRENT}",
        f"{CURRENT}@example.com",
    ],
)
def test_another_endpoint_stays_another_beside_tokens(endpoint):
    """Another application's, one without a token, one whose host is called like a token."""
    assert shape(plan_of([spec()], [found(endpoint=endpoint)], tokens=TOKENS)) == {"create": 1, "unmanaged": [1]}


def test_without_tokens_an_endpoint_is_compared_as_it_is():
    """Nothing is known of what its last segment is."""
    assert shape(plan_of([spec()], [found(token=PREVIOUS)])) == {"create": 1, "unmanaged": [1]}


def test_two_specs_that_differ_in_their_token_contradict_each_other():
    """Both want one subscription, at two endpoints; the message holds no token."""
    with pytest.raises(ValueError, match="conflicting specs for the same subscription") as raised:
        index_specs([spec(CURRENT), spec(PREVIOUS)], TOKENS)

    assert CURRENT not in str(raised.value)
    assert len(index_specs([spec(CURRENT), spec(PREVIOUS)], None)) == 2


# --- what differs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "there"),
    [
        ({"enabled": False}, {"enabled": True}),
        ({"non_strict_ssl": True}, {"non_strict_ssl": False}),
        ({"notification_format": NotificationFormat.JSON}, {"notification_format": NotificationFormat.XML}),
    ],
)
def test_a_detail_that_differs_is_an_update(wanted, there):
    """It says that one thing."""
    plan = plan_of([spec(**wanted)], [found(**there)])

    assert shape(plan) == {"update": [1]}
    assert plan.update[0].changed == tuple(wanted)


def test_what_is_left_open_or_not_told_is_no_difference():
    """A format that the spec leaves to CallFire, and what CallFire left out of its answer."""
    left_open = plan_of([spec()], [found(notification_format=NotificationFormat.JSON)])
    not_told = plan_of([spec(notification_format=NotificationFormat.JSON)], [found(enabled=None, non_strict_ssl=None)])

    assert shape(left_open) == shape(not_told) == {"unchanged": [1]}


def test_two_specs_that_contradict_each_other_are_refused():
    """Neither can be right."""
    with pytest.raises(ValueError, match="conflicting specs for the same subscription"):
        index_specs([spec(), spec(enabled=False)], None)


@pytest.mark.parametrize(
    "details",
    [
        {"endpoint": " ", "trigger_event": TRIGGER_EVENT},
        {"endpoint": BASE, "trigger_event": ""},
        {"endpoint": BASE, "trigger_event": TRIGGER_EVENT, "filter": SubscriptionFilter(broadcast_id=0)},
    ],
)
def test_what_a_create_would_refuse_is_no_spec(details):
    """It fails where it is written."""
    with pytest.raises(ValueError, match="must"):
        SubscriptionSpec(**details)


# --- duplicates -------------------------------------------------------------------------------------------


def test_of_equal_subscriptions_one_is_kept_and_the_others_are_named():
    """The one with the least to do; the others stay, unless it is pruned."""
    there = [found(1, PREVIOUS), found(2, enabled=False), found(3), found(4)]

    assert shape(plan_of([spec()], there, tokens=TOKENS)) == {"unchanged": [3], "duplicates": [1, 2, 4]}


def test_pruning_deletes_owned_duplicates():
    """Of those with the least to do, one of one's own is kept; what is not owned stays."""
    there = [found(1), found(2), found(3), found(4, enabled=False)]

    plan = plan_of([spec()], there, prune=True, owned=lambda one: one.id > 1)

    assert shape(plan) == {"unchanged": [2], "delete": [3, 4], "duplicates": [1, 3, 4]}


def test_what_is_owned_may_change_with_the_update():
    """The next plan keeps the same one, though it is owned no longer."""
    plan = plan_of([spec(enabled=False)], [found(1, enabled=False), found(2)], owned=lambda one: one.enabled)

    assert shape(plan) == {"unchanged": [1], "duplicates": [2]}


# --- pruning ----------------------------------------------------------------------------------------------

UNWANTED = [
    found(1, trigger_event=TriggerEvent.CAMPAIGN_STARTED),
    found(2, PREVIOUS, trigger_event=TriggerEvent.CAMPAIGN_STARTED),
    found(3, STRANGER),
    found(4, endpoint="me@example.com"),
]


def test_nothing_is_deleted_unless_it_is_asked_for():
    """A plan without prune takes nothing away."""
    assert shape(plan_of([], UNWANTED, tokens=TOKENS)) == {"unmanaged": [1, 2, 3, 4]}


def test_pruning_deletes_what_the_tokens_recognise():
    """The rest is another's."""
    assert shape(plan_of([], UNWANTED, tokens=TOKENS, prune=True)) == {"delete": [1, 2], "unmanaged": [3, 4]}


def test_without_tokens_nothing_is_owned():
    """Nothing is deleted on a guess."""
    assert shape(plan_of([], UNWANTED, prune=True)) == {"unmanaged": [1, 2, 3, 4]}


def test_what_is_owned_can_be_told():
    """Then the tokens are not asked."""
    plan = plan_of([], UNWANTED, tokens=TOKENS, prune=True, owned=lambda one: one.id == 4)

    assert shape(plan) == {"delete": [4], "unmanaged": [1, 2, 3]}


# --- a filter that changes --------------------------------------------------------------------------------


def test_a_changed_filter_is_an_update_when_pruning():
    """What would be deleted becomes what would be created, with its id."""
    there = [found(filter=SubscriptionFilter(broadcast_id=7))]
    wanted = [spec(filter=SubscriptionFilter(broadcast_id=8, batch_id=9))]

    plan = plan_of(wanted, there, tokens=TOKENS, prune=True)

    assert shape(plan) == {"update": [1]}
    assert plan.update[0].changed == ("filter",)


@pytest.mark.parametrize("filter", [None, SubscriptionFilter(batch_id=9)])
def test_a_field_removed_from_a_filter_is_a_replacement_when_pruning(filter):
    """An update cannot say it: what it does not send stays."""
    there = [found(filter=SubscriptionFilter(broadcast_id=7, batch_id=9))]

    plan = plan_of([spec(filter=filter)], there, tokens=TOKENS, prune=True)

    assert shape(plan) == {"replace": [1]}


def test_a_changed_filter_is_another_subscription_unless_pruning():
    """Whoever declared the other one may still want it."""
    there = [found(filter=SubscriptionFilter(broadcast_id=7))]

    assert shape(plan_of([spec()], there, tokens=TOKENS)) == {"create": 1, "unmanaged": [1]}


def test_what_is_not_owned_is_not_reused():
    """Its filter stays."""
    there = [found(token=STRANGER, filter=SubscriptionFilter(broadcast_id=7))]
    wanted = [spec(STRANGER)]

    assert shape(plan_of(wanted, there, tokens=TOKENS, prune=True)) == {"create": 1, "unmanaged": [1]}


# --- printing ---------------------------------------------------------------------------------------------


def test_a_plan_reads_like_a_diff_without_secrets():
    """A sign and the facts for each; tokens and numbers are masked."""
    there = [
        found(1, PREVIOUS, trigger_event=TriggerEvent.CAMPAIGN_STARTED, enabled=False),
        found(2, filter=SubscriptionFilter(batch_id=9, from_number="12135551212")),
        found(3, trigger_event=TriggerEvent.CAMPAIGN_STOPPED),
        found(4, trigger_event=TriggerEvent.CAMPAIGN_FINISHED),
        found(5, trigger_event=TriggerEvent.CAMPAIGN_FINISHED),
        found(6, trigger_event=TriggerEvent.CAMPAIGN_FINISHED),
        found(7, endpoint=None),
    ]
    wanted = [
        spec(trigger_event=TriggerEvent.INBOUND_TEXT_FINISHED, filter=SubscriptionFilter(to_number="67076:SECRET")),
        spec(trigger_event=TriggerEvent.CAMPAIGN_STARTED),
        spec(),
        spec(trigger_event=TriggerEvent.CAMPAIGN_FINISHED),
    ]

    plan = plan_of(wanted, there, tokens=TOKENS, prune=True, owned=lambda one: one.id != 6)

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


def test_a_plan_without_anything_says_so():
    """An empty line would be overlooked."""
    assert str(plan_of([], [])) == "no subscriptions"
    assert str(plan_of([], [found()])) == "1 unmanaged"


@pytest.mark.parametrize("show", [str, repr])
def test_nothing_that_is_printed_holds_a_token(show):
    """Neither the plan nor what is in it."""
    there = [found(1, PREVIOUS), found(2, STRANGER), found(3, CURRENT)]

    plan = plan_of([spec()], there, tokens=TOKENS, prune=True)

    shown = show(plan) + show(plan.update) + show(plan.unchanged) + show(spec())
    assert not [token for token in (CURRENT, PREVIOUS, STRANGER) if token in shown]
