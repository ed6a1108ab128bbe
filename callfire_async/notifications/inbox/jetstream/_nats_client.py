"""The client of nats-py, with TLS that an address requires, and with reconnects after errors of the server."""

from __future__ import annotations

from typing import Any

import nats.errors
from nats.aio.client import Client

from callfire_async.notifications.inbox._network_errors import CONNECTION_CLOSED, describe_network_error

__all__ = ["CONNECTION_CLOSED", "PERMISSIONS_ERROR", "NatsClient", "describe_error"]

# nats-py passes the errors of a server on in lower case.
PERMISSIONS_ERROR = "permissions violation"
_AUTHENTICATION_ERRORS = ("authorization violation", "authentication", "user jwt", "account")


class NatsClient(Client):
    """
    A client that requires TLS if it is configured, and reconnects after each error of the server.

    nats-py uses TLS only if the server requires it, and sends the password unencrypted otherwise. It closes the
    connection for good after an error such as "authentication expired".

    Args:
        requires_tls: Whether to refuse a server without TLS.
    """

    def __init__(self, *, requires_tls: bool) -> None:
        super().__init__()
        self._requires_tls = requires_tls
        self._left: Any = None

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:  # noqa: FBT001, FBT002  # as in nats-py
        if self._requires_tls and initial_connection and not info.get("tls_required"):
            if not info.get("tls_available"):
                raise nats.errors.SecureConnWantedError
            info["tls_required"] = True
        await super()._process_info(info, initial_connection)

    async def leave_server(self) -> None:
        """Connect to another server, as after a lost connection."""
        self._left = self._current_server
        await self._process_op_err(nats.errors.StaleConnectionError())

    async def _select_next_server(self) -> None:
        # Sort the server that was left to the end, because nats-py has shuffled the servers. Only once, so that it is
        # tried if none of the others works.
        left, self._left = self._left, None
        self._server_pool.sort(key=lambda server: server is left)
        await super()._select_next_server()

    async def _process_err(self, err_msg: str) -> None:
        if PERMISSIONS_ERROR in err_msg:
            await super()._process_err(err_msg)
            return
        error = nats.errors.Error(f"nats: {err_msg}")
        await self._error_cb(error)
        await self._process_op_err(error)


def describe_error(error: BaseException) -> str:
    """Return why a connection failed, without credentials."""
    text = str(error).removeprefix("nats: ").strip("'")
    if isinstance(error, nats.errors.SecureConnWantedError):
        return "TLS failed: the server does not use TLS"
    if isinstance(error, nats.errors.UnexpectedEOF | nats.errors.StaleConnectionError):
        return CONNECTION_CLOSED
    if isinstance(error, nats.errors.AuthorizationError) or text.lower().startswith(_AUTHENTICATION_ERRORS):
        return f"authentication failed: {text} (wrong user, password or token)"
    if text.startswith("empty response") or isinstance(error, nats.errors.JsonParseError):
        return "the server closed the connection, or does not speak NATS"
    if isinstance(error, nats.errors.Error):
        return text if type(error) is nats.errors.Error else type(error).__name__
    return describe_network_error(error) or type(error).__name__
