"""Declared subscriptions: plan, apply and ensure, against a CallFire in memory and what may go wrong with it."""

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

CURRENT, PREVIOUS, STRANGER = "current-token-1234", "previous-token-123", "a-stranger-s-token"
TOKENS = EndpointTokens(CURRENT, PREVIOUS)
BASE = "https://hooks.example.com/callfire"
TRIGGER_EVENT = TriggerEvent.OUTBOUND_TEXT_FINISHED
SPEC = SubscriptionSpec(f"{BASE}/{CURRENT}", TRIGGER_EVENT)
OTHER = SubscriptionSpec(f"{BASE}/{CURRENT}", TriggerEvent.INBOUND_TEXT_FINISHED)
OLD = SubscriptionSpec(f"{BASE}/{PREVIOUS}", TRIGGER_EVENT, enabled=False)
NARROW = evolve(SPEC, filter=SubscriptionFilter(broadcast_id=7))
# A request that goes well: it lets a fault hit one that comes later.
WELL = Fault(hold=lambda: asyncio.sleep(0))


async def no_sleep(_):
    """Let no time pass."""


@asynccontextmanager
async def opened(fake, **options):
    """Give the subscriptions of a fake's account, tried again at once."""
    async with fake.client(**options) as client:
        client._connection._retry_hooks = evolve(client._connection._retry_hooks, sleep=no_sleep)
        yield client.subscriptions


@pytest.fixture
def fake():
    return FakeCallFire()


@pytest.fixture
async def subscriptions(fake):
    async with opened(fake) as opened_subscriptions:
        yield opened_subscriptions


def create(subscriptions, spec):
    """Make what a spec says, whatever there is already."""
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


# --- applying ---------------------------------------------------------------------------------------------


async def test_what_is_missing_is_created_once(fake, subscriptions):
    """Planning again finds nothing to do."""
    applied = await subscriptions.apply(await subscriptions.plan([SPEC, OTHER]))

    assert sorted(applied.ids.values()) == ids(fake)
    assert applied.ids.keys() == {SPEC, OTHER}
    assert not applied.errors
    assert (await subscriptions.plan([SPEC, OTHER])).is_empty


async def test_a_rotated_token_keeps_its_subscription(fake, subscriptions):
    """The endpoint changes, and whatever else differs."""
    there = await create(subscriptions, OLD)

    applied = await subscriptions.apply(await subscriptions.plan([SPEC], tokens=TOKENS))

    assert applied.ids == {SPEC: there.id}
    assert [(one.id, one.endpoint, one.enabled) for one in fake.subscriptions] == [(there.id, SPEC.endpoint, True)]


async def test_a_replacement_is_there_before_the_old_one_goes(fake, subscriptions):
    """Where the new one cannot be made, the old one stays."""
    there = await create(subscriptions, NARROW)
    plan = await subscriptions.plan([SPEC], tokens=TOKENS, prune=True)
    fake.fail_next(WELL, Fault(status=400))

    failed = await subscriptions.apply(plan)
    kept = ids(fake)
    applied = await subscriptions.apply(plan)

    assert isinstance(failed.errors[SPEC], BadRequestError)
    assert not failed.ids
    assert kept == [there.id]
    assert ids(fake) == [applied.ids[SPEC]] != kept


async def test_a_replacement_whose_old_one_cannot_be_deleted_says_both(fake, subscriptions):
    """The new one is there, and so is the old one; the next plan deletes it."""
    there = await create(subscriptions, NARROW)
    fake.fail_next(WELL, WELL, WELL, Fault(status=400))

    applied = await subscriptions.apply(await subscriptions.plan([SPEC], tokens=TOKENS, prune=True))

    assert ids(fake) == [there.id, applied.ids[SPEC]]
    assert isinstance(applied.errors[SPEC], BadRequestError)
    assert [one.id for one in (await subscriptions.plan([SPEC], tokens=TOKENS, prune=True)).delete] == [there.id]


