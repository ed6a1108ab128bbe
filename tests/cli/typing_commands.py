"""Commands as they are typed, and what comes of them."""

import json
from collections import deque
from typing import NamedTuple

from typer.testing import CliRunner

from callfire_async.cli.app import app
from callfire_async.testing import FakeCallFire

TOKEN = "0123456789abcdef0123"
DEADLINE = 30


class Typed(NamedTuple):
    """What a command showed, and how it ended."""

    status: int
    out: str
    err: str

    @property
    def items(self) -> list:
        """What each of its lines says in JSON."""
        return [json.loads(line) for line in self.out.splitlines()]


def typed(*arguments: str, **options: str) -> Typed:
    result = CliRunner().invoke(app, arguments, **options)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Typed(result.exit_code, result.stdout, result.stderr)


class CallFireServer:
    """An ASGI application that is whichever fake a test has."""

    def __init__(self) -> None:
        self.fake = FakeCallFire()
        self.port = 0
        #: What the next requests are answered with; None is an answer of the fake's own.
        self.faults = deque()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/1.1/rest"

    async def __call__(self, scope, receive, send):
        fault = self.faults.popleft() if self.faults else None
        if fault is not None:
            self.fake.fail_next(fault)
        await self.fake(scope, receive, send)
