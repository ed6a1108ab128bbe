"""The account that a command works on, and the tokens of its endpoints."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from attrs import frozen

from callfire_async.cli.ending import MISSING_CREDENTIALS, WRONG_USE, Ended, wrong_use
from callfire_async.client import CallFire
from callfire_async.connection import DEFAULT_BASE_URL
from callfire_async.notifications.tokens import EndpointTokens

__all__ = ["PLACEHOLDER", "Account", "own_tokens", "with_token"]

#: What stands for the token at the end of an endpoint, so that no file and no command has it.
PLACEHOLDER = "/{token}"


@frozen
class Account:
    """Whose subscriptions, and where."""

    #: None for the environment's.
    login: str | None = None
    #: None for CallFire's own.
    base_url: str | None = None

    @asynccontextmanager
    async def client(self) -> AsyncIterator[CallFire]:
        """Open a client; without credentials the command ends with status 3."""
        try:
            client = CallFire(self.login, base_url=self.base_url or DEFAULT_BASE_URL)
        except ValueError as error:
            missing = str(error).startswith("no credentials")
            raise Ended(str(error), MISSING_CREDENTIALS if missing else WRONG_USE) from None
        async with client:
            yield client


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
