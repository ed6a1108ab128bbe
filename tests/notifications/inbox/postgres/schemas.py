"""A schema of its own for each test, on the server of all tests."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from attrs import frozen
from engines.postgres import PASSWORD, PostgresServer
from notifications.inbox.suite import DEADLINE

from callfire_async.notifications.inbox.postgres import PostgresInbox

POLL_SECONDS = 0.01


@frozen
class Schema:
    """A test's own schema, and the connections that the test opens."""

    server: PostgresServer
    name: str

    def dsn(self, **settings: str) -> str:
        query = "".join(f"&{name}={value}" for name, value in settings.items())
        return f"{self.server.dsn()}&application_name={self.name}{query}"

    def proxy_dsn(self, port: int) -> str:
        """Return the URL for a proxy on a loopback port."""
        return f"postgresql://postgres:{PASSWORD}@127.0.0.1:{port}/postgres?application_name={self.name}"

    def inbox(self, dsn: str | None = None, **options: Any) -> PostgresInbox:
        return PostgresInbox(dsn or self.dsn(), schema=self.name, **options)

    @asynccontextmanager
    async def admin(self) -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(self.server.dsn(), server_settings={"search_path": self.name})
        try:
            yield connection
        finally:
            await connection.close()

    async def fetchval(self, statement: str, *arguments: object) -> Any:
        async with self.admin() as connection:
            return await connection.fetchval(statement, *arguments)

    async def disconnect(self) -> int:
        """Terminate the connections to this schema; return how many."""
        others = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = $1"
        return await self.fetchval(others, self.name)

    async def wait_until(self, condition: str, *arguments: object) -> None:
        async with asyncio.timeout(DEADLINE):
            while not await self.fetchval(f"SELECT {condition}", *arguments):  # noqa: ASYNC110  # the server has no event
                await asyncio.sleep(POLL_SECONDS)

    async def wait_until_listening(self, processes: int = 1) -> None:
        # The first statement of a connection after its LISTEN.
        listening = "FROM pg_stat_activity WHERE application_name = $1 AND query = 'SELECT 1' AND state = 'idle'"
        await self.wait_until(f"(SELECT count(*) {listening}) = $2", self.name, processes)

    async def wait_until_blocked(self, count: int = 1) -> None:
        blocked = "FROM pg_stat_activity WHERE application_name = $1 AND wait_event_type = 'Lock'"
        await self.wait_until(f"(SELECT count(*) {blocked}) >= $2", self.name, count)
