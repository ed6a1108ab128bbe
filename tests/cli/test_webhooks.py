"""`webhooks`, with a fake CallFire on localhost."""

from datetime import datetime

import pytest
from cli.command_runner import TOKEN, run_command

from callfire_async import WebhookEvent, WebhookResource
from callfire_async.testing import Fault

CALLBACK = "https://hooks.example.com/callfire/{token}"
OLD_TOKEN = "previous-0123456789"
SECRET = "a-signing-secret-of-the-tests"
DECLARED = """\
callback = "https://hooks.example.com/callfire/{token}"

[[webhooks]]
resource = "OutboundText"
name = "finished texts"

[[webhooks]]
resource = "CallBroadcast"
events = ["Started"]
enabled = false
"""


@pytest.fixture
def run(account, monkeypatch):
    """Run commands of the group on the fake account, without a signing secret."""
    monkeypatch.delenv("CALLFIRE_SIGNING_SECRET", raising=False)

    def run(*arguments, **options):
        return run_command("webhooks", *arguments, "--webhooks-base-url", account.webhooks_base_url, **options)

    return run


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "webhooks.toml"
    path.write_text(DECLARED)
    return path


# --- single webhooks --------------------------------------------------------------------------------------


def test_create_fills_in_the_token_and_the_secret(run, account, monkeypatch):
    """Both are from the environment; the secret is not printed."""
    monkeypatch.setenv("CALLFIRE_SIGNING_SECRET", SECRET)
    created = run(
        *("create", CALLBACK, "textbroadcast", "--event", "Started", "--event", "finished", "--name", "campaigns"),
        *("--disabled", "--single-use", "--expires-at", "2030-01-31", "--strict-ssl", "--fields", "id"),
    )

    (webhook,) = account.fake.webhooks
    assert (created.status, created.out, created.err) == (0, f"created {webhook.id}\n", "")
    assert webhook.callback == f"https://hooks.example.com/callfire/{TOKEN}"
    assert (webhook.resource, webhook.events) == (
        WebhookResource.TEXT_BROADCAST,
        (WebhookEvent.STARTED, WebhookEvent.FINISHED),
    )
    assert (webhook.name, webhook.enabled, webhook.secret, webhook.single_use) == ("campaigns", False, SECRET, True)
    assert (webhook.non_strict_ssl, webhook.fields) == (False, "id")
    assert webhook.expires_at == datetime(2030, 1, 31).astimezone()


def test_create_without_a_secret_says_so(run, account):
    """All events of the resource are the default."""
    created, in_json = run("create", CALLBACK, "OutboundText"), run("create", CALLBACK, "InboundText", "--json")

    first, second = account.fake.webhooks
    assert created.out == f"created {first.id}; not signed: CALLFIRE_SIGNING_SECRET is not set\n"
    assert in_json.items == [{"id": second.id, "location": None, "signed": False}]
    assert (first.events, first.secret) == ((WebhookEvent.FINISHED,), None)


def test_output_is_masked(run, account, monkeypatch):
    """Callbacks and secrets are masked, for people and for scripts."""
    assert run("list").out == "no webhooks\n"
    monkeypatch.setenv("CALLFIRE_SIGNING_SECRET", SECRET)
    run("create", CALLBACK, "CallBroadcast", "--name", "calls")
    run("create", CALLBACK, "InboundText", "--disabled")
    id = account.fake.webhooks[0].id

    listed, one = run("list"), run("get", str(id))
    items, (item,) = run("list", "--json").items, run("get", str(id), "--json").items

    assert listed.out.splitlines()[1].split() == [
        *(str(id), "CallBroadcast", "Started,", "Stopped,", "Finished"),
        *("True", "https://hooks.example.com/callfire/***", "calls"),
    ]
    assert (items[0], item["callback"]) == (item, "https://hooks.example.com/callfire/***")
    assert "events          Started, Stopped, Finished" in one.out
    for text in (listed.out, one.out, str(items)):
        assert SECRET not in text
        assert TOKEN not in text


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (["--name", "calls"], ["CallBroadcast"]),
        (["--resource", "inboundtext"], ["InboundText"]),
        (["--event", "Started"], ["CallBroadcast"]),
        (["--enabled"], ["CallBroadcast"]),
        (["--disabled"], ["InboundText"]),
    ],
)
def test_list_has_filters(run, filters, found):
    """CallFire selects the webhooks."""
    run("create", CALLBACK, "CallBroadcast", "--name", "calls")
    run("create", CALLBACK, "InboundText", "--disabled")

    assert [item["resource"] for item in run("list", *filters, "--json").items] == found


