"""Subscriptions on the command line, against a CallFire on loopback."""

import pytest
from cli.typing_commands import TOKEN, typed

from callfire_async.models import NotificationFormat, SubscriptionFilter, TriggerEvent
from callfire_async.testing import Fault

ENDPOINT = "https://hooks.example.com/callfire/{token}"
OLD_TOKEN = "previous-0123456789"
DECLARED = """\
endpoint: https://hooks.example.com/callfire/{token}
subscriptions:
  - trigger_event: OUTBOUND_TEXT_FINISHED
    notification_format: JSON
    filter: {to_number: 67076:KEYWORD}
  - trigger_event: INBOUND_TEXT_FINISHED
    enabled: false
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "subscriptions.yaml"
    path.write_text(DECLARED)
    return path


def test_an_endpoint_is_subscribed_with_the_token_of_the_environment(run, account):
    """No command and no screen has the token."""
    created = run(
        *("subscriptions", "create", ENDPOINT, "OUTBOUND_TEXT_FINISHED", "--format", "JSON", "--disabled"),
        *("--broadcast-id", "12345", "--to-number", "12135551212", "--strict-ssl"),
    )

    (made,) = account.fake.subscriptions
    assert (created.status, created.out, created.err) == (0, f"created {made.id}\n", "")
    assert made.endpoint == f"https://hooks.example.com/callfire/{TOKEN}"
    assert made.filter == SubscriptionFilter(broadcast_id=12345, to_number="12135551212")
    assert (made.enabled, made.notification_format) == (False, NotificationFormat.JSON)


def test_what_a_list_shows_is_masked(run):
    """Endpoint and numbers, as a repr has them; for people and for scripts."""
    assert run("subscriptions", "list").out == "no subscriptions\n"
    made = run("subscriptions", "create", ENDPOINT, "CAMPAIGN_STARTED", "--from-number", "12135551212", "--json")
    run("subscriptions", "create", "https://example.com/x", "CAMPAIGN_STOPPED")
    (id,) = (item["id"] for item in made.items)

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


def test_a_subscription_is_changed_and_deleted(run, account):
    """One after the other, each with its own line."""
    run("subscriptions", "create", ENDPOINT, "CAMPAIGN_STARTED")
    (made,) = account.fake.subscriptions
    id = str(made.id)

    updated = run("subscriptions", "update", id, "--enabled", "--endpoint", "https://example.com/{token}")
    in_json = run("subscriptions", "update", id, "--disabled", "--json")
    (changed,) = account.fake.subscriptions
    deleted, again = run("subscriptions", "delete", id), run("subscriptions", "delete", id, "--json")

    assert (updated.out, in_json.items) == (f"updated {id}\n", [{"id": made.id, "changed": ["enabled"]}])
    assert (changed.endpoint, changed.enabled) == (f"https://example.com/{TOKEN}", False)
    assert (deleted.out, account.fake.subscriptions) == (f"deleted {id}\n", ())
    assert (again.status, again.out, "404" in again.err) == (1, "", True)


def test_deleting_can_be_read_by_a_script(run, account):
    """One JSON document."""
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
        ["apply", "subscriptions.yaml", "--json"],
    ],
    ids=" ".join,
)
def test_wrong_use_is_status_2(arguments):
    """Before anything is sent."""
    assert typed("subscriptions", *arguments).status == 2


def test_missing_credentials_are_status_3(run, monkeypatch):
    """The line says which variable is missing."""
    monkeypatch.delenv("CALLFIRE_API_PASSWORD")

    ended = run("subscriptions", "list")

    assert (ended.status, "CALLFIRE_API_PASSWORD" in ended.err) == (3, True)


def test_refused_credentials_are_status_3(run, monkeypatch):
    """Whichever of them is wrong; the password is not shown."""
    monkeypatch.setenv("CALLFIRE_API_PASSWORD", "open-sesame")

    ended = run("subscriptions", "list", "--login", "somebody")

    assert (ended.status, "401" in ended.err, "sesame" in ended.err) == (3, True, False)


def test_a_missing_or_bad_token_is_wrong_use(run, monkeypatch):
    """Where an endpoint has a place for one."""
    monkeypatch.setenv("CALLFIRE_TOKEN", "not/good")
    bad = run("subscriptions", "create", ENDPOINT, "CAMPAIGN_STARTED")
    monkeypatch.delenv("CALLFIRE_TOKEN")
    missing = run("subscriptions", "create", ENDPOINT, "CAMPAIGN_STARTED")

    assert (bad.status, missing.status, "CALLFIRE_TOKEN" in missing.err) == (2, 2, True)


def test_a_warning_of_the_library_is_a_line(run):
    """Not one that points at a line of code."""
    ended = run("subscriptions", "create", "http://example.com/x", "CAMPAIGN_STARTED")

    assert (ended.status, ended.err.startswith("warning: endpoint uses http://")) == (0, True)


def test_a_plan_changes_nothing(run, account, file):
    """It reads like a diff, and holds no token; for a script it is one JSON document."""
    shown, in_json = run("subscriptions", "plan", str(file)), run("subscriptions", "plan", str(file), "--json")

    assert shown.out.splitlines()[-1] == "2 to create"
    assert "+ OUTBOUND_TEXT_FINISHED to https://hooks.example.com/callfire/***" in shown.out
    (plan,) = in_json.items
    assert (plan["is_empty"], [spec["trigger_event"] for spec in plan["create"]], account.fake.subscriptions) == (
        False,
        ["OUTBOUND_TEXT_FINISHED", "INBOUND_TEXT_FINISHED"],
        (),
    )


def test_a_file_is_applied_once(run, account, file):
    """The second time there is nothing to do, and nobody is asked."""
    first = run("subscriptions", "apply", str(file), "--yes")
    second = run("subscriptions", "apply", str(file))

    assert (first.status, second.status, len(account.fake.subscriptions)) == (0, 0, 2)
    assert (first.out.splitlines()[-1], second.out.splitlines()[-1]) == ("done", "nothing differs")
    assert "2 unchanged" in second.out


@pytest.mark.parametrize(("answer", "made"), [("y\n", 2), ("n\n", 0), ("", 0)])
def test_whoever_applies_is_asked(run, account, file, answer, made):
    """No answer is a no."""
    ended = run("subscriptions", "apply", str(file), input=answer)

    assert (ended.status, len(account.fake.subscriptions)) == (0 if made else 1, made)


def test_pruning_goes_by_the_token(run, account, file, monkeypatch):
    """What has one of the tokens and is not in the file goes; what is another's stays."""
    monkeypatch.setenv("CALLFIRE_TOKEN", f"{TOKEN} {OLD_TOKEN}")
    run("subscriptions", "create", f"https://hooks.example.com/callfire/{OLD_TOKEN}", "CAMPAIGN_STARTED")
    run("subscriptions", "create", "https://hooks.example.com/callfire/another-one", "CAMPAIGN_STARTED")

    ended = run("subscriptions", "apply", str(file), "--yes", "--prune", "--json")

    (applied,) = ended.items
    assert (ended.status, len(applied["ids"]), len(applied["plan"]["delete"]), applied["errors"]) == (0, 2, 1, [])
    assert sorted(one.trigger_event for one in account.fake.subscriptions) == [
        TriggerEvent.CAMPAIGN_STARTED,
        TriggerEvent.INBOUND_TEXT_FINISHED,
        TriggerEvent.OUTBOUND_TEXT_FINISHED,
    ]


def test_pruning_without_a_token_is_refused(run, file, monkeypatch):
    """It would delete nothing."""
    monkeypatch.delenv("CALLFIRE_TOKEN")

    ended = run("subscriptions", "plan", str(file), "--prune")

    assert (ended.status, "CALLFIRE_TOKEN" in ended.err) == (2, True)


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_what_cannot_be_applied_is_named(run, account, file, options):
    """The rest is done; status 1."""
    # The account is read for the plan, and once more before anything is made.
    account.faults.extend([None, None, Fault(status=400)])

    ended = run("subscriptions", "apply", str(file), "--yes", *options)

    assert (ended.status, "returned 400" in ended.out, len(account.fake.subscriptions)) == (1, True, 1)


def test_two_specs_of_one_subscription_are_wrong_use(run, tmp_path):
    """They say different things."""
    path = tmp_path / "two.yaml"
    item = "  - trigger_event: CAMPAIGN_STARTED\n    endpoint: https://example.com/x\n    enabled: "
    path.write_text(f"subscriptions:\n{item}true\n{item}false\n")

    assert run("subscriptions", "plan", str(path)).status == 2
