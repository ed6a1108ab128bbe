"""Comparing specs of webhooks with an account."""

import warnings

import pytest

from callfire_async import (
    TriggerEvent,
    Webhook,
    WebhookEvent,
    WebhookMatch,
    WebhookPlan,
    WebhookResource,
    WebhookSpec,
)
from callfire_async.client.webhook_plan import WEBHOOKS, WEBHOOKS_WITH_SECRETS
from callfire_async.notifications import EndpointTokens

CURRENT, PREVIOUS, FOREIGN = "current-token-1234", "previous-token-123", "another-apps-token"
TOKENS = EndpointTokens(CURRENT, PREVIOUS)
BASE = "https://hooks.example.com/callfire"
TEXTS = WebhookResource.OUTBOUND_TEXT
BROADCASTS = WebhookResource.TEXT_BROADCAST
STARTED, STOPPED, FINISHED = WebhookEvent.STARTED, WebhookEvent.STOPPED, WebhookEvent.FINISHED
SECRET = "a-secret-of-enough-letters"


def spec(token=CURRENT, resource=TEXTS, **details):
    return WebhookSpec(f"{BASE}/{token}", resource, **details)


def found(id=1, token=CURRENT, **details):
    defaults = {
        "callback": f"{BASE}/{token}",
        "resource": TEXTS,
        "events": (FINISHED,),
        "enabled": True,
        "single_use": False,
        "non_strict_ssl": False,
    }
    return Webhook(id, **(defaults | details))


def plan_of(specs, webhooks, *, tokens=None, kind=WEBHOOKS, **options):
    return kind.compare(kind.index_specs(specs, tokens), webhooks, tokens=tokens, **options)


def shape(plan):
    """Return the IDs, or the number, of each non-empty part of a plan."""
    parts = {
        "create": len(plan.create),
        "update": [(match.webhook.id, *match.changed) for match in plan.update],
        "replace": len(plan.replace),
        "delete": [one.id for one in plan.delete],
        "unchanged": [match.webhook.id for match in plan.unchanged],
        "duplicates": [one.id for one in plan.duplicates],
        "unmanaged": [one.id for one in plan.unmanaged],
    }
    return {name: part for name, part in parts.items() if part}


# --- specs -----------------------------------------------------------------------------------------------


def test_a_spec_accepts_strings_in_any_case():
    """Resource and events have CallFire's spelling afterwards, and each event is there once."""
    given = WebhookSpec(f"{BASE}/{CURRENT}", "textbroadcast", events=["started", STOPPED, "Started"])

    assert given == spec(resource=BROADCASTS, events=(STARTED, STOPPED))
    assert given.resource is BROADCASTS
    assert given.events == (STARTED, STOPPED)
    assert hash(given) == hash(spec(resource=BROADCASTS, events=iter([STARTED, STOPPED])))


def test_a_spec_accepts_unknown_resources_and_events():
    """CallFire extends its sets over time."""
    given = spec(resource="SomethingNew", events=["HappenedToday"])

    assert (given.resource, given.events) == ("SomethingNew", ("HappenedToday",))


def test_a_spec_hides_token_and_secret():
    """A repr can be logged."""
    text = repr(spec(secret=SECRET))

    assert CURRENT not in text
    assert SECRET not in text


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"callback": ""}, ValueError, "callback must not be empty"),
        ({"callback": "hooks.example.com/callfire"}, ValueError, "callback must be a URL"),
        ({"callback": None}, TypeError, "callback must be a string"),
        ({"resource": ""}, ValueError, "resource must not be empty"),
        ({"resource": None}, TypeError, "resource must be a WebhookResource or a string, not None"),
        ({"resource": TriggerEvent.CAMPAIGN_STARTED}, TypeError, "resource must be a WebhookResource"),
        ({"resource": "SomethingNew"}, ValueError, "events must be given"),
        ({"events": []}, ValueError, "events must not be empty"),
        ({"events": "Finished"}, TypeError, "events must be a list of WebhookEvent, not str"),
        ({"events": FINISHED}, TypeError, "events must be a list of WebhookEvent, not WebhookEvent"),
        ({"events": [""]}, ValueError, r"events\[0\] must not be empty"),
        ({"events": [FINISHED, 1]}, TypeError, r"events\[1\] must be"),
        ({"name": ""}, ValueError, "name must not be empty"),
        ({"enabled": 1}, TypeError, "enabled must be True or False"),
        ({"secret": b"bytes"}, TypeError, "secret must be a string, not bytes: decode it"),
        ({"single_use": "yes"}, TypeError, "single_use must be True or False"),
        ({"non_strict_ssl": 0}, TypeError, "non_strict_ssl must be True or False"),
    ],
)
def test_a_wrong_value_is_an_error_where_it_is_given(arguments, error, message):
    """The message begins with the parameter's name."""
    with pytest.raises(error, match=f"^{message}"):
        WebhookSpec(**({"callback": f"{BASE}/{CURRENT}", "resource": TEXTS} | arguments))