def test_update_and_delete(run, account):
    """A webhook can be changed and deleted."""
    run("create", CALLBACK, "OutboundText")
    (webhook,) = account.fake.webhooks
    id = str(webhook.id)

    updated = run(
        "update", id, "--callback", "https://example.com/{token}", "--name", "new", "--resource", "InboundText"
    )
    in_json = run("update", id, "--disabled", "--json")
    (changed,) = account.fake.webhooks
    deleted, again = run("delete", id), run("delete", id, "--json")

    assert (updated.out, in_json.items) == (f"updated {id}\n", [{"id": webhook.id, "changed": ["enabled"]}])
    assert (changed.callback, changed.name, changed.enabled, changed.resource) == (
        f"https://example.com/{TOKEN}",
        "new",
        False,
        WebhookResource.INBOUND_TEXT,
    )
    assert (deleted.out, account.fake.webhooks) == (f"deleted {id}\n", ())
    assert (again.status, again.out, "404" in again.err) == (1, "", True)


def test_delete_with_json(run, account):
    """With --json, delete prints one JSON document."""
    run("create", CALLBACK, "OutboundText")
    id = account.fake.webhooks[0].id

    assert run("delete", str(id), "--json").items == [{"id": id, "deleted": True}]


def test_update_sends_the_secret_on_request(run, account, monkeypatch):
    """A change of something else does not; without a secret in the environment the option is wrong usage."""
    run("create", CALLBACK, "OutboundText")
    id = str(account.fake.webhooks[0].id)
    without = run("update", id, "--secret")
    monkeypatch.setenv("CALLFIRE_SIGNING_SECRET", f"{SECRET} an-older-signing-secret")
    run("update", id, "--name", "new")
    kept = account.fake.webhooks[0].secret
    sent = run("update", id, "--secret")

    assert (without.status, "CALLFIRE_SIGNING_SECRET" in without.err) == (2, True)
    assert (kept, account.fake.webhooks[0].secret, sent.out) == (None, SECRET, f"updated {id}\n")


def test_resources_are_listed(run):
    """With their events."""
    shown, items = run("resources"), run("resources", "--json").items

    assert "CallBroadcast" in shown.out
    assert "Started, Stopped, Finished" in shown.out
    assert {"resource": "InboundText", "events": ["Finished"]} in items


