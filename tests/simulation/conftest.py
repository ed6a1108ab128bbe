"""The simulation needs simloom, which needs Python 3.12."""

import logging
import os
import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def _simloom() -> None:
    if sys.version_info < (3, 12):
        pytest.skip("simloom needs Python 3.12 or newer")
    # In CI, the tests fail without it.
    if "CI" not in os.environ:
        pytest.importorskip("simloom", reason="simloom is not installed")


@pytest.fixture
def first_seed(pytestconfig: pytest.Config, seed: int) -> int:
    """
    Return the seed of the first run.

    It is fixed unless ``--seed`` or ``--torture`` is given, so that only a change of the code can fail a usual run.
    """
    is_given = any(argument.startswith("--seed") for argument in map(str, pytestconfig.invocation_params.args))
    return seed if is_given or pytestconfig.getoption("--torture") else 1000


@pytest.fixture(autouse=True)
def _fast() -> Iterator[None]:
    """Do not log planned failures, which would take longer than the runs."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
