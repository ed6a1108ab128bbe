"""The command as a process: pipes and signals."""

import asyncio
import errno
import json
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager

import pytest
import uvicorn
from cli.command_runner import DEADLINE, TOKEN
from starlette.applications import Starlette
from starlette.routing import Route

from callfire_async.cli._exit import ErrorHandlingGroup
from callfire_async.inspector._server import serve

COMMAND = [sys.executable, "-m", "callfire_async"]


def start(*arguments, **options):
    pipe = subprocess.PIPE
    return subprocess.Popen([*COMMAND, *arguments], stdout=pipe, stderr=pipe, text=True, **options)


def run_to_end(*arguments, **options):
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False, **options)


@pytest.fixture
def sandbox():
    """Run a sandbox in another process; return its base URL."""
    with start("sandbox", "--port", "0", "--json") as process:
        yield json.loads(process.stdout.readline())["base_url"]
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=DEADLINE)
        # SIGTERM, since the pytest process may ignore SIGINT and pass that on.
        assert (process.returncode, err) == (130, "")


def test_missing_typer_is_reported(tmp_path):
    """Without Typer the process exits with status 2 and prints how to install the extra."""
    (tmp_path / "typer.py").write_text("raise ModuleNotFoundError(name='typer')")

    result = run_to_end("--help", env=os.environ | {"PYTHONPATH": str(tmp_path)})

    assert (result.returncode, "pip install 'callfire-async[cli]'" in result.stderr) == (2, True)


@pytest.mark.slow
def test_sandbox_posts_to_listen(sandbox, capfd):
    """A text sent to a sandbox is posted to a subscribed `listen`."""
    import httpx

    with start("listen", "--port", "0", "--json") as listener:
        endpoint = json.loads(listener.stdout.readline())["endpoint"]
        created = run_to_end(
            *("subscriptions", "create", endpoint.replace("***", "{token}"), "OUTBOUND_TEXT_FINISHED"),
            *("--base-url", sandbox, "--json"),
        )
        with httpx.Client(auth=("login", "password"), trust_env=False) as client:
            client.post(f"{sandbox}/text.json", data={"To": "12135550142", "Message": "Hello"}).raise_for_status()
        event = json.loads(listener.stdout.readline())
        listener.send_signal(signal.SIGINT)
        out, err = listener.communicate(timeout=DEADLINE)

    assert (created.returncode, event["kind"], event["subscription_id"]) == (
        0,
        "TextSent",
        json.loads(created.stdout)["id"],
    )
    assert (listener.returncode, out, err, TOKEN in endpoint) == (130, "", "", False)


def test_closed_pipe_is_quiet():
    """A closed pipe, as with `head`, ends the command without an error message."""
    with start("trigger", "TextSent", "--print", "--count", "2000") as process:
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()

    assert (process.returncode, err) == (1, "")


@pytest.mark.slow
def test_closed_pipe_ends_listen():
    """`listen` ends at the next event after its standard output was closed, without an error message."""
    with start("listen", "--port", "0", "--json") as listener:
        endpoint = json.loads(listener.stdout.readline())["endpoint"].replace("***", "{token}")
        listener.stdout.close()
        posted = run_to_end("trigger", "TextSent", "--to", endpoint)
        err = listener.stderr.read()

    assert (posted.returncode, listener.returncode, err) == (0, 1, "")


@pytest.mark.slow
def test_pipe_gets_plain_unfolded_text(sandbox):
    """Output to a pipe has no colour codes, and long lines are not folded."""
    env = os.environ | {"NO_COLOR": "1", "COLUMNS": "20"}
    long = "https://hooks.example.com/a/very/long/path/to/somewhere"
    run_to_end("subscriptions", "create", f"{long}/x", "CAMPAIGN_STARTED", "--base-url", sandbox)

    shown = run_to_end("subscriptions", "list", "--base-url", sandbox, env=env)

    assert (len(shown.stdout.splitlines()), f"{long}/***" in shown.stdout, "\x1b" in shown.stdout) == (2, True, False)


def test_characters_outside_the_encoding_are_escaped():
    """Characters that the encoding of standard output lacks are printed as escapes."""
    env = os.environ | {"PYTHONIOENCODING": "ascii", "CALLFIRE_API_PASSWORD": ""}

    shown = run_to_end("doctor", env=env)

    assert "\\u2717 credentials" in shown.stdout


async def raise_signal(signal_number):
    async with serve(Starlette()):
        os.kill(os.getpid(), signal_number)
        await asyncio.Event().wait()


