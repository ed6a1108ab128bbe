"""Log messages about the start and the stop of a receiver."""

import logging

__all__ = ["NOT_RUNNING", "STOPPED", "log_unfinished"]

_log = logging.getLogger("callfire_async.receiver")

NOT_RUNNING = """\
the receiver is not running; start and stop it with the application:
    app.include_router(notification_routes(receiver), prefix="/callfire")                      # FastAPI
    add_notification_routes(app, receiver, "/callfire")                                        # aiohttp
    Starlette(routes=[Mount("/callfire", notification_app)], lifespan=notification_app.lifespan)   # mounted
    async with receiver: ...                                                                   # anything else"""
STOPPED = "the receiver has been stopped, although its server still accepts requests"


def log_unfinished(unfinished: list[str]) -> None:
    """Log everything that had not finished when a stop ended."""
    if unfinished:
        _log.warning("the receiver stopped without finishing: %s", "; ".join(unfinished))
