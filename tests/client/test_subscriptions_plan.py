"""`plan`, `apply` and `ensure`, against a fake CallFire with and without faults."""

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
    ClientClosedError,
    NotFoundError,
    ServerError,
    SubscriptionFilter,
    SubscriptionSpec,
    TriggerEvent,
)
from callfire_async.client.plan import key_of
from callfire_async.notifications import EndpointTokens
from callfire_async.testing import FakeCallFire
from callfire_async.testing.faults import Fault

CURRENT, PREVIOUS, FOREIGN = "current-token-1234", "previous-token-123", "another-apps-token"
TOKENS = EndpointTokens(CURRENT, PREVIOUS)
BASE = "https://hooks.example.com/callfire"
TRIGGER_EVENT = TriggerEvent.OUTBOUND_TEXT_FINISHED
SPEC = SubscriptionSpec(f"{BASE}/{CURRENT}", TRIGGER_EVENT)
OTHER = SubscriptionSpec(f"{BASE}/{CURRENT}", TriggerEvent.INBOUND_TEXT_FINISHED)
OLD = SubscriptionSpec(f"{BASE}/{PREVIOUS}", TRIGGER_EVENT, enabled=False)
NARROW = evolve(SPEC, filter=SubscriptionFilter(broadcast_id=7))
# No fault: lets the next one hit a later request.
NO_FAULT = Fault(hold=lambda: asyncio.sleep(0))


async def no_sleep(_):
    """Retry without a delay."""


@asynccontextmanager
async def subscriptions_of(fake, **options):
    """Yield the subscriptions of a fake's account, without delays between retries."""
    async with fake.client(**options) as client:
        client._connection._retry_hooks = evolve(client._connection._retry_hooks, sleep=no_sleep)
        yield client.subscriptions


@pytest.fixture
def fake():
    return FakeCallFire()


@pytest.fixture
async def subscriptions(fake):
    async with subscriptions_of(fake) as opened_subscriptions:
        yield opened_subscriptions


def create(subscriptions, spec):
    """Create the subscription of a spec."""
    return subscriptions.create(
        spec.endpoint,
        spec.trigger_event,
        filter=spec.filter,
        notification_format=spec.notification_format,
        enabled=spec.enabled,
        non_strict_ssl=spec.non_strict_ssl,
    )


def ids(fake):
    return [one.id for one in fake.subscriptions]


# --- apply ------------------------------------------------------------------------------------------------


async def test_missing_subscriptions_are_created_once(fake, subscriptions):
    """The next plan is empty."""
    result = await subscriptions.apply(await subscriptions.plan([SPEC, OTHER]))

    assert sorted(result.ids.values()) == ids(fake)
    assert result.ids.keys() == {SPEC, OTHER}
    assert not result.errors
    assert (await subscriptions.plan([SPEC, OTHER])).is_empty


async def test_a_rotated_token_updates_the_subscription(fake, subscriptions):
    """The endpoint and other different fields change, the ID stays."""
    existing = await create(subscriptions, OLD)

    result = await subscriptions.apply(await subscriptions.plan([SPEC], tokens=TOKENS))

    assert result.ids == {SPEC: existing.id}
    assert [(one.id, one.endpoint, one.enabled) for one in fake.subscriptions] == [(existing.id, SPEC.endpoint, True)]


async def test_a_replacement_is_created_before_the_old_one_is_deleted(fake, subscriptions):
    """If it cannot be created, the old one stays."""
    existing = await create(subscriptions, NARROW)
    plan = await subscriptions.plan([SPEC], tokens=TOKENS, prune=True)
    fake.fail_next(NO_FAULT, Fault(status=400))

    failed = await subscriptions.apply(plan)
    kept = ids(fake)
    result = await subscriptions.apply(plan)

    assert isinstance(failed.errors[SPEC], BadRequestError)
    assert not failed.ids
    assert kept == [existing.id]
    assert ids(fake) == [result.ids[SPEC]] != kept


async def test_a_replacement_can_leave_the_old_one(fake, subscriptions):
    """The new ID and the error are in the result; the next plan deletes the old one."""
    existing = await create(subscriptions, NARROW)
    fake.fail_next(NO_FAULT, NO_FAULT, NO_FAULT, Fault(status=400))

    result = await subscriptions.apply(await subscriptions.plan([SPEC], tokens=TOKENS, prune=True))

    assert ids(fake) == [existing.id, result.ids[SPEC]]
    assert isinstance(result.errors[SPEC], BadRequestError)
    assert [one.id for one in (await subscriptions.plan([SPEC], tokens=TOKENS, prune=True)).delete] == [existing.id]


