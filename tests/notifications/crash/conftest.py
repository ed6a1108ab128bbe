"""Processes that do not outlive their test, and the figures that the tests show at the end."""

import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from notifications.crash.ledger import Ledger
from notifications.crash.processes import Processes, free_port, no_survivors
from notifications.crash.server import Settings

FIGURES = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FIGURES] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.stash[FIGURES]:
        terminalreporter.section(f"receivers killed, stopped and started again, seed {config.option.seed}")
        terminalreporter.write_line("\n".join(config.stash[FIGURES]))


@pytest.fixture
def tell(pytestconfig: pytest.Config, request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Return what shows a figure at the end of the run."""
    return lambda figure: pytestconfig.stash[FIGURES].append(f"{request.node.originalname}: {figure}")


@pytest.fixture
def chance(seed: int, request: pytest.FixtureRequest) -> random.Random:
    return random.Random(f"{seed} {request.node.name}")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "journal", tmp_path / "inbox")


@pytest.fixture
async def processes(ledger: Ledger) -> AsyncIterator[Processes]:
    with free_port() as port:
        async with no_survivors(Settings(str(ledger.journal), str(ledger.inbox), port)) as processes:
            yield processes
