"""The account that a command works on."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from attrs import frozen

from callfire_async.cli._exit import MISSING_CREDENTIALS, WRONG_USE, CliError
from callfire_async.client import CallFire
from callfire_async.client.connection import DEFAULT_BASE_URL

__all__ = ["ClientOptions"]


@frozen
class ClientOptions:
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
            missing = "no credentials" in str(error)
            raise CliError(str(error), MISSING_CREDENTIALS if missing else WRONG_USE) from None
        async with client:
            yield client
