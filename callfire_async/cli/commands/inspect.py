"""Serve the inspector for the file of an inbox."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from callfire_async.cli._client_options import AsJson
from callfire_async.cli._exit import port_errors
from callfire_async.cli._help import CommandApp
from callfire_async.cli._inspector_options import INSPECTOR_PORT, InspectorHost, InspectorPort, bind_address
from callfire_async.cli._output import echo, echo_json
from callfire_async.inspector import BindAddress, FileSource, serve_inspector
from callfire_async.inspector._server import LOOPBACK

app: typer.Typer = CommandApp()


@app.command(
    epilog="Example: `callfire-async inspect callfire.db`",
    help="""
    Show the deliveries of a SQLite inbox on a local web page.

    Read-only. Handled deliveries have no body unless the inbox keeps bodies. To see each handler and to replay
    deliveries, use `listen --inspect`, or serve the inspector from the receiver's process.
    """,
)
def inspect(
    file: Annotated[
        Path,
        typer.Argument(exists=True, dir_okay=False, help="File of a SQLite inbox. Safe while the service is running."),
    ],
    *,
    host: InspectorHost = LOOPBACK,
    port: InspectorPort = INSPECTOR_PORT,
    as_json: AsJson = False,
) -> None:
    asyncio.run(run(file, bind_address(host, port), as_json=as_json))


async def run(path: Path, address: BindAddress, *, as_json: bool) -> None:
    """Serve until interrupted."""
    async with (
        FileSource.watching(path) as source,
        port_errors(serve_inspector(source, address), "--port or --host") as url,
    ):
        if as_json:
            echo_json({"type": "ready", "inspector": url})
        else:
            echo(f"Ready! {url} shows the deliveries in {path}. Keep the URL secret: it contains the key.")
        await asyncio.Event().wait()
