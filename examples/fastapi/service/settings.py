"""Settings, from the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping

from attrs import field, frozen

from callfire_async.notifications import EndpointTokens


@frozen
class Settings:
    """What differs from one deployment to the next."""

    tokens: EndpointTokens
    #: A file, or ``postgresql://…``.
    inbox: str = field(default="inbox.db", repr=False)
    #: The file in which postbacks wait while that PostgreSQL is away.
    spool: str = "spool.db"
    #: As SQLAlchemy has it.
    database: str = field(default="sqlite+aiosqlite:///ledger.db", repr=False)
    #: Where CallFire reaches the service; asked for by ``python -m service.subscribe`` only.
    public_url: str = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """
        Read them.

        Raises:
            KeyError: ``CALLFIRE_TOKEN`` is missing. While it is changed it holds two, the new one first.
        """
        names = {
            "inbox": "CALLFIRE_INBOX",
            "spool": "CALLFIRE_SPOOL",
            "database": "DATABASE_URL",
            "public_url": "PUBLIC_URL",
        }
        given = {field: environment[name] for field, name in names.items() if name in environment}
        return cls(tokens=EndpointTokens(*environment["CALLFIRE_TOKEN"].split()), **given)
