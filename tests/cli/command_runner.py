"""Run commands in this process, and a fake CallFire for them."""

import json
from collections import deque
from typing import NamedTuple

from typer.testing import CliRunner

from callfire_async.cli.app import app
from callfire_async.testing import FakeCallFire

TOKEN = "0123456789abcdef0123"
DEADLINE = 120


class CommandResult(NamedTuple):
    """The output and the exit status of a command."""

    status: int
    out: str
    err: str

    @property
    def items(self) -> list:
        """Return the JSON document of each line."""
        return [json.loads(line) for line in self.out.splitlines()]


def run_command(*arguments: str, **options: str) -> CommandResult:
    result = CliRunner().invoke(app, arguments, **options)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return CommandResult(result.exit_code, result.stdout, result.stderr)


class CallFireServer:
    """An ASGI application that passes requests to the fake of the current test."""

    def __init__(self) -> None:
        self.fake = FakeCallFire()
        self.port = 0
        #: The faults of the next requests; None for a normal response.
        self.faults = deque()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/1.1/rest"

    @property
    def webhooks_base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v2"

    async def __call__(self, scope, receive, send):
        fault = self.faults.popleft() if self.faults else None
        if fault is not None:
            self.fake.fail_next(fault)
        await self.fake(scope, receive, send)
