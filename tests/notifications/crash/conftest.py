"""Fixtures: receiver processes that are killed after each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from notifications.crash.processes import Processes, free_port, run_processes
from notifications.crash.results import HandlerResults
from notifications.crash.server import Settings


@pytest.fixture
def results(tmp_path: Path) -> HandlerResults:
    return HandlerResults(tmp_path / "journal", tmp_path / "inbox")


@pytest.fixture
async def processes(results: HandlerResults) -> AsyncIterator[Processes]:
    with free_port() as port:
        async with run_processes(Settings(str(results.journal), str(results.inbox), port)) as processes:
            yield processes
