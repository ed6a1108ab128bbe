"""`sandbox`, and the package as a program."""

import asyncio
import re
import runpy
import sys
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from cli.command_runner import run_command
from cli.listen_runner import Screen

import callfire_async
from callfire_async import CallFire
from callfire_async.cli.commands import sandbox
from callfire_async.testing import FakeCallFire

PROGRAM = str(Path(callfire_async.__file__).parent / "__main__.py")


@pytest.mark.parametrize("as_json", [True, False])
async def test_sandbox_serves_the_api(capsys, as_json):
    """The sandbox serves both APIs at the URLs and with the credentials that it prints."""
    task = asyncio.create_task(sandbox.run(FakeCallFire(), 0, as_json=as_json))
    screen = Screen(capsys, task)
    base_url = (await screen.wait_for(r"http://127\.0\.0\.1:\d+/api/1\.1/rest"))[0]

    webhooks_base_url = (await screen.wait_for(r"http://127\.0\.0\.1:\d+/v2\b"))[0]

    async with CallFire("login", "password", base_url=base_url, webhooks_base_url=webhooks_base_url) as callfire:
        found = await callfire.subscriptions.query()
        assert (await callfire.webhooks.query()).total_results == 0

    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert (found.total_results, bool(re.search("CALLFIRE_API_LOGIN=login", screen.read()))) == (0, not as_json)


def test_options_choose_what_is_not_known_of_callfire(monkeypatch):
    """The fake gets the values of the options."""
    served = []

    async def run(fake: FakeCallFire, port: int, *, as_json: bool) -> None:
        subscription = {"Endpoint": "https://h.example/a", "TriggerEvent": "INBOUND_TEXT_FINISHED"}
        transport = httpx.ASGITransport(fake)
        async with httpx.AsyncClient(transport=transport, base_url="http://fake", auth=("login", "password")) as client:
            await client.post("/subscription", data=subscription)
            served.append((await client.get("/subscription.json")).json()["ResourceList"]["Subscription"])

    monkeypatch.setattr(sandbox, "run", run)
    options = ["--postback-shape", "2015", "--events-per-postback", "3"]

    assert run_command("sandbox", *options).status == 0
    assert run_command("sandbox", "--list-of-one", "object").status == 0
    assert [type(items) for items in served] == [list, dict]


def test_package_runs_as_a_program(monkeypatch, capsys):
    """`python -m callfire_async` runs the command; importing the module does not."""
    monkeypatch.setattr(sys, "argv", ["callfire_async", "--help"])

    runpy.run_path(PROGRAM, run_name="callfire_async.__main__")
    with pytest.raises(SystemExit):
        runpy.run_path(PROGRAM, run_name="__main__")

    assert capsys.readouterr().out.count("Usage:") == 1
