"""
One of several receivers that share an inbox.

``uvicorn --factory service:create_app`` serves one receiver; ``python run_local.py`` starts three on one port.
"""

from __future__ import annotations

import os
import socket

from fastapi import FastAPI

from callfire_async.notifications import EndpointTokens, Inbox, Notification, Receiver, Router, SqliteInbox
from callfire_async.notifications.fastapi import health_routes, notification_routes


def make_inbox(location: str) -> Inbox:
    """Return the shared inbox: a server, or on one machine a directory in which each process has its own file."""
    if location.startswith(("postgresql://", "postgres://")):
        from callfire_async.notifications.inbox.postgres import PostgresInbox

        return PostgresInbox(location)
    if location.startswith("nats://"):
        from callfire_async.notifications.inbox.jetstream import JetStreamInbox

        servers = location.split(",")
        # Three replicas: any one of the servers may fail.
        return JetStreamInbox(servers, replicas=3 if len(servers) > 1 else 1)
    return SqliteInbox.in_directory(location)


def create_app() -> FastAPI:
    """Create a receiver from ``CALLFIRE_INBOX``, ``CALLFIRE_TOKEN``, and its optional name in ``RECEIVER``."""
    name = os.environ.get("RECEIVER") or socket.gethostname()
    router = Router()

    @router.on(Notification, name="print_event")
    async def print_event(event: Notification) -> None:
        # Replace this with your side effect, with event.key as the idempotency key: see examples/service.
        print("handled", name, *event.key, flush=True)

    inbox = make_inbox(os.environ["CALLFIRE_INBOX"])
    receiver = Receiver(router, tokens=EndpointTokens(*os.environ["CALLFIRE_TOKEN"].split()), inbox=inbox)
    app = FastAPI()
    app.include_router(notification_routes(receiver), prefix="/callfire", include_in_schema=False)
    app.include_router(health_routes(receiver), include_in_schema=False)
    return app
