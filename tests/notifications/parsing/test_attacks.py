"""Tests of hostile and broken input: each case of `attacks` in a process with limited time and memory."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from notifications.parsing import attacks, case_runner

from callfire_async.notifications import MemoryInbox, Notification, Postback, Receiver, Router

TESTS = Path(__file__).parents[2]
PHONE_NUMBER = "12135551212"


@pytest.fixture(scope="module")
def runner() -> Iterator[subprocess.Popen[str]]:
    """Start the process that forks a process for each case."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, sys.path)])}
    command = [sys.executable, case_runner.__file__]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as process:
        yield process


def test_the_number_of_cases():
    """Adding or removing a case is a deliberate change."""
    tables = (attacks.XML, attacks.JSON, attacks.ENVELOPES, attacks.VALUES)
    rows = [case for table in tables for case in table]

    assert [*map(len, tables)] == [161, 57, 56, 34]
    assert len(attacks.CASES) == len(rows)


@pytest.mark.parametrize(("rows", "number"), [(attacks.HTTP, 9), (attacks.CLIENT, 8)], ids=["HTTP", "client"])
def test_every_attack_over_http_has_its_tests(rows, number):
    """The tests named in the tables exist."""
    defined = {
        node.name
        for path in TESTS.rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }

    assert len(rows) == number
    assert all(rows.values())
    assert {name for names in rows.values() for name in names} - defined == set()


@pytest.mark.parametrize("case", attacks.CASES.values(), ids=attacks.CASES)
def test_case(runner, case):
    """The outcome is as expected, within the limits, and nothing that is printed quotes the body."""
    runner.stdin.write(f"{case.name}\n")
    runner.stdin.flush()

    result = json.loads(runner.stdout.readline())

    assert result["outcome"] in ((case.outcome,) if case.outcome != "bounded" else ("bad", "accepted")), result
    assert result["is_expected"]
    assert PHONE_NUMBER not in result["shown"]


STATES = {"bad": {"dead"}, "accepted": {"done"}, "bounded": {"dead", "done"}}


SINGLE = {name: case for name, case in attacks.CASES.items() if not case.has_several}


@pytest.mark.parametrize("case", SINGLE.values(), ids=SINGLE)
async def test_a_receiver_with_an_inbox_stores_every_body(case):
    """Every body is acknowledged; a bad one becomes a dead letter with its bytes and a reason."""
    body, inbox = case.body(), MemoryInbox(keep_bodies=True)
    headers = {} if case.content_type is None else {"Content-Type": case.content_type}
    async with Receiver(
        router_with_handler(), tokens=None, inbox=inbox, max_body_bytes=4 * attacks.MEGABYTE
    ) as receiver:
        reply = await receiver.receive(Postback("POST", None, headers, body))
        await receiver.idle(timeout=20)
    entries = [entry async for entry in inbox.entries()]

    if not body:
        assert (reply.status, entries) == (400, [])
        return
    assert (reply.status, [entry.delivery.body == body for entry in entries]) == (204, [True])
    assert entries[0].state in STATES[case.outcome]
    assert (bool(entries[0].reason), PHONE_NUMBER in entries[0].reason) == (entries[0].state == "dead", False)
    assert len(entries[0].reason) < 1_000


def router_with_handler() -> Router:
    router = Router()

    @router.on(Notification)
    async def handle(event: Notification) -> None: ...

    return router
