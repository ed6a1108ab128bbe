"""The folders in `examples`: the service's own tests, the services as processes, and their deployment files."""

import asyncio
import os
import re
import signal
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
from engines.ports import reserve_port

from callfire_async.testing import make_call_finished

EXAMPLES = Path(__file__).parent.parent / "examples"
FRONT_ENDS = ("service.app_fastapi", "service.app_aiohttp")
COMPOSE_FILES = sorted(EXAMPLES.glob("*/compose*.yaml"))
TIMEOUT_SECONDS = 180
TOKEN = "a-token-for-tests-only"

each_compose_file = pytest.mark.parametrize("path", COMPOSE_FILES, ids=lambda path: f"{path.parent.name}/{path.name}")


def run(*command, folder):
    """Run a Python program until it exits."""
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS * 2,
        check=False,
    )


@pytest.mark.slow
def test_the_services_own_tests_pass():
    """They run in the example's folder, as in a copy of it."""
    result = run("-m", "pytest", "-q", "-p", "no:cacheprovider", folder=EXAMPLES / "service")

    assert result.returncode == 0, result.stdout


# --- the service as a process -----------------------------------------------------------------------------


@pytest.fixture
def dsn(postgres):
    """Return the DSN of a database for this test, because the examples choose no schema."""
    name = f"examples_{uuid4().hex}"

    async def create():
        connection = await asyncpg.connect(postgres.dsn())
        await connection.execute(f"CREATE DATABASE {name}")
        await connection.close()

    asyncio.run(create())
    return postgres.dsn(database=name)


@pytest.fixture(params=["files", "postgres"])
def storage(request, tmp_path):
    """Return the settings of a service's inbox and database."""
    if request.param == "files":
        database = f"sqlite+aiosqlite:///{tmp_path / 'costs.db'}"
        return {"CALLFIRE_INBOX": str(tmp_path / "inbox.db"), "DATABASE_URL": database}
    dsn = request.getfixturevalue("dsn")
    return {
        "CALLFIRE_INBOX": dsn,
        "CALLFIRE_SPOOL": str(tmp_path / "spool.db"),
        "DATABASE_URL": dsn.replace("postgresql:", "postgresql+asyncpg:"),
    }


@contextmanager
def serving(module, storage):
    """Start a service, yield its URL, and stop it with SIGTERM."""
    port = reserve_port()
    environment = os.environ | storage | {"CALLFIRE_TOKEN": TOKEN, "PORT": str(port)}
    process = subprocess.Popen([sys.executable, "-m", module], cwd=EXAMPLES / "service", env=environment)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_listening(url, process)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        status = process.wait(TIMEOUT_SECONDS)
    # uvicorn sends itself the signal again after its shutdown.
    assert status in (0, -signal.SIGTERM)


def wait_until_listening(url, process):
    """Wait until the service responds."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while True:
        assert process.poll() is None, "the service exited"
        assert time.monotonic() < deadline
        try:
            return httpx.get(f"{url}/health/live", trust_env=False, timeout=TIMEOUT_SECONDS)
        except httpx.TransportError:
            time.sleep(0.05)


def wait_for(url, is_expected):
    """Send requests until the response is the expected one."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not is_expected(response := httpx.get(url, trust_env=False, timeout=TIMEOUT_SECONDS)):
        assert time.monotonic() < deadline, response.text
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("module", FRONT_ENDS)
def test_a_service_records_each_event_once_across_restarts(module, storage):
    """After a restart its data is still there, and a repeated event is not recorded again."""
    call = make_call_finished(broadcast_id=7)

    for body in (call.to_xml(), call.to_json()):
        with serving(module, storage) as url:
            response = httpx.post(f"{url}/callfire/{TOKEN}", content=body, trust_env=False, timeout=TIMEOUT_SECONDS)
            assert response.status_code == 204
            for path in ("/health", "/health/live", "/health/ready"):
                wait_for(f"{url}{path}", lambda response: (response.status_code, response.text) == (200, "ok\n"))
            wait_for(f"{url}/broadcasts/7/cost", lambda response: response.json() == {"credits": 1.0})


# --- three receivers --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_three_receivers_share_the_work():
    """They share a directory of files, without a server."""
    result = run("run_local.py", folder=EXAMPLES / "scale-out")

    assert result.returncode == 0, result.stderr
    assert "300 posted, 300 acknowledged, 300 handled" in result.stdout


