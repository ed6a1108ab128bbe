"""Files of declared subscriptions: what they say, and where they are wrong."""

import pytest

from callfire_async.cli._exit import CliError
from callfire_async.cli._subscriptions_file import read_specs
from callfire_async.client.plan import SubscriptionSpec
from callfire_async.models import NotificationFormat, SubscriptionFilter, TriggerEvent
from callfire_async.notifications import EndpointTokens

TOKENS = EndpointTokens("0123456789abcdef0123")
ENDPOINT = "https://hooks.example.com/callfire"

YAML = """\
# What this account is to have.
endpoint: https://hooks.example.com/callfire/{token}
subscriptions:
  - trigger_event: OUTBOUND_TEXT_FINISHED
    notification_format: JSON
    filter: {broadcast_id: 12345, to_number: 67076:10, from_number: 0123}
  - trigger_event: CAMPAIGN_STARTED
    endpoint: somebody@example.com
    enabled: False
    non_strict_ssl: true
    filter:
      inbound: true
      batch_id:
"""
TOML = """\
endpoint = "https://hooks.example.com/callfire/{token}"

[[subscriptions]]
trigger_event = "OUTBOUND_TEXT_FINISHED"
notification_format = "JSON"
filter = { broadcast_id = 12345, to_number = "67076:10", from_number = "0123" }

[[subscriptions]]
trigger_event = "CAMPAIGN_STARTED"
endpoint = "somebody@example.com"
enabled = false
non_strict_ssl = true
filter.inbound = true
"""


def read(folder, text, name="subscriptions.yaml", tokens=TOKENS):
    (folder / name).write_text(text)
    return read_specs(folder / name, tokens)


@pytest.mark.parametrize(("name", "text"), [("a.yaml", YAML), ("a.yml", YAML), ("a.toml", TOML)])
def test_both_formats_say_the_same(tmp_path, name, text):
    """A number stays the text that it was, and no short code becomes a time."""
    assert read(tmp_path, text, name) == [
        SubscriptionSpec(
            TOKENS.url(ENDPOINT),
            TriggerEvent.OUTBOUND_TEXT_FINISHED,
            filter=SubscriptionFilter(broadcast_id=12345, to_number="67076:10", from_number="0123"),
            notification_format=NotificationFormat.JSON,
        ),
        SubscriptionSpec(
            "somebody@example.com",
            TriggerEvent.CAMPAIGN_STARTED,
            filter=SubscriptionFilter(inbound=True),
            enabled=False,
            non_strict_ssl=True,
        ),
    ]


ITEM = "subscriptions:\n  - endpoint: https://example.com/x\n    trigger_event: CAMPAIGN_STARTED\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("subscriptions: [", "not YAML: expected the node content, but found '<stream end>' at line 1, column 17"),
        ("subscriptions: \x01", "not YAML: characters"),
        ("[" * 3000, "not YAML: characters or a nesting"),
        ("", "names no subscriptions"),
        ("- a", ", line 1: must be a mapping"),
        ("subscriptions:", "names no subscriptions"),
        ("subscriptions: none", ", line 1: subscriptions must be a list"),
        ("subscriptions:\n- none", ", line 2: subscriptions[0] must be a mapping"),
        ("other: 1\nsubscriptions: []", ", line 1: other is unknown; there are endpoint, subscriptions"),
        ("subscriptions: []\nsubscriptions: []", ", line 2: subscriptions is there twice"),
        (ITEM + "    enable: true", ", line 4: subscriptions[0].enable is unknown; there are endpoint, trigger_event"),
        (ITEM + "    enabled: 1", ", line 4: subscriptions[0].enabled must be true or false"),
        (ITEM + "    filter: {to_number: [1]}", ", line 4: subscriptions[0].filter.to_number must be a text"),
        (ITEM + "    filter:\n      broadcast_id: x", ", line 5: subscriptions[0].filter.broadcast_id must be a whole"),
        (ITEM + "    filter: {broadcast_id: 0}", ", line 2: subscriptions[0] cannot be: "),
        (ITEM + f"    filter: {{broadcast_id: {'9' * 5000}}}", "[0].filter.broadcast_id must be a whole"),
        (ITEM.replace("STARTED", "BEGUN"), ", line 3: subscriptions[0].trigger_event must be one of UNDEFINED_EVENT"),
        (ITEM.replace("CAMPAIGN_STARTED", "''"), ", line 3: subscriptions[0].trigger_event must be one of"),
        ("subscriptions:\n- enabled: true", ", line 2: subscriptions[0] needs endpoint"),
        ("subscriptions:\n- endpoint: a@b.c", ", line 2: subscriptions[0] needs trigger_event"),
        ("subscriptions: [[[[[[1]]]]]]", "is nested too deeply"),
        ("subscriptions: &a [*a]", "is nested too deeply"),
    ],
)
def test_a_bad_file_says_what_and_where(tmp_path, text, problem):
    """The line, where the parser knows it, and the name of what is wrong."""
    with pytest.raises(CliError) as ended:
        read(tmp_path, text)

    assert (ended.value.status, problem in str(ended.value)) == (2, True), str(ended.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("subscriptions = [", "not TOML: Invalid value (at end of document)"),
        (f"subscriptions = [{'9' * 5000}]", "not TOML: Exceeds the limit"),
        ("subscriptions = [{trigger_event = 1.5}]", "subscriptions[0].trigger_event must be a text"),
        ("subscriptions = [{enabled = true, endpoint = true}]", "subscriptions[0].endpoint must be a text"),
    ],
)
def test_a_bad_file_of_toml_says_what(tmp_path, text, problem):
    """Its parser knows the place of what is no TOML only."""
    with pytest.raises(CliError) as ended:
        read(tmp_path, text, "a.toml")

    assert (ended.value.status, problem in str(ended.value)) == (2, True), str(ended.value)


def test_an_endpoint_that_wants_a_token_says_so_with_its_line(tmp_path):
    """There is none to put there."""
    with pytest.raises(CliError, match=r"line 4: subscriptions\[0\] cannot be: there is no token .* CALLFIRE_TOKEN"):
        read(tmp_path, YAML, tokens=None)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    """Because it is not there, or is no text."""
    (tmp_path / "latin").write_bytes(b"\xff\xfe\xfd")

    with pytest.raises(CliError, match="missing: cannot be read: No such file"):
        read_specs(tmp_path / "missing", None)
    with pytest.raises(CliError, match="latin: cannot be read: not UTF-8"):
        read_specs(tmp_path / "latin", None)