@pytest.mark.parametrize("secret", ["", " ", "fifteen letters"])
def test_a_weak_secret_causes_a_warning(secret):
    """It points at the line that creates the spec."""
    with pytest.warns(UserWarning, match="secret has fewer than 16 characters") as caught:
        spec(secret=secret)

    assert caught[0].filename == __file__


def test_a_long_secret_causes_no_warning():
    """16 characters are enough."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        spec(secret="sixteen letters!")


# --- identity --------------------------------------------------------------------------------------------


def test_a_spec_without_a_webhook_is_created():
    """A spec that is given twice is created once; another resource is another webhook."""
    plan = plan_of([spec(), spec(), spec(resource=BROADCASTS)], [])

    assert plan.create == (spec(), spec(resource=BROADCASTS))
    assert not plan.is_empty


def test_a_matching_webhook_is_unchanged():
    """The plan is empty."""
    plan = plan_of([spec()], [found(callback=f" {BASE}/{CURRENT} ")])

    assert plan == WebhookPlan(unchanged=(WebhookMatch(spec(), found(callback=f" {BASE}/{CURRENT} ")),))
    assert plan.is_empty


@pytest.mark.parametrize(
    "details",
    [{"resource": WebhookResource.INBOUND_TEXT}, {"resource": None}, {"callback": None}, {"callback": BASE}],
)
def test_another_callback_or_resource_is_another_webhook(details):
    """It stays as it is."""
    assert shape(plan_of([spec()], [found(**details)])) == {"create": 1, "unmanaged": [1]}


def test_a_token_is_not_part_of_the_identity():
    """A webhook with an older token is updated, another application's stays."""
    plan = plan_of([spec()], [found(1, PREVIOUS), found(2, FOREIGN)], tokens=TOKENS)

    assert shape(plan) == {"update": [(1, "callback")], "unmanaged": [2]}


@pytest.mark.parametrize(
    ("asked", "existing", "changed"),
    [
        ({"enabled": False}, {}, ("enabled",)),
        ({}, {"enabled": None, "single_use": None, "non_strict_ssl": None}, ()),
        ({"single_use": True, "non_strict_ssl": True}, {}, ("single_use", "non_strict_ssl")),
        ({"name": "new"}, {"name": "old"}, ("name",)),
        ({"name": "new"}, {"name": None}, ()),
        ({}, {"name": "any"}, ()),
        ({"secret": SECRET}, {}, ()),
        ({"secret": SECRET}, {"secret": SECRET}, ()),
        ({"secret": SECRET}, {"secret": "another-secret-of-theirs"}, ("secret",)),
        ({"events": ["Finished"]}, {}, ()),
        ({"events": ["Finished", "Failed"]}, {}, ("events",)),
        ({}, {"events": ()}, ("events",)),
    ],
)
def test_fields_that_differ_are_updated(asked, existing, changed):
    """A field that the spec leaves open, or that CallFire did not return, does not differ."""
    assert WebhookMatch(spec(**asked), found(**existing)).changed == changed


def test_all_events_are_the_default():
    """In any order."""
    all_events = found(resource=BROADCASTS, events=(FINISHED, STOPPED, STARTED))

    assert shape(plan_of([spec(resource=BROADCASTS)], [all_events])) == {"unchanged": [1]}


