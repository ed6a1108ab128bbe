"""Fixtures: a schema, an open inbox in it, and a pooler."""

import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from engines.pgbouncer import running_pgbouncer
from engines.postgres import PostgresServer
from notifications.inbox.postgres.schemas import Schema

from callfire_async.notifications.inbox.postgres import PostgresInbox


@pytest.fixture
def schema(postgres: PostgresServer) -> Schema:
    return Schema(postgres, f"test_{secrets.token_hex(8)}")


@pytest.fixture
async def inbox(schema: Schema) -> AsyncIterator[PostgresInbox]:
    async with schema.inbox() as inbox:
        yield inbox


@pytest.fixture(scope="module")
def pgbouncer(postgres: PostgresServer) -> Iterator[Path]:
    with running_pgbouncer(postgres) as folder:
        yield folder
