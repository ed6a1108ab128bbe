"""
A server in a process of its own: ``python -m benchmarks.served SERVER WHAT PORT FILE``.

SERVER is one of `SERVERS`; WHAT is ``bare`` (204 once the body is read), ``handled`` (a receiver without an inbox) or
``kept`` (with a `SqliteInbox` in FILE, and nobody who handles what it holds).
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.rows import UnavailableError
from callfire_async.notifications import Notification, Receiver, Router, SqliteInbox

TOKEN = "0123456789abcdef0123"  # noqa: S105  # of a server on loopback that is gone in a minute
#: What each needs to be as fast as it is served in earnest.
SERVERS: Mapping[str, tuple[str, ...]] = {
    "uvicorn": ("uvicorn", "uvloop", "httptools"),
    "aiohttp": ("aiohttp",),
    "FastAPI": ("fastapi", "uvicorn", "uvloop", "httptools"),
}
_START_SECONDS = 30.0
_NANOSECOND = 1e-9


class Served:
    """A server that runs: where it is reached, and what it has cost."""

    def __init__(self, pid: int, port: int) -> None:
        self._pid = pid
        self.port = port

    def wait(self) -> None:
        """Wait until it can be reached."""
        ends = time.monotonic() + _START_SECONDS
        while not self._is_reached():
            if time.monotonic() > ends:
                raise UnavailableError("the server does not start")
            time.sleep(0.02)

    def _is_reached(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port)).close()
        except ConnectionRefusedError:
            return False
        return True

    def processor_seconds(self) -> float:
        """Return how long its threads have run."""
        tasks = Path(f"/proc/{self._pid}/task").glob("*/schedstat")
        return sum(int(task.read_text(encoding="ascii").split()[0]) for task in tasks) * _NANOSECOND


@contextmanager
def served(server: str, what: str, folder: str) -> Iterator[Served]:
    """Run a server until the block is left."""
    for needed in SERVERS[server]:
        import_module(needed)
    if not Path("/proc/self/schedstat").exists():
        raise UnavailableError("this system does not say what another process costs")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", __name__, server, what, str(port), str(Path(folder) / f"{what}.db")]
    with subprocess.Popen(command, cwd=Path(__file__).parent.parent) as process:  # noqa: S603  # our own words
        try:
            yield Served(process.pid, port)
        finally:
            process.terminate()


# --- in the process ---------------------------------------------------------------------------------------


def receiver(what: str, file: str) -> Receiver:
    """Make a receiver whose handler returns at once."""
    router = Router()

    @router.on(Notification)
    async def take(event: Notification) -> None:
        pass

    if what == "handled":
        return Receiver(router, tokens=TOKEN)
    return Receiver(router, tokens=TOKEN, inbox=SqliteInbox(file), concurrency=0)


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """Read the body, and answer: what no application can do without."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def _uvicorn(what: str, port: int, file: str) -> None:
    from callfire_async.notifications.asgi import NotificationApp  # noqa: PLC0415  # one of the servers is imported

    _run(bare if what == "bare" else NotificationApp(receiver(what, file)), port)


def _run(app: Any, port: int) -> None:
    import uvicorn  # noqa: PLC0415  # likewise

    uvicorn.run(app, port=port, loop="uvloop", http="httptools", access_log=False, log_level="error")


def _aiohttp(what: str, port: int, file: str) -> None:
    from aiohttp import web  # noqa: PLC0415  # likewise

    from callfire_async.notifications.aiohttp import add_notification_routes  # noqa: PLC0415  # likewise

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=204)

    app = web.Application()
    if what == "bare":
        app.router.add_post("/{token}", answer)
    else:
        add_notification_routes(app, receiver(what, file))
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None)


def _fastapi(what: str, port: int, file: str) -> None:
    import fastapi  # noqa: PLC0415  # likewise

    from callfire_async.notifications.fastapi import notification_routes  # noqa: PLC0415  # likewise

    async def answer(request: fastapi.Request) -> fastapi.Response:
        await request.body()
        return fastapi.Response(status_code=204)

    app = fastapi.FastAPI()
    if what == "bare":
        answer.__annotations__ = {"request": fastapi.Request}
        app.add_api_route("/{token}", answer, methods=["POST"], status_code=204, response_class=fastapi.Response)
    else:
        app.include_router(notification_routes(receiver(what, file)))
    _run(app, port)


def main() -> None:
    """Serve until the process is ended."""
    server, what, port, file = sys.argv[1:]
    {"uvicorn": _uvicorn, "aiohttp": _aiohttp, "FastAPI": _fastapi}[server](what, int(port), file)


if __name__ == "__main__":
    main()
