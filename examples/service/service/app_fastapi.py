"""The service with FastAPI: ``python -m service.app_fastapi``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI

from callfire_async.notifications import Receiver
from callfire_async.notifications.fastapi import health_routes, notification_routes
from service.costs import Costs
from service.handlers import make_router
from service.inboxes import make_inbox
from service.settings import Settings


def create_app(settings: Settings | None = None) -> FastAPI:
    """Create the application; without *settings*, they are read from the environment."""
    settings = settings or Settings.from_environment()
    costs = Costs(settings.database, has_inbox=settings.has_inbox_in_database)
    inbox = make_inbox(settings.inbox, settings.spool)
    receiver = Receiver(make_router(costs), tokens=settings.tokens, inbox=inbox)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # The receiver starts and stops inside this block, so no handler uses a closed database.
        async with costs:
            yield

    app = FastAPI(lifespan=lifespan)
    app.include_router(notification_routes(receiver), prefix="/callfire", include_in_schema=False)
    app.include_router(health_routes(receiver), include_in_schema=False)

    @app.get("/broadcasts/{broadcast_id}/cost")
    async def cost(broadcast_id: int) -> dict[str, float]:
        return {"credits": float(await costs.total(broadcast_id))}

    return app


def main() -> None:
    """Serve until SIGTERM."""
    settings = Settings.from_environment()
    uvicorn.run(create_app(settings), host=settings.host, port=settings.port, timeout_graceful_shutdown=10)


if __name__ == "__main__":
    main()
