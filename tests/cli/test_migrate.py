"""`webhooks migrate`, with a fake CallFire in memory and on localhost."""

import asyncio
from contextlib import nullcontext as does_not_raise
from contextlib import suppress

import pytest
from cli.command_runner import TOKEN, run_command
from unmeasured import unmeasured

from callfire_async import (
    AuthenticationError,
    CallFireError,
    NotificationFormat,
    SubscriptionFilter,
    TriggerEvent,
    WebhookEvent,
    WebhookResource,
)
from callfire_async.cli._exit import CliError
from callfire_async.cli.commands.webhooks import _migrate
from callfire_async.cli.commands.webhooks._migrate import MigrationOptions
from callfire_async.client import _http
from callfire_async.testing import FakeCallFire, Fault

URL = f"https://hooks.example.com/callfire/{TOKEN}"
SECRET = "a-signing-secret-of-the-tests"
JSON = NotificationFormat.JSON
STARTED, STOPPED, FINISHED = WebhookEvent.STARTED, WebhookEvent.STOPPED, WebhookEvent.FINISHED
CREATE = MigrationOptions(apply=True)
REPLACE = MigrationOptions(apply=True, disable_subscriptions=True)
TEXTS, CALLS = TriggerEvent.OUTBOUND_TEXT_FINISHED, TriggerEvent.INBOUND_CALL_FINISHED


@pytest.fixture(autouse=True)
def secret(monkeypatch):
    monkeypatch.setenv("CALLFIRE_SIGNING_SECRET", SECRET)


async def subscribe(fake, *triggers, endpoint=URL, **details):
    async with fake.client() as callfire:
        for trigger in triggers:
            await callfire.subscriptions.create(endpoint, trigger, notification_format=JSON, **details)


async def migrate(fake, options=REPLACE):
    """Run the command's work with a client that does not retry, so that each fault ends a change."""
    async with fake.client(max_retries=0) as callfire:
        return await _migrate.run(callfire, options)


async def pass_on():
    """Hold a response for no time."""


def state_of(fake):
    """Return what an account has, without ids and times."""
    webhooks = {(webhook.callback, webhook.resource, webhook.events, webhook.enabled) for webhook in fake.webhooks}
    return webhooks, [subscription.enabled for subscription in fake.subscriptions], len(fake.webhooks)


# --- the plan ---------------------------------------------------------------------------------------------


async def test_without_apply_nothing_is_changed(capsys):
    """The plan, the changes and what to prepare are printed."""
    fake = FakeCallFire()
    await subscribe(fake, TEXTS, filter=SubscriptionFilter(to_number="12135551212"))
    before = state_of(fake)

    assert await migrate(fake, MigrationOptions()) == 0

    out = capsys.readouterr().out
    assert "- 609951003 OUTBOUND_TEXT_FINISHED to https://hooks.example.com/callfire/***" in out
    assert "+ OutboundText Finished to https://hooks.example.com/callfire/***" in out
    assert "webhooks: 1 to create, 0 to update, 0 unchanged; subscriptions: 1 enabled that webhooks replace" in out
    assert "require_signature=False" in out
    assert "--allow-unfiltered" in out
    assert TOKEN not in out
    assert "1212" not in out
    assert state_of(fake) == before


async def test_webhooks_are_created_and_subscriptions_stay():
    """Without --disable-subscriptions both are enabled; the webhooks have the secret and a name."""
    fake = FakeCallFire()
    await subscribe(fake, TEXTS, TriggerEvent.CAMPAIGN_STARTED, TriggerEvent.CAMPAIGN_FINISHED)

    assert await migrate(fake, CREATE) == 0

    assert state_of(fake) == (
        {
            (URL, WebhookResource.OUTBOUND_TEXT, (FINISHED,), True),
            (URL, WebhookResource.CALL_BROADCAST, (STARTED, FINISHED), True),
            (URL, WebhookResource.TEXT_BROADCAST, (STARTED, FINISHED), True),
            (URL, WebhookResource.CCC_CAMPAIGN, (STARTED, FINISHED), True),
        },
        [True] * 3,
        4,
    )
    assert {webhook.secret for webhook in fake.webhooks} == {SECRET}
    assert all(webhook.name for webhook in fake.webhooks)


