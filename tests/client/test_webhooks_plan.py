"""`plan`, `apply` and `ensure` of webhooks, against a fake CallFire with and without faults."""

import asyncio
from collections import Counter
from contextlib import asynccontextmanager

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from callfire_async import (
    BadRequestError,
    CallFireError,
    NotFoundError,
    Plan,
    ServerError,
    WebhookEvent,
    WebhookMatch,
    WebhookResource,
    WebhookSpec,
)
from callfire_async.client.webhook_plan import key_of_webhook
from callfire_async.notifications import EndpointTokens
from callfire_async.testing import FakeCallFire
from callfire_async.testing.faults import Fault

CURRENT, PREVIOUS, FOREIGN = "current-token-1234", "previous-token-123", "another-apps-token"
TOKENS = EndpointTokens(CURRENT, PREVIOUS)
BASE = "https://hooks.example.com/callfire"
SECRET = "a-secret-of-enough-letters"
SPEC = WebhookSpec(f"{BASE}/{CURRENT}", WebhookResource.OUTBOUND_TEXT, name="texts", secret=SECRET)
OTHER = WebhookSpec(f"{BASE}/{CURRENT}", WebhookResource.TEXT_BROADCAST, events=[WebhookEvent.STARTED])
OLD = WebhookSpec(f"{BASE}/{PREVIOUS}", WebhookResource.OUTBOUND_TEXT, enabled=False)
# No fault: lets the next one hit a later request.
NO_FAULT = Fault(hold=lambda: asyncio.sleep(0))


async def no_sleep(_):
    """Retry without a delay."""


@asynccontextmanager
async def webhooks_of(fake, **options):
    """Yield the webhooks of a fake's account, without delays between retries."""
    async with fake.client(**options) as client:
        client._connection._retry_hooks = evolve(client._connection._retry_hooks, sleep=no_sleep)
        yield client.webhooks


@pytest.fixture(params=["merge", "replace"])
def fake(request):
    """A fake CallFire, with each treatment of the fields that an update leaves out."""
    return FakeCallFire(webhook_update=request.param)


@pytest.fixture
async def webhooks(fake):
    async with webhooks_of(fake) as opened_webhooks:
        yield opened_webhooks


def create(webhooks, spec):
    """Create the webhook of a spec."""
    return webhooks.create(
        spec.callback,
        spec.resource,
        events=spec.events,
        name=spec.name,
        enabled=spec.enabled,
        secret=spec.secret,
        single_use=spec.single_use,
        non_strict_ssl=spec.non_strict_ssl,
    )


def ids(fake):
    return [one.id for one in fake.webhooks]


# --- apply ------------------------------------------------------------------------------------------------


async def test_missing_webhooks_are_created_once(fake, webhooks):
    """With all that the spec has; the next plan is empty."""
    result = await webhooks.apply(await webhooks.plan([SPEC, OTHER]))

    assert sorted(result.ids.values()) == ids(fake)
    assert result.ids.keys() == {SPEC, OTHER}
    assert not result.errors
    created = {one.id: one for one in fake.webhooks}[result.ids[SPEC]]
    assert (created.callback, created.name, created.secret) == (SPEC.callback, "texts", SECRET)
    assert (await webhooks.plan([SPEC, OTHER])).is_empty


async def test_a_rotated_token_updates_the_webhook(fake, webhooks):
    """Callback and other different fields change, the ID stays; the secret is sent too."""
    existing = await create(webhooks, OLD)

    result = await webhooks.apply(await webhooks.plan([SPEC], tokens=TOKENS))

    assert result.ids == {SPEC: existing.id}
    (webhook,) = fake.webhooks
    assert (webhook.id, webhook.callback, webhook.enabled, webhook.secret) == (
        existing.id,
        SPEC.callback,
        True,
        SECRET,
    )


async def test_events_are_updated(fake, webhooks):
    """To those of the spec, or to all."""
    existing = await create(webhooks, OTHER)

    await webhooks.ensure(evolve(OTHER, events=None))

    assert [(one.id, len(one.events)) for one in fake.webhooks] == [(existing.id, 3)]


async def test_a_secret_is_sent_again_on_request(fake, webhooks):
    """CallFire may not return it, so that a change cannot be recognized."""
    existing = await create(webhooks, evolve(SPEC, secret="another-secret-of-theirs"))

    assert (await webhooks.plan([SPEC])).is_empty
    plan = await webhooks.plan([SPEC], resend_secrets=True)
    assert [match.changed for match in plan.update] == [("secret",)]
    assert plan.update == (WebhookMatch(SPEC, plan.update[0].webhook, ("secret",)),)
    assert await webhooks.ensure(SPEC, resend_secrets=True) == (existing.id,)

    assert fake.webhooks[0].secret == SECRET
    assert SECRET not in f"{plan}{plan!r}"


