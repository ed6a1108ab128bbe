"""Subscriptions files: their content, and the errors in them."""

import pytest

from callfire_async.cli._exit import CliError
from callfire_async.cli._subscriptions_file import read_specs
from callfire_async.client.plan import SubscriptionSpec
from callfire_async.models import NotificationFormat, SubscriptionFilter, TriggerEvent
from callfire_async.notifications import EndpointTokens

TOKENS = EndpointTokens("0123456789abcdef0123")
ENDPOINT = "https://hooks.example.com/callfire"

FILE = """\
# The subscriptions of this account.
endpoint = "https://hooks.example.com/callfire/{token}"

[[subscriptions]]
trigger_event = "OUTBOUND_TEXT_FINISHED"
notification_format = "JSON"
filter = { broadcast_id = 12345, to_number = "67076:10", from_number = 12135551212 }

[[subscriptions]]
trigger_event = "CAMPAIGN_STARTED"
endpoint = "someone@example.com"
enabled = false
non_strict_ssl = true
filter.inbound = true
"""


def read(directory, text, tokens=TOKENS):
    path = directory / "subscriptions.toml"
    path.write_text(text)
    return read_specs(path, tokens)


def test_file_is_read(tmp_path):
    """Each table is a spec; the endpoint of the file is the default, and a number may be an integer."""
    assert read(tmp_path, FILE) == [
        SubscriptionSpec(
            TOKENS.url(ENDPOINT),
            TriggerEvent.OUTBOUND_TEXT_FINISHED,
            filter=SubscriptionFilter(broadcast_id=12345, to_number="67076:10", from_number="12135551212"),
            notification_format=NotificationFormat.JSON,
        ),
        SubscriptionSpec(
            "someone@example.com",
            TriggerEvent.CAMPAIGN_STARTED,
            filter=SubscriptionFilter(inbound=True),
            enabled=False,
            non_strict_ssl=True,
        ),
    ]


ITEM = "[[subscriptions]]\nendpoint = 'https://example.com/x'\ntrigger_event = 'CAMPAIGN_STARTED'\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("subscriptions = [", "invalid TOML: Invalid value (at end of document)"),
        ("subscriptions = \x01", "invalid TOML: Invalid value (at line 1, column 17)"),
        ("subscriptions = " + "[" * 3000, "invalid TOML: nested too deeply"),
        (f"subscriptions = [{'9' * 5000}]", "invalid TOML: Exceeds the limit"),
        ("subscriptions = []\nsubscriptions = []", "invalid TOML: Cannot overwrite a value"),
        ("", "missing key 'subscriptions' (an array of tables)"),
        ("endpoint = 'a@b.c'", "missing key 'subscriptions' (an array of tables)"),
        ("subscriptions = 'none'", "subscriptions must be an array"),
        ("subscriptions = ['none']", "subscriptions[0] must be a table"),
        ("other = 1\nsubscriptions = []", "other is unknown; expected one of endpoint, subscriptions"),
        (ITEM + "enable = true", "subscriptions[0].enable is unknown; expected one of endpoint, trigger_event"),
        (ITEM + "enabled = 1", "subscriptions[0].enabled must be true or false"),
        (ITEM + "filter = { to_number = [1] }", "subscriptions[0].filter.to_number must be a string"),
        (ITEM + "filter = { broadcast_id = 'x' }", "subscriptions[0].filter.broadcast_id must be an integer"),
        (ITEM + "filter = { broadcast_id = true }", "subscriptions[0].filter.broadcast_id must be an integer"),
        (ITEM + "filter = { broadcast_id = 0 }", "subscriptions[0] is not valid: "),
        (ITEM + "filter = { to_number = '' }", "subscriptions[0].filter is not valid: to_number must not be empty"),
        (ITEM + "filter = 1", "subscriptions[0].filter must be a table"),
        (ITEM + ITEM.replace("STARTED", "BEGUN"), "subscriptions[1].trigger_event must be one of UNDEFINED_EVENT"),
        (ITEM.replace("CAMPAIGN_STARTED", ""), "subscriptions[0].trigger_event must be one of"),
        ("subscriptions = [{ trigger_event = 1.5 }]", "subscriptions[0].trigger_event must be a string"),
        ("subscriptions = [{ enabled = true, endpoint = true }]", "subscriptions[0].endpoint must be a string"),
        ("subscriptions = [{ enabled = true }]", "subscriptions[0] needs endpoint"),
        ("subscriptions = [{ endpoint = 'a@b.c' }]", "subscriptions[0] needs trigger_event"),
        (ITEM + "[[subscriptions.filter]]", "subscriptions[0].filter must be a table"),
        ("subscriptions = [{ filter = 2026-01-31 }]", "subscriptions[0].filter must be a table"),
        ("subscriptions = [{ endpoint = 2026-01-31 }]", "subscriptions[0].endpoint must be a string"),
    ],
)
def test_error_names_file_and_key(tmp_path, text, problem):
    """An error names the file and the path of keys, or the position in a file that is not TOML."""
    with pytest.raises(CliError) as raised:
        read(tmp_path, text)

    assert raised.value.status == 2
    assert str(raised.value).startswith(f"{tmp_path / 'subscriptions.toml'}: {problem}")


def test_placeholder_without_token_is_an_error(tmp_path):
    """An endpoint with a placeholder needs a token."""
    with pytest.raises(
        CliError, match=r"subscriptions\[0\] is not valid: endpoint contains {token}: set CALLFIRE_TOKEN"
    ):
        read(tmp_path, FILE, tokens=None)


def test_unreadable_file_is_an_error(tmp_path):
    """A file that does not exist, or is not UTF-8, is named."""
    (tmp_path / "latin.toml").write_bytes(b"\xff\xfe\xfd")

    with pytest.raises(CliError, match=r"missing\.toml: cannot be read: No such file"):
        read_specs(tmp_path / "missing.toml", None)
    with pytest.raises(CliError, match=r"latin\.toml: cannot be read: not UTF-8"):
        read_specs(tmp_path / "latin.toml", None)


@pytest.mark.parametrize("name", ["subscriptions.yaml", "subscriptions", "subscriptions.toml.bak"])
def test_other_format_is_wrong_usage(tmp_path, name):
    """A file whose name does not end with .toml exits with status 2."""
    (tmp_path / name).write_text(FILE)

    with pytest.raises(CliError, match=r": must be a TOML file whose name ends with \.toml$") as raised:
        read_specs(tmp_path / name, TOKENS)

    assert raised.value.status == 2
