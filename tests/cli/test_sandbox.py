"""The sandbox in the test's own event loop, and the package as a program."""

import asyncio
import re
import runpy
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from cli.listening import Screen

import callfire_async
from callfire_async import CallFire
from callfire_async.cli.commands import sandbox

PROGRAM = str(Path(callfire_async.__file__).parent / "__main__.py")


@pytest.mark.parametrize("as_json", [True, False])
async def test_a_sandbox_is_a_callfire(capsys, as_json):
    """At the URL that it shows, with the credentials that it shows."""
    task = asyncio.create_task(sandbox.run(0, as_json=as_json))
    screen = Screen(capsys, task)
    base_url = (await screen.shows(r"http://127\.0\.0\.1:\d+/api/1\.1/rest"))[0]

    async with CallFire("login", "password", base_url=base_url) as callfire:
        found = await callfire.subscriptions.query()

    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert (found.total_results, bool(re.search("CALLFIRE_API_LOGIN=login", screen.look()))) == (0, not as_json)


def test_the_package_is_the_program(monkeypatch, capsys):
    """`python -m callfire_async`; to import it runs nothing."""
    monkeypatch.setattr(sys, "argv", ["callfire_async", "--help"])

    runpy.run_path(PROGRAM, run_name="callfire_async.__main__")
    with pytest.raises(SystemExit):
        runpy.run_path(PROGRAM, run_name="__main__")

    assert capsys.readouterr().out.count("Usage:") == 1
