"""
A process that owns an inbox: many tasks post, claim and settle until the process stops or is killed.

Run with the recorder preloaded. Each acknowledgement is written at once to the file ``marks`` next to the inbox, so
that the recorder records it in order with the writes and syncs.
"""

import argparse
import asyncio
import os
import random
import sqlite3
from pathlib import Path

from callfire_async.errors import InboxUnavailableError
from callfire_async.notifications.inbox import Delivery, Lease
from callfire_async.notifications.inbox.sqlite import SqliteInbox, _database

LEASE_SECONDS = 3600.0
POSTERS = 16
# A sender repeats a post that was not acknowledged; the disk may have it or not.
TRIES = 3


def body(seed: int, life: int, number: int) -> bytes:
    """Return a unique body of a size between a part of a page and several pages."""
    content = random.Random(f"{seed} {life} {number}")
    return content.randbytes(content.choice((200, 1000, 3000, 9000)))


class Life:
    """The operations of one process."""

    def __init__(self, inbox: SqliteInbox, folder: Path, options: argparse.Namespace) -> None:
        self.inbox = inbox
        self.options = options
        self.random = random.Random(f"{options.seed} {options.life}")
        self.numbers = iter(range(options.deliveries))
        self.before = marks(folder)
        self.file = os.open(folder / "marks", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.kept = 0

    def mark(self, *words: object) -> None:
        os.write(self.file, (" ".join(map(str, words)) + "\n").encode())

    async def live(self) -> None:
        await self.post_again()
        async with asyncio.TaskGroup() as tasks:
            workers = [tasks.create_task(self.work()) for _ in range(self.options.workers)]
            async with asyncio.TaskGroup() as posters:
                for _ in range(POSTERS):
                    posters.create_task(self.post_all())
            for worker in workers:
                worker.cancel()

    # --- posting ------------------------------------------------------------------------------------------

    async def post_again(self) -> None:
        """Repeat posts of the last life that got no reply, as a sender would."""
        kept = {words[1] for words in self.before if words[0] == "kept"}
        posting = [words for words in self.before if words[0] == "posting" and words[1] not in kept]
        for _, _, life, number in posting[-POSTERS:]:
            await self.post(int(life), int(number), times=1)

    async def post_all(self) -> None:
        for number in self.numbers:
            await self.post(self.options.life, number, times=self.random.choice((1, 1, 1, 2)))

    async def post(self, life: int, number: int, *, times: int) -> None:
        deliveries = [Delivery(body(self.options.seed, life, number))] * times
        self.mark("posting", deliveries[0].key, life, number)
        for _ in range(TRIES):
            if await self.is_stored(deliveries):
                self.acknowledge(deliveries[0])
                return

    async def is_stored(self, deliveries: list[Delivery]) -> bool:
        try:
            if self.random.random() < 0.2:
                await self.inbox.append_many(deliveries)
            else:
                await asyncio.gather(*map(self.inbox.append, deliveries))
        except InboxUnavailableError:
            return False
        return True

    def acknowledge(self, delivery: Delivery) -> None:
        self.mark("kept", delivery.key)
        self.kept += 1
        if self.kept == self.options.dies_after:
            os._exit(0)

    # --- working ------------------------------------------------------------------------------------------

    async def work(self) -> None:
        while True:
            try:
                leases = await self.inbox.claim(8, lease=LEASE_SECONDS)
                for lease in leases:
                    await self.settle(lease)
                await self.inbox.wait(1.0)
            except InboxUnavailableError:
                # Let other tasks run; the next operation tries the disk again.
                await asyncio.sleep(0)

    async def settle(self, lease: Lease) -> None:
        state = self.random.choice(("done", "done", "done", "dead", "back", "back", "released", "forgotten"))
        if state in ("done", "dead"):
            await self.finish(lease, state)
        elif state == "back":
            if await self.inbox.nack(lease, delay=0.0, reason="busy"):
                self.mark("back", lease.delivery.key, lease.attempt + 1)
        elif state == "released":
            await self.inbox.release(lease)

    async def finish(self, lease: Lease, state: str) -> None:
        key = lease.delivery.key
        self.mark("finishing", key, state)
        settled = self.inbox.ack(lease, event_key=key) if state == "done" else self.inbox.dead_letter(lease, "refused")
        if await settled:
            self.mark("finished", key, state)


def marks(folder: Path) -> list[list[str]]:
    path = folder / "marks"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def weaken(synchronous: str) -> None:
    """Make the inbox's connections less durable: the harness must find the losses."""
    configure = _database._configure

    def configure_weakly(connection: sqlite3.Connection) -> None:
        configure(connection)
        connection.execute(f"PRAGMA synchronous = {synchronous}")

    _database._configure = configure_weakly


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--life", type=int, required=True)
    parser.add_argument("--deliveries", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--dies-after", type=int)
    parser.add_argument("--synchronous", required=True)
    return parser.parse_args()


async def main() -> None:
    options = arguments()
    if options.synchronous != "FULL":
        weaken(options.synchronous)
    try:
        async with SqliteInbox(options.folder / "inbox.db") as inbox:
            await Life(inbox, options.folder, options).live()
    except InboxUnavailableError:
        # If the disk fails while the file is opened, nothing is acknowledged.
        if "POWER_FAIL" not in os.environ:
            raise


if __name__ == "__main__":
    asyncio.run(main())
