"""A home of one's own, and a CallFire on loopback for commands that are run as a script runs them."""

import asyncio
import threading
from contextlib import closing
from socket import create_server

import pytest
import uvicorn
from cli.typing_commands import TOKEN, CallFireServer, Typed, typed

from callfire_async.testing import FakeCallFire


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Nothing of the machine's own is read or written; credentials and a token are in the environment."""
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
    """One server for all tests of a module, in a thread of its own."""
    serving = CallFireServer()
    with closing(create_server(("127.0.0.1", 0))) as listener:
        serving.port = listener.getsockname()[1]
        inner = uvicorn.Server(uvicorn.Config(serving, lifespan="off", log_config=None))
        thread = threading.Thread(target=asyncio.run, args=(inner.serve(sockets=[listener]),))
        thread.start()
        yield serving
        inner.should_exit = True
        thread.join()


@pytest.fixture
def account(server):
    """An account that is empty at first."""
    server.fake = FakeCallFire()
    server.faults.clear()
    return server


@pytest.fixture
def run(account):
    """Type a command on that account."""

    def run(*arguments: str, **options: str) -> Typed:
        return typed(*arguments, "--base-url", account.base_url, **options)

    return run
