"""
`CallFire`: the services of one account on one connection.

Only this module and the command line read environment variables.
"""

from __future__ import annotations

import os
import ssl
from types import TracebackType
from typing import Self

from callfire_async.client._operations.operation import ResponseFormat
from callfire_async.client.connection import DEFAULT_BASE_URL, DEFAULT_WEBHOOKS_BASE_URL, Connection, HttpClient
from callfire_async.client.subscriptions import Subscriptions
from callfire_async.client.texts_and_calls import Calls, Texts
from callfire_async.client.webhooks import Webhooks

__all__ = ["CallFire"]


class CallFire:
    """
    A client of CallFire's API 1.1 and API v2 for one account.

    Create it anywhere, use it in one event loop, and close it with ``async with`` or `aclose`.

    Args:
        login: The API login; default: the environment variable ``CALLFIRE_API_LOGIN``.
        password: The API password; default: the environment variable ``CALLFIRE_API_PASSWORD``.
        base_url: See `Connection`, also for all further parameters.

    Attributes:
        subscriptions: The account's subscriptions.
        texts: The account's texts, and sending texts.
        calls: The account's calls.
        webhooks: The account's webhooks, in API v2. The other attributes are in API 1.1.

    Raises:
        ValueError: A setting is missing or out of range.
        TypeError: A setting has the wrong type, or *http_client* is given together with a setting that belongs to it.
    """

    subscriptions: Subscriptions
    texts: Texts
    calls: Calls
    webhooks: Webhooks

    def __init__(
        self,
        login: str | None = None,
        password: str | None = None,
        *,
        base_url: str = DEFAULT_BASE_URL,
        webhooks_base_url: str = DEFAULT_WEBHOOKS_BASE_URL,
        response_format: ResponseFormat = "json",
        timeout: float = 30.0,
        max_retries: int = 3,
        max_connections: int = 20,
        trust_env: bool = False,
        ssl_context: ssl.SSLContext | None = None,
        http_client: HttpClient | None = None,
    ) -> None:
        self._set_connection(
            Connection(
                _credential("login", login),
                _credential("password", password),
                base_url=base_url,
                webhooks_base_url=webhooks_base_url,
                response_format=response_format,
                timeout=timeout,
                max_retries=max_retries,
                max_connections=max_connections,
                trust_env=trust_env,
                ssl_context=ssl_context,
                http_client=http_client,
            )
        )

    def with_options(self, *, timeout: float | None = None, max_retries: int | None = None) -> Self:
        """Return a view with other settings on the same pool; closing either closes both."""
        connection = self._connection.with_options(timeout=timeout, max_retries=max_retries)
        view = type(self).__new__(type(self))
        view._set_connection(connection)  # noqa: SLF001  # our own
        return view

    async def aclose(self) -> None:
        """Wait for requests in flight, bounded by their timeout, then close the pool. Idempotent."""
        await self._connection.aclose()

    async def __aenter__(self) -> Self:
        await self._connection.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return repr(self._connection).replace(type(self._connection).__name__, type(self).__name__, 1)

    def _set_connection(self, connection: Connection) -> None:
        self._connection = connection
        self.subscriptions = Subscriptions(connection)
        self.texts = Texts(connection)
        self.calls = Calls(connection)
        self.webhooks = Webhooks(connection)


def _credential(name: str, value: str | None) -> str:
    if value is not None:
        return value
    variable = f"CALLFIRE_API_{name.upper()}"
    if credential := os.environ.get(variable):
        return credential
    raise ValueError(f"{name} is missing, so there are no credentials: pass it, or set {variable} in the environment")
