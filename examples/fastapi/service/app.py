"""The service: ``uvicorn --factory service.app:create_app``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from callfire_async.notifications import Receiver
from callfire_async.notifications.fastapi import notification_routes
from service.handlers import make_router
from service.inboxes import make_inbox
from service.ledger import Ledger
from service.settings import Settings


def create_app(settings: Settings | None = None) -> FastAPI:
    """Put the service together; it reads the environment unless it is given settings."""
    settings = settings or Settings.from_environment()
    ledger = Ledger(settings.database)
    inbox = make_inbox(settings.inbox, settings.spool)
    receiver = Receiver(make_router(ledger), tokens=settings.tokens, inbox=inbox)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # The receiver starts inside this and stops before it ends, so no handler meets a closed database.
        async with ledger:
            yield

    app = FastAPI(lifespan=lifespan)
    app.include_router(notification_routes(receiver), prefix="/callfire", include_in_schema=False)

    @app.get("/health")
    async def health() -> dict[str, object]:
        # Answered 200 as long as the process lives. Let *healthy* raise an alarm, not restart anything.
        how = await receiver.health()
        return {"healthy": how.healthy, "reasons": how.reasons}

    @app.get("/broadcasts/{broadcast_id}/spent")
    async def spent(broadcast_id: int) -> dict[str, float]:
        return {"credits": float(await ledger.spent(broadcast_id))}

    return app