@pytest.mark.slow
def test_three_receivers_share_an_inbox_in_postgresql(dsn):
    """Any receiver handles a delivery, whichever accepted it."""
    result = run("run_local.py", dsn, folder=EXAMPLES / "scale-out")

    assert result.returncode == 0, result.stdout + result.stderr
    assert "300 posted, 300 acknowledged, 300 handled" in result.stdout


@pytest.mark.slow
def test_three_receivers_share_a_jetstream_cluster():
    """Each delivery is on three servers."""
    with running_cluster() as servers:
        result = run("run_local.py", ",".join(server.url() for server in servers), folder=EXAMPLES / "scale-out")

    assert result.returncode == 0, result.stdout + result.stderr
    assert "300 posted, 300 acknowledged, 300 handled" in result.stdout


def test_haproxy_checks_readiness():
    """`/health` would take all receivers out of the load balancer after one dead letter."""
    lines = (EXAMPLES / "scale-out" / "haproxy.cfg").read_text().splitlines()

    assert [line.split() for line in lines if "httpchk" in line] == [["option", "httpchk", "GET", "/health/ready"]]


# --- containers -------------------------------------------------------------------------------------------


@each_compose_file
def test_a_compose_file_names_existing_things(path):
    """The services, volumes, files, build targets and settings that it mentions exist."""
    described = yaml.safe_load(path.read_text())
    services = described["services"]
    sources = "".join(source.read_text() for source in path.parent.rglob("*.py"))

    for service in services.values():
        assert set(service.get("depends_on", ())) <= set(services)
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert (path.parent / source).is_file() if source.startswith(".") else source in described["volumes"]
        if "build" in service:
            check_build(path.parent, service["build"])
            assert all(name in sources or name.startswith("CALLFIRE_API_") for name in service["environment"])
        else:
            assert re.fullmatch(r"[a-z]+:[0-9.]+", service["image"])


def check_build(folder, build):
    """Check the context, and the target if the Dockerfile has several."""
    build = {"context": build} if isinstance(build, str) else build
    dockerfile = (folder / build["context"] / "Dockerfile").read_text()
    if "target" in build:
        (default,) = re.findall(r"\$\{FRAMEWORK:-(\w+)\}", build["target"])
        assert dockerfile.splitlines()[-2] == f"FROM base AS {default}"


@each_compose_file
def test_a_compose_file_waits_for_handlers(path):
    """The stop grace period is longer than the receiver's shutdown timeout."""
    services = yaml.safe_load(path.read_text())["services"].values()

    built = [service for service in services if "build" in service and "profiles" not in service]

    assert all(int(service["stop_grace_period"].removesuffix("s")) > 20 for service in built)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*/Dockerfile")), ids=lambda path: path.parent.name)
def test_a_container_does_not_run_as_root(path):
    """It has a user of its own, no shell that would keep SIGTERM from the server, and copies existing files."""
    lines = path.read_text().splitlines()
    copied = [line.split()[1:-1] for line in lines if line.startswith("COPY")]
    commands = [line for line in lines if line.startswith("CMD")]

    assert "USER service" in lines
    assert lines[-1] == commands[-1]
    assert all(command.startswith("CMD [") for command in commands)
    assert all((path.parent / source).exists() for sources in copied for source in sources)


@pytest.mark.parametrize("module", FRONT_ENDS)
def test_each_front_end_has_a_container(module):
    """The Dockerfile has a stage that starts it."""
    lines = (EXAMPLES / "service" / "Dockerfile").read_text().splitlines()

    stage = lines[lines.index(f'CMD ["python", "-m", "{module}"]') - 1]

    assert stage == f"FROM base AS {module.removeprefix('service.app_')}"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*/requirements.txt")), ids=lambda path: path.parent.name)
def test_the_required_extras_exist(path):
    """The extras that are named are the package's own."""
    pyproject = tomllib.loads((EXAMPLES.parent / "pyproject.toml").read_text())
    (extras,) = re.findall(r"^callfire-async\[(.*)\]$", path.read_text(), re.MULTILINE)

    assert set(extras.split(",")) <= set(pyproject["project"]["optional-dependencies"])