@pytest.mark.parametrize("options", [CREATE, REPLACE])
async def test_a_second_run_changes_nothing(options, capsys):
    """No request changes the account, and the output says so."""
    fake = FakeCallFire()
    await subscribe(fake, *TriggerEvent)
    await subscribe(fake, TEXTS, endpoint="someone@example.com")
    await migrate(fake, options)
    before = fake.webhooks, fake.subscriptions
    capsys.readouterr()

    assert await migrate(fake, options) == 0

    assert (fake.webhooks, fake.subscriptions) == before
    assert "nothing to change" in capsys.readouterr().out


async def test_what_no_webhook_replaces_stays_enabled():
    """A subscription to an e-mail address, and one with the undefined trigger."""
    fake = FakeCallFire()
    await subscribe(fake, TEXTS, TriggerEvent.UNDEFINED_EVENT)
    await subscribe(fake, TEXTS, endpoint="someone@example.com")

    assert await migrate(fake) == 0

    assert [subscription.enabled for subscription in fake.subscriptions] == [False, True, True]


async def test_a_disabled_subscription_gets_a_disabled_webhook():
    """A later run does not disable a webhook that was enabled meanwhile."""
    fake = FakeCallFire()
    await subscribe(fake, TEXTS, enabled=False)
    await migrate(fake)
    disabled = fake.webhooks[0].enabled
    async with fake.client() as callfire:
        await callfire.webhooks.update(fake.webhooks[0].id, enabled=True)
    await migrate(fake)

    assert (disabled, fake.webhooks[0].enabled) == (False, True)


@pytest.mark.filterwarnings("ignore:non_strict_ssl:UserWarning")
@pytest.mark.parametrize("update", ["merge", "replace"])
async def test_an_existing_webhook_is_completed(update):
    """It gets the missing events and is enabled; it keeps its own events and its name, however CallFire updates."""
    fake = FakeCallFire(webhook_update=update)
    await subscribe(fake, TriggerEvent.CAMPAIGN_STARTED, non_strict_ssl=True)
    async with fake.client() as callfire:
        resource = WebhookResource.CALL_BROADCAST
        await callfire.webhooks.create(URL, resource, events=[STOPPED], name="mine", enabled=False)

    assert await migrate(fake) == 0

    webhook = fake.webhooks[0]
    assert (webhook.name, webhook.events, webhook.enabled) == ("mine", (STARTED, STOPPED), True)
    assert (webhook.secret, webhook.non_strict_ssl, len(fake.webhooks)) == (SECRET, True, 3)


# --- filters ----------------------------------------------------------------------------------------------


async def test_a_filter_is_refused_before_anything_is_changed():
    """--allow-unfiltered accepts it. A disabled subscription posts nothing, so its filter does not matter."""
    fake = FakeCallFire()
    await subscribe(fake, TEXTS, filter=SubscriptionFilter(broadcast_id=7))
    await subscribe(fake, CALLS)
    before = state_of(fake)

    with pytest.raises(CliError, match=r"1 of the subscriptions have one.*--allow-unfiltered"):
        await migrate(fake)
    refused = state_of(fake)
    allowed = await migrate(fake, MigrationOptions(apply=True, disable_subscriptions=True, allow_unfiltered=True))

    assert (refused, allowed, state_of(fake)[1]) == (before, 0, [False, False])
    assert await migrate(fake) == 0


# --- faults -----------------------------------------------------------------------------------------------


def assert_replaced(fake):
    """Check that a disabled subscription has its enabled webhooks; all were enabled at first."""
    posted = {(w.callback, w.resource, event) for w in fake.webhooks if w.enabled for event in w.events}
    for subscription in fake.subscriptions:
        if not subscription.enabled:
            (step,) = _migrate.plan_migration([subscription]).steps
            assert {(s.callback, s.resource, event) for s in step.specs for event in s.events} <= posted


async def make_account():
    fake = FakeCallFire()
    await subscribe(fake, TEXTS, TriggerEvent.CAMPAIGN_STARTED, TriggerEvent.CAMPAIGN_FINISHED)
    await subscribe(fake, CALLS, endpoint="https://example.com/other")
    async with fake.client() as callfire:
        await callfire.webhooks.create(URL, WebhookResource.CALL_BROADCAST, events=[STARTED], enabled=False)
    return fake


# The account is read in two requests, before and after five changes of webhooks; then four subscriptions change.
REQUESTS = 2 + 5 + 2 + 4


