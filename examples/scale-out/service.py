"""
One of several receivers on one inbox.

``uvicorn --factory service:create_app`` serves one; ``python run_local.py`` starts three on one port.
"""

from __future__ import annotations

import os
import socket

from fastapi import FastAPI

from callfire_async.notifications import EndpointTokens, Inbox, Notification, Receiver, Router, SqliteInbox
from callfire_async.notifications.fastapi import notification_routes


def make_inbox(where: str) -> Inbox:
    """Return the inbox that all share; or, on one machine, a folder in which each has a file of its own."""
    if where.startswith(("postgresql://", "postgres://")):
        from callfire_async.notifications.inbox.postgres import PostgresInbox

        return PostgresInbox(where)
    if where.startswith("nats://"):
        from callfire_async.notifications.inbox.jetstream import JetStreamInbox

        servers = where.split(",")
        # On each of three servers: any one of them may be lost.
        return JetStreamInbox(servers, replicas=3 if len(servers) > 1 else 1)
    return SqliteInbox.in_directory(where)


def create_app() -> FastAPI:
    """Put one receiver together: ``CALLFIRE_INBOX``, ``CALLFIRE_TOKEN``, and ``RECEIVER``, which is its name."""
    name = os.environ.get("RECEIVER") or socket.gethostname()
    router = Router()

    @router.on(Notification, name="say")
    async def say(event: Notification) -> None:
        # Put your side effect here, keyed by event.key: see examples/fastapi.
        print("handled", name, *event.key, flush=True)

    inbox = make_inbox(os.environ["CALLFIRE_INBOX"])
    receiver = Receiver(router, tokens=EndpointTokens(*os.environ["CALLFIRE_TOKEN"].split()), inbox=inbox)
    app = FastAPI()
    app.include_router(notification_routes(receiver), prefix="/callfire", include_in_schema=False)

    @app.get("/health")
    async def health() -> dict[str, bool]:
        return {"healthy": (await receiver.health()).healthy}

    return app
