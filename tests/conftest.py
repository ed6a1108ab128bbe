"""What every test may ask of the run: how long it may take, what its chances begin from, and a server of its kind."""

import random
from collections.abc import Iterator

import pytest
from engines.nats import NatsServer, running_nats
from engines.postgres import PostgresServer, running_postgres


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
