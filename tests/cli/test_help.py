"""What every command has: a help with an example that works, JSON, and little to import."""

import asyncio
import os
import re
import shlex
import subprocess
import sys

import httpx
import pytest
import respx
from cli.typing_commands import DEADLINE, typed
from typer.main import get_command

from callfire_async.cli.app import app
from callfire_async.models import TriggerEvent
from callfire_async.notifications import Delivery, SqliteInbox
from callfire_async.testing import FakeCallFire, encode, make_text_received

CALLFIRE = "https://www.callfire.com/api/1.1/rest"
NOT_FOR_HELP = "uvicorn starlette sqlite3 yaml callfire_async.testing callfire_async.notifications.receiver".split()
SERVERS = ("inspect", "listen", "sandbox")


def commands(group=None, path=()):
    """Yield every command, by the words that call it."""
    for name, command in (group or get_command(app)).commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(commands())


def example_of(command):
    """Return the words of the example in a command's help."""
    return shlex.split(re.fullmatch(r"Example: `callfire-async (.*)`", command.epilog)[1])


async def fill(path):
    async with SqliteInbox(path) as inbox:
        await inbox.append(Delivery(encode(make_text_received())[1]))
        for lease in await inbox.claim(1, lease=60):
            await inbox.dead_letter(lease, "why")


@pytest.fixture
def surroundings(tmp_path, monkeypatch):
    """All that the examples name: an account, files, a service."""
    asyncio.run(fill(tmp_path / "callfire.db"))
    (tmp_path / "postback.xml").write_bytes(encode(make_text_received())[1])
    endpoint = "  - endpoint: 'https://hooks.example.com/callfire/{token}'\n    trigger_event: CAMPAIGN_STARTED\n"
    (tmp_path / "subscriptions.yaml").write_text(f"subscriptions:\n{endpoint}")
    (tmp_path / "service.py").write_text(
        "from callfire_async.notifications import Notification, Router\nrouter = Router()\n"
        "@router.on(Notification)\nasync def take(event): ...\n"
    )
    monkeypatch.syspath_prepend("")
    monkeypatch.delitem(sys.modules, "service", raising=False)
    fake = FakeCallFire()
    asyncio.run(subscribed(fake))
    transport = httpx.ASGITransport(fake)
    with respx.mock(assert_all_called=False) as network:
        network.route(url__startswith=CALLFIRE).mock(side_effect=transport.handle_async_request)
        network.route(host="127.0.0.1").pass_through()
        yield


async def subscribed(fake):
    async with fake.client() as callfire:
        created = await callfire.subscriptions.create("https://example.com/x", TriggerEvent.CAMPAIGN_STARTED)
        assert created.id == 609951003


@pytest.mark.parametrize("path", [path for path in COMMANDS if path[-1] not in SERVERS], ids=" ".join)
def test_the_example_of_a_command_works(path, surroundings):
    """It can be typed as it stands."""
    words = example_of(COMMANDS[path])
    if path == ("demo",):
        words[words.index("--events") + 1] = "20"
        words[words.index("--crash") + 1] = "0"
    if path == ("doctor",):
        words = [word.replace("https://hooks.example.com", "http://127.0.0.1:9") for word in words]
    ended = typed(*words)

    # Nobody is at doctor's endpoint; and what it finds of this machine's libraries is another matter.
    assert (words[: len(path)], ended.status) == ([*path], 1 if path == ("doctor",) else 0), ended


@pytest.mark.parametrize("command", SERVERS)
def test_the_example_of_a_server_works(command, tmp_path):
    """It says that it is ready, and ends quietly with Ctrl-C."""
    asyncio.run(fill(tmp_path / "callfire.db"))
    words = example_of(COMMANDS[command,])
    words = [word if word != "8480" else "0" for word in words]
    words += [] if "--port" in words else ["--port", "0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "callfire_async", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        first = process.stdout.readline()
        process.send_signal(2)
        _, err = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
        process.communicate()

    assert (first.startswith("Ready!"), process.returncode, err) == (True, 130, "")


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_speaks_to_scripts(path):
    """All but the demo, which is for people."""
    options = {name for parameter in COMMANDS[path].params for name in parameter.opts}

    assert ("--json" in options) is (path != ("demo",))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_a_help(path):
    """With its example, in a narrow terminal too."""
    shown = typed(*path, "--help", env={"COLUMNS": "40", "TERM": "dumb"})

    assert (shown.status, "Example:" in shown.out) == (0, True)


def test_the_help_is_light():
    """It loads no server, no database and nothing else that a command may need."""
    script = (
        "import sys\nsys.argv = ['callfire-async', '--help']\nfrom callfire_async.cli import main\n"
        "try:\n    main()\nfinally:\n    print(*sys.modules.keys() & set(sys.argv_wanted), file=sys.stderr)"
    ).replace("sys.argv_wanted", repr(NOT_FOR_HELP))

    # Whoever measures this process loads a database of his own.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    result = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, env=env)

    assert (result.stderr.split(), "subscriptions" in result.stdout) == ([], True)


def test_a_shell_can_complete_it():
    """With what it is told to source by --show-completion."""
    script = "import sys\nsys.argv[0] = 'callfire-async'\nfrom callfire_async.cli import main\nmain()"
    words = {"_CALLFIRE_ASYNC_COMPLETE": "complete_bash", "COMP_WORDS": "callfire-async subs", "COMP_CWORD": "1"}

    result = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, env=os.environ | words
    )

    assert (result.stdout.split(), "--show-completion" in typed("--help").out) == (["subscriptions"], True)


def test_the_command_serves_the_sandbox(monkeypatch):
    """At the port that was typed."""
    seen = []

    async def run(port, *, as_json):
        seen.append((port, as_json))

    monkeypatch.setattr("callfire_async.cli.commands.sandbox.run", run)

    assert (typed("sandbox", "--port", "5").status, seen) == (0, [(5, False)])
