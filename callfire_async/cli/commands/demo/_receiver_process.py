"""
The demo's receiver: a process of its own, with handlers that write down what they handled.

It is started with one argument, its settings; it says ``ready PORT`` when it is, and stops when its input ends.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from attrs import asdict, frozen

from callfire_async.cli._server import serve
from callfire_async.inspector import BindAddress, ReceiverSource, serve_inspector
from callfire_async.notifications import (
    CallFinished,
    CampaignNotification,
    Notification,
    Receiver,
    Router,
    SqliteInbox,
    TextFinished,
)
from callfire_async.notifications.asgi import NotificationApp


@frozen
class ReceiverOptions:
    """What the receiver is told."""

    token: str
    #: The file to which each handler appends a line for each event that it has handled.
    journal: str
    #: The inbox's file.
    inbox: str
    #: 0 for any that is free.
    port: int = 0
    #: The inspector's key; empty where there is none.
    inspector_key: str = ""
    inspector_port: int = 0

    def dumps(self) -> str:
        """Word them as one argument."""
        return json.dumps(asdict(self))


def journal_line(subscription_id: int | None, event_key: tuple[object, ...]) -> str:
    """Word what was handled, or posted: which event, and for which subscription."""
    return json.dumps([subscription_id, *event_key])


def make_router(journal: int) -> Router:
    """Return handlers that append to an open file; one write a line, so that no crash can tear it."""
    router = Router()

    async def handled(event: Notification) -> None:
        os.write(journal, f"{journal_line(event.subscription_id, event.key)}\n".encode())

    for kind in (TextFinished, CallFinished, CampaignNotification):
        router.on(kind, name=kind.__name__)(handled)
    return router


async def run_receiver(settings: ReceiverOptions, stopped: Callable[[], Awaitable[object]]) -> None:
    """Serve until *stopped* returns."""
    journal = os.open(settings.journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(journal):
        inbox = SqliteInbox(settings.inbox)
        receiver = Receiver(make_router(journal), tokens=settings.token, inbox=inbox)
        async with (
            inspected(settings, receiver, inbox) as inspector_port,
            serve(NotificationApp(receiver), settings.port) as port,
        ):
            sys.stdout.write(f"ready {port} {inspector_port}\n")
            sys.stdout.flush()
            await stopped()


@asynccontextmanager
async def inspected(settings: ReceiverOptions, receiver: Receiver, inbox: SqliteInbox) -> AsyncIterator[int]:
    """Serve the inspector where there is a key for it; return its port, or 0."""
    if not settings.inspector_key:
        yield 0
        return
    source = ReceiverSource(inbox, receiver, "demo")
    receiver.observe(source)
    async with serve_inspector(
        source, BindAddress(port=settings.inspector_port), key=settings.inspector_key
    ) as address:
        yield urlsplit(address).port or 0


def main() -> None:
    """Serve until standard input ends: whoever started this process is done with it, or gone."""
    settings = ReceiverOptions(**json.loads(sys.argv[1]))
    asyncio.run(run_receiver(settings, lambda: asyncio.to_thread(sys.stdin.read)))


if __name__ == "__main__":  # pragma: no cover  # the demo runs it in a process that nobody measures
    main()