@pytest.mark.parametrize("number", range(REQUESTS))
@pytest.mark.parametrize(
    "fault",
    [Fault(status=400), Fault(status=500, carried_out=True), Fault(cut="request"), Fault(cut="answer")],
    ids=["refused", "carried out", "not carried out", "no response"],
)
async def test_a_run_after_a_fault_completes_the_migration(number, fault):
    """At every request: nothing is disabled too early, and the second run leads to the same state."""
    expected = await make_account()
    assert await migrate(expected) == 0
    fake = await make_account()
    # A request without a fault is held for no time.
    fake.fail_next(*[Fault(hold=pass_on)] * number, fault)

    with pytest.raises(CallFireError) if number in (0, 1, 7, 8) else does_not_raise():
        await migrate(fake)
    assert_replaced(fake)
    assert await migrate(fake) == 0

    assert state_of(fake) == state_of(expected)


@pytest.mark.parametrize("number", range(REQUESTS))
async def test_a_run_after_a_kill_completes_the_migration(number, monkeypatch):
    """A run can be cancelled at every request."""
    monkeypatch.setattr(_http, "ABANDONED_SECONDS", 0.01)  # the request that is held never finishes
    expected = await make_account()
    await migrate(expected)
    fake = await make_account()
    reached = asyncio.Event()

    async def stop():
        reached.set()
        await asyncio.Event().wait()

    fake.fail_next(*[Fault(hold=pass_on)] * number, Fault(hold=stop))
    running = asyncio.create_task(migrate(fake))
    await reached.wait()
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert_replaced(fake)
    assert await migrate(fake) == 0

    assert state_of(fake) == state_of(expected)


async def test_a_webhook_that_is_not_listed_keeps_the_subscriptions_enabled():
    """The account is read again before the first subscription is disabled."""
    fake = FakeCallFire()
    await subscribe(fake, TEXTS, CALLS)

    async def delete_webhook():
        async with fake.client() as callfire:
            await callfire.webhooks.delete(fake.webhooks[0].id)

    # After the last change of the webhooks.
    fake.fail_next(*[Fault(hold=pass_on)] * 4, Fault(hold=delete_webhook))
    with pytest.raises(CliError, match=r"not all webhooks exist yet.*no subscription was disabled"):
        await migrate(fake)

    assert [subscription.enabled for subscription in fake.subscriptions] == [True, True]


async def test_a_subscription_that_was_deleted_meanwhile_counts_as_disabled():
    """It posts nothing."""
    fake = FakeCallFire()
    await subscribe(fake, TEXTS)

    fake.fail_next(*[Fault(hold=pass_on)] * 5, Fault(status=404))

    assert await migrate(fake) == 0


async def test_many_errors_stop_the_run(capsys):
    """More changes would fail for the same reason; no subscription is disabled."""
    fake = FakeCallFire()
    for number in range(30):
        await subscribe(fake, TEXTS, endpoint=f"https://example.com/{number}")
    fake.fail_next(*[Fault(hold=pass_on)] * 2, *[Fault(status=400)] * 30)

    assert await migrate(fake) == 1

    out = capsys.readouterr().out
    assert "failed; no subscription was disabled" in out
    assert 10 <= out.count("failed: ") < 20
    assert all(subscription.enabled for subscription in fake.subscriptions)


async def test_progress_is_printed_on_standard_error(capsys, monkeypatch):
    """One line for every 500 changes of a kind."""
    monkeypatch.setattr(_migrate, "_PROGRESS_STEP", 2)
    fake = FakeCallFire()
    await subscribe(fake, TEXTS, CALLS, TriggerEvent.INBOUND_TEXT_FINISHED)

    await migrate(fake)

    assert capsys.readouterr().err.splitlines() == ["webhooks created: 2 of 3", "subscriptions disabled: 2 of 3"]


async def test_rejected_credentials_are_raised():
    """So that the command exits with status 3."""
    fake = FakeCallFire()
    await subscribe(fake, TEXTS)
    fake.fail_next(*[Fault(hold=pass_on)] * 2, Fault(status=401))

    with pytest.raises(AuthenticationError):
        await migrate(fake)


# --- the command ------------------------------------------------------------------------------------------


@pytest.fixture
def run(account):
    def run(*arguments):
        urls = ("--base-url", account.base_url, "--webhooks-base-url", account.webhooks_base_url)
        return run_command("webhooks", "migrate", *urls, *arguments)

    return run


