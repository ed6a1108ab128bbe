"""The logging configuration of docs/logging.md, and the messages of docs/metrics-and-log-messages.md."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import reference_tables

import callfire_async
from callfire_async.notifications.security._rejection_log import LINES

PACKAGE = Path(callfire_async.__file__).parent
DOCS = Path(__file__).parents[2] / "docs"
LOGGING = (DOCS / "logging.md").read_text(encoding="utf-8")
(CONFIGURATION,) = re.findall(r"^```\{code-block\} python\n(.*?)^```$", LOGGING, re.MULTILINE | re.DOTALL)
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


@pytest.fixture(scope="module")
def rows():
    """Rows of the tables of messages."""
    return reference_tables.log_message_tables().splitlines()


@pytest.mark.parametrize(("level", "message"), [*log_calls()])
def test_the_page_has_each_message(level, message, rows):
    """A row has the level, and the first part of the message that is longer than a word."""
    name = {"exception": "ERROR"}.get(level, level.upper())
    first, *_ = (part for part in re.split(r"%[-.\d]*[a-z]|[;:(]", message) if len(part.strip()) > 8)

    assert any(first.strip() in row for row in rows if f"| {name} |" in row)


@pytest.mark.parametrize("message", LINES.values(), ids=LINES)
def test_the_page_has_the_messages_about_rejected_requests(message, rows):
    """A row has the message up to its number."""
    level = "ERROR" if message == LINES["consumed"] else "WARNING"

    assert any(message.partition("%d")[0] in row for row in rows if f"| {level} |" in row)


@pytest.mark.parametrize("message", ["waiting for …, up to N s", "cannot read inbox …", "handler X failed"])
def test_the_page_has_messages_that_are_logged_indirectly(message, rows):
    """A message may be in a variable, or be passed to be logged later."""
    assert any(message in row for row in rows)


def test_a_missing_explanation_is_an_error(monkeypatch):
    """A message or a metric that is added needs one; one that is removed leaves none behind."""
    monkeypatch.setitem(reference_tables.EXPLANATIONS, "messages", {"a message that no code logs": {}})

    with pytest.raises(ValueError, match=r"\[messages\] .*'a message that no code logs'"):
        reference_tables.log_message_tables()


def test_a_message_that_cannot_be_found_is_an_error():
    """The page would lack it."""
    call = ast.parse("_log.error(make_message())").body[0].value

    with pytest.raises(ValueError, match="cannot find the message of make_message"):
        reference_tables.template_of(call.args[0], ast.Module([]))


def test_the_page_inserts_all_tables():
    """Nothing but the tables replaces the comments."""
    page = reference_tables.insert_tables((DOCS / "metrics-and-log-messages.md").read_text(encoding="utf-8"))

    assert "<!--" not in page
    assert {"## Metrics", "## Log messages", "### `callfire_async.worker`"} <= {*page.splitlines()}