async def test_prune_deletes_owned_webhooks(fake, webhooks):
    """The others stay, and so does everything without the option."""
    mine, theirs = [await create(webhooks, evolve(OTHER, callback=f"{BASE}/{token}")) for token in (PREVIOUS, FOREIGN)]

    await webhooks.apply(await webhooks.plan([], tokens=TOKENS))
    assert ids(fake) == [mine.id, theirs.id]
    await webhooks.apply(await webhooks.plan([], tokens=TOKENS, prune=True))
    assert ids(fake) == [theirs.id]
    await webhooks.apply(await webhooks.plan([], prune=True, owned=lambda webhook: webhook.id == theirs.id))
    assert ids(fake) == []


async def test_apply_continues_after_an_error(fake, webhooks):
    """All errors are in the result, and the other changes are made; secrets and tokens are not printed."""
    await create(webhooks, OLD)
    specs = [evolve(OTHER, callback=f"{BASE}/{number}") for number in range(10)]
    undeletable = await create(webhooks, evolve(OTHER, callback=f"{BASE}/more/{CURRENT}"))
    plan = await webhooks.plan([SPEC, *specs], tokens=TOKENS, prune=True)
    fake.fail_next(NO_FAULT, Fault(status=400), *[NO_FAULT] * 9, Fault(status=404), Fault(status=403))

    result = await webhooks.apply(plan)

    assert {type(error).__name__ for error in result.errors.values()} == {
        "BadRequestError",
        "NotFoundError",
        "PermissionDeniedError",
    }
    assert isinstance(result.errors[SPEC], NotFoundError)
    assert [one.id for one in result.errors if one in plan.delete] == [undeletable.id]
    # An update that failed keeps its ID.
    assert len(result.ids) == len(specs)
    assert CURRENT not in repr(result)
    assert SECRET not in repr(result)


async def test_a_create_of_unknown_outcome_is_found(fake, webhooks):
    """There is one webhook, and the result has its ID."""
    plan = await webhooks.plan([SPEC])
    fake.fail_next(NO_FAULT, Fault(cut="answer"))

    result = await webhooks.apply(plan)

    assert result.ids == {SPEC: ids(fake)[0]}
    assert len(fake.webhooks) == 1


async def test_a_plan_can_be_applied_twice(fake, webhooks):
    """Created webhooks are found, and deleted ones are ignored."""
    await create(webhooks, evolve(OLD, resource=WebhookResource.LOW_BALANCE, events=None))
    plan = await webhooks.plan([SPEC, OTHER], tokens=TOKENS, prune=True)

    first = await webhooks.apply(plan)
    second = await webhooks.apply(plan)

    assert first == second
    assert sorted(first.ids.values()) == ids(fake)


async def test_an_account_that_cannot_be_read_is_not_changed(fake, webhooks):
    """The error is raised."""
    plan = await webhooks.plan([SPEC])
    fake.fail_next(*[Fault(status=503)] * 4)

    with pytest.raises(ServerError):
        await webhooks.apply(plan)
    assert not fake.webhooks


# --- arguments --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda webhooks: webhooks.plan(SPEC),
            TypeError,
            "specs must be WebhookSpec objects, not a single",
        ),
        (lambda webhooks: webhooks.plan(7), TypeError, "specs must be WebhookSpec objects, not int"),
        (lambda webhooks: webhooks.plan([SPEC, "x"]), TypeError, r"specs\[1\] must be a WebhookSpec, not str"),
        (lambda webhooks: webhooks.plan([], tokens=EndpointTokens), TypeError, "tokens must be EndpointTokens"),
        (lambda webhooks: webhooks.plan([], prune=1), TypeError, "prune must be True or False"),
        (lambda webhooks: webhooks.plan([], owned=7), TypeError, "owned must be a function of a webhook"),
        (
            lambda webhooks: webhooks.plan([], owned=no_sleep),
            TypeError,
            "owned must be a function of a webhook that",
        ),
        (lambda webhooks: webhooks.plan([], resend_secrets="yes"), TypeError, "resend_secrets must be True or False"),
        (lambda webhooks: webhooks.apply(Plan()), TypeError, "plan must be a WebhookPlan, as returned by plan"),
        (
            lambda webhooks: webhooks.ensure([SPEC]),
            TypeError,
            r"specs\[0\] must be a WebhookSpec, not list: pass",
        ),
        (lambda webhooks: webhooks.plan([SPEC, evolve(SPEC, enabled=False)]), ValueError, "conflicting specs"),
    ],
)
async def test_a_wrong_argument_is_never_sent(fake, webhooks, call, error, message):
    """The account is not read."""
    fake.fail_next(Fault(status=401))

    with pytest.raises(error, match=f"^{message}"):
        await call(webhooks)


# --- ensure -----------------------------------------------------------------------------------------------