async def test_it_goes_on_after_an_error_and_reports_all(fake, subscriptions):
    """Two fail, each in its own way; the rest is done."""
    await create(subscriptions, OLD)
    specs = [evolve(OTHER, filter=SubscriptionFilter(batch_id=1 + number)) for number in range(10)]
    doomed = await create(subscriptions, evolve(OTHER, endpoint=f"{BASE}/more/{CURRENT}"))
    plan = await subscriptions.plan([SPEC, *specs], tokens=TOKENS, prune=True)
    fake.fail_next(WELL, Fault(status=400), *[WELL] * 9, Fault(status=404), Fault(status=403))

    applied = await subscriptions.apply(plan)

    assert {type(error).__name__ for error in applied.errors.values()} == {
        "BadRequestError",
        "NotFoundError",
        "PermissionDeniedError",
    }
    assert applied.errors.keys() & set(specs)
    assert isinstance(applied.errors[SPEC], NotFoundError)
    assert [one.id for one in applied.errors if one in plan.delete] == [doomed.id]
    assert len(applied.ids) == len(specs)
    assert CURRENT not in repr(applied)


async def test_a_create_of_unknown_outcome_is_adopted_when_applied(fake, subscriptions):
    """There is one, and its id is known."""
    plan = await subscriptions.plan([SPEC])
    fake.fail_next(WELL, Fault(cut="answer"))

    applied = await subscriptions.apply(plan)

    assert applied.ids == {SPEC: ids(fake)[0]}
    assert len(fake.subscriptions) == 1


async def test_a_plan_can_be_applied_twice(fake, subscriptions):
    """What was created is found, what was deleted is gone."""
    await create(subscriptions, NARROW)
    await create(subscriptions, evolve(OLD, trigger_event=TriggerEvent.CAMPAIGN_STARTED))
    plan = await subscriptions.plan([SPEC, OTHER], tokens=TOKENS, prune=True)

    first = await subscriptions.apply(plan)
    second = await subscriptions.apply(plan)

    assert first == second
    assert sorted(first.ids.values()) == ids(fake)


async def test_an_empty_plan_asks_nothing(fake, subscriptions):
    """Not a request leaves."""
    await create(subscriptions, SPEC)
    plan = await subscriptions.plan([SPEC])
    fake.fail_next(Fault(status=400))

    applied = await subscriptions.apply(plan)

    assert applied.ids == {SPEC: ids(fake)[0]}
    assert not applied.errors


async def test_a_few_changes_are_under_way_at_once(fake, subscriptions):
    """Four, and no more: the rest of the pool stays free for others."""
    specs = [evolve(SPEC, filter=SubscriptionFilter(batch_id=1 + number)) for number in range(9)]
    plan = await subscriptions.plan(specs)
    under_way, most, full = 0, [], asyncio.Event()

    async def hold():
        nonlocal under_way
        under_way += 1
        most.append(under_way)
        if under_way == 4:
            full.set()
        await full.wait()
        under_way -= 1

    fake.fail_next(WELL, *[Fault(hold=hold)] * len(specs))
    applied = await subscriptions.apply(plan)

    assert len(applied.ids) == len(specs)
    assert max(most) == 4


async def test_an_account_that_cannot_be_read_again_is_not_changed(fake, subscriptions):
    """The error is raised: there is nothing to report yet."""
    plan = await subscriptions.plan([SPEC])
    fake.fail_next(*[Fault(status=503)] * 4)

    with pytest.raises(ServerError):
        await subscriptions.apply(plan)
    assert not fake.subscriptions


async def test_specs_that_contradict_each_other_are_never_sent(fake, subscriptions):
    """The account is not even read."""
    fake.fail_next(Fault(status=401))

    with pytest.raises(ValueError, match="conflicting specs"):
        await subscriptions.plan([SPEC, evolve(SPEC, enabled=False)])


# --- ensuring ---------------------------------------------------------------------------------------------


async def test_ensuring_twice_changes_nothing_the_second_time(fake, subscriptions):
    """The ids come in the order of the specs, the same each time."""
    first = await subscriptions.ensure(SPEC, OTHER, SPEC)
    there = fake.subscriptions
    second = await subscriptions.ensure(SPEC, OTHER, SPEC)

    assert first == second
    assert first[0] == first[2]
    assert sorted(set(first)) == ids(fake)
    assert fake.subscriptions == there


