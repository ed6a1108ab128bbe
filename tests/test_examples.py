"""The folders in `examples`: their own tests, the services as processes, and what starts them elsewhere."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
import tomllib
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import asyncpg
import httpx
import pytest
import yaml
from engines.nats import running_cluster

from callfire_async.testing import make_call_finished

EXAMPLES = Path(__file__).parent.parent / "examples"
SERVICES = {
    "fastapi": ["uvicorn", "--factory", "service.app:create_app", "--timeout-graceful-shutdown", "10", "--port"],
    "aiohttp": ["service"],
}
#: What the two services have in common, so that whoever reads one has read both.
SHARED = ["__init__.py", "settings.py", "inboxes.py", "ledger.py", "handlers.py", "subscribe.py"]
COMPOSE_FILES = sorted(EXAMPLES.glob("*/compose*.yaml"))
DEADLINE_SECONDS = 60
TOKEN = "a-token-for-tests-only"

each_service = pytest.mark.parametrize("name", SERVICES)
each_compose_file = pytest.mark.parametrize("path", COMPOSE_FILES, ids=lambda path: f"{path.parent.name}/{path.name}")


def run(*command, folder):
    """Run a Python program to its end."""
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS * 2,
        check=False,
    )


@each_service
def test_a_services_own_tests_pass(name):
    """As whoever copies the folder runs them."""
    result = run("-m", "pytest", "-q", "-p", "no:cacheprovider", folder=EXAMPLES / name)

    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("file", SHARED)
def test_the_services_differ_in_the_framework_only(file):
    """All else is one text."""
    one, other = ((EXAMPLES / name / "service" / file).read_text() for name in SERVICES)

    assert one == other


# --- as a process -----------------------------------------------------------------------------------------


@pytest.fixture
def dsn(postgres):
    """A database of the test's own, since the examples choose no schema."""
    name = f"examples_{uuid4().hex}"

    async def make():
        connection = await asyncpg.connect(postgres.dsn())
        await connection.execute(f"CREATE DATABASE {name}")
        await connection.close()

    asyncio.run(make())
    return postgres.dsn(database=name)


@pytest.fixture(params=["files", "postgres"])
def state(request, tmp_path):
    """Where a service keeps what it has, in its own settings."""
    if request.param == "files":
        database = f"sqlite+aiosqlite:///{tmp_path / 'ledger.db'}"
        return {"CALLFIRE_INBOX": str(tmp_path / "inbox.db"), "DATABASE_URL": database}
    dsn = request.getfixturevalue("dsn")
    return {
        "CALLFIRE_INBOX": dsn,
        "CALLFIRE_SPOOL": str(tmp_path / "spool.db"),
        "DATABASE_URL": dsn.replace("postgresql:", "postgresql+asyncpg:"),
    }


@contextmanager
def serving(name, state):
    """Start a service; yield where it listens; stop it as a deployment would."""
    port = free_port()
    command = SERVICES[name] + ([str(port)] if name == "fastapi" else [])
    environment = state | {"CALLFIRE_TOKEN": TOKEN, "PORT": str(port)}
    process = subprocess.Popen([sys.executable, "-m", *command], cwd=EXAMPLES / name, env=os.environ | environment)
    try:
        url = f"http://127.0.0.1:{port}"
        answered(url, process)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        status = process.wait(DEADLINE_SECONDS)
    # uvicorn ends by the signal that it was sent, once it has stopped.
    assert status in (0, -signal.SIGTERM)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answered(url, process):
    """Wait until the service answers."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        assert process.poll() is None, "the service ended"
        assert time.monotonic() < deadline
        try:
            return httpx.get(f"{url}/health", trust_env=False)
        except httpx.TransportError:
            time.sleep(0.05)


def until(url, expected):
    """Ask until the answer is the expected one."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while (answer := httpx.get(url, trust_env=False).json()) != expected:
        assert time.monotonic() < deadline, answer
        time.sleep(0.05)


@each_service
def test_a_service_books_what_is_posted_and_keeps_it(name, state):
    """Started anew, it has what it had, and an event that comes again is booked no more."""
    call = make_call_finished(broadcast_id=7)

    for body in (call.to_xml(), call.to_json()):
        with serving(name, state) as url:
            assert httpx.post(f"{url}/callfire/{TOKEN}", content=body, trust_env=False).status_code == 204
            until(f"{url}/health", {"healthy": True, "reasons": []})
            until(f"{url}/broadcasts/7/spent", {"credits": 1.0})


# --- three receivers --------------------------------------------------------------------------------------


def test_three_receivers_share_the_work():
    """In a folder of files, with no server."""
    result = run("run_local.py", folder=EXAMPLES / "scale-out")

    assert result.returncode == 0, result.stderr
    assert "300 posted, 300 acknowledged, 300 handled" in result.stdout


def test_three_receivers_share_an_inbox_in_postgresql(dsn):
    """Whoever has taken a postback, any of them handles it."""
    result = run("run_local.py", dsn, folder=EXAMPLES / "scale-out")

    assert result.returncode == 0, result.stdout + result.stderr
    assert "300 posted, 300 acknowledged, 300 handled" in result.stdout


def test_three_receivers_share_a_jetstream_cluster():
    """Likewise, with three servers and each delivery on all of them."""
    with running_cluster() as servers:
        result = run("run_local.py", ",".join(server.url() for server in servers), folder=EXAMPLES / "scale-out")

    assert result.returncode == 0, result.stdout + result.stderr
    assert "300 posted, 300 acknowledged, 300 handled" in result.stdout


# --- containers -------------------------------------------------------------------------------------------


@each_compose_file
def test_a_compose_file_names_what_there_is(path):
    """Services, volumes, files and settings that are mentioned exist."""
    described = yaml.safe_load(path.read_text())
    services = described["services"]
    sources = "".join(source.read_text() for source in path.parent.rglob("*.py"))

    for service in services.values():
        assert set(service.get("depends_on", ())) <= set(services)
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert (path.parent / source).is_file() if source.startswith(".") else source in described["volumes"]
        if "build" in service:
            assert (path.parent / service["build"] / "Dockerfile").is_file()
            assert all(name in sources or name.startswith("CALLFIRE_API_") for name in service["environment"])
        else:
            assert re.fullmatch(r"[a-z]+:[0-9.]+", service["image"])


@each_compose_file
def test_a_compose_file_waits_for_handlers(path):
    """What is stopped gets more time than the receiver gives its handlers."""
    services = yaml.safe_load(path.read_text())["services"].values()

    built = [service for service in services if "build" in service and "profiles" not in service]

    assert all(int(service["stop_grace_period"].removesuffix("s")) > 20 for service in built)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*/Dockerfile")), ids=lambda path: path.parent.name)
def test_a_container_runs_as_nobody_in_particular(path):
    """Not as root, without a shell that would keep SIGTERM, and with files that are there."""
    lines = path.read_text().splitlines()
    copied = [line.split()[1:-1] for line in lines if line.startswith("COPY")]

    assert "USER service" in lines
    assert lines[-1].startswith("CMD [")
    assert all((path.parent / source).exists() for sources in copied for source in sources)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*/requirements.txt")), ids=lambda path: path.parent.name)
def test_what_is_required_can_be_had(path):
    """The extras that are named are the package's own."""
    pyproject = tomllib.loads((EXAMPLES.parent / "pyproject.toml").read_text())
    (extras,) = re.findall(r"^callfire-async\[(.*)\]$", path.read_text(), re.MULTILINE)

    assert set(extras.split(",")) <= set(pyproject["project"]["optional-dependencies"])