def test_command_replaces_the_subscriptions(run, account):
    """The notes say when the receiver may require signatures."""
    asyncio.run(subscribe(account.fake, TEXTS))
    planned, created = run(), run("--apply")
    replaced, again = run("--apply", "--disable-subscriptions"), run("--apply", "--disable-subscriptions")

    assert [result.status for result in (planned, created, replaced, again)] == [0, 0, 0, 0]
    assert "done; webhooks created: 1, updated: 0; subscriptions disabled: 0" in created.out
    assert "needs Receiver(..., require_signature=False)" in created.out
    assert "done; webhooks created: 0, updated: 0; subscriptions disabled: 1" in replaced.out
    assert "remove require_signature=False" in replaced.out
    assert again.out.splitlines()[-1] == "nothing to change"


def test_command_with_json(run, account, monkeypatch):
    """One document has the plan and the changes."""
    monkeypatch.delenv("CALLFIRE_SIGNING_SECRET")
    asyncio.run(subscribe(account.fake, TEXTS))
    account.faults.extend([None, None, Fault(status=400)])
    failed, done = run("--apply", "--json"), run("--apply", "--disable-subscriptions", "--json")

    (first,), (second,) = failed.items, done.items
    assert (failed.status, first["created"], len(first["errors"])) == (1, [], 1)
    assert first["errors"][0]["failed"].startswith("OutboundText to https://hooks.example.com/callfire/***")
    assert (done.status, second["created"]) == (0, [account.fake.webhooks[0].id])
    assert second["disabled"] == [account.fake.subscriptions[0].id]
    assert (len(second["plan"]["steps"]), len(second["plan"]["webhooks"])) == (1, 1)
    assert "CALLFIRE_SIGNING_SECRET is not set" in second["notes"][0]
    assert TOKEN not in failed.out + done.out


def test_a_failed_change_is_printed(run, account):
    """The status is 1; the line names the webhook without its token."""
    asyncio.run(subscribe(account.fake, TEXTS))
    account.faults.extend([None, None, Fault(status=400)])

    result = run("--apply", "--disable-subscriptions")

    assert (result.status, "failed: OutboundText to https://hooks.example.com/callfire/***: " in result.out) == (
        1,
        True,
    )
    assert account.fake.subscriptions[0].enabled
    assert TOKEN not in result.out


@pytest.mark.parametrize(
    "arguments",
    [["--disable-subscriptions"], ["--base-url", "http://127.0.0.1:9"], ["--webhooks-base-url", "http://127.0.0.1:9"]],
)
def test_wrong_usage_is_status_2(arguments):
    """Subscriptions are not disabled without --apply; both URLs are of one account."""
    assert run_command("webhooks", "migrate", *arguments).status == 2


# --- a large account --------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_an_account_with_the_maximum_of_subscriptions(capsys):
    """10,000 subscriptions of 1,000 endpoints, interrupted twice; the last run changes nothing."""
    fake = FakeCallFire()
    triggers = [trigger for trigger in TriggerEvent if trigger != TriggerEvent.UNDEFINED_EVENT]
    for number in range(10_000):
        fake._subscription_store.create(
            {
                "Endpoint": f"https://example.com/{number // 10}",
                "TriggerEvent": triggers[number % 7],
                "NotificationFormat": "JSON",
                **({"BroadcastId": "7"} if number % 10 > 6 else {}),
            }
        )
    options = MigrationOptions(apply=True, disable_subscriptions=True, allow_unfiltered=True)
    with unmeasured():
        # While webhooks are created, and while subscriptions are disabled.
        for position in (1500, 9000):
            fake.fail_next(*[Fault(hold=pass_on)] * position, *[Fault(status=500, carried_out=True)] * 12)
            assert await migrate(fake, options) == 1
            assert_replaced(fake)
            fake._faults.clear()

        assert await migrate(fake, options) == 0
        before = fake.webhooks, fake.subscriptions
        assert await migrate(fake, options) == 0

    assert (fake.webhooks, fake.subscriptions) == before
    assert len(fake.webhooks) == len({(webhook.callback, webhook.resource) for webhook in fake.webhooks}) == 7_000
    assert not any(subscription.enabled for subscription in fake.subscriptions)
    assert "webhooks created: 1000 of 7000" in capsys.readouterr().err
