"""
A server in a new process: ``python -m benchmarks.server SERVER APP PORT FILE [CORE]``.

SERVER is one of `SERVERS`. APP is ``bare`` (204 once the body is read), ``inline`` (a receiver without an inbox),
``stored`` or ``full`` (a receiver with a `SqliteInbox` in FILE, and no worker), ``handled`` (with a worker), or
``shared`` (with a worker, and a file of its own in the directory FILE). With CORE, the process runs on that core only.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.rows import UnavailableError
from callfire_async.notifications import Notification, Receiver, Router, SqliteInbox

TOKEN = "0123456789abcdef0123"  # noqa: S105  # of a short-lived server on loopback
#: Each server with the libraries of a production installation, and uvicorn without them.
SERVERS: Mapping[str, tuple[str, ...]] = {
    "uvicorn with h11": ("uvicorn", "h11"),
    "uvicorn": ("uvicorn", "uvloop", "httptools"),
    "aiohttp": ("aiohttp",),
    "FastAPI": ("fastapi", "uvicorn", "uvloop", "httptools"),
}
_START_TIMEOUT_SECONDS = 30.0
_NANOSECOND = 1e-9
#: Applications that handle what they store.
_HANDLED = ("handled", "shared")


class ServerProcess:
    """A running server, its port and its CPU time; the file of its inbox, if it handles what it stores."""

    def __init__(self, pid: int, port: int, file: Path | None = None) -> None:
        self._pid = pid
        self._file = file
        self.port = port

    def wait(self) -> None:
        """Wait until the server accepts connections."""
        deadline = time.monotonic() + _START_TIMEOUT_SECONDS
        while not self._is_listening():
            if time.monotonic() > deadline:
                raise UnavailableError("the server did not start")
            time.sleep(0.02)

    def _is_listening(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port)).close()
        except ConnectionRefusedError:
            return False
        return True

    def wait_until_handled(self) -> None:
        """Wait until each delivery is done."""
        if self._file is not None:
            for file in self._file.glob("*.db") if self._file.is_dir() else [self._file]:
                _wait_until_handled(file)

    def cpu_seconds(self) -> float:
        """Return the CPU time of all its threads."""
        tasks = Path(f"/proc/{self._pid}/task").glob("*/schedstat")
        return sum(int(task.read_text(encoding="ascii").split()[0]) for task in tasks) * _NANOSECOND


def _wait_until_handled(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        while connection.execute("SELECT 1 FROM deliveries WHERE state < 2 LIMIT 1").fetchone():
            time.sleep(0.01)


@contextmanager
def run_server(server: str, app: str, directory: str, *cores: int) -> Iterator[ServerProcess]:
    """Run a server while the block runs; on one core, if it is given."""
    for library in SERVERS[server]:
        import_module(library)
    if not Path("/proc/self/schedstat").exists():
        raise UnavailableError("this system does not report the CPU time of another process")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    file = Path(directory) if app == "shared" else Path(directory) / f"{app}.db"
    command = [sys.executable, "-m", __name__, server, app, str(port), str(file), *map(str, cores)]
    with subprocess.Popen(command, cwd=Path(__file__).parent.parent) as process:  # noqa: S603  # fixed arguments
        try:
            yield ServerProcess(process.pid, port, file if app in _HANDLED else None)
        finally:
            process.terminate()


# --- in the new process -----------------------------------------------------------------------------------


def make_receiver(app: str, file: str) -> Receiver:
    """Return a receiver whose handler returns immediately."""
    router = Router()

    @router.on(Notification)
    async def handle(event: Notification) -> None:
        pass

    if app == "inline":
        return Receiver(router, tokens=TOKEN)
    inbox = SqliteInbox.in_directory(file) if app == "shared" else SqliteInbox(file)
    return Receiver(router, tokens=TOKEN, inbox=inbox, concurrency=16 if app in _HANDLED else 0)


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """Read the body and respond: the minimum of any ASGI application."""
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


def _uvicorn(app: str, port: int, file: str) -> None:
    from callfire_async.notifications.asgi import NotificationApp  # noqa: PLC0415  # only one server is imported

    _run(bare if app == "bare" else NotificationApp(make_receiver(app, file)), port)


def _uvicorn_with_h11(app: str, port: int, file: str) -> None:
    from callfire_async.notifications.asgi import NotificationApp  # noqa: PLC0415  # only one server is imported

    _run(bare if app == "bare" else NotificationApp(make_receiver(app, file)), port, loop="asyncio", http="h11")


def _run(application: Any, port: int, *, loop: Any = "uvloop", http: Any = "httptools") -> None:
    import uvicorn  # noqa: PLC0415  # only one server is imported

    uvicorn.run(application, port=port, loop=loop, http=http, access_log=False, log_level="error")


def _aiohttp(app: str, port: int, file: str) -> None:
    from aiohttp import web  # noqa: PLC0415  # only one server is imported

    from callfire_async.notifications.aiohttp import add_notification_routes  # noqa: PLC0415  # only one server is imported

    async def respond(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=204)

    application = web.Application()
    if app == "bare":
        application.router.add_post("/{token}", respond)
    else:
        add_notification_routes(application, make_receiver(app, file))
    web.run_app(application, host="127.0.0.1", port=port, print=None, access_log=None)


def _fastapi(app: str, port: int, file: str) -> None:
    import fastapi  # noqa: PLC0415  # only one server is imported

    from callfire_async.notifications.fastapi import notification_routes  # noqa: PLC0415  # only one server is imported

    async def respond(request: fastapi.Request) -> fastapi.Response:
        await request.body()
        return fastapi.Response(status_code=204)

    application = fastapi.FastAPI()
    if app == "bare":
        respond.__annotations__ = {"request": fastapi.Request}
        application.add_api_route(
            "/{token}", respond, methods=["POST"], status_code=204, response_class=fastapi.Response
        )
    else:
        application.include_router(notification_routes(make_receiver(app, file)))
    _run(application, port)


def main() -> None:
    """Serve until the process is terminated."""
    server, app, port, file, *cores = sys.argv[1:]
    if cores:
        os.sched_setaffinity(0, map(int, cores))
    servers = {"uvicorn": _uvicorn, "uvicorn with h11": _uvicorn_with_h11, "aiohttp": _aiohttp, "FastAPI": _fastapi}
    servers[server](app, int(port), file)


if __name__ == "__main__":
    main()