@pytest.mark.parametrize(
    "arguments",
    [
        ["list", "--webhooks-base-url", "ftp://example.com"],
        ["list", "--resource", ""],
        ["get", "0"],
        ["update", "1"],
        ["create", "", "OutboundText"],
        ["create", "https://example.com/x", ""],
        ["create", "https://example.com/x", "SomethingNew"],
        ["create", "https://example.com/x", "OutboundText", "--event", ""],
        ["create", "https://example.com/x", "OutboundText", "--expires-at", "0001-01-01"],
        ["apply", "webhooks.toml", "--json"],
        ["plan", "webhooks.toml", "--resend-secrets"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_status_2(arguments, monkeypatch):
    """Invalid arguments exit with status 2 before anything is sent."""
    monkeypatch.delenv("CALLFIRE_SIGNING_SECRET", raising=False)

    assert run_command("webhooks", *arguments).status == 2


@pytest.mark.parametrize(("words", "found"), [("outboundt", "OutboundText"), ("f", "Finished")])
def test_resources_and_events_are_completed(words, found):
    """Without regard to case; other values can be given too."""
    from callfire_async.cli.commands import webhooks

    complete = webhooks._complete_resource if found.startswith("Out") else webhooks._complete_event
    assert found in complete(words)
    assert complete("none") == []


# --- webhooks file ----------------------------------------------------------------------------------------


def test_plan_is_read_only(run, account, file):
    """A plan is printed as a diff without tokens, or as one JSON document, and changes nothing."""
    shown, in_json = run("plan", str(file)), run("plan", str(file), "--json")

    assert shown.out.splitlines()[-1] == "2 to create"
    assert TOKEN not in shown.out
    (plan,) = in_json.items
    assert (plan["is_empty"], [spec["resource"] for spec in plan["create"]], account.fake.webhooks) == (
        False,
        ["OutboundText", "CallBroadcast"],
        (),
    )


def test_apply_is_idempotent(run, account, file):
    """The second apply of a file changes nothing and does not ask."""
    first = run("apply", str(file), "--yes")
    second = run("apply", str(file))

    assert (first.status, second.status, len(account.fake.webhooks)) == (0, 0, 2)
    assert (first.out.splitlines()[-1], second.out.splitlines()[-1]) == ("done", "nothing to change")
    assert "2 unchanged" in second.out


@pytest.mark.parametrize(("answer", "created"), [("y\n", 2), ("n\n", 0), ("", 0)])
def test_apply_asks(run, account, file, answer, created):
    """Without --yes the changes need a confirmation."""
    result = run("apply", str(file), input=answer)

    assert (result.status, len(account.fake.webhooks)) == (0 if created else 1, created)


def test_secrets_are_sent_again_on_request(run, account, file, monkeypatch):
    """A new secret is not a difference, because CallFire is not known to return it."""
    monkeypatch.setenv("CALLFIRE_SIGNING_SECRET", "an-older-signing-secret")
    run("apply", str(file), "--yes")
    monkeypatch.setenv("CALLFIRE_SIGNING_SECRET", SECRET)
    unchanged = run("apply", str(file), "--yes")
    resent = run("apply", str(file), "--yes", "--resend-secrets")

    assert (unchanged.out.splitlines()[-1], resent.status) == ("nothing to change", 0)
    assert {webhook.secret for webhook in account.fake.webhooks} == {SECRET}
    assert SECRET not in resent.out


def test_prune_deletes_by_token(run, account, file, monkeypatch):
    """--prune deletes only webhooks with one of your tokens."""
    monkeypatch.setenv("CALLFIRE_TOKEN", f"{TOKEN} {OLD_TOKEN}")
    run("create", f"https://hooks.example.com/callfire/{OLD_TOKEN}", "InboundCall")
    run("create", "https://hooks.example.com/callfire/another-one", "InboundCall")

    result = run("apply", str(file), "--yes", "--prune", "--json")

    (applied,) = result.items
    assert (result.status, len(applied["ids"]), len(applied["plan"]["delete"]), applied["errors"]) == (0, 2, 1, [])
    assert sorted(webhook.resource for webhook in account.fake.webhooks) == [
        WebhookResource.CALL_BROADCAST,
        WebhookResource.INBOUND_CALL,
        WebhookResource.OUTBOUND_TEXT,
    ]


def test_prune_needs_a_token(run, file, monkeypatch):
    """--prune without a token exits with status 2."""
    monkeypatch.delenv("CALLFIRE_TOKEN")

    result = run("plan", str(file), "--prune")

    assert (result.status, "CALLFIRE_TOKEN" in result.err) == (2, True)


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_failed_change_is_reported(run, account, file, options):
    """A failed change is printed, the others are made, and the status is 1."""
    # The first two requests read the account: for the plan, and before the changes.
    account.faults.extend([None, None, Fault(status=400)])

    result = run("apply", str(file), "--yes", *options)

    assert (result.status, "400" in result.out, len(account.fake.webhooks)) == (1, True, 1)
