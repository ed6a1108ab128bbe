"""
`CallFire`: one connection and the services on it.

Nothing else reads the environment but the command line.
"""

from __future__ import annotations

import os
import ssl
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from callfire_async.client._operations.api_1_1 import ResponseFormat
from callfire_async.client.connection import DEFAULT_BASE_URL, Connection
from callfire_async.client.subscriptions import Subscriptions
from callfire_async.client.texts_and_calls import Calls, Texts

if TYPE_CHECKING:
    from callfire_async.client._http import HttpClient
else:
    HttpClient = Any  # importing httpx takes long, and a receiver has no use for it

__all__ = ["CallFire"]


class CallFire:
    """
    A client of the CallFire API 1.1 for one account.

    Takes what `Connection` takes. Build it anywhere, use it in one event loop, and close it with ``async with`` or
    `aclose`.

    Args:
        login: The API login; the environment's ``CALLFIRE_API_LOGIN`` unless given.
        password: The API password; the environment's ``CALLFIRE_API_PASSWORD`` unless given.
        base_url: See `Connection`, as for all that follow.

    Attributes:
        subscriptions: The operations on subscriptions.
        texts: What became of texts, and sending them.
        calls: What became of calls.

    Raises:
        ValueError: A setting is missing or out of its range.
        TypeError: *http_client* is not an `httpx.AsyncClient`, or stands beside a setting that belongs to it.
    """

    subscriptions: Subscriptions
    texts: Texts
    calls: Calls

    def __init__(
        self,
        login: str | None = None,
        password: str | None = None,
        *,
        base_url: str = DEFAULT_BASE_URL,
        response_format: ResponseFormat = "json",
        timeout: float = 30.0,
        max_retries: int = 3,
        max_connections: int = 20,
        trust_env: bool = False,
        ssl_context: ssl.SSLContext | None = None,
        http_client: HttpClient | None = None,
    ) -> None:
        self._connect(
            Connection(
                _credential(login, "CALLFIRE_API_LOGIN"),
                _credential(password, "CALLFIRE_API_PASSWORD"),
                base_url=base_url,
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
        view = type(self).__new__(type(self))
        view._connect(self._connection.with_options(timeout=timeout, max_retries=max_retries))  # noqa: SLF001  # our own
        return view

    async def aclose(self) -> None:
        """Close the pool once what is under way has ended, which its timeout bounds; twice is as good as once."""
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

    def _connect(self, connection: Connection) -> None:
        self._connection = connection
        self.subscriptions = Subscriptions(connection)
        self.texts = Texts(connection)
        self.calls = Calls(connection)


def _credential(given: str | None, variable: str) -> str:
    credential = os.environ.get(variable) if given is None else given
    if not credential:
        raise ValueError(f"no credentials: pass login and password, or set {variable} in the environment")
    return credential
