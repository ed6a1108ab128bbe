"""Requirements for all commands: a help with a working example, JSON output and few imports."""

import asyncio
import os
import re
import shlex
import subprocess
import sys
from importlib.metadata import version

import httpx
import pytest
import respx
from cli.command_runner import DEADLINE, run_command
from typer.main import get_command

from callfire_async.cli.app import LazyCommand, app
from callfire_async.models import TriggerEvent, WebhookResource
from callfire_async.notifications import Delivery, SqliteInbox
from callfire_async.testing import FakeCallFire, encode, make_text_received

CALLFIRE = ("https://www.callfire.com/api/1.1/rest", "https://api.callfire.com/v2")
NOT_FOR_HELP = "uvicorn starlette sqlite3 callfire_async.testing callfire_async.notifications.receiver".split()
SERVERS = ("inspect", "listen", "sandbox")


def commands(group=None, path=()):
    """Yield every command with its path."""
    for name, registered in (group or get_command(app)).commands.items():
        command = registered.load() if isinstance(registered, LazyCommand) else registered
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(commands())


def example_of(command):
    """Return the arguments of the example in a command's help."""
    return shlex.split(re.fullmatch(r"Example: `callfire-async (.*)`", command.epilog)[1])


async def fill(path):
    async with SqliteInbox(path) as inbox:
        await inbox.append(Delivery(encode(make_text_received())[1]))
        for lease in await inbox.claim(1, lease=60):
            await inbox.dead_letter(lease, "why")


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """Provide everything that the examples use: an account, files and a service."""
    for name in ("callfire.db", "backups/callfire.db"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        asyncio.run(fill(tmp_path / name))
    (tmp_path / "postback.xml").write_bytes(encode(make_text_received())[1])
    (tmp_path / "subscriptions.toml").write_text(
        "endpoint = 'https://hooks.example.com/callfire/{token}'\n"
        "[[subscriptions]]\ntrigger_event = 'CAMPAIGN_STARTED'\n"
    )
    (tmp_path / "webhooks.toml").write_text(
        "callback = 'https://hooks.example.com/callfire/{token}'\n[[webhooks]]\nresource = 'InboundText'\n"
    )
    (tmp_path / "service.py").write_text(
        "from callfire_async.notifications import Notification, Router\nrouter = Router()\n"
        "@router.on(Notification)\nasync def handle(event): ...\n"
    )
    monkeypatch.syspath_prepend("")
    monkeypatch.delitem(sys.modules, "service", raising=False)
    fake = FakeCallFire()
    asyncio.run(subscribe(fake))
    transport = httpx.ASGITransport(fake)
    with respx.mock(assert_all_called=False) as network:
        for base_url in CALLFIRE:
            network.route(url__startswith=base_url).mock(side_effect=transport.handle_async_request)
        network.route(host="127.0.0.1").pass_through()
        yield


async def subscribe(fake):
    async with fake.client() as callfire:
        created = await callfire.subscriptions.create("https://example.com/x", TriggerEvent.CAMPAIGN_STARTED)
        assert created.id == 609951003
        created = await callfire.webhooks.create("https://example.com/x", WebhookResource.INBOUND_CALL)
        assert created.id == 7420600003


@pytest.mark.parametrize("path", [path for path in COMMANDS if path[-1] not in SERVERS], ids=" ".join)
def test_example_of_a_command_works(path, environment):
    """The example in the help of a command runs successfully."""
    words = example_of(COMMANDS[path])
    if path == ("demo",):
        words[words.index("--events") + 1] = "20"
        words[words.index("--crash") + 1] = "0"
    if path == ("doctor",):
        words = [word.replace("https://hooks.example.com", "http://127.0.0.1:9") for word in words]
    result = run_command(*words)

    # The endpoint of doctor's example does not exist.
    assert (words[: len(path)], result.status) == ([*path], 1 if path == ("doctor",) else 0), result


@pytest.mark.slow
@pytest.mark.parametrize("command", SERVERS)
def test_example_of_a_server_works(command, tmp_path):
    """A server prints a line once it is ready, and exits with status 130 and no error on Ctrl-C."""
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
def test_commands_have_json_output(path):
    """Every command except the demo has the option --json."""
    options = {name for parameter in COMMANDS[path].params for name in parameter.opts}

    assert ("--json" in options) is (path != ("demo",))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_commands_have_help_with_an_example(path):
    """The help of every command contains an example, also in a narrow terminal."""
    result = run_command(*path, "--help", env={"COLUMNS": "40", "TERM": "dumb"})

    assert (result.status, "Example:" in result.out) == (0, True)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_the_example_comes_before_the_details(path):
    """The help begins with the usage, the summary and the example."""
    command = COMMANDS[path]
    shown = " ".join(run_command(*path, "-h", env={"COLUMNS": "200", "TERM": "dumb"}).out.split())
    summary = command.help.splitlines()[0].replace("`", "")

    assert shown.index(f"{summary} Example: callfire-async {' '.join(path)}") < shown.index("Options")
    assert shown.count("Example:") == 1


def test_commands_are_in_groups():
    """The help of the program and of each group has a heading for each kind of command."""
    groups = [(), *{path[:1] for path in COMMANDS if len(path) > 1}]
    shown = {group: run_command(*group, "--help", env={"COLUMNS": "100"}).out for group in groups}

    headings = {group: re.findall(r"^╭─ ([\w ]+?) ─", out, re.MULTILINE)[1:] for group, out in shown.items()}
    assert headings == {
        (): ["Development", "Service", "Account"],
        ("inbox",): ["Inspect", "Change", "Back up"],
        ("subscriptions",): ["Single subscriptions", "Files of subscriptions"],
        ("webhooks",): ["Single webhooks", "Files of webhooks", "Migration"],
    }


def test_version():
    """--version prints the version of the package."""
    assert run_command("--version") == (0, f"callfire-async {version('callfire-async')}\n", "")


def test_help_imports_no_heavy_modules():
    """--help imports no server, no database and no testing module."""
    script = (
        "import sys\nsys.argv = ['callfire-async', '--help']\nfrom callfire_async.cli import main\n"
        "try:\n    main()\nfinally:\n    print(*sys.modules.keys() & set(sys.argv_wanted), file=sys.stderr)"
    ).replace("sys.argv_wanted", repr(NOT_FOR_HELP))

    # Coverage measurement imports sqlite3.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    result = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, env=env)

    assert (result.stderr.split(), "subscriptions" in result.stdout) == ([], True)


@pytest.mark.parametrize("name", dict(get_command(app).commands))
def test_summary_is_the_first_line_of_the_help(name):
    """The summary that `--help` shows without an import is the first line of the command's help."""
    registered = get_command(app).commands[name]

    assert registered.help == registered.load().help.splitlines()[0]


def test_shell_completion():
    """The completion script completes the name of a command."""
    script = "import sys\nsys.argv[0] = 'callfire-async'\nfrom callfire_async.cli import main\nmain()"
    words = {"_CALLFIRE_ASYNC_COMPLETE": "complete_bash", "COMP_WORDS": "callfire-async subs", "COMP_CWORD": "1"}

    result = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, env=os.environ | words
    )

    assert (result.stdout.split(), "--show-completion" in run_command("--help").out) == (["subscriptions"], True)


def test_sandbox_passes_its_options(monkeypatch):
    """The sandbox listens on the port of its option."""
    calls = []

    async def run(_, port, *, as_json):
        calls.append((port, as_json))

    monkeypatch.setattr("callfire_async.cli.commands.sandbox.run", run)

    assert (run_command("sandbox", "--port", "5").status, calls) == (0, [(5, False)])


def test_help_without_docstrings(tmp_path):
    """`python -OO` removes docstrings, and no help."""
    script = (
        "from callfire_async.cli.app import LazyCommand, app\n"
        "from typer.main import get_command\n"
        "def show(command):\n"
        "    command = command.load() if isinstance(command, LazyCommand) else command\n"
        "    print(repr(command.help))\n"
        "    for name in sorted(getattr(command, 'commands', {})): show(command.commands[name])\n"
        "show(get_command(app))\n"
    )
    plain, optimized = (
        subprocess.run([sys.executable, *options, "-c", script], check=True, capture_output=True, text=True).stdout
        for options in ([], ["-OO"])
    )

    assert "None" not in plain
    assert optimized == plain
