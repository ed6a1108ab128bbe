"""Fixtures: receiver processes that are killed after each test, and figures that are printed after the run."""

import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from notifications.crash.processes import Processes, free_port, run_processes
from notifications.crash.results import HandlerResults
from notifications.crash.server import Settings

FIGURES = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FIGURES] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.stash[FIGURES]:
        terminalreporter.section(f"receivers killed, stopped and restarted, seed {config.option.seed}")
        terminalreporter.write_line("\n".join(config.stash[FIGURES]))


@pytest.fixture
def report_figure(pytestconfig: pytest.Config, request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Return a function that prints a figure after the run."""
    return lambda figure: pytestconfig.stash[FIGURES].append(f"{request.node.originalname}: {figure}")


@pytest.fixture
def rng(seed: int, request: pytest.FixtureRequest) -> random.Random:
    return random.Random(f"{seed} {request.node.name}")


@pytest.fixture
def results(tmp_path: Path) -> HandlerResults:
    return HandlerResults(tmp_path / "journal", tmp_path / "inbox")


@pytest.fixture
async def processes(results: HandlerResults) -> AsyncIterator[Processes]:
    with free_port() as port:
        async with run_processes(Settings(str(results.journal), str(results.inbox), port)) as processes:
            yield processes
