"""
A publisher in a process of its own, which appends the rows of an outbox table to a file and deletes them.

Its only argument is its settings as JSON. The file represents another system, such as a message broker.
"""

import asyncio
import json
import os
import sys
from contextlib import suppress

import asyncpg
from attrs import asdict, frozen
from notifications.crash.parent import exit_at_end_of_input, print_line

SELECT = "SELECT id, event, handler FROM outbox ORDER BY id LIMIT 20 FOR UPDATE SKIP LOCKED"
DELETE = "DELETE FROM outbox WHERE id = ANY($1::bigint[])"


@frozen
class PublisherSettings:
    """The settings of the process."""

    database: str
    #: The file to which rows are published.
    journal: str
    listener: None = None

    def dumps(self) -> str:
        return json.dumps(asdict(self))


async def publish_all(settings: PublisherSettings) -> None:
    print_line("starting")
    journal = os.open(settings.journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    while True:
        with suppress(OSError, asyncpg.PostgresConnectionError, asyncpg.CannotConnectNowError):
            connection = await asyncpg.connect(settings.database)
            while True:
                await publish_some(connection, journal)
                await asyncio.sleep(0.01)


async def publish_some(connection: asyncpg.Connection, journal: int) -> None:
    """Publish before the rows are deleted, so that a crash repeats rows and loses none."""
    async with connection.transaction():
        rows = await connection.fetch(SELECT)
        for row in rows:
            os.write(journal, f"{row['id']} {row['event']} {row['handler']}\n".encode())
        await connection.execute(DELETE, [row["id"] for row in rows])


def main() -> None:
    exit_at_end_of_input()
    asyncio.run(publish_all(PublisherSettings(**json.loads(sys.argv[1]))))


if __name__ == "__main__":
    main()
