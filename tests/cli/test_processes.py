"""The command as a process: its pipes, its signals, its way to be started."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager

import pytest
import uvicorn
from cli.typing_commands import DEADLINE, TOKEN
from starlette.applications import Starlette

from callfire_async.cli._exit import ErrorHandlingGroup
from callfire_async.cli._server import serve

COMMAND = [sys.executable, "-m", "callfire_async"]


def start(*arguments, **options):
    pipe = subprocess.PIPE
    return subprocess.Popen([*COMMAND, *arguments], stdout=pipe, stderr=pipe, text=True, **options)


def finished(*arguments, **options):
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False, **options)


@pytest.fixture
def sandbox():
    """A sandbox in a process of its own; its base URL."""
    with start("sandbox", "--port", "0", "--json") as process:
        yield json.loads(process.stdout.readline())["base_url"]
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=DEADLINE)
        # The pytest process may ignore SIGINT; being terminated ends it as quietly.
        assert (process.returncode, err) == (130, "")


def test_without_typer_it_says_how_to_install_it(tmp_path):
    """Status 2, and the line that helps."""
    (tmp_path / "typer.py").write_text("raise ModuleNotFoundError(name='typer')")

    ended = finished("--help", env=os.environ | {"PYTHONPATH": str(tmp_path)})

    assert (ended.returncode, "pip install 'callfire-async[cli]'" in ended.stderr) == (2, True)


def test_a_sandbox_posts_texts_back(sandbox, capfd):
    """What is sent to it comes back to whoever has subscribed: sandbox, listen and subscriptions at once."""
    import httpx

    with start("listen", "--port", "0", "--json") as listener:
        endpoint = json.loads(listener.stdout.readline())["endpoint"]
        made = finished(
            *("subscriptions", "create", endpoint.replace("***", "{token}"), "OUTBOUND_TEXT_FINISHED"),
            *("--base-url", sandbox, "--json"),
        )
        with httpx.Client(auth=("login", "password"), trust_env=False) as client:
            client.post(f"{sandbox}/text.json", data={"To": "12135550142", "Message": "Hello"}).raise_for_status()
        event = json.loads(listener.stdout.readline())
        listener.send_signal(signal.SIGINT)
        out, err = listener.communicate(timeout=DEADLINE)

    assert (made.returncode, event["kind"], event["subscription_id"]) == (0, "TextSent", json.loads(made.stdout)["id"])
    assert (listener.returncode, out, err, TOKEN in endpoint) == (130, "", "", False)


def test_a_pipe_that_ends_early_ends_it_quietly():
    """As with head."""
    with start("trigger", "TextSent", "--print", "--count", "2000") as process:
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()

    assert (process.returncode, err) == (1, "")


def test_no_pipe_and_no_colour_make_plain_text(sandbox):
    """Nothing but letters, and no line folded."""
    env = os.environ | {"NO_COLOR": "1", "COLUMNS": "20"}
    long = "https://hooks.example.com/a/very/long/path/to/somewhere"
    finished("subscriptions", "create", f"{long}/x", "CAMPAIGN_STARTED", "--base-url", sandbox)

    shown = finished("subscriptions", "list", "--base-url", sandbox, env=env)

    assert (len(shown.stdout.splitlines()), f"{long}/***" in shown.stdout, "\x1b" in shown.stdout) == (2, True, False)


def test_letters_that_an_encoding_has_not_are_escapes():
    """They end nothing."""
    env = os.environ | {"PYTHONIOENCODING": "ascii", "CALLFIRE_API_PASSWORD": ""}

    shown = finished("doctor", env=env)

    assert "\\u2717 credentials" in shown.stdout


async def broken_off(signal_number):
    async with serve(Starlette()):
        os.kill(os.getpid(), signal_number)
        await asyncio.Event().wait()


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_a_server_is_broken_off_in_order(signal_number):
    """Either signal closes what is open around it, and leaves the handlers as they were."""
    before = signal.getsignal(signal.SIGTERM)

    with pytest.raises((KeyboardInterrupt, asyncio.CancelledError)):
        asyncio.run(broken_off(signal_number))

    assert signal.getsignal(signal.SIGTERM) is before


async def entered(server):
    async with server:
        raise AssertionError("it was served")


async def test_a_server_that_is_broken_off_while_it_starts_is_ended_too():
    """What its application had opened is closed."""
    starting, ready, closed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def lifespan(app):
        starting.set()
        await ready.wait()
        yield
        closed.set()

    async with asyncio.timeout(DEADLINE):
        serving = asyncio.create_task(entered(serve(Starlette(lifespan=lifespan))))
        await starting.wait()
        serving.cancel()
        ready.set()
        await asyncio.wait([serving])

    assert (serving.cancelled(), closed.is_set(), asyncio.all_tasks()) == (True, True, {asyncio.current_task()})


async def test_a_server_that_fails_to_start_says_so(monkeypatch):
    """Nobody waits for it for ever."""

    async def fail(self, sockets=None):
        raise MemoryError

    monkeypatch.setattr(uvicorn.Server, "startup", fail)
    with pytest.raises(MemoryError):
        async with asyncio.timeout(DEADLINE):
            await entered(serve(Starlette()))


def test_an_application_that_fails_to_start_ends_the_process():
    """As uvicorn has it."""

    @asynccontextmanager
    async def lifespan(app):
        raise LookupError
        yield

    with pytest.raises(SystemExit):
        asyncio.run(entered(serve(Starlette(lifespan=lifespan))))


def test_a_background_job_that_ignores_ctrl_c_can_be_terminated():
    """As a shell that is no terminal's starts it."""
    ignoring = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", *COMMAND, "sandbox", "--port", "0", "--json"]
    with subprocess.Popen(ignoring, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        process.terminate()
        _, err = process.communicate(timeout=DEADLINE)

    assert (process.returncode, err) == (130, "")


def test_ctrl_c_is_130():
    """Whatever a command does at that moment."""
    import typer
    from typer.testing import CliRunner

    app = typer.Typer(cls=ErrorHandlingGroup)

    @app.command()
    def one() -> None:
        raise KeyboardInterrupt

    @app.command()
    def other() -> None: ...

    result = CliRunner().invoke(app, ["one"])

    assert (result.exit_code, result.output) == (130, "")
