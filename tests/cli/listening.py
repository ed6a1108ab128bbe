"""`listen` in the test's own event loop, and its screen."""

import asyncio
import json
import re
from contextlib import asynccontextmanager, suppress

from cli.typing_commands import DEADLINE

from callfire_async.cli.commands.listen import ListenOptions, run


class Screen:
    """What was shown so far."""

    def __init__(self, capsys, ended) -> None:
        self._capsys = capsys
        self.ended = ended
        self.text = ""

    def look(self) -> str:
        self.text += self._capsys.readouterr().out
        return self.text

    async def shows(self, pattern: str) -> re.Match:
        """Wait until something is shown."""
        async with asyncio.timeout(DEADLINE):
            while (found := re.search(pattern, self.look(), re.MULTILINE)) is None:  # noqa: ASYNC110  # a screen tells nobody
                await asyncio.sleep(0.01)
        return found

    @property
    def items(self) -> list:
        return [json.loads(line) for line in self.look().splitlines()]


@asynccontextmanager
async def listening(capsys, **settings):
    """Listen at any port that is free; yield the screen and the base of the endpoint."""
    nothing = {"port": 0, "forward_to": None, "events": (), "subscription_id": None, "inbox": None, "as_json": False}
    task = asyncio.create_task(run(ListenOptions(**nothing | settings)))
    screen = Screen(capsys, task)
    waiting = asyncio.create_task(screen.shows(r"(http://127\.0\.0\.1:\d+/callfire)/\*\*\*"))
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
