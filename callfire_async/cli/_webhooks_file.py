"""Read the TOML file that declares the webhooks of an account."""

from pathlib import Path

from callfire_async.cli._exit import CliError
from callfire_async.cli._subscriptions_file import Node, read_boolean, read_fields, read_root, read_text
from callfire_async.cli._tokens import fill_in_token, signing_secret
from callfire_async.client.webhook_plan import WebhookSpec
from callfire_async.models import WebhookEvent, WebhookResource
from callfire_async.notifications.security.tokens import EndpointTokens

__all__ = ["read_webhook_specs"]


def read_webhook_specs(path: Path, tokens: EndpointTokens | None) -> list[WebhookSpec]:
    """
    Read a file. Each webhook gets the secret in ``CALLFIRE_SIGNING_SECRET``, if there is one.

    Args:
        path: A TOML file, whose name ends with ``.toml``.
        tokens: The tokens for ``{token}`` at the end of a callback.

    Raises:
        CliError: The file cannot be read, or a value in it is not valid.
    """
    default, items = read_root(path, "callback", "webhooks")
    return [_read_spec(item, default, tokens) for item in items]


def _read_events(node: Node) -> tuple[WebhookEvent, ...]:
    return tuple(WebhookEvent(_read_word(item)) for item in node.items())


def _read_resource(node: Node) -> WebhookResource:
    return WebhookResource(_read_word(node))


def _read_word(node: Node) -> str:
    return read_text(node) or node.fail("must not be empty")


def _refuse_secret(node: Node) -> None:
    node.fail("must not be in a file: set CALLFIRE_SIGNING_SECRET in the environment")


_SPEC_FIELDS = {
    "callback": read_text,
    "resource": _read_resource,
    "events": _read_events,
    "name": read_text,
    "enabled": read_boolean,
    "single_use": read_boolean,
    "non_strict_ssl": read_boolean,
    "secret": _refuse_secret,
}


def _read_spec(node: Node, callback: Node | None, tokens: EndpointTokens | None) -> WebhookSpec:
    values = read_fields(node, _SPEC_FIELDS)
    if callback:
        values.setdefault("callback", read_text(callback))
    for name in ("callback", "resource"):
        if name not in values:
            node.fail(f"needs {name}")
    try:
        values["callback"] = fill_in_token(values["callback"], tokens)
        return WebhookSpec(**values, secret=signing_secret())
    except (ValueError, CliError) as error:
        node.fail(f"is not valid: {error}")
