"""``python -m service``: serve on port ``PORT``, 8000 unless given; ``HOST`` is loopback unless given."""

import os

from aiohttp import web

from service.app import create_app

web.run_app(
    create_app(),
    host=os.environ.get("HOST", "127.0.0.1"),
    port=int(os.environ.get("PORT", "8000")),
    shutdown_timeout=10,
)
