"""
A receiver in a process of its own, whose handlers run the command in an event's message and write a journal.

Its only argument is its settings as JSON. It prints ``starting`` and ``ready``, and exits when its standard input is
closed, because the parent process is gone then.
"""

import asyncio
import json
import logging
import os
import random
import signal
import socket
import sys
from collections.abc import Sequence

import uvicorn
from attrs import asdict, frozen
from notifications.crash.parent import exit_at_end_of_input, print_line

from callfire_async.notifications import (
    Delivery,
    Inbox,
    Receiver,
    RetryPolicy,
    Router,
    SqliteInbox,
    TextFinished,
    worker,
)
from callfire_async.notifications.asgi import NotificationApp
from callfire_async.notifications.inbox.jetstream import JetStreamInbox
from callfire_async.notifications.inbox.jetstream import _consumer as _jetstream_consumer
from callfire_async.notifications.inbox.postgres import PostgresInbox
from callfire_async.notifications.inbox.sqlite import _directory as _sqlite_directory


@frozen
class Settings:
    """The settings of the process."""

    #: The file to which handlers append a line for each step.
    journal: str
    #: The inbox's file or folder, or the URL of its server.
    inbox: str
    port: int = 0
    #: The descriptor of an inherited listening socket, used instead of the port.
    listener: int | None = None
    shutdown_timeout: float = 10.0
    handler_timeout: float = 30.0
    max_attempts: int = 12
    #: How often to look for the files of dead processes, in seconds; if set, the inbox is a folder.
    take_over_seconds: float | None = None
    #: The duration of a lease, in seconds.
    lease_seconds: float | None = None
    #: When the process kills itself in its first split of an envelope: ``before``, ``during`` or ``after`` the events
    #: are stored; empty for never.
    killed_in_split: str = ""

    def dumps(self) -> str:
        return json.dumps(asdict(self))


class Handlers:
    """
    Two handlers: ``first`` for events with a message, and ``last`` for all events, which runs the message as a command.

    The commands: ``kill`` kills the process, ``wait SECONDS`` waits.
    """

    def __init__(self, journal: int) -> None:
        self._journal = journal
        self._running = 0

    def router(self) -> Router:
        router = Router()
        router.on(TextFinished, name="first", where=lambda event: bool(event.text.message))(self.first)
        router.on(TextFinished, name="last")(self.last)
        return router

    def write(self, word: str, event: TextFinished, *more: object) -> None:
        # One write per line: a crash cannot truncate a line, and the line outlives the process.
        os.write(self._journal, " ".join(map(str, (word, event.text.id, *more))).encode() + b"\n")

    async def first(self, event: TextFinished) -> None:
        self.write("first", event)

    async def last(self, event: TextFinished) -> None:
        self._running += 1
        try:
            await self.run_command(event)
        finally:
            self._running -= 1
        self.write("handled", event)

    async def run_command(self, event: TextFinished) -> None:
        match (event.text.message or "").split():
            case ["kill"]:
                self.write("killing", event, self._running)
                os.kill(os.getpid(), signal.SIGKILL)
            case ["wait", seconds]:
                await self.wait(event, float(seconds))

    async def wait(self, event: TextFinished, seconds: float) -> None:
        self.write("started", event)
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.write("cancelled", event)
            raise


def make_receiver(settings: Settings) -> Receiver:
    if settings.lease_seconds is not None:
        worker._MIN_LEASE_SECONDS = settings.lease_seconds
    journal = os.open(settings.journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    return Receiver(
        Handlers(journal).router(),
        tokens=None,
        inbox=kill_in_split(make_inbox(settings), settings.killed_in_split),
        shutdown_timeout=settings.shutdown_timeout,
        handler_timeout=settings.handler_timeout,
        retry=RetryPolicy(max_attempts=settings.max_attempts, initial_delay=0.0),
    )


def kill_in_split(inbox: Inbox, moment: str) -> Inbox:
    """Return an inbox whose ``append_many``, which stores the events of an envelope, kills the process."""
    append_many = inbox.append_many

    async def append_and_kill(deliveries: Sequence[Delivery]) -> None:
        appending = asyncio.ensure_future(append_many(deliveries) if moment != "before" else asyncio.sleep(0))
        if moment == "during":
            # The transaction takes about a millisecond.
            await asyncio.sleep(random.uniform(0, 0.002))
        else:
            await appending
        os.kill(os.getpid(), signal.SIGKILL)

    if moment:
        inbox.append_many = append_and_kill
    return inbox


def make_inbox(settings: Settings) -> Inbox:
    match settings.inbox.partition("://")[0]:
        case "postgresql":
            return PostgresInbox(settings.inbox)
        case "nats":
            return jetstream_inbox(settings)
    if settings.take_over_seconds is None:
        return SqliteInbox(settings.inbox)
    _sqlite_directory._TAKE_OVER_SECONDS = settings.take_over_seconds
    return SqliteInbox.in_directory(settings.inbox)


def jetstream_inbox(settings: Settings) -> Inbox:
    """Return a JetStream inbox whose name is the last part of the address."""
    server, _, name = settings.inbox.rpartition("/")
    if settings.lease_seconds is not None:
        _jetstream_consumer.ACK_WAIT_SECONDS = settings.lease_seconds
    return JetStreamInbox(server, name=name)


def make_listener(settings: Settings) -> socket.socket:
    if settings.listener is not None:
        return socket.socket(fileno=settings.listener)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", settings.port))
    return listener


async def serve(settings: Settings) -> None:
    app = NotificationApp(make_receiver(settings))
    server = uvicorn.Server(uvicorn.Config(app, lifespan="on", ws="none", access_log=False, log_level="error"))
    with make_listener(settings) as listener:
        print_line("starting")
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:  # noqa: ASYNC110  # uvicorn only sets a flag
            await asyncio.sleep(0.005)
        print_line("ready")
        await serving


def main() -> None:
    logging.basicConfig(level=logging.ERROR)
    exit_at_end_of_input()
    asyncio.run(serve(Settings(**json.loads(sys.argv[1]))))


if __name__ == "__main__":
    main()
