"""`subscriptions`, with a fake CallFire on localhost."""

import pytest
from cli.command_runner import TOKEN, run_command
from engines.ports import reserve_port

from callfire_async.models import NotificationFormat, SubscriptionFilter, TriggerEvent
from callfire_async.testing import Fault

ENDPOINT = "https://hooks.example.com/callfire/{token}"
OLD_TOKEN = "previous-0123456789"
DECLARED = """\
endpoint = "https://hooks.example.com/callfire/{token}"

[[subscriptions]]
trigger_event = "OUTBOUND_TEXT_FINISHED"
notification_format = "JSON"
filter = { to_number = "67076:KEYWORD" }

[[subscriptions]]
trigger_event = "INBOUND_TEXT_FINISHED"
enabled = false
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "subscriptions.toml"
    path.write_text(DECLARED)
    return path


def test_create_fills_in_the_token(run, account):
    """The placeholder is replaced by the token of the environment."""
    created = run(
        *("subscriptions", "create", ENDPOINT, "OUTBOUND_TEXT_FINISHED", "--format", "JSON", "--disabled"),
        *("--broadcast-id", "12345", "--to-number", "12135551212", "--strict-ssl"),
    )

    (subscription,) = account.fake.subscriptions
    assert (created.status, created.out, created.err) == (0, f"created {subscription.id}\n", "")
    assert subscription.endpoint == f"https://hooks.example.com/callfire/{TOKEN}"
    assert subscription.filter == SubscriptionFilter(broadcast_id=12345, to_number="12135551212")
    assert (subscription.enabled, subscription.notification_format) == (False, NotificationFormat.JSON)


def test_output_is_masked(run):
    """Endpoints and numbers are masked, for people and for scripts."""
    assert run("subscriptions", "list").out == "no subscriptions\n"
    created = run("subscriptions", "create", ENDPOINT, "CAMPAIGN_STARTED", "--from-number", "12135551212", "--json")
    run("subscriptions", "create", "https://example.com/x", "CAMPAIGN_STOPPED")
    (id,) = (item["id"] for item in created.items)

    listed, one = run("subscriptions", "list"), run("subscriptions", "get", str(id))
    items, (item,) = run("subscriptions", "list", "--json").items, run("subscriptions", "get", str(id), "--json").items

    assert listed.out.splitlines()[1].split() == [
        str(id), "CAMPAIGN_STARTED", "XML", "True", "https://hooks.example.com/callfire/***", "from_number=***12",
    ]  # fmt: skip
    assert items[0] == item
    assert item["filter"]["from_number"] == "***12"
    assert item["endpoint"] == "https://hooks.example.com/callfire/***"
    assert "endpoint             https://hooks.example.com/callfire/***" in one.out
    assert "12135551212" not in listed.out + one.out


def test_update_and_delete(run, account):
    """A subscription can be changed and deleted."""
    run("subscriptions", "create", ENDPOINT, "CAMPAIGN_STARTED")
    (subscription,) = account.fake.subscriptions
    id = str(subscription.id)

    updated = run("subscriptions", "update", id, "--enabled", "--endpoint", "https://example.com/{token}")
    in_json = run("subscriptions", "update", id, "--disabled", "--json")
    (changed,) = account.fake.subscriptions
    deleted, again = run("subscriptions", "delete", id), run("subscriptions", "delete", id, "--json")

    assert (updated.out, in_json.items) == (f"updated {id}\n", [{"id": subscription.id, "changed": ["enabled"]}])
    assert (changed.endpoint, changed.enabled) == (f"https://example.com/{TOKEN}", False)
    assert (deleted.out, account.fake.subscriptions) == (f"deleted {id}\n", ())
    assert (again.status, again.out, "404" in again.err) == (1, "", True)


def test_delete_with_json(run, account):
    """With --json, delete prints one JSON document."""
    run("subscriptions", "create", ENDPOINT, "CAMPAIGN_STARTED")
    id = account.fake.subscriptions[0].id

    assert run("subscriptions", "delete", str(id), "--json").items == [{"id": id, "deleted": True}]


@pytest.mark.parametrize(
    "arguments",
    [
        ["list", "--base-url", "ftp://example.com"],
        ["get", "0"],
        ["update", "1"],
        ["create", "", "CAMPAIGN_STARTED"],
        ["create", "https://example.com?x/{token}", "CAMPAIGN_STARTED"],
        ["create", "https://example.com", "SOMETHING"],
        ["create", "https://example.com", "CAMPAIGN_STARTED", "--to-number", ""],
        ["update", "1", "--from-number", " "],
        ["apply", "subscriptions.toml", "--json"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_status_2(arguments):
    """Invalid arguments exit with status 2 before anything is sent."""
    assert run_command("subscriptions", *arguments).status == 2


def test_a_failed_connection_is_one_line_with_its_reason(monkeypatch):
    """The line has the host, the reason and the number of attempts; the status is 1."""
    monkeypatch.setenv("CALLFIRE_API_LOGIN", "login")
    monkeypatch.setenv("CALLFIRE_API_PASSWORD", "password")
    port = reserve_port()

    ended = run_command("subscriptions", "list", "--base-url", f"http://127.0.0.1:{port}")

    assert (ended.status, ended.err.count("\n")) == (1, 1)
    assert f"while connecting to 127.0.0.1:{port}: connection refused (attempt 4)" in ended.err


def test_missing_credentials_are_status_3(run, monkeypatch):
    """The error names the missing variable."""
    monkeypatch.delenv("CALLFIRE_API_PASSWORD")

    result = run("subscriptions", "list")

    assert (result.status, "CALLFIRE_API_PASSWORD" in result.err) == (3, True)


def test_rejected_credentials_are_status_3(run, monkeypatch):
    """Rejected credentials exit with status 3, and the password is not printed."""
    monkeypatch.setenv("CALLFIRE_API_PASSWORD", "open-sesame")

    result = run("subscriptions", "list", "--login", "someone")

    assert (result.status, "401" in result.err, "sesame" in result.err) == (3, True, False)


def test_missing_or_invalid_token_is_wrong_usage(run, monkeypatch):
    """An endpoint with a placeholder needs a valid token."""
    monkeypatch.setenv("CALLFIRE_TOKEN", "not/good")
    bad = run("subscriptions", "create", ENDPOINT, "CAMPAIGN_STARTED")
    monkeypatch.delenv("CALLFIRE_TOKEN")
    missing = run("subscriptions", "create", ENDPOINT, "CAMPAIGN_STARTED")

    assert (bad.status, missing.status, "CALLFIRE_TOKEN" in missing.err) == (2, 2, True)


def test_warning_is_printed_on_one_line(run):
    """A warning of the library is printed without a reference to a line of code."""
    result = run("subscriptions", "create", "http://example.com/x", "CAMPAIGN_STARTED")

    assert (result.status, result.err.startswith("warning: endpoint uses http://")) == (0, True)


def test_plan_is_read_only(run, account, file):
    """A plan is printed as a diff without tokens, or as one JSON document, and changes nothing."""
    shown, in_json = run("subscriptions", "plan", str(file)), run("subscriptions", "plan", str(file), "--json")

    assert shown.out.splitlines()[-1] == "2 to create"
    assert "+ OUTBOUND_TEXT_FINISHED to https://hooks.example.com/callfire/***" in shown.out
    (plan,) = in_json.items
    assert (plan["is_empty"], [spec["trigger_event"] for spec in plan["create"]], account.fake.subscriptions) == (
        False,
        ["OUTBOUND_TEXT_FINISHED", "INBOUND_TEXT_FINISHED"],
        (),
    )


def test_apply_is_idempotent(run, account, file):
    """The second apply of a file changes nothing and does not ask."""
    first = run("subscriptions", "apply", str(file), "--yes")
    second = run("subscriptions", "apply", str(file))

    assert (first.status, second.status, len(account.fake.subscriptions)) == (0, 0, 2)
    assert (first.out.splitlines()[-1], second.out.splitlines()[-1]) == ("done", "nothing to change")
    assert "2 unchanged" in second.out


@pytest.mark.parametrize(("answer", "created"), [("y\n", 2), ("n\n", 0), ("", 0)])
def test_apply_asks(run, account, file, answer, created):
    """Without --yes the changes need a confirmation."""
    result = run("subscriptions", "apply", str(file), input=answer)

    assert (result.status, len(account.fake.subscriptions)) == (0 if created else 1, created)


def test_prune_deletes_by_token(run, account, file, monkeypatch):
    """--prune deletes only subscriptions with one of your tokens."""
    monkeypatch.setenv("CALLFIRE_TOKEN", f"{TOKEN} {OLD_TOKEN}")
    run("subscriptions", "create", f"https://hooks.example.com/callfire/{OLD_TOKEN}", "CAMPAIGN_STARTED")
    run("subscriptions", "create", "https://hooks.example.com/callfire/another-one", "CAMPAIGN_STARTED")

    result = run("subscriptions", "apply", str(file), "--yes", "--prune", "--json")

    (applied,) = result.items
    assert (result.status, len(applied["ids"]), len(applied["plan"]["delete"]), applied["errors"]) == (0, 2, 1, [])
    assert sorted(subscription.trigger_event for subscription in account.fake.subscriptions) == [
        TriggerEvent.CAMPAIGN_STARTED,
        TriggerEvent.INBOUND_TEXT_FINISHED,
        TriggerEvent.OUTBOUND_TEXT_FINISHED,
    ]


def test_prune_needs_a_token(run, file, monkeypatch):
    """--prune without a token exits with status 2."""
    monkeypatch.delenv("CALLFIRE_TOKEN")

    result = run("subscriptions", "plan", str(file), "--prune")

    assert (result.status, "CALLFIRE_TOKEN" in result.err) == (2, True)


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_failed_change_is_reported(run, account, file, options):
    """A failed change is printed, the others are made, and the status is 1."""
    # The first two requests read the account: for the plan, and before the changes.
    account.faults.extend([None, None, Fault(status=400)])

    result = run("subscriptions", "apply", str(file), "--yes", *options)

    assert (result.status, "returned 400" in result.out, len(account.fake.subscriptions)) == (1, True, 1)


def test_conflicting_specs_are_wrong_usage(run, tmp_path):
    """Two specs for the same subscription exit with status 2."""
    path = tmp_path / "two.toml"
    item = "[[subscriptions]]\ntrigger_event = 'CAMPAIGN_STARTED'\nendpoint = 'https://example.com/x'\nenabled = "
    path.write_text(f"{item}true\n{item}false\n")

    assert run("subscriptions", "plan", str(path)).status == 2
