"""What every test may ask of the run: how long it may take, what its chances begin from, and a server of its kind."""

import os
import random
import signal
from collections.abc import Iterator

import pytest
from engines.nats import NatsServer, running_nats
from engines.postgres import PostgresServer, running_postgres
from hypothesis import settings

# No example is held to the clock: the machine may be busy with others.
settings.register_profile("untimed", settings.default, deadline=None)
settings.load_profile("untimed")
# The long form: pytest --hypothesis-profile=torture tests/notifications/inbox
settings.register_profile("torture", max_examples=5_000, deadline=None)

# Whoever starts the tests in the background has them ignore Ctrl-C; the programs that they start are to hear it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Where the tests are measured, the processes that they start are not: those are killed, and held to limits of memory.
for variable in ("COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START"):
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ.pop(variable, None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--torture", action="store_true", help="run the long forms of the tests that search for losses")
    parser.addoption("--seed", type=int, help="what the searches for losses begin from, to repeat a run")


def pytest_configure(config: pytest.Config) -> None:
    if config.option.seed is None:
        config.option.seed = random.SystemRandom().randrange(10**6)


def pytest_report_header(config: pytest.Config) -> str:
    return f"seed: {config.option.seed}"


@pytest.fixture
def torture(pytestconfig: pytest.Config) -> bool:
    return pytestconfig.getoption("--torture")


@pytest.fixture(scope="session")
def seed(pytestconfig: pytest.Config) -> int:
    return pytestconfig.getoption("--seed")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Run one PostgreSQL for all tests; each makes a schema of its own in it."""
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def nats_server() -> Iterator[NatsServer]:
    """Run one NATS for all tests; each makes streams of its own in it."""
    with running_nats() as server:
        yield server