async def test_ensuring_twice_changes_nothing_the_second_time(fake, webhooks):
    """The IDs are in the order of the specs, both times."""
    first = await webhooks.ensure(SPEC, OTHER, SPEC)
    existing = fake.webhooks
    second = await webhooks.ensure(SPEC, OTHER, SPEC)

    assert first == second
    assert first[0] == first[2]
    assert sorted(set(first)) == ids(fake)
    assert fake.webhooks == existing


async def test_ensuring_deletes_nothing(fake, webhooks):
    """An older token is updated; webhooks without a spec stay."""
    old, other = [await create(webhooks, spec) for spec in (OLD, OTHER)]

    assert await webhooks.ensure(SPEC, tokens=TOKENS) == (old.id,)
    assert ids(fake) == [old.id, other.id]


async def test_ensure_raises_the_first_error_after_all_changes(fake, webhooks):
    """With a note of how many failed."""
    fake.fail_next(NO_FAULT, NO_FAULT, Fault(status=400))

    with pytest.raises(BadRequestError) as raised:
        await webhooks.ensure(SPEC, OTHER)

    assert raised.value.__notes__ == ["1 of 2 webhooks failed; the others are up to date"]
    assert len(fake.webhooks) == 1


# --- random accounts, specs and faults --------------------------------------------------------------------

SPECS = st.builds(
    WebhookSpec,
    st.sampled_from([f"{BASE}/{token}" for token in (CURRENT, PREVIOUS, FOREIGN)] + [BASE]),
    st.sampled_from([WebhookResource.TEXT_BROADCAST, WebhookResource.CALL_BROADCAST]),
    st.sampled_from([None, [WebhookEvent.STARTED], [WebhookEvent.STOPPED, WebhookEvent.STARTED]]),
    st.sampled_from([None, "first", "second"]),
    st.booleans(),
    st.sampled_from([None, SECRET]),
    st.booleans(),
    st.booleans(),
)
FAULTS = st.sampled_from(
    [
        *[NO_FAULT] * 4,
        Fault(cut="request"),
        Fault(cut="answer"),
        Fault(cut="body"),
        Fault(status=503),
        Fault(status=503, carried_out=True),
        Fault(status=500, html=True, carried_out=True),
        Fault(status=429),
        Fault(status=400),
    ]
)
OWNERS = [None, lambda one: one.enabled, lambda _: False]


def named(spec):
    return key_of_webhook(spec, TOKENS)


class Case:
    """A random account, specs that do not conflict, and the options of the plan."""

    def __init__(self, draw):
        self.fake = FakeCallFire(
            webhook_update=draw(st.sampled_from(["merge", "replace"])),
            returns_secrets=draw(st.booleans()),
            counts_webhooks=draw(st.booleans()),
        )
        self.account = draw(st.lists(SPECS, max_size=6))
        self.specs = draw(st.lists(SPECS, max_size=5, unique_by=named))
        self.faults = draw(st.lists(FAULTS, max_size=40))
        self.prune = draw(st.booleans())
        self.owned = draw(st.sampled_from(OWNERS))

    def owns(self, webhook):
        return self.owned(webhook) if self.owned else named(webhook).endpoint_key.has_token

    def plan(self, webhooks):
        return webhooks.plan(self.specs, tokens=TOKENS, prune=self.prune, owned=self.owned)


# Insecure settings, which cause warnings, are drawn too.
@pytest.mark.filterwarnings("ignore:non_strict_ssl")
@given(data=st.data())
@settings(max_examples=100, deadline=None)
async def test_a_plan_converges_despite_faults(data):
    """The last plan is empty, no duplicate was created, and no unowned webhook was changed."""
    case = Case(data.draw)
    async with webhooks_of(case.fake, max_retries=2) as webhooks:
        for spec in case.account:
            await create(webhooks, spec)
        before = case.fake.webhooks
        plan = await case.plan(webhooks)

        case.fake.fail_next(*case.faults)
        clean = await applies_without_error(webhooks, plan)
        case.fake._faults.clear()
        halfway = await case.plan(webhooks)
        assert halfway.is_empty or not clean
        await webhooks.apply(halfway)

        assert (await case.plan(webhooks)).is_empty
    check_account(case, before)


async def applies_without_error(webhooks, plan):
    """Apply a plan; return whether all changes succeeded."""
    try:
        result = await webhooks.apply(plan)
    except CallFireError:
        return False
    return not result.errors


def check_account(case, before):
    """Compare the account with its state before."""
    after = {one.id: one for one in case.fake.webhooks}
    expected = {named(spec) for spec in case.specs}
    counts_before, counts = (Counter(map(named, listed)) for listed in (before, after.values()))
    assert expected <= counts.keys()
    assert [key for key in counts if counts[key] > max(counts_before[key], 1)] == []
    for one in before:
        is_kept = not (case.prune and case.owns(one))
        assert one.id in after or not is_kept
        assert one == after.get(one.id) or not is_kept or named(one) in expected