async def test_apply_continues_after_an_error(fake, subscriptions):
    """All errors are in the result, and the other changes are made."""
    await create(subscriptions, OLD)
    specs = [evolve(OTHER, filter=SubscriptionFilter(batch_id=1 + number)) for number in range(10)]
    undeletable = await create(subscriptions, evolve(OTHER, endpoint=f"{BASE}/more/{CURRENT}"))
    plan = await subscriptions.plan([SPEC, *specs], tokens=TOKENS, prune=True)
    fake.fail_next(NO_FAULT, Fault(status=400), *[NO_FAULT] * 9, Fault(status=404), Fault(status=403))

    result = await subscriptions.apply(plan)

    assert {type(error).__name__ for error in result.errors.values()} == {
        "BadRequestError",
        "NotFoundError",
        "PermissionDeniedError",
    }
    assert result.errors.keys() & set(specs)
    assert isinstance(result.errors[SPEC], NotFoundError)
    assert [one.id for one in result.errors if one in plan.delete] == [undeletable.id]
    assert len(result.ids) == len(specs)
    assert CURRENT not in repr(result)


async def test_a_create_of_unknown_outcome_is_found(fake, subscriptions):
    """There is one subscription, and the result has its ID."""
    plan = await subscriptions.plan([SPEC])
    fake.fail_next(NO_FAULT, Fault(cut="answer"))

    result = await subscriptions.apply(plan)

    assert result.ids == {SPEC: ids(fake)[0]}
    assert len(fake.subscriptions) == 1


async def test_a_plan_can_be_applied_twice(fake, subscriptions):
    """Created subscriptions are found, and deleted ones are ignored."""
    await create(subscriptions, NARROW)
    await create(subscriptions, evolve(OLD, trigger_event=TriggerEvent.CAMPAIGN_STARTED))
    plan = await subscriptions.plan([SPEC, OTHER], tokens=TOKENS, prune=True)

    first = await subscriptions.apply(plan)
    second = await subscriptions.apply(plan)

    assert first == second
    assert sorted(first.ids.values()) == ids(fake)


async def test_an_empty_plan_sends_nothing(fake, subscriptions):
    """No request at all."""
    await create(subscriptions, SPEC)
    plan = await subscriptions.plan([SPEC])
    fake.fail_next(Fault(status=400))

    result = await subscriptions.apply(plan)

    assert result.ids == {SPEC: ids(fake)[0]}
    assert not result.errors


async def test_concurrent_changes_are_limited(fake, subscriptions):
    """To four: the rest of the pool stays free."""
    specs = [evolve(SPEC, filter=SubscriptionFilter(batch_id=1 + number)) for number in range(9)]
    plan = await subscriptions.plan(specs)
    active, counts, full = 0, [], asyncio.Event()

    async def hold():
        nonlocal active
        active += 1
        counts.append(active)
        if active == 4:
            full.set()
        await full.wait()
        active -= 1

    fake.fail_next(NO_FAULT, *[Fault(hold=hold)] * len(specs))
    result = await subscriptions.apply(plan)

    assert len(result.ids) == len(specs)
    assert max(counts) == 4


async def test_an_account_that_cannot_be_read_is_not_changed(fake, subscriptions):
    """The error is raised."""
    plan = await subscriptions.plan([SPEC])
    fake.fail_next(*[Fault(status=503)] * 4)

    with pytest.raises(ServerError):
        await subscriptions.apply(plan)
    assert not fake.subscriptions


async def test_conflicting_specs_are_never_sent(fake, subscriptions):
    """The account is not read."""
    fake.fail_next(Fault(status=401))

    with pytest.raises(ValueError, match="conflicting specs"):
        await subscriptions.plan([SPEC, evolve(SPEC, enabled=False)])


# --- ensure -----------------------------------------------------------------------------------------------


async def test_ensuring_twice_changes_nothing_the_second_time(fake, subscriptions):
    """The IDs are in the order of the specs, both times."""
    first = await subscriptions.ensure(SPEC, OTHER, SPEC)
    existing = fake.subscriptions
    second = await subscriptions.ensure(SPEC, OTHER, SPEC)

    assert first == second
    assert first[0] == first[2]
    assert sorted(set(first)) == ids(fake)
    assert fake.subscriptions == existing


async def test_equal_specs_have_one_id(fake, subscriptions):
    """Numbers are compared by their digits."""
    numbers = ("12135551212", "+1 213 555 1212")
    specs = [evolve(SPEC, filter=SubscriptionFilter(to_number=number)) for number in numbers]

    assert await subscriptions.ensure(*specs) == (ids(fake)[0],) * 2


