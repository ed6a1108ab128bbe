"""The tokens of one's own endpoints, which no command and no file has in it."""

import os

from callfire_async.cli._exit import WRONG_USE, CliError, usage_errors
from callfire_async.notifications.security.tokens import EndpointTokens

__all__ = ["PLACEHOLDER", "fill_in_token", "tokens_from_environment"]

#: What stands for the token at the end of an endpoint.
PLACEHOLDER = "/{token}"


def tokens_from_environment() -> EndpointTokens | None:
    """Return the tokens in the environment's ``CALLFIRE_TOKEN``: the current one, then previous ones."""
    words = os.environ.get("CALLFIRE_TOKEN", "").split()
    with usage_errors():
        return EndpointTokens(*words) if words else None


def fill_in_token(endpoint: str, tokens: EndpointTokens | None) -> str:
    """Put the current token in the place that an endpoint leaves for it."""
    if not endpoint.endswith(PLACEHOLDER):
        return endpoint
    if tokens is None:
        raise CliError("there is no token for this endpoint: set CALLFIRE_TOKEN in the environment", WRONG_USE)
    with usage_errors():
        return tokens.url(endpoint.removesuffix(PLACEHOLDER))
