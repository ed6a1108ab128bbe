"""Options that several commands share, and the API client that they describe."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import typer
from attrs import frozen

from callfire_async.cli._exit import MISSING_CREDENTIALS, WRONG_USE, CliError
from callfire_async.cli._help import ACCOUNT_PANEL
from callfire_async.client import CallFire
from callfire_async.client.connection import DEFAULT_BASE_URL, DEFAULT_WEBHOOKS_BASE_URL

__all__ = ["AsJson", "BaseUrl", "ClientOptions", "Login", "WebhooksBaseUrl", "Yes"]

AsJson = Annotated[bool, typer.Option("--json", help="Output for scripts: one JSON document, or one per line.")]
Login = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=ACCOUNT_PANEL,
        help="API login. Default: CALLFIRE_API_LOGIN. The password is read from CALLFIRE_API_PASSWORD.",
    ),
]
BaseUrl = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=ACCOUNT_PANEL,
        metavar="URL",
        help="Base URL of API 1.1, for example that of `callfire-async sandbox`.",
    ),
]
WebhooksBaseUrl = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=ACCOUNT_PANEL,
        metavar="URL",
        help="Base URL of API v2, for example that of `callfire-async sandbox`.",
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Skip the confirmation prompt.")]


@frozen
class ClientOptions:
    """The options of the API client."""

    #: The API login; None for the environment's.
    login: str | None = None
    #: None for CallFire's own.
    base_url: str | None = None
    #: None for CallFire's own.
    webhooks_base_url: str | None = None

    @asynccontextmanager
    async def client(self) -> AsyncIterator[CallFire]:
        """Open a client; exit with status 3 if the credentials are missing."""
        try:
            client = CallFire(
                self.login,
                base_url=self.base_url or DEFAULT_BASE_URL,
                webhooks_base_url=self.webhooks_base_url or DEFAULT_WEBHOOKS_BASE_URL,
            )
        except ValueError as error:
            missing = "no credentials" in str(error)
            raise CliError(str(error), MISSING_CREDENTIALS if missing else WRONG_USE) from None
        async with client:
            yield client
