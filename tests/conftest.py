"""What every test may ask of the run: how long it may take, and what its chances begin from."""

import random

import pytest


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
