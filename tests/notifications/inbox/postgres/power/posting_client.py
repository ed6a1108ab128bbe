"""A client of a server whose files are recorded: posts, claims and settles. Run with the recorder preloaded."""

import argparse
import asyncio
from pathlib import Path

from notifications.inbox.sqlite.power.workload import Life

from callfire_async.notifications.inbox.postgres import PostgresInbox


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("dsn")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--deliveries", type=int, required=True)
    parser.set_defaults(life=0, workers=4, dies_after=None)
    options = parser.parse_args()
    async with PostgresInbox(options.dsn, allow_lossy_commits=True) as inbox:
        await Life(inbox, options.folder, options).live()


if __name__ == "__main__":
    asyncio.run(main())
