"""
The demo's receiver: a process whose handlers write a journal.

Its argument is a `ReceiverOptions` in JSON. It prints ``ready PORT INSPECTOR_PORT`` once it accepts postbacks, and
stops when its standard input is closed.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Protocol
from urllib.parse import urlsplit

from attrs import asdict, frozen

from callfire_async.inspector import BindAddress, ReceiverSource, serve_inspector
from callfire_async.inspector._server import serve
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
    """The options of the process."""

    token: str
    #: The file to which the handlers append a line for each handled event.
    journal: str
    #: The file of the inbox.
    inbox: str
    #: 0 for any free port.
    port: int = 0
    #: The inspector's key; empty for no inspector.
    inspector_key: str = ""
    inspector_port: int = 0
    #: The key of the webhooks' signatures; empty if no signature is verified.
    signing_secret: str = ""

    def dumps(self) -> str:
        """Return the options as one argument."""
        return json.dumps(asdict(self))


class _Posted(Protocol):
    """An event, or the result of a postback."""

    @property
    def subscription_id(self) -> int | None: ...
    @property
    def webhook_id(self) -> int | None: ...


def source_of(posted: _Posted) -> int | str | None:
    """Return the ID of a subscription, or ``webhook`` and the ID of a webhook."""
    return posted.subscription_id if posted.webhook_id is None else f"webhook {posted.webhook_id}"


def journal_line(source: int | str | None, event_key: tuple[object, ...]) -> str:
    """Return the line of a handled or posted event, and of the subscription or webhook that it was posted to."""
    return json.dumps([source, *event_key])


def make_router(journal: int) -> Router:
    """Return handlers that append to an open file, with one write per line so that a crash cannot split a line."""
    router = Router()

    async def write_line(event: Notification) -> None:
        os.write(journal, f"{journal_line(source_of(event), event.key)}\n".encode())

    for kind in (TextFinished, CallFinished, CampaignNotification):
        router.on(kind, name=kind.__name__)(write_line)
    return router


async def run_receiver(options: ReceiverOptions, wait_for_stop: Callable[[], Awaitable[object]]) -> None:
    """Serve until *wait_for_stop* returns."""
    journal = os.open(options.journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(journal):
        inbox = SqliteInbox(options.inbox)
        secret = options.signing_secret or None
        receiver = Receiver(
            make_router(journal),
            tokens=options.token,
            signing_secrets=secret,
            # The subscriptions of API 1.1 post without one to the same endpoint.
            require_signature=secret is None,
            inbox=inbox,
        )
        async with (
            _inspector(options, receiver, inbox) as inspector_port,
            serve(NotificationApp(receiver), options.port) as port,
        ):
            sys.stdout.write(f"ready {port} {inspector_port}\n")
            sys.stdout.flush()
            await wait_for_stop()


@asynccontextmanager
async def _inspector(options: ReceiverOptions, receiver: Receiver, inbox: SqliteInbox) -> AsyncIterator[int]:
    """Serve the inspector if there is a key for it; return its port, or 0."""
    if not options.inspector_key:
        yield 0
        return
    source = ReceiverSource(inbox, receiver, "demo")
    receiver.observe(source)
    async with serve_inspector(source, BindAddress(port=options.inspector_port), key=options.inspector_key) as url:
        yield urlsplit(url).port or 0


def main() -> None:
    """Serve until standard input is closed, which also happens if the parent process dies."""
    options = ReceiverOptions(**json.loads(sys.argv[1]))
    asyncio.run(run_receiver(options, lambda: asyncio.to_thread(sys.stdin.read)))
