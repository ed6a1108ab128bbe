"""The service with aiohttp: ``python -m service.app_aiohttp``."""

from __future__ import annotations

from collections.abc import AsyncIterator

from aiohttp import web

from callfire_async.notifications import Receiver
from callfire_async.notifications.aiohttp import add_health_routes, add_notification_routes
from service.costs import Costs
from service.handlers import make_router
from service.inboxes import make_inbox
from service.settings import Settings


def create_app(settings: Settings | None = None) -> web.Application:
    """Create the application; without *settings*, they are read from the environment."""
    settings = settings or Settings.from_environment()
    costs = Costs(settings.database, has_inbox=settings.has_inbox_in_database)
    inbox = make_inbox(settings.inbox, settings.spool)
    receiver = Receiver(make_router(costs), tokens=settings.tokens, inbox=inbox)

    async def open_database(app: web.Application) -> AsyncIterator[None]:
        async with costs:
            yield

    async def cost(request: web.Request) -> web.Response:
        total = await costs.total(int(request.match_info["broadcast_id"]))
        return web.json_response({"credits": float(total)})

    app = web.Application()
    # Registered before the receiver, which therefore stops first: no handler uses a closed database.
    app.cleanup_ctx.append(open_database)
    add_notification_routes(app, receiver, "/callfire")
    add_health_routes(app, receiver)
    app.router.add_get(r"/broadcasts/{broadcast_id:\d+}/cost", cost)
    return app


def main() -> None:
    """Serve until SIGTERM."""
    settings = Settings.from_environment()
    web.run_app(create_app(settings), host=settings.host, port=settings.port, shutdown_timeout=10)


if __name__ == "__main__":
    main()