async def test_specs_in_other_words_have_one_id(fake, subscriptions):
    """What means the same is the same subscription."""
    numbers = ("12135551212", "+1 213 555 1212")
    specs = [evolve(SPEC, filter=SubscriptionFilter(to_number=number)) for number in numbers]

    assert await subscriptions.ensure(*specs) == (ids(fake)[0],) * 2


async def test_ensuring_deletes_nothing(fake, subscriptions):
    """With tokens an older one is updated; what no spec names stays."""
    old, narrow = [await create(subscriptions, spec) for spec in (OLD, NARROW)]

    assert await subscriptions.ensure(SPEC, tokens=TOKENS) == (old.id,)
    assert ids(fake) == [old.id, narrow.id]


async def test_what_cannot_be_ensured_is_raised_after_the_rest_was_tried(fake, subscriptions):
    """The first error, with a note of how many failed."""
    fake.fail_next(WELL, WELL, Fault(status=400))

    with pytest.raises(BadRequestError) as raised:
        await subscriptions.ensure(SPEC, OTHER)

    assert raised.value.__notes__ == ["1 of 2 subscriptions failed; the others are up to date"]
    assert len(fake.subscriptions) == 1


async def test_a_closed_client_ensures_nothing(fake):
    """It says so."""
    client = fake.client()
    await client.aclose()

    with pytest.raises(ClientClosedError):
        await client.subscriptions.ensure(SPEC)


# --- whatever the account, the specs and the faults -------------------------------------------------------

FILTERS = [
    None,
    SubscriptionFilter(broadcast_id=7),
    SubscriptionFilter(broadcast_id=7, batch_id=9),
    SubscriptionFilter(from_number="12135551212"),
    SubscriptionFilter(from_number="+1 213 555 1212"),
]
SPECS = st.builds(
    SubscriptionSpec,
    st.sampled_from([f"{BASE}/{token}" for token in (CURRENT, PREVIOUS, STRANGER)] + [BASE, "me@example.com"]),
    st.sampled_from([TRIGGER_EVENT, TriggerEvent.CAMPAIGN_STARTED]),
    st.sampled_from(FILTERS),
    st.sampled_from(["XML", "JSON", None]),
    st.booleans(),
    st.booleans(),
)
FAULTS = st.sampled_from(
    [
        *[WELL] * 4,
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
    """An account, specs that do not contradict each other, and how they are to be compared."""

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


# What is risky is warned of; here it is wanted at random.
@pytest.mark.filterwarnings("ignore:non_strict_ssl")
@given(data=st.data())
@settings(max_examples=100, deadline=None)
async def test_an_account_becomes_what_is_wanted_whatever_goes_wrong(data):
    """Planning after applying finds nothing to do, no equal two were made, and no other's was touched."""
    case = Case(data.draw)
    async with opened(case.fake, response_format=case.response_format, max_retries=2) as subscriptions:
        for spec in case.account:
            await create(subscriptions, spec)
        before = case.fake.subscriptions
        plan = await case.plan(subscriptions)

        case.fake.fail_next(*case.faults)
        clean = await applied_cleanly(subscriptions, plan)
        case.fake._faults.clear()
        halfway = await case.plan(subscriptions)
        assert halfway.is_empty or not clean
        await subscriptions.apply(halfway)

        assert (await case.plan(subscriptions)).is_empty
    check_the_account(case, before)


async def applied_cleanly(subscriptions, plan):
    """Apply a plan; tell whether all of it went well."""
    try:
        applied = await subscriptions.apply(plan)
    except CallFireError:
        return False
    return not applied.errors


def check_the_account(case, before):
    """Hold what is there now against what was there before."""
    after = {one.id: one for one in case.fake.subscriptions}
    wanted = {named(spec) for spec in case.specs}
    were, are = (Counter(map(named, listed)) for listed in (before, after.values()))
    assert wanted <= are.keys()
    assert [key for key in are if are[key] > max(were[key], 1)] == []
    for one in before:
        spared = not (case.prune and case.owns(one))
        assert one.id in after or not spared
        assert one == after.get(one.id) or not spared or named(one) in wanted
