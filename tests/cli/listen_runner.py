"""Run `listen` in the test's event loop and read its output."""

import asyncio
import json
import re
from contextlib import asynccontextmanager, suppress

from cli.command_runner import DEADLINE

from callfire_async.cli.commands.listen import ListenOptions, run


class Screen:
    """The output so far."""

    def __init__(self, capsys, task) -> None:
        self._capsys = capsys
        self.task = task
        self.text = ""

    def read(self) -> str:
        self.text += self._capsys.readouterr().out
        return self.text

    async def wait_for(self, pattern: str) -> re.Match:
        """Wait until the output matches a pattern."""
        async with asyncio.timeout(DEADLINE):
            while (found := re.search(pattern, self.read(), re.MULTILINE)) is None:  # noqa: ASYNC110  # capsys has no event
                await asyncio.sleep(0.01)
        return found

    @property
    def items(self) -> list:
        return [json.loads(line) for line in self.read().splitlines()]


@asynccontextmanager
async def run_listen(capsys, **options):
    """Listen on a free port; yield the screen and the base URL of the endpoint."""
    defaults = {"port": 0, "forward_to": None, "events": (), "subscription_id": None, "inbox": None, "as_json": False}
    task = asyncio.create_task(run(ListenOptions(**defaults | options)))
    screen = Screen(capsys, task)
    waiting = asyncio.create_task(screen.wait_for(r"(http://127\.0\.0\.1:\d+/callfire)/\*\*\*"))
    await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        waiting.cancel()
        await task
    try:
        yield screen, (await waiting)[1]
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, BrokenPipeError):
            await task