def test_secrets_are_sent_again_on_request():
    """CallFire may not return a secret, so that it cannot be compared. A webhook without a secret is unchanged."""
    specs = [spec(secret=SECRET), spec(resource=BROADCASTS, events=[STARTED])]
    webhooks = [found(1), found(2, resource=BROADCASTS, events=(STARTED,))]

    assert shape(plan_of(specs, webhooks)) == {"unchanged": [1, 2]}
    assert shape(plan_of(specs, webhooks, kind=WEBHOOKS_WITH_SECRETS)) == {"update": [(1, "secret")], "unchanged": [2]}


def test_a_secret_that_differs_is_listed_once():
    """With the option too."""
    plan = plan_of([spec(secret=SECRET)], [found(secret="another-one")], kind=WEBHOOKS_WITH_SECRETS)

    assert shape(plan) == {"update": [(1, "secret")]}


@pytest.mark.parametrize(
    "details", [{"enabled": False}, {"events": ["Failed"]}, {"secret": SECRET}, {"name": "x"}, {"single_use": True}]
)
def test_specs_that_conflict_are_an_error(details):
    """Two specs for the same webhook must be equal."""
    with pytest.raises(ValueError, match="conflicting specs for the same webhook") as caught:
        plan_of([spec(), spec(**details)], [])

    assert SECRET not in str(caught.value)


def test_specs_with_the_same_events_do_not_conflict():
    """Whether they are given or not, in any order."""
    specs = [spec(resource=BROADCASTS), spec(resource=BROADCASTS, events=[STOPPED, FINISHED, STARTED])]

    assert shape(plan_of(specs, [])) == {"create": 1}


# --- prune -----------------------------------------------------------------------------------------------


def test_without_prune_nothing_is_deleted():
    """Duplicates are reported: of several webhooks the one with the fewest changes is the match."""
    plan = plan_of([spec()], [found(1, enabled=False), found(2), found(3)], tokens=TOKENS)

    assert shape(plan) == {"unchanged": [2], "duplicates": [1, 3]}


def test_prune_deletes_owned_webhooks():
    """Those with one of the tokens, or those that the function accepts."""
    webhooks = [found(1), found(2, PREVIOUS, resource=BROADCASTS), found(3, FOREIGN), found(4)]

    assert shape(plan_of([spec()], webhooks, tokens=TOKENS, prune=True)) == {
        "unchanged": [1],
        "delete": [2, 4],
        "duplicates": [4],
        "unmanaged": [3],
    }
    plan = plan_of([spec()], webhooks, prune=True, owned=lambda webhook: webhook.id == 3)
    assert shape(plan) == {"unchanged": [1], "delete": [3], "duplicates": [4], "unmanaged": [2]}


# --- text ------------------------------------------------------------------------------------------------


def test_the_text_reads_like_a_diff():
    """It has the changes and the counts, but no token and no secret."""
    specs = [
        spec(resource=WebhookResource.INBOUND_TEXT),
        spec(resource=BROADCASTS, secret=SECRET, name="campaigns", enabled=False),
        spec(),
    ]
    webhooks = [
        found(1, PREVIOUS, resource=BROADCASTS, events=(STARTED,), name="x", secret="theirs"),
        found(2),
        found(3),
        found(4, resource=WebhookResource.LOW_BALANCE, events=()),
        found(5, FOREIGN),
    ]

    plan = plan_of(specs, webhooks, tokens=TOKENS, prune=True)

    changes = (
        "new token; name x -> campaigns; enabled True -> False; secret is sent;"
        " events Started -> Started, Stopped, Finished"
    )
    assert str(plan).splitlines() == [
        "+ InboundText Finished to https://hooks.example.com/callfire/***",
        f"~ 1 TextBroadcast Started to https://hooks.example.com/callfire/***: {changes}",
        "- 4 LowBalance (no events) to https://hooks.example.com/callfire/***",
        "- 3 OutboundText Finished to https://hooks.example.com/callfire/***: duplicate",
        "= 2 OutboundText Finished to https://hooks.example.com/callfire/***",
        "1 to create, 1 to update, 2 to delete, 1 unchanged, 1 duplicate, 1 unmanaged",
    ]
    assert str(WebhookPlan()) == "no webhooks"
