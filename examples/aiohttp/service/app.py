"""The service: ``python -m service``."""

from __future__ import annotations

from collections.abc import AsyncIterator

from aiohttp import web

from callfire_async.notifications import Receiver
from callfire_async.notifications.aiohttp import add_notification_routes
from service.handlers import make_router
from service.inboxes import make_inbox
from service.ledger import Ledger
from service.settings import Settings


def create_app(settings: Settings | None = None) -> web.Application:
    """Put the service together; it reads the environment unless it is given settings."""
    settings = settings or Settings.from_environment()
    ledger = Ledger(settings.database)
    inbox = make_inbox(settings.inbox, settings.spool)
    receiver = Receiver(make_router(ledger), tokens=settings.tokens, inbox=inbox)

    async def with_ledger(app: web.Application) -> AsyncIterator[None]:
        async with ledger:
            yield

    async def health(request: web.Request) -> web.Response:
        # Answered 200 as long as the process lives. Let *healthy* raise an alarm, not restart anything.
        how = await receiver.health()
        return web.json_response({"healthy": how.healthy, "reasons": how.reasons})

    async def spent(request: web.Request) -> web.Response:
        credits = await ledger.spent(int(request.match_info["broadcast_id"]))
        return web.json_response({"credits": float(credits)})

    app = web.Application()
    # Before the receiver, which therefore stops first: no handler meets a closed database.
    app.cleanup_ctx.append(with_ledger)
    add_notification_routes(app, receiver, "/callfire")
    app.router.add_get("/health", health)
    app.router.add_get(r"/broadcasts/{broadcast_id:\d+}/spent", spent)
    return app
