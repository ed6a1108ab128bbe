"""Webhooks files: their content, and the errors in them."""

import pytest

from callfire_async import WebhookEvent, WebhookResource, WebhookSpec
from callfire_async.cli._exit import CliError
from callfire_async.cli._webhooks_file import read_webhook_specs
from callfire_async.notifications import EndpointTokens

TOKENS = EndpointTokens("0123456789abcdef0123")
CALLBACK = "https://hooks.example.com/callfire"
SECRET = "a-signing-secret-of-the-tests"

FILE = """\
# The webhooks of this account.
callback = "https://hooks.example.com/callfire/{token}"

[[webhooks]]
resource = "outboundtext"
name = "finished texts"

[[webhooks]]
resource = "CallBroadcast"
events = ["Started", "finished", "SomethingNew"]
callback = "https://example.com/other"
enabled = false
single_use = true
non_strict_ssl = true
"""
ITEM = "[[webhooks]]\ncallback = 'https://example.com/x'\nresource = 'InboundText'\n"


def read(directory, text, tokens=TOKENS):
    path = directory / "webhooks.toml"
    path.write_text(text)
    return read_webhook_specs(path, tokens)


@pytest.mark.parametrize("secret", [None, SECRET])
def test_file_is_read(tmp_path, monkeypatch, secret):
    """Each table is a spec with the secret of the environment; names are read without case, and new ones are kept."""
    monkeypatch.setenv("CALLFIRE_SIGNING_SECRET", secret or "")

    assert read(tmp_path, FILE) == [
        WebhookSpec(TOKENS.url(CALLBACK), WebhookResource.OUTBOUND_TEXT, name="finished texts", secret=secret),
        WebhookSpec(
            "https://example.com/other",
            WebhookResource.CALL_BROADCAST,
            events=(WebhookEvent.STARTED, WebhookEvent.FINISHED, WebhookEvent("SomethingNew")),
            enabled=False,
            secret=secret,
            single_use=True,
            non_strict_ssl=True,
        ),
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("webhooks = [", "invalid TOML: Invalid value (at end of document)"),
        ("", "missing key 'webhooks' (an array of tables)"),
        ("webhooks = 'none'", "webhooks must be an array"),
        ("endpoint = 1\nwebhooks = []", "endpoint is unknown; expected one of callback, webhooks"),
        (ITEM + "filter = {}", "webhooks[0].filter is unknown; expected one of callback, resource"),
        (ITEM + "secret = 'x'", "webhooks[0].secret must not be in a file: set CALLFIRE_SIGNING_SECRET"),
        (ITEM + "events = 'Finished'", "webhooks[0].events must be an array"),
        (ITEM + "events = ['']", "webhooks[0].events[0] must not be empty"),
        (ITEM + "events = [true]", "webhooks[0].events[0] must be a string"),
        (ITEM + "enabled = 1", "webhooks[0].enabled must be true or false"),
        ("[[webhooks]]\nresource = 'InboundText'", "webhooks[0] needs callback"),
        ("[[webhooks]]\ncallback = 'https://example.com'", "webhooks[0] needs resource"),
        ("[[webhooks]]\nresource = ''", "webhooks[0].resource must not be empty"),
        (ITEM.replace("https://example.com/x", ""), "webhooks[0] is not valid: callback"),
        (ITEM.replace("InboundText", "SomethingNew"), "webhooks[0] is not valid: "),
    ],
)
def test_error_names_file_and_key(tmp_path, text, problem):
    """An error names the file and the path of keys."""
    with pytest.raises(CliError) as raised:
        read(tmp_path, text)

    assert raised.value.status == 2
    assert str(raised.value).startswith(f"{tmp_path / 'webhooks.toml'}: {problem}")


def test_placeholder_without_token_is_an_error(tmp_path):
    """A callback with a placeholder needs a token."""
    with pytest.raises(CliError, match=r"webhooks\[0\] is not valid: endpoint contains {token}: set CALLFIRE_TOKEN"):
        read(tmp_path, FILE, tokens=None)
