"""Settings from the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping

from attrs import field, frozen

from callfire_async.notifications import EndpointTokens

_VARIABLES = {
    "inbox": "CALLFIRE_INBOX",
    "spool": "CALLFIRE_SPOOL",
    "database": "DATABASE_URL",
    "host": "HOST",
    "port": "PORT",
    "public_url": "PUBLIC_URL",
}


@frozen
class Settings:
    """Settings of one deployment."""

    tokens: EndpointTokens
    #: A file, or ``postgresql://…``.
    inbox: str = field(default="inbox.db", repr=False)
    #: The file that stores postbacks while PostgreSQL is unavailable.
    spool: str = "spool.db"
    #: An SQLAlchemy URL.
    database: str = field(default="sqlite+aiosqlite:///costs.db", repr=False)
    #: The address to listen on.
    host: str = "127.0.0.1"
    port: int = field(default=8000, converter=int)
    #: The public URL of ``/callfire``, for ``python -m service.subscribe``.
    public_url: str = ""

    @property
    def has_inbox_in_database(self) -> bool:
        """Whether the inbox is in the service's own database, so that handlers can complete in their transactions."""
        return self.database.replace("postgresql+asyncpg:", "postgresql:") == self.inbox

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """
        Read the settings from environment variables.

        Raises:
            KeyError: ``CALLFIRE_TOKEN`` is missing. During token rotation it has two tokens, the new one first.
        """
        values = {field: environment[name] for field, name in _VARIABLES.items() if name in environment}
        return cls(tokens=EndpointTokens(*environment["CALLFIRE_TOKEN"].split()), **values)
