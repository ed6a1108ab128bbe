"""The logging configuration and the messages of docs/logging.md."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import callfire_async
from callfire_async.notifications.security._rejection_log import _LINES

PACKAGE = Path(callfire_async.__file__).parent
PAGE = Path(__file__).parents[2] / "docs" / "logging.md"
(CONFIGURATION,) = re.findall(
    r"^```\{code-block\} python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)
SERVICE = """
import asyncio

from callfire_async.notifications import MemoryInbox, Receiver, RetryPolicy, Router, TextSent
from callfire_async.testing import samples
from callfire_async.notifications import Postback

router = Router()


@router.on(TextSent, name="charge")
async def charge(event):
    raise ConnectionError("no response")


async def main():
    token = "a-token-that-is-long-enough"
    receiver = Receiver(router, tokens=token, inbox=MemoryInbox(), retry=RetryPolicy(max_attempts=1))
    async with receiver:
        await receiver.receive(Postback("POST", token, {}, samples.body("TextSent")))
        await receiver.idle(timeout=20)
    logging.getLogger("another.access").warning("POST /callfire/%s 204", token)


asyncio.run(main())
"""


def test_the_configuration_prints_times_and_names_and_masks_the_token(monkeypatch):
    """Each record has its time, level and logger; a failed handler has its traceback; no record has the token."""
    monkeypatch.setenv("CALLFIRE_TOKEN", "a-token-that-is-long-enough")
    service = subprocess.run(
        [sys.executable, "-c", CONFIGURATION + SERVICE], check=True, capture_output=True, text=True, timeout=60
    )
    lines = [line for line in service.stderr.splitlines() if re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ", line)]
    failed, dead, access = (line.split(" ", 2)[2] for line in lines)
    assert failed.startswith(
        "ERROR callfire_async.worker: handler charge failed: ConnectionError (delivery 1, attempt 1 of 1"
    )
    assert dead.startswith("ERROR callfire_async.dead_letters: delivery 1 became a dead letter: ")
    assert access.startswith("WARNING another.access: POST /callfire/")
    assert "ConnectionError: no response" in service.stderr
    assert "a-token-that-is-long-enough" not in service.stderr


def log_calls():
    """Yield the level, the message and the module of each call of a logger in the package."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id="_log" | "_receiver_log"), attr=level),
                    args=[ast.Constant(value=str(message)), *_],
                ):
                    yield pytest.param(level, message, id=f"{path.stem}-{node.lineno}")


@pytest.mark.parametrize(("level", "message"), [*log_calls()])
def test_the_page_has_each_message(level, message):
    """A row has the level, and the first part of the message that is longer than a word."""
    name = {"exception": "ERROR"}.get(level, level.upper())
    first, *_ = (part for part in re.split(r"%[-.\d]*[a-z]|[;:(]", message) if len(part.strip()) > 8)

    assert any(first.strip() in row for row in rows(name))


@pytest.mark.parametrize("message", _LINES.values(), ids=_LINES)
def test_the_page_has_the_messages_about_rejected_requests(message):
    """A row has the message up to its number."""
    level = "ERROR" if message == _LINES["consumed"] else "WARNING"

    assert any(message.partition("%d")[0] in row for row in rows(level))


def rows(level):
    """Return the rows of the page's tables for a level."""
    return [row for row in PAGE.read_text(encoding="utf-8").splitlines() if f"| {level} |" in row]