async def test_ensuring_deletes_nothing(fake, subscriptions):
    """An older token is updated; subscriptions without a spec stay."""
    old, narrow = [await create(subscriptions, spec) for spec in (OLD, NARROW)]

    assert await subscriptions.ensure(SPEC, tokens=TOKENS) == (old.id,)
    assert ids(fake) == [old.id, narrow.id]


async def test_ensure_raises_the_first_error_after_all_changes(fake, subscriptions):
    """With a note of how many failed."""
    fake.fail_next(NO_FAULT, NO_FAULT, Fault(status=400))

    with pytest.raises(BadRequestError) as raised:
        await subscriptions.ensure(SPEC, OTHER)

    assert raised.value.__notes__ == ["1 of 2 subscriptions failed; the others are up to date"]
    assert len(fake.subscriptions) == 1


async def test_ensure_on_a_closed_client_is_an_error(fake):
    """It is a ClientClosedError."""
    client = fake.client()
    await client.aclose()

    with pytest.raises(ClientClosedError):
        await client.subscriptions.ensure(SPEC)


# --- random accounts, specs and faults --------------------------------------------------------------------

FILTERS = [
    None,
    SubscriptionFilter(broadcast_id=7),
    SubscriptionFilter(broadcast_id=7, batch_id=9),
    SubscriptionFilter(from_number="12135551212"),
    SubscriptionFilter(from_number="+1 213 555 1212"),
]
SPECS = st.builds(
    SubscriptionSpec,
    st.sampled_from([f"{BASE}/{token}" for token in (CURRENT, PREVIOUS, FOREIGN)] + [BASE, "me@example.com"]),
    st.sampled_from([TRIGGER_EVENT, TriggerEvent.CAMPAIGN_STARTED]),
    st.sampled_from(FILTERS),
    st.sampled_from(["XML", "JSON", None]),
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
    return key_of(spec, TOKENS)


class Case:
    """A random account, specs that do not conflict, and the options of the plan."""

    def __init__(self, draw):
        self.fake = FakeCallFire(repeated_request_id=draw(st.sampled_from(["first", "ignored", "refused"])))
        self.response_format = draw(st.sampled_from(["json", "xml"]))
        self.account = draw(st.lists(SPECS, max_size=6))
        self.specs = draw(st.lists(SPECS, max_size=5, unique_by=named))
        self.faults = draw(st.lists(FAULTS, max_size=40))
        self.prune = draw(st.booleans())
        self.owned = draw(st.sampled_from(OWNERS))

    def owns(self, subscription):
        return self.owned(subscription) if self.owned else named(subscription).endpoint_key.has_token

    def plan(self, subscriptions):
        return subscriptions.plan(self.specs, tokens=TOKENS, prune=self.prune, owned=self.owned)


# Insecure settings, which cause warnings, are drawn too.
@pytest.mark.filterwarnings("ignore:non_strict_ssl")
@given(data=st.data())
@settings(max_examples=100, deadline=None)
async def test_a_plan_converges_despite_faults(data):
    """The last plan is empty, no duplicate was created, and no unowned subscription was changed."""
    case = Case(data.draw)
    async with subscriptions_of(case.fake, response_format=case.response_format, max_retries=2) as subscriptions:
        for spec in case.account:
            await create(subscriptions, spec)
        before = case.fake.subscriptions
        plan = await case.plan(subscriptions)

        case.fake.fail_next(*case.faults)
        clean = await applies_without_error(subscriptions, plan)
        case.fake._faults.clear()
        halfway = await case.plan(subscriptions)
        assert halfway.is_empty or not clean
        await subscriptions.apply(halfway)

        assert (await case.plan(subscriptions)).is_empty
    check_account(case, before)


async def applies_without_error(subscriptions, plan):
    """Apply a plan; return whether all changes succeeded."""
    try:
        result = await subscriptions.apply(plan)
    except CallFireError:
        return False
    return not result.errors


def check_account(case, before):
    """Compare the account with its state before."""
    after = {one.id: one for one in case.fake.subscriptions}
    expected = {named(spec) for spec in case.specs}
    counts_before, counts = (Counter(map(named, listed)) for listed in (before, after.values()))
    assert expected <= counts.keys()
    assert [key for key in counts if counts[key] > max(counts_before[key], 1)] == []
    for one in before:
        is_kept = not (case.prune and case.owns(one))
        assert one.id in after or not is_kept
        assert one == after.get(one.id) or not is_kept or named(one) in expected