@pytest.mark.slow
@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_signals_close_the_server_cleanly(signal_number):
    """SIGINT and SIGTERM exit all contexts and restore the signal handlers."""
    before = signal.getsignal(signal.SIGTERM)

    with pytest.raises((KeyboardInterrupt, asyncio.CancelledError)):
        asyncio.run(raise_signal(signal_number))

    assert signal.getsignal(signal.SIGTERM) is before


async def interrupt_twice(exited):
    """Interrupt the server twice while a request never gets its response."""
    started = asyncio.Event()

    async def hang(_):
        started.set()
        await asyncio.Event().wait()

    @asynccontextmanager
    async def lifespan(_):
        yield
        exited.append(True)

    async with serve(Starlette(routes=[Route("/", hang)], lifespan=lifespan)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await started.wait()
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        await reader.read()
        writer.close()
        await asyncio.Event().wait()


@pytest.mark.slow
def test_second_ctrl_c_cancels_requests(capsys):
    """A request that hangs is cancelled without a traceback, and the application is shut down."""
    exited = []

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(asyncio.wait_for(interrupt_twice(exited), DEADLINE))

    assert (exited, capsys.readouterr().err) == ([True], "")


async def enter(server):
    async with server:
        raise AssertionError("the server has started")


async def test_cancellation_during_startup_closes_the_application():
    """A server that is cancelled during its startup still runs the shutdown of its application."""
    starting, ready, closed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def lifespan(app):
        starting.set()
        await ready.wait()
        yield
        closed.set()

    async with asyncio.timeout(DEADLINE):
        serving = asyncio.create_task(enter(serve(Starlette(lifespan=lifespan))))
        await starting.wait()
        serving.cancel()
        ready.set()
        await asyncio.wait([serving])

    assert (serving.cancelled(), closed.is_set(), asyncio.all_tasks()) == (True, True, {asyncio.current_task()})


async def test_startup_error_is_raised(monkeypatch):
    """An error during the startup of the server is raised, not waited for."""

    async def fail(self, sockets=None):
        raise MemoryError

    monkeypatch.setattr(uvicorn.Server, "startup", fail)
    with pytest.raises(MemoryError):
        async with asyncio.timeout(DEADLINE):
            await enter(serve(Starlette()))


def test_application_startup_error_exits():
    """An application that fails to start ends the process, as in uvicorn."""

    @asynccontextmanager
    async def lifespan(app):
        raise LookupError
        yield

    with pytest.raises(SystemExit):
        asyncio.run(enter(serve(Starlette(lifespan=lifespan))))


@pytest.mark.slow
def test_sigterm_ends_a_background_job():
    """SIGTERM ends a process that was started with SIGINT ignored."""
    ignoring = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", *COMMAND, "sandbox", "--port", "0", "--json"]
    with subprocess.Popen(ignoring, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        process.terminate()
        _, err = process.communicate(timeout=DEADLINE)

    assert (process.returncode, err) == (130, "")


def test_error_of_the_system_is_one_line():
    """An error of the system is printed with its file, and exits with status 1."""
    import typer
    from typer.testing import CliRunner

    app = typer.Typer(cls=ErrorHandlingGroup)

    @app.command()
    def read(file: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", file or None)

    @app.command()
    def unused() -> None: ...

    results = [CliRunner().invoke(app, ["read", file]) for file in ("notes", "")]

    assert [(result.exit_code, result.stderr) for result in results] == [
        (1, "error: notes: Permission denied\n"),
        (1, "error: [Errno 13] Permission denied\n"),
    ]


def test_a_closed_pipe_ends_a_command_without_a_message():
    """As with ``callfire-async parse --help | head -1``."""
    import typer
    from typer.testing import CliRunner

    app = typer.Typer(cls=ErrorHandlingGroup)

    @app.command()
    def write() -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    @app.command()
    def unused() -> None: ...

    result = CliRunner().invoke(app, ["write"])

    assert (result.exit_code, result.output) == (1, "")


@pytest.mark.slow
def test_ctrl_c_is_status_130():
    """Ctrl-C ends a command with status 130 and no output."""
    import typer
    from typer.testing import CliRunner

    app = typer.Typer(cls=ErrorHandlingGroup)

    @app.command()
    def interrupted() -> None:
        raise KeyboardInterrupt

    @app.command()
    def unused() -> None: ...

    result = CliRunner().invoke(app, ["interrupted"])

    assert (result.exit_code, result.output) == (130, "")
