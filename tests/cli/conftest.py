"""An isolated home directory, and a fake CallFire on localhost."""

import asyncio
import threading
from contextlib import closing
from socket import create_server

import pytest
import uvicorn
from cli.command_runner import TOKEN, CallFireServer, CommandResult, run_command

from callfire_async.testing import FakeCallFire


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Isolate the test from the machine: a home directory, credentials and a token of its own."""
    for name in ("XDG_CONFIG_HOME", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CALLFIRE_API_LOGIN", "login")
    monkeypatch.setenv("CALLFIRE_API_PASSWORD", "password")
    monkeypatch.setenv("CALLFIRE_TOKEN", TOKEN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def server():
    """Serve a fake CallFire in a thread, once for each module."""
    application = CallFireServer()
    with closing(create_server(("127.0.0.1", 0))) as listener:
        application.port = listener.getsockname()[1]
        inner = uvicorn.Server(uvicorn.Config(application, lifespan="off", log_config=None))
        thread = threading.Thread(target=asyncio.run, args=(inner.serve(sockets=[listener]),))
        thread.start()
        yield application
        inner.should_exit = True
        thread.join()


@pytest.fixture
def account(server):
    """Provide an empty account."""
    server.fake = FakeCallFire()
    server.faults.clear()
    return server


@pytest.fixture
def run(account):
    """Run commands on that account."""

    def run(*arguments: str, **options: str) -> CommandResult:
        return run_command(*arguments, "--base-url", account.base_url, **options)

    return run
