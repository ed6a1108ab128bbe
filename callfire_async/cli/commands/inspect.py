"""The inspector of an inbox's file, whoever owns it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from callfire_async.cli._output import say, say_json
from callfire_async.inspector import FileSource, Place, inspecting

__all__ = ["run"]


async def run(path: Path, place: Place, *, as_json: bool) -> None:
    """Show a file until interrupted."""
    async with FileSource.watching(path) as source, inspecting(source, place) as address:
        if as_json:
            say_json({"what": "ready", "inspector": address})
        else:
            say(f"Ready! {address} shows what is in {path}. The address is a secret: it holds the key.")
        await asyncio.Event().wait()
