"""The inspector of an inbox's file, whoever owns it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from callfire_async.cli._output import echo, say_json
from callfire_async.inspector import BindAddress, FileSource, serve_inspector

__all__ = ["run"]


async def run(path: Path, place: BindAddress, *, as_json: bool) -> None:
    """Show a file until interrupted."""
    async with FileSource.watching(path) as source, serve_inspector(source, place) as address:
        if as_json:
            say_json({"what": "ready", "inspector": address})
        else:
            echo(f"Ready! {address} shows what is in {path}. The address is a secret: it holds the key.")
        await asyncio.Event().wait()
