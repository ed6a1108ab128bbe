"""Options and fixtures of all tests: Hypothesis profiles, the seed, servers, and figures printed after the run."""

import gc
import os
import random
import signal
import socket
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import certifi
import pytest
from engines.nats import NatsServer, running_nats
from engines.postgres import PostgresServer, running_postgres
from hypothesis import HealthCheck, settings

# No deadline, and no limit of the time to generate examples: the machine may be busy.
settings.register_profile("untimed", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
# The long form: pytest --hypothesis-profile=torture tests/notifications/inbox
settings.register_profile("torture", settings.get_profile("untimed"), max_examples=5_000)

HERE = Path(__file__).parent
FIGURES = pytest.StashKey[list[str]]()
# Their tests all start servers or kill processes; elsewhere, a decorator marks the test.
SLOW_FOLDERS = frozenset(
    [
        "notifications/crash",
        "notifications/crash/exactly_once",
        "notifications/inbox/jetstream",
        "notifications/inbox/postgres/power",
        "notifications/inbox/sqlite/power",
        "partitions",
        "simulation",
    ]
)
# A test that uses one of these drives a browser or starts a server.
SLOW_FIXTURES = frozenset(["browser", "nats_server", "postgres"])

# A shell starts background jobs with SIGINT ignored, and the tests' subprocesses would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Coverage does not measure the tests' subprocesses, which are killed or have memory limits.
for variable in ("COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START"):
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ.pop(variable, None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--torture", action="store_true", help="run the long forms of the randomized tests")
    parser.addoption("--seed", type=int, help="seed of the randomized tests, to repeat a run")
    parser.addoption(
        "--seeds", type=int, default=40, help="with --torture: number of simulated schedules or recordings, default 40"
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.option.seed is None:
        config.option.seed = random.SystemRandom().randrange(10**6)
    config.stash[FIGURES] = []


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Exclude the modules and the collected tests from garbage collections, each of which would take 0.2 s."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)  # before the tests are selected by their markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE) and is_slow(item):
            item.add_marker(pytest.mark.slow)


def is_slow(item: pytest.Item) -> bool:
    folder = item.path.parent.relative_to(HERE).as_posix()
    return folder in SLOW_FOLDERS or not SLOW_FIXTURES.isdisjoint(getattr(item, "fixturenames", ()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.stash[FIGURES]:
        terminalreporter.section(f"figures of the randomized tests, seed {config.option.seed}")
        terminalreporter.write_line("\n".join(config.stash[FIGURES]))


def pytest_report_header(config: pytest.Config) -> str:
    return f"seed: {config.option.seed}"


@pytest.fixture(scope="session", autouse=True)
def _one_authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Trust one public certificate authority: no test needs one, and each client would load all of them in 0.02 s."""
    certificate, end, _ = Path(certifi.where()).read_text(encoding="ascii").partition("-----END CERTIFICATE-----\n")
    file = tmp_path_factory.mktemp("authority") / "authority.pem"
    file.write_text(certificate + end, encoding="ascii")
    with mock.patch("certifi.where", return_value=str(file)):
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_name_server() -> Iterator[None]:
    """Resolve no name in the domain ``invalid``: a name server may be absent, slow or lose the request."""
    getaddrinfo = socket.getaddrinfo

    def resolve(host: str | bytes | None, *arguments: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host or ""
        if name.endswith(".invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return getaddrinfo(host, *arguments, **options)

    with mock.patch("socket.getaddrinfo", resolve):
        yield


@pytest.fixture
def torture(pytestconfig: pytest.Config) -> bool:
    return pytestconfig.getoption("--torture")


@pytest.fixture
def seeds(pytestconfig: pytest.Config) -> int:
    return pytestconfig.getoption("--seeds")


@pytest.fixture(scope="session")
def seed(pytestconfig: pytest.Config) -> int:
    return pytestconfig.getoption("--seed")


@pytest.fixture
def report_figure(pytestconfig: pytest.Config, request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Return a function that prints a figure after the run."""
    return lambda figure: pytestconfig.stash[FIGURES].append(f"{request.node.name}: {figure}")


@pytest.fixture
def rng(seed: int, request: pytest.FixtureRequest) -> random.Random:
    return random.Random(f"{seed} {request.node.name}")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Run one PostgreSQL server for all tests; each test creates its own schema."""
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def nats_server() -> Iterator[NatsServer]:
    """Run one NATS server for all tests; each test creates its own streams."""
    with running_nats() as server:
        yield server


@pytest.fixture
def collect_garbage() -> Iterator[None]:
    """Collect connections that nats-py drops without closing them, during the test that left them."""
    yield
    gc.collect()
