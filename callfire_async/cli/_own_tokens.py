"""The tokens of one's own endpoints, which no command and no file has in it."""

import os

from callfire_async.cli._exit import WRONG_USE, Ended, wrong_use
from callfire_async.notifications.security.tokens import EndpointTokens

__all__ = ["PLACEHOLDER", "own_tokens", "with_token"]

#: What stands for the token at the end of an endpoint.
PLACEHOLDER = "/{token}"


def own_tokens() -> EndpointTokens | None:
    """Return the tokens in the environment's ``CALLFIRE_TOKEN``: the current one, then previous ones."""
    words = os.environ.get("CALLFIRE_TOKEN", "").split()
    with wrong_use():
        return EndpointTokens(*words) if words else None


def with_token(endpoint: str, tokens: EndpointTokens | None) -> str:
    """Put the current token in the place that an endpoint leaves for it."""
    if not endpoint.endswith(PLACEHOLDER):
        return endpoint
    if tokens is None:
        raise Ended("there is no token for this endpoint: set CALLFIRE_TOKEN in the environment", WRONG_USE)
    with wrong_use():
        return tokens.url(endpoint.removesuffix(PLACEHOLDER))
