"""
A receiver on a host, in a process of its own, whose inbox and handlers write the history.

Its only argument is its settings as JSON. It prints ``ready``, and exits when its standard input is closed.
"""

import asyncio
import functools
import json
import logging
import random
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn
from attrs import asdict, frozen
from notifications.crash.parent import exit_at_end_of_input, print_line
from partitions import history
from partitions.history import Journal

from callfire_async.errors import InboxError
from callfire_async.notifications import Inbox, Lease, Receiver, Router, SqliteInbox, TextFinished, worker
from callfire_async.notifications.asgi import NotificationApp
from callfire_async.notifications.inbox.jetstream import JetStreamInbox, _consumer
from callfire_async.notifications.inbox.postgres import PostgresInbox
from callfire_async.notifications.inbox.spool import SpoolingInbox
from callfire_async.notifications.parsing import parse

PORT = 8080
# Shorter than a split, so that leases expire during one.
LEASE_SECONDS = 4.0
HANDLER_TIMEOUT_SECONDS = 2.0
# One handler in this many takes long.
LONG_HANDLERS = 50
SETTLE_OPERATIONS = ("ack", "nack", "release", "dead_letter")


@frozen
class Settings:
    """The settings of the process."""

    host: str
    address: str
    journal: str
    #: The URLs of the servers: one for PostgreSQL, several for NATS.
    servers: list[str]
    #: The file of the spool; empty for none.
    spool: str = ""

    def dumps(self) -> str:
        return json.dumps(asdict(self))


class Recorder:
    """
    Records what an inbox and the handlers do.

    Args:
        journal: The journal of this process.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        # The token of the last lease of each event.
        self._leases: dict[int, str] = {}

    def record(self, inbox: Inbox) -> Inbox:
        """Replace the methods of an inbox by recorded ones."""
        inbox.claim = self._recorded_claim(inbox.claim)
        for operation in SETTLE_OPERATIONS:
            setattr(inbox, operation, self._recorded_settlement(operation, getattr(inbox, operation)))
        return inbox

    def _recorded_claim(self, claim: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(claim)
        async def recorded(*arguments: Any, **options: Any) -> list[Lease]:
            leases = await claim(*arguments, **options)
            for lease in leases:
                number = number_of(lease)
                self._leases[number] = lease.token
                self._journal.write(history.CLAIMED, number, lease.token)
            return leases

        return recorded

    def _recorded_settlement(self, operation: str, settle: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(settle)
        async def recorded(lease: Lease, *arguments: Any, **options: Any) -> bool:
            number = number_of(lease)
            self._journal.write(history.SETTLING, number, lease.token, operation)
            try:
                is_settled = await settle(lease, *arguments, **options)
            except (InboxError, asyncio.CancelledError):
                self._journal.write(history.UNSETTLED, number, lease.token, operation)
                raise
            self._journal.write(history.SETTLED if is_settled else history.LOST, number, lease.token, operation)
            return is_settled

        return recorded

    def router(self) -> Router:
        router = Router()
        router.on(TextFinished, name="record")(self._handle)
        return router

    async def _handle(self, event: TextFinished) -> None:
        number = event.text.id
        lease = self._leases[number]
        self._journal.write(history.BEGAN, number, lease)
        await asyncio.sleep(random.uniform(0, 0.01) if number % LONG_HANDLERS else random.uniform(0, 1))
        self._journal.write(history.SUCCEEDED, number, lease)


def number_of(lease: Lease) -> int:
    """Return the number of the event in a delivery."""
    event = parse(lease.delivery.body, lease.delivery.content_type)
    assert isinstance(event, TextFinished)
    return event.text.id


def make_inbox(settings: Settings) -> Inbox:
    if settings.servers[0].startswith("postgresql:"):
        primary: Inbox = PostgresInbox(settings.servers[0])
    else:
        _consumer.ACK_WAIT_SECONDS = LEASE_SECONDS
        primary = JetStreamInbox(settings.servers, replicas=3)
    return SpoolingInbox(primary, SqliteInbox(settings.spool)) if settings.spool else primary


async def serve(settings: Settings) -> None:
    worker._MIN_LEASE_SECONDS = LEASE_SECONDS
    recorder = Recorder(Journal(Path(settings.journal), settings.host))
    receiver = Receiver(
        recorder.router(),
        tokens=None,
        inbox=recorder.record(make_inbox(settings)),
        handler_timeout=HANDLER_TIMEOUT_SECONDS,
    )
    app = NotificationApp(receiver)
    server = uvicorn.Server(uvicorn.Config(app, lifespan="on", ws="none", access_log=False, log_level="error"))
    with socket.create_server((settings.address, PORT), backlog=1000) as listener:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started and not serving.done():  # noqa: ASYNC110  # uvicorn only sets a flag
            await asyncio.sleep(0.005)
        print_line("ready" if server.started else "failed")
        await serving


def main() -> None:
    logging.basicConfig(level=logging.WARNING, format=f"%(asctime)s {json.loads(sys.argv[1])['host']} %(message)s")
    exit_at_end_of_input()
    asyncio.run(serve(Settings(**json.loads(sys.argv[1]))))


if __name__ == "__main__":
    main()
